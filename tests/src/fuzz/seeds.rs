//! The seeds of the fuzz targets: small valid inputs from which mutations begin.
//!
//! `cargo test -p bulkhead-tests --test fuzz -- --ignored` writes them to `tests/corpus`, which is checked in together
//! with every input on which a target once failed.

use bulkhead_proto::client::frame::{Hello, push_frame};
use bulkhead_proto::client::message::{Reply, ReplyFrame, Request, RequestFrame, Walk};
use bulkhead_proto::codec;
use bulkhead_proto::ids::{JobId, Seq, Tag};
use bulkhead_proto::worker::boxes::{self, ClaimState, ClaimWord, STATUS_AT, WORD_AT};
use bulkhead_proto::worker::message::{LaneUp, StackText, Tasks};

use crate::wire::submit;

/// The seeds of a target, by its name.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "frames" => frames(),
        "lane" => lane(),
        "ring" => ring(),
        _ => config(),
    }
}

fn frames() -> Vec<Vec<u8>> {
    let jobs = vec![JobId(1), JobId(300), JobId(u64::MAX)];
    let requests = [
        Request::Submit(submit("factorial", &["5", "", "100000"], true)),
        Request::Wait { jobs: jobs.clone() },
        Request::Cancel { jobs: jobs.clone() },
        Request::CancelWaiting { jobs },
        Request::Jobs { state: None, walk: Walk::Up(JobId(9)), limit: 100 },
        Request::Events { after: 70_000, follow: true },
        Request::Drain { grace_ms: Some(1) },
        Request::Ping,
    ];
    let mut all = vec![12];
    let mut found = Vec::new();
    for (tag, request) in (1..).zip(requests) {
        let mut one = vec![255];
        let frame = RequestFrame { tag: Tag(tag), request };
        push_frame(&frame, &mut one).expect("a seed is short");
        push_frame(&frame, &mut all).expect("a seed is short");
        found.push(one);
    }
    let mut reply = vec![0];
    let pong = ReplyFrame { tag: Tag(1), reply: Reply::Pong { pid: 70_000 } };
    push_frame(&pong, &mut reply).expect("a seed is short");
    let hello = [&[3][..], &Hello::new(0).to_bytes()].concat();
    found.extend([all, reply, hello]);
    found
}

fn lane() -> Vec<Vec<u8>> {
    let hello = LaneUp::Hello {
        path: "/run/bulkhead/boot/7/s".to_owned(),
        missing: Vec::new(),
        stack_text: StackText::Never,
    };
    vec![
        codec::encode(&LaneUp::NeedOutput { seq: Seq(1) }),
        codec::encode(&hello),
        codec::encode(&Tasks::default()),
    ]
}

/// Steps of the target, see `ring`: offers, words of the worker, looks.
fn ring() -> Vec<Vec<u8>> {
    let word = |at: usize, value: u64| {
        let place = u16::try_from(at / 8).expect("a place near the beginning").to_le_bytes();
        [&[3][..], &place, &value.to_le_bytes()].concat()
    };
    let bare = |what: u8| [vec![what], vec![0; 10]].concat();
    let entry = |seq: u64| boxes::entry_at(boxes::index_of(Seq(seq)));
    let claim = |seq: u64, state| word(entry(seq) + WORD_AT, ClaimWord::pack(Seq(seq), state));
    let status = |seq: u64, status| word(entry(seq) + STATUS_AT, status);
    let honest = [
        bare(0),
        bare(0),
        claim(1, ClaimState::Claimed),
        bare(4),
        status(1, 1),
        claim(1, ClaimState::Done),
        bare(4),
        bare(6),
        bare(5),
    ];
    let hostile =
        [bare(0), claim(1, ClaimState::Taken), bare(4), bare(0), claim(2, ClaimState::Claimed), bare(4)];
    let many = [bare(0).repeat(300), bare(5).repeat(20), bare(6).repeat(20), bare(0).repeat(20)];
    vec![honest.concat(), hostile.concat(), many.concat()]
}

/// One step beyond each range: mutations alone do not find the key that goes with the value.
const BEYOND: [&str; 23] = [
    "workers = 0",
    "workers = 1025",
    "spares = 0",
    "spares = 1025",
    "backoff_min_ms = 0",
    "backoff_min_ms = 2\nbackoff_max_ms = 1",
    "backoff_max_ms = 2592000001",
    "timeout_seconds = 0",
    "cpu_max_seconds = 2592001",
    "no_progress_seconds = 2\nno_progress_max_seconds = 1",
    "memory_bytes = 1048575",
    "recycle_tasks = 0\nrecycle_age_seconds = 0\nrecycle_resident_bytes = 0",
    "[kinds.a]\nring = 0",
    "[kinds.noop]\nring = 257",
    "[kinds.noop]\ntimeout_seconds = 0",
    "[kinds.a]\nmemory_max_bytes = 1048575",
    "[kinds.a]\ncrashes_max = 0",
    "[kinds.a]\ncancel_grace_ms = 60001",
    "[kinds.a]\nfiles_in = [\"1\"]",
    "cpu_max_seconds = 1\n[kinds.a]\ncpu_seconds = 2",
    "[pools.a]\n[kinds.a]",
    "[kinds.a]\npool = \"b\"",
    "workers = 1\n[pools.a]\nworkers = 1024\n[kinds.a]\npool = \"a\"",
];

/// The sample with every key set, and what is refused for one reason each.
fn config() -> Vec<Vec<u8>> {
    let sample = include_str!("../../../systemd/bulkhead.toml");
    let set =
        |line: &'static str| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line);
    let all: Vec<&str> = sample.lines().map(set).filter(|line| !line.starts_with('#')).collect();
    let others = [
        "",
        "mode = \"both\"\nworkers = -1\n[table]\n",
        "clients_max = 18446744073709551616\n",
        "keep_seconds = 9223372036854775807\nstuck_after_seconds = 0\nbackoff_min_ms = 2592000000\n",
        "builtin_kinds = false\n[kinds.a-1]\nring = 256\n[kinds.b]\nusage = \"\u{e4}\"\n",
    ];
    let mut found = vec![all.join("\n").into_bytes()];
    found.extend(others.iter().chain(&BEYOND).map(|text| text.as_bytes().to_vec()));
    found
}

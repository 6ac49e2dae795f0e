//! Limits of time and memory of real jobs: each met by name, with what was seen, while a neighbour runs on.

use bulkhead_proto::client::exit;
use bulkhead_proto::client::view::{WorkerRow, WorkerState};
use bulkhead_tests::daemon::{Daemon, Setup, eventually};
use bulkhead_tests::told::{death_of, died, ended, job};
use bulkhead_tests::wire::Wire;
use serde_json::Value;

/// A job that meets a limit: its flags and mode, which limit its outcome names, and why its worker was killed.
struct Way {
    words: &'static [&'static str],
    limit: &'static str,
    why: &'static str,
    state: &'static str,
}

const WAYS: [Way; 6] = [
    Way { words: &["--timeout", "1s", "chaos", "loop"], limit: "wall", why: "timeout", state: "running" },
    Way { words: &["--timeout", "1s", "chaos", "hang"], limit: "wall", why: "timeout", state: "sleeping" },
    Way {
        words: &["--no-progress", "500ms", "chaos", "loop"],
        limit: "no-progress",
        why: "no-progress",
        state: "running",
    },
    Way {
        words: &["--no-progress", "500ms", "chaos", "stall"],
        limit: "no-progress",
        why: "no-progress",
        state: "sleeping",
    },
    Way { words: &["--cpu-time", "200ms", "chaos", "loop"], limit: "cpu", why: "cpu-time", state: "running" },
    Way {
        words: &["--cpu-time", "100ms", "--timeout", "1s", "chaos", "hang"],
        limit: "wall",
        why: "timeout",
        state: "sleeping",
    },
];

/// A job that sleeps in a worker of its own while others get into trouble.
struct Neighbour {
    wire: Wire,
    row: WorkerRow,
}

impl Neighbour {
    fn of(daemon: &Daemon) -> Self {
        let mut wire = Wire::connect(&daemon.socket());
        wire.submit("sleep", &["3600000"]);
        Self { row: daemon.await_worker(WorkerState::Busy), wire }
    }

    /// It runs in the same process still, and the pool works.
    fn check(mut self, daemon: &Daemon) {
        let rows = daemon.workers();
        let own = rows.iter().find(|row| row.worker == self.row.worker).expect("its worker lives");
        assert_eq!((own.pid, own.job, own.state), (self.row.pid, self.row.job, WorkerState::Busy));
        assert_eq!(self.wire.run("noop", &["on"]).len(), 1);
    }
}

/// Checks what is told of one way to meet a limit of time. Gives the processor time that was seen of the task.
fn check(daemon: &Daemon, way: &Way) -> u64 {
    let (id, code) = ended(daemon, way.words);
    let name = way.words.join(" ");
    assert_eq!(code, Some(i32::from(exit::TIMED_OUT)), "{name}");
    let outcome = &job(daemon, &id)["outcome"];
    assert_eq!((&outcome["outcome"], &outcome["limit"]), (&"timed-out".into(), &way.limit.into()), "{name}");
    let death = death_of(daemon, &id);
    assert_eq!(death["death"]["why"]["why"], way.why, "{name}: {death}");
    assert_eq!(death["charged"], false, "{name}: {death}");
    let seen = &death["evidence"]["seen"];
    assert_eq!(seen["state"], way.state, "{name}: {death}");
    let event = died(daemon, &death["worker"]);
    assert_eq!((&event["death"], &event["evidence"]), (&death["death"], &death["evidence"]), "{name}");
    let shown = daemon.ok(&["job", &id]);
    assert!(shown.contains("timed out") && shown.contains("killed by the supervisor"), "{name}: {shown}");
    let newest = daemon.ok(&["deaths", "--limit", "1", "--json"]);
    let newest: Value = serde_json::from_str(&newest).expect("one death");
    assert_eq!(newest["death"], death["death"], "{name}");
    if way.words.contains(&"stall") {
        assert_eq!(death["evidence"]["progress"]["done"], 3, "{name}: {death}");
        assert_eq!(death["evidence"]["last_words"], "no further", "{name}: {death}");
    }
    seen["task_cpu_us"].as_u64().expect("its processor time is known")
}

/// Which limit was met is told, and a loop is told from a wait by state and processor time.
#[test]
fn each_limit_of_time_is_named_with_what_was_seen() {
    let daemon = Daemon::start();
    let neighbour = Neighbour::of(&daemon);
    let used: Vec<u64> = WAYS.iter().map(|way| check(&daemon, way)).collect();
    let of = |state: &str| -> Vec<u64> {
        WAYS.iter().zip(&used).filter(|(way, _)| way.state == state).map(|(_, us)| *us).collect()
    };
    let (loops, waits) = (of("running").into_iter().min(), of("sleeping").into_iter().max());
    assert!(loops > waits, "a loop used less of a processor than a wait: {used:?}");
    assert!(used[4] >= 200_000, "{} us are less than its limit", used[4]);
    assert_eq!(daemon.events_named("blamed"), Vec::<Value>::new());
    neighbour.check(&daemon);
}

/// A job that goes above its memory limit crashes: refused by the kernel where that counts, else seen and killed.
#[test]
fn memory_is_limited_by_refusal_and_by_sight() {
    let daemon = Daemon::start();
    let neighbour = Neighbour::of(&daemon);
    for (words, text) in [
        (&["--memory", "32M", "chaos", "eat:256"][..], "allocation of 1048576 bytes failed"),
        (&["--memory", "16M", "factorial", "10000000", "--as", "bits"], "bytes failed (SIGABRT)"),
        (&["--memory", "32M", "chaos", "share:128"], "memory above its limit of 33554432 bytes"),
    ] {
        let (id, code) = ended(&daemon, &[words, &["--crashes-max", "1"]].concat());
        assert_eq!(code, Some(i32::from(exit::CRASHED)), "{words:?}");
        let death = death_of(&daemon, &id);
        assert_eq!(death["charged"], true, "{words:?}: {death}");
        assert!(daemon.ok(&["job", &id]).contains(text), "{words:?}: {death}");
        assert!(daemon.ok(&["deaths", "--limit", "1"]).contains(text), "{words:?}: {death}");
        if words.contains(&"share:128") {
            let seen = death["evidence"]["seen"]["resident_bytes"].as_u64().expect("it was seen");
            assert!(seen > 32 << 20, "{death}");
        }
    }
    neighbour.check(&daemon);
}

/// A limit ends with its task: the next one of the same worker has all the memory again.
#[test]
fn a_memory_limit_is_for_one_task() {
    let daemon = Daemon::start_with(&Setup { workers: 1, ..Setup::default() });
    for words in [
        &["--memory", "256M", "chaos", "eat:64"][..],
        &["chaos", "eat:400"],
        &[
            "--memory",
            "256M",
            "--no-progress",
            "1h",
            "--cpu-time",
            "1h",
            "factorial",
            "1000000",
            "--as",
            "digits",
        ],
        &["--memory", "256M", "chaos", "eat:128"],
    ] {
        let (id, code) = ended(&daemon, words);
        assert_eq!(code, Some(0), "{words:?}: {}", daemon.ok(&["job", &id]));
    }
    let placed = daemon.workers().into_iter().filter(|row| row.slot.is_some()).collect::<Vec<_>>();
    assert_eq!((placed.len(), placed[0].ended), (1, 4), "one worker ran them all: {placed:?}");
    assert_eq!(daemon.events_named("died"), Vec::<Value>::new());
}

/// What the configuration says holds for those who ask for nothing.
#[test]
fn usual_limits_come_from_the_config_file() {
    let config = "timeout_seconds = 1\nmemory_bytes = 33554432\n".to_owned();
    let daemon = Daemon::start_with(&Setup { config, ..Setup::default() });
    let (id, code) = ended(&daemon, &["chaos", "hang"]);
    assert_eq!(code, Some(i32::from(exit::TIMED_OUT)));
    let shown = daemon.ok(&["job", &id]);
    assert!(shown.contains("timeout 1.00s") && shown.contains("memory 32M"), "{shown}");
    let (id, code) = ended(&daemon, &["--timeout", "1h", "--crashes-max", "1", "chaos", "eat:64"]);
    assert_eq!(code, Some(i32::from(exit::CRASHED)), "{}", daemon.ok(&["job", &id]));
    eventually("both deaths are told", || (daemon.events_named("died").len() == 2).then_some(()));
}

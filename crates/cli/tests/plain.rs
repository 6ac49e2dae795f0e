//! Texts that a daemon sends, a hostile one among them, on the terminal of its user: none is obeyed, none begins a line.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "../../client/tests/fake/mod.rs"]
mod fake;

use std::process::{Command, Output, Stdio};

use bulkhead_proto::client::message::Reply;
use bulkhead_proto::client::outcome::{self, JobEnded, Outcome};
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::ids::{JobId, Tag};
use bulkhead_proto::kind::Kind;
use bulkhead_proto::plain;
use fake::{Fake, Peer};

fn against(script: impl FnOnce(Peer) + Send + 'static, arguments: &[&str]) -> Output {
    let fake = Fake::serve(script);
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
    command.args(arguments).env("BULKHEAD_SOCKET", fake.path()).stdin(Stdio::null());
    let output = command.output().unwrap();
    fake.finish();
    output
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn ended(job: u64, outcome: Outcome) -> JobEnded {
    JobEnded {
        job: JobId(job),
        outcome,
        output: outcome::JobOutput::None,
        attempts: 1,
        survivors: Vec::new(),
    }
}

/// A text that hides its end from whoever reads it on a terminal.
const SLY: &str = "gone\u{202e}\u{2066}\u{200f}\u{1b}[2J\u{9b}2J\r\u{2028}on";

#[test]
fn no_text_of_a_daemon_is_obeyed_by_a_terminal() {
    let notice = |mut peer: Peer| {
        let (tag, _) = peer.submit().unwrap();
        peer.accept(tag, 1, 2);
        peer.reply(Tag(0), Reply::Notice(format!("{SLY}\nbulkhead: job 3 done")));
        let lost = Outcome::Lost { reason: SLY.to_owned() };
        peer.reply(tag, Reply::Ended(vec![ended(1, lost)]));
        let crashed = Outcome::Crashed { crashes: 2, last: SLY.to_owned() };
        peer.reply(tag, Reply::Ended(vec![ended(2, crashed)]));
        let tag = peer.request().unwrap().tag;
        peer.reply(tag, Reply::Refused(Refusal::Invalid { why: SLY.to_owned() }));
    };
    let refused = |mut peer: Peer| {
        let tag = peer.request().unwrap().tag;
        peer.reply(tag, Reply::Refused(Refusal::Denied { needed: SLY.to_owned() }));
    };
    let listed = |mut peer: Peer| {
        let tag = peer.request().unwrap().tag;
        let kind =
            |name: &str| Kind { name: format!("{name}{SLY}"), summary: SLY.to_owned(), ..Kind::default() };
        peer.reply(tag, Reply::Kinds(vec![kind("a"), kind("b")]));
    };
    let waited = |mut peer: Peer| {
        let tag = peer.request().unwrap().tag;
        peer.reply(tag, Reply::Ended(vec![ended(1, Outcome::Lost { reason: SLY.to_owned() })]));
    };
    for (output, lines) in [
        (against(notice, &["run", "noop", "--count", "2"]), 5),
        (against(refused, &["status"]), 1),
        (against(listed, &["kinds"]), 3),
        (against(waited, &["wait", "1"]), 1),
    ] {
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        let is_obeyed = |letter: char| plain::is_obeyed(letter) && letter != '\n' && letter != '\t';
        assert!(!said.contains(is_obeyed), "{said:?}");
        assert!(said.contains("gone\\u{202e}\\u{2066}\\u{200f}\\u{1b}[2J"), "{said:?}");
        assert_eq!(said.lines().count(), lines, "none of it begins a line: {said}");
    }
}

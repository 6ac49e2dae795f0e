//! `bulkhead cancel --waiting` against a daemon made by hand: what it asks, what it says, and its exit code.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "../../client/tests/fake/mod.rs"]
mod fake;

use std::process::{Command, Output, Stdio};

use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::refusal::{Refusal, RefusedJobs};
use bulkhead_proto::ids::JobId;
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

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

#[test]
fn what_waits_is_cancelled_and_what_goes_on_is_no_failure() {
    let script = |mut peer: Peer| {
        let asked = peer.request().unwrap();
        assert_eq!(asked.request, Request::CancelWaiting { jobs: vec![JobId(4), JobId(5), JobId(6)] });
        let mut refused = Vec::new();
        let ended_already = Refusal::WrongState { job: JobId(6), needed: "it has ended already".to_owned() };
        RefusedJobs::add(&mut refused, JobId(6), ended_already);
        let (ended, running) = (vec![JobId(4)], vec![JobId(5)]);
        peer.reply(asked.tag, Reply::CancelledWaiting { ended, running, refused });
    };
    let output = against(script, &["cancel", "--waiting", "4..6"]);
    assert_eq!(text(&output.stdout), "cancelled 1 job\njob 5 goes on: it has begun\n");
    assert!(text(&output.stderr).contains("it has ended already"), "{}", text(&output.stderr));
    assert_ne!(code(&output), 0, "one had ended");
    let script = |mut peer: Peer| {
        let asked = peer.request().unwrap();
        let (ended, running, refused) = (vec![JobId(4)], vec![JobId(5)], Vec::new());
        peer.reply(asked.tag, Reply::CancelledWaiting { ended, running, refused });
    };
    let output = against(script, &["cancel", "--waiting", "4", "5", "--json"]);
    assert_eq!(text(&output.stdout), "{\"ended\":[4],\"refused\":[],\"running\":[5]}\n");
    assert_eq!((code(&output), text(&output.stderr)), (0, ""));
}

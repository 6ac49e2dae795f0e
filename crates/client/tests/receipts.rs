//! Receipts of held results: what the daemon is told, when, and that nothing waits for it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod fake;

use bulkhead_client::{DaemonClient, JobInput, Run, RunOptions, Spec};
use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::ids::Tag;
use fake::{Fake, Peer, done};

const HELD: RunOptions = RunOptions { ordered: true, wait_when_busy: true, held: true };

fn inputs() -> [JobInput; 3] {
    ["a", "b", "c"].map(|text| text.as_bytes().to_vec().into())
}

fn run(client: &mut DaemonClient, options: RunOptions) -> Run<'_, std::array::IntoIter<JobInput, 3>> {
    client.run(Spec::new("noop"), inputs(), options)
}

/// Accepts the submit of three jobs.
fn accept(peer: &mut Peer, held: bool) -> Tag {
    let (tag, submit) = peer.submit().unwrap();
    assert_eq!((submit.attached, submit.held), (true, held));
    peer.accept(tag, 1, submit.inputs.len());
    tag
}

fn held(peer: &mut Peer, tag: Tag, first: u64, jobs: &[u64]) {
    peer.reply(tag, Reply::Held { first, ended: jobs.iter().map(|job| done(*job, b"x")).collect() });
}

fn through(peer: &mut Peer) -> u64 {
    match peer.request().unwrap().request {
        Request::Received { through } => through,
        other => panic!("a receipt was expected: {other:?}"),
    }
}

#[test]
fn a_receipt_goes_out_with_the_next_wait_and_the_last_one_at_the_end() {
    let fake = Fake::serve(|mut peer| {
        let tag = accept(&mut peer, true);
        held(&mut peer, tag, 1, &[1]);
        // The run waits for more when it says so.
        assert_eq!(through(&mut peer), 1);
        held(&mut peer, tag, 2, &[3, 2]);
        assert_eq!(through(&mut peer), 3);
        assert!(peer.request().is_none(), "nothing else is said");
    });
    let mut client = fake.client();
    let mut run = run(&mut client, HELD);
    while let Some(item) = run.next() {
        item.unwrap();
        run.received();
    }
    drop(run);
    drop(client);
    fake.finish();
}

#[test]
fn what_was_not_reported_is_in_no_receipt() {
    let fake = Fake::serve(|mut peer| {
        let tag = accept(&mut peer, true);
        // In the order of the inputs, number 2 is the first that is returned, and then number 1.
        held(&mut peer, tag, 1, &[2, 1]);
        assert_eq!(through(&mut peer), 2, "nothing is said as long as 1 is missing");
        held(&mut peer, tag, 3, &[3]);
        assert!(peer.request().is_none(), "the third was returned and never reported");
    });
    let mut client = fake.client();
    let mut run = run(&mut client, HELD);
    for reports in [true, true, false] {
        run.next().unwrap().unwrap();
        if reports {
            run.received();
        }
    }
    assert!(run.next().is_none());
    drop(run);
    drop(client);
    fake.finish();
}

#[test]
fn what_arrived_out_of_turn_is_there_when_a_run_is_given_up() {
    let fake = Fake::serve(|mut peer| {
        let tag = accept(&mut peer, true);
        held(&mut peer, tag, 1, &[2, 3]);
    });
    let mut client = fake.client();
    let mut run = run(&mut client, HELD);
    assert!(run.next().unwrap().is_err(), "the daemon has gone before the first job ended");
    let jobs: Vec<u64> = run.not_returned().map(|item| item.end.job.0).collect();
    assert_eq!(jobs, [2, 3]);
    assert_eq!(run.next_arrived().unwrap().index, 1);
    assert_eq!(run.not_returned().count(), 1);
    drop(run);
    drop(client);
    fake.finish();
}

#[test]
fn a_run_that_does_not_ask_is_as_it_was() {
    let fake = Fake::serve(|mut peer| {
        let tag = accept(&mut peer, false);
        peer.reply(tag, Reply::Ended(vec![done(1, b"x"), done(2, b"x"), done(3, b"x")]));
        assert!(peer.request().is_none(), "no receipt");
    });
    let mut client = fake.client();
    let mut run = run(&mut client, RunOptions::default());
    assert_eq!(run.by_ref().map(Result::unwrap).count(), 3);
    run.received();
    drop(run);
    drop(client);
    fake.finish();
}

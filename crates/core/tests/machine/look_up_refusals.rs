//! What is refused of a job that only the journal has, and of all such jobs while nothing is stored.

use bulkhead_core::config::Config;
use bulkhead_core::event::Event;
use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::death::Death;
use bulkhead_proto::job::Policy;

use crate::durable::{durable_config, submit};
use crate::look_up::after;
use crate::rig::{ALICE, Rig};

#[test]
fn a_job_whose_last_attempt_is_still_with_a_worker_is_not_run_beside_it() {
    let mut rig = Rig::with(Config { keep_jobs_max: 1, ..durable_config(2) });
    let job = rig.durable(Policy::default());
    let worker = rig.claim(job);
    assert_eq!(rig.change(ALICE, Request::Cancel { jobs: vec![job] }), (1, vec![]));
    let other = rig.durable(Policy::default());
    rig.finish(other);
    assert!(rig.core.durable_states().all(|(number, ..)| number != job), "it has left the table");
    let (_, refused) = rig.change(ALICE, Request::Retry { jobs: vec![job] });
    assert!(
        matches!(&refused[..], [Refusal::WrongState { needed, .. }] if needed.contains("still being ended"))
    );
    let why = rig.killed.remove(&worker).expect("its task is cancelled");
    rig.die(worker, Death::Killed { why });
    assert_eq!(rig.change(ALICE, Request::Retry { jobs: vec![job] }), (1, vec![]));
    assert!(rig.holder(job).is_some());
}

#[test]
fn while_nothing_is_stored_a_question_is_refused_and_does_not_wait() {
    let (mut rig, job) = after("failed");
    rig.stores = false;
    rig.ask(ALICE, Request::Submit(submit(None, &["7"])));
    let waits = rig.ask(ALICE, Request::Job { job });
    assert_eq!(rig.replies_to(waits), []);
    rig.tell(Event::JournalFailed { why: "the disk is full".to_owned() });
    let late = rig.ask(ALICE, Request::Job { job });
    let retry = rig.ask(ALICE, Request::Retry { jobs: vec![job] });
    for tag in [waits, late] {
        let replies = rig.replies_to(tag);
        let is_said = |needed: &str| needed.contains("stores nothing now: the disk is full");
        assert!(
            matches!(&replies[..], [Reply::Refused(Refusal::WrongState { needed, .. })] if is_said(needed)),
            "{replies:?}"
        );
    }
    assert!(matches!(&rig.replies_to(retry)[..], [Reply::Changed { count: 0, .. }]));
    rig.tell(Event::JournalRecovered);
    rig.store();
    assert!(matches!(&rig.answers(ALICE, Request::Job { job })[..], [Reply::Job(_)]));
}

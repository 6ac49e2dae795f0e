//! Which ended jobs are kept, and for how long.
//!
//! Each maximum of the configuration is reached once, and time passes without a request.

use bulkhead_core::config::Config;
use bulkhead_core::event::TaskResult;
use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::ids::{JobId, OutputId};
use bulkhead_proto::job::{Payload, Policy};

use crate::rig::{ALICE, Rig, config};

#[test]
fn results_are_kept_for_their_time() {
    let mut rig = Rig::with(Config { keep_ms: 60_000, ..config(1) });
    let job = rig.submit(1);
    rig.finish(job);
    rig.sleep(59_000);
    assert_eq!(rig.outcome(job), Some(Outcome::Done));
    rig.sleep(6000);
    let reply = rig.answer(ALICE, Request::Result { job });
    assert_eq!(reply, Reply::Refused(Refusal::Gone { job, others: true }));
    assert_eq!(rig.core.deadline(), None);
    assert_eq!(rig.status().totals.evicted, 0, "age is not early");
}

#[test]
fn too_many_results_push_the_oldest_out() {
    let mut rig = Rig::with(Config { keep_jobs_max: 3, ..config(1) });
    let first = rig.submit(5);
    for number in 0..5 {
        rig.finish(JobId(first.0 + number));
    }
    let status = rig.status();
    assert_eq!((status.kept, status.totals.evicted), (3, 2));
    assert_eq!(rig.outcome(JobId(first.0 + 2)), Some(Outcome::Done));
    assert_eq!(
        rig.recorded(|what| matches!(what, What::Evicted { .. })),
        1,
        "said now and then, not each time"
    );
}

#[test]
fn bytes_and_held_outputs_are_bounded() {
    let mut rig = Rig::with(Config { keep_bytes_max: 10_000, ..config(1) });
    let first = rig.submit(6);
    for number in 0..3 {
        let result = TaskResult::Held { output: OutputId(number + 1), bytes: 1 << 20 };
        rig.finish_with(JobId(first.0 + number), result, 1_000_000);
    }
    assert_eq!(rig.dropped, [OutputId(1), OutputId(2), OutputId(3)], "each has more bytes than may be kept");
    for number in 3..6 {
        let result = TaskResult::Inline(Payload::from(vec![0; 4096]));
        rig.finish_with(JobId(first.0 + number), result, 1_000_000);
    }
    assert!(rig.status().kept_bytes <= 10_000);
}

#[test]
fn quarantine_is_bounded_by_number() {
    let mut rig = Rig::with(Config { quarantine_max: 2, restart_intensity: 100, ..config(1) });
    let policy = Policy { crashes_max: Some(1), ..Policy::default() };
    let mut jobs = Vec::new();
    for _ in 0..3 {
        let job = rig.submit_as(ALICE, "quick", 1, policy.clone(), false);
        rig.sleep(10);
        rig.crash(job);
        rig.sleep(10);
        jobs.push(job);
    }
    assert_eq!(rig.status().quarantined, 2);
    assert!(matches!(rig.answer(ALICE, Request::Job { job: jobs[0] }), Reply::Refused(_)));
}

#[test]
fn a_done_job_keeps_no_input_and_cannot_be_retried() {
    let mut rig = Rig::new(1);
    let job = rig.submit(1);
    assert!(matches!(rig.answer(ALICE, Request::Result { job }), Reply::Refused(Refusal::NotEnded { .. })));
    assert!(matches!(
        rig.change(ALICE, Request::Forget { jobs: vec![job] }).1[0],
        Refusal::WrongState { .. }
    ));
    rig.finish(job);
    assert_eq!(rig.detail(job).input, "");
    assert!(matches!(rig.change(ALICE, Request::Retry { jobs: vec![job] }).1[0], Refusal::WrongState { .. }));
}

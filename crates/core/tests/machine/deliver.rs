//! Results on their way to clients: streams, waits, credit, and clients that vanish.
//!
//! A reply uses up its client's credit; `ClientFlushed` restores it.

use bulkhead_core::config::Config;
use bulkhead_core::event::{Event, Leftover, TaskResult};
use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::outcome::{JobOutput, Outcome};
use bulkhead_proto::client::record::What;
use bulkhead_proto::ids::{ClientId, JobId, OutputId, Tag};
use bulkhead_proto::job::{JobState, OutputMode, Payload, Policy};
use bulkhead_proto::kind::Kind;

use crate::rig::{ADMIN, ALICE, BOB, Rig, config, exit_code};

fn attached(rig: &mut Rig, count: usize) -> JobId {
    rig.submit_as(ALICE, "quick", count, Policy::default(), true)
}

fn large() -> TaskResult {
    TaskResult::Inline(Payload::from(vec![1; 4096]))
}

/// The jobs of each reply to this request that says they are unknown.
fn unknown_in(rig: &Rig, tag: Tag) -> Vec<Vec<JobId>> {
    let replies = rig.replies.iter().filter(|(_, of, ..)| *of == tag);
    let unknown = replies.filter_map(|(_, _, reply, _)| match reply {
        Reply::Unknown(unknown) => Some(unknown.jobs.clone()),
        _ => None,
    });
    unknown.collect()
}

#[test]
fn one_reply_has_all_unknown_jobs_of_a_request() {
    let mut rig = Rig::new(1);
    let job = rig.submit(1);
    rig.forget_past();
    let mut jobs: Vec<JobId> = (0..4095).map(|number| JobId(1 << 62 | number)).collect();
    jobs[77] = jobs[78];
    let unknown = jobs.clone();
    jobs.insert(2000, job);
    let tag = rig.ask(ALICE, Request::Wait { jobs });
    assert_eq!(rig.replies.len(), 1);
    assert_eq!(unknown_in(&rig, tag), [unknown]);
    rig.finish(job);
    assert_eq!(rig.told(ALICE, Some(tag)).len(), 1, "the other is waited for");
}

#[test]
fn jobs_that_are_forgotten_before_they_are_told_share_a_reply() {
    let mut rig = Rig::with(Config { client_credit_bytes: 10_000, ..config(1) });
    let large_one = rig.submit(1);
    rig.finish_with(large_one, TaskResult::Inline(Payload::from(vec![1; 4000])), 1000);
    let kept = rig.submit(1);
    let first = rig.submit(200);
    let gone: Vec<JobId> = (0..200).map(|number| JobId(first.0 + number)).collect();
    for job in gone.iter().chain([&kept]) {
        rig.finish(*job);
    }
    // They use up the credit, so that nothing is told of the wait until it is whole again.
    for _ in 0..3 {
        rig.ask(ALICE, Request::Result { job: large_one });
    }
    let mut jobs = gone.clone();
    jobs.insert(100, kept);
    let tag = rig.ask(ALICE, Request::Wait { jobs });
    rig.change(ADMIN, Request::Forget { jobs: gone.clone() });
    rig.forget_past();
    rig.tell(Event::ClientFlushed { client: ALICE });
    assert_eq!(rig.told(ALICE, Some(tag)).len(), 1);
    assert_eq!(unknown_in(&rig, tag), [gone]);
    assert_eq!(rig.replies.len(), 2);
    let again = rig.ask(ALICE, Request::Wait { jobs: vec![kept] });
    assert_eq!(rig.told(ALICE, Some(again)).len(), 1, "those waits are over");
}

/// A flush for which nothing waits may come with the next batch: an ended job costs no turn for the credit alone.
#[test]
fn a_flush_is_awaited_only_where_something_waits_for_credit() {
    let mut rig = Rig::with(Config { client_credit_bytes: 10_000, ..config(1) });
    assert!(!rig.core.awaits_flush(ALICE));
    let job = attached(&mut rig, 1);
    rig.finish(job);
    assert!(!rig.core.awaits_flush(ALICE), "it was told, and most of the credit is left");
    let large = rig.submit(1);
    rig.finish_with(large, TaskResult::Inline(Payload::from(vec![1; 4000])), 1000);
    rig.ask(ALICE, Request::Result { job: large });
    assert!(!rig.core.awaits_flush(ALICE), "more than half of the credit is left");
    rig.ask(ALICE, Request::Result { job: large });
    assert!(rig.core.awaits_flush(ALICE), "less than half of it is left");
    rig.tell(Event::ClientFlushed { client: ALICE });
    assert!(!rig.core.awaits_flush(ALICE));
    for _ in 0..3 {
        rig.ask(ALICE, Request::Result { job: large });
    }
    let untold = attached(&mut rig, 1);
    rig.finish(untold);
    assert!(rig.core.awaits_flush(ALICE), "an end waits for credit");
    rig.ask(BOB, Request::Events { after: 0, follow: true });
    assert!(rig.core.awaits_flush(BOB), "a reader goes on with a flush");
}

#[test]
fn attached_results_stream_and_are_forgotten() {
    let mut rig = Rig::new(2);
    let first = attached(&mut rig, 3);
    let tag = rig.replies.last().unwrap().1;
    for number in 0..3 {
        rig.finish(JobId(first.0 + number));
    }
    assert_eq!(rig.told(ALICE, Some(tag)).len(), 3);
    assert_eq!(rig.status().kept, 0);
}

#[test]
fn attached_jobs_that_are_not_done_are_kept() {
    let mut rig = Rig::new(1);
    let job = attached(&mut rig, 1);
    rig.fail(job);
    assert_eq!(rig.told(ALICE, None).len(), 1);
    assert!(matches!(rig.outcome(job), Some(Outcome::Failed { .. })));
    assert_eq!(rig.change(ALICE, Request::Retry { jobs: vec![job] }).0, 1);
    rig.finish(job);
    assert_eq!(rig.told(ALICE, None).len(), 1, "a retried job is attached to nobody");
    assert_eq!(rig.outcome(job), Some(Outcome::Done));
}

#[test]
fn ends_of_one_turn_share_a_reply() {
    let mut rig = Rig::new(2);
    let first = attached(&mut rig, 2);
    rig.forget_past();
    for number in 0..2 {
        let (worker, seq) = rig.holder(JobId(first.0 + number)).unwrap();
        let report = bulkhead_core::event::Report {
            result: large(),
            elapsed_ns: 1,
            output_bytes: 0,
            survivors: Vec::new(),
        };
        rig.batch.push(Event::Finished { worker, seq, report });
    }
    rig.turn();
    assert_eq!(rig.replies.len(), 1);
    assert_eq!(rig.told(ALICE, None).len(), 2);
}

#[test]
fn several_clients_wait_for_one_job() {
    let mut rig = Rig::new(1);
    let job = rig.submit(1);
    let unknown = JobId(4711);
    let waiting = rig.ask(ALICE, Request::Wait { jobs: vec![job, unknown] });
    let other = rig.ask(ADMIN, Request::Wait { jobs: vec![job] });
    let refused = rig.ask(BOB, Request::Wait { jobs: vec![job] });
    assert!(rig.told(ALICE, None).is_empty());
    rig.finish(job);
    assert_eq!(rig.told(ALICE, Some(waiting)).len(), 1);
    assert_eq!(rig.told(ADMIN, Some(other)).len(), 1);
    assert_eq!(
        (unknown_in(&rig, waiting), unknown_in(&rig, refused)),
        (vec![vec![unknown]], vec![vec![job]])
    );
    let late = rig.ask(ALICE, Request::Wait { jobs: vec![job] });
    assert_eq!(rig.told(ALICE, Some(late)).len(), 1, "it has ended already");
    assert!(matches!(rig.answer(ALICE, Request::Result { job }), Reply::Ended(ended) if ended.len() == 1));
}

#[test]
fn a_wait_for_an_attached_job_is_answered_too() {
    let mut rig = Rig::new(1);
    let job = attached(&mut rig, 1);
    let wait = rig.ask(ADMIN, Request::Wait { jobs: vec![job] });
    rig.finish(job);
    assert_eq!((rig.told(ALICE, None).len(), rig.told(ADMIN, Some(wait)).len()), (1, 1));
    assert_eq!(rig.status().kept, 0, "all were told");
}

#[test]
fn a_client_without_credit_gets_the_rest_when_it_has_read() {
    let mut rig = Rig::with(Config { client_credit_bytes: 10_000, ..config(1) });
    let first = attached(&mut rig, 8);
    for number in 0..8 {
        rig.finish_with(JobId(first.0 + number), large(), 2_000_000);
    }
    let told = rig.told(ALICE, None).len();
    assert!((2..=3).contains(&told), "{told}");
    assert_eq!(rig.status().kept as usize, 8 - told);
    while rig.told(ALICE, None).len() < 8 {
        rig.tell(Event::ClientFlushed { client: ALICE });
    }
    assert_eq!(rig.status().kept, 0);
}

#[test]
fn a_client_that_never_reads_stops_its_own_jobs_alone() {
    let mut rig = Rig::with(Config { client_credit_bytes: 10_000, ..config(1) });
    attached(&mut rig, 100);
    let mut ended = 0;
    while let Some(job) = rig.workers.values().flatten().map(|held| held.task.job).next() {
        rig.finish_with(job, large(), 2_000_000);
        ended += 1;
        assert!(ended < 30, "its results pile up");
    }
    let bob = rig.submit_as(BOB, "quick", 1, Policy::default(), false);
    rig.finish(bob);
    rig.replies.clear();
    for _ in 0..10 {
        rig.tell(Event::ClientFlushed { client: ALICE });
    }
    assert!(rig.workers.values().any(|held| !held.is_empty()), "it reads, so its jobs go on");
}

#[test]
fn held_outputs_travel_alone_and_are_dropped_after_the_reply() {
    let mut rig = Rig::new(1);
    let policy = Policy { output: OutputMode::Descriptor, ..Policy::default() };
    let job = rig.submit_as(ALICE, "quick", 1, policy.clone(), true);
    rig.finish_with(job, TaskResult::Held { output: OutputId(5), bytes: 99 }, 1);
    let (_, _, reply, output) = rig.replies.last().unwrap();
    assert!(matches!(reply, Reply::Ended(ended) if ended[0].output == JobOutput::Descriptor { bytes: 99 }));
    assert_eq!((*output, rig.dropped.as_slice()), (Some(OutputId(5)), &[OutputId(5)][..]));

    let kept = rig.submit_as(ALICE, "quick", 1, policy, false);
    rig.finish_with(kept, TaskResult::Held { output: OutputId(6), bytes: 1 }, 1);
    rig.ask(ALICE, Request::Result { job: kept });
    rig.ask(ALICE, Request::Wait { jobs: vec![kept] });
    assert_eq!(rig.replies.iter().filter(|reply| reply.3 == Some(OutputId(6))).count(), 2);
    assert_eq!(rig.dropped.len(), 1);
    rig.change(ALICE, Request::Forget { jobs: vec![kept] });
    assert_eq!(rig.dropped.len(), 2);
}

#[test]
fn what_a_failed_job_had_written_is_told_and_kept_like_a_result() {
    let failed =
        |output: Leftover| TaskResult::Failed { message: "no".to_owned(), program: exit_code(3), output };
    let held = |number: u64| Leftover::Held { output: OutputId(number), bytes: 7 };
    let mut rig = Rig::new(1);
    let policy = Policy { output: OutputMode::Descriptor, retries_max: Some(1), ..Policy::default() };
    let job = rig.submit_as(ALICE, "quick", 1, policy, true);
    rig.finish_with(job, failed(held(1)), 1);
    assert_eq!(rig.dropped, [OutputId(1)], "that of an attempt that is repeated goes");
    rig.sleep(5000);
    rig.finish_with(job, failed(held(2)), 1);
    let (_, _, reply, output) = rig.replies.last().unwrap();
    assert!(matches!(reply, Reply::Ended(ended) if ended[0].output == JobOutput::Descriptor { bytes: 7 }));
    assert_eq!((*output, rig.dropped.len()), (Some(OutputId(2)), 1), "a failed job is kept");
    assert_eq!(rig.detail(job).output_bytes, Some(7));
    rig.change(ALICE, Request::Forget { jobs: vec![job] });
    assert_eq!(rig.dropped, [OutputId(1), OutputId(2)]);

    let short = rig.submit_as(ALICE, "quick", 1, Policy::default(), false);
    rig.finish_with(short, failed(Leftover::Inline(Payload::from(vec![1, 2]))), 1);
    rig.ask(ALICE, Request::Result { job: short });
    let (_, _, reply, output) = rig.replies.last().unwrap();
    let told = JobOutput::Inline(Payload::from(vec![1, 2]));
    assert!(output.is_none() && matches!(reply, Reply::Ended(ended) if ended[0].output == told));
}

#[test]
fn the_jobs_of_a_vanished_client_are_cancelled_after_a_while() {
    let mut rig = Rig::new(1);
    let first = attached(&mut rig, 3);
    rig.claim(first);
    rig.tell(Event::ClientGone { client: ALICE });
    rig.sleep(29_000);
    assert_eq!(rig.detail(first).row.state, JobState::Running);
    rig.forget_past();
    rig.sleep(2000);
    assert_eq!(rig.outcome(first), Some(Outcome::Cancelled));
    assert_eq!(rig.outcome(JobId(first.0 + 2)), Some(Outcome::Cancelled));
    assert_eq!(rig.recorded(|what| matches!(what, What::Ended { .. })), 1, "only what ran is worth a record");
    assert_eq!(rig.killed.len(), 1);
}

#[test]
fn what_ends_after_its_client_left_is_kept() {
    let mut rig = Rig::new(1);
    let job = attached(&mut rig, 1);
    rig.tell(Event::ClientGone { client: ALICE });
    rig.finish(job);
    assert_eq!(rig.outcome(job), Some(Outcome::Done));
    rig.change(ADMIN, Request::Forget { jobs: vec![job] });
    rig.sleep(100);
    assert_eq!(rig.core.deadline(), None, "nobody is waited for any more");
}

#[test]
fn events_are_read_in_order_with_what_was_missed() {
    let mut rig = Rig::with(Config { records_max: 20, ..config(1) });
    let follow = rig.ask(ADMIN, Request::Events { after: 0, follow: true });
    let other = rig.ask(BOB, Request::Events { after: 0, follow: true });
    for _ in 0..30 {
        rig.submit(1);
    }
    let indices = |rig: &Rig, tag: Tag| -> Vec<u64> {
        let of = rig.replies.iter().filter(|reply| reply.1 == tag);
        of.flat_map(|(_, _, reply, _)| match reply {
            Reply::Events { records, .. } => records.iter().map(|record| record.index).collect(),
            _ => Vec::new(),
        })
        .collect()
    };
    let seen = indices(&rig, follow);
    assert!(seen.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seen:?}");
    assert!(indices(&rig, other).len() + 30 <= seen.len(), "jobs of others are not shown");
    let once = rig.answer(ADMIN, Request::Events { after: 1, follow: false });
    let Reply::Events { records, missed, caught_up } = once else { panic!("{once:?}") };
    assert_eq!((records.len(), caught_up), (19, true), "the first record is the service's and stays");
    assert_eq!(missed, records[18].index - 1 - 19);
    assert!(matches!(
        rig.answer(ADMIN, Request::Events { after: u64::MAX, follow: false }),
        Reply::Events { .. }
    ));
}

/// A client that reads nothing is sent 64 descriptors, of outputs or of logs, before the rest waits.
#[test]
fn descriptors_cost_credit() {
    let mut config = Config { client_credit_bytes: 1 << 20, ..config(1) };
    config.kinds.push(Kind { name: "talks".to_owned(), ring: 1, logs: true, ..Kind::default() });
    let mut rig = Rig::with(config);
    let policy = Policy { output: OutputMode::Descriptor, ..Policy::default() };
    let job = rig.submit_as(ALICE, "talks", 1, policy, false);
    rig.finish_with(job, TaskResult::Held { output: OutputId(5), bytes: 99 }, 1);
    for request in [Request::Result { job }, Request::Logs { job, follow: false }] {
        rig.tell(Event::ClientFlushed { client: ALICE });
        let is_read_at_once = |rig: &mut Rig| {
            let wait = rig.ask(ALICE, Request::Wait { jobs: vec![job] });
            (wait, !rig.told(ALICE, Some(wait)).is_empty())
        };
        for _ in 0..62 {
            rig.ask(ALICE, request.clone());
        }
        assert!(is_read_at_once(&mut rig).1, "{request:?}: the 63rd descriptor leaves some credit");
        rig.ask(ALICE, request.clone());
        let (wait, is_told) = is_read_at_once(&mut rig);
        assert!(!is_told, "{request:?}: 64 descriptors use it up");
        rig.tell(Event::ClientFlushed { client: ALICE });
        assert_eq!(rig.told(ALICE, Some(wait)).len(), 1);
    }
}

#[test]
fn nobody_is_answered_after_leaving() {
    let mut rig = Rig::new(1);
    let job = rig.submit(1);
    let stranger = ClientId(99);
    rig.ask(stranger, Request::Ping);
    rig.ask(ALICE, Request::Wait { jobs: vec![job] });
    rig.tell(Event::ClientGone { client: ALICE });
    rig.forget_past();
    rig.finish(job);
    assert!(rig.replies.is_empty());
}

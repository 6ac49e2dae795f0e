//! Progress of jobs: sent to clients that subscribed, while the job runs, at most once in a while, and never backwards.

use bulkhead_core::event::{Event, TaskResult};
use bulkhead_proto::client::evidence::TaskProgress;
use bulkhead_proto::client::message::{Reply, Request, Submit};
use bulkhead_proto::ids::{ClientId, JobId, OutputId};
use bulkhead_proto::job::{Payload, Policy};

use crate::parts::left;
use crate::rig::{ALICE, Rig};

impl Rig {
    fn with_progress(&mut self, kind: &str, client: ClientId) -> JobId {
        let submit = Submit {
            kind: kind.to_owned(),
            attached: true,
            progress: true,
            inputs: vec![Payload::default()],
            ..Submit::default()
        };
        match self.answer(client, Request::Submit(submit)) {
            Reply::Accepted { first, .. } => first,
            other => panic!("not accepted: {other:?}"),
        }
    }

    /// What was told of a job so far.
    fn steps(&self, wanted: JobId) -> Vec<(u64, u64)> {
        let all = self.replies.iter().filter_map(|reply| match reply.2 {
            Reply::Progress { job, done, total } if job == wanted => Some((done, total)),
            _ => None,
        });
        all.collect()
    }

    /// The worker says so, and a while passes.
    fn says(&mut self, done: u64, total: u64) {
        self.progress = Some(TaskProgress { done, total });
        self.sleep(200);
    }
}

#[test]
fn a_task_is_looked_at_now_and_then() {
    let mut rig = Rig::new(1);
    let job = rig.with_progress("foreign", ALICE);
    rig.claim(job);
    rig.says(1, 10);
    rig.says(1, 10);
    rig.says(7, 10);
    assert_eq!(rig.steps(job), [(1, 10), (7, 10)], "what has not moved is not told");
    rig.sleep(2000);
    assert!(rig.examined <= 14, "{} looks in 2.6 s", rig.examined);
    rig.finish(job);
    let looks = rig.examined;
    rig.sleep(10_000);
    assert_eq!(rig.examined, looks, "nobody is looked at any more");
    assert_eq!(rig.core.deadline(), None);
}

#[test]
fn it_does_not_go_back_nor_beyond_its_end() {
    let mut rig = Rig::new(1);
    let job = rig.with_progress("foreign", ALICE);
    rig.claim(job);
    for (done, total) in [(5, 10), (3, 10), (u64::MAX, 10), (12, 0), (11, 0)] {
        rig.says(done, total);
    }
    assert_eq!(rig.steps(job), [(5, 10), (10, 10), (12, 0)]);
}

#[test]
fn a_new_attempt_begins_anew() {
    let mut rig = Rig::new(1);
    let job = rig.with_progress("foreign", ALICE);
    rig.claim(job);
    rig.says(5, 10);
    rig.crash(job);
    rig.claim(job);
    rig.says(2, 10);
    assert_eq!(rig.steps(job), [(5, 10), (2, 10)]);
}

#[test]
fn nobody_is_looked_at_for_who_did_not_ask() {
    let mut rig = Rig::new(1);
    let job = rig.submit_as(ALICE, "foreign", 1, Policy::default(), true);
    rig.claim(job);
    rig.says(5, 10);
    rig.sleep(3000);
    assert_eq!((rig.examined, rig.steps(job).len()), (0, 0));
}

#[test]
fn progress_goes_to_who_is_attached() {
    let mut rig = Rig::new(1);
    let submit = Submit {
        kind: "quick".to_owned(),
        progress: true,
        inputs: vec![Payload::default()],
        ..Submit::default()
    };
    let refused = rig.answer(ALICE, Request::Submit(submit));
    assert!(matches!(refused, Reply::Refused(_)), "{refused:?}");
    let job = rig.with_progress("foreign", ALICE);
    rig.claim(job);
    rig.tell(Event::ClientGone { client: ALICE });
    rig.says(5, 10);
    let looks = rig.examined;
    rig.sleep(5000);
    assert_eq!((rig.examined, rig.steps(job).len()), (looks, 0));
}

#[test]
fn parts_that_are_done_are_counted() {
    let mut rig = Rig::new(2);
    let job = rig.with_progress("fan", ALICE);
    let (worker, seq) = rig.holder(job).expect("its plan is offered");
    rig.finish_offer(worker, seq, TaskResult::Planned { output: OutputId(1), bytes: 8, parts: 3 }, 1);
    rig.sleep(200);
    for part in 0..3 {
        rig.end_part(job, part, left(b""));
        rig.sleep(50);
    }
    rig.sleep(400);
    let steps = rig.steps(job);
    assert_eq!((steps.first(), steps.last()), (Some(&(0, 3)), Some(&(3, 3))), "{steps:?}");
    assert_eq!(rig.examined, 0, "the daemon knows by itself");
    rig.finish(job);
    rig.sleep(1000);
    assert_eq!(rig.core.deadline(), None);
}

#[test]
fn who_does_not_read_is_not_told_more() {
    let mut rig =
        Rig::with(bulkhead_core::config::Config { client_credit_bytes: 100, ..crate::rig::config(1) });
    let job = rig.with_progress("foreign", ALICE);
    rig.claim(job);
    for done in 1..20 {
        rig.says(done, 100);
    }
    assert!(rig.steps(job).len() <= 3, "{:?}", rig.steps(job));
    rig.tell(Event::ClientFlushed { client: ALICE });
    rig.says(50, 100);
    assert_eq!(rig.steps(job).last(), Some(&(50, 100)));
}

//! Jobs that are ended only if no worker runs them: each case of the tables in `machine/cancel_waiting.rs`, and one reply.

use bulkhead_core::event::{Event, TaskResult};
use bulkhead_proto::client::message::{Reply, Request, Submit};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::refusal::{Refusal, RefusedJobs};
use bulkhead_proto::client::why::{Canceller, WhyEnded, WhyNow};
use bulkhead_proto::death::Violation;
use bulkhead_proto::ids::{ClientId, JobId, Tag};
use bulkhead_proto::job::{Payload, Policy};
use bulkhead_proto::limits::BATCH_MAX;

use crate::rig::{ADMIN, ALICE, BOB, Rig, SEGV};

/// What became of the jobs of one request: ended, running, refused.
type Answer = (Vec<JobId>, Vec<JobId>, Vec<Refusal>);

impl Rig {
    fn ask_waiting(&mut self, client: ClientId, jobs: &[JobId]) -> Tag {
        self.ask(client, Request::CancelWaiting { jobs: jobs.to_vec() })
    }

    /// The one reply to it, if it came.
    fn answer_to(&self, tag: Tag) -> Option<Answer> {
        let mut answers = self.replies.iter().filter(|reply| reply.1 == tag).map(|reply| match &reply.2 {
            Reply::CancelledWaiting { ended, running, refused } => {
                let refused = refused.iter().flat_map(RefusedJobs::refusals).collect();
                (ended.clone(), running.clone(), refused)
            }
            other => panic!("{other:?}"),
        });
        let answer = answers.next();
        assert!(answers.next().is_none(), "there is one reply");
        answer
    }

    fn cancel_waiting(&mut self, client: ClientId, jobs: &[JobId]) -> Answer {
        let tag = self.ask_waiting(client, jobs);
        self.answer_to(tag).expect("an answer")
    }

    /// A job that is offered, and the answer to the take-back of its offer is not given by itself.
    fn offered_quietly(&mut self, policy: Policy) -> JobId {
        let job = self.submit_as(ALICE, "quick", 1, policy, false);
        assert!(self.holder(job).is_some());
        self.answer = false;
        job
    }
}

fn after(job: JobId, next: u64) -> JobId {
    JobId(job.0 + next)
}

fn ended_already(job: JobId) -> Refusal {
    Refusal::WrongState { job, needed: "it has ended already".to_owned() }
}

#[test]
fn what_waits_in_the_queue_ends_at_once_and_what_runs_goes_on() {
    let mut rig = Rig::new(1);
    let running = rig.submit_as(ALICE, "foreign", 1, Policy::default(), false);
    rig.claim(running);
    let queued = rig.submit_as(ALICE, "foreign", 3, Policy::default(), true);
    let jobs = [after(queued, 1), running, queued, after(queued, 1)];
    let answer = rig.cancel_waiting(ALICE, &jobs);
    assert_eq!(answer, (vec![queued, after(queued, 1)], vec![running], vec![]));
    let told: Vec<_> = rig.told(ALICE, None).into_iter().map(|end| (end.job, end.outcome)).collect();
    assert_eq!(told, [(queued, Outcome::Cancelled), (after(queued, 1), Outcome::Cancelled)]);
    rig.finish(running);
    assert_eq!(rig.outcome(running), Some(Outcome::Done));
    assert!(rig.holder(after(queued, 2)).is_some(), "the job that was not named runs next");
    assert!(rig.killed.is_empty() && rig.asked.is_empty());
}

#[test]
fn an_offer_that_comes_back_ends_its_job_and_was_no_attempt() {
    let mut rig = Rig::new(1);
    let job = rig.offered_quietly(Policy::default());
    let tag = rig.ask_waiting(ALICE, &[job]);
    assert_eq!(rig.answer_to(tag), None, "the worker may have begun it");
    assert_eq!(rig.outcome(job), None);
    let (worker, seq) = rig.holder(job).expect("it is offered");
    rig.take_back(worker, seq);
    rig.turn();
    assert_eq!(rig.answer_to(tag), Some((vec![job], vec![], vec![])));
    let detail = rig.detail(job);
    assert_eq!((detail.outcome, detail.row.attempts), (Some(Outcome::Cancelled), 0));
    let WhyNow::Ended(WhyEnded { by, .. }) = rig.why(ALICE, job).now else { panic!() };
    assert_eq!(by, Some(Canceller::Owner { uid: 1 }));
    assert_eq!(rig.holder(job), None, "and it is offered to nobody");
}

#[test]
fn an_offer_that_had_begun_goes_on_to_its_result() {
    let mut rig = Rig::new(1);
    let job = rig.submit(1);
    rig.claim(job);
    assert_eq!(rig.cancel_waiting(ALICE, &[job]), (vec![], vec![job], vec![]));
    assert_eq!(rig.cancel_waiting(ALICE, &[job]), (vec![], vec![job], vec![]), "it is known by now");
    rig.finish(job);
    assert_eq!(rig.outcome(job), Some(Outcome::Done));
    assert_eq!(rig.cancel_waiting(ALICE, &[job]), (vec![], vec![], vec![ended_already(job)]));
}

#[test]
fn a_task_that_ends_before_its_take_back_is_answered_had_begun() {
    let mut rig = Rig::new(2);
    let (done, failed) = (rig.submit(1), Policy { retries_max: Some(3), ..Policy::default() });
    let failed = rig.submit_as(ALICE, "quick", 1, failed, false);
    rig.answer = false;
    let offers = [done, failed].map(|job| rig.holder(job).expect("it is offered"));
    let tag = rig.ask_waiting(ALICE, &[done, failed]);
    rig.finish(done);
    rig.fail(failed);
    assert_eq!(rig.answer_to(tag), None);
    for (worker, seq) in offers {
        rig.take_back(worker, seq);
    }
    rig.turn();
    assert_eq!(rig.answer_to(tag), Some((vec![], vec![failed], vec![ended_already(done)])));
    // Between two attempts nothing runs.
    assert_eq!(rig.cancel_waiting(ALICE, &[failed]), (vec![failed], vec![], vec![]));
    rig.sleep(60_000);
    assert_eq!((rig.outcome(failed), rig.holder(failed)), (Some(Outcome::Cancelled), None));
}

#[test]
fn a_job_that_waits_to_run_alone_ends() {
    let mut rig = Rig::new(1);
    rig.come_up = false;
    let job = rig.submit_as(ALICE, "quick", 1, Policy { crashes_max: Some(3), ..Policy::default() }, false);
    // Spares take over until there is none.
    while rig.holder(job).is_some() {
        rig.crash(job);
    }
    assert_eq!(rig.outcome(job), None);
    assert_eq!(rig.cancel_waiting(ALICE, &[job]), (vec![job], vec![], vec![]));
    assert_eq!(rig.outcome(job), Some(Outcome::Cancelled));
}

#[test]
fn a_death_decides_what_no_take_back_did() {
    let mut rig = Rig::new(1);
    let policy = Policy { crashes_max: Some(5), ..Policy::default() };
    // The kind is known as one of short tasks, so several share a ring.
    for _ in 0..60 {
        let short = rig.submit(1);
        rig.finish_with(short, TaskResult::Inline(Payload::default()), 1000);
    }
    let jobs: Vec<JobId> = (0..3).map(|_| rig.submit_as(ALICE, "quick", 1, policy.clone(), false)).collect();
    assert!(jobs.iter().all(|job| rig.holder(*job).is_some()), "they share a ring");
    rig.answer = false;
    let tag = rig.ask_waiting(ALICE, &jobs);
    assert_eq!(rig.answer_to(tag), None);
    let worker = rig.claim(jobs[0]);
    rig.die(worker, SEGV);
    assert_eq!(rig.answer_to(tag), Some((jobs[1..].to_vec(), vec![jobs[0]], vec![])));
    assert!(rig.holder(jobs[0]).is_some(), "it is tried again");
    assert_eq!(rig.detail(jobs[1]).row.attempts, 0);
}

#[test]
fn an_offer_that_could_not_be_sent_ends_its_job() {
    let mut rig = Rig::new(1);
    let job = rig.offered_quietly(Policy::default());
    let (worker, seq) = rig.holder(job).expect("it is offered");
    let request = Request::CancelWaiting { jobs: vec![job] };
    rig.batch.push(Event::ClientSaid { client: ALICE, tag: Tag(7), request, files: Vec::new() });
    rig.workers.get_mut(&worker).expect("it lives").clear();
    rig.tell(Event::OfferFailed { worker, seq, taken: true, shortage: None });
    assert_eq!(rig.answer_to(Tag(7)), Some((vec![job], vec![], vec![])));
    rig.tell(Event::TookBack { worker, seq, won: false });
    assert_eq!((rig.outcome(job), rig.holder(job)), (Some(Outcome::Cancelled), None));
}

#[test]
fn an_offer_whose_entry_is_broken_goes_on() {
    let mut rig = Rig::new(1);
    let job = rig.offered_quietly(Policy::default());
    let (worker, seq) = rig.holder(job).expect("it is offered");
    let tag = rig.ask_waiting(ALICE, &[job]);
    rig.batch.push(Event::Violated { worker, violation: Violation::ClaimWord });
    rig.tell(Event::TookBack { worker, seq, won: false });
    assert_eq!(rig.answer_to(tag), Some((vec![], vec![job], vec![])), "nobody can tell whether it has begun");
    rig.die(worker, SEGV);
    assert_eq!(rig.outcome(job), None);
}

#[test]
fn a_job_in_parts_ends_until_its_plan_is_begun() {
    let mut rig = Rig::new(1);
    let planned = rig.planned(3, Policy::default());
    let (queued, plan) = (rig.submit(1), rig.fan(Policy::default()));
    let answer = rig.cancel_waiting(ALICE, &[planned, queued, plan]);
    assert_eq!(answer, (vec![queued, plan], vec![planned], vec![]));
    for part in 0..3 {
        rig.end_part(planned, part, TaskResult::Inline(Payload::default()));
        assert_eq!(rig.cancel_waiting(ALICE, &[planned]).1, [planned], "also while its merge waits");
    }
    rig.finish(planned);
    assert_eq!(rig.outcome(planned), Some(Outcome::Done));
    let offered = rig.fan(Policy::default());
    assert!(rig.holder(offered).is_some());
    assert_eq!(rig.cancel_waiting(ALICE, &[offered]), (vec![offered], vec![], vec![]));
}

#[test]
fn jobs_of_others_do_not_exist_and_administrators_end_all() {
    let mut rig = Rig::new(1);
    let job = rig.submit(1);
    let foreign = |job, others| Refusal::Gone { job, others };
    assert_eq!(rig.cancel_waiting(BOB, &[job]), (vec![], vec![], vec![foreign(job, true)]));
    assert_eq!(rig.outcome(job), None);
    let never = Refusal::NeverWas { job: JobId(99), last: job };
    assert_eq!(rig.cancel_waiting(ADMIN, &[job, JobId(99)]), (vec![job], vec![], vec![never]));
    let WhyNow::Ended(WhyEnded { by, .. }) = rig.why(ALICE, job).now else { panic!() };
    assert_eq!(by, Some(Canceller::Administrator { uid: 0 }));
    let tag = rig.ask_waiting(ALICE, &vec![job; BATCH_MAX + 1]);
    let reply = rig.replies.iter().find(|reply| reply.1 == tag).map(|reply| &reply.2);
    assert!(matches!(reply, Some(Reply::Refused(Refusal::Invalid { .. }))), "{reply:?}");
}

#[test]
fn several_ask_about_one_offer_and_one_of_them_is_gone() {
    let mut rig = Rig::new(1);
    let job = rig.offered_quietly(Policy::default());
    let (worker, seq) = rig.holder(job).expect("it is offered");
    let (first, second) = (rig.ask_waiting(ADMIN, &[job]), rig.ask_waiting(ALICE, &[job]));
    let third = rig.ask_waiting(ALICE, &[job, JobId(job.0 + 1)]);
    rig.tell(Event::ClientGone { client: ADMIN });
    rig.take_back(worker, seq);
    rig.turn();
    assert_eq!(rig.answer_to(first), None);
    assert_eq!(rig.answer_to(second), Some((vec![job], vec![], vec![])));
    let never = Refusal::NeverWas { job: JobId(job.0 + 1), last: job };
    assert_eq!(rig.answer_to(third), Some((vec![job], vec![], vec![never])));
}

#[test]
fn a_cancel_overtakes_it() {
    let mut rig = Rig::new(1);
    let job = rig.offered_quietly(Policy::default());
    let (worker, seq) = rig.holder(job).expect("it is offered");
    let tag = rig.ask_waiting(ALICE, &[job]);
    assert_eq!(rig.change(ALICE, Request::Cancel { jobs: vec![job] }), (1, vec![]));
    rig.take_back(worker, seq);
    rig.turn();
    assert_eq!(rig.answer_to(tag), Some((vec![], vec![], vec![ended_already(job)])));
}

#[test]
fn the_end_of_a_held_job_is_numbered() {
    let mut rig = Rig::new(1);
    let (kind, inputs) = ("quick".to_owned(), vec![Payload::default(); 2]);
    let submit = Submit { kind, attached: true, held: true, inputs, ..Submit::default() };
    let Reply::Accepted { first, .. } = rig.answer(ALICE, Request::Submit(submit)) else { panic!() };
    rig.claim(first);
    assert_eq!(
        rig.cancel_waiting(ALICE, &[first, after(first, 1)]),
        (vec![after(first, 1)], vec![first], vec![])
    );
    let held = rig.replies.iter().find_map(|reply| match &reply.2 {
        Reply::Held { first, ended } => Some((*first, ended.iter().map(|end| end.job).collect::<Vec<_>>())),
        _ => None,
    });
    assert_eq!(held, Some((1, vec![after(first, 1)])));
}

/// Its expiry passes while the answer is on its way.
#[test]
fn a_job_that_expires_meanwhile_has_expired() {
    let mut rig = Rig::new(1);
    let job = rig.offered_quietly(Policy { expires_ms: Some(1000), ..Policy::default() });
    let (worker, seq) = rig.holder(job).expect("it is offered");
    let tag = rig.ask_waiting(ALICE, &[job]);
    rig.sleep(1001);
    rig.take_back(worker, seq);
    rig.turn();
    assert_eq!(rig.answer_to(tag), Some((vec![], vec![], vec![ended_already(job)])));
    assert_eq!(rig.outcome(job), Some(Outcome::Expired));
}

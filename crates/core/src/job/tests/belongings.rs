//! What belongs to a job beside its input: attachments, logs, progress subscriptions, deaths.

use std::rc::Rc;

use bulkhead_proto::client::evidence::{Evidence, TaskProgress};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::death::Death;
use bulkhead_proto::file::{FileUse, Way};
use bulkhead_proto::ids::{Fence, FileId, JobId, LogId};

use super::{ALICE, JobRoom, LOGGED, WORKER, failed};
use crate::event::Attached;
use crate::job::{NamedRegistrations, TaskRun};
use crate::turn::{AccountId, Resource};

fn with_file(room: &mut JobRoom) -> TaskRun {
    room.admit(1, |admission| {
        admission.submit.files = vec![FileUse { name: "in".to_owned(), way: Way::In }];
        admission.files = vec![Attached { file: FileId(3), pinned_bytes: 10 }];
    })
}

#[test]
fn attachments_are_let_go_by_the_last_who_has_them() {
    let mut room = JobRoom::new();
    let run = with_file(&mut room);
    room.take();
    let ticket = room.start(run).ticket;
    room.end_for(run, 0);
    assert!(room.jobs.are_attachments_held(run), "its offer has them");
    room.jobs.unload(&mut room.turn, ticket);
    assert!(!room.jobs.are_attachments_held(run));
    room.audit();
}

#[test]
#[should_panic(expected = "attachments that a job or an offer has are held")]
fn attachments_are_let_go_once() {
    let mut room = JobRoom::new();
    let run = with_file(&mut room);
    room.take();
    let ticket = room.start(run).ticket;
    room.end_for(run, 0);
    room.jobs.unload(&mut room.turn, ticket);
    room.jobs.unload(&mut room.turn, ticket);
}

#[test]
#[should_panic(expected = "attachments that a job or an offer has are held")]
fn a_settled_offer_has_no_scratch() {
    let mut room = JobRoom::new();
    let run = with_file(&mut room);
    room.take();
    let ticket = room.start(run).ticket;
    room.end_for(run, 0);
    room.jobs.unload(&mut room.turn, ticket);
    room.jobs.take_scratch(ticket);
}

#[test]
#[should_panic(expected = "attachments that a job or an offer has are held")]
fn a_job_is_offered_with_attachments_that_are_held() {
    let mut room = JobRoom::new();
    let run = with_file(&mut room);
    let attachments = room.jobs.job(run).attachments();
    room.jobs.release(&mut room.turn, attachments);
    room.take();
    room.start(run);
}

#[test]
#[should_panic(expected = "each file of a job has a name")]
fn each_file_of_a_job_has_a_name() {
    let files = vec![Attached { file: FileId(3), pinned_bytes: 10 }];
    JobRoom::new().admit(1, |admission| admission.files = files);
}

#[test]
#[should_panic(expected = "log 9 of a job is held")]
fn a_log_is_forgotten_once() {
    let mut room = JobRoom::new();
    room.jobs.logs.forget(AccountId::SERVICE, LogId(9));
}

#[test]
#[should_panic(expected = "job 1 has started before its log begins")]
fn a_log_begins_after_its_attempt() {
    let mut room = JobRoom::new();
    let run = room.of_kind(LOGGED);
    room.jobs.begin_log(&mut room.turn, run);
}

fn subscribed(room: &mut JobRoom) -> TaskRun {
    room.admit(1, |admission| (admission.submit.attached, admission.submit.progress) = (true, true));
    let run = room.next_running();
    room.jobs.begin_progress(&mut room.turn, run);
    run
}

#[test]
#[should_panic(expected = "job 1 runs when its progress begins")]
fn a_queued_job_makes_no_progress() {
    let mut room = JobRoom::new();
    let run =
        room.admit(1, |admission| (admission.submit.attached, admission.submit.progress) = (true, true));
    room.jobs.begin_progress(&mut room.turn, run);
}

#[test]
#[should_panic(expected = "job 1 has a progress subscription when it is looked at")]
fn nobody_looks_at_a_job_without_a_subscription() {
    let mut room = JobRoom::new();
    room.running();
    room.jobs.progress_due(&mut room.turn, JobId(1));
}

#[test]
#[should_panic(expected = "a job whose progress is told has a subscription")]
fn nobody_is_told_of_a_job_without_a_subscription() {
    let mut room = JobRoom::new();
    let run = room.running();
    room.jobs.progress_told(run, Fence(1), TaskProgress { done: 1, total: 2 });
}

#[test]
#[should_panic(expected = "the progress of job 1 does not go back within an attempt")]
fn progress_does_not_go_back_within_an_attempt() {
    let mut room = JobRoom::new();
    let run = subscribed(&mut room);
    room.jobs.progress_told(run, Fence(1), TaskProgress { done: 2, total: 2 });
    room.jobs.progress_told(run, Fence(2), TaskProgress { done: 1, total: 2 });
    room.jobs.progress_told(run, Fence(2), TaskProgress { done: 0, total: 2 });
}

#[test]
#[should_panic(expected = "the progress of job 1 does not go back within an attempt")]
fn no_earlier_attempt_is_told() {
    let mut room = JobRoom::new();
    let run = subscribed(&mut room);
    room.jobs.progress_told(run, Fence(2), TaskProgress { done: 1, total: 2 });
    room.jobs.progress_told(run, Fence(1), TaskProgress { done: 2, total: 2 });
}

#[test]
#[should_panic(expected = "an account that holds deaths has an oldest one")]
fn an_account_drops_a_death_that_it_has() {
    JobRoom::new().jobs.drop_oldest_death(AccountId::SERVICE);
}

#[test]
#[should_panic(expected = "an account that holds logs has an idle one")]
fn the_log_of_a_running_job_stays() {
    let mut room = JobRoom::new();
    let run = room.of_kind(LOGGED);
    room.take();
    room.start(run);
    room.jobs.begin_log(&mut room.turn, run);
    room.jobs.evict_log(&mut room.turn, AccountId::SERVICE);
}

#[test]
#[should_panic(expected = "an account that holds kept jobs has a list of them")]
fn an_account_drops_a_job_that_it_keeps() {
    let mut room = JobRoom::new();
    room.running();
    room.jobs.oldest_kept(AccountId::SERVICE, Resource::Kept);
}

#[test]
#[should_panic(expected = "an account that holds kept jobs has an oldest one")]
fn a_quarantined_job_is_not_dropped_for_a_kept_one() {
    let mut room = JobRoom::new();
    let run = room.running();
    room.end_for(run, 0);
    room.jobs.oldest_kept(AccountId::SERVICE, Resource::Quarantined);
}

#[test]
#[should_panic(expected = "is its job's")]
fn the_evidence_of_a_part_is_its_jobs() {
    let mut room = JobRoom::new();
    room.in_parts(2);
    let part = room.next_running();
    let (death, evidence) = (Death::LeftInMidJob, Evidence::default());
    let dead = crate::job::ProvenDeath { worker: WORKER, pid: 7, death: &death, evidence: &evidence };
    room.jobs.keep_death(&room.turn, (part.handle.index, None, 1), &dead, true);
}

/// Of other ends the daemon says when a block is free, told or not.
#[test]
fn a_reported_job_that_is_forgotten_untold_frees_its_block_all_the_same() {
    let mut room = JobRoom::new();
    for (outcome, has_arena) in
        [(Outcome::Done, true), (Outcome::Done, false), (failed(), true), (Outcome::Cancelled, true)]
    {
        let registered = NamedRegistrations { all: Vec::new(), has_arena };
        let run = room.admit(1, |admission| {
            admission.submit.attached = true;
            admission.named = Some(Rc::new(registered));
        });
        room.take();
        let ticket = room.start(run).ticket;
        let is_reported = outcome != Outcome::Cancelled;
        let freed = usize::from(is_reported && has_arena);
        if is_reported {
            room.jobs.unload(&mut room.turn, ticket);
        }
        room.end_as(run, outcome.clone());
        room.jobs.announced(run, 1);
        if !is_reported {
            room.jobs.unload(&mut room.turn, ticket);
        }
        let unnamed: Vec<_> = room.jobs.take_unnamed().iter().map(|job| job.is_told).collect();
        assert_eq!(
            unnamed,
            [is_reported],
            "{outcome:?}: its end says that the block is free, or the daemon does"
        );
        let job = run.first();
        room.jobs.forget(&mut room.turn, run);
        assert_eq!(room.jobs.take_reported_untold(), vec![(ALICE, job); freed], "{outcome:?}");
    }
    let told = room.attached();
    room.take();
    room.start(told);
    room.end_for(told, 1);
    room.jobs.forget(&mut room.turn, told);
    assert!(room.jobs.take_reported_untold().is_empty(), "it has no registrations");
}

//! Ends: given, announced, told, kept, forgotten, asked for anew.

use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::ids::{JobId, OutputId, Tag};

use super::{ALICE, JobRoom, failed};
use crate::event::Leftover;
use crate::job::state::Retention;
use crate::job::{BatchGone, EndedBy, Released, Untold};

#[test]
#[should_panic(expected = "job 1 went from Ended to Ended")]
fn a_job_ends_once() {
    let mut room = JobRoom::new();
    let run = room.ended();
    room.end_as(run, Outcome::Cancelled);
}

#[test]
#[should_panic(expected = "job 1 ends after its parts")]
fn a_job_ends_after_its_parts() {
    let mut room = JobRoom::new();
    let run = room.in_parts(2);
    room.end_as(run, Outcome::Cancelled);
}

#[test]
#[should_panic(expected = "what is announced has ended")]
fn a_job_is_announced_after_its_end() {
    let mut room = JobRoom::new();
    let run = room.queued();
    room.jobs.announced(run, 0);
}

#[test]
#[should_panic(expected = "job 1 is announced once")]
fn an_end_is_announced_once() {
    let mut room = JobRoom::new();
    let run = room.ended();
    room.jobs.announced(run, 0);
}

#[test]
#[should_panic(expected = "the client of attached job 1 is to be told of its end")]
fn an_attached_end_has_a_client() {
    let mut room = JobRoom::new();
    let run = room.attached();
    room.end_for(run, 0);
}

#[test]
#[should_panic(expected = "job 1 was announced before it leaves its shelf")]
fn an_end_is_announced_before_it_is_forgotten() {
    let mut room = JobRoom::new();
    let run = room.queued();
    room.end_as(run, Outcome::Cancelled);
    room.jobs.forget(&mut room.turn, run);
}

#[test]
#[should_panic(expected = "the end of job 1 is announced first")]
fn an_end_is_announced_before_more_are_told() {
    let mut room = JobRoom::new();
    let run = room.queued();
    room.end_as(run, Outcome::Cancelled);
    room.jobs.tell_one_more(run);
}

#[test]
#[should_panic(expected = "its end is there to be told")]
fn nobody_is_told_of_an_end_that_is_not_there() {
    let mut room = JobRoom::new();
    let run = room.queued();
    room.jobs.tell_one_more(run);
}

#[test]
#[should_panic(expected = "job 1 is a job that has not ended")]
fn nobody_waits_for_an_end_that_is_there() {
    let mut room = JobRoom::new();
    let run = room.ended();
    room.jobs.add_waiter(run, ALICE, |_| true);
}

#[test]
#[should_panic(expected = "job 1 is a job that has not ended")]
fn nobody_waits_again_for_an_end_that_is_there() {
    let mut room = JobRoom::new();
    let run = room.ended();
    room.jobs.wait_again(run, (ALICE, Some(Tag(2))));
}

#[test]
fn an_attached_end_is_told_as_often_as_it_was_announced() {
    let mut room = JobRoom::new();
    let run = room.attached();
    room.end_for(run, 2);
    assert_eq!(room.jobs.told(&mut room.turn, run.first(), true), Released::default());
    let Released { untold, batch, .. } = room.jobs.told(&mut room.turn, run.first(), false);
    assert!(matches!(untold, Some(Untold { client: ALICE, .. })), "its client was relieved");
    assert_eq!(batch, None, "it was not done, so it is kept");
    room.audit();
}

#[test]
#[should_panic(expected = "clients to be told of an end are counted before they go")]
fn an_attached_end_is_not_told_more_often() {
    let mut room = JobRoom::new();
    let run = room.attached();
    room.end_for(run, 1);
    // As if its letter had been read without a word to this room.
    room.jobs.table[run.handle.index].end_mut().unwrap().untold = 0;
    room.jobs.told(&mut room.turn, run.first(), true);
}

#[test]
#[should_panic(expected = "an ended job is put on one shelf")]
fn an_ended_job_is_on_one_shelf() {
    let mut room = JobRoom::new();
    let run = room.ended();
    room.jobs.keep_ended(run.handle.index);
}

#[test]
#[should_panic(expected = "only ended jobs are kept")]
fn only_ended_jobs_are_kept() {
    let mut room = JobRoom::new();
    let run = room.queued();
    room.jobs.keep_ended(run.handle.index);
}

#[test]
#[should_panic(expected = "only ended jobs are on a shelf")]
fn only_ended_jobs_are_forgotten() {
    let mut room = JobRoom::new();
    let run = room.queued();
    room.jobs.forget(&mut room.turn, run);
}

#[test]
#[should_panic(expected = "only ended jobs are on a shelf")]
fn only_ended_jobs_are_taken_by_their_clients() {
    let mut room = JobRoom::new();
    let run = room.queued();
    room.jobs.take_end(&mut room.turn, run);
}

#[test]
#[should_panic(expected = "kept jobs are counted before they go")]
fn kept_jobs_are_counted() {
    let mut room = JobRoom::new();
    let (first, second) = (room.ended(), room.ended());
    // The second was never counted.
    room.jobs.kept.count -= 1;
    room.jobs.forget(&mut room.turn, first);
    room.jobs.forget(&mut room.turn, second);
}

#[test]
#[should_panic(expected = "bytes of ends that wait for clients are counted before they go")]
fn bytes_of_untold_ends_are_counted() {
    let mut room = JobRoom::new();
    let run = room.attached();
    room.end_for(run, 1);
    room.jobs.kept.remove_untold(1);
    room.jobs.forget(&mut room.turn, run);
}

#[test]
#[should_panic(expected = "output 7 is held for one job")]
fn an_output_is_held_for_one_job() {
    let mut room = JobRoom::new();
    for _ in 0..2 {
        room.queued();
        let run = room.take();
        let ticket = room.start(run).ticket;
        room.jobs.hold_output(ticket, OutputId(7), 1);
        let left = Leftover::Held { output: OutputId(7), bytes: 1 };
        room.jobs.end(&mut room.turn, run, failed(), left, EndedBy::Itself);
        room.jobs.announced(run, 0);
    }
}

#[test]
#[should_panic(expected = "only an ended job is run again")]
fn only_an_ended_job_is_run_again() {
    let mut room = JobRoom::new();
    let run = room.queued();
    room.jobs.retry(&mut room.turn, run);
}

#[test]
#[should_panic(expected = "job 1 can be run again")]
fn a_done_job_is_not_run_again() {
    let mut room = JobRoom::new();
    let run = room.running();
    room.end_as(run, Outcome::Done);
    room.jobs.announced(run, 0);
    room.jobs.retry(&mut room.turn, run);
}

#[test]
#[should_panic(expected = "only an ended job is run again")]
fn a_job_is_asked_again_once() {
    let mut room = JobRoom::new();
    let run = room.ended();
    room.jobs.retry(&mut room.turn, run);
    let run = super::run_of(&room, 1);
    room.jobs.retry(&mut room.turn, run);
}

#[test]
#[should_panic(expected = "the attachments of job 1 were let go")]
fn a_job_is_run_again_after_its_offers_were_settled() {
    let mut room = JobRoom::new();
    let run = room.in_parts(2);
    // The offer of its plan is never settled, so it still carries what the job had.
    room.jobs.close_parts(&mut room.turn, run);
    room.end_for(run, 0);
    room.jobs.retry(&mut room.turn, run);
}

#[test]
#[should_panic(expected = "the batch of job 1 is detached once")]
fn a_batch_is_detached_once() {
    let mut room = JobRoom::new();
    room.attached();
    room.jobs.detach(JobId(1), 1);
    room.jobs.detach(JobId(1), 1);
}

#[test]
#[should_panic(expected = "a batch that its client keeps a note of has a job")]
fn an_unknown_batch_is_not_detached() {
    let mut room = JobRoom::new();
    room.queued();
    room.jobs.detach(JobId(1), 1);
}

#[test]
fn the_batch_of_an_attached_job_goes_with_it() {
    let mut room = JobRoom::new();
    let run = room.attached();
    room.end_for(run, 1);
    assert_eq!(room.jobs.job(run).end().unwrap().retention, Retention::Untold);
    let released = room.jobs.forget(&mut room.turn, run);
    assert_eq!(released.batch, Some(BatchGone { client: ALICE, first: JobId(1) }));
    room.audit();
}

//! Lists, numbers, the queue and the table: what may enter, and what may leave.

use bulkhead_proto::job::Payload;

use super::{JobRoom, POOL};
use crate::job::list::IntrusiveList;
use crate::job::part_set::FIRST_PART;
use crate::job::state::{EntryState, TaskKind};
use crate::job::{Search, TakeChoice, TaskRun};

#[test]
#[should_panic(expected = "job 1 enters a list and is in none")]
fn a_job_is_in_one_list() {
    let mut room = JobRoom::new();
    let run = room.queued();
    IntrusiveList::default().push_back(&mut room.jobs.table.slab, run.handle.index);
}

#[test]
#[should_panic(expected = "job 1 enters a list and is in none")]
fn a_job_is_not_put_before_another_list() {
    let mut room = JobRoom::new();
    let run = room.queued();
    IntrusiveList::default().push_front(&mut room.jobs.table.slab, run.handle.index);
}

#[test]
#[should_panic(expected = "job 1 leaves a list that it is in")]
fn a_job_leaves_its_list_once() {
    let mut room = JobRoom::new();
    let run = room.queued();
    room.take();
    IntrusiveList::default().unlink(&mut room.jobs.table.slab, run.handle.index);
}

#[test]
#[should_panic(expected = "a job without a predecessor heads its list")]
fn a_job_leaves_its_own_list() {
    let mut room = JobRoom::new();
    let run = room.queued();
    IntrusiveList::default().unlink(&mut room.jobs.table.slab, run.handle.index);
}

#[test]
#[should_panic(expected = "a job without a successor ends its list")]
fn the_last_job_leaves_its_own_list() {
    let mut room = JobRoom::new();
    room.queued();
    let last = room.queued();
    IntrusiveList::default().unlink(&mut room.jobs.table.slab, last.handle.index);
}

#[test]
#[should_panic(expected = "number 1 is given to one job")]
fn a_number_names_one_job() {
    let mut ids = crate::job::number_index::NumberIndex::default();
    ids.insert(1, 7);
    ids.insert(1, 8);
}

#[test]
#[should_panic(expected = "number 1 is forgotten once")]
fn a_number_is_forgotten_once() {
    let mut ids = crate::job::number_index::NumberIndex::default();
    ids.insert(1, 7);
    ids.insert(2, 8);
    ids.remove(1);
    ids.remove(1);
}

#[test]
#[should_panic(expected = "number 9 is forgotten once")]
fn a_number_that_was_never_given_is_not_forgotten() {
    crate::job::number_index::NumberIndex::default().remove(9);
}

#[test]
#[should_panic(expected = "job 1 went from Queued to Parted")]
fn there_is_one_way_from_state_to_state() {
    let mut room = JobRoom::new();
    let run = room.queued();
    room.jobs.table.enter(run.handle.index, EntryState::Parted);
}

#[test]
#[should_panic(expected = "of a part is no job's")]
fn a_part_has_no_number_of_a_job() {
    let mut room = JobRoom::new();
    let run = room.queued();
    room.jobs.table.insert_part(run.handle.batch, run.first());
}

#[test]
#[should_panic(expected = "job 1 is removed as a part")]
fn a_job_is_not_removed_as_a_part() {
    let mut room = JobRoom::new();
    let run = room.queued();
    room.jobs.table.remove_part(run.handle.index);
}

fn queued_part(room: &mut JobRoom) -> TaskRun {
    room.in_parts(2);
    let found = room.jobs.table.find(FIRST_PART).or_else(|| {
        room.jobs.part_sets.iter().flat_map(|(_, part_set)| part_set.live.iter().copied()).next()
    });
    room.jobs.table.run(found.unwrap())
}

#[test]
#[should_panic(expected = "has left its list before it goes")]
fn a_queued_part_is_not_removed() {
    let mut room = JobRoom::new();
    let part = queued_part(&mut room);
    room.jobs.table.remove_part(part.handle.index);
}

#[test]
#[should_panic(expected = "outlives it")]
fn the_batch_of_parts_outlives_them() {
    let mut room = JobRoom::new();
    let part = queued_part(&mut room);
    room.jobs.table.batches[part.handle.batch as usize].refs = 1;
    room.jobs.queues.unlink(&mut room.jobs.table, part.handle.index);
    room.jobs.table.remove_part(part.handle.index);
}

#[test]
#[should_panic(expected = "job 1 leaves the table after its end")]
fn a_job_leaves_the_table_after_its_end() {
    let mut room = JobRoom::new();
    let run = room.queued();
    room.jobs.table.remove(run.handle.index);
}

#[test]
#[should_panic(expected = "job 1 has left its list before it goes")]
fn a_kept_job_leaves_its_shelf_before_the_table() {
    let mut room = JobRoom::new();
    let run = room.ended();
    room.jobs.table.remove(run.handle.index);
}

#[test]
#[should_panic(expected = "users of a batch are counted before they go")]
fn a_batch_goes_with_its_last_job() {
    let mut room = JobRoom::new();
    let run = room.queued();
    room.jobs.table.batches[run.handle.batch as usize].refs = 0;
    room.jobs.table.release_batch(run.handle.batch);
}

#[test]
#[should_panic(expected = "jobs in a phase are counted before they go")]
fn jobs_are_counted_by_phase() {
    let mut room = JobRoom::new();
    let run = room.queued();
    let number = room.jobs.table.reserve(1);
    let key = room.jobs.table.insert(run.handle.batch, number, Payload::default(), TaskKind::Whole);
    // It was never counted as running.
    room.jobs.table[key].state =
        EntryState::Running { worker: super::WORKER, seq: bulkhead_proto::ids::Seq(1), since_ns: 0 };
    room.jobs.table.enter(key, EntryState::Solo);
}

#[test]
#[should_panic(expected = "job 1 enters the queue")]
fn only_queued_jobs_enter_the_queue() {
    let mut room = JobRoom::new();
    let run = room.running();
    room.jobs.queues.push_back(&mut room.jobs.table, run.handle.index);
}

#[test]
#[should_panic(expected = "job 1 waits to run alone")]
fn only_charged_jobs_wait_to_run_alone() {
    let mut room = JobRoom::new();
    let run = room.running();
    room.jobs.queues.push_back_solo(&mut room.jobs.table, run.handle.index);
}

#[test]
#[should_panic(expected = "job 1 waits to run alone")]
fn only_charged_jobs_are_given_back_to_run_alone() {
    let mut room = JobRoom::new();
    let run = room.running();
    room.jobs.queues.push_front_solo(&mut room.jobs.table, run.handle.index);
}

#[test]
#[should_panic(expected = "job 1 waits to run alone")]
fn a_queued_job_is_not_among_those_that_run_alone() {
    let mut room = JobRoom::new();
    let run = room.queued();
    room.jobs.queues.unlink_solo(&mut room.jobs.table, run.handle.index);
}

#[test]
#[should_panic(expected = "queued jobs are counted before they go")]
fn the_queue_counts_its_jobs() {
    let mut room = JobRoom::new();
    let run = room.running();
    room.jobs.queues.unlink(&mut room.jobs.table, run.handle.index);
}

#[test]
#[should_panic(expected = "the client of a queued job is in the queue")]
fn a_job_leaves_the_backlog_of_its_client() {
    let mut room = JobRoom::new();
    let run = room.queued();
    room.jobs.table.batches[run.handle.batch as usize].client = bulkhead_proto::ids::ClientId(77);
    room.jobs.queues.unlink(&mut room.jobs.table, run.handle.index);
}

#[test]
#[should_panic(expected = "the user of a queued job is in the queue")]
fn a_job_leaves_the_queue_of_its_user() {
    let mut room = JobRoom::new();
    let run = room.queued();
    room.jobs.table.batches[run.handle.batch as usize].uid = 77;
    room.jobs.queues.unlink(&mut room.jobs.table, run.handle.index);
}

#[test]
#[should_panic(expected = "a run has a task")]
fn a_run_of_no_task_is_not_taken() {
    let mut room = JobRoom::new();
    room.queued();
    room.jobs.take(&room.turn, (POOL, Search::Idle), 0, |_| TakeChoice::Take);
}

#[test]
fn a_job_that_is_not_wanted_keeps_its_place() {
    let mut room = JobRoom::new();
    let run = room.queued();
    assert_eq!(room.jobs.take(&room.turn, (POOL, Search::Idle), 1, |_| TakeChoice::Stop), None);
    assert_eq!(room.take(), run);
    assert_eq!(
        room.jobs.take(&room.turn, (POOL, Search::Idle), 1, |_| TakeChoice::Take),
        None,
        "a job is taken once"
    );
}

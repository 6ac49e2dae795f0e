//! Every assertion of this room bites: each test here breaks one rule and is stopped by its name.
//!
//! The fixture is a turn and the workers of two pools, driven by the room's own methods; where no method can break a
//! rule, a test writes the field that breaks it.

use bulkhead_proto::death::KillReason;
use bulkhead_proto::ids::{Fence, JobId, PoolId, Seq, SlotId, WorkerId};
use bulkhead_proto::limits::RING;

use super::state::{Proof, StuckSlot, WorkerDuty};
use super::*;
use crate::action::Output;
use crate::config::PoolSize;
use crate::event::Now;
use crate::turn::{TaskLimits, Turn, WorkerAlarm};

/// The default pool: two slots, which are 0 and 1, and one spare.
const FIRST: PoolId = PoolId(0);
/// The other pool: one slot, which is 2, and one spare.
const SECOND: PoolId = PoolId(1);
/// Its slot.
const SLOT_OF_SECOND: usize = 2;

struct WorkerRoom {
    turn: Turn,
    workers: Workers<()>,
}

impl WorkerRoom {
    /// Two pools, every worker of which is spawned and none of which is up: 1 to 3 of the first, 4 and 5 of the second.
    fn new() -> Self {
        let pools = vec![PoolSize { name: "other".to_owned(), ..PoolSize::default() }];
        let config = Config { slots: 2, spares: 1, pools, ..Config::default() };
        let workers = Workers::new(&config);
        let mut turn = Turn::new(config, Now::default());
        turn.begin(Now { mono_ns: 1_000_000_000, wall_us: 1 }, &mut Output::default());
        let mut room = Self { turn, workers };
        room.workers.tend(&mut room.turn, false);
        room
    }

    /// The same; these workers are up and none of them has a slot.
    fn with_spares(spares: &[u64]) -> Self {
        let mut room = Self::new();
        for &id in spares {
            room.workers.spawned(&mut room.turn, WorkerId(id), 100);
            room.workers.ready(&mut room.turn, WorkerId(id));
        }
        room
    }

    /// Worker 1 is idle in slot 0, worker 2 in slot 1, worker 3 is a spare.
    fn up() -> Self {
        let mut room = Self::with_spares(&[1, 2, 3]);
        room.workers.place_spares(&mut room.turn);
        room.workers.audit();
        room
    }

    fn place(&mut self, id: u64, slot: usize) {
        self.workers.place(&mut self.turn, WorkerId(id), slot);
    }

    /// Offers a task without limits to a worker.
    fn offer(&mut self, id: u64) {
        self.offer_with(id, TaskLimits::default());
    }

    fn offer_with(&mut self, id: u64, limits: TaskLimits) {
        let number = JobId(7);
        let offer = NewOffer {
            ticket: (),
            number,
            count: 1,
            shown: number,
            uid: 7,
            fence: Fence(1),
            cost_ns: 10,
            timeout_ms: None,
            grace_ms: 100,
        };
        self.workers.offer_to(&mut self.turn, WorkerId(id), offer, limits);
    }

    fn settle(&mut self, id: u64, seq: u64) {
        self.workers.settle(&mut self.turn, WorkerId(id), Seq(seq)).expect("the offer is held");
    }

    fn kill(&mut self, id: u64) {
        self.workers.kill(&mut self.turn, WorkerId(id), KillReason::Stop.into());
    }
}

/// Limits that have to be watched.
fn watched() -> TaskLimits {
    TaskLimits { no_progress_ms: Some(1000), ..TaskLimits::default() }
}

#[test]
fn a_worker_that_keeps_the_rules_goes_through_its_life() {
    let mut room = WorkerRoom::up();
    room.offer_with(1, watched());
    room.settle(1, 1);
    room.workers.note_ended(&mut room.turn, WorkerId(1), false);
    room.workers.idle_if_empty(WorkerId(1));
    room.workers.audit();
    room.workers.retire(&mut room.turn, WorkerId(1));
    room.offer(2);
    room.kill(2);
    room.workers.overdue(&mut room.turn, WorkerId(2));
    room.workers.note_seen(&mut room.turn, WorkerId(2), None);
    room.workers.place_spares(&mut room.turn);
    room.workers.audit();
    room.workers.remove(&mut room.turn, WorkerId(2));
    room.workers.remove(&mut room.turn, WorkerId(1));
    room.workers.audit();
}

#[test]
#[should_panic(expected = "pool default misses no worker")]
fn no_more_workers_are_spawned_than_are_missing() {
    let mut room = WorkerRoom::new();
    room.workers.spawn(&mut room.turn, FIRST);
}

#[test]
#[should_panic(expected = "worker 5 is spawned once")]
fn no_number_of_a_worker_is_used_twice() {
    let mut room = WorkerRoom::new();
    room.kill(4);
    room.workers.last = 4;
    room.workers.spawn(&mut room.turn, SECOND);
}

#[test]
#[should_panic(expected = "worker 1 has its process already")]
fn no_worker_gets_a_second_process() {
    let mut room = WorkerRoom::with_spares(&[1]);
    room.workers.spawned(&mut room.turn, WorkerId(1), 101);
}

#[test]
#[should_panic(expected = "worker 1 went from Killed to Killed")]
fn no_worker_is_killed_twice() {
    let mut room = WorkerRoom::up();
    room.kill(1);
    room.kill(1);
}

#[test]
#[should_panic(expected = "worker 1 went from Busy to Retiring")]
fn no_busy_worker_is_asked_to_leave() {
    let mut room = WorkerRoom::up();
    room.offer(1);
    room.workers.retire(&mut room.turn, WorkerId(1));
}

#[test]
#[should_panic(expected = "worker 1 went from Starting to Idle")]
fn no_worker_gets_a_slot_before_it_is_up() {
    WorkerRoom::new().place(1, 0);
}

#[test]
#[should_panic(expected = "worker 1 went from Killed to Idle")]
fn no_worker_comes_back_from_being_killed() {
    let mut room = WorkerRoom::up();
    room.kill(1);
    room.workers.enter(WorkerId(1), WorkerDuty::Idle { slot: SlotId(0) });
}

#[test]
#[should_panic(expected = "worker 1 is Idle with 1 offers")]
fn no_idle_worker_holds_an_offer() {
    let mut room = WorkerRoom::up();
    room.offer(1);
    room.workers.enter(WorkerId(1), WorkerDuty::Idle { slot: SlotId(0) });
}

#[test]
#[should_panic(expected = "worker 1 is Busy with 0 offers")]
fn no_busy_worker_is_without_an_offer() {
    let mut room = WorkerRoom::up();
    room.workers.enter(WorkerId(1), WorkerDuty::Busy { slot: SlotId(0) });
}

#[test]
#[should_panic(expected = "worker 1 is Killed in slot 1, which it does not have")]
fn no_state_names_the_slot_of_another_worker() {
    let mut room = WorkerRoom::up();
    let slot = Some(SlotId(1));
    let state = WorkerDuty::Killed {
        kill: KillReason::Stop.into(),
        was_retiring: false,
        slot,
        proof: Proof::Awaited,
    };
    room.workers.enter(WorkerId(1), state);
}

#[test]
#[should_panic(expected = "worker 1 is Retiring and keeps slot 0")]
fn no_worker_keeps_a_slot_that_its_state_does_not_name() {
    let mut room = WorkerRoom::up();
    room.workers.enter(WorkerId(1), WorkerDuty::Retiring);
}

#[test]
#[should_panic(expected = "slot 0 is not free for worker 3")]
fn no_slot_has_two_workers() {
    WorkerRoom::up().place(3, 0);
}

#[test]
#[should_panic(expected = "slot 2 is not of the pool of worker 1")]
fn no_worker_gets_a_slot_of_another_pool() {
    WorkerRoom::with_spares(&[1]).place(1, SLOT_OF_SECOND);
}

#[test]
#[should_panic(expected = "worker 1 leaves slot 1, which it does not have")]
fn no_worker_vacates_the_slot_of_another_worker() {
    let mut room = WorkerRoom::up();
    room.workers.vacate(&room.turn, WorkerId(1), FIRST, Some(SlotId(1)));
}

#[test]
#[should_panic(expected = "pool default has no vacant slot to fill")]
fn no_more_slots_are_filled_than_were_vacant() {
    let mut room = WorkerRoom::with_spares(&[1]);
    room.workers.pool_mut(FIRST).vacant = 0;
    room.place(1, 0);
}

#[test]
#[should_panic(expected = "pool default has no filled slot to free")]
fn no_more_slots_are_freed_than_were_filled() {
    let mut room = WorkerRoom::up();
    room.workers.pool_mut(FIRST).vacant = 2;
    room.workers.retire(&mut room.turn, WorkerId(1));
}

#[test]
#[should_panic(expected = "pool default counts no worker as Idle")]
fn no_worker_leaves_a_state_that_counts_none() {
    let mut room = WorkerRoom::up();
    room.workers.pool_mut(FIRST).counts = [0; 7];
    room.offer(1);
}

#[test]
#[should_panic(expected = "pool default counts no worker as Starting")]
fn no_worker_is_removed_that_its_pool_does_not_count() {
    let mut room = WorkerRoom::new();
    room.workers.pool_mut(FIRST).counts = [0; 7];
    room.workers.remove(&mut room.turn, WorkerId(1));
}

#[test]
#[should_panic(expected = "pool default lists worker 3 among more spares than it has")]
fn no_spare_is_listed_twice() {
    let mut room = WorkerRoom::up();
    room.workers.pool_mut(FIRST).add_spare(WorkerId(3));
}

#[test]
#[should_panic(expected = "pool default replaced no stuck worker")]
fn no_replaced_stuck_worker_is_forgotten_twice() {
    let mut room = WorkerRoom::up();
    room.kill(1);
    room.workers.overdue(&mut room.turn, WorkerId(1));
    room.workers.note_seen(&mut room.turn, WorkerId(1), None);
    assert!(matches!(
        room.workers.table[&WorkerId(1)].state,
        WorkerDuty::Stuck { place: StuckSlot::GivenAway, .. }
    ));
    room.workers.pool_mut(FIRST).stuck_replaced = 0;
    room.workers.remove(&mut room.turn, WorkerId(1));
}

#[test]
#[should_panic(expected = "pool default replaces too many stuck workers")]
fn no_more_stuck_workers_are_replaced_than_there_are_slots() {
    let mut room = WorkerRoom::new();
    (0..3).for_each(|_| room.workers.pool_mut(FIRST).replace_stuck());
}

#[test]
#[should_panic(expected = "worker 3 has no slot, and is offered a task as Spare")]
fn no_worker_without_a_slot_is_offered_a_task() {
    WorkerRoom::up().offer(3);
}

#[test]
#[should_panic(expected = "an offer has an entry of the ring, and a task")]
fn no_offer_is_made_beyond_the_ring() {
    let mut room = WorkerRoom::up();
    (0..=RING).for_each(|_| room.offer(1));
}

#[test]
#[should_panic(expected = "worker 1 is offered a task beside one whose limits are watched")]
fn no_task_is_offered_beside_a_watched_one() {
    let mut room = WorkerRoom::up();
    room.offer_with(1, watched());
    room.offer(1);
}

#[test]
#[should_panic(expected = "worker 1 is offered a task beside one whose limits are watched")]
fn no_watched_task_is_offered_beside_another() {
    let mut room = WorkerRoom::up();
    room.offer(1);
    room.offer_with(1, watched());
}

#[test]
#[should_panic(expected = "worker 1 has settled 0 offers, and ended or gave back 1")]
fn no_worker_has_ended_what_it_has_not_settled() {
    let mut room = WorkerRoom::up();
    room.offer(1);
    room.workers.note_ended(&mut room.turn, WorkerId(1), false);
}

#[test]
#[should_panic(expected = "worker 1 has settled 0 offers, and ended or gave back 1")]
fn no_worker_gives_back_what_it_has_not_settled() {
    let mut room = WorkerRoom::up();
    room.offer(1);
    room.kill(1);
    room.workers.note_requeued(WorkerId(1));
}

#[test]
#[should_panic(expected = "worker 1 is to end offer 1, which it does not hold")]
fn no_worker_is_asked_to_end_what_it_does_not_hold() {
    let mut room = WorkerRoom::up();
    room.offer(1);
    let offer = room.workers.head(WorkerId(1)).expect("it has just been offered");
    room.settle(1, 1);
    room.workers.end_unwanted(&mut room.turn, WorkerId(1), &offer, KillReason::Cancel);
}

#[test]
#[should_panic(expected = "pool default degrades and is degraded already")]
fn no_pool_degrades_twice() {
    let mut room = WorkerRoom::up();
    for _ in 0..2 {
        room.workers.degrade(&mut room.turn, FIRST, "seen".to_owned(), "last");
    }
}

#[test]
#[should_panic(expected = "the alarm of a shortage went off and nothing is short")]
fn no_shortage_is_over_twice() {
    let mut room = WorkerRoom::up();
    assert!(room.workers.fall_short(&mut room.turn, "no memory"));
    room.workers.shortage_over();
    room.workers.shortage_over();
}

/// Whether the method that hears an alarm of a worker asserts that it was set.
fn asserts_alarm(alarm: WorkerAlarm, ring: impl FnOnce(&mut WorkerRoom) + std::panic::UnwindSafe) {
    let panicked = std::panic::catch_unwind(|| {
        let mut room = WorkerRoom::up();
        room.offer_with(1, watched());
        let (turn, workers) = (&mut room.turn, &mut room.workers);
        workers.table.get_mut(&WorkerId(1)).expect("it was spawned").cancel(turn, WorkerId(1), alarm);
        ring(&mut room);
    });
    let why = panicked.expect_err("an alarm that was not set is no alarm");
    let why = why.downcast_ref::<String>().expect("an assertion with a text");
    assert_eq!(*why, format!("alarm {alarm:?} of a worker went off and was not set"));
}

#[test]
fn no_alarm_goes_off_that_was_not_set() {
    let id = WorkerId(1);
    asserts_alarm(WorkerAlarm::Overdue, |room| _ = room.workers.overdue(&mut room.turn, id));
    asserts_alarm(WorkerAlarm::Limit, |room| _ = room.workers.head_limit_met(&mut room.turn, id, true));
    asserts_alarm(WorkerAlarm::Watch, |room| room.workers.watch_due(&mut room.turn, id));
    asserts_alarm(WorkerAlarm::Stopped, |room| _ = room.workers.stopped_too_long(id));
    asserts_alarm(WorkerAlarm::EndOrder, |room| room.workers.order_over(&mut room.turn, id));
    asserts_alarm(WorkerAlarm::Survival, |room| _ = room.workers.survived(&mut room.turn, id));
}

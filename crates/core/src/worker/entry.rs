//! One worker: its state and the data that does not depend on the state.
//!
//! `state.rs` has the states. Independent of them are the ring, the channel, the lane, whether a signal stopped the worker
//! or the program of its task, the watched limits of its task, and its alarms. Other rooms read by the methods here; only
//! files of this folder write fields.

use bulkhead_proto::client::evidence::ProcessSeen;
use bulkhead_proto::client::view::WorkerState;
use bulkhead_proto::ids::{JobId, PoolId, SlotId, WorkerId};
use bulkhead_proto::limits::UNCLOSED_MAX;

use crate::turn::{Alarm, AlarmSlot, Owner, Turn, WORKER_ALARMS, WorkerAlarm};
use crate::worker::end_order::EndOrder;
use crate::worker::held::HolderClaim;
use crate::worker::program_stop::StoppedTask;
use crate::worker::ring::OfferRing;
use crate::worker::stack_request::StackRequest;
use crate::worker::state::{Kill, WorkerDuty};
use crate::worker::stopped::StopTally;
use crate::worker::task_watch::TaskWatch;

/// The process of a worker, and when it was spawned and connected.
#[derive(Debug)]
pub(super) struct SpawnedProcess {
    pub(super) spawned_us: u64,
    pub(super) spawned_ns: u64,
    /// When it was connected, nanoseconds on the clock of the turns; 0 before.
    pub(super) ready_ns: u64,
    /// Its process id, once [`Event::WorkerSpawned`](crate::event::Event::WorkerSpawned) told it.
    pub(super) pid: Option<u32>,
}

/// Counters and measurements of one worker.
#[derive(Debug, Default)]
pub(super) struct WorkerStats {
    /// Tasks that it has ended.
    pub(super) ended: u64,
    /// Whether the last of them was reported as failed.
    pub(super) failed_last: bool,
    /// The job that left processes which the worker could not end, and its user.
    pub(super) left_by: Option<(JobId, u32)>,
    /// Whose tasks it was offered, since its start.
    pub(super) offered_for: Owner,
    /// Resident memory when it was last examined, in bytes.
    pub(super) resident_bytes: u64,
    /// Files of clients that it has to close, as it said last.
    pub(super) unclosed: u64,
    /// The earliest time of the next examination of its size, nanoseconds on the clock of the turns.
    pub(super) check_size_from_ns: u64,
    /// Offers taken back from it since it was killed or hung up.
    pub(super) requeued: u32,
}

/// The channel to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChannelState {
    /// Messages can be sent.
    Open,
    /// A message could not be sent at `since_ns`, and no task of the worker has ended since. While `is_full`, the worker is
    /// offered nothing; a task that ends or the alarm `Resume` clears it.
    Refusing { since_ns: u64, is_full: bool },
}

/// The lane of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LaneState {
    /// Connected.
    Up,
    /// Hung up: the worker is offered nothing any more.
    HungUp,
}

/// One worker. `T` is the machine's ticket in an offer.
#[derive(Debug)]
pub(crate) struct Worker<T> {
    pub(super) state: WorkerDuty,
    /// Its pool, from its spawn to its end.
    pub(super) pool: PoolId,
    pub(super) process: SpawnedProcess,
    pub(super) ring: OfferRing<T>,
    pub(super) channel: ChannelState,
    pub(super) lane: LaneState,
    /// When it is killed because a signal stopped it. While this is set, the worker is offered nothing.
    pub(super) stopped_until_ns: Option<u64>,
    /// Which of its stops are records.
    pub(super) stops: StopTally,
    /// The program of its task, while a signal has stopped it.
    pub(super) program_stop: Option<StoppedTask>,
    /// When a stop of a program is recorded again, nanoseconds on the clock of the turns.
    pub(super) record_stops_from_ns: u64,
    /// The limits of the task in its ring, if examinations are needed for them.
    pub(super) watch: Option<TaskWatch>,
    /// The task that [`Action::Unwant`](crate::action::Action::Unwant) told it to end.
    pub(super) end_order: Option<EndOrder>,
    /// How far it is with the text of its stack.
    pub(super) stack_request: StackRequest,
    pub(super) stats: WorkerStats,
    /// How many tasks it may run at most, in a pool that recycles strictly (`recycle.rs`).
    pub(super) tasks_max: u64,
    /// Whether it is too old or too large to be offered a task in such a pool, or has too many files to close.
    pub(super) is_worn: bool,
    /// As what its pool counts it, and for which user.
    pub(super) counted_for: Option<HolderClaim>,
    alarms: [AlarmSlot; WORKER_ALARMS],
}

impl<T: Copy> Worker<T> {
    /// A worker whose process is about to be spawned.
    pub(super) fn new(pool: PoolId, turn: &Turn) -> Self {
        Self {
            state: WorkerDuty::Starting,
            pool,
            process: SpawnedProcess {
                spawned_us: turn.wall_us(),
                spawned_ns: turn.now_ns(),
                ready_ns: 0,
                pid: None,
            },
            ring: OfferRing::new(),
            channel: ChannelState::Open,
            lane: LaneState::Up,
            stopped_until_ns: None,
            stops: StopTally::default(),
            program_stop: None,
            record_stops_from_ns: 0,
            watch: None,
            end_order: None,
            stack_request: StackRequest::default(),
            stats: WorkerStats::default(),
            tasks_max: u64::MAX,
            is_worn: false,
            counted_for: None,
            alarms: Default::default(),
        }
    }

    /// Sets one of its alarms, in place of an earlier one of this sort.
    pub(super) fn set(&mut self, turn: &mut Turn, id: WorkerId, alarm: WorkerAlarm, at_ns: u64) {
        turn.set(&mut self.alarms[alarm as usize], Alarm::Worker(alarm, id), at_ns);
    }

    /// Takes one of its alarms away, if it is set.
    pub(super) fn cancel(&mut self, turn: &mut Turn, id: WorkerId, alarm: WorkerAlarm) {
        turn.cancel(&mut self.alarms[alarm as usize], Alarm::Worker(alarm, id));
    }

    /// Takes all of its alarms away.
    pub(super) fn cancel_all(&mut self, turn: &mut Turn, id: WorkerId) {
        for alarm in WorkerAlarm::ALL {
            self.cancel(turn, id, alarm);
        }
    }

    /// One of its alarms went off.
    ///
    /// # Panics
    /// If it was not set: a worker's alarms are cancelled with what they were set for.
    pub(super) fn rang(&mut self, alarm: WorkerAlarm) {
        assert!(self.alarm_ns(alarm).is_some(), "alarm {alarm:?} of a worker went off and was not set");
        self.alarms[alarm as usize].clear();
    }

    /// When one of its alarms goes off, if it is set.
    pub(super) fn alarm_ns(&self, alarm: WorkerAlarm) -> Option<u64> {
        self.alarms[alarm as usize].at_ns()
    }

    /// Checks the counters against the offers that were settled.
    ///
    /// # Panics
    /// If it has ended or given back more offers than it has settled.
    pub(super) fn check_stats(&self, id: WorkerId) {
        let (stats, settled) = (self.stats.ended + u64::from(self.stats.requeued), self.ring.settled());
        assert!(stats <= settled, "worker {id} has settled {settled} offers, and ended or gave back {stats}");
    }

    /// Its pool.
    pub(crate) fn pool(&self) -> PoolId {
        self.pool
    }

    /// Its state, as clients see it.
    pub(crate) fn shown(&self) -> WorkerState {
        self.state.shown()
    }

    /// Its slot, if it has one.
    pub(crate) fn slot(&self) -> Option<SlotId> {
        self.state.slot()
    }

    /// Its process id, once it is known.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.pid
    }

    /// When it was spawned, wall time in microseconds since 1970.
    pub(crate) fn spawned_us(&self) -> u64 {
        self.process.spawned_us
    }

    /// The offers that it holds.
    pub(crate) fn ring(&self) -> &OfferRing<T> {
        &self.ring
    }

    /// Tasks that it has ended.
    pub(crate) fn ended(&self) -> u64 {
        self.stats.ended
    }

    /// Whether the last task that it ended was reported as failed.
    pub(crate) fn failed_last(&self) -> bool {
        self.stats.failed_last
    }

    /// The job that left processes which the worker could not end, and after which it leaves; and its user.
    pub(crate) fn left_by(&self) -> Option<(JobId, u32)> {
        self.stats.left_by
    }

    /// Whose tasks it was offered, since its start.
    pub(crate) fn offered_for(&self) -> Owner {
        self.stats.offered_for
    }

    /// The owner of the worker: the user of the first task in its ring, else that of all tasks which it was offered.
    pub(crate) fn owner(&self) -> Owner {
        self.ring.head().map_or(self.stats.offered_for, |head| Owner::User(head.uid()))
    }

    /// Offers taken back from it since it was killed or hung up.
    pub(crate) fn requeued(&self) -> u32 {
        self.stats.requeued
    }

    /// What an examination showed when it became stuck.
    pub(crate) fn seen(&self) -> Option<&ProcessSeen> {
        match &self.state {
            WorkerDuty::Stuck { seen, .. } => seen.as_ref(),
            WorkerDuty::Starting
            | WorkerDuty::Spare
            | WorkerDuty::Idle { .. }
            | WorkerDuty::Busy { .. }
            | WorkerDuty::Retiring
            | WorkerDuty::Killed { .. } => None,
        }
    }

    /// How the core killed it, if it did.
    pub(crate) fn kill(&self) -> Option<Kill> {
        self.state.kill()
    }

    /// Whether it was asked to leave, whatever came of that.
    pub(crate) fn was_retiring(&self) -> bool {
        self.state.was_retiring()
    }

    /// Whether it was killed.
    pub(crate) fn is_killed(&self) -> bool {
        self.kill().is_some()
    }

    /// When it is killed because a signal stopped it, if one did.
    pub(crate) fn stopped_until_ns(&self) -> Option<u64> {
        self.stopped_until_ns
    }

    /// Whether its lane hung up.
    pub(super) fn is_hung_up(&self) -> bool {
        self.lane == LaneState::HungUp
    }

    /// Whether its channel is full.
    pub(super) fn is_full(&self) -> bool {
        matches!(self.channel, ChannelState::Refusing { is_full: true, .. })
    }

    /// Whether it may be offered tasks.
    pub(crate) fn is_open(&self) -> bool {
        self.can_hear() && !self.is_spent()
    }

    /// Whether it has been offered as much as it may run, in a pool that recycles strictly, or cannot close what it has.
    pub(crate) fn is_spent(&self) -> bool {
        self.is_worn || self.stats.ended + self.ring.len() as u64 >= self.tasks_max
    }

    /// Whether it has too many files of clients to close, so that it is offered nothing.
    pub(crate) fn has_many_unclosed(&self) -> bool {
        self.stats.unclosed > UNCLOSED_MAX
    }

    /// Whether it has a slot, and nothing is wrong with it.
    fn can_hear(&self) -> bool {
        matches!(self.state, WorkerDuty::Idle { .. } | WorkerDuty::Busy { .. })
            && !self.is_hung_up()
            && !self.is_full()
            && self.end_order.is_none()
            && !self.is_asked_for_stack()
            && self.stopped_until_ns.is_none()
    }

    /// Whether it waits for a task.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.state, WorkerDuty::Idle { .. }) && self.is_open()
    }

    /// Whether it runs nothing and can be asked to leave, whether or not it may be offered tasks.
    pub(crate) fn is_at_rest(&self) -> bool {
        matches!(self.state, WorkerDuty::Idle { .. }) && self.can_hear()
    }

    /// Whether it has run nothing: each of its offers was taken back before it began.
    pub(crate) fn is_fresh(&self) -> bool {
        self.stats.ended == 0 && self.ring.is_empty()
    }
}

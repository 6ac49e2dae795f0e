//! Prefetch depth: how many tasks of a kind one worker may hold, by how long tasks of the kind take.
//!
//! Tasks shorter than half a millisecond: about a millisecond of work. Tasks up to [`PAIR_NS`]: two, so that the worker
//! has the next one while its answer travels. Longer tasks: one. One long task lowers the depth at once; after as many
//! short tasks as the depth it at most doubles. Tasks of a flavour have a depth of their own, see `flavours.rs`. `note_elapsed` hears
//! each report; `machine/dispatch.rs` asks the rest.

use bulkhead_proto::ids::{ClientId, PoolId, WorkerId};
use bulkhead_proto::limits::RING;

use crate::turn::{Flavour, Turn};
use crate::worker::recycle::is_due;
use crate::worker::state::WorkerDuty;
use crate::worker::{Fit, Worker, Workers};

/// Tasks that take this long, in nanoseconds, are never queued behind another. Handing out a task takes 0.1 to 0.2 ms
/// when supervisor and worker both have to wake up: without a second task in the ring, 200 tasks of 0.52 ms took 40 %
/// longer than their work.
pub(super) const PAIR_NS: u64 = 5_000_000;
/// The most work that a worker may have ahead, in nanoseconds.
pub(super) const AHEAD_NS: u64 = 1_000_000;
/// The cost of a task that must not share a ring: more than a worker may have ahead.
pub(crate) const ALONE_NS: u64 = 1 << 40;
/// The least cost of a task in estimates, in nanoseconds, for the channel.
const FLOOR_NS: u64 = 1000;

/// Offers that one worker may hold while a client with a single job shares the pool.
const CAPPED_DEPTH: usize = 48;
/// How long the lower depth holds after such a job was offered, in nanoseconds.
const CAPPED_NS: u64 = 50_000_000;

/// The prefetch depth of one kind or flavour, from the reports of its tasks.
#[derive(Clone, Debug)]
pub(super) struct PrefetchDepth {
    ring: usize,
    estimate_ns: u64,
    depth: usize,
    streak: usize,
}

impl PrefetchDepth {
    /// The depth before the first report: 1. It never exceeds `ring`.
    pub(crate) fn new(ring: u16) -> Self {
        Self { ring: usize::from(ring).clamp(1, RING), estimate_ns: PAIR_NS, depth: 1, streak: 0 }
    }

    /// The ring of the kind.
    fn ring(&self) -> u16 {
        u16::try_from(self.ring).unwrap_or(u16::MAX)
    }

    /// Offers of this sort that one worker may hold.
    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    /// What one of them adds to the work ahead, in nanoseconds.
    pub(crate) fn cost_ns(&self) -> u64 {
        if self.depth == 1 { ALONE_NS } else { self.estimate_ns }
    }

    /// Hears how long one task took. The estimate rises to it at once, and falls by an eighth of the difference.
    ///
    /// # Panics
    /// If the depth was none, or comes to be none or more than a ring.
    pub(crate) fn hear(&mut self, elapsed_ns: u64) {
        let elapsed_ns = elapsed_ns.max(FLOOR_NS);
        self.estimate_ns = if elapsed_ns >= self.estimate_ns {
            elapsed_ns
        } else {
            self.estimate_ns - (self.estimate_ns - elapsed_ns).div_ceil(8)
        };
        let least = if self.estimate_ns < PAIR_NS { 2 } else { 1 };
        let fit = usize::try_from(AHEAD_NS / self.estimate_ns).unwrap_or(self.ring);
        let wanted = fit.max(least).min(self.ring);
        self.streak += 1;
        if self.depth > wanted {
            self.depth = wanted;
            self.streak = 0;
        } else if self.streak >= self.depth {
            self.depth = (self.depth * 2).min(wanted);
            self.streak = 0;
        }
        assert!((1..=self.ring).contains(&self.depth), "{} tasks for a ring of {}", self.depth, self.ring);
    }
}

/// The cap on all depths of a pool. It is lower while a client with a single job shares the pool with clients that have
/// many, because that job waits behind every offer made before it.
#[derive(Debug, Default)]
pub(super) struct DepthCap {
    last_client: Option<ClientId>,
    low_until_ns: u64,
}

impl DepthCap {
    /// Notes whose task is offered. Gives whether the last task was another client's.
    pub(super) fn client_changes(&mut self, client: ClientId) -> bool {
        self.last_client.replace(client).is_some_and(|last| last != client)
    }

    /// Lowers the cap for [`CAPPED_NS`].
    pub(super) fn lower(&mut self, now_ns: u64) {
        self.low_until_ns = now_ns + CAPPED_NS;
    }

    /// Offers that one worker may hold, of whichever kind.
    pub(super) fn depth(&self, now_ns: u64) -> usize {
        if now_ns < self.low_until_ns { CAPPED_DEPTH } else { RING }
    }
}

impl<T: Copy> Workers<T> {
    /// A task of this flavour took so long.
    pub(crate) fn note_elapsed(&mut self, flavour: Flavour, elapsed_ns: u64) {
        let of_kind = &mut self.depths[usize::from(flavour.kind.0)];
        if flavour.is_none() {
            of_kind.hear(elapsed_ns);
        } else {
            let ring = of_kind.ring();
            self.flavours.hear(flavour, ring, elapsed_ns);
        }
    }

    /// The depth of tasks of this flavour; `None`: nothing is known of it.
    fn depth_of(&self, flavour: Flavour) -> Option<&PrefetchDepth> {
        if flavour.is_none() {
            Some(&self.depths[usize::from(flavour.kind.0)])
        } else {
            self.flavours.get(flavour)
        }
    }

    /// The nanoseconds that a task of this flavour adds to the work ahead of its worker.
    pub(crate) fn cost_ns(&self, flavour: Flavour, is_for_itself: bool) -> u64 {
        if is_for_itself { ALONE_NS } else { self.depth_of(flavour).map_or(ALONE_NS, PrefetchDepth::cost_ns) }
    }

    /// The greatest depth of all kinds and flavours.
    pub(crate) fn deepest(&self) -> usize {
        self.depths.iter().map(PrefetchDepth::depth).max().unwrap_or(1).max(self.flavours.deepest())
    }

    /// The busy workers of a pool that may be offered more ahead.
    pub(crate) fn open_ahead(&self, turn: &Turn, pool: PoolId) -> Vec<WorkerId> {
        let busy = self.in_slots(pool).filter(|(_, worker)| matches!(worker.state, WorkerDuty::Busy { .. }));
        busy.filter(|(_, worker)| worker.is_open() && !worker.ring.is_overdue(turn.now_ns()))
            .map(|(id, _)| id)
            .collect()
    }

    /// Whether a worker may hold one more, of whichever kind.
    pub(crate) fn has_room_ahead(&self, turn: &Turn, id: WorkerId) -> bool {
        let Some(worker) = self.table.get(&id) else { return false };
        let pool = self.pool(worker.pool);
        let most = self.deepest().min(pool.depth_cap.depth(turn.now_ns()));
        // A worker that is due to be recycled comes to its end while a spare stands ready for its slot.
        let stays = !pool.has_spare() || !is_due(worker, turn);
        !worker.ring.is_full() && worker.ring.len() < most && stays && !worker.is_spent()
    }

    /// Whether a task of this flavour may wait in a worker's ring.
    pub(crate) fn fits_ahead(&self, worker: &Worker<T>, flavour: Flavour, is_for_itself: bool) -> Fit {
        let Some(depth) = self.depth_of(flavour) else { return Fit::NeverAhead };
        if depth.depth() == 1 || is_for_itself {
            Fit::NeverAhead
        } else if worker.ring.len() < depth.depth() && worker.ring.has_room(depth.cost_ns()) {
            Fit::Now
        } else {
            Fit::NoRoom
        }
    }

    /// Notes whose task is offered in a pool. Gives whether the last task there was another client's.
    pub(crate) fn client_changes(&mut self, pool: PoolId, client: ClientId) -> bool {
        self.pool_mut(pool).depth_cap.client_changes(client)
    }

    /// A client's only job was offered while jobs of other clients wait: lowers the cap of the pool for a while.
    pub(crate) fn cap_depth(&mut self, turn: &Turn, pool: PoolId) {
        self.pool_mut(pool).depth_cap.lower(turn.now_ns());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_rises_slowly_and_falls_at_once() {
        let mut depth = PrefetchDepth::new(256);
        let mut depths = Vec::new();
        for _ in 0..2000 {
            depth.hear(800);
            if depths.last() != Some(&depth.depth()) {
                depths.push(depth.depth());
            }
        }
        assert_eq!(depth.depth(), 256);
        assert!(depths.windows(2).all(|pair| pair[1] <= pair[0] * 2), "{depths:?}");
        depth.hear(2_000_000);
        assert_eq!((depth.depth(), depth.cost_ns()), (2, 2_000_000), "one waits behind the one that runs");
        depth.hear(2 * PAIR_NS);
        assert_eq!((depth.depth(), depth.cost_ns()), (1, ALONE_NS));
        depth.hear(1000);
        assert_eq!(depth.depth(), 1, "one short task proves nothing");
    }

    #[test]
    #[should_panic(expected = "0 tasks for a ring of 8")]
    fn the_depth_is_never_none() {
        let mut depth = PrefetchDepth { depth: 0, ..PrefetchDepth::new(8) };
        depth.hear(PAIR_NS);
    }

    #[test]
    fn foreign_code_never_shares_a_ring() {
        let mut depth = PrefetchDepth::new(1);
        for _ in 0..1000 {
            depth.hear(1000);
        }
        assert_eq!(depth.depth(), 1);
    }

    #[test]
    fn work_ahead_stays_about_a_millisecond() {
        let mut depth = PrefetchDepth::new(256);
        for _ in 0..1000 {
            depth.hear(100_000);
        }
        assert!((8..=10).contains(&depth.depth()), "{}", depth.depth());
    }
}

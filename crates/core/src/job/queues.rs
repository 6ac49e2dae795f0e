//! The queues of all pools, and for each pool the jobs that wait to run alone.
//!
//! A job or part is queued in the pool that runs its kind. Each queue is fair by itself, see `queue.rs`; admission is
//! bounded over all queues together, and a client is parked in all of them at once.

use std::collections::BTreeMap;

use bulkhead_proto::client::why::QueuedBefore;
use bulkhead_proto::ids::{ClientId, PoolId};

use crate::job::backlog::Ageing;
use crate::job::level::{Entering, Judge, Side};
use crate::job::list::{IntrusiveList, Key};
use crate::job::queue::PoolQueue;
use crate::job::solo_queue::SoloQueue;
use crate::job::state::Phase;
use crate::job::table::JobTable;
use crate::job::turns::Search;

/// All queued jobs.
#[derive(Debug)]
pub(crate) struct Queues {
    /// One for each pool, by its number; at least one.
    list: Vec<PoolQueue>,
    /// For each pool, the jobs that wait to run alone.
    solo: Vec<SoloQueue>,
}

impl Queues {
    /// An empty queue for each of so many pools.
    pub(crate) fn new(pools: usize) -> Self {
        let mut queues = Self { list: Vec::new(), solo: Vec::new() };
        queues.list.resize_with(pools, PoolQueue::default);
        queues.solo.resize_with(pools, SoloQueue::default);
        queues
    }

    /// Jobs in the queue of one pool.
    pub(crate) fn length_in(&self, pool: PoolId) -> u64 {
        self.list[usize::from(pool.0)].length()
    }

    /// Whether this client has jobs in the queue of one pool.
    pub(crate) fn has_jobs_of(&self, pool: PoolId, uid: u32, client: ClientId) -> bool {
        self.list[usize::from(pool.0)].has_jobs_of(uid, client)
    }

    /// Puts a job at the end of its list.
    ///
    /// # Panics
    /// If it is not queued, or is in a list.
    pub(crate) fn push_back(&mut self, jobs: &mut JobTable, key: Key) {
        self.push(jobs, key, Side::Back);
    }

    /// Puts a job that was given back at the front of its list.
    ///
    /// # Panics
    /// If it is not queued, or is in a list.
    pub(crate) fn push_front(&mut self, jobs: &mut JobTable, key: Key) {
        self.push(jobs, key, Side::Front);
    }

    fn push(&mut self, jobs: &mut JobTable, key: Key, side: Side) {
        assert_eq!(jobs[key].state.phase(), Phase::Queued, "job {} enters the queue", jobs[key].id);
        let list = IntrusiveList::of(&mut jobs.slab, key);
        self.queue_of(jobs, key).push(jobs, Entering { list, count: 1 }, side);
    }

    /// Puts the jobs of a new batch at the end of their list.
    pub(crate) fn append(&mut self, jobs: &mut JobTable, batch: Entering) {
        let Some(key) = batch.list.head() else { return };
        self.queue_of(jobs, key).push(jobs, batch, Side::Back);
    }

    /// Takes a job out of its list.
    pub(crate) fn unlink(&mut self, jobs: &mut JobTable, key: Key) {
        self.queue_of(jobs, key).unlink(jobs, key);
    }

    /// Puts a job behind those of its user and pool that wait to run alone.
    ///
    /// # Panics
    /// If it does not wait to run alone, or is in a list.
    pub(crate) fn push_back_solo(&mut self, jobs: &mut JobTable, key: Key) {
        assert_alone(jobs, key);
        self.solo[usize::from(jobs.batch(key).pool.0)].push_back(jobs, key);
    }

    /// Puts a job that was given back before those of its user and pool that wait to run alone.
    ///
    /// # Panics
    /// If it does not wait to run alone, or is in a list.
    pub(crate) fn push_front_solo(&mut self, jobs: &mut JobTable, key: Key) {
        assert_alone(jobs, key);
        self.solo[usize::from(jobs.batch(key).pool.0)].push_front(jobs, key);
    }

    /// Takes a job out of those that wait to run alone.
    ///
    /// # Panics
    /// If it does not wait to run alone, or is in no list.
    pub(crate) fn unlink_solo(&mut self, jobs: &mut JobTable, key: Key) {
        assert_alone(jobs, key);
        self.solo[usize::from(jobs.batch(key).pool.0)].unlink(jobs, key);
    }

    /// The jobs of a pool that wait to run alone.
    pub(crate) fn solo(&self, pool: PoolId) -> &SoloQueue {
        &self.solo[usize::from(pool.0)]
    }

    /// Whether the first job of this user, who holds so many workers, goes before the queue of the pool.
    pub(crate) fn solo_goes_first(&self, pool: PoolId, uid: u32, held: u32) -> bool {
        self.solo(pool).goes_first(held, self.list[usize::from(pool.0)].fewest_held_but(uid))
    }

    /// A worker went to a job of a pool's queue.
    pub(crate) fn queue_had_turn(&mut self, pool: PoolId) {
        self.solo[usize::from(pool.0)].queue_had_turn();
    }

    /// A user had a turn among the jobs of a pool that wait to run alone.
    pub(crate) fn solo_turn_over(&mut self, pool: PoolId, uid: u32) {
        self.solo[usize::from(pool.0)].turn_over(uid);
    }

    /// The users who have jobs in the queue of a pool whose clients are not parked.
    pub(crate) fn users_with_jobs(&self, pool: PoolId) -> impl Iterator<Item = u32> + '_ {
        self.list[usize::from(pool.0)].users_with_jobs()
    }

    /// Takes the first job of one user in a pool for which `judge` answers `Take`. The turns of users stay as they are.
    pub(crate) fn take_of(
        &mut self,
        (pool, uid): (PoolId, u32),
        jobs: &mut JobTable,
        ageing: Ageing,
        judge: &mut Judge<'_>,
    ) -> Option<Key> {
        self.list[usize::from(pool.0)].take_of(uid, jobs, ageing, judge)
    }

    fn queue_of(&mut self, jobs: &JobTable, key: Key) -> &mut PoolQueue {
        &mut self.list[usize::from(jobs.batch(key).pool.0)]
    }

    /// Parks a client in every queue, or unparks it.
    pub(crate) fn park(&mut self, jobs: &JobTable, owner: (u32, ClientId), parked: bool) {
        self.list.iter_mut().for_each(|queue| queue.park(jobs, owner, parked));
    }

    /// A head of this job's client may have changed the time since which it waits.
    pub(crate) fn refresh(&mut self, jobs: &JobTable, key: Key) {
        self.queue_of(jobs, key).refresh(jobs, key);
    }

    /// A user holds so many workers of a pool from now on.
    pub(crate) fn note_held(&mut self, pool: PoolId, uid: u32, held: Option<u32>) {
        self.list[usize::from(pool.0)].note_held(uid, held);
    }

    /// Users who hold so many workers of a pool are given no idle one from now on.
    pub(crate) fn note_held_max(&mut self, pool: PoolId, most: Option<u32>) {
        self.list[usize::from(pool.0)].note_held_max(most);
    }

    /// Whether a search of a pool for an idle worker is not over.
    pub(crate) fn is_search_open(&self, pool: PoolId) -> bool {
        self.list[usize::from(pool.0)].is_search_open()
    }

    /// Whether a client is parked.
    pub(crate) fn is_parked(&self, client: ClientId) -> bool {
        self.list.first().is_some_and(|queue| queue.is_parked(client))
    }

    /// The clients that are parked.
    pub(crate) fn parked_clients(&self) -> impl Iterator<Item = ClientId> + '_ {
        self.list.iter().take(1).flat_map(PoolQueue::parked_clients)
    }

    /// Counts what goes before a queued job, or takes turns with it.
    pub(crate) fn before(&self, jobs: &JobTable, ageing: Ageing, key: Key) -> QueuedBefore {
        self.list[usize::from(jobs.batch(key).pool.0)].before(jobs, ageing, key)
    }

    /// Takes the first job of a pool, in the order of its queue, for which `judge` answers `Take`.
    pub(crate) fn take(
        &mut self,
        pool: PoolId,
        jobs: &mut JobTable,
        (ageing, search): (Ageing, Search),
        judge: &mut Judge<'_>,
    ) -> Option<Key> {
        self.list[usize::from(pool.0)].take(jobs, ageing, search, judge)
    }

    /// Checks what must always hold; returns the queued jobs. `held`: for each pool, the workers by who holds them.
    pub(crate) fn audit(&self, jobs: &JobTable, held: &[Option<&BTreeMap<u32, Option<u32>>>]) -> u64 {
        let of_pool =
            |(at, queue): (usize, &PoolQueue)| queue.audit(jobs, at, held.get(at).copied().flatten());
        self.list.iter().enumerate().map(of_pool).sum()
    }

    /// Checks the lists of jobs that run alone; returns the jobs in them.
    pub(crate) fn audit_solo(&self, jobs: &JobTable) -> u64 {
        let of_pool = |(at, queue): (usize, &SoloQueue)| queue.audit(jobs, at);
        self.solo.iter().enumerate().map(of_pool).sum()
    }
}

fn assert_alone(jobs: &JobTable, key: Key) {
    assert_eq!(jobs[key].state.phase(), Phase::Solo, "job {} waits to run alone", jobs[key].id);
}

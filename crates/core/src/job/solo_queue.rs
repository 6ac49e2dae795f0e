//! The jobs of one pool that wait to run alone, by user: users take turns.
//!
//! A job comes here when a death was charged to it. Each needs a worker that has run nothing, so a user whose jobs crash
//! again and again must not hold up the one retry of another. `queues.rs` drives it; `machine/dispatch.rs` and
//! `machine/lend.rs` choose the user. A user without jobs here is not in it.
//!
//! Nor must that user hold up the jobs of others in the pool's queue:
//!
//! | the user of the first job here | goes |
//! |---|---|
//! | holds fewer workers than each other user in the queue, or there is none | before the queue |
//! | holds as many as one of them, or more | before the queue and behind it by turns |
//!
//! So the first retry after a crash is at once, and of a job that crashes for ever others wait for one attempt.

use std::collections::{BTreeMap, VecDeque};

use crate::job::list::{IntrusiveList, Key};
use crate::job::state::TaskKind;
use crate::job::table::JobTable;

/// The jobs of one pool that wait to run alone.
#[derive(Debug, Default)]
pub(crate) struct SoloQueue {
    users: BTreeMap<u32, IntrusiveList>,
    /// Every user in it, once; the first has the next turn.
    turns: VecDeque<u32>,
    /// Whether the last worker went to a job of this line, and not to one of the pool's queue.
    had_last: bool,
}

impl SoloQueue {
    /// Whether no job is here.
    pub(crate) fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// The users who have jobs here, in the order of their turns.
    pub(crate) fn users(&self) -> impl Iterator<Item = u32> + '_ {
        self.turns.iter().copied()
    }

    /// The first job of a user.
    pub(crate) fn head_of(&self, uid: u32) -> Option<Key> {
        self.users.get(&uid)?.head()
    }

    /// Puts a task behind those of its user. A part or a merge goes before them: its job has room in memory, for which the plans
    /// of other jobs may wait, and only the first task of a user is looked at.
    pub(crate) fn push_back(&mut self, jobs: &mut JobTable, key: Key) {
        let uid = jobs.batch(key).uid;
        if !self.users.contains_key(&uid) {
            self.turns.push_back(uid);
        }
        let list = self.users.entry(uid).or_default();
        if matches!(jobs[key].task_kind, TaskKind::Run | TaskKind::Merge) {
            list.push_front(&mut jobs.slab, key);
        } else {
            list.push_back(&mut jobs.slab, key);
        }
    }

    /// Puts a job that was given back before those of its user, whose turn is the next one.
    pub(crate) fn push_front(&mut self, jobs: &mut JobTable, key: Key) {
        let uid = jobs.batch(key).uid;
        self.turns.retain(|other| *other != uid);
        self.turns.push_front(uid);
        self.users.entry(uid).or_default().push_front(&mut jobs.slab, key);
    }

    /// Takes a job out of it.
    ///
    /// # Panics
    /// If it is not in it.
    pub(crate) fn unlink(&mut self, jobs: &mut JobTable, key: Key) {
        let uid = jobs.batch(key).uid;
        let list = self.users.get_mut(&uid).expect("the user of a job that waits alone is in the queue");
        list.unlink(&mut jobs.slab, key);
        if list.head().is_none() {
            self.users.remove(&uid);
            self.turns.retain(|other| *other != uid);
        }
    }

    /// Whether its first job, of a user who holds so many workers, goes before the queue, in which another user holds `others`.
    pub(crate) fn goes_first(&self, held: u32, others: Option<u32>) -> bool {
        !self.had_last || others.is_none_or(|others| held < others)
    }

    /// A worker went to a job of the pool's queue.
    pub(crate) fn queue_had_turn(&mut self) {
        self.had_last = false;
    }

    /// The turn of a user is used up.
    pub(crate) fn turn_over(&mut self, uid: u32) {
        self.had_last = true;
        if self.users.contains_key(&uid) {
            self.turns.retain(|other| *other != uid);
            self.turns.push_back(uid);
        }
    }

    /// All jobs in it, those of one user together.
    pub(crate) fn walk<'a>(&'a self, jobs: &'a JobTable) -> impl Iterator<Item = Key> + 'a {
        self.users.values().flat_map(|list| list.walk(&jobs.slab))
    }

    /// Counts the jobs that go before one of them, up to `most`: those of its user before it, and of each other user as many,
    /// and one more of users whose turn comes first.
    pub(crate) fn before(&self, jobs: &JobTable, key: Key, most: u64) -> u64 {
        let uid = jobs.batch(key).uid;
        let own = IntrusiveList::before(&jobs.slab, key, most);
        let (mut count, mut is_first) = (own, true);
        for &other in &self.turns {
            if other == uid {
                is_first = false;
            } else if let Some(list) = self.users.get(&other) {
                let turns = usize::try_from(own + u64::from(is_first)).unwrap_or(usize::MAX);
                count += list.walk(&jobs.slab).take(turns).count() as u64;
            }
            if count >= most {
                return most;
            }
        }
        count
    }

    /// Checks what must always hold; returns the number of jobs.
    pub(crate) fn audit(&self, jobs: &JobTable, pool: usize) -> u64 {
        let mut found = 0;
        for (uid, list) in &self.users {
            assert!(list.head().is_some(), "a user without jobs is not in the queue");
            for key in list.walk(&jobs.slab) {
                let batch = jobs.batch(key);
                let home = (usize::from(batch.pool.0), batch.uid);
                assert_eq!(home, (pool, *uid), "a job waits alone where its kind runs, with its user");
                found += 1;
            }
        }
        let mut turns: Vec<u32> = self.turns.iter().copied().collect();
        turns.sort_unstable();
        assert!(turns.iter().eq(self.users.keys()), "each user has one turn");
        found
    }
}

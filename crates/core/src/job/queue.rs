//! The queue of one pool: fair between users, then between the clients of one user, then by priority with ageing.
//!
//! Users take turns, within a user's turn its clients take turns, and a client's turn takes the most urgent of its
//! list heads, see `backlog.rs`. A waiting job grows more urgent, so no job waits for ever.
//!
//! A client that does not read its results is parked: its jobs stay queued, and its turns are skipped.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bulkhead_proto::client::why::QueuedBefore;
use bulkhead_proto::ids::ClientId;
use bulkhead_proto::limits::WHY_COUNT_MAX;

use crate::job::backlog::{Ageing, Backlog, Picked, QueuePlace, TakeChoice, place_of};
use crate::job::list::{IntrusiveList, Key};
use crate::job::state::Phase;
use crate::job::table::JobTable;
use crate::turn::count_down;

/// The queued jobs of one user. `listed`: the user is in the turn order. A user without queued jobs, or with jobs of
/// parked clients only, is not in it, so that a search for the next job does not pass over many such users.
#[derive(Debug, Default)]
struct UserQueue {
    backlogs: BTreeMap<ClientId, Backlog>,
    turns: VecDeque<ClientId>,
    listed: bool,
    length: u64,
}

/// The queued jobs of one pool.
#[derive(Debug, Default)]
pub(crate) struct PoolQueue {
    users: BTreeMap<u32, UserQueue>,
    turns: VecDeque<u32>,
    parked: BTreeSet<ClientId>,
    length: u64,
}

impl PoolQueue {
    /// Queued jobs.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Queued jobs of one user.
    pub(crate) fn length_of(&self, uid: u32) -> u64 {
        self.users.get(&uid).map_or(0, |user| user.length)
    }

    /// Puts a job at the end of its list.
    ///
    /// # Panics
    /// If it is not queued, or is in a list.
    pub(crate) fn push_back(&mut self, jobs: &mut JobTable, key: Key) {
        let place = place_of(jobs, key);
        self.enter(jobs, key, place).push_back(&mut jobs.slab, key);
    }

    /// Puts a job that was given back at the front of its list.
    ///
    /// # Panics
    /// If it is not queued, or is in a list.
    pub(crate) fn push_front(&mut self, jobs: &mut JobTable, key: Key) {
        let place = place_of(jobs, key);
        self.enter(jobs, key, place).push_front(&mut jobs.slab, key);
    }

    /// Counts a job in and puts its client and user into the turn order; returns the list that the caller puts it
    /// into.
    fn enter(&mut self, jobs: &JobTable, key: Key, place: QueuePlace) -> &mut IntrusiveList {
        assert_eq!(jobs[key].state.phase(), Phase::Queued, "job {} enters the queue", jobs[key].id);
        self.length += 1;
        let user = self.users.entry(place.uid).or_default();
        user.length += 1;
        if !user.listed {
            user.listed = true;
            self.turns.push_back(place.uid);
        }
        let backlog = user.backlogs.entry(place.client).or_default();
        if !backlog.listed && !self.parked.contains(&place.client) {
            backlog.listed = true;
            user.turns.push_back(place.client);
        }
        // Marked here, filled by the caller.
        backlog.filled |= 1 << place.list;
        &mut backlog.lists[place.list]
    }

    /// Takes a job out of its list.
    ///
    /// # Panics
    /// If it is not in this queue.
    pub(crate) fn unlink(&mut self, jobs: &mut JobTable, key: Key) {
        let place = place_of(jobs, key);
        count_down(&mut self.length, 1, "queued jobs");
        let user = self.users.get_mut(&place.uid).expect("the user of a queued job is in the queue");
        count_down(&mut user.length, 1, "queued jobs of a user");
        let backlog =
            user.backlogs.get_mut(&place.client).expect("the client of a queued job is in the queue");
        backlog.unlink(jobs, key, place.list);
        // An empty backlog that is in the turn order is removed when its turn comes: a search for it there would cost
        // as much as there are clients.
        if backlog.filled == 0 && !backlog.listed {
            user.backlogs.remove(&place.client);
        }
        if user.backlogs.is_empty() && !user.listed {
            self.users.remove(&place.uid);
        }
    }

    /// Parks a client, or unparks it. A second call changes nothing.
    pub(crate) fn park(&mut self, uid: u32, client: ClientId, parked: bool) {
        if parked {
            self.parked.insert(client);
        } else if self.parked.remove(&client) {
            // It lost its place in the turn order while it was parked, and starts at the end.
            let Some(user) = self.users.get_mut(&uid) else { return };
            let Some(backlog) = user.backlogs.get_mut(&client) else { return };
            if !backlog.listed {
                backlog.listed = true;
                user.turns.push_back(client);
            }
            if !user.listed {
                user.listed = true;
                self.turns.push_back(uid);
            }
        }
    }

    /// Whether this client has queued jobs.
    pub(crate) fn has_jobs_of(&self, uid: u32, client: ClientId) -> bool {
        let backlog = self.users.get(&uid).and_then(|user| user.backlogs.get(&client));
        backlog.is_some_and(|backlog| backlog.filled != 0)
    }

    /// Counts what goes before a queued job, or takes turns with its user. Jobs that run alone are not in this queue.
    pub(crate) fn before(&self, jobs: &JobTable, ageing: Ageing, key: Key) -> QueuedBefore {
        let place = place_of(jobs, key);
        let others = self.length - self.length_of(place.uid);
        let users =
            self.users.iter().filter(|(uid, user)| **uid != place.uid && user.length > 0).count() as u64;
        let Some(user) = self.users.get(&place.uid) else { return QueuedBefore::default() };
        let same_client = user
            .backlogs
            .get(&place.client)
            .map_or(0, |backlog| backlog.before(jobs, ageing, (place.list, key), WHY_COUNT_MAX));
        let is_other =
            |(client, backlog): &(&ClientId, &Backlog)| **client != place.client && backlog.filled != 0;
        let clients = user.backlogs.iter().filter(is_other).count() as u64;
        QueuedBefore { same_client, clients, others, users, alone: 0 }
    }

    /// Whether a client is parked.
    pub(crate) fn is_parked(&self, client: ClientId) -> bool {
        self.parked.contains(&client)
    }

    /// The clients that are parked.
    pub(crate) fn parked_clients(&self) -> impl Iterator<Item = ClientId> + '_ {
        self.parked.iter().copied()
    }

    /// Takes the first job, in the order of turns, for which `judge` answers `Take`.
    pub(crate) fn take(
        &mut self,
        jobs: &mut JobTable,
        ageing: Ageing,
        judge: &mut dyn FnMut(&JobTable, Key) -> TakeChoice,
    ) -> Option<Key> {
        // At most one round: users none of whose jobs is wanted now keep their places.
        for _ in 0..self.turns.len() {
            let uid = *self.turns.front()?;
            let user = self.users.get_mut(&uid).expect("a user with a turn is in the queue");
            let found = user.take(jobs, ageing, &self.parked, judge);
            // Nothing was taken, so the turn is not used up: the next search begins with the job that must not be
            // overtaken.
            if matches!(found, Picked::Stopped) {
                return None;
            }
            self.turns.pop_front();
            user.listed = !user.turns.is_empty();
            if user.listed {
                self.turns.push_back(uid);
            } else if user.backlogs.is_empty() {
                self.users.remove(&uid);
            }
            if let Picked::Job(key) = found {
                count_down(&mut self.length, 1, "queued jobs");
                return Some(key);
            }
        }
        None
    }

    /// Checks what must always hold of the queue of this pool; returns the jobs in it.
    pub(crate) fn audit(&self, jobs: &JobTable, pool: usize) -> u64 {
        let mut length = 0;
        for (uid, user) in &self.users {
            let mut owned = 0;
            for (client, backlog) in &user.backlogs {
                for (number, list) in backlog.lists.iter().enumerate() {
                    assert_eq!(
                        backlog.filled & (1 << number) == 0,
                        list.is_empty(),
                        "the mask shows filled lists"
                    );
                    for key in list.walk(&jobs.slab) {
                        let place = place_of(jobs, key);
                        assert_eq!(
                            usize::from(jobs.batch(key).pool.0),
                            pool,
                            "a job waits where its kind runs"
                        );
                        assert_eq!((place.uid, place.client, place.list), (*uid, *client, number));
                        owned += 1;
                    }
                }
                assert_eq!(backlog.listed, user.turns.contains(client), "a listed client has one turn");
                assert!(backlog.listed || self.parked.contains(client), "a client with jobs has its turns");
            }
            assert_eq!(owned, user.length);
            assert_eq!(user.listed, self.turns.contains(uid), "a listed user has one turn");
            length += owned;
        }
        assert_eq!(length, self.length);
        length
    }
}

impl UserQueue {
    fn take(
        &mut self,
        jobs: &mut JobTable,
        ageing: Ageing,
        parked: &BTreeSet<ClientId>,
        judge: &mut dyn FnMut(&JobTable, Key) -> TakeChoice,
    ) -> Picked {
        for _ in 0..self.turns.len() {
            let Some(&client) = self.turns.front() else { break };
            let backlog = self.backlogs.get_mut(&client).expect("a client with a turn is in the queue");
            let found =
                if parked.contains(&client) { Picked::Nothing } else { backlog.take(jobs, ageing, judge) };
            if matches!(found, Picked::Stopped) {
                return found;
            }
            self.turns.pop_front();
            backlog.listed = backlog.filled != 0 && !parked.contains(&client);
            if backlog.listed {
                self.turns.push_back(client);
            } else if backlog.filled == 0 {
                self.backlogs.remove(&client);
            }
            if matches!(found, Picked::Job(_)) {
                count_down(&mut self.length, 1, "queued jobs of a user");
                return found;
            }
        }
        Picked::Nothing
    }
}

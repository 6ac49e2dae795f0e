//! The queue of one pool: fair between users, then by the urgency of levels, then between the clients of a level.
//!
//! Of users with jobs that may be taken, the one who holds the fewest workers of the pool goes first, among equals by turns;
//! `machine/dispatch.rs` passes on who holds how many (`note_held`). A user's turn takes from the user's most urgent level,
//! whichever client it is of: see `backlog.rs` and `level.rs`. A waiting job grows more urgent, so no job of a user waits for
//! ever behind others of that user.
//!
//! One take looks at up to [`LOOKS_MAX`] clients, of one user at up to [`USER_LOOKS_MAX`], whatever fits. If more are left, the
//! next take goes on with them: see `turns.rs`.
//!
//! A client that does not read its results is parked: its jobs stay queued, and count neither for a level nor for a turn.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_proto::client::why::QueuedBefore;
use bulkhead_proto::ids::ClientId;

use crate::job::backlog::{Ageing, Backlog};
use crate::job::level::{Entering, Judge, Picked, QueuePlace, Side};
use crate::job::list::Key;
use crate::job::table::JobTable;
use crate::job::turns::{Round, Search, TurnCounter, TurnNumber};
use crate::turn::count_down;

/// Clients that one take looks at, of all users. Each has at most two heads in a level.
const LOOKS_MAX: u32 = 64;
/// Clients that one take looks at of one user, so that one whose jobs do not fit leaves looks for others.
const USER_LOOKS_MAX: u32 = 16;

/// `line_up` removes a user without jobs only if the queue has more users than this. A user who submits one job at a time is
/// then not added anew for each job.
const USERS_KEPT: usize = 64;

/// Stands for the number of workers of a user who may hold no more: it is greater than any.
const HELD_FULL: u32 = u32::MAX;

/// The queued jobs of one pool.
#[derive(Debug, Default)]
pub(crate) struct PoolQueue {
    users: BTreeMap<u32, Backlog>,
    /// Users with jobs that may be taken, by the workers that they hold and their place in line.
    order: BTreeMap<(u32, TurnNumber), u32>,
    /// Workers of the pool that users hold; users that hold none are not in it.
    held: BTreeMap<u32, u32>,
    /// Users who hold so many workers are given no idle one; `None`: however many they hold. A user who holds [`HELD_FULL`] gets
    /// no task ahead either.
    held_max: Option<u32>,
    counter: TurnCounter,
    round: Option<Round>,
    parked: BTreeSet<ClientId>,
    length: u64,
    ready: u64,
}

impl PoolQueue {
    /// Queued jobs.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Puts jobs into their list, at this end.
    pub(crate) fn push(&mut self, jobs: &mut JobTable, entering: Entering, side: Side) {
        let Some(first) = entering.list.head() else { return };
        let place = QueuePlace::of(jobs, first);
        let is_parked = self.is_parked(place.client);
        self.length += entering.count;
        self.ready += if is_parked { 0 } else { entering.count };
        let user = self.users.entry(place.uid).or_default();
        user.push(jobs, (entering, place), side, is_parked, &mut self.counter);
        if user.turn.is_none() {
            self.line_up(place.uid);
        }
    }

    /// Takes a job out of its list.
    ///
    /// # Panics
    /// If it is not in this queue.
    pub(crate) fn unlink(&mut self, jobs: &mut JobTable, key: Key) {
        let place = QueuePlace::of(jobs, key);
        let is_parked = self.is_parked(place.client);
        self.count_out(!is_parked);
        let user = self.users.get_mut(&place.uid).expect("the user of a queued job is in the queue");
        user.unlink(jobs, key, place, is_parked);
        self.line_up(place.uid);
    }

    fn count_out(&mut self, was_ready: bool) {
        count_down(&mut self.length, 1, "queued jobs");
        count_down(&mut self.ready, u64::from(was_ready), "queued jobs that do not rest");
    }

    /// Puts a user into the line who has jobs that may be taken, and takes one out of it who has none. One without jobs is
    /// forgotten if there are many users.
    fn line_up(&mut self, uid: u32) {
        let Some(user) = self.users.get_mut(&uid) else { return };
        match (user.is_ready(), user.turn) {
            (true, None) => {
                let held = self.held.get(&uid).copied().unwrap_or(0);
                let place = (held, self.counter.joining(&mut self.round));
                user.turn = Some(place);
                self.order.insert(place, uid);
            }
            (false, Some(place)) => {
                user.turn = None;
                self.order.remove(&place);
            }
            (true, Some(_)) | (false, None) => {}
        }
        if user.length == 0 && self.users.len() > USERS_KEPT {
            self.users.remove(&uid);
        }
    }

    /// A user holds so many workers of the pool from now on; `None`: as many as this user may.
    pub(crate) fn note_held(&mut self, uid: u32, held: Option<u32>) {
        let held = held.unwrap_or(HELD_FULL);
        match held {
            0 => self.held.remove(&uid),
            _ => self.held.insert(uid, held),
        };
        if let Some((_, turn)) = self.users.get(&uid).and_then(|user| user.turn) {
            self.move_user(uid, (held, turn));
        }
    }

    /// Users who hold so many workers are given no idle one from now on.
    pub(crate) fn note_held_max(&mut self, most: Option<u32>) {
        self.held_max = most;
    }

    /// The users who have a job here whose client is not parked.
    pub(crate) fn users_with_jobs(&self) -> impl Iterator<Item = u32> + '_ {
        self.order.values().copied()
    }

    /// The fewest workers that a user with jobs here holds whose turn it may be, but for one user.
    pub(crate) fn fewest_held_but(&self, uid: u32) -> Option<u32> {
        self.order.iter().find(|(_, of)| **of != uid).map(|((held, _), _)| *held)
    }

    /// Moves a user who is in line.
    fn move_user(&mut self, uid: u32, to: (u32, TurnNumber)) {
        let Some(user) = self.users.get_mut(&uid) else { return };
        if let Some(from) = user.turn.replace(to).filter(|from| *from != to) {
            self.order.remove(&from);
            self.order.insert(to, uid);
        }
    }

    /// A head of this job's client may have changed the time since which it waits.
    pub(crate) fn refresh(&mut self, jobs: &JobTable, key: Key) {
        let place = QueuePlace::of(jobs, key);
        if let Some(user) = self.users.get_mut(&place.uid) {
            user.refresh(jobs, place);
        }
    }

    /// Parks a client, or unparks it. A second call changes nothing.
    pub(crate) fn park(&mut self, jobs: &JobTable, (uid, client): (u32, ClientId), parked: bool) {
        let is_new = if parked { self.parked.insert(client) } else { self.parked.remove(&client) };
        let Some(user) = self.users.get_mut(&uid).filter(|_| is_new) else { return };
        let before = user.ready;
        if parked {
            user.park(jobs, client);
        } else {
            user.unpark(jobs, client, &mut self.counter);
        }
        self.ready = self.ready - before + user.ready;
        self.line_up(uid);
    }

    /// Whether this client has queued jobs.
    pub(crate) fn has_jobs_of(&self, uid: u32, client: ClientId) -> bool {
        self.users.get(&uid).is_some_and(|user| user.has_jobs_of(client))
    }

    /// Counts what goes before a queued job, or takes turns with it. Jobs that run alone are not in this queue.
    pub(crate) fn before(&self, jobs: &JobTable, ageing: Ageing, key: Key) -> QueuedBefore {
        let uid = jobs.batch(key).uid();
        let Some(user) = self.users.get(&uid) else { return QueuedBefore::default() };
        let held = self.held.get(&uid).copied().unwrap_or(0);
        let users = self.order.len() - usize::from(user.is_ready());
        let first = self.order.range(..(held, TurnNumber::FIRST)).count();
        QueuedBefore {
            others: self.ready - user.ready,
            users: users as u64,
            users_first: first as u64,
            ..user.before(jobs, ageing, key)
        }
    }

    /// Whether a client is parked.
    pub(crate) fn is_parked(&self, client: ClientId) -> bool {
        self.parked.contains(&client)
    }

    /// The clients that are parked.
    pub(crate) fn parked_clients(&self) -> impl Iterator<Item = ClientId> + '_ {
        self.parked.iter().copied()
    }

    /// Whether a search for an idle worker has found nothing so far and has not looked at everything.
    pub(crate) fn is_search_open(&self) -> bool {
        self.round.is_some_and(|round| round.search() == Search::Idle)
    }

    /// Takes the first job in the order of this queue for which `judge` answers `Take`, within the looks of one take.
    pub(crate) fn take(
        &mut self,
        jobs: &mut JobTable,
        ageing: Ageing,
        search: Search,
        judge: &mut Judge<'_>,
    ) -> Option<Key> {
        let mut round = Round::of(self.round.take(), search, &mut self.counter);
        let (limit, mut looks, mut is_open) = (round.limit(), 0, false);
        // A task ahead is for a worker that its user holds already.
        let held_max = self.held_max.filter(|_| search == Search::Idle).unwrap_or(HELD_FULL);
        while let Some(((held, _), uid)) = self.next_user(limit, held_max) {
            if looks >= LOOKS_MAX {
                is_open = true;
                break;
            }
            let user = self.users.get_mut(&uid).expect("a user with a turn is in the queue");
            let most = USER_LOOKS_MAX.min(LOOKS_MAX - looks);
            let turn = match user.take(jobs, ageing, (search, &mut self.counter), (most, &mut looks), judge) {
                Picked::Stopped => return None,
                Picked::Job(key) => {
                    let is_last = !user.is_ready();
                    self.count_out(true);
                    // A user who is alone has the next turn too.
                    if self.order.len() > 1 {
                        let last = self.counter.last();
                        self.move_user(uid, (held, last));
                    }
                    if is_last {
                        self.line_up(uid);
                    }
                    return Some(key);
                }
                Picked::Nothing => self.counter.last(),
                Picked::Unfinished => {
                    is_open = true;
                    round.again()
                }
            };
            self.move_user(uid, (held, turn));
        }
        self.round = is_open.then_some(round);
        None
    }

    /// Takes the first job of one user for which `judge` answers `Take`, within some looks. No user loses a turn.
    pub(crate) fn take_of(
        &mut self,
        uid: u32,
        jobs: &mut JobTable,
        ageing: Ageing,
        judge: &mut Judge<'_>,
    ) -> Option<Key> {
        let user = self.users.get_mut(&uid)?;
        let mut looks = 0;
        while looks < LOOKS_MAX {
            let turns = (Search::Idle, &mut self.counter);
            match user.take(jobs, ageing, turns, (USER_LOOKS_MAX, &mut looks), judge) {
                Picked::Job(key) => {
                    self.count_out(true);
                    self.line_up(uid);
                    return Some(key);
                }
                Picked::Unfinished => {}
                Picked::Nothing | Picked::Stopped => return None,
            }
        }
        None
    }

    /// Of users who are to be looked at in this round and hold fewer than `held_max` workers, the first of those who hold the
    /// fewest.
    fn next_user(&self, limit: TurnNumber, held_max: u32) -> Option<((u32, TurnNumber), u32)> {
        let mut next = self.order.first_key_value();
        while let Some((&place, &uid)) = next.filter(|(place, _)| place.0 < held_max) {
            if place.1 < limit {
                return Some((place, uid));
            }
            // All who hold as many were looked at.
            next = self.order.range((place.0 + 1, TurnNumber::FIRST)..).next();
        }
        None
    }

    /// Checks what must always hold of the queue of this pool; returns the jobs in it. `held`: the workers of the pool by who
    /// holds them, if all changes were passed on.
    pub(crate) fn audit(
        &self,
        jobs: &JobTable,
        pool: usize,
        held: Option<&BTreeMap<u32, Option<u32>>>,
    ) -> u64 {
        let (mut length, mut ready) = (0, 0);
        for (uid, user) in &self.users {
            user.audit(jobs, (pool, *uid), |client| self.is_parked(client));
            assert_eq!(user.turn.is_some(), user.is_ready(), "a user with jobs that may be taken has turns");
            let in_line = |place: (u32, TurnNumber)| self.order.get(&place) == Some(uid);
            assert!(user.turn.is_none_or(in_line), "a user in line has one turn");
            let holds = self.held.get(uid).copied().unwrap_or(0);
            assert!(
                user.turn.is_none_or(|(held, _)| held == holds),
                "a user stands in line by the workers held"
            );
            (length, ready) = (length + user.length, ready + user.ready);
        }
        let in_line = self.users.values().filter(|user| user.turn.is_some()).count();
        assert_eq!(self.order.len(), in_line, "only users with jobs that may be taken are in line");
        let own =
            || self.held.iter().map(|(uid, held)| (*uid, Some(*held).filter(|held| *held != HELD_FULL)));
        assert!(
            held.is_none_or(|held| held.iter().map(|(uid, held)| (*uid, *held)).eq(own())),
            "the queue knows who holds how many workers"
        );
        assert_eq!((length, ready), (self.length, self.ready));
        length
    }
}

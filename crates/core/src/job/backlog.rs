//! The backlog of one user in a pool's queue: one level for each priority, over all of the user's clients.
//!
//! A turn of the user takes from the most urgent level that has something to take: see `level.rs`. It looks at no more
//! than so many clients, whatever they have; the next turn goes on behind them: see `turns.rs`. `queue.rs` drives this file and
//! decides whose turn it is.

use bulkhead_proto::client::why::QueuedBefore;
use bulkhead_proto::ids::ClientId;
use bulkhead_proto::limits::{PRIORITY_MAX, WHY_COUNT_MAX};

use crate::job::level::{Entering, Judge, Level, Picked, QueuePlace, Side};
use crate::job::list::Key;
use crate::job::table::JobTable;
use crate::job::turns::{Round, Search, TurnCounter, TurnNumber};
use crate::turn::count_down;

/// Levels of a user, one for each priority.
const LEVELS: usize = PRIORITY_MAX as usize + 1;

/// The clock of one search: now, and the waiting time that weighs as much as one priority.
#[derive(Clone, Copy)]
pub(crate) struct Ageing {
    pub(super) now_ns: u64,
    pub(super) step_ns: u64,
}

impl Ageing {
    /// The urgency of a job of this level that has waited since then.
    fn urgency(self, level: usize, since_ns: u64) -> u64 {
        let waited = self.now_ns.saturating_sub(since_ns);
        (level as u64).saturating_mul(self.step_ns).saturating_add(waited)
    }

    /// Since when a job of this level has to have waited to be as urgent as `urgency`; `None` if none can have.
    fn since_ns(self, level: usize, urgency: u64) -> Option<u64> {
        let waited = urgency.saturating_sub((level as u64).saturating_mul(self.step_ns));
        self.now_ns.checked_sub(waited)
    }
}

/// The queued jobs of one user.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    levels: [Level; LEVELS],
    /// One bit for each level that has clients in line.
    filled: u16,
    round: Option<Round>,
    /// The place of the user in line, by the workers that the user holds; none without jobs that may be taken.
    pub(super) turn: Option<(u32, TurnNumber)>,
    /// All jobs, and those of them whose client is not parked.
    pub(super) length: u64,
    pub(super) ready: u64,
}

impl Backlog {
    /// Whether it has a job that may be taken.
    pub(super) fn is_ready(&self) -> bool {
        self.filled != 0
    }

    /// Whether a client has jobs in it.
    pub(super) fn has_jobs_of(&self, client: ClientId) -> bool {
        self.levels.iter().any(|level| level.has_jobs_of(client))
    }

    /// Puts jobs into their list.
    pub(super) fn push(
        &mut self,
        jobs: &mut JobTable,
        (entering, place): (Entering, QueuePlace),
        side: Side,
        is_parked: bool,
        counter: &mut TurnCounter,
    ) {
        let round = &mut self.round;
        let join = (!is_parked).then_some(|| counter.joining(round));
        self.levels[place.level].push(jobs, (entering, place), side, join);
        self.length += entering.count;
        if !is_parked {
            self.ready += entering.count;
            self.filled |= 1 << place.level;
        }
    }

    /// Takes a job out of its list.
    ///
    /// # Panics
    /// If it is not in this backlog.
    pub(super) fn unlink(&mut self, jobs: &mut JobTable, key: Key, place: QueuePlace, is_parked: bool) {
        count_down(&mut self.length, 1, "queued jobs of a user");
        self.levels[place.level].unlink(jobs, key, place);
        if !is_parked {
            count_down(&mut self.ready, 1, "queued jobs of a user that do not rest");
            self.note_filled(place.level);
        }
    }

    fn note_filled(&mut self, level: usize) {
        if self.levels[level].ready() == 0 {
            self.filled &= !(1 << level);
        }
    }

    /// A head of a client may have changed the time since which it waits.
    pub(super) fn refresh(&mut self, jobs: &JobTable, place: QueuePlace) {
        self.levels[place.level].refresh(jobs, place.client);
    }

    /// Lets the jobs of a client rest.
    pub(super) fn park(&mut self, jobs: &JobTable, client: ClientId) {
        for level in 0..LEVELS {
            let rest = self.levels[level].park(jobs, client);
            count_down(&mut self.ready, rest, "queued jobs of a user that do not rest");
            self.note_filled(level);
        }
    }

    /// Lets the jobs of a client go on, at the end of each line.
    pub(super) fn unpark(&mut self, jobs: &JobTable, client: ClientId, counter: &mut TurnCounter) {
        for level in 0..LEVELS {
            if self.levels[level].has_jobs_of(client) {
                let turn = counter.joining(&mut self.round);
                self.ready += self.levels[level].unpark(jobs, client, turn);
                self.filled |= 1 << level;
            }
        }
    }

    /// Takes the first job in its order for which `judge` answers `Take`. Looks at up to `most` clients, and counts them in
    /// `looks`.
    pub(super) fn take(
        &mut self,
        jobs: &mut JobTable,
        ageing: Ageing,
        (search, counter): (Search, &mut TurnCounter),
        (most, looks): (u32, &mut u32),
        judge: &mut Judge<'_>,
    ) -> Picked {
        let round = Round::of(self.round.take(), search, counter);
        let mut left = most;
        while let Some(at) = self.most_urgent(ageing, round.limit()) {
            if left == 0 {
                self.round = Some(round);
                return Picked::Unfinished;
            }
            left -= 1;
            *looks += 1;
            match self.levels[at].look(jobs, || counter.last(), judge) {
                Picked::Job(key) => {
                    count_down(&mut self.length, 1, "queued jobs of a user");
                    count_down(&mut self.ready, 1, "queued jobs of a user that do not rest");
                    self.note_filled(at);
                    return Picked::Job(key);
                }
                Picked::Stopped => return Picked::Stopped,
                Picked::Nothing | Picked::Unfinished => {}
            }
        }
        Picked::Nothing
    }

    /// The most urgent level whose first in line is below `limit`; of equal ones the higher priority.
    fn most_urgent(&self, ageing: Ageing, limit: TurnNumber) -> Option<usize> {
        if self.filled.is_power_of_two() {
            let at = self.filled.trailing_zeros() as usize;
            return (self.levels[at].first_turn() < Some(limit)).then_some(at);
        }
        let (mut best, mut mask) = (None, self.filled);
        while mask != 0 {
            let at = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            let level = &self.levels[at];
            let Some(since_ns) = level.oldest_ns().filter(|_| level.first_turn() < Some(limit)) else {
                continue;
            };
            let urgency = ageing.urgency(at, since_ns);
            if best.is_none_or(|(most, _)| urgency >= most) {
                best = Some((urgency, at));
            }
        }
        best.map(|(_, at)| at)
    }

    /// Counts jobs of the user that go before one of them: those of the same client before it in its list, and those of
    /// other levels that are more urgent. Other clients of its level take turns with its own.
    pub(super) fn before(&self, jobs: &JobTable, ageing: Ageing, key: Key) -> QueuedBefore {
        let place = QueuePlace::of(jobs, key);
        let urgency = ageing.urgency(place.level, jobs.batch(key).since_ns());
        let mut own = if place.is_unbegun() { Level::before(jobs, key, WHY_COUNT_MAX) } else { 0 };
        let mut others = 0;
        for (at, level) in self.levels.iter().enumerate().filter(|(at, _)| *at != place.level) {
            // Of equally urgent levels the higher one goes first.
            let needed = if at > place.level { urgency } else { urgency.saturating_add(1) };
            let left = WHY_COUNT_MAX.saturating_sub(own + others);
            let until_ns = ageing.since_ns(at, needed);
            let (of_client, of_others) = level.older(jobs, until_ns, place.client, left);
            (own, others) = (own + of_client, others + of_others);
        }
        let level = &self.levels[place.level];
        let clients = level.ready() - usize::from(level.is_ready(place.client));
        QueuedBefore {
            same_client: own,
            same_user: others,
            clients: clients as u64,
            ..QueuedBefore::default()
        }
    }

    /// Checks what must always hold of the jobs of this user.
    pub(super) fn audit(
        &self,
        jobs: &JobTable,
        (pool, uid): (usize, u32),
        is_parked: impl Fn(ClientId) -> bool,
    ) {
        let (mut length, mut ready) = (0, 0);
        for (at, level) in self.levels.iter().enumerate() {
            let (owned, going) = level.audit(jobs, (pool, uid, at), &is_parked);
            assert_eq!(self.filled & (1 << at) != 0, going > 0, "the mask shows levels with clients in line");
            (length, ready) = (length + owned, ready + going);
        }
        assert_eq!((length, ready), (self.length, self.ready), "queued jobs are counted by user");
    }
}

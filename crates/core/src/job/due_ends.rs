//! Batches whose jobs are to end now: their client did not come back, or they have expired.
//!
//! An alarm puts the batches into the line of their user, and the machine ends their jobs, some in each turn
//! (`machine/cancel.rs`): users take turns, and of one user the batches that came first are first. Until the line comes to a
//! job, it may still run and end by itself; one that has expired is not offered (`Candidate::has_expired`). The line has the
//! numbers of batches, so it passes over batches that are gone by then.

use std::collections::{BTreeMap, VecDeque};

use bulkhead_proto::ids::JobId;

use crate::job::list::Key;
use crate::job::state::Phase;
use crate::job::{DueJobs, DueReason, Jobs};
use crate::turn::Turn;

/// Jobs that are looked at in one user's turn.
const LOOKS: usize = 64;

/// Batches that came into a line together.
#[derive(Debug)]
struct DueBatches {
    reason: DueReason,
    /// The first job of each, and how many there were at admission.
    batches: VecDeque<(JobId, u32)>,
    /// The next job of the first of them.
    next: JobId,
}

/// The lines of all users; none is empty.
#[derive(Debug, Default)]
pub(crate) struct DueEnds {
    lines: BTreeMap<u32, VecDeque<DueBatches>>,
    /// The users who have a line, in the order of their turns.
    users: VecDeque<u32>,
}

impl DueEnds {
    fn add(&mut self, uid: u32, reason: DueReason, batches: VecDeque<(JobId, u32)>) {
        let Some((next, _)) = batches.front().copied() else { return };
        let line = self.lines.entry(uid).or_default();
        if line.is_empty() {
            self.users.push_back(uid);
        }
        line.push_back(DueBatches { reason, batches, next });
    }

    /// Checks what must always hold.
    pub(super) fn audit(&self) {
        let waits = |uid| self.lines.get(uid).is_some_and(|line| !line.is_empty());
        assert!(self.users.iter().all(waits), "a user with a turn has batches");
        assert_eq!(self.users.len(), self.lines.len(), "a user with batches has one turn");
    }
}

impl Jobs {
    /// The jobs of these batches of one user end in this turn or the next ones.
    pub(crate) fn end_soon(&mut self, uid: u32, reason: DueReason, batches: Vec<(JobId, u32)>) {
        self.due.add(uid, reason, batches.into());
    }

    /// A batch expires: its jobs that have not begun end in this turn or the next ones.
    pub(crate) fn expire_soon(&mut self, first: JobId, count: u32) {
        let found = self.jobs_from(first, first, count).next();
        if let Some(key) = found {
            let uid = self.table.batch(key).uid;
            self.due.add(uid, DueReason::Expired, VecDeque::from([(first, count)]));
        }
    }

    /// Whether jobs are left that a turn had no room for.
    pub(crate) fn has_due(&self) -> bool {
        !self.due.users.is_empty()
    }

    /// Jobs of the user whose turn it is, which the caller ends now; `None`: no batch is left. The user goes behind the others.
    pub(crate) fn next_due(&mut self, turn: &Turn) -> Option<DueJobs> {
        let uid = self.due.users.pop_front()?;
        let mut line = self.due.lines.remove(&uid)?;
        let mut due = line.pop_front()?;
        let (first, count) = due.batches.front().copied()?;
        let keys: Vec<Key> = self.jobs_from(due.next, first, count).take(LOOKS).collect();
        let is_over = keys.len() < LOOKS;
        if let Some(last) = keys.last() {
            due.next = JobId(self.table[*last].id.0 + 1);
        }
        if is_over {
            due.batches.pop_front();
            due.next = due.batches.front().map_or(due.next, |(first, _)| *first);
        }
        let ends = keys.iter().filter(|key| self.is_to_end(turn, **key, due.reason));
        let runs = ends.map(|key| self.table.run(*key)).collect();
        let found = DueJobs { reason: due.reason, runs, looks: keys.len().max(1) };
        if !due.batches.is_empty() {
            line.push_front(due);
        }
        if !line.is_empty() {
            self.due.lines.insert(uid, line);
            self.due.users.push_back(uid);
        }
        Some(found)
    }

    fn is_to_end(&self, turn: &Turn, key: Key, reason: DueReason) -> bool {
        match reason {
            DueReason::Vanished => self.table.batch(key).watched && self.table[key].end().is_none(),
            DueReason::Expired => {
                self.table.entry(key).has_expired(turn) && self.table[key].state.phase() == Phase::Queued
            }
        }
    }
}

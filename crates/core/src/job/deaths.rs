//! RecentDeaths as evidence: each is kept with the job whose attempt it ended, charged or not, and in a ring of a fixed length
//! for `deaths`.
//!
//! The ring remembers whose job it was, for a job may be forgotten before its deaths are. It never grows beyond its
//! bound; nothing here decides who is charged, which is `machine/death.rs`'s.

use std::collections::VecDeque;

use bulkhead_proto::client::view::{DeathRow, JobDeath};
use bulkhead_proto::client::why::Part;
use bulkhead_proto::ids::JobId;
use bulkhead_proto::limits::DEATHS_KEPT;

use crate::job::entry::{Job, RareFields};
use crate::job::list::Key;
use crate::job::part_set::part_of;
use crate::job::{Dead, Held, Jobs};
use crate::turn::Turn;

/// RecentDeaths that are kept as evidence of one job; the oldest go first.
const EVIDENCE_MAX: usize = 32;

/// The ring, oldest first.
#[derive(Debug, Default)]
pub(crate) struct RecentDeaths {
    pub(super) rows: VecDeque<DeathRow>,
}

impl RecentDeaths {
    /// Keeps a death; the oldest goes if there are too many.
    ///
    /// # Panics
    /// If there were too many before.
    fn push(&mut self, row: DeathRow) {
        assert!(self.rows.len() <= DEATHS_KEPT, "the ring of deaths has a bound");
        if self.rows.len() == DEATHS_KEPT {
            self.rows.pop_front();
        }
        self.rows.push_back(row);
    }
}

impl Jobs {
    /// The deaths that are kept, newest first.
    pub(crate) fn deaths(&self) -> impl Iterator<Item = &DeathRow> {
        self.deaths.rows.iter().rev()
    }

    /// Keeps a death that ended an attempt of a job and is not charged to it: its outcome says why, or its next attempt.
    /// `shown` is the job as clients know it.
    pub(crate) fn note_uncharged(&mut self, turn: &Turn, held: &Held, shown: JobId, dead: &Dead<'_>) {
        let charged = |rare: &RareFields| rare.deaths.iter().any(|death| death.worker == dead.worker);
        let is_noted = |job: &Job| job.rare.as_deref().is_some_and(charged);
        if let Some(run) = self.there(held.ticket, held.number, held.count) {
            let key = self.table.open(run);
            let (own, part) = self.task_of(key);
            let (attempt, fence) = (self.table[key].attempts, self.table[key].fence);
            if fence == held.fence && !is_noted(&self.table[own]) {
                self.keep_death(turn, (own, part, attempt), dead, false);
            }
        } else if let (Some((_, part)), Some(own)) = (part_of(held.number), self.table.find(shown)) {
            // A part that is gone with its job. That others were ended with it is no news.
            let end = self.table[own].end().and_then(|end| end.part);
            if let Some(this) = end.filter(|end| end.number == part + 1 && !is_noted(&self.table[own])) {
                self.keep_death(turn, (own, Some(this), held.fence.0), dead, false);
            }
        }
    }

    /// Adds a death to the evidence of a job, and to the ring.
    ///
    /// # Panics
    /// If the job is a part, or has more evidence than is kept.
    pub(super) fn keep_death(
        &mut self,
        turn: &Turn,
        (key, part, attempt): (Key, Option<Part>, u32),
        dead: &Dead<'_>,
        charged: bool,
    ) {
        let batch = self.table.batch(key);
        let (kind, uid) = (turn.kind_name(batch.kind), batch.uid);
        let (at_us, worker, pid) = (turn.wall_us(), dead.worker, dead.pid);
        let (death, evidence) = (dead.death.clone(), dead.evidence.clone());
        let death = JobDeath { at_us, part, attempt, worker, pid, death, charged, evidence };
        let job = &mut self.table[key];
        let id = job.id;
        assert!(!job.is_part(), "the evidence of part {id} is its job's");
        let deaths = &mut job.rare_mut().deaths;
        assert!(deaths.len() <= EVIDENCE_MAX, "the evidence of job {id} has a bound");
        if deaths.len() == EVIDENCE_MAX {
            deaths.remove(0);
        }
        deaths.push(death.clone());
        self.deaths.push(DeathRow { job: id, kind, uid, death });
    }
}

//! Deaths as evidence: each is kept with the job whose attempt it ended, charged or not, and in a ring of the last
//! `DEATHS_KEPT` for `deaths`. The death of a program that a signal ended is kept as well, though its worker lives on.
//!
//! The ring alone has the texts of stacks, which have up to 8 KiB each: so their bound is that of the ring, by account.
//!
//! A row of the ring names its job and user, because a job may be forgotten before its deaths are. At the end of a turn,
//! beyond `DEATHS_KEPT`, the oldest row of the account with most rows goes (`machine/evict.rs`). Who is charged is decided
//! in `machine/death.rs`.

use bulkhead_proto::client::view::{DeathRow, JobDeath};
use bulkhead_proto::client::why::Part;
use bulkhead_proto::death::Death;
use bulkhead_proto::ids::JobId;

use crate::job::entry::{Job, RareFields};
use crate::job::list::Key;
use crate::job::part_set::part_of;
use crate::job::run::TaskRun;
use crate::job::{Jobs, OfferRef, ProvenDeath};
use crate::turn::{AccountId, FairRing, Resource, Turn};

/// Deaths kept as evidence of one job; the oldest go first.
const EVIDENCE_MAX: usize = 32;

/// The last deaths, each of the account of its job.
pub(crate) type RecentDeaths = FairRing<AccountId, DeathRow>;

impl Jobs {
    /// The deaths that are kept, newest first.
    pub(crate) fn deaths(&self) -> impl Iterator<Item = &DeathRow> {
        self.deaths.from(0).rev()
    }

    /// Some deaths of a job, each with the text of its stack while the death is in the ring.
    pub(crate) fn with_stack_texts(&self, id: JobId, deaths: &[JobDeath]) -> Vec<JobDeath> {
        let whole = |one: &JobDeath| {
            let is_it = |row: &&DeathRow| {
                let key = |death: &JobDeath| (death.worker, death.at_us, death.attempt, death.part);
                row.job == id && key(&row.death) == key(one)
            };
            self.deaths().find(is_it).map_or_else(|| one.clone(), |row| row.death.clone())
        };
        deaths.iter().map(whole).collect()
    }

    /// Drops the oldest death of an account from the ring.
    ///
    /// # Panics
    /// If it has none.
    pub(crate) fn drop_oldest_death(&mut self, account: AccountId) {
        self.deaths.drop_oldest(account, |_, _| ()).expect("an account that holds deaths has an oldest one");
        self.table.charges.release(account, Resource::Deaths, 1);
    }

    /// Keeps a death that ended an attempt of a job and is not charged to it. `shown` is the number of the job that
    /// clients know.
    pub(crate) fn note_uncharged(
        &mut self,
        turn: &mut Turn,
        offer: &OfferRef,
        shown: JobId,
        dead: &ProvenDeath<'_>,
    ) {
        let is_of_worker =
            |death: &JobDeath| death.worker == dead.worker && !matches!(death.death, Death::OfProgram { .. });
        let charged = |rare: &RareFields| rare.deaths.iter().any(is_of_worker);
        let is_noted = |job: &Job| job.rare.as_deref().is_some_and(charged);
        if let Some(run) = self.there(offer.ticket, offer.number, offer.count) {
            let key = self.table.open(run);
            let (own, part) = self.task_of(key);
            let (attempt, fence) = (self.table[key].attempts, self.table[key].fence);
            if fence == offer.fence && !is_noted(&self.table[own]) {
                self.keep_death(turn, (own, part, attempt), dead, false);
                self.late_death_fact(turn, key);
            }
        } else if let (Some((_, part)), Some(own)) = (part_of(offer.number), self.table.find(shown)) {
            // The part is gone with its job. Only the part that ended the job keeps the death.
            let end = self.table[own].end().and_then(|end| end.part);
            if let Some(this) = end.filter(|end| end.number == part + 1 && !is_noted(&self.table[own])) {
                self.keep_death(turn, (own, Some(this), offer.fence.0), dead, false);
            }
        }
    }

    /// Keeps the death of the program that a task ran, whose worker lives on.
    ///
    /// # Panics
    /// If the task is not in the table.
    pub(crate) fn note_of_program(&mut self, turn: &Turn, run: TaskRun, dead: &ProvenDeath<'_>) {
        let key = self.table.open(run);
        let (own, part) = self.task_of(key);
        let attempt = self.table[key].attempts;
        self.keep_death(turn, (own, part, attempt), dead, false);
    }

    /// Adds a death to the evidence of a job, and to the ring.
    ///
    /// # Panics
    /// If the job is a part, or has more than `EVIDENCE_MAX` deaths.
    pub(super) fn keep_death(
        &mut self,
        turn: &Turn,
        (key, part, attempt): (Key, Option<Part>, u32),
        dead: &ProvenDeath<'_>,
        charged: bool,
    ) {
        let batch = self.table.batch(key);
        let (kind, uid, account) = (turn.kind_name(batch.kind), batch.uid, batch.account);
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
        deaths.push(JobDeath { evidence: death.evidence.without_stack_text(), ..death.clone() });
        self.table.charges.charge(account, Resource::Deaths, 1);
        self.deaths.push(account, DeathRow { job: id, kind, uid, death });
    }
}

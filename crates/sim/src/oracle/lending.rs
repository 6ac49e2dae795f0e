//! `lending`: nobody who holds no worker waits behind others for longer than the time after which a pool lends a slot, while
//! it has one to lend and a spare; no slot is lent before that time, or while an own slot could take the task; a lent
//! worker runs tasks of its user alone, one at a time; and nobody holds more workers than the share of each user.
//!
//! It follows records, offers and proofs, and takes a job for one that may run only if nothing at all may keep it: no failure
//! that it backs off from, no file, no output or log, no plan, and a client whose results cannot make it rest.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_core::action::Output;
use bulkhead_core::config::Config;
use bulkhead_core::event::{Event, Now};
use bulkhead_proto::client::record::What;
use bulkhead_proto::ids::{ClientId, PoolId, SlotId, WorkerId};
use bulkhead_proto::job::OutputMode;

use crate::oracle::job::KnownJob;
use crate::oracle::ledger::JobOracle;
use crate::oracle::pool::PoolOracle;
use crate::report::{Verdict, broken};

/// What a pause may differ by, as the core and the oracle take it, in nanoseconds.
const SLACK_NS: u64 = 1_000_000_000;

/// One pool, as far as lending goes.
#[derive(Debug, Default)]
struct LendingPool {
    name: String,
    running_max: Option<u16>,
    is_degraded: bool,
    /// Since when each user surely waits.
    waits: BTreeMap<u32, u64>,
    /// Users who had a slot lent before: one whose lent worker died waits no second time.
    had_loan: BTreeSet<u32>,
}

/// Follows who waits, and what is lent.
#[derive(Debug)]
pub struct LendingOracle {
    /// `None`: nothing is lent.
    after_ns: Option<u64>,
    homes: Vec<PoolId>,
    pools: Vec<LendingPool>,
    /// The user of each worker in a lent slot.
    loans: BTreeMap<WorkerId, u32>,
    /// Clients that may rest because of outputs which they have not read.
    heavy: BTreeSet<ClientId>,
    is_over: bool,
    /// Slots lent so far.
    pub lent: u64,
}

impl LendingOracle {
    /// Nobody waits.
    pub fn new(config: &Config, is_sure: bool, is_honest: bool) -> Self {
        let pool = |pool: bulkhead_core::config::PoolSize| LendingPool {
            name: pool.name,
            // What a worker that lies has begun is not known.
            running_max: pool.running_max.filter(|_| is_honest),
            ..LendingPool::default()
        };
        Self {
            after_ns: config.lend_after_ms.map(|after_ms| after_ms * 1_000_000),
            homes: config.kinds.iter().map(|kind| config.pool_of(kind)).collect(),
            pools: config.all_pools().map(pool).collect(),
            loans: BTreeMap::new(),
            heavy: BTreeSet::new(),
            // Readers that rest, and descriptors that run short, keep jobs for reasons that are not followed here.
            is_over: !is_sure,
            lent: 0,
        }
    }

    /// Follows an event.
    pub fn told(&mut self, event: &Event) {
        match event {
            Event::Died { worker, .. } => drop(self.loans.remove(worker)),
            Event::Drain { .. } | Event::Stop => self.is_over = true,
            _ => {}
        }
    }

    /// The core has decided this turn.
    ///
    /// # Errors
    /// A slot is lent that should not be, or is not lent that should be.
    pub fn decided(&mut self, now: Now, out: &Output, pool: &PoolOracle, jobs: &JobOracle) -> Verdict {
        let mut new = Vec::new();
        for record in &out.records {
            match &record.what {
                What::Lent { worker, uid, slot } => {
                    self.lent += 1;
                    self.loans.insert(*worker, *uid);
                    new.push((*worker, *uid, *slot));
                }
                What::TakenIn { worker, .. } => drop(self.loans.remove(worker)),
                What::Degraded { pool, .. } => self.set_degraded(pool, true),
                What::Recovered { pool } => self.set_degraded(pool, false),
                _ => {}
            }
        }
        self.loans.retain(|worker, _| pool.pool_of(*worker).is_some() && !pool.is_retired(*worker));
        let heads = heads(jobs);
        self.check_loans(jobs)?;
        for (worker, uid, slot) in new {
            self.check_new(now, (worker, uid, slot), pool, (jobs, &heads))?;
        }
        for at in 0..self.pools.len() {
            self.check_shares(at, pool, &heads)?;
            self.check_waits(now, at, pool, (jobs, &heads))?;
        }
        Ok(())
    }

    fn set_degraded(&mut self, name: &str, is_degraded: bool) {
        for pool in self.pools.iter_mut().filter(|pool| pool.name == name) {
            pool.is_degraded = is_degraded;
        }
    }

    /// A lent worker has one task at a time, of its user.
    fn check_loans(&self, jobs: &JobOracle) -> Verdict {
        let mut seen = BTreeSet::new();
        for ((worker, seq), task) in &jobs.offers {
            let Some(uid) = self.loans.get(worker) else { continue };
            if jobs.jobs.get(&task.job).is_some_and(|job| job.uid != *uid) || !seen.insert(*worker) {
                return broken(
                    "lending",
                    format!("offer {seq} of {task:?} goes to worker {worker}, lent to user {uid}"),
                );
            }
        }
        Ok(())
    }

    /// A slot was lent in this turn: its user has waited, and tasks of others run in all own slots.
    fn check_new(
        &mut self,
        now: Now,
        (worker, uid, slot): (WorkerId, u32, SlotId),
        pool: &PoolOracle,
        (jobs, heads): (&JobOracle, &BTreeMap<WorkerId, u32>),
    ) -> Verdict {
        let home = pool.pool_of(worker).unwrap_or_default();
        let own = |job: &&KnownJob| job.uid == uid && self.homes.get(usize::from(job.kind)) == Some(&home);
        let since_ns = jobs.jobs.values().filter(own).map(|job| job.accepted_ns).min();
        let had_one = !self.pools[usize::from(home.0)].had_loan.insert(uid);
        let after_ns = self.after_ns.unwrap_or(u64::MAX);
        if !had_one && since_ns.is_none_or(|since_ns| now.mono_ns < since_ns.saturating_add(after_ns)) {
            return broken(
                "lending",
                format!("slot {slot} is lent to user {uid}, who has not waited so long"),
            );
        }
        if !is_all_held((home, uid), pool, heads, true) {
            return broken(
                "lending",
                format!("slot {slot} is lent to user {uid}, and others do not hold all"),
            );
        }
        Ok(())
    }

    /// Nobody holds more workers of a pool than each user may.
    fn check_shares(&self, at: usize, pool: &PoolOracle, heads: &BTreeMap<WorkerId, u32>) -> Verdict {
        let Some(most) = self.pools[at].running_max else { return Ok(()) };
        let mut held: BTreeMap<u32, u16> = BTreeMap::new();
        let home = PoolId(u16::try_from(at).unwrap_or_default());
        for (id, ..) in pool.placed(home).filter(|(id, ..)| !pool.is_stuck(*id)) {
            if let Some(uid) = heads.get(&id) {
                *held.entry(*uid).or_default() += 1;
            }
        }
        match held.into_iter().find(|(_, count)| *count > most) {
            Some((uid, count)) => {
                broken("lending", format!("user {uid} holds {count} workers of pool {at}, not {most}"))
            }
            None => Ok(()),
        }
    }

    /// Nobody who surely waits has waited for longer than that, while a slot can be lent.
    fn check_waits(
        &mut self,
        now: Now,
        at: usize,
        pool: &PoolOracle,
        (jobs, heads): (&JobOracle, &BTreeMap<WorkerId, u32>),
    ) -> Verdict {
        let home = PoolId(u16::try_from(at).unwrap_or_default());
        let (_, lend_max) = pool.lent_places(home);
        let Some(after_ns) = self.after_ns.filter(|_| lend_max > 0 && !self.is_over) else { return Ok(()) };
        let waiting = self.surely_waiting(home, pool, (jobs, heads));
        let known = &mut self.pools[at];
        known.waits.retain(|uid, _| waiting.contains(uid));
        for uid in waiting {
            known.waits.entry(uid).or_insert(now.mono_ns);
        }
        let (first, _) = pool.lent_places(home);
        let lent =
            pool.placed(home).filter(|(_, slot, _)| slot.0 >= first && slot.0 < first + lend_max).count();
        if lent >= usize::from(lend_max) || !pool.has_spare(home) || known.is_degraded {
            return Ok(());
        }
        for (uid, since_ns) in &known.waits {
            let ran_ns = jobs.pauses.ran_ns(*since_ns, now.mono_ns);
            if ran_ns >= after_ns + SLACK_NS && is_all_held((home, *uid), pool, heads, false) {
                return broken(
                    "lending",
                    format!(
                        "user {uid} holds no worker of pool {at} and waits for {ran_ns} ns, {lent} of {lend_max} are lent"
                    ),
                );
            }
        }
        Ok(())
    }

    /// Users who hold no worker of a pool, have no lent one, and have a job there that surely may run.
    fn surely_waiting(
        &mut self,
        home: PoolId,
        pool: &PoolOracle,
        (jobs, heads): (&JobOracle, &BTreeMap<WorkerId, u32>),
    ) -> BTreeSet<u32> {
        let is_light =
            |job: &KnownJob| job.policy.output == OutputMode::Inline && job.files.is_empty() && !job.plans;
        self.heavy.extend(jobs.jobs.values().filter(|job| !is_light(job)).map(|job| job.client));
        let may_run = |job: &&KnownJob| {
            is_light(job)
                && self.homes.get(usize::from(job.kind)) == Some(&home)
                && job.offer.is_none()
                && job.failures.1 == 0
                && job.life == 1
                && !job.forgotten
                && !job.may_be_over(false, jobs.gone.contains_key(&job.client))
                && !self.heavy.contains(&job.client)
        };
        let mut users: BTreeSet<u32> = jobs.jobs.values().filter(may_run).map(|job| job.uid).collect();
        for (id, ..) in pool.placed(home) {
            for uid in [heads.get(&id), self.loans.get(&id)].into_iter().flatten() {
                users.remove(uid);
            }
        }
        users
    }
}

/// The user of the first offer of each worker.
pub(super) fn heads(jobs: &JobOracle) -> BTreeMap<WorkerId, u32> {
    let mut heads = BTreeMap::new();
    for ((worker, _), task) in &jobs.offers {
        if let Some(job) = jobs.jobs.get(&task.job) {
            heads.entry(*worker).or_insert(job.uid);
        }
    }
    heads
}

/// Whether a worker that can work stands in each own slot of a pool, and has a task of another user. `may_be_stuck`: a slot whose
/// worker is stuck counts for nothing, for that worker may keep it.
fn is_all_held(
    (home, uid): (PoolId, u32),
    pool: &PoolOracle,
    heads: &BTreeMap<WorkerId, u32>,
    may_be_stuck: bool,
) -> bool {
    let (first, size) = pool.places(home);
    let (mut held, mut stuck) = (BTreeSet::new(), BTreeSet::new());
    for (id, slot, is_open) in
        pool.placed(home).filter(|(_, slot, _)| (first..first + size).contains(&slot.0))
    {
        if is_open && heads.get(&id).is_some_and(|other| *other != uid) {
            held.insert(slot);
        } else if pool.is_stuck(id) {
            stuck.insert(slot);
        }
    }
    let is_held = !held.is_empty();
    if may_be_stuck {
        held.extend(stuck);
    }
    is_held && held.len() == usize::from(size)
}

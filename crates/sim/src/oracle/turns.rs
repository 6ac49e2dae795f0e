//! `levels` and `fewest`: whose job an idle worker is given.
//!
//! `levels`: of all jobs of a user, over all connections, none of a less urgent priority is given to an idle worker while one
//! of a more urgent priority waits. `fewest`: nor is one of a user who holds more workers of the pool while a job of another
//! waits, but in a lent slot. Both judge by jobs that surely wait and surely fit: never offered, asked for by a client that cannot have left too
//! much unread, not to be cancelled or expired, in one task that needs no descriptor, and not behind a plan or a job of its
//! list that may wait for room. Jobs that run alone and offers ahead have other rules. It follows events and actions, and
//! never asks the core.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_core::action::Task;
use bulkhead_core::config::Config;
use bulkhead_core::event::{Event, Now};
use bulkhead_proto::client::message::{Request, Submit};
use bulkhead_proto::client::record::What;
use bulkhead_proto::ids::{ClientId, JobId, PoolId, Seq, WorkerId};
use bulkhead_proto::job::OutputMode;
use bulkhead_proto::limits::INLINE_MAX_BYTES;

use crate::oracle::job::KnownJob;
use crate::oracle::ledger::JobOracle;
use crate::oracle::pool::PoolOracle;
use crate::report::{Verdict, broken};
use crate::scenario::{Profile, Scenario};
use crate::task::TaskId;

/// A bound on the bytes that one end adds to what a client has not read.
const END_BYTES: u64 = INLINE_MAX_BYTES as u64 + 256;
/// Clients are parked at 16 unread outputs and at four times their credit.
const OUTPUTS_MAX: u64 = 16;
const CREDITS_MAX: u64 = 4;

/// What a client asked for that may keep its jobs from being taken.
#[derive(Debug, Default)]
struct KnownReader {
    attached: u64,
    outputs: u64,
    /// It asked for retries: such a job may stand before older ones.
    retries: bool,
    /// Priorities at which it has jobs that are planned: one whose plan waits keeps those behind it waiting.
    planned: BTreeSet<u8>,
}

/// Follows who holds which worker, and which jobs wait.
#[derive(Debug)]
pub struct TurnOracle {
    active: bool,
    /// Whether time that passes always counts as waiting.
    is_exact: bool,
    step_ns: u64,
    unread_max: u64,
    homes: Vec<PoolId>,
    logs: Vec<bool>,
    /// Kinds that are done in parts.
    fans: BTreeSet<String>,
    readers: BTreeMap<ClientId, KnownReader>,
    /// Jobs that were never offered.
    waiting: BTreeSet<JobId>,
    /// Jobs that were offered, and may be queued again.
    begun: BTreeSet<JobId>,
    /// Workers in lent slots, each for one user alone.
    lent: BTreeSet<WorkerId>,
    /// Whether a user may hold so many workers and no more, however many others hold.
    has_hard_shares: bool,
    /// Whose task each offer is that is not settled.
    rings: BTreeMap<WorkerId, BTreeMap<Seq, u32>>,
}

impl TurnOracle {
    /// An oracle that knows no job.
    pub fn new(scenario: &Scenario) -> Self {
        let config: &Config = &scenario.config;
        Self {
            // With tiny budgets unread results of other clients park a user's; without descriptors jobs do not fit.
            active: scenario.profile != Profile::Starved
                && scenario.crowd.is_none()
                && scenario.faults.shortage == 0
                // Who waits for a worker of the own user is passed over.
                && config.all_pools().all(|pool| !pool.one_user),
            is_exact: scenario.faults.oversleep == 0,
            step_ns: config.ageing_ms.max(1) * 1_000_000,
            unread_max: config.client_credit_bytes * CREDITS_MAX,
            homes: config.kinds.iter().map(|kind| config.pool_of(kind)).collect(),
            logs: config.kinds.iter().map(|kind| kind.logs).collect(),
            fans: config.kinds.iter().filter(|kind| kind.plans).map(|kind| kind.name.clone()).collect(),
            readers: BTreeMap::new(),
            waiting: BTreeSet::new(),
            begun: BTreeSet::new(),
            lent: BTreeSet::new(),
            has_hard_shares: config.running_max.is_some()
                || config.pools.iter().any(|pool| pool.running_max.is_some()),
            rings: BTreeMap::new(),
        }
    }

    /// Follows an event.
    pub fn told(&mut self, event: &Event) {
        match event {
            Event::Drain { .. } | Event::Stop => self.active = false,
            Event::ClientSaid { client, request: Request::Retry { jobs }, .. } => {
                self.readers.entry(*client).or_default().retries = true;
                self.begun.extend(jobs);
            }
            Event::TookBack { worker, seq, won: true }
            | Event::OfferFailed { worker, seq, taken: true, .. }
            | Event::Finished { worker, seq, .. } => {
                self.rings.get_mut(worker).map(|ring| ring.remove(seq));
            }
            Event::Died { worker, .. } => drop(self.rings.remove(worker)),
            _ => {}
        }
    }

    /// Follows a record.
    pub fn recorded(&mut self, what: &What) {
        match what {
            What::Lent { worker, .. } => drop(self.lent.insert(*worker)),
            What::TakenIn { worker, .. } => drop(self.lent.remove(worker)),
            _ => {}
        }
    }

    /// Jobs were accepted.
    pub fn accepted(&mut self, client: ClientId, submit: &Submit, first: JobId, count: u32) {
        let reader = self.readers.entry(client).or_default();
        if submit.attached {
            reader.attached += u64::from(count);
            reader.outputs += u64::from(count) * u64::from(submit.policy.output != OutputMode::Inline);
        }
        if self.fans.contains(&submit.kind) {
            reader.planned.insert(submit.policy.priority);
        }
        self.waiting.extend((0..u64::from(count)).map(|next| JobId(first.0 + next)));
    }

    /// A task is dispatched.
    ///
    /// # Errors
    /// The job of another goes first.
    pub fn offered(
        &mut self,
        now: Now,
        (worker, seq): (WorkerId, Seq),
        task: &Task,
        jobs: &JobOracle,
        workers: &PoolOracle,
    ) -> Verdict {
        let Some(job) = jobs.jobs.get(&task.job) else { return Ok(()) };
        let is_alone = jobs.task(TaskId::of(task)).is_some_and(|task| task.charges_ever > 0);
        let is_idle = self.rings.get(&worker).is_none_or(BTreeMap::is_empty);
        if self.active && is_idle && !is_alone {
            self.judge_level(now, (task.job, job), jobs)?;
            if !self.has_hard_shares && !self.lent.contains(&worker) {
                self.judge_holders((task.job, job), jobs, workers)?;
            }
        }
        self.waiting.remove(&task.job);
        self.begun.insert(task.job);
        self.rings.entry(worker).or_default().insert(seq, job.uid);
        Ok(())
    }

    fn home(&self, job: &KnownJob) -> Option<PoolId> {
        self.homes.get(usize::from(job.kind)).copied()
    }

    /// Jobs that surely wait in the pool of this one and fit an idle worker.
    fn surely_wait<'a>(
        &'a self,
        of: &'a KnownJob,
        jobs: &'a JobOracle,
    ) -> impl Iterator<Item = (JobId, &'a KnownJob)> {
        let all = self.waiting.iter().filter_map(|id| Some((*id, jobs.jobs.get(id)?)));
        let stops = self.first_for_room(of, jobs);
        all.filter(move |(id, job)| {
            let is_behind = stops.get(&(job.client, job.policy.priority)).is_some_and(|stop| stop < id);
            !is_behind && self.home(job) == self.home(of) && self.is_sure(job, jobs)
        })
    }

    /// Of each list in the pool of this job, the first that may wait for room: those behind it wait with it. One that was
    /// given back may stand before all.
    fn first_for_room(&self, of: &KnownJob, jobs: &JobOracle) -> BTreeMap<(ClientId, u8), JobId> {
        let new = self.waiting.iter().map(|id| (*id, id));
        let back = self.begun.iter().map(|id| (JobId(0), id));
        let all = back.chain(new).filter_map(|(place, id)| Some((place, jobs.jobs.get(id)?)));
        let stops = all.filter(|(_, job)| {
            self.needs_room(job) && self.home(job) == self.home(of) && job.offer.is_none() && !is_over(job)
        });
        let mut first = BTreeMap::new();
        stops.for_each(|(place, job)| _ = first.entry((job.client, job.policy.priority)).or_insert(place));
        first
    }

    /// Whether the job writes an output in memory or a log.
    fn needs_room(&self, job: &KnownJob) -> bool {
        matches!(job.policy.output, OutputMode::Descriptor | OutputMode::Auto | OutputMode::Arena)
            || self.logs.get(usize::from(job.kind)).copied().unwrap_or(true)
    }

    fn is_sure(&self, job: &KnownJob, jobs: &JobOracle) -> bool {
        let Some(reader) = self.readers.get(&job.client) else { return false };
        let reads = reader.outputs < OUTPUTS_MAX && reader.attached * END_BYTES <= self.unread_max;
        let stays = !(job.cancel || job.attached && jobs.gone.contains_key(&job.client));
        // A durable job may wait for room for its facts.
        let fits = !job.plans && !job.durable && !self.needs_room(job);
        let is_head = !reader.planned.contains(&job.policy.priority);
        let is_new = job.life == 1 && job.end.is_none() && !job.end_recorded && !reader.retries;
        reads && stays && fits && is_head && is_new && job.policy.expires_ms.is_none()
    }

    fn judge_level(&mut self, now: Now, (id, job): (JobId, &KnownJob), jobs: &JobOracle) -> Verdict {
        self.begun.retain(|id| jobs.jobs.get(id).is_some_and(|job| !is_over(job)));
        let (pool, level) = (self.home(job), job.policy.priority);
        let others = self.waiting.iter().chain(&self.begun).filter_map(|id| jobs.jobs.get(id));
        let others = others
            .filter(|other| (other.uid, self.home(other), other.policy.priority) == (job.uid, pool, level));
        let oldest_ns = others.map(|other| other.accepted_ns).min().unwrap_or(0).min(job.accepted_ns);
        for (first, other) in self.surely_wait(job, jobs).filter(|(_, other)| other.uid == job.uid) {
            let gained_ns = u64::from(other.policy.priority) * self.step_ns;
            let needed_ns = u64::from(level) * self.step_ns;
            // Time in which nothing ran does not count as waiting, so it takes away from either head start.
            let (older_ns, younger_ns) =
                (oldest_ns.saturating_sub(other.accepted_ns), other.accepted_ns.saturating_sub(oldest_ns));
            let older_ns = if self.is_exact { older_ns } else { 0 };
            if gained_ns + older_ns > needed_ns + younger_ns {
                let at = now.mono_ns;
                return broken(
                    "levels",
                    format!(
                        "job {id} of priority {level} goes before job {first} of the same user at {at}: {other:?}"
                    ),
                );
            }
        }
        Ok(())
    }

    /// Workers of a pool that a user holds: at least, and at most. A stuck worker may have given its slot away.
    fn held(&self, pool: Option<PoolId>, uid: u32, workers: &PoolOracle) -> (usize, usize) {
        let is_its = |(worker, ring): &(&WorkerId, &BTreeMap<Seq, u32>)| {
            workers.pool_of(**worker) == pool && ring.values().next() == Some(&uid)
        };
        let held = || self.rings.iter().filter(is_its);
        (held().filter(|(worker, _)| !workers.is_stuck(**worker)).count(), held().count())
    }

    fn judge_holders(
        &self,
        (id, job): (JobId, &KnownJob),
        jobs: &JobOracle,
        workers: &PoolOracle,
    ) -> Verdict {
        let pool = self.home(job);
        let (least, _) = self.held(pool, job.uid, workers);
        let others = self.surely_wait(job, jobs).filter(|(_, other)| other.uid != job.uid);
        let mut users: BTreeMap<u32, JobId> = BTreeMap::new();
        others.for_each(|(other, known)| _ = users.entry(known.uid).or_insert(other));
        for (uid, other) in users {
            let (working, most) = self.held(pool, uid, workers);
            // Stuck workers of the other user may leave that user none: the oracle `stuck`.
            if most < least && working == most {
                let holder = job.uid;
                return broken(
                    "fewest",
                    format!(
                        "job {id} of user {holder}, who holds {least} workers, goes before job {other} of user {uid}, \
                         who holds {most}"
                    ),
                );
            }
        }
        Ok(())
    }
}

/// Whether there is evidence that a job is not queued again.
fn is_over(job: &KnownJob) -> bool {
    job.end.is_some() || job.end_recorded || job.forgotten || !job.plans && !job.reports.is_empty()
}

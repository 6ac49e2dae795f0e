//! `limits`, the other way round: what met a limit is ended. `limits.rs` judges that nothing is ended that did not.
//!
//! After each step it looks at the first task of each worker's ring: when it began by the truth of its box, and what it uses by
//! the truth of its vitals. A limit that is met at a step is enforced within the time of `AnyLimit` and `STEPS_MAX` steps after
//! that time, which the core needs for its examination, its look, and the answers.
//!
//! Enforced means: the worker is killed, the task is told to end, or its job has ended. Workers that break the protocol are
//! left out. It follows events and actions, and never asks the core.

use std::collections::BTreeMap;

use bulkhead_core::action::Action;
use bulkhead_core::config::Config;
use bulkhead_core::event::{Event, Now};
use bulkhead_proto::ids::{Seq, WorkerId};
use bulkhead_proto::worker::boxes::ClaimState;

use crate::clock::{MS, S};
use crate::oracle::job::KnownJob;
use crate::oracle::ledger::JobOracle;
use crate::report::{Verdict, broken};
use crate::task::TaskId;
use crate::worker::FakeWorker;

/// Steps within which a met limit is enforced, once its time is over.
const STEPS_MAX: u32 = 4;
/// The longest pause between two examinations of a task's memory.
const MEMORY_NS: u64 = 250 * MS;
/// How long after its grace a task may take to report.
const REPORT_NS: u64 = S;

/// A limit, and how much time there is to enforce it.
///
/// | limit | of | met when | time |
/// |---|---|---|---|
/// | wall time | task | it was first in its ring for so long | none; `retire_ms` if it began after that |
/// | no progress | task | its last step forward, its begin and its offer are so long ago | none |
/// | processor time | task | it used so much | a twentieth of the limit, from 20 ms to 1 s; the limit by the number of cores, as it also runs in pauses |
/// | memory | task | it grew by so much | 250 ms |
/// | grace | task | it was told to end so long ago, and [`REPORT_NS`] more | none |
/// | bootstrap | worker | it was spawned so long ago and is not up | none |
/// | leaving | worker | it was asked to leave so long ago | none |
/// | stopped | worker | a signal stopped it so long ago | none |
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum AnyLimit {
    Wall,
    Progress,
    Cpu,
    Memory,
    Grace,
    Bootstrap,
    Leaving,
    Stopped,
}

/// The first task of a ring.
#[derive(Debug)]
struct FirstTask {
    seq: Seq,
    task: TaskId,
    since_ns: u64,
    /// The first step that found it begun.
    begun_ns: Option<u64>,
    /// When it was told to end.
    asked_ns: Option<u64>,
}

/// What is known of one worker.
#[derive(Debug, Default)]
struct Watched {
    first: Option<FirstTask>,
    /// The graces of its offers.
    graces_ms: BTreeMap<Seq, u32>,
    /// Since when it has not come up, leaves, or is stopped.
    waits: BTreeMap<AnyLimit, u64>,
    is_killed: bool,
    /// The limits that are met and not enforced: since when, and how many steps ago.
    met: BTreeMap<AnyLimit, (u64, u32)>,
}

/// Follows the limits that are met.
#[derive(Debug)]
pub struct OverdueOracle {
    bootstrap_ms: u64,
    retire_ms: u64,
    stopped_ms: u64,
    cores: u64,
    workers: BTreeMap<WorkerId, Watched>,
}

impl OverdueOracle {
    /// An oracle that knows no worker.
    pub fn new(config: &Config) -> Self {
        let Config { bootstrap_ms, retire_ms, stopped_ms, .. } = *config;
        let cores = u64::from(config.cores);
        Self { bootstrap_ms, retire_ms, stopped_ms, cores, workers: BTreeMap::new() }
    }

    /// Follows an event.
    pub fn told(&mut self, now: Now, event: &Event) {
        match event {
            Event::SpawnFailed { worker, .. } | Event::Died { worker, .. } => {
                drop(self.workers.remove(worker));
            }
            Event::WorkerReady { worker, .. } | Event::BootstrapFailed { worker, .. } => {
                self.over(*worker, AnyLimit::Bootstrap);
            }
            // One that was asked to leave has its time for that, stopped or not, and SIGKILL ends one that is stopped.
            Event::Suspended { worker, .. } if !self.is_ending(*worker) => {
                self.begin(now, *worker, AnyLimit::Stopped);
            }
            Event::Resumed { worker } => self.over(*worker, AnyLimit::Stopped),
            _ => {}
        }
    }

    fn begin(&mut self, now: Now, worker: WorkerId, wait: AnyLimit) {
        if let Some(known) = self.workers.get_mut(&worker) {
            known.waits.entry(wait).or_insert(now.mono_ns);
        }
    }

    fn over(&mut self, worker: WorkerId, wait: AnyLimit) {
        if let Some(known) = self.workers.get_mut(&worker) {
            known.waits.remove(&wait);
        }
    }

    /// Follows an action.
    pub fn decided(&mut self, now: Now, action: &Action) {
        match action {
            Action::Spawn { worker, .. } => {
                self.workers.insert(*worker, Watched::default());
                self.begin(now, *worker, AnyLimit::Bootstrap);
            }
            Action::Retire { worker } => {
                // One that leaves has a deadline already.
                self.over(*worker, AnyLimit::Stopped);
                self.begin(now, *worker, AnyLimit::Leaving);
            }
            // One that is asked for its stack is killed soon after: that is `stacks`.
            Action::Kill { worker, .. } | Action::AskStack { worker, .. } => {
                if let Some(known) = self.workers.get_mut(worker) {
                    known.is_killed = true;
                    known.waits.clear();
                }
            }
            Action::Unwant { worker, seq } => {
                let first = self.workers.get_mut(worker).and_then(|known| known.first.as_mut());
                if let Some(first) = first.filter(|first| first.seq == *seq) {
                    first.asked_ns = Some(now.mono_ns);
                }
            }
            Action::Offer { worker, seq, task } => {
                if let Some(known) = self.workers.get_mut(worker) {
                    known.graces_ms.insert(*seq, task.grace_ms);
                }
            }
            _ => {}
        }
    }

    fn is_ending(&self, worker: WorkerId) -> bool {
        let is_ending = |known: &Watched| known.is_killed || known.waits.contains_key(&AnyLimit::Leaving);
        self.workers.get(&worker).is_some_and(is_ending)
    }

    /// The end of a turn, after the ledger has all of it.
    ///
    /// # Errors
    /// A limit was met, and nothing was done about it.
    pub fn turn_over(
        &mut self,
        now: Now,
        ledger: &JobOracle,
        workers: &BTreeMap<WorkerId, FakeWorker>,
    ) -> Verdict {
        let Self { bootstrap_ms, retire_ms, stopped_ms, cores, .. } = *self;
        for (id, known) in &mut self.workers {
            let Some(truth) = workers.get(id) else { continue };
            known.follow(now, ledger, truth);
            if truth.hostile {
                continue;
            }
            let of_worker = |wait: &AnyLimit| match wait {
                AnyLimit::Bootstrap => bootstrap_ms,
                AnyLimit::Leaving => retire_ms,
                _ => stopped_ms,
            };
            let ran_ns = |since_ns: u64| ledger.pauses.ran_ns(since_ns, now.mono_ns);
            let is_met = |(wait, since_ns): &(&AnyLimit, &u64)| ran_ns(**since_ns) >= of_worker(wait) * MS;
            let waits = known.waits.iter().filter(is_met);
            let mut found: BTreeMap<AnyLimit, u64> = waits.map(|(wait, _)| (*wait, 0)).collect();
            found.extend(known.met_by_task(now, ledger, truth, (retire_ms, cores)));
            known.met.retain(|limit, _| found.contains_key(limit));
            for (limit, grace_ns) in found {
                let (since_ns, steps) = known.met.entry(limit).or_insert((now.mono_ns, 0));
                *steps += u32::from(ran_ns(*since_ns) >= grace_ns);
                if *steps > STEPS_MAX {
                    let what = format!("worker {id} meets {limit:?}, and is left alone: {known:?}");
                    return broken("limits", what);
                }
            }
        }
        Ok(())
    }
}

impl Watched {
    /// Follows the first task of the ring.
    fn follow(&mut self, now: Now, ledger: &JobOracle, truth: &FakeWorker) {
        let held = ledger.offers.range((truth.id, Seq(0))..=(truth.id, Seq(u64::MAX))).next();
        let Some((&(_, seq), task)) = held else {
            self.first = None;
            return;
        };
        if self.first.as_ref().is_none_or(|first| first.seq != seq) {
            let (since_ns, begun_ns) = (now.mono_ns, None);
            self.first = Some(FirstTask { seq, task: *task, since_ns, begun_ns, asked_ns: None });
            self.graces_ms = self.graces_ms.split_off(&seq);
        }
        if let Some(first) = self.first.as_mut().filter(|_| truth.pages.is(seq, ClaimState::Claimed)) {
            first.begun_ns.get_or_insert(now.mono_ns);
        }
    }

    /// The limits that the first task has met, and how much time there is to enforce each.
    fn met_by_task(
        &self,
        now: Now,
        ledger: &JobOracle,
        truth: &FakeWorker,
        (retire_ms, cores): (u64, u64),
    ) -> BTreeMap<AnyLimit, u64> {
        let mut met = BTreeMap::new();
        let ran_ns = |since_ns: u64| ledger.pauses.ran_ns(since_ns, now.mono_ns);
        let Some((first, begun_ns)) = self.first.as_ref().and_then(|first| Some((first, first.begun_ns?)))
        else {
            return met;
        };
        if let Some(asked_ns) = first.asked_ns {
            let grace_ns = u64::from(self.graces_ms.get(&first.seq).copied().unwrap_or(0)) * MS;
            if !self.is_killed && ran_ns(asked_ns) >= grace_ns + REPORT_NS {
                met.insert(AnyLimit::Grace, 0);
            }
        }
        let Some(job) = current(ledger, truth.id, first) else { return met };
        let (policy, used) = (&job.policy, truth.vitals.at(now.mono_ns));
        let is_of_time = first.asked_ns.is_none();
        if let Some(limit_ms) = policy.timeout_ms.filter(|_| is_of_time) {
            let is_late = ledger.pauses.ran_ns(first.since_ns, begun_ns) >= limit_ms * MS;
            if ran_ns(first.since_ns) >= limit_ms * MS {
                met.insert(AnyLimit::Wall, if is_late { retire_ms * MS } else { 0 });
            }
        }
        if let Some(limit_ms) = policy.no_progress_ms.filter(|_| is_of_time) {
            let since_ns = used.progress_ns.max(begun_ns).max(job.offered_ns);
            if ran_ns(since_ns) >= limit_ms * MS {
                met.insert(AnyLimit::Progress, 0);
            }
        }
        // A look before the task began makes the core measure anew, if progress is limited too.
        if self.is_killed || !truth.lives() || policy.no_progress_ms.is_some() {
            return met;
        }
        let before = truth.vitals.offered;
        let is_used_up = |limit_ms: &u64| is_of_time && used.cpu_us - before.cpu_us >= limit_ms * 1000;
        if let Some(limit_ms) = policy.cpu_ms.filter(is_used_up) {
            met.insert(AnyLimit::Cpu, (limit_ms / 20).clamp(20, 1000).max(limit_ms / cores) * MS);
        }
        if policy.memory_bytes.is_some_and(|limit| used.resident_bytes - before.resident_bytes >= limit) {
            met.insert(AnyLimit::Memory, MEMORY_NS);
        }
        met
    }
}

/// The task of an offer, if it is still wanted.
fn current<'a>(ledger: &'a JobOracle, worker: WorkerId, first: &FirstTask) -> Option<&'a KnownJob> {
    let of = ledger.jobs.get(&first.task.job)?;
    let job = ledger.task(first.task)?;
    let is_over = of.end.is_some() || of.forgotten || of.cancel;
    let is_current = job.offer == Some((worker, first.seq)) && job.offer_life == of.life;
    (is_current && !is_over).then_some(job)
}

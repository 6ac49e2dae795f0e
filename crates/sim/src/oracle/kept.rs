//! `kept`: ended jobs are kept for `keep_ms` and no longer, within the bounds, and where a bound is exceeded the right ones
//! go. `verdicts.rs` judges that no more are gone than the daemon says (`lost`).
//!
//! It judges lists of all jobs, each of which shows what the steps before have left. Only jobs whose end is known to the step
//! and that no client is still to be told of are judged: those that are not attached, or were run again. Which of two jobs goes
//! first is `goes_first`, and nothing else knows it. It never asks the core.

use std::collections::BTreeSet;

use bulkhead_core::config::Config;
use bulkhead_core::event::{Leftover, Now, TaskResult};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::view::JobRow;
use bulkhead_proto::ids::JobId;

use crate::clock::MS;
use crate::oracle::job::KnownJob;
use crate::oracle::ledger::JobOracle;
use crate::report::{Verdict, broken};

/// Most jobs that the core drops for their age in one turn.
const AGED_PER_TURN: usize = 4096;

/// A kept job, as far as it matters for what goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct KeptJob {
    job: JobId,
    uid: u32,
    /// When it ended.
    ended_ns: u64,
    /// Whether it is in quarantine, which has a bound of its own.
    is_crashed: bool,
    /// Bytes of its inline result.
    bytes: u64,
}

/// Whether one kept job goes before another when a bound is exceeded that both count against: it is of the same user, and
/// ended earlier. Jobs of different users are not compared: what they held then is not known here.
fn goes_first(one: &KeptJob, other: &KeptJob) -> bool {
    one.uid == other.uid && one.ended_ns < other.ended_ns
}

/// Judges what is kept.
#[derive(Debug)]
pub struct KeptOracle {
    config: Config,
    /// When the last two steps were, the last one first.
    steps_ns: [u64; 2],
}

impl KeptOracle {
    /// The bounds.
    pub fn new(config: &Config) -> Self {
        Self { config: config.clone(), steps_ns: [0; 2] }
    }

    /// A step is over.
    pub fn turn_over(&mut self, now: Now) {
        self.steps_ns = [now.mono_ns, self.steps_ns[0]];
    }

    /// All jobs were listed in the last step, before it decided anything.
    ///
    /// # Errors
    /// A job is kept for too long, too many are kept, or the wrong ones went.
    pub fn listed(&self, rows: &[JobRow], ledger: &JobOracle) -> Verdict {
        let listed: BTreeSet<JobId> = rows.iter().map(|row| row.job).collect();
        let all = ledger.jobs.iter().filter_map(|(id, job)| kept(*id, job));
        // What ended in the last step is not judged: the core has not looked at the bounds since.
        let [now_ns, before_ns] = self.steps_ns;
        let all = all.filter(|one| one.ended_ns <= before_ns && one.ended_ns < now_ns);
        let (here, gone): (Vec<KeptJob>, Vec<KeptJob>) = all.partition(|one| listed.contains(&one.job));
        let is_old = |one: &&KeptJob| {
            ledger.pauses.ran_ns(one.ended_ns, before_ns) >= self.config.keep_ms * MS && !one.is_crashed
        };
        // A turn drops so many for their age, of all sorts, and the next one goes on at once.
        let is_dropping = ledger.jobs.len().saturating_sub(listed.len()) >= AGED_PER_TURN;
        if let Some(old) = here.iter().find(is_old).filter(|_| !is_dropping) {
            return broken("kept", format!("{old:?} is kept at {before_ns}"));
        }
        self.bounds(&here)?;
        let evicted: Vec<&KeptJob> = gone.iter().filter(|one| !is_old(one)).collect();
        for is_crashed in [true, false] {
            let stays = || here.iter().filter(|one| one.is_crashed == is_crashed);
            let wrong = evicted.iter().filter(|one| one.is_crashed == is_crashed).find_map(|went| {
                let older = stays().find(|stayed| goes_first(stayed, went))?;
                Some((went, older))
            });
            if let Some((went, stayed)) = wrong {
                return broken("kept", format!("{went:?} was dropped, and {stayed:?} stays"));
            }
        }
        Ok(())
    }

    /// No more is kept than may be.
    fn bounds(&self, here: &[KeptJob]) -> Verdict {
        let config = &self.config;
        let (crashed, others): (Vec<&KeptJob>, Vec<&KeptJob>) = here.iter().partition(|one| one.is_crashed);
        let bytes: u64 = others.iter().map(|one| one.bytes).sum();
        let bounds = [
            (crashed.len() as u64, config.quarantine_max, "jobs in quarantine"),
            (others.len() as u64, config.keep_jobs_max, "kept jobs"),
            (bytes, config.keep_bytes_max, "kept bytes"),
        ];
        match bounds.iter().find(|(count, most, _)| count > most) {
            Some((count, most, what)) => broken("kept", format!("{count} {what}, and {most} may be")),
            None => Ok(()),
        }
    }
}

/// A job whose end is known to the step, and that waits for no client.
fn kept(id: JobId, job: &KnownJob) -> Option<KeptJob> {
    // A durable job stays in the journal, whatever is kept in memory.
    if job.durable || job.forgotten || job.cancel || job.attached && job.life == 1 {
        return None;
    }
    let outcome = job.end.as_ref().map(|end| &end.outcome);
    let is_done = outcome.map_or(!job.reports.is_empty(), |outcome| *outcome == Outcome::Done);
    let ended_ns = if is_done { job.reported_ns } else { job.ended_ns }?;
    let is_timed_out = matches!(outcome, Some(Outcome::TimedOut { .. }));
    if is_timed_out && !(job.reports.is_empty() && job.refusals.is_empty()) {
        // It may have an output, or not.
        return None;
    }
    let left = if is_done { job.reports.last() } else { job.refusals.last() };
    let is_crashed = matches!(outcome, Some(Outcome::Crashed { .. }));
    // An output in memory goes before its job and alone: `memory` judges those.
    let bytes = match left.filter(|_| is_done || matches!(outcome, Some(Outcome::Failed { .. }))) {
        Some(TaskResult::Inline(payload) | TaskResult::Failed { output: Leftover::Inline(payload), .. }) => {
            payload.as_bytes().len() as u64
        }
        _ => 0,
    };
    Some(KeptJob { job: id, uid: job.uid, ended_ns, is_crashed, bytes })
}

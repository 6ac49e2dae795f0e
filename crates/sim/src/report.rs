//! The result of a run: a [`RunReport`], or a [`SeedFailure`] with the way to replay it.
//!
//! Nothing here decides; the texts are for the person who has to find the bug.

use std::fmt;

use crate::scenario::Profile;

/// A broken promise: which oracle saw it, and what it saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenRule {
    /// The oracle's name.
    pub oracle: &'static str,
    /// What it saw.
    pub what: String,
}

/// The verdict of an oracle after each step.
pub type Verdict = Result<(), BrokenRule>;

/// The verdict that a promise was broken.
///
/// # Errors
/// Always.
pub fn broken<T>(oracle: &'static str, what: impl Into<String>) -> Result<T, BrokenRule> {
    Err(BrokenRule { oracle, what: what.into() })
}

/// A run in which every promise held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunReport {
    /// The seed.
    pub seed: u64,
    /// The trace as one number.
    pub hash: u64,
    /// Turns of the core.
    pub steps: u64,
    /// Jobs accepted.
    pub jobs: u64,
    /// Offers made.
    pub offers: u64,
    /// Offers of parts among them.
    pub parts: u64,
    /// Offers of merges.
    pub merges: u64,
    /// Files of clients that were dropped.
    pub files: u64,
    /// Logs that were shown.
    pub logs: u64,
    /// Times that a client was told how far a job is.
    pub told: u64,
    /// Workers that died.
    pub deaths: u64,
    /// Workers that a signal stopped.
    pub stopped: u64,
    /// Workers that left processes.
    pub strays: u64,
    /// Most tasks that one worker held.
    pub deepest: u64,
    /// Programs of tasks that a signal stopped.
    pub programs: u64,
    /// Jobs that were timed out for that.
    pub programs_ended: u64,
    /// Questions of tasks for an output.
    pub output_questions: u64,
    /// Results in arenas.
    pub blocks: u64,
    /// Results in outputs that went with their offers, though their tasks might have asked.
    pub reserves_used: u64,
    /// Those that got one.
    pub outputs_given: u64,
    /// Those that got none.
    pub outputs_refused: u64,
    /// Registrations that workers were told to forget.
    pub forgotten: u64,
    /// Jobs whose clients were told that their input in an arena is free.
    pub freed: u64,
    /// Kills for a limit of progress, processor time or memory.
    pub limits: u64,
    /// Tasks that were told to end because their job had ended.
    pub asked: u64,
    /// Workers that were asked for their stack.
    pub stacks: u64,
    /// Those of them that did so by themselves.
    pub heeded: u64,
    /// Slots that pools lent.
    pub lent: u64,
    /// Workers that gave their slots away because of files that they could not close.
    pub jammed: u64,
    /// Workers that were asked to leave.
    pub retired: u64,
    /// Deaths charged to a job.
    pub charges: u64,
    /// Protocol violations seen.
    pub violations: u64,
    /// Workers that were stuck.
    pub stuck: u64,
    /// Offers taken back.
    pub taken_back: u64,
    /// Offers that could not be sent.
    pub failed_offers: u64,
    /// Most flood jobs that were dispatched while a neighbour's single job waited.
    pub passed_over: u64,
}

/// A run in which a promise was broken.
#[derive(Clone, Debug)]
pub struct SeedFailure {
    /// The seed.
    pub seed: u64,
    /// Its profile.
    pub profile: Profile,
    /// The broken promise.
    pub broken: BrokenRule,
    /// The end of the trace.
    pub tail: Vec<String>,
}

impl fmt::Display for SeedFailure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.tail {
            let cut = line.char_indices().nth(400).map_or(line.len(), |(at, _)| at);
            writeln!(out, "{}", &line[..cut])?;
        }
        writeln!(out, "seed {} ({:?}) broke the oracle `{}`:", self.seed, self.profile, self.broken.oracle)?;
        writeln!(out, "  {}", self.broken.what)?;
        write!(out, "replay: cargo run -p bulkhead-sim -- --seed {} --trace", self.seed)
    }
}

impl std::error::Error for SeedFailure {}

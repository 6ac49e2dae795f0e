//! Samples one worker: its state, processor time and resident memory, when the core asks, and once more before a
//! kill.
//!
//! Only workers with a reason are sampled: for a task with a limit of progress, processor time or memory the core
//! asks as often as the limit needs. The files of /proc are opened before the supervisor connects, because the worker
//! makes itself not dumpable only then; so a /proc with `hidepid` hides nothing. Only the kernel function in which it
//! waits needs a right that root alone has. State and processor time tell an endless loop from a wait for ever; this
//! file does not judge. Nothing here waits for the worker. Owned by `worker_process.rs`.

use bulkhead_proto::client::evidence::{ProcessSeen, RunState};
use bulkhead_sys::pidfd::Process;
use bulkhead_sys::process_identity::ProcessIdentity;
use bulkhead_sys::process_stats::ProcessStats;

/// How long the processor time that was noted before an offer stands for the offers after it.
const NOTE_PAUSE_NS: u64 = 1_000_000;

/// The sampler of one worker, from its spawn on.
#[derive(Debug)]
pub(crate) struct WorkerSampler {
    pid: u32,
    /// `None` if /proc does not show the worker.
    stats: Option<ProcessStats>,
    /// Its processor time when it got an offer while it had no other.
    offered_cpu_ns: Option<u64>,
    /// Before this moment [`Self::offered_cpu_ns`] is new enough.
    noted_until_ns: u64,
    /// The sample taken before the kill.
    pub(crate) last: Option<ProcessSeen>,
}

impl WorkerSampler {
    /// A sampler of a new worker. With `hidepid` it may be too early to open its files: posix_spawn returns a moment
    /// before the kernel allows access to the new program; then [`Self::retry_open`] opens them.
    pub(crate) fn of(process: &Process) -> Self {
        Self {
            pid: process.pid(),
            stats: ProcessStats::of_child(process).ok(),
            offered_cpu_ns: None,
            noted_until_ns: 0,
            last: None,
        }
    }

    /// Opens the files of /proc if that failed at the spawn. Called after the hello, before the worker hides itself.
    pub(crate) fn retry_open(&mut self, process: &Process) {
        if self.stats.is_some() {
            return;
        }
        match ProcessStats::of_child(process) {
            Ok(stats) => self.stats = Some(stats),
            Err(error) => log::warn!(
                "cannot open a worker's files in /proc, its state will be unknown pid={} error={error}",
                process.pid()
            ),
        }
    }

    /// Notes the processor time before the first of a row of offers, at most once in [`NOTE_PAUSE_NS`]. So a task that follows
    /// others shows up to that much of their time as its own, and short tasks do not pay for a system call each.
    pub(crate) fn note_first_offer(&mut self, now_ns: u64) {
        if now_ns < self.noted_until_ns {
            return;
        }
        self.noted_until_ns = now_ns + NOTE_PAUSE_NS;
        self.offered_cpu_ns = self.stats.as_ref().and_then(|stats| stats.cpu_ns().ok());
    }

    /// Takes a sample. `None`: the worker is gone or hidden.
    pub(crate) fn sample(&self) -> Option<ProcessSeen> {
        let seen = self.stats.as_ref()?.sample().ok().flatten()?;
        let of_task = self.offered_cpu_ns.map(|before| seen.cpu_ns.saturating_sub(before) / 1000);
        Some(ProcessSeen {
            pid: self.pid,
            uid: ProcessIdentity::of(self.pid).uid,
            state: state(seen.state),
            cpu_us: seen.cpu_ns / 1000,
            task_cpu_us: of_task,
            below_us: seen.below_ns / 1000,
            resident_bytes: seen.resident_bytes,
            waits_in: seen.waits_in,
        })
    }

    /// Keeps a sample as evidence, unless one was kept before.
    pub(crate) fn keep_as_evidence(&mut self) {
        if self.last.is_none() {
            self.last = self.sample();
        }
    }
}

/// Converts the letter of proc_pid_stat(5).
fn state(letter: char) -> RunState {
    match letter {
        'R' => RunState::Running,
        // An idle kernel thread sleeps as well, but no worker is one.
        'S' => RunState::Sleeping,
        'D' => RunState::Uninterruptible,
        'T' => RunState::Stopped,
        't' => RunState::Traced,
        'Z' | 'X' | 'x' => RunState::Dead,
        _ => RunState::Unknown,
    }
}

//! What the kernel shows of one worker: on demand for the core, and once more right before a kill as evidence.
//!
//! It draws no conclusion: whether that is an endless loop or a wait for ever is for the reader of state and processor
//! time. Nothing here waits for the worker. Driven by the worker that it belongs to.

use bulkhead_proto::client::evidence::{RunState, Seen};
use bulkhead_sys::pidfd::Process;
use bulkhead_sys::process_stats::ProcessStats;

/// One worker's, from its spawn on.
#[derive(Debug)]
pub(crate) struct WorkerSampler {
    pid: u32,
    /// `None` where the kernel shows nothing of it.
    stats: Option<ProcessStats>,
    /// Its processor time when its ring was last empty and an offer came.
    offered_cpu_ns: Option<u64>,
    /// What was seen before the kill.
    pub(crate) last: Option<Seen>,
}

impl WorkerSampler {
    /// Of a new worker. Where /proc hides processes it may be too soon to see it: the kernel lets go of whoever spawns
    /// a moment before it knows that the new program may be looked into.
    pub(crate) fn of(process: &Process) -> Self {
        Self {
            pid: process.pid(),
            stats: ProcessStats::of_child(process).ok(),
            offered_cpu_ns: None,
            last: None,
        }
    }

    /// It has said hello, and hides itself once we have connected: now or never.
    pub(crate) fn retry_open(&mut self, process: &Process) {
        if self.stats.is_some() {
            return;
        }
        match ProcessStats::of_child(process) {
            Ok(stats) => self.stats = Some(stats),
            Err(error) => log::warn!("what a worker does cannot be seen pid={} error={error}", process.pid()),
        }
    }

    /// It is about to be offered a task and has no other.
    pub(crate) fn note_first_offer(&mut self) {
        self.offered_cpu_ns = self.stats.as_ref().and_then(|stats| stats.cpu_ns().ok());
    }

    /// What it is doing now; `None` when it is gone or cannot be seen.
    pub(crate) fn sample(&self) -> Option<Seen> {
        let seen = self.stats.as_ref()?.sample().ok().flatten()?;
        let of_task = self.offered_cpu_ns.map(|before| seen.cpu_ns.saturating_sub(before) / 1000);
        Some(Seen {
            pid: self.pid,
            state: state(seen.state),
            cpu_us: seen.cpu_ns / 1000,
            task_cpu_us: of_task,
            below_us: seen.below_ns / 1000,
            resident_bytes: seen.resident_bytes,
            waits_in: seen.waits_in,
        })
    }

    /// Keeps what it is doing now as evidence, unless something was kept before.
    pub(crate) fn keep_as_evidence(&mut self) {
        if self.last.is_none() {
            self.last = self.sample();
        }
    }
}

/// By the letters of proc_pid_stat(5).
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

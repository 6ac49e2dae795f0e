//! Proofs of death: what they need, and what a worker leaves when its death is proven.
//!
//! Proof is: the leader is reaped, its process group is empty, and no stray is left that may be its offspring. A stray
//! bears the mark of its worker (`bulkhead_sys::mark`); one without a mark may be anybody's, so while one lives no
//! death is proven. Nothing here waits: whoever is killed says by SIGCHLD when to look again. A look takes descriptors
//! to read /proc with; without any it is made again after a moment, and nothing is proven until then. Driven by the loop.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsRawFd;

use bulkhead_core::event::Event;
use bulkhead_proto::ids::WorkerId;
use bulkhead_sys::clock;
use bulkhead_sys::exit::ExitStatus;
use bulkhead_sys::tree::{self, RemainingStrays, Sweep};
use mio::unix::SourceFd;

use super::{WorkerTable, read_box};
use crate::output_store::OutputStore;
use crate::worker_process::WorkerProcess;

/// When to look again after it could not be done: what is short may come back without a word.
const SWEEP_RETRY_NS: u64 = 100_000_000;
/// How long what is left of a dead worker stays: the retry of what it was doing is answered by then.
const KEEP_DEAD_NS: u64 = 2_000_000;

impl WorkerTable {
    /// A leader died.
    pub(crate) fn mark_dying(&mut self, worker: WorkerId) {
        if self.workers.contains_key(&worker) {
            self.dying.insert(worker);
        }
    }

    /// Some child ended, a leader or what a worker left behind; or it was stopped, or continued.
    pub(crate) fn mark_child_changed(&mut self) {
        self.child_ended = true;
        self.may_have_stops = true;
    }

    /// What is to be seen of a worker, or of a stray that hinders the proof of its death.
    pub(crate) fn examine(&self, worker: WorkerId) -> Option<Event> {
        self.workers.get(&worker).map(|found| found.examine(self.remaining_strays.any_of(worker.0)))
    }

    /// Moves the ends of the dying on; each whose death is proven leaves with its last results and its obituary. Of one
    /// that is dead while others of its tree live on, a hint is told.
    pub(crate) fn reap_dead(&mut self, outputs: &mut OutputStore, events: &mut Vec<Event>) {
        if self.sweep_retry_ns.is_some_and(|when| clock::monotonic_ns() < when) {
            return;
        }
        let mut reaped = Vec::new();
        for id in &self.dying {
            let Some(worker) = self.workers.get_mut(id) else { continue };
            let status = worker.advance();
            if worker.tree.is_reaped() {
                reaped.push((*id, status));
            }
        }
        if reaped.is_empty() {
            return self.reap_orphans();
        }
        // Who waits for a stray waits for its SIGCHLD.
        let is_news =
            |(id, status): &(WorkerId, Option<_>)| status.is_some() && !self.remaining_strays.may_be_of(id.0);
        if !self.child_ended && !reaped.iter().any(is_news) {
            return;
        }
        let swept = self.sweep();
        for (id, status) in reaped {
            match status.filter(|_| swept && !self.remaining_strays.may_be_of(id.0)) {
                Some(status) => self.report_death(id, status, outputs, events),
                None => events.extend(self.workers.get_mut(&id).and_then(|worker| worker.hung_up().event())),
            }
        }
    }

    fn report_death(
        &mut self,
        id: WorkerId,
        status: ExitStatus,
        outputs: &mut OutputStore,
        events: &mut Vec<Event>,
    ) {
        self.dying.remove(&id);
        let Some(mut worker) = self.workers.remove(&id) else { return };
        read_box(&mut worker, &mut self.found, outputs, events);
        events.extend(worker.late_bootstrap_failure());
        let now_ns = clock::monotonic_ns();
        events.push(worker.death_event(status, now_ns));
        self.dead.push(worker);
        self.drop_dead_ns.get_or_insert(now_ns + KEEP_DEAD_NS);
    }

    /// Lets go of what is left of the dead, once it is time: to unmap pages, hang up sockets and remove a folder takes
    /// as long as a retry, or as long as a disk likes.
    pub(crate) fn drop_dead_when_due(&mut self, now_ns: u64) {
        if self.drop_dead_ns.is_some_and(|when| when <= now_ns) {
            self.drop_dead();
        }
    }

    /// Lets go of all that is left of the dead.
    pub(crate) fn drop_dead(&mut self) {
        self.drop_dead_ns = None;
        for worker in self.dead.drain(..) {
            for descriptor in worker.descriptors() {
                // The descriptors are about to be closed, which does the same.
                drop(self.registry.deregister(&mut SourceFd(&descriptor.as_raw_fd())));
            }
        }
    }

    /// All leaders that were not reaped: asked for once a look, since there may be many children to ask about.
    fn leaders(&self) -> BTreeSet<u32> {
        self.workers.values().filter_map(WorkerProcess::leader).collect()
    }

    /// What living workers have left behind, and has ended, becomes ours to reap.
    fn reap_orphans(&mut self) {
        if std::mem::take(&mut self.child_ended) {
            let leaders = self.leaders();
            let reaped = tree::reap_orphans(&|pid| leaders.contains(&pid));
            let _ = self.note_sweep(reaped);
        }
    }

    /// What a look brought; if it could not be made, it will be again. Said once.
    fn note_sweep<T>(&mut self, result: io::Result<T>) -> Option<T> {
        match result {
            Ok(seen) => {
                if self.sweep_retry_ns.take().is_some() {
                    log::info!("stray processes are looked for again");
                }
                Some(seen)
            }
            Err(error) => {
                self.child_ended = true;
                if self.sweep_retry_ns.replace(clock::monotonic_ns() + SWEEP_RETRY_NS).is_none() {
                    log::error!("cannot look for stray processes for now, no death is proven error={error}");
                }
                None
            }
        }
    }

    /// When [`Self::reap_dead`] or [`Self::drop_dead_when_due`] has something to do that no wake-up tells of, in nanoseconds of the
    /// monotonic clock.
    pub(crate) fn deadline(&self) -> Option<u64> {
        self.sweep_retry_ns.into_iter().chain(self.drop_dead_ns).min()
    }

    /// Kills what the dead have left behind and remembers what is left of that. `false`: it could not be seen.
    fn sweep(&mut self) -> bool {
        let leaders = self.leaders();
        let result = tree::sweep_strays(&Sweep {
            is_leader: &|pid| leaders.contains(&pid),
            marks: self.template.marks,
            lives: &|mark| self.workers.get(&WorkerId(mark)).is_some_and(|worker| !worker.tree.is_reaped()),
            leads_unmarked: &|pid| self.workers.values().any(|worker| worker.leads(pid) && !worker.is_marked),
        });
        self.child_ended = false;
        let left = self.note_sweep(result);
        let is_seen = left.is_some();
        self.remaining_strays =
            left.unwrap_or(RemainingStrays { is_partial: true, ..RemainingStrays::default() });
        is_seen
    }
}

//! Reaps dead workers and proves that their process trees are dead.
//!
//! A death is proven when the leader is reaped, its process group is empty, and no stray that may descend from the
//! worker is alive. A stray bears the mark of its worker (`sys/mark.rs`); while a stray without a mark lives, no
//! death is proven. A stray that has become another user cannot be ended: it delays the proof only for a worker that had
//! claimed a task, which must not be repeated beside it, and is told to the core (`survivors.rs`). Nothing here waits:
//! SIGCHLD reports when to sweep again. A sweep reads /proc and needs descriptors for that; if it fails, it is retried
//! after [`SWEEP_RETRY_NS`], and no death is proven until then.
//!
//! The turn of a death does first what the retry needs: it reaps, sweeps, reads the box a last time and reports the
//! death, so that the core can send the next offer; then the log is written. The dead worker's pages, lane, channel
//! and boot folder are dropped [`KEEP_DEAD_NS`] later, or before the next spawn. From the kill to the answer of the
//! retried job took 1.3 ms when they were dropped first and 0.92 ms so, on a loaded machine, by turns. Driven by
//! `turn.rs`.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsRawFd;

use bulkhead_core::event::Event;
use bulkhead_proto::ids::WorkerId;
use bulkhead_sys::clock;
use bulkhead_sys::exit::ExitStatus;
use bulkhead_sys::tree::{self, EndedStray, RemainingStrays, Sweep};
use mio::unix::SourceFd;

use super::{WorkerTable, read_box};
use crate::output_store::OutputStore;
use crate::rate_limit::{self, LineAbout};
use crate::worker_process::WorkerProcess;

/// When to repeat a sweep that failed, because the kernel does not report when resources are free again.
const SWEEP_RETRY_NS: u64 = 100_000_000;
/// After so long the loop looks again whether a worker with too many files of clients has closed them.
const LOOK_AT_CLOSES_NS: u64 = 1_000_000_000;
/// How long a dead worker's resources are kept: until then the retry of its job has been sent. Removing a boot folder
/// takes as long as its disk needs.
const KEEP_DEAD_NS: u64 = 2_000_000;

impl WorkerTable {
    /// The pidfd of a worker reported its end.
    pub(crate) fn mark_dying(&mut self, worker: WorkerId) {
        if self.workers.contains_key(&worker) {
            self.dying.insert(worker);
        }
    }

    /// SIGCHLD: a child ended (a leader or a stray), was stopped or was continued.
    pub(crate) fn mark_child_changed(&mut self) {
        self.child_ended = true;
        self.may_have_stops = true;
    }

    /// Samples a worker, or the stray that delays the proof of its death.
    pub(crate) fn examine(&self, worker: WorkerId) -> Option<Event> {
        self.workers.get(&worker).map(|found| found.examine(self.remaining_strays.any_of(worker.0)))
    }

    /// Reaps dead leaders and sweeps strays. Reports each proven death with the worker's last results; for a worker
    /// whose leader is dead while others of its tree live, reports a hang-up.
    pub(crate) fn reap_dead(&mut self, outputs: &mut OutputStore, events: &mut Vec<Event>) {
        if self.sweep_retry_ns.is_some_and(|when| clock::monotonic_ns() < when) {
            return;
        }
        let mut reaped = Vec::new();
        for id in &self.dying {
            let Some(worker) = self.workers.get_mut(id) else { continue };
            let status = worker.advance();
            if worker.tree.is_reaped() {
                // What it has done decides whether a stray that cannot be ended delays the proof.
                read_box(worker, &mut self.found, outputs, events);
                reaped.push((*id, status));
            }
        }
        if reaped.is_empty() {
            return self.reap_orphans(events);
        }
        // A worker that waits only for a stray is looked at again at the next SIGCHLD.
        let is_news = |(id, status): &(WorkerId, Option<_>)| status.is_some() && !self.is_held_up(*id);
        if !self.child_ended && !reaped.iter().any(is_news) {
            return;
        }
        let swept = self.sweep(events);
        for (id, status) in reaped {
            match status.filter(|_| swept && !self.is_held_up(id)) {
                Some(status) => self.report_death(id, status, outputs, events),
                None => events.extend(self.workers.get_mut(&id).and_then(|worker| worker.hung_up().event())),
            }
        }
    }

    /// Whether a stray delays the proof of a worker's death.
    fn is_held_up(&self, id: WorkerId) -> bool {
        let may_be_repeated = self.workers.get(&id).is_some_and(WorkerProcess::may_be_repeated);
        self.remaining_strays.hold_up(id.0, may_be_repeated)
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
        self.ended_arenas.extend(worker.arena.take().map(|arena| arena.end()));
        self.dead.push(worker);
        self.drop_dead_ns.get_or_insert(now_ns + KEEP_DEAD_NS);
    }

    /// Drops dead workers when it is time: to unmap pages, shut down sockets and remove a folder takes as long as a
    /// retry, or as long as the disk needs.
    pub(crate) fn drop_dead_when_due(&mut self, now_ns: u64) {
        if self.drop_dead_ns.is_some_and(|when| when <= now_ns) {
            self.drop_dead();
        }
    }

    /// Drops all dead workers.
    pub(crate) fn drop_dead(&mut self) {
        self.drop_dead_ns = None;
        if !self.dead.is_empty() {
            self.template.clean_copies();
        }
        for worker in self.dead.drain(..) {
            for descriptor in worker.descriptors() {
                // Closing them would not: a process that the worker left may hold its doorbell, and ring.
                drop(self.registry.deregister(&mut SourceFd(&descriptor.as_raw_fd())));
            }
        }
    }

    /// The pids of all leaders that are not reaped. Computed once per sweep, since there may be many children to
    /// compare.
    fn leaders(&self) -> BTreeSet<u32> {
        self.workers.values().filter_map(WorkerProcess::leader).collect()
    }

    /// Reaps orphans that living workers left and that have ended. While a stray cannot be ended, all strays are looked at:
    /// that one may have ended, and its children are strays then.
    fn reap_orphans(&mut self, events: &mut Vec<Event>) {
        if self.child_ended && !self.told_survivors.is_empty() {
            self.sweep(events);
        } else if std::mem::take(&mut self.child_ended) {
            let leaders = self.leaders();
            let reaped = tree::reap_orphans(&|pid| leaders.contains(&pid));
            let _ = self.note_sweep(reaped);
        }
    }

    /// The result of a sweep; a failed one is scheduled again. Failure and recovery are logged once.
    fn note_sweep<T>(&mut self, result: io::Result<T>) -> Option<T> {
        match result {
            Ok(seen) => {
                if self.sweep_retry_ns.take().is_some() {
                    log::info!("sweeps for stray processes work again");
                }
                Some(seen)
            }
            Err(error) => {
                self.child_ended = true;
                if self.sweep_retry_ns.replace(clock::monotonic_ns() + SWEEP_RETRY_NS).is_none() {
                    log::error!(
                        "cannot sweep for stray processes, no death is proven until that works error={error}"
                    );
                }
                None
            }
        }
    }

    /// When [`Self::reap_dead`], [`Self::drop_dead_when_due`] or [`Self::read_boxes`] has work to do without a wake-up, in
    /// nanoseconds of the monotonic clock.
    pub(crate) fn deadline(&self) -> Option<u64> {
        let closes_ns = self.waits_for_closes.then(|| clock::monotonic_ns() + LOOK_AT_CLOSES_NS);
        [self.sweep_retry_ns, self.drop_dead_ns, closes_ns].into_iter().flatten().min()
    }

    /// Kills the strays of dead workers and remembers those that still live. Returns `false` if the sweep failed.
    pub(super) fn sweep(&mut self, events: &mut Vec<Event>) -> bool {
        let leaders = self.leaders();
        let workers = &self.workers;
        let sweep = Sweep {
            is_leader: &|pid| leaders.contains(&pid),
            marks: self.template.marks,
            lives: &|mark| workers.get(&WorkerId(mark)).is_some_and(|worker| !worker.tree.is_reaped()),
            leads_unmarked: &|pid| workers.values().any(|worker| worker.leads(pid) && !worker.is_marked),
        };
        let result = tree::sweep_strays(&sweep, &mut self.ended_strays);
        self.child_ended = false;
        let left = self.note_sweep(result);
        let is_seen = left.is_some();
        self.remaining_strays =
            left.unwrap_or(RemainingStrays { is_partial: true, ..RemainingStrays::default() });
        if is_seen {
            self.tell_survivors(events);
        }
        is_seen
    }

    /// Logs the strays that were ended since the last call.
    pub(crate) fn log_ended_strays(&mut self) {
        let (named, more) = self.ended_strays.take();
        if named.is_empty() && more == 0 {
            return;
        }
        let now_ns = clock::monotonic_ns();
        for EndedStray { pid, name, mark } in named {
            let worker = mark.map_or_else(|| "unknown".to_owned(), |mark| mark.to_string());
            if rate_limit::may_log(mark.map_or(LineAbout::Workers, LineAbout::Worker), now_ns) {
                log::info!("ended a process that a worker left pid={pid} name={name:?} worker={worker}");
            }
        }
        if more > 0 && rate_limit::may_log(LineAbout::Workers, now_ns) {
            log::info!("ended more processes that workers left count={more}");
        }
    }
}

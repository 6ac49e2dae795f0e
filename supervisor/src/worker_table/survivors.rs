//! Processes that dead workers left and that cannot be ended, because they run as other users; and the last processes of a
//! daemon that exits.
//!
//! Such a process is a child of the daemon, so its pid stays reserved until it is reaped, and SIGCHLD tells of its end. The
//! core is told when the list changes. At the daemon's end whatever is left is named in the log. Nothing here waits.

use bulkhead_core::event::{Event, LeftProcess};
use bulkhead_proto::ids::WorkerId;
use bulkhead_proto::limits::SURVIVORS_SHOWN;
use bulkhead_sys::process_identity::ProcessIdentity;
use bulkhead_sys::tree::RemainingStray;

use super::WorkerTable;
use crate::worker_process::{WorkerProcess, survivor};

impl WorkerTable {
    /// Tells the core which strays cannot be ended, if they have changed since the last sweep.
    pub(super) fn tell_survivors(&mut self, events: &mut Vec<Event>) {
        let refused: Vec<RemainingStray> =
            self.remaining_strays.refused().take(SURVIVORS_SHOWN).copied().collect();
        if refused.iter().map(|stray| stray.pid).eq(self.told_survivors.iter().copied()) {
            return;
        }
        self.told_survivors = refused.iter().map(|stray| stray.pid).collect();
        let left = |stray: &RemainingStray| LeftProcess {
            survivor: survivor(stray.pid, ProcessIdentity::of(stray.pid)),
            worker: stray.mark.map(WorkerId),
        };
        events.push(Event::LiveOn { left: refused.iter().map(left).collect() });
    }

    /// Kills all that is left of all workers, because the daemon exits. Returns whether some that were killed are not dead
    /// yet; SIGCHLD tells when to call this again.
    pub(crate) fn end_all(&mut self) -> bool {
        for worker in self.workers.values_mut() {
            drop(worker.tree.kill());
            worker.advance();
        }
        let swept = self.sweep(&mut Vec::new());
        let is_dying = |stray: &RemainingStray| !stray.is_refused;
        !swept
            || self.remaining_strays.is_partial
            || self.workers.values().any(|worker| worker.leader().is_some())
            || self.remaining_strays.all.iter().any(is_dying)
    }

    /// Names all processes that outlive the daemon.
    pub(crate) fn name_the_rest(&self) {
        for pid in self.workers.values().filter_map(WorkerProcess::leader) {
            name("a worker outlives the daemon, it was killed and is not dead yet", pid);
        }
        for stray in &self.remaining_strays.all {
            name(
                match stray.is_refused {
                    true => "a process outlives the daemon, it runs as another user",
                    false => "a process outlives the daemon, it was killed and is not dead yet",
                },
                stray.pid,
            );
        }
        if self.remaining_strays.is_partial {
            log::warn!("more processes may outlive the daemon");
        }
    }
}

fn name(what: &str, pid: u32) {
    let ProcessIdentity { uid, name, .. } = ProcessIdentity::of(pid);
    let uid = uid.map_or_else(|| "unknown".to_owned(), |uid| uid.to_string());
    log::warn!("{what} pid={pid} name={name:?} uid={uid}");
}

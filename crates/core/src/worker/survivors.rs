//! Workers that leave because of processes which they may not end, and the list of those processes.
//!
//! The list is the shell's word: it has the processes that are children of the daemon now. A process is new if its pid was
//! not in the list before; its pid cannot be reused while it is in the list.

use bulkhead_proto::client::view::SurvivorRow;
use bulkhead_proto::ids::{JobId, WorkerId};

use crate::event::LeftProcess;
use crate::turn::Turn;
use crate::worker::Workers;

impl<T: Copy> Workers<T> {
    /// A worker has reported processes of a job that it could not end. It is offered nothing more. If it does not leave
    /// in the time of one that was asked to, it is killed.
    pub(crate) fn leaves_processes(&mut self, turn: &mut Turn, id: WorkerId, job: JobId) {
        if let Some(worker) = self.table.get_mut(&id) {
            worker.stats.left_by = Some(job);
            let patience_ms = turn.config().retire_ms;
            self.hung_up_within(turn, id, patience_ms);
        }
    }

    /// These processes live now and cannot be ended. Gives those that are new, with the job that left each, if its worker
    /// is still in the table.
    pub(crate) fn live_on(&mut self, left: Vec<LeftProcess>) -> Vec<SurvivorRow> {
        let before = std::mem::take(&mut self.survivors);
        let is_old = |row: &SurvivorRow| before.iter().any(|old| old.survivor.pid == row.survivor.pid);
        let row = |left: LeftProcess| {
            let pid = left.survivor.pid;
            let old = before.iter().find(|old| old.survivor.pid == pid).cloned();
            old.unwrap_or_else(|| SurvivorRow {
                job: left.worker.and_then(|id| self.job_of_survivor(id)),
                worker: left.worker,
                survivor: left.survivor,
            })
        };
        let rows: Vec<SurvivorRow> = left.into_iter().map(row).collect();
        let new = rows.iter().filter(|row| !is_old(row)).cloned().collect();
        self.survivors = rows;
        new
    }

    /// The job whose task a worker ran last, or runs.
    fn job_of_survivor(&self, id: WorkerId) -> Option<JobId> {
        let worker = self.table.get(&id)?;
        worker.left_by().or_else(|| worker.ring.head().map(|offer| offer.shown()))
    }

    /// The processes that cannot be ended and that live.
    pub(crate) fn survivors(&self) -> &[SurvivorRow] {
        &self.survivors
    }
}

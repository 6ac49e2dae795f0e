//! Workers that leave because of processes which they may not end, and the list of those processes.
//!
//! The list is the shell's word: it has the processes that are children of the daemon now. A process is new if its pid was
//! not in the list before; its pid cannot be reused while it is in the list. Its owner is the user whose job left it. If the
//! worker did not say which job that was, it is the user of all tasks that the worker was offered: a process of an earlier task
//! may become the daemon's child while a task of another user runs.

use bulkhead_proto::client::view::SurvivorRow;
use bulkhead_proto::ids::{JobId, WorkerId};

use crate::event::LeftProcess;
use crate::turn::{Owner, Turn};
use crate::worker::Workers;

impl<T: Copy> Workers<T> {
    /// A worker has reported processes of a job that it could not end. It is offered nothing more. If it does not leave
    /// in the time of one that was asked to, it is killed.
    pub(crate) fn leaves_processes(&mut self, turn: &mut Turn, id: WorkerId, (job, uid): (JobId, u32)) {
        if let Some(worker) = self.table.get_mut(&id) {
            worker.stats.left_by = Some((job, uid));
            let patience_ms = turn.config().retire_ms;
            self.hung_up_within(turn, id, patience_ms);
        }
    }

    /// These processes live now and cannot be ended. Gives those that are new and their owners, with the job that left each,
    /// if its worker is still in the table.
    pub(crate) fn live_on(&mut self, left: Vec<LeftProcess>) -> Vec<(SurvivorRow, Owner)> {
        let before = std::mem::take(&mut self.survivors);
        let old = |pid: u32| before.iter().find(|(row, _)| row.survivor.pid == pid);
        let row = |left: LeftProcess| {
            old(left.survivor.pid).cloned().unwrap_or_else(|| {
                let (job, owner) = self.whose_survivor(left.worker);
                (SurvivorRow { job, worker: left.worker, survivor: left.survivor }, owner)
            })
        };
        let rows: Vec<(SurvivorRow, Owner)> = left.into_iter().map(row).collect();
        let new = rows.iter().filter(|(row, _)| old(row.survivor.pid).is_none()).cloned().collect();
        self.survivors = rows;
        new
    }

    /// The job whose task a worker ran last, or runs, and the owner of a process that it has left.
    fn whose_survivor(&self, worker: Option<WorkerId>) -> (Option<JobId>, Owner) {
        let Some(worker) = worker.and_then(|id| self.table.get(&id)) else {
            return (None, Owner::Administrators);
        };
        match worker.left_by() {
            Some((job, uid)) => (Some(job), Owner::User(uid)),
            None => (worker.ring.head().map(|offer| offer.shown()), worker.offered_for()),
        }
    }

    /// The processes that cannot be ended and that live, and their owners.
    pub(crate) fn survivors(&self) -> &[(SurvivorRow, Owner)] {
        &self.survivors
    }
}

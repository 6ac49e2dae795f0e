//! Processes that cannot be ended, because they run as other users: which job left them is remembered, and it is told.
//!
//! A worker names those of its task with its report, and then leaves: it could not prove any more that nothing of the task
//! runs. The job keeps them beside its outcome, and a failed attempt that left some is not repeated, since a part of it
//! still runs. Once such a process is the daemon's own child, the shell lists it until it has ended; `status` shows that
//! list.

use bulkhead_proto::client::outcome::Survivor;
use bulkhead_proto::client::record::What;
use bulkhead_proto::ids::WorkerId;

use crate::event::LeftProcess;
use crate::machine::settle::held_by;
use crate::machine::{Core, JobOffer};

impl Core {
    /// The report of a task names processes that its worker could not end. Nothing more is offered to the worker, which is
    /// about to leave.
    pub(super) fn task_left(&mut self, id: WorkerId, offer: &JobOffer, survivors: Vec<Survivor>) {
        self.jobs.keep_survivors(&held_by(id, offer), offer.shown(), survivors);
        self.workers.leaves_processes(&mut self.turn, id, (offer.shown(), offer.uid()));
    }

    /// The list of processes that cannot be ended has changed.
    pub(super) fn live_on(&mut self, left: Vec<LeftProcess>) {
        for (row, owner) in self.workers.live_on(left) {
            let what = What::LivesOn { survivor: row.survivor, worker: row.worker, job: row.job };
            self.turn.record(what, owner);
        }
    }
}

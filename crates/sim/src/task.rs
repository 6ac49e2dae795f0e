//! Names of tasks: a job's own (whole, plan and merge follow each other and never overlap), and its parts.
//!
//! Real orders pages do not tell the parts of a job apart. The simulation does, because two parts of one job may run at
//! once, and one part never twice.

use bulkhead_core::action::Task;
use bulkhead_proto::client::why::Part;
use bulkhead_proto::ids::JobId;
use bulkhead_proto::worker::stage::Stage;

/// One task of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskId {
    /// The job.
    pub job: JobId,
    /// The part, from 1; 0 for the job's own.
    pub part: u32,
}

impl TaskId {
    /// A job's own.
    pub fn own(job: JobId) -> Self {
        Self { job, part: 0 }
    }

    /// That of an offer.
    pub fn of(task: &Task) -> Self {
        let part = if let Stage::Run { part, .. } = task.stage { part + 1 } else { 0 };
        Self { job: task.job, part }
    }

    /// That of a record.
    pub fn named(job: JobId, part: Option<Part>) -> Self {
        Self { job, part: part.map_or(0, |part| part.number) }
    }
}

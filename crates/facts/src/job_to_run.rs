//! An unfinished job of an earlier run as the journal gives it to the core.
//!
//! A plain value: the journal reads it, the shell passes it on, the core queues it.

use bulkhead_proto::client::view::JobDeath;
use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::Payload;

use crate::durable_job::DurableJob;

/// An unfinished job of an earlier run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobToRun {
    /// Its number.
    pub job: JobId,
    /// Its counts. An attempt that was started and has no end is lost.
    pub counts: DurableJob,
    /// When it expires if it has no attempt until then, wall time in microseconds since 1970.
    pub expires_us: Option<u64>,
    /// Its input.
    pub input: Payload,
    /// The deaths of its attempts, oldest first.
    pub deaths: Vec<JobDeath>,
}

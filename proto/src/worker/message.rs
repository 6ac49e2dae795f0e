//! What supervisor and worker say to each other.
//!
//! The lane (a `SOCK_SEQPACKET` pair, the worker's stdin) carries [`LaneDown`] with descriptors, and up
//! nothing but bytes: [`LaneUp`]. Tasks go down the ipc channel as [`Tasks`]; results come up in the box.

use crate::codec::{Decode, Encode};
use crate::file::FileUse;
use crate::ids::{Fence, JobId, KindId, Seq, WorkerId};
use crate::job::{OutputMode, Payload};
use crate::worker::stage::Stage;

/// The exit code of a worker that leaves because a task of its panicked, once the task was reported as failed: what
/// it ran may have left its memory half changed. Of no meaning from a worker that reported no failure last.
pub const LEFT_AFTER_PANIC: u8 = 97;

/// Down the lane.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum LaneDown {
    /// The first frame; two descriptors come with it: the box, then the orders.
    Setup(Setup),
    /// The files of an offer, one descriptor for each role. Sent before the offer's task.
    Files {
        /// The offer.
        seq: Seq,
        /// What each is for.
        roles: Vec<FileRole>,
    },
}

/// What a descriptor is for that goes to a worker with an offer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum FileRole {
    /// An empty file of the supervisor's: where the output of this offer goes.
    Output,
    /// The one output of all tasks of a job, which writes it in place; the merge seals it.
    Shared,
    /// The plan of the job, see [`crate::worker::stage`]; sealed.
    Plan,
    /// What the parts of the job left, in the form of a plan; sealed.
    Results,
    /// Where what the task writes is kept for whoever looks, see [`crate::log`].
    Log,
    /// A client's file: nothing is known of it.
    Named(FileUse),
}

/// Who the worker is and what it must offer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Setup {
    /// Its number.
    pub worker: WorkerId,
    /// The daemon's table of kinds; a task names its kind by the place in it. Empty where workers of another pool run it.
    pub kinds: Vec<String>,
    /// Whether `chaos` may run.
    pub enable_chaos: bool,
}

/// Up the lane.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum LaneUp {
    /// Look into the box. Losing one loses nothing.
    Doorbell,
    /// The worker's ipc-channel server is at this path; said once.
    Hello {
        /// Path of the one-shot server's socket, inside the folder made for this worker.
        path: String,
        /// The kinds of the table that it cannot run.
        missing: Vec<KindId>,
    },
    /// The worker cannot come up and leaves; instead of a hello or after it, said once.
    NotUp {
        /// Why, in words; cut to [`crate::limits::TEXT_MAX_BYTES`].
        why: String,
    },
}

/// One message of the ipc channel: tasks in the order of their seq. The first one of a channel is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Tasks {
    /// The tasks.
    pub tasks: Vec<TaskMessage>,
}

/// One task, as its worker gets it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TaskMessage {
    /// The offer; its claim word stands in entry `seq mod ring`.
    pub seq: Seq,
    /// The job, for logs.
    pub job: JobId,
    /// Which offer of this task it is.
    pub fence: Fence,
    /// What to run.
    pub kind: KindId,
    /// Which task of the job it is.
    pub stage: Stage,
    /// Whether a [`LaneDown::Files`] belongs to it.
    pub has_files: bool,
    /// Memory that it may have beyond what the worker has, in bytes.
    pub memory_bytes: Option<u64>,
    /// Where the output goes.
    pub output: OutputMode,
    /// What to run it on.
    pub input: Payload,
}

//! The messages between supervisor and worker, on the lane and on the ipc channel.
//!
//! The lane is a `SOCK_SEQPACKET` socketpair whose one end is the worker's standard input. Down it the supervisor sends
//! [`LaneDown`] with descriptors; up it a worker sends [`LaneUp`] and must never pass a descriptor. Tasks go down the ipc
//! channel as [`Tasks`]; nothing is ever sent up that channel. Results are written into the box ([`super::boxes`]).

use crate::codec::{Decode, Encode};
use crate::file::FileUse;
use crate::ids::{Fence, JobId, KindId, RegistrationId, Seq, WorkerId};
use crate::job::{OutputMode, Payload};
use crate::limits::OUTPUT_MAX_BYTES;
use crate::registration::RegistrationKind;
use crate::worker::stage::Stage;

/// The exit code of a worker that leaves because a task panicked, after it has reported the task as failed: the panic
/// may have left the worker's memory half changed. From a worker whose last report was no failure, the code means nothing.
pub const LEFT_AFTER_PANIC: u8 = 97;
/// The exit code of a worker that leaves because its last task has left processes which it may not end. From a worker whose
/// last report named no such process, the code means nothing.
pub const LEFT_PROCESSES: u8 = 98;

/// The variable of a worker's environment with its boot folder. `TMPDIR` is that of the daemon, because code of a job uses it.
pub const BOOT_FOLDER_VARIABLE: &str = "BULKHEAD_BOOT_FOLDER";

/// A message from the supervisor to a worker, on the lane.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum LaneDown {
    /// The first frame. Three descriptors are attached: the box, the orders, and the eventfd that is the doorbell.
    Setup(Setup),
    /// The answer to a hello that asks for it. One descriptor is attached: the page for the text of its stack.
    StackPage,
    /// The files of an offer, one descriptor for each role. Sent before the offer's task.
    Files {
        /// The offer.
        seq: Seq,
        /// The role of each descriptor, in their order.
        roles: Vec<FileRole>,
    },
    /// What a client registered, one descriptor for each file. Sent before the first task that names it, and kept until
    /// [`LaneDown::Forget`]. One that the worker has already changes nothing.
    Registered {
        /// Which.
        registration: RegistrationId,
        /// What it is for.
        kind: RegistrationKind,
        /// The bytes of a context.
        bytes: Payload,
        /// Its files, which nothing has checked.
        files: Vec<FileUse>,
    },
    /// No task that this worker claims from now on names this.
    Forget {
        /// Which.
        registration: RegistrationId,
    },
    /// The worker's arena: it comes before the first offer of [`OutputMode::Arena`]. Two descriptors are attached: the arena,
    /// and the page of freed blocks ([`super::boxes::FREED_COUNT_AT`]).
    Arena,
    /// The answer to [`LaneUp::NeedOutput`]: the attached descriptor is the output of this offer, as [`FileRole::Output`].
    Output {
        /// The offer.
        seq: Seq,
        /// How long it may become, in bytes.
        room_bytes: u64,
    },
    /// The other answer: the offer gets no output.
    NoOutput {
        /// The offer.
        seq: Seq,
        /// Why, as a text for people; at most [`crate::limits::TEXT_MAX_BYTES`].
        why: String,
    },
}

/// The purpose of a descriptor that is sent with an offer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum FileRole {
    /// An empty file that the supervisor made, for the output of this offer.
    Output,
    /// The one output of all tasks of a job. Each part writes at its own offset; the merge task seals the file.
    Shared,
    /// The plan of the job, see [`crate::worker::stage`]; sealed.
    Plan,
    /// The results of the job's parts, in the form of a plan; sealed.
    Results,
    /// The file for the log of the attempt, see [`crate::log`].
    Log,
    /// A client's file, which nothing has checked.
    Named(FileUse),
}

/// The worker's number, and the kinds that it must offer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Setup {
    /// Its number.
    pub worker: WorkerId,
    /// The daemon's table of kinds; a [`KindId`] is a place in it. The name is empty if another pool runs the kind.
    pub kinds: Vec<String>,
    /// Whether `chaos` may run.
    pub enable_chaos: bool,
    /// Whether other processes of the worker's user may trace it and read its memory.
    pub may_be_traced: bool,
}

/// A message from a worker to the supervisor, on the lane.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum LaneUp {
    /// The worker's ipc-channel server waits at this path; sent once.
    Hello {
        /// Path of the one-shot server's socket, inside the folder made for this worker.
        path: String,
        /// The kinds of the table that it cannot run.
        missing: Vec<KindId>,
        /// Whether its own runtime writes its stack as text.
        stack_text: StackText,
    },
    /// The output of this offer has grown longer than [`crate::limits::INLINE_MAX_BYTES`]. The offer is of
    /// [`OutputMode::Auto`] or [`OutputMode::Arena`] and is claimed. It came without a file, or its output has outgrown the one that came, a
    /// reserve. Its worker waits for the answer; files of later offers may come before it.
    ///
    /// | state of the offer | worker | supervisor |
    /// |---|---|---|
    /// | claimed, nothing asked | may ask, or report an inline result | a descriptor in its result is a violation |
    /// | the same, with a reserve | the same, or seals the reserve and reports it | counts its room until the offer is settled |
    /// | asked | waits, reads its lane | answers in the same turn: `Output` or `NoOutput`; the reserve is gone |
    /// | given | writes and seals the file, reports it | counts the room until the offer is settled |
    /// | refused | the task fails with the cause | a descriptor in its result is a violation |
    ///
    /// To ask in any other state, for an offer of another mode, or for one that the worker has not claimed, is a violation.
    /// Nobody waits for room while it holds a worker: without room the answer is [`LaneDown::NoOutput`].
    NeedOutput {
        /// The offer.
        seq: Seq,
    },
    /// The worker could not start and exits; sent once, instead of a hello or after it.
    NotUp {
        /// Why, as a text for people; cut to [`crate::limits::TEXT_MAX_BYTES`].
        why: String,
    },
}

/// Whether a worker's own runtime writes its stack as text, in a page that the supervisor makes for it. The text is
/// testimony: it is shown to the user of the task, and believed about nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum StackText {
    /// It does not, and gets no page.
    #[default]
    Never,
    /// When it dies.
    AtDeath,
    /// Also when it gets [`crate::worker::boxes::STACK_SIGNAL`], which comes a moment before it is killed for a limit of time or
    /// a cancel.
    WhenAsked,
}

/// One message of the ipc channel: tasks in the order of their seq. The first message of a channel is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Tasks {
    /// The tasks.
    pub tasks: Vec<TaskMessage>,
}

/// One task, as the supervisor sends it to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TaskMessage {
    /// The number of the offer; its claim word is in entry `seq mod ring` of the box.
    pub seq: Seq,
    /// The job, for logs.
    pub job: JobId,
    /// The fence of this offer of the task.
    pub fence: Fence,
    /// The kind to run.
    pub kind: KindId,
    /// Which task of the job this is.
    pub stage: Stage,
    /// Whether the supervisor sent a [`LaneDown::Files`] for it.
    pub has_files: bool,
    /// Memory that the task may use beyond what the worker uses before it, in bytes.
    pub memory_bytes: Option<u64>,
    /// How long it may take to end by itself when the orders say so, in milliseconds.
    pub grace_ms: u32,
    /// Where the output goes.
    pub output: OutputMode,
    /// How long its files in memory may become.
    pub room: OutputRoom,
    /// What it uses that its client registered. In a box, because most tasks use nothing.
    pub uses: Option<Box<TaskUses>>,
    /// The input. With an arena it is the place of the input there.
    pub input: Payload,
}

/// What a task uses that its client registered. Its worker has it, or it is in the lane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct TaskUses {
    /// The arena that its input is in.
    pub arena: Option<RegistrationId>,
    /// Contexts and files, in the order of the submit.
    pub contexts: Vec<RegistrationId>,
}

/// How long the files in memory may become that a task writes, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OutputRoom {
    /// The output of the task alone.
    pub own_bytes: u64,
    /// The output that all tasks of its job share.
    pub shared_bytes: u64,
}

impl OutputRoom {
    /// Room for nothing.
    pub const NONE: Self = Self { own_bytes: 0, shared_bytes: 0 };
    /// Room for the largest outputs that there may be.
    pub const LARGEST: Self = Self { own_bytes: OUTPUT_MAX_BYTES, shared_bytes: OUTPUT_MAX_BYTES };
}

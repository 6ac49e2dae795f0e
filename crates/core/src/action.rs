//! The actions: all output of the core beside records. Nothing else is in this file.
//!
//! The shell performs actions in the order given, and never waits for one: events tell the result.

use std::rc::Rc;

use bulkhead_facts::fact::Fact;
use bulkhead_proto::client::message::Reply;
use bulkhead_proto::client::record::Record;
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::death::KillReason;
use bulkhead_proto::file::FileUse;
use bulkhead_proto::ids::{
    ClientId, Fence, FileId, JobId, KindId, LogId, OutputId, PoolId, RegistrationId, ScratchId, Seq, Tag,
    WorkerId,
};
use bulkhead_proto::job::{OutputMode, Payload};
use bulkhead_proto::registration::RegistrationKind;
use bulkhead_proto::worker::message::OutputRoom;
use bulkhead_proto::worker::stage::Stage;
use thin_vec::ThinVec;

/// What one turn decided.
#[derive(Debug, Default)]
pub struct Output {
    /// What happened, for people who watch and, later, for the journal.
    pub records: Vec<Record>,
    /// What the shell has to do. What must not be told before a fact is stored, the core holds back until it hears
    /// [`crate::event::Event::Stored`].
    pub actions: Vec<Action>,
    /// What the journal has to store, in this order. They are numbered without a gap over all turns, from 1.
    pub facts: Vec<Fact>,
}

/// One thing for the shell to do.
#[derive(Clone, Debug)]
pub enum Action {
    /// Send this to a client. If `output` is set, the reply has one entry with a descriptor: attach that one.
    Reply {
        /// Who.
        client: ClientId,
        /// The request it answers.
        tag: Tag,
        /// What.
        reply: Reply,
        /// The held output to attach.
        output: Option<OutputId>,
    },
    /// Say goodbye and end the connection. [`crate::event::Event::ClientGone`] does not follow.
    Close {
        /// Who.
        client: ClientId,
        /// Why.
        goodbye: Refusal,
    },
    /// Spawn a worker process and connect it: `WorkerSpawned` and `WorkerReady`, or `SpawnFailed` or
    /// `BootstrapFailed`, follow.
    Spawn {
        /// Who it will be.
        worker: WorkerId,
        /// Where it will work.
        pool: PoolId,
    },
    /// Offer a task: orders, claim word, descriptor, message, in this order. `OfferFailed` may follow.
    Offer {
        /// To whom.
        worker: WorkerId,
        /// Which offer.
        seq: Seq,
        /// The task.
        task: Task,
    },
    /// Make the output that a task has asked for, and send it: it counts until the offer is settled. `OutputShort` may follow.
    GiveOutput {
        /// To whom.
        worker: WorkerId,
        /// For which offer, which the worker has claimed.
        seq: Seq,
        /// How long it may become, in bytes.
        room_bytes: u64,
    },
    /// Tell a task that asked for an output that it gets none.
    RefuseOutput {
        /// Whom.
        worker: WorkerId,
        /// Which offer.
        seq: Seq,
        /// Why, as a text for people.
        why: String,
    },
    /// Take an offer back if the worker has not claimed it: `TookBack` follows, also beside a `Violated`, unless the worker is
    /// gone.
    TakeBack {
        /// From whom.
        worker: WorkerId,
        /// Which offer.
        seq: Seq,
    },
    /// Tell a worker that the job of this offer, which it has begun, has ended: it may end the task early.
    Unwant {
        /// Who.
        worker: WorkerId,
        /// Which offer.
        seq: Seq,
    },
    /// Tell a worker whose hello said that it can to write the stack of this offer, which it has begun: it is killed soon after.
    AskStack {
        /// Who.
        worker: WorkerId,
        /// Which offer.
        seq: Seq,
        /// Why it is killed.
        why: KillReason,
    },
    /// Read a worker's box: `Finished` follows for each entry that is done, then `Looked`.
    Look {
        /// Who.
        worker: WorkerId,
    },
    /// Read `/proc` of a worker, and its progress: `Examined` follows.
    Examine {
        /// Who.
        worker: WorkerId,
    },
    /// The core has dealt with this offer: its entry may be used again.
    Settle {
        /// Who.
        worker: WorkerId,
        /// Which offer.
        seq: Seq,
    },
    /// Kill a worker and its tree: `Died` follows when the death is proven. A worker that died by itself before the kill
    /// reached it keeps its own death.
    Kill {
        /// Who.
        worker: WorkerId,
        /// Why; else the death is [`bulkhead_proto::death::Death::Killed`] for this reason.
        why: KillReason,
    },
    /// Ask an idle worker to leave: its channel is closed; `Died` follows when the death is proven.
    Retire {
        /// Who.
        worker: WorkerId,
    },
    /// Send this to a client and attach the log for reading only. If the log could not be made, set `is_there` to false.
    ShowLog {
        /// Who.
        client: ClientId,
        /// The request it answers.
        tag: Tag,
        /// What: [`Reply::Logs`].
        reply: Reply,
        /// The log.
        log: LogId,
    },
    /// A log is no longer wanted: [`crate::event::Event::LogFreed`] follows when no unread reply holds it.
    DropLog {
        /// Which.
        log: LogId,
    },
    /// A held output is no longer wanted: [`crate::event::Event::OutputFreed`] follows when no unread reply holds it.
    DropOutput {
        /// Which.
        output: OutputId,
    },
    /// No offer of a worker names this registration, and none will before it is sent again: the worker forgets it, if it was sent.
    Forget {
        /// Who.
        worker: WorkerId,
        /// Which.
        registration: RegistrationId,
    },
    /// A client's file is no longer wanted: its last close may block, so it is not done by the loop.
    DropFile {
        /// Which.
        file: FileId,
    },
    /// The shared output of a job is no longer wanted.
    DropScratch {
        /// Which.
        scratch: ScratchId,
    },
    /// The first worker is ready, or all pools are degraded: programs that wait for the start of the daemon may go on.
    Ready {
        /// The status, in one line.
        status: String,
    },
    /// Have the journal reserve numbers of jobs up to this one: [`crate::event::Event::JobsReserved`] follows.
    ReserveJobs {
        /// The first number that is not needed.
        end: JobId,
    },
    /// Every job has ended and no worker lives but stuck ones, which are left behind killed: flush the clients and exit.
    Exit,
}

/// A task as it is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// The job.
    pub job: JobId,
    /// Which offer of it this is; also its attempt's number.
    pub fence: Fence,
    /// What to run.
    pub kind: KindId,
    /// Memory that it may have beyond what the worker has, in bytes.
    pub memory_bytes: Option<u64>,
    /// How long it may take to end by itself when it is told to, in milliseconds.
    pub grace_ms: u32,
    /// Where the output goes.
    pub output: OutputMode,
    /// How long its files in memory may become. `None`: it writes none. In a box, because most tasks write none, and an
    /// action is moved several times.
    pub room: Option<Box<OutputRoom>>,
    /// Which task of the job it is.
    pub stage: Stage,
    /// Files that go with it, beside an output of its own, which [`OutputMode::Descriptor`] asks for. With
    /// [`OutputMode::Auto`] the task may ask for one while it runs, and one goes with it if it has room for that ([`Self::has_reserve`]).
    pub files: ThinVec<TaskFile>,
    /// Its input.
    pub input: Payload,
}

impl Task {
    /// How long its files in memory may become.
    pub fn room(&self) -> OutputRoom {
        self.room.as_deref().copied().unwrap_or(OutputRoom::NONE)
    }

    /// Whether an output of its own goes with it, though it may ask for one: a reserve.
    pub fn has_reserve(&self) -> bool {
        let may_ask = matches!(self.output, OutputMode::Auto | OutputMode::Arena);
        may_ask && self.stage == Stage::Whole && self.room().own_bytes > 0
    }
}

/// A file that goes with a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskFile {
    /// A client's.
    Client {
        /// Which.
        file: FileId,
        /// What for.
        name: FileUse,
    },
    /// What the client registered: sent once to each worker, which keeps it until [`Action::Forget`].
    Registered {
        /// Which.
        registration: RegistrationId,
        /// What it is.
        content: Rc<RegisteredContent>,
    },
    /// The output that all tasks of the job share: made when it is first mentioned. When the merge ends with it, it
    /// becomes a held output and is no scratch any more.
    Shared {
        /// Which.
        scratch: ScratchId,
    },
    /// The log of the attempt, which the task writes while it runs; made for this offer.
    Log {
        /// Which.
        log: LogId,
    },
    /// The job's plan.
    Plan {
        /// The held output of its plan task.
        output: OutputId,
    },
    /// The results of its parts, in their order: written into a file for this offer.
    Results {
        /// One for each part.
        results: Rc<Vec<Payload>>,
    },
}

/// What a client registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredContent {
    /// What it is for.
    pub kind: RegistrationKind,
    /// The bytes of a context.
    pub bytes: Payload,
    /// Its files. The shell holds them until [`Action::DropFile`].
    pub files: Vec<(FileId, FileUse)>,
}

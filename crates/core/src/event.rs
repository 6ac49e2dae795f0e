//! The events: all input of the core. Nothing else is in this file.
//!
//! The shell (the supervisor's loop, or the simulation) makes an event from what it saw, and decides nothing. A batch of
//! events is one turn of `Core::step`.

use std::rc::Rc;

use bulkhead_facts::durable_job::DurableJob;
use bulkhead_facts::fact::{AcceptedJobs, DurableEnd, EndedAttempt, FactNo};
use bulkhead_facts::job_to_run::JobToRun;
use bulkhead_proto::client::evidence::{Evidence, ProcessSeen, TaskProgress};
use bulkhead_proto::client::message::Request;
use bulkhead_proto::client::outcome::Survivor;
use bulkhead_proto::death::{Death, ProgramEnd, Violation};
use bulkhead_proto::ids::{ClientId, FileId, JobId, LogId, OutputId, Seq, Tag, WorkerId};
use bulkhead_proto::job::Payload;

use crate::action::LookUpNo;

/// The two clocks. The shell reads them once for each turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// CLOCK_MONOTONIC, in nanoseconds: limits, backoff, deadlines.
    pub mono_ns: u64,
    /// Wall time, in microseconds since 1970: for people.
    pub wall_us: u64,
}

/// The user of a client, from the kernel (SO_PEERCRED, SO_PEERGROUPS).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The user.
    pub uid: u32,
    /// Whether it may see and end the jobs of all users: root, the daemon's own user in user mode, or a member of
    /// the group of administrators.
    pub admin: bool,
}

/// A descriptor that came with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The shell's number for it, never used before.
    pub file: FileId,
    /// Bytes of memory that it pins as long as it is held: the size of a file that lives in memory, 0 of any other.
    pub pinned_bytes: u64,
}

/// One thing that the shell saw.
#[derive(Clone, Debug)]
pub enum Event {
    /// A client connected and its hello was good.
    ClientConnected {
        /// Its number, never used before.
        client: ClientId,
        /// Who it is.
        peer: Peer,
    },
    /// A client sent a request.
    ClientSaid {
        /// Who.
        client: ClientId,
        /// Its number for the request.
        tag: Tag,
        /// What.
        request: Request,
        /// The descriptors that came with it, as many as the request names, in their order. The shell holds them until
        /// [`crate::action::Action::DropFile`].
        files: Vec<Attached>,
    },
    /// All replies to this client have left: it has its whole credit again. Unless `Core::awaits_flush` says that something may
    /// wait for it, the shell adds it to the next batch and makes no turn for it.
    ClientFlushed {
        /// Who.
        client: ClientId,
    },
    /// A client's connection is over.
    ClientGone {
        /// Who.
        client: ClientId,
    },

    /// The process of a worker that was to be spawned exists.
    WorkerSpawned {
        /// Who.
        worker: WorkerId,
        /// Its process.
        pid: u32,
    },
    /// No process could be spawned: there is nothing to kill, and no `Died` follows.
    SpawnFailed {
        /// Who.
        worker: WorkerId,
        /// Why.
        error: String,
    },
    /// A worker has sent its hello and is connected: it may be offered tasks.
    WorkerReady {
        /// Who.
        worker: WorkerId,
        /// Whether it writes its stack when it is asked.
        writes_stack: bool,
    },
    /// A worker did not get through its bootstrap. Its process may live: it has to be killed.
    BootstrapFailed {
        /// Who.
        worker: WorkerId,
        /// Why.
        error: String,
    },
    /// An offer could not be sent: the channel is full or closed, or no output descriptor could be made. The
    /// shell tried to take it back.
    OfferFailed {
        /// Who.
        worker: WorkerId,
        /// Which offer.
        seq: Seq,
        /// Whether it was taken back. If not, the worker has claimed it although the message was not sent.
        taken: bool,
        /// What the supervisor lacks to send it (descriptors, memory), or `None` if the worker's channel is full or closed.
        shortage: Option<String>,
    },
    /// A task asks for an output, because what it wrote does not fit inline. The shell checked that this worker has claimed
    /// the offer; whether it may ask, the core knows.
    OutputNeeded {
        /// Who.
        worker: WorkerId,
        /// Which offer.
        seq: Seq,
    },
    /// [`crate::action::Action::GiveOutput`] failed: the task waits for another answer.
    OutputShort {
        /// Who.
        worker: WorkerId,
        /// Which offer.
        seq: Seq,
        /// What the supervisor lacks (descriptors, memory).
        shortage: String,
    },
    /// The answer to [`crate::action::Action::TakeBack`].
    TookBack {
        /// Who.
        worker: WorkerId,
        /// Which offer.
        seq: Seq,
        /// Whether it was taken back. If not, the worker has claimed or done it, or broke a rule so that it may have.
        won: bool,
    },
    /// The answer to [`crate::action::Action::Look`].
    Looked {
        /// Who.
        worker: WorkerId,
        /// The first entry that is neither settled nor taken nor done, if any.
        head: Option<Head>,
    },
    /// The answer to [`crate::action::Action::Examine`].
    Examined {
        /// Who.
        worker: WorkerId,
        /// What `/proc` shows of it; `None`: it is gone.
        seen: Option<ProcessSeen>,
        /// When its task last reported progress, CLOCK_MONOTONIC nanoseconds: the worker's word, but never later than now.
        /// `None`: it never did.
        progress_ns: Option<u64>,
        /// The progress that its task reports, if it has claimed the first of its offers that are not done. The worker's
        /// word, too.
        progress: Option<TaskProgress>,
    },
    /// A signal stopped a worker.
    Suspended {
        /// Who.
        worker: WorkerId,
        /// Which signal.
        signal: i32,
    },
    /// A stopped worker was continued.
    Resumed {
        /// Who.
        worker: WorkerId,
    },
    /// A signal stopped the program of the first task in a worker's ring, perhaps again. The worker's word; the shell checked
    /// its form.
    ProgramStopped {
        /// Who.
        worker: WorkerId,
        /// Which offer. The worker has claimed it.
        seq: Seq,
        /// The program's process id.
        pid: u32,
        /// Which signal.
        signal: i32,
    },
    /// A stopped program was continued. The worker's word, too. A task that ends takes its stop along without this event.
    ProgramContinued {
        /// Who.
        worker: WorkerId,
        /// Which offer.
        seq: Seq,
    },
    /// A worker has files of clients to close, more than [`UNCLOSED_MAX`](bulkhead_proto::limits::UNCLOSED_MAX) of them, or no longer.
    /// Its word.
    Unclosed {
        /// Who.
        worker: WorkerId,
        /// How many.
        files: u64,
    },
    /// An entry is DONE. The shell copied it once and checked its form.
    Finished {
        /// Who.
        worker: WorkerId,
        /// Which offer.
        seq: Seq,
        /// The worker's report.
        report: Report,
    },
    /// The processes that dead workers left and that cannot be ended have changed: these live now. Those that live on after
    /// a worker are told before its [`Event::Died`].
    LiveOn {
        /// All of them, up to [`bulkhead_proto::limits::SURVIVORS_SHOWN`].
        left: Vec<LeftProcess>,
    },
    /// A worker broke a rule of the protocol.
    Violated {
        /// Who.
        worker: WorkerId,
        /// Which rule.
        violation: Violation,
    },
    /// A hint of death: the lane hung up, or the process ended while others of its tree live on.
    HungUp {
        /// Who.
        worker: WorkerId,
    },
    /// Proof of death: the process is reaped, its group is empty, no stray child is left.
    Died {
        /// Who.
        worker: WorkerId,
        /// How its process ended.
        end: ProcessEnd,
        /// What else was found out about it.
        evidence: Evidence,
        /// From the death to this event in microseconds, if the worker wrote down the moment of its death.
        noticed_after_us: Option<u64>,
        /// The entries of its box that were neither settled nor reported, in the order of seq. DONE entries come as
        /// [`Event::Finished`] before this event.
        remains: Vec<Remains>,
    },

    /// The shell has closed an output that it was told to drop, but a client has not read it: its memory counts still.
    OutputClosed {
        /// Which.
        output: OutputId,
    },
    /// The same of a log.
    LogClosed {
        /// Which.
        log: LogId,
    },
    /// An output that the shell was told to drop is closed: neither the shell nor an unread reply holds it any more.
    OutputFreed {
        /// Which.
        output: OutputId,
    },
    /// The same of a log.
    LogFreed {
        /// Which.
        log: LogId,
    },

    /// All facts up to this one are stored, or had an event of their own.
    Stored {
        /// The last of them.
        up_to: FactNo,
    },
    /// The submits among these facts are not stored, and never will be. All other facts are stored later.
    NotStored {
        /// The first fact.
        from: FactNo,
        /// The last one.
        to: FactNo,
        /// Why, as a text for people.
        why: String,
    },
    /// A submit is not stored, because its key names one that is.
    KeyKnown {
        /// The fact of the submit.
        fact: FactNo,
        /// The first job of the submit that has the key.
        first: JobId,
        /// How many jobs that submit had.
        count: u32,
        /// Whether that submit asked for the same.
        is_same: bool,
    },
    /// Nothing can be stored for now, for this reason.
    JournalFailed {
        /// Why, as a text for people.
        why: String,
    },
    /// New facts are stored again.
    JournalRecovered,
    /// The journal has removed these ended jobs.
    JournalEvicted {
        /// Which.
        jobs: Vec<JobId>,
    },
    /// Jobs of earlier runs that have not ended.
    Reloaded {
        /// Some of them, after those of the event before.
        jobs: Vec<ReloadedJobs>,
        /// Whether there are no more.
        is_all: bool,
    },
    /// Numbers of jobs below this one may be given out.
    JobsReserved {
        /// The first number that may not.
        end: JobId,
    },

    /// The answer to [`crate::action::Action::LookUp`].
    LookedUp {
        /// Which.
        number: LookUpNo,
        /// For whom.
        client: ClientId,
        /// What there is of each job, in the order of the question; or why nothing could be read, as a text for people.
        found: Result<Vec<LookUpAnswer>, String>,
    },

    /// Take no new jobs, end what was accepted, then stop (the first SIGTERM).
    Drain {
        /// How long that may take, in milliseconds.
        grace_ms: Option<u64>,
    },
    /// Stop at once (a second SIGTERM, or SIGINT).
    Stop,
}

/// Unfinished jobs of one submit of an earlier run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadedJobs {
    /// What they share, as it was accepted; without inputs.
    pub submit: Rc<AcceptedJobs>,
    /// The jobs.
    pub jobs: Vec<JobToRun>,
}

/// What the journal has of one number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookUpAnswer {
    /// The job; `None`: there is none. An error: its rows cannot be read, for this reason, a text for people.
    pub found: Result<Option<Box<JournalJob>>, String>,
    /// When the run of the daemon that may have given out the number ended, or was last heard of if it did not end by itself; wall
    /// time in microseconds since 1970.
    pub run_until_us: Option<u64>,
}

/// A job as the journal has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalJob {
    /// Its number.
    pub job: JobId,
    /// What it shares with the jobs of its submit, as it was accepted; without inputs.
    pub submit: AcceptedJobs,
    /// Its counts.
    pub counts: DurableJob,
    /// When it expires if it has no attempt until then, wall time in microseconds since 1970.
    pub expires_us: Option<u64>,
    /// Its input, unless it is done.
    pub input: Option<Payload>,
    /// Its end, if it has ended.
    pub end: Option<DurableEnd>,
    /// Its attempts that ended without it, oldest first.
    pub attempts: Vec<EndedAttempt>,
}

/// How the process of a worker ended, as the shell can tell. Why the core had it killed, and whether it left because it was
/// asked to, the core knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessEnd {
    /// By itself or by a stranger's hand: as the wait status and what the worker left in its box say. Never
    /// [`Death::Killed`], [`Death::Retired`] or [`Death::OfProgram`].
    Itself(Death),
    /// By the shell's kill, which [`Action::Kill`](crate::action::Action::Kill) asked for.
    ByUs,
}

/// The first unfinished entry of a worker's ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Which offer.
    pub seq: Seq,
    /// Whether the worker has claimed it.
    pub claimed: bool,
}

/// An offer that a dead worker left unfinished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remains {
    /// Which offer.
    pub seq: Seq,
    /// Whether it was CLAIMED. Else it was OFFERED, and the shell took it back.
    pub claimed: bool,
}

/// A worker's report of a task that it ended. It is the worker's word: believed only about that offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How it ended.
    pub result: TaskResult,
    /// How long it took, in nanoseconds.
    pub elapsed_ns: u64,
    /// What the output in [`TaskResult::Held`], [`TaskResult::Planned`] or [`Leftover::Held`] counts, in bytes: its size or
    /// its memory, whichever is more, once it is sealed. 0 if there is none.
    pub output_bytes: u64,
    /// Processes of the task that the worker could not end, as the kernel shows them. The worker leaves if there are some.
    pub survivors: Vec<Survivor>,
}

/// A process that a worker left and that cannot be ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftProcess {
    /// The process.
    pub survivor: Survivor,
    /// The worker that it descends from, if its mark shows that.
    pub worker: Option<WorkerId>,
}

/// What a failed task had written into an output of its own; never the output that the tasks of a job share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// Nothing, or nothing that is kept.
    Nothing,
    /// These bytes.
    Inline(Payload),
    /// A descriptor that is sealed and that the shell holds.
    Held {
        /// The shell's number for it.
        output: OutputId,
        /// Its size in bytes.
        bytes: u64,
    },
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskResult {
    /// Done, with an inline result.
    Inline(Payload),
    /// Done, with its output in a descriptor that is sealed and that the shell holds.
    Held {
        /// The shell's number for it.
        output: OutputId,
        /// Its size in bytes.
        bytes: u64,
    },
    /// Done, with its output in a block of its worker's arena, which the shell holds until the core drops it and no client reads
    /// it any more.
    InArena {
        /// The shell's number for it, of the same row as those of descriptors.
        output: OutputId,
        /// Its size in bytes.
        bytes: u64,
    },
    /// A plan task is done; its plan is held as above.
    Planned {
        /// The shell's number for it.
        output: OutputId,
        /// Its size in bytes.
        bytes: u64,
        /// How many parts it has.
        parts: u32,
    },
    /// It failed by its own code.
    Failed {
        /// What it had written, as far as it is kept.
        output: Leftover,
        /// Its message.
        message: String,
        /// How the program ended, if the task was one.
        program: Option<ProgramEnd>,
    },
}

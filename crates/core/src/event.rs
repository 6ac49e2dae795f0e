//! Everything that the core can be told. Nothing else is in this file.
//!
//! The shell (the supervisor's loop, or the simulation) makes these from what it saw; it draws no conclusion of
//! its own. A batch of them is one turn.

use bulkhead_proto::client::evidence::{Evidence, Progress, Seen};
use bulkhead_proto::client::message::Request;
use bulkhead_proto::death::{Death, Lie};
use bulkhead_proto::ids::{ClientId, FileId, OutputId, Seq, Tag, WorkerId};
use bulkhead_proto::job::Payload;

/// The two clocks, read once for each turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// CLOCK_MONOTONIC, in nanoseconds: limits, backoff, deadlines.
    pub mono_ns: u64,
    /// Wall time, in microseconds since 1970: what people read.
    pub wall_us: u64,
}

/// Who a client is, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The user.
    pub uid: u32,
    /// Whether it may see and end everybody's jobs: root, the daemon's own user in user mode, or a member of
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
    /// A client asked something.
    ClientSaid {
        /// Who.
        client: ClientId,
        /// Its number for the request.
        tag: Tag,
        /// What.
        request: Request,
        /// The descriptors that came with it, as many as it speaks of, in their order: the shell holds them until
        /// [`crate::action::Action::DropFile`].
        files: Vec<Attached>,
    },
    /// All that was to be sent to this client has left: its credit is whole again.
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
    /// No process could be spawned: there is nothing to kill and nobody will die.
    SpawnFailed {
        /// Who.
        worker: WorkerId,
        /// Why.
        error: String,
    },
    /// A worker said hello and is connected: it may be offered tasks.
    WorkerReady {
        /// Who.
        worker: WorkerId,
    },
    /// A worker did not get through its bootstrap. Its process may live: it has to be killed.
    BootstrapFailed {
        /// Who.
        worker: WorkerId,
        /// Why.
        error: String,
    },
    /// An offer could not be sent: the channel is full or closed, or no output descriptor could be made. The
    /// shell tried to take it back (rule 3).
    OfferFailed {
        /// Who.
        worker: WorkerId,
        /// Which offer.
        seq: Seq,
        /// Whether it was won back. If not, the worker has claimed it all the same.
        taken: bool,
        /// Why it could not be sent: what is missing on the supervisor's side (descriptors, memory), or `None`
        /// when the worker's channel is full or closed.
        shortage: Option<String>,
    },
    /// The answer to [`crate::action::Action::TakeBack`].
    TookBack {
        /// Who.
        worker: WorkerId,
        /// Which offer.
        seq: Seq,
        /// Whether it was won back. If not, the worker has claimed or done it.
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
        /// What the kernel shows of it; `None`: it is gone.
        seen: Option<Seen>,
        /// When its task last said that it made progress, CLOCK_MONOTONIC nanoseconds: the worker's word, but never
        /// later than now. `None`: it never did.
        progress_ns: Option<u64>,
        /// How far its task says it is, if it has claimed the first of its offers that are not done. Its word, too.
        progress: Option<Progress>,
    },
    /// A signal stopped a worker.
    Suspended {
        /// Who.
        worker: WorkerId,
        /// Which signal.
        signal: i32,
    },
    /// A stopped worker goes on.
    Resumed {
        /// Who.
        worker: WorkerId,
    },
    /// An entry is DONE; it was copied once and checked for form.
    Finished {
        /// Who.
        worker: WorkerId,
        /// Which offer.
        seq: Seq,
        /// What the worker says of it.
        report: Report,
    },
    /// A worker broke a rule (rule 6).
    Lied {
        /// Who.
        worker: WorkerId,
        /// Which rule.
        lie: Lie,
    },
    /// A hint of death: the lane hung up, or the process ended while others of its tree live on (rule 7).
    HungUp {
        /// Who.
        worker: WorkerId,
    },
    /// Proof of death: the process is reaped, its group is empty, no stray child is left (rule 8).
    Died {
        /// Who.
        worker: WorkerId,
        /// How, as the wait status says.
        death: Death,
        /// What else is known of it.
        evidence: Evidence,
        /// From the death to its notice in microseconds, where the worker left the moment of its death.
        noticed_after_us: Option<u64>,
        /// What its box says of each offer that was not yet settled or reported, in the order of seq. DONE
        /// entries come as [`Event::Finished`] before this event.
        remains: Vec<Remains>,
    },

    /// Take no new jobs, end what was accepted, then stop (the first SIGTERM).
    Drain {
        /// How long that may take, in milliseconds.
        grace_ms: Option<u64>,
    },
    /// Stop at once (a second SIGTERM, or SIGINT).
    Stop,
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

/// What a worker says of a task it ended. Its word: believed only about what that worker was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How it ended.
    pub result: TaskResult,
    /// How long it took, in nanoseconds.
    pub elapsed_ns: u64,
}

/// What a task that failed had written into an output of its own; never the one that the tasks of a job share.
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
    /// A plan task is done; its plan is held as above.
    Planned {
        /// The shell's number for it.
        output: OutputId,
        /// Its size in bytes.
        bytes: u64,
        /// How many parts it has.
        parts: u32,
    },
    /// Its own code said no.
    Failed {
        /// What it had written, as far as it is kept.
        output: Leftover,
        /// What it said.
        message: String,
        /// The exit code of the program that it was.
        code: Option<u8>,
    },
}

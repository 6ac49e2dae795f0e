//! The requests of clients and the replies of the daemon, after the [`crate::client::frame::Hello`] of both.
//!
//! The client library sends [`RequestFrame`]s, the core answers with [`ReplyFrame`]s. Requests may be pipelined: each has
//! a [`Tag`] that the client chooses, and every reply to it has the same tag. Replies to one request come in order, those
//! to different requests in any order. A request that cannot be decoded is never answered: the supervisor sends
//! [`Reply::Goodbye`] and closes the connection.
//!
//! Results that are held until the client has them: see [`Request::Received`].

use crate::client::outcome::JobEnded;
use crate::client::record::Record;
use crate::client::refusal::{Refusal, RefusedJobs, UnknownJobs};
use crate::client::view::{DeathRow, JobDetail, JobRow, Status, WorkerRow};
use crate::client::why::Why;
use crate::codec::{Decode, Encode};
use crate::file::FileUse;
use crate::ids::{JobId, Tag};
use crate::job::{JobState, Payload, Policy};
use crate::kind::Kind;
use crate::registration::RegistrationKind;

/// A frame from a client.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RequestFrame {
    /// The client's number for it.
    pub tag: Tag,
    /// The request.
    pub request: Request,
}

/// A frame to a client.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ReplyFrame {
    /// The request it answers; 0 for [`Reply::Goodbye`], [`Reply::Notice`], [`Reply::Freed`] and
    /// [`Reply::ArenaGone`].
    pub tag: Tag,
    /// The reply.
    pub reply: Reply,
}

/// A request. It has at most [`crate::limits::BATCH_MAX`] inputs or ids.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Request {
    /// Run these jobs. Replies: [`Reply::Accepted`]; then, if attached, [`Reply::Ended`] or, if held,
    /// [`Reply::Held`] until each job has ended.
    Submit(Submit),
    /// Wait for the ends of these jobs. For each there is an entry of a [`Reply::Ended`], in the order in which the jobs
    /// end, or of a [`Reply::Unknown`] if there is no such job: one reply, the first, has all of which that is known at
    /// once. [`Reply::Refused`] if the request as a whole was refused.
    ///
    /// A connection waits for a job once: a job that the request names twice has one entry, and one for which an earlier
    /// request of this connection still waits has its entry in answer to this request, and none in answer to that one. A job that
    /// only the journal has is answered to each request that names it, in a later reply, as is a number that neither has.
    Wait {
        /// The jobs.
        jobs: Vec<JobId>,
    },
    /// The result of an ended job. Reply: [`Reply::Ended`] with one entry, or [`Reply::Refused`].
    Result {
        /// The job.
        job: JobId,
    },
    /// The log of a job's latest attempt, see [`crate::log`]. Reply: [`Reply::Logs`] or [`Reply::Refused`].
    Logs {
        /// The job.
        job: JobId,
        /// Whether to send a further [`Reply::Logs`] when a new attempt begins. The job may then be one that has not begun.
        follow: bool,
    },
    /// End these jobs without a result. Reply: [`Reply::Changed`].
    Cancel {
        /// The jobs.
        jobs: Vec<JobId>,
    },
    /// End those of these jobs that no worker runs; what runs goes on. Reply: [`Reply::CancelledWaiting`], one, after every
    /// job was decided.
    ///
    /// | a job that | |
    /// |---|---|
    /// | waits: in the queue, for its backoff, or to run alone | ends at once |
    /// | is offered to a worker | ends if the daemon takes the offer back before the worker begins it |
    /// | has begun: a worker runs it, or its plan is done | goes on |
    CancelWaiting {
        /// The jobs. One that is named twice is answered once.
        jobs: Vec<JobId>,
    },
    /// Run quarantined, failed, timed-out, cancelled, expired or lost jobs again, with their full budgets of crashes and
    /// retries. Reply: [`Reply::Changed`].
    Retry {
        /// The jobs.
        jobs: Vec<JobId>,
    },
    /// Drop ended jobs with their results and evidence. Reply: [`Reply::Changed`].
    Forget {
        /// The jobs.
        jobs: Vec<JobId>,
    },
    /// List the jobs that the client may see, in rising or falling order of their ids. Reply: [`Reply::Jobs`].
    Jobs {
        /// Only jobs in this state.
        state: Option<JobState>,
        /// Where to begin, and in which direction to go on.
        walk: Walk,
        /// At most this many; never more than [`crate::limits::ROWS_MAX`].
        limit: u32,
    },
    /// Everything that the daemon shows of one job. Reply: [`Reply::Job`], or [`Reply::Refused`].
    Job {
        /// The job.
        job: JobId,
    },
    /// Why a job waits, is tried again, or ended the way it did. Reply: [`Reply::Why`], or [`Reply::Refused`] with
    /// [`Refusal::NeverWas`], [`Refusal::Gone`] or [`Refusal::OfEarlierRun`].
    Why {
        /// The job.
        job: JobId,
    },
    /// Deaths of workers that were running jobs which the client may see, newest first. Reply: [`Reply::Deaths`].
    Deaths {
        /// At most this many; never more than [`crate::limits::DEATHS_KEPT`].
        limit: u32,
    },
    /// The workers. Reply: [`Reply::Workers`].
    Workers,
    /// The state of the daemon. Reply: [`Reply::Status`].
    Status,
    /// The kinds that the daemon offers. Reply: [`Reply::Kinds`].
    Kinds,
    /// The records of what happened. Replies: [`Reply::Events`], without an end if `follow` is set.
    Events {
        /// Only records after this index; 0: from the oldest that is kept.
        after: u64,
        /// Whether to send new records after all kept ones were sent.
        follow: bool,
    },
    /// Accept no new jobs, end the accepted ones, then stop. Replies: [`Reply::Draining`], and [`Reply::Drained`] right
    /// before the daemon stops and closes the connection. Administrators only.
    Drain {
        /// How long accepted jobs may take to end, in milliseconds; after that they are `lost`. `None`: without a limit.
        grace_ms: Option<u64>,
    },
    /// Check that the daemon answers. Reply: [`Reply::Pong`].
    Ping,
    /// The results up to this number are where the client wants them: the daemon need not keep them. No reply, or
    /// [`Reply::Refused`] if so many were not sent.
    ///
    /// A reply that was read is not yet a result that is safe: the client still has to write it. A submit can
    /// ask for that time (`Submit::held`, which needs `attached`):
    ///
    /// | step | what becomes of the result of a job that is done |
    /// |---|---|
    /// | the daemon sends it in a [`Reply::Held`] | it is kept as the results of other ended jobs are: within the bounds of age, number, bytes and outputs |
    /// | the client sends `Received` with its number, or a higher one | it is forgotten, as soon as no other client waits for it |
    /// | the client reports nothing, vanishes, or its connection ends | it stays kept, and `Request::Result` gives it as often as it is asked |
    /// | a bound is met before | it is dropped, the oldest first; more than a quarter of a bound is never kept for one connection's receipts |
    ///
    /// Each connection numbers the ends that it is sent in `Reply::Held` from 1, without a gap, in the order in which they
    /// are sent, whatever their outcome and request. `through` is cumulative, so one request reports any number of ends, and
    /// has no reply. A lower `through` than an earlier one changes nothing. One above what was sent is refused, and forgets
    /// nothing. The end of a job that is not done is kept for `why`, `job` and `retry` as it is without `held`, also after its
    /// receipt. [`Reply::Ended`] has no numbers: jobs that are not attached, which `Wait` and `Result` are about, are
    /// kept whoever reads them; so is the end of an attached job that a `Retry` of another client ran again. An output in a
    /// descriptor ([`crate::client::outcome::JobOutput::Descriptor`]) is kept as an inline one is: client and daemon each
    /// hold the file.
    Received {
        /// The number of the last of these ends, see [`Reply::Held`].
        through: u64,
    },
    /// Keep this for the jobs of this connection that name it, until the connection ends or drops it. Reply:
    /// [`Reply::Registered`], or [`Reply::Refused`].
    Register(Register),
    /// No further job names the registration of this number. It is kept until no worker and no accepted job can use it; the number
    /// may be used again at once. No reply, or [`Reply::Refused`] if there is none of this number.
    DropRegistration {
        /// The client's number.
        number: u32,
    },
    /// The client does not read these blocks of arenas any more, see [`crate::client::outcome::ResultBlock`]. Nothing answers
    /// it. A block that this connection was not told of, or has freed, is refused; the others are freed. At most
    /// [`crate::limits::FREED_MAX`] blocks. What a connection has not freed is freed when it ends.
    Freed {
        /// Their numbers.
        blocks: Vec<u64>,
    },
}

impl Request {
    /// The files that it names. Their descriptors arrive with it.
    pub fn files(&self) -> &[FileUse] {
        match self {
            Self::Submit(submit) => &submit.files,
            Self::Register(register) => &register.files,
            Self::Wait { .. }
            | Self::Result { .. }
            | Self::Logs { .. }
            | Self::Cancel { .. }
            | Self::CancelWaiting { .. }
            | Self::Retry { .. }
            | Self::Forget { .. }
            | Self::Jobs { .. }
            | Self::Job { .. }
            | Self::Why { .. }
            | Self::Deaths { .. }
            | Self::Workers
            | Self::Status
            | Self::Kinds
            | Self::Events { .. }
            | Self::Drain { .. }
            | Self::Received { .. }
            | Self::DropRegistration { .. }
            | Self::Freed { .. }
            | Self::Ping => &[],
        }
    }
}

/// Jobs of one kind under one policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Submit {
    /// The kind's name.
    pub kind: String,
    /// The policy of each job.
    pub policy: Policy,
    /// Whether results are sent on this connection, and the jobs are cancelled after it has closed. An attached job that
    /// is `done` is forgotten once its result was sent. Jobs that are not attached are kept for `wait` and `result`.
    pub attached: bool,
    /// Whether results that were sent are kept until the client reports that it has them, see [`Request::Received`].
    /// Needs `attached`.
    pub held: bool,
    /// Whether to send [`Reply::Progress`] while the jobs run. Needs `attached`.
    pub progress: bool,
    /// Which of the kind's tasks these are, as far as their duration goes: a number of the client's choice. Jobs with the same
    /// number take about the same time. How many of them one worker may hold ahead depends on how long they took, and
    /// on no other number's; 0: on how long tasks of the kind take that have no flavour. The number means the same on all
    /// connections of a user, and nothing to other users. It changes nothing but how many tasks wait in workers.
    pub flavour: u32,
    /// The files of the job: their descriptors are attached to the frame, in this order. With files there must be
    /// exactly one input.
    pub files: Vec<FileUse>,
    /// What the jobs use that the connection registered. In a box, because most jobs use nothing.
    pub registered: Option<Box<RegisteredUse>>,
    /// Set for durable jobs: they are answered as accepted once the journal has them, and outlive the daemon. Their inputs and results
    /// are inline. `None`: the jobs are volatile. In a box, because volatile jobs need none.
    pub durable: Option<Box<DurableSubmit>>,
    /// The inputs; each makes one job.
    pub inputs: Vec<Payload>,
}

/// What a submit of durable jobs says besides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct DurableSubmit {
    /// The user's name for this submit: a second submit with the same key is the same jobs. 1 to
    /// [`crate::limits::KEY_MAX_BYTES`] bytes.
    pub key: Option<Vec<u8>>,
}

/// What the jobs of a submit use that the connection registered, by the client's numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct RegisteredUse {
    /// The arena that the inputs are in: each inline input is a [`crate::registration::ArenaBlock`]. Needs `attached`, because the
    /// client is told when a block is free.
    ///
    /// | a job that ended as | its block is free |
    /// |---|---|
    /// | done or failed | with its end; if the job is forgotten before that was sent, with [`Reply::Freed`] |
    /// | anything else | with [`Reply::Freed`], once no worker can read the block any more |
    pub arena: Option<u32>,
    /// The contexts and files, in the order in which the task names them.
    pub contexts: Vec<u32>,
}

/// Something to be registered.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Register {
    /// The client's number for it. A connection has one registration of a number at a time.
    pub number: u32,
    /// What it is for.
    pub kind: RegistrationKind,
    /// The bytes of a context; at most [`crate::limits::CONTEXT_BYTES_MAX`]. More is put into a descriptor.
    pub bytes: Payload,
    /// Its descriptors, which are attached to the frame in this order. An arena has one.
    pub files: Vec<FileUse>,
}

/// Where a list begins, and its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Walk {
    /// Upwards, from the first id above this one.
    Up(JobId),
    /// Downwards, from the first id below this one.
    Down(JobId),
}

/// A reply of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Reply {
    /// The first `count` jobs of the submit were accepted; the rest, if any, were refused.
    Accepted {
        /// The id of the first; the others have the ids after it.
        first: JobId,
        /// How many jobs were accepted.
        count: u32,
        /// Why the rest was refused.
        refused: Option<Refusal>,
    },
    /// The progress of an attached job; sent from time to time while it runs.
    Progress {
        /// The job.
        job: JobId,
        /// How much is done, in a unit that the kind chooses.
        done: u64,
        /// How much there is to do in all, in the same unit; 0 if unknown.
        total: u64,
    },
    /// Jobs that have ended. An entry with [`crate::client::outcome::JobOutput::Descriptor`] is alone in its frame, and
    /// the descriptor is attached to it.
    Ended(Vec<JobEnded>),
    /// The same for jobs that were submitted held: these ends are numbered.
    Held {
        /// The number of the first of them; the others have the numbers after it.
        first: u64,
        /// The ends.
        ended: Vec<JobEnded>,
    },
    /// The log of an attempt, as an attached read-only descriptor.
    Logs {
        /// The job.
        job: JobId,
        /// The attempt, counted from 1.
        attempt: u32,
        /// Whether the descriptor is attached; it is not if the log was dropped before the reply was sent.
        is_there: bool,
    },
    /// Jobs of a wait, or of an attached submit, whose ends cannot be told, because there is no such job or because it
    /// was forgotten before its end was sent.
    Unknown(UnknownJobs),
    /// The request was refused; nothing of it was done.
    Refused(Refusal),
    /// How many jobs were changed, and why the others were not.
    Changed {
        /// Jobs that were changed.
        count: u32,
        /// The jobs that were not changed, by the reason.
        refused: Vec<RefusedJobs>,
    },
    /// What became of the jobs of a [`Request::CancelWaiting`]: each is in one of the three, in rising order.
    CancelledWaiting {
        /// Jobs that were ended: no worker ran them.
        ended: Vec<JobId>,
        /// Jobs that go on, because they have begun.
        running: Vec<JobId>,
        /// The others, by the reason: they had ended before, or there is no such job.
        refused: Vec<RefusedJobs>,
    },
    /// Jobs, and whether there may be more. The core looks at a bounded number of jobs for each request, so `more` can be
    /// set although `rows` has fewer than `limit` rows, or none.
    Jobs {
        /// One row for each job.
        rows: Vec<JobRow>,
        /// The last job that was looked at.
        last: JobId,
        /// Whether another request that goes on from `last` may find more.
        more: bool,
    },
    /// Everything that the daemon shows of one job.
    Job(Box<JobDetail>),
    /// Why a job waits, is tried again, or ended the way it did.
    Why(Box<Why>),
    /// Deaths of workers that were running a job, newest first.
    Deaths(Vec<DeathRow>),
    /// The workers.
    Workers(Vec<WorkerRow>),
    /// The state of the daemon.
    Status(Box<Status>),
    /// The kinds.
    Kinds(Vec<Kind>),
    /// Records, oldest first.
    Events {
        /// The records.
        records: Vec<Record>,
        /// How many records that this client may see were dropped before it read them, since the last reply that told of
        /// some. They may lie anywhere between those that it was sent.
        missed: u64,
        /// Whether all kept records were sent; without `follow`, this is the last reply.
        caught_up: bool,
    },
    /// The daemon has begun to drain.
    Draining {
        /// Jobs that have not ended yet.
        left: u64,
    },
    /// The daemon stops now.
    Drained {
        /// Jobs that were lost: they had not ended at the end of the grace, or when an administrator stopped the daemon.
        lost: u64,
    },
    /// The answer to [`Request::Ping`].
    Pong {
        /// The daemon's process id.
        pid: u32,
    },
    /// The daemon closes the connection, because of a fault of the client or because it stops.
    Goodbye(Refusal),
    /// It is registered.
    Registered {
        /// The client's number.
        number: u32,
    },
    /// No worker can read the inputs of these jobs in an arena any more, which ended neither done nor failed, or were forgotten
    /// before their ends were sent: see [`RegisteredUse::arena`]. It may come before the end of the job. It is no answer to a
    /// request.
    Freed {
        /// The jobs.
        jobs: Vec<JobId>,
    },
    /// For a client that waits for ends of jobs: why its jobs do not start, as a text for people, or that they start
    /// again. It is no answer to a request.
    Notice(String),
    /// The worker of this arena is gone, and the client has freed all of its blocks: the client may unmap it. It is no answer to
    /// a request.
    ArenaGone {
        /// The number of the arena.
        arena: u64,
    },
}

impl Reply {
    /// The ends of jobs in this reply, if it carries such.
    pub fn ends(&self) -> Option<&[JobEnded]> {
        match self {
            Self::Ended(ended) | Self::Held { ended, .. } => Some(ended),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub fn ends_mut(&mut self) -> Option<&mut [JobEnded]> {
        match self {
            Self::Ended(ended) | Self::Held { ended, .. } => Some(ended),
            _ => None,
        }
    }
}

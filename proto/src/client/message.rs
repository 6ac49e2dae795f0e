//! What clients ask and the daemon answers, after the [`crate::client::frame::Hello`] of both.
//!
//! Requests may be pipelined; each carries a [`Tag`] of the client's choosing, and every reply to it carries
//! the same. Replies to different requests may come in any order; those to one request come in order. A
//! request that cannot be decoded ends the connection with [`Reply::Goodbye`].

use crate::client::outcome::Ended;
use crate::client::record::Record;
use crate::client::refusal::Refusal;
use crate::client::view::{DeathRow, JobDetail, JobRow, Status, WorkerRow};
use crate::client::why::Why;
use crate::codec::{Decode, Encode};
use crate::file::FileUse;
use crate::ids::{JobId, Tag};
use crate::job::{JobState, Payload, Policy};
use crate::kind::Kind;

/// A frame from a client.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RequestFrame {
    /// The client's number for it.
    pub tag: Tag,
    /// What it asks.
    pub request: Request,
}

/// A frame to a client.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ReplyFrame {
    /// The request it answers; 0 for [`Reply::Goodbye`] and [`Reply::Notice`].
    pub tag: Tag,
    /// The answer.
    pub reply: Reply,
}

/// What a client may ask. At most [`crate::limits::BATCH_MAX`] inputs or ids in one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Request {
    /// Take these jobs: [`Reply::Accepted`], then, if attached, [`Reply::Ended`] until each has ended.
    Submit(Submit),
    /// Tell when these have ended, in the order of their ends: [`Reply::Ended`] or, for an unknown one,
    /// [`Reply::Refused`], one entry or reply for each id.
    Wait {
        /// The jobs.
        jobs: Vec<JobId>,
    },
    /// The result of an ended job: [`Reply::Ended`] with one entry, or [`Reply::Refused`].
    Result {
        /// The job.
        job: JobId,
    },
    /// What a job writes, see [`crate::log`]: [`Reply::Logs`] with the log of its latest attempt, or [`Reply::Refused`].
    Logs {
        /// The job.
        job: JobId,
        /// Whether to send the log of each further attempt too when it begins; the first may then be still to come.
        follow: bool,
    },
    /// End these without a result: [`Reply::Changed`].
    Cancel {
        /// The jobs.
        jobs: Vec<JobId>,
    },
    /// Run quarantined, failed, timed-out, cancelled, expired or lost jobs again, with fresh budgets:
    /// [`Reply::Changed`].
    Retry {
        /// The jobs.
        jobs: Vec<JobId>,
    },
    /// Drop ended jobs, results, evidence and all: [`Reply::Changed`].
    Forget {
        /// The jobs.
        jobs: Vec<JobId>,
    },
    /// The jobs that the client may see, in the order of their ids or the other way round: [`Reply::Jobs`].
    Jobs {
        /// Only those in this state.
        state: Option<JobState>,
        /// Where to begin, and which way to go.
        walk: Walk,
        /// At most so many.
        limit: u32,
    },
    /// All about one job: [`Reply::Job`].
    Job {
        /// The job.
        job: JobId,
    },
    /// Why a job waits, is tried again or has ended as it has: [`Reply::Why`], or [`Reply::Refused`] with
    /// [`Refusal::NeverWas`] or [`Refusal::Gone`].
    Why {
        /// The job.
        job: JobId,
    },
    /// The deaths in mid-job, of jobs that the client may see, newest first: [`Reply::Deaths`].
    Deaths {
        /// At most so many; never more than [`crate::limits::DEATHS_KEPT`].
        limit: u32,
    },
    /// The workers: [`Reply::Workers`].
    Workers,
    /// The daemon itself: [`Reply::Status`].
    Status,
    /// The kinds it offers: [`Reply::Kinds`].
    Kinds,
    /// What happened: [`Reply::Events`], again and again when following.
    Events {
        /// Only records after this index; 0 from the oldest kept.
        after: u64,
        /// Whether to go on when all that is kept was sent.
        follow: bool,
    },
    /// Take no new jobs, end what was accepted, then stop: [`Reply::Draining`], and, right before the daemon stops and
    /// the connection closes, [`Reply::Drained`]. Administrators only.
    Drain {
        /// How long what was accepted may take, in milliseconds; then it is `lost`. `None`: as long as it takes.
        grace_ms: Option<u64>,
    },
    /// Are you there: [`Reply::Pong`].
    Ping,
}

/// Jobs of one kind under one policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Submit {
    /// The kind's name.
    pub kind: String,
    /// How each is to be treated.
    pub policy: Policy,
    /// Whether results stream back on this connection and the jobs end with it. What was streamed is forgotten
    /// at once unless it did not end `done`. Jobs that are not attached are kept for `wait` and `result`.
    pub attached: bool,
    /// Whether to tell how far the jobs are: [`Reply::Progress`] while they run. Needs `attached`.
    pub progress: bool,
    /// Files for the one job of this submit: as many descriptors are attached to the frame, in this order. With any,
    /// there is exactly one input.
    pub files: Vec<FileUse>,
    /// One job for each.
    pub inputs: Vec<Payload>,
}

/// Where a list begins, and which way it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Walk {
    /// Upwards, from the first id above this one.
    Up(JobId),
    /// Downwards, from the first id below this one.
    Down(JobId),
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Reply {
    /// The first `count` jobs of the submit were accepted; the rest, if any, were refused.
    Accepted {
        /// The id of the first; the others follow it without a gap.
        first: JobId,
        /// How many.
        count: u32,
        /// Why the rest was not.
        refused: Option<Refusal>,
    },
    /// How far an attached job is, now and then.
    Progress {
        /// The job.
        job: JobId,
        /// So much of it is done, in a unit of its own...
        done: u64,
        /// ...of so much, or of 0 when that cannot be told.
        total: u64,
    },
    /// Jobs that have ended. An entry with [`crate::client::outcome::Output::Descriptor`] is alone in its frame, and
    /// the descriptor is attached to it.
    Ended(Vec<Ended>),
    /// The log of an attempt: a descriptor that can only be read is attached.
    Logs {
        /// The job.
        job: JobId,
        /// Which attempt, from 1.
        attempt: u32,
        /// Whether it is attached: it may just have been dropped.
        is_there: bool,
    },
    /// The request was refused; nothing of it was done.
    Refused(Refusal),
    /// How many jobs were changed, and which were not, and why.
    Changed {
        /// Jobs changed.
        count: u32,
        /// The others.
        refused: Vec<Refusal>,
    },
    /// Jobs, and whether there may be more. One request looks at a bounded number of jobs, so that there may be more even
    /// if few of them or none were wanted.
    Jobs {
        /// One row each.
        rows: Vec<JobRow>,
        /// The last number that was looked at.
        last: JobId,
        /// Whether another request that goes on from `last` may find more.
        more: bool,
    },
    /// All about one job.
    Job(Box<JobDetail>),
    /// Why a job is as it is.
    Why(Box<Why>),
    /// Deaths in mid-job, newest first.
    Deaths(Vec<DeathRow>),
    /// The workers.
    Workers(Vec<WorkerRow>),
    /// The daemon.
    Status(Box<Status>),
    /// The kinds.
    Kinds(Vec<Kind>),
    /// What happened, oldest first.
    Events {
        /// The records.
        records: Vec<Record>,
        /// Records that were dropped before the first of these, because they were not read in time.
        missed: u64,
        /// Whether everything kept so far was sent; without `follow` it is the last reply.
        caught_up: bool,
    },
    /// The daemon drains.
    Draining {
        /// Jobs that are still to end.
        left: u64,
    },
    /// The daemon stops now.
    Drained {
        /// Jobs that were lost, because they had not ended when the grace was over, or somebody stopped it at once.
        lost: u64,
    },
    /// Here I am.
    Pong {
        /// The daemon's process id.
        pid: u32,
    },
    /// The connection closes because of what the client did, or because the daemon stops.
    Goodbye(Refusal),
    /// To a client that waits for ends: why its jobs do not start, in words, or that they do again. Answers nothing.
    Notice(String),
}

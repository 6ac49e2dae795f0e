//! All facts, and nothing else. Times are wall time in microseconds since 1970; kinds and pools are named, because their
//! places in a configuration change.
//!
//! The core makes facts and numbers them, the journal stores them in their order. Each is one change of the durable state: what
//! it does to a job stands in `durable_job.rs`.

use std::fmt;

use bulkhead_proto::client::outcome::{Outcome, Survivor};
use bulkhead_proto::client::view::JobDeath;
use bulkhead_proto::client::why::Canceller;
use bulkhead_proto::ids::{Fence, JobId};
use bulkhead_proto::job::{Payload, Policy};

use crate::submit_key::{SubmitDigest, SubmitKey};

/// Counts the facts of one run of the daemon from 1, without a gap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FactNo(pub u64);

impl fmt::Display for FactNo {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// One change of the durable state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A daemon began to serve.
    Epoch(Epoch),
    /// That daemon ended after it had stored all that it had to store.
    EpochEnded {
        /// When.
        at_us: u64,
    },
    /// The jobs of one submit were accepted.
    Accepted(Box<AcceptedJobs>),
    /// An attempt is about to be offered. Only attempts that must not run unrecorded have this fact.
    Started {
        /// The job.
        job: JobId,
        /// Counts its offers.
        fence: Fence,
        /// When.
        at_us: u64,
    },
    /// An attempt ended, and its job did not end by that alone; or the death of its worker is on record.
    AttemptEnded(Box<EndedAttempt>),
    /// A job has its outcome.
    Ended(Box<DurableEnd>),
    /// A client asked to run an ended job again.
    Retried {
        /// The job.
        job: JobId,
        /// When.
        at_us: u64,
        /// When it expires if it has no attempt until then.
        expires_us: Option<u64>,
    },
    /// A client asked to forget an ended job.
    Forgotten {
        /// The job.
        job: JobId,
    },
    /// Ended jobs whose time was over, or that made room.
    Evicted {
        /// The jobs.
        jobs: Box<[JobId]>,
    },
}

impl Fact {
    /// About the memory that it takes, in bytes.
    pub fn memory_bytes(&self) -> usize {
        const ROW: usize = 128;
        match self {
            Self::Accepted(accepted) => {
                let inputs = accepted.inputs.iter().map(|input| ROW + input.as_bytes().len());
                3 * ROW + inputs.sum::<usize>()
            }
            Self::AttemptEnded(ended) => {
                let death = ended.death.as_ref().map_or(0, |death| 512 + death.evidence.wire_bytes());
                ROW + ended.message.as_ref().map_or(0, String::len)
                    + usize::try_from(death).unwrap_or(usize::MAX / 4)
            }
            Self::Ended(end) => {
                let text = match &end.outcome {
                    Outcome::Failed { message: text, .. }
                    | Outcome::Crashed { last: text, .. }
                    | Outcome::Lost { reason: text } => text.len(),
                    Outcome::Done | Outcome::TimedOut { .. } | Outcome::Cancelled | Outcome::Expired => 0,
                };
                let survivors: u64 = end.survivors.iter().map(|one| one.wire_bytes()).sum();
                let output = end.output.as_ref().map_or(0, |output| output.as_bytes().len());
                2 * ROW + text + output + usize::try_from(survivors).unwrap_or(usize::MAX / 4)
            }
            Self::Evicted { jobs } => ROW + 8 * jobs.len(),
            Self::Epoch(_)
            | Self::EpochEnded { .. }
            | Self::Started { .. }
            | Self::Retried { .. }
            | Self::Forgotten { .. } => ROW,
        }
    }
}

/// One run of the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Epoch {
    /// Counts the runs from 1.
    pub number: u64,
    /// The machine's boot, as `/proc/sys/kernel/random/boot_id` names it; empty where that is hidden.
    pub boot_id: String,
    /// The daemon's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it began.
    pub started_us: u64,
}

/// The jobs of one submit. Their numbers follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedJobs {
    /// Number of the first job.
    pub first: JobId,
    /// The user who submitted them.
    pub uid: u32,
    /// The user's key for the submit.
    pub key: Option<SubmitKey>,
    /// What the submit asked for.
    pub digest: SubmitDigest,
    /// The kind.
    pub kind: String,
    /// The pool that runs the kind.
    pub pool: String,
    /// Which of its user's tasks of the kind take about the same time; 0: none.
    pub flavour: u32,
    /// The granted policy.
    pub policy: Policy,
    /// When they were accepted.
    pub accepted_us: u64,
    /// When those of them expire that had no attempt yet.
    pub expires_us: Option<u64>,
    /// An input for each job: at most [`bulkhead_proto::limits::BATCH_MAX`].
    pub inputs: Vec<Payload>,
}

impl AcceptedJobs {
    /// How many jobs there are.
    pub fn count(&self) -> u32 {
        u32::try_from(self.inputs.len()).expect("a submit has at most BATCH_MAX jobs")
    }
}

/// How an attempt ended whose job goes on, or ends by a fact of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptEnd {
    /// It killed its worker, and the death is charged to the job.
    Charged,
    /// Its own code reported a failure, and the job is tried again. The last failure has no such fact: [`DurableEnd`] has its error.
    Failed,
    /// It was lost through no fault of the job: with its worker, the service or the machine.
    Lost,
    /// Its offer was taken back before it began.
    GivenBack,
    /// Its worker died, which is charged to nobody and counts for nothing: that of an attempt whose job has ended by a limit or a
    /// cancel, for example. Such a death may be proven before or after the end of the job.
    Uncharged,
}

/// All of them.
pub const ATTEMPT_ENDS: [AttemptEnd; 5] =
    [AttemptEnd::Charged, AttemptEnd::Failed, AttemptEnd::Lost, AttemptEnd::GivenBack, AttemptEnd::Uncharged];

impl AttemptEnd {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Charged => "charged",
            Self::Failed => "failed",
            Self::Lost => "lost",
            Self::GivenBack => "given-back",
            Self::Uncharged => "uncharged",
        }
    }

    /// The end with this word.
    pub fn of_word(word: &str) -> Option<Self> {
        ATTEMPT_ENDS.into_iter().find(|end| end.word() == word)
    }
}

/// The end of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedAttempt {
    /// The job.
    pub job: JobId,
    /// Counts its offers; no death is charged twice to one of them.
    pub fence: Fence,
    /// Which of its job's attempts it was, from 1, as people are shown it. Lower than `fence` once an offer was given back.
    pub number: u32,
    /// How it ended.
    pub how: AttemptEnd,
    /// When.
    pub at_us: u64,
    /// The error that its code reported, if it did.
    pub message: Option<String>,
    /// The death of its worker, if that ended it.
    pub death: Option<Box<JobDeath>>,
}

/// The end of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DurableEnd {
    /// The job.
    pub job: JobId,
    /// The offer whose attempt ended it; `None`: none was with a worker.
    pub fence: Option<Fence>,
    /// How it ended.
    pub outcome: Outcome,
    /// The result, or the output of a job that failed. `None`: it has none.
    pub output: Option<Payload>,
    /// When it ended.
    pub at_us: u64,
    /// When its last attempt began.
    pub started_us: Option<u64>,
    /// How long it waited for its first attempt.
    pub waited_us: u64,
    /// How long its last attempt took.
    pub ran_us: u64,
    /// Who cancelled it, if it was cancelled.
    pub by: Option<Canceller>,
    /// Processes of its last attempt that could not be ended.
    pub survivors: Vec<Survivor>,
}

#[cfg(test)]
mod tests {
    use super::{ATTEMPT_ENDS, AttemptEnd};

    #[test]
    fn each_word_names_one_end() {
        for end in ATTEMPT_ENDS {
            assert_eq!(AttemptEnd::of_word(end.word()), Some(end));
        }
        assert_eq!(AttemptEnd::of_word("done"), None);
    }
}

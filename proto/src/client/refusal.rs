//! Why the daemon refuses a request.
//!
//! The core makes refusals; the supervisor makes those for bytes that are no request. The command line shows their texts
//! unchanged, so each must name the thing, its value, the limit, and what to do. A refused request must have changed
//! nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::codec::{Decode, Encode};
use crate::ids::JobId;
use crate::job::JobState;
use crate::kind::EXEC;
use crate::plain::Plain;
use crate::utc::utc;

/// A refused request. Nothing of it was done.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "refusal")]
pub enum Refusal {
    /// A limit of the daemon is reached; the same request may succeed later.
    Busy {
        /// What is bounded, in the plural: "queued jobs".
        what: String,
        /// The bound that was met.
        limit: u64,
        /// Whose bound that is.
        part: BoundPart,
        /// What sets the bound: a key of the configuration, or a limit of the system. `None`: it is fixed.
        key: Option<String>,
        /// When to try again.
        retry_after_ms: u64,
    },
    /// The daemon is draining: it takes no new jobs.
    Draining,
    /// The daemon does not offer this kind.
    UnknownKind {
        /// The kind.
        kind: String,
        /// The kinds that it offers.
        known: Vec<String>,
    },
    /// No job has been given this number yet.
    NeverWas {
        /// The number.
        job: JobId,
        /// The last number that was given.
        last: JobId,
    },
    /// The job with this number was forgotten, or it may belong to another user.
    Gone {
        /// The number.
        job: JobId,
        /// Whether it may belong to another user.
        others: bool,
    },
    /// The number is of an earlier run of the daemon: its job was volatile or was forgotten, or it may belong to another user.
    OfEarlierRun {
        /// The number.
        job: JobId,
        /// Whether it may belong to another user.
        others: bool,
        /// When that run ended, or was last heard of if it did not end by itself; microseconds since 1970. `None`: nobody knows.
        until_us: Option<u64>,
    },
    /// The job has no result yet.
    NotEnded {
        /// The job.
        job: JobId,
        /// Its state.
        state: JobState,
    },
    /// The job has no log.
    NoLog {
        /// The job.
        job: JobId,
        /// Why, as a text for people.
        why: String,
    },
    /// The job's state does not allow this.
    WrongState {
        /// The job.
        job: JobId,
        /// What is needed, as a text for people.
        needed: String,
    },
    /// The request itself is wrong.
    Invalid {
        /// What is wrong with it.
        why: String,
    },
    /// The user may not do this.
    Denied {
        /// What is needed, as a text for people.
        needed: String,
    },
    /// The jobs cannot be durable now. None of them was accepted.
    NotDurable {
        /// Why, as a text for people.
        why: String,
    },
    /// The key of a durable submit names other jobs of this user.
    KeyTaken {
        /// The first of those jobs.
        first: JobId,
        /// How many they are.
        count: u32,
    },
}

impl Refusal {
    /// The refusal for a number that names no job which the client may see. `last`: the last number that was given;
    /// `others`: the number may belong to another user.
    pub fn unknown(job: JobId, last: JobId, others: bool) -> Self {
        if job > last || job == JobId(0) { Self::NeverWas { job, last } } else { Self::Gone { job, others } }
    }

    /// The same refusal about another job.
    fn about(&self, job: JobId) -> Self {
        let mut same = self.clone();
        match &mut same {
            Self::NeverWas { job: own, .. }
            | Self::Gone { job: own, .. }
            | Self::OfEarlierRun { job: own, .. }
            | Self::NotEnded { job: own, .. }
            | Self::NoLog { job: own, .. }
            | Self::WrongState { job: own, .. } => *own = job,
            Self::Busy { .. }
            | Self::Draining
            | Self::UnknownKind { .. }
            | Self::Invalid { .. }
            | Self::Denied { .. }
            | Self::NotDurable { .. }
            | Self::KeyTaken { .. } => {}
        }
        same
    }

    /// Whether another refusal gives the same reason, maybe for another job, limit or time.
    fn has_reason_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Busy { what, .. }, Self::Busy { what: other, .. }) => what == other,
            _ => self.about(JobId(0)) == other.about(JobId(0)),
        }
    }
}

/// Jobs of one request that were refused for one reason: the reason is told once, so the reply takes hardly more room than
/// the request.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RefusedJobs {
    /// The refusal of the first of them. It holds for the others with their numbers.
    why: Refusal,
    /// Their numbers, each as often as the request named it.
    jobs: Vec<JobId>,
}

impl RefusedJobs {
    /// Adds a refused job to those of its reason.
    pub fn add(all: &mut Vec<Self>, job: JobId, why: Refusal) {
        match all.iter_mut().find(|known| known.why.has_reason_of(&why)) {
            Some(known) => known.jobs.push(job),
            None => all.push(Self { why, jobs: vec![job] }),
        }
    }

    /// The jobs.
    pub fn jobs(&self) -> &[JobId] {
        &self.jobs
    }

    /// The refusal of each job.
    pub fn refusals(&self) -> impl Iterator<Item = Refusal> {
        self.jobs.iter().map(|job| self.why.about(*job))
    }
}

/// Jobs of one request that the client cannot be told of: one reply has them all, in less room than the request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct UnknownJobs {
    /// Their numbers, each as often as the request named it.
    pub jobs: Vec<JobId>,
    /// The last number that was given to a job.
    pub last: JobId,
    /// Whether those that were given may belong to another user.
    pub others: bool,
    /// Set if an earlier run of the daemon gave all of them.
    pub earlier: Option<EarlierNumbers>,
}

/// The run of the daemon that gave some numbers, if it is not the one that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct EarlierNumbers {
    /// When it ended: see [`Refusal::OfEarlierRun`].
    pub until_us: Option<u64>,
}

impl UnknownJobs {
    /// Each number, and why there is no such job.
    pub fn refusals(&self) -> impl Iterator<Item = (JobId, Refusal)> {
        self.jobs.iter().map(|job| {
            let refusal = match self.earlier {
                Some(EarlierNumbers { until_us }) => {
                    Refusal::OfEarlierRun { job: *job, others: self.others, until_us }
                }
                None => Refusal::unknown(*job, self.last, self.others),
            };
            (*job, refusal)
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy { what, limit, part, key, retry_after_ms } => {
                let (what, key) = (what.clone(), key.clone());
                let met = MetBound { what, limit: *limit, part: *part, key };
                write!(out, "busy: {met}; try again in {retry_after_ms} ms")
            }
            Self::Draining => out.write_str("the daemon is draining and takes no new jobs"),
            Self::UnknownKind { kind, .. } if kind == EXEC => out.write_str(
                "this daemon does not offer exec: a daemon in system mode runs no programs of its users, because its \
                 workers have no sandbox, and a daemon without the built-in kinds has no exec; start a daemon of your \
                 own, in user mode",
            ),
            Self::UnknownKind { kind, known } => {
                write!(out, "unknown kind {kind:?}: this daemon offers {}", Plain(&known.join(", ")))
            }
            Self::NeverWas { job, last: JobId(0) } => {
                write!(out, "job {job} never existed: no job was accepted yet")
            }
            Self::NeverWas { job, last } => {
                write!(out, "job {job} never existed: the last number given is {last}")
            }
            Self::Gone { job, others } => {
                let whose = if *others { "is not yours, or " } else { "" };
                write!(
                    out,
                    "job {job} {whose}has been forgotten: by `bulkhead forget`, after its client had read its result, \
                     because of its age, or to make room for newer jobs"
                )
            }
            Self::OfEarlierRun { job, others, until_us } => {
                let whose = if *others { "is not yours, or " } else { "" };
                let ended = until_us.map(|at_us| format!(", which ended at {}", utc(at_us))).unwrap_or_default();
                write!(
                    out,
                    "job {job} is of an earlier run of the daemon{ended}: it {whose}was volatile and is lost with that run, or has \
                     been forgotten: by `bulkhead forget`, because of its age, or to make room for newer jobs"
                )
            }
            Self::NotEnded { job, state } => {
                let state = format!("{state:?}").to_lowercase();
                write!(out, "job {job} has not ended, it is {state}: `bulkhead wait {job}` waits for it")
            }
            Self::NoLog { job, why } => write!(out, "job {job} has no log: {}", Plain(why)),
            Self::WrongState { job, needed } => write!(out, "job {job}: {}", Plain(needed)),
            Self::Invalid { why } => write!(out, "invalid request: {}", Plain(why)),
            Self::Denied { needed } => write!(out, "not allowed: {}", Plain(needed)),
            Self::NotDurable { why } => {
                write!(out, "the jobs cannot be durable: {}; `--volatile` submits jobs that end with the daemon", Plain(why))
            }
            Self::KeyTaken { first, count: 1 } => {
                write!(out, "the key names a different submit, job {first}: another submit needs another key")
            }
            Self::KeyTaken { first, count } => {
                let last = first.0.saturating_add(u64::from(count.saturating_sub(1)));
                write!(out, "the key names a different submit, jobs {first} to {last}: another submit needs another key")
            }
        }
    }
}

impl std::error::Error for Refusal {}

/// Whose bound was met: users who hold little have some room also when all users together fill theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BoundPart {
    /// That of all users together.
    All,
    /// The share of one user.
    Share {
        /// The bound of all.
        of: u64,
    },
    /// What one user may hold although all together fill their bound.
    Little {
        /// The bound of all.
        of: u64,
    },
    /// What all users who hold little may hold together although all fill their bound.
    AllLittle {
        /// The bound of all.
        of: u64,
    },
}

/// A bound that was met, as `busy` and `why` name it. The fields are those of [`Refusal::Busy`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct MetBound {
    /// What is bounded, in the plural.
    pub what: String,
    /// The bound that was met.
    pub limit: u64,
    /// Whose bound that is.
    pub part: BoundPart,
    /// What sets the bound; `None`: it is fixed.
    pub key: Option<String>,
}

impl MetBound {
    /// The refusal of more.
    pub fn busy(self, retry_after_ms: u64) -> Refusal {
        let Self { what, limit, part, key } = self;
        Refusal::Busy { what, limit, part, key, retry_after_ms }
    }
}

impl fmt::Display for MetBound {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, limit, part, key } = self;
        let what = Plain(what);
        let set = match key {
            Some(key) => format!("set by {}", Plain(key)),
            None => "which is fixed".to_owned(),
        };
        match part {
            BoundPart::All => write!(out, "there is no room for more {what} (limit {limit}, {set})"),
            BoundPart::Share { of } => {
                write!(out, "your share of the {what} is used up (limit {limit} of {of}, {set})")
            }
            BoundPart::Little { of } => write!(
                out,
                "all users together fill the bound of the {what} ({of}, {set}), and you have the {limit} that one user \
                 gets even then"
            ),
            BoundPart::AllLittle { of } => write!(
                out,
                "all users together fill the bound of the {what} ({of}, {set}), and those who hold few have the {limit} \
                 that they get even then"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_exec_has_a_reason_of_its_own() {
        let missing = |kind: &str| {
            Refusal::UnknownKind { kind: kind.to_owned(), known: vec!["noop".to_owned()] }.to_string()
        };
        assert!(missing(EXEC).contains("in user mode") && !missing(EXEC).contains("noop"));
        assert!(missing("exce").contains("this daemon offers noop"));
    }

    #[test]
    fn a_reason_is_told_once_with_all_its_jobs() {
        let busy = |limit| {
            let what = "queued jobs".to_owned();
            Refusal::Busy { what, limit, part: BoundPart::All, key: None, retry_after_ms: limit }
        };
        let state = |job| Refusal::WrongState { job: JobId(job), needed: "it has ended already".to_owned() };
        let mut all = Vec::new();
        for job in 1..=9 {
            let why = if job % 3 == 0 { busy(job) } else { state(job) };
            RefusedJobs::add(&mut all, JobId(job), why);
        }
        assert_eq!(all.iter().map(|same| same.jobs().len()).collect::<Vec<_>>(), [6, 3]);
        let each: Vec<Refusal> = all.iter().flat_map(RefusedJobs::refusals).collect();
        let expected = [1, 2, 4, 5, 7, 8].map(state).into_iter().chain(std::iter::repeat_n(busy(3), 3));
        assert_eq!(each, expected.collect::<Vec<_>>());
    }

    #[test]
    fn busy_names_the_bound_its_value_and_what_sets_it() {
        let busy = |part, key: Option<&str>| {
            let (what, key) = ("queued jobs".to_owned(), key.map(str::to_owned));
            Refusal::Busy { what, limit: 75, part, key, retry_after_ms: 9 }.to_string()
        };
        assert_eq!(
            [
                busy(BoundPart::Share { of: 100 }, Some("queue_max")),
                busy(BoundPart::All, Some("queue_max")),
                busy(BoundPart::All, None),
                busy(BoundPart::Little { of: 6400 }, Some("queue_max")),
                busy(BoundPart::AllLittle { of: 600 }, Some("queue_max")),
            ],
            [
                "busy: your share of the queued jobs is used up (limit 75 of 100, set by queue_max); try again in 9 ms",
                "busy: there is no room for more queued jobs (limit 75, set by queue_max); try again in 9 ms",
                "busy: there is no room for more queued jobs (limit 75, which is fixed); try again in 9 ms",
                "busy: all users together fill the bound of the queued jobs (6400, set by queue_max), and you have the 75 that \
                 one user gets even then; try again in 9 ms",
                "busy: all users together fill the bound of the queued jobs (600, set by queue_max), and those who hold few \
                 have the 75 that they get even then; try again in 9 ms",
            ]
        );
    }

    #[test]
    fn a_number_was_never_given_or_its_job_is_gone() {
        let unknown = UnknownJobs {
            jobs: [0, 1, 7, 8].map(JobId).to_vec(),
            last: JobId(7),
            others: true,
            ..UnknownJobs::default()
        };
        let never = |job| (JobId(job), Refusal::NeverWas { job: JobId(job), last: JobId(7) });
        let gone = |job| (JobId(job), Refusal::Gone { job: JobId(job), others: true });
        assert_eq!(unknown.refusals().collect::<Vec<_>>(), [never(0), gone(1), gone(7), never(8)]);
    }

    #[test]
    fn a_number_of_an_earlier_run_says_when_that_ended() {
        let earlier = Some(EarlierNumbers { until_us: Some(951_782_400_000_000) });
        let unknown = UnknownJobs { jobs: vec![JobId(3)], last: JobId(7), others: false, earlier };
        let said = unknown.refusals().next().unwrap().1.to_string();
        assert!(said.starts_with(
            "job 3 is of an earlier run of the daemon, which ended at 2000-02-29T00:00:00.000000Z: it was volatile"
        ));
        let unknown_end = Refusal::OfEarlierRun { job: JobId(3), others: true, until_us: None }.to_string();
        assert!(
            unknown_end
                .starts_with("job 3 is of an earlier run of the daemon: it is not yours, or was volatile")
        );
    }
}

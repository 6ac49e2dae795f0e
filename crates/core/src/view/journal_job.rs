//! A job that only the journal has, as clients see it: `result`, `wait`, `job` and `why`, in the types of the protocol.
//!
//! Field by field the same as `view/mod.rs` and `view/why.rs` answer about a job in the table, but for what only a running daemon
//! knows:
//!
//! | field | in the table | in the journal |
//! |---|---|---|
//! | `job`: attached | until its connection ends | no |
//! | `job`: the texts of stacks in its deaths | while they are among the last deaths of all jobs | none |
//! | `why`: the worker that still holds its last offer | until that is settled | none |
//! | `why`: the last failure that was tried again | while the event is kept | always |
//! | a log | while there is room | none |
//!
//! Pure. The machine reads the job (`machine/look_up.rs`), and only ended jobs come here.

use bulkhead_facts::fact::{AcceptedJobs, DurableEnd};
use bulkhead_proto::client::message::Reply;
use bulkhead_proto::client::outcome::{JobEnded, JobOutput, Outcome};
use bulkhead_proto::client::view::{JobDeath, JobDetail, JobRow};
use bulkhead_proto::client::why::{LastFailure, Past, Why, WhyEnded, WhyNow};
use bulkhead_proto::job::JobState;

use crate::event::JournalJob;
use crate::job::EVIDENCE_MAX;
use crate::view::{INPUT_CHARS, ViewReply, detail_bytes, text_of_input, why_bytes};

/// The end of a job as `result` and `wait` tell it.
pub(crate) fn told(job: &JournalJob, end: &DurableEnd) -> JobEnded {
    JobEnded {
        job: job.job,
        outcome: end.outcome.clone(),
        output: end.output.clone().map_or(JobOutput::None, JobOutput::Inline),
        attempts: job.counts.attempts,
        survivors: end.survivors.clone(),
    }
}

/// Answers `job`.
pub(crate) fn detail(job: &JournalJob, end: &DurableEnd) -> ViewReply {
    let AcceptedJobs { kind, policy, flavour, uid, accepted_us, .. } = &job.submit;
    let row = JobRow {
        job: job.job,
        kind: kind.clone(),
        state: JobState::Ended,
        outcome: Some(end.outcome.word().to_owned()),
        attempts: job.counts.attempts,
        crashes: job.counts.crashes,
        uid: *uid,
        accepted_us: *accepted_us,
    };
    let input = job.input.as_ref().map(|input| text_of_input(kind, input.as_bytes())).unwrap_or_default();
    let detail = JobDetail {
        row,
        policy: policy.clone(),
        flavour: *flavour,
        attached: false,
        has_files: false,
        input: input.chars().take(INPUT_CHARS).collect(),
        worker: None,
        parts: None,
        outcome: Some(end.outcome.clone()),
        output_bytes: end.output.as_ref().map(|output| output.as_bytes().len() as u64),
        output_gone: None,
        ended_us: Some(end.at_us),
        deaths: deaths(job),
        survivors: end.survivors.clone(),
    };
    let bytes = detail_bytes(&detail);
    ViewReply { reply: Reply::Job(Box::new(detail)), bytes }
}

/// Answers `why`.
pub(crate) fn why(job: &JournalJob, end: &DurableEnd) -> ViewReply {
    let (policy, counts) = (&job.submit.policy, &job.counts);
    let ended = WhyEnded {
        how: end.outcome.clone(),
        part: None,
        by: end.by,
        gone: None,
        at_us: end.at_us,
        expires_ms: policy.expires_ms.filter(|_| end.outcome == Outcome::Expired),
        holder: None,
        had_files: false,
    };
    let past = Past {
        deaths: deaths(job),
        crashes: counts.crashes,
        crashes_max: policy.crash_budget(),
        failures: counts.retries,
        retries_max: policy.retry_budget(),
        last_failure: if counts.retries > 0 { last_failure(job) } else { None },
        lost: counts.lost,
        asked: counts.asked,
    };
    let why =
        Why { job: job.job, attempts: counts.attempts, now: WhyNow::Ended(ended), vanished_ms: None, past };
    let bytes = why_bytes(&why);
    ViewReply { reply: Reply::Why(Box::new(why)), bytes }
}

/// The deaths of its attempts, as many as a job in the table keeps, oldest first.
pub(crate) fn deaths(job: &JournalJob) -> Vec<JobDeath> {
    let mut deaths: Vec<_> =
        job.attempts.iter().rev().filter_map(|attempt| attempt.death.as_deref()).take(EVIDENCE_MAX).collect();
    deaths.reverse();
    deaths.into_iter().cloned().collect()
}

/// The last failure after which the job was tried again.
fn last_failure(job: &JournalJob) -> Option<LastFailure> {
    let mut failed =
        job.attempts.iter().rev().filter_map(|attempt| Some((attempt.number, attempt.message.clone()?)));
    failed.next().map(|(attempt, message)| LastFailure { attempt, message })
}

//! An ended job as clients see it: `job`, `result` and `why`, in the types of the protocol.
//!
//! The core answers the same about the jobs that it still has. What only a running daemon knows is empty here: workers, files,
//! and whether the client is connected. Pure, but for the reads of `reader.rs`.

use bulkhead_proto::client::outcome::{JobEnded, JobOutput, Outcome};
use bulkhead_proto::client::view::{JobDeath, JobDetail, JobRow};
use bulkhead_proto::client::why::{LastFailure, Past, Why, WhyEnded, WhyNow};
use bulkhead_proto::exec::Program;
use bulkhead_proto::job::JobState;
use bulkhead_proto::kind::EXEC;

use crate::reader::StoredJob;
use crate::rows::StoredEnd;

/// Most characters of an input that are shown.
const INPUT_CHARS: usize = 200;

impl StoredEnd {
    /// The end of the job as `result` and `wait` tell it.
    pub fn told(&self) -> JobEnded {
        JobEnded {
            job: self.end.job,
            outcome: self.end.outcome.clone(),
            output: self.end.output.clone().map_or(JobOutput::None, JobOutput::Inline),
            attempts: self.counts.attempts,
            survivors: self.end.survivors.clone(),
        }
    }
}

impl StoredJob {
    /// The row of an ended job in a list. `None`: it has not ended.
    pub fn row(&self) -> Option<JobRow> {
        let end = self.end.as_ref()?;
        Some(JobRow {
            job: self.job,
            kind: end.kind.clone(),
            state: JobState::Ended,
            outcome: Some(end.end.outcome.word().to_owned()),
            attempts: self.counts.attempts,
            crashes: self.counts.crashes,
            uid: end.uid,
            accepted_us: end.accepted_us,
        })
    }

    /// Everything that is shown of an ended job. The input of a job that is done is not kept. `None`: it has not ended.
    pub fn detail(&self) -> Option<JobDetail> {
        let (row, end) = (self.row()?, &self.end.as_ref()?.end);
        let shared = &self.submit.shared;
        Some(JobDetail {
            row,
            policy: shared.policy.clone(),
            flavour: shared.flavour,
            attached: false,
            has_files: false,
            input: self.input_as_text().chars().take(INPUT_CHARS).collect(),
            worker: None,
            parts: None,
            outcome: Some(end.outcome.clone()),
            output_bytes: end.output.as_ref().map(|output| output.as_bytes().len() as u64),
            output_gone: None,
            ended_us: Some(end.at_us),
            deaths: self.deaths(),
            survivors: end.survivors.clone(),
        })
    }

    /// Why an ended job ended as it did. `None`: it has not ended.
    pub fn why(&self) -> Option<Why> {
        let (end, policy) = (&self.end.as_ref()?.end, &self.submit.shared.policy);
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
            deaths: self.deaths(),
            crashes: self.counts.crashes,
            crashes_max: policy.crash_budget(),
            failures: self.counts.retries,
            retries_max: policy.retry_budget(),
            last_failure: if self.counts.retries > 0 { self.last_failure() } else { None },
            lost: self.counts.lost,
            asked: self.counts.asked,
        };
        let attempts = self.counts.attempts;
        Some(Why { job: self.job, attempts, now: WhyNow::Ended(ended), vanished_ms: None, past })
    }

    fn deaths(&self) -> Vec<JobDeath> {
        self.attempts.iter().filter_map(|attempt| attempt.death.as_deref().cloned()).collect()
    }

    /// The last failure after which the job was tried again.
    fn last_failure(&self) -> Option<LastFailure> {
        let failed =
            self.attempts.iter().rev().find_map(|attempt| Some((attempt.number, attempt.message.clone()?)));
        failed.map(|(attempt, message)| LastFailure { attempt, message })
    }

    /// The input as text: a program as its words, other input as UTF-8 with replacements.
    fn input_as_text(&self) -> String {
        let Some(input) = self.input.as_ref().map(|input| input.as_bytes()) else { return String::new() };
        let is_program = self.submit.shared.kind == EXEC;
        let program = is_program.then(|| Program::from_input(input).ok()).flatten();
        program.map_or_else(|| String::from_utf8_lossy(input).into_owned(), |program| program.to_string())
    }
}

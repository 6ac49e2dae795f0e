//! Facts as columns, and back: the one place that knows how a value stands in a row.
//!
//! What SQL compares has a column of its own; policies, outcomes and deaths are JSON with the names of their fields, so that a later
//! version reads what this one wrote. Nothing here runs a statement.

use bulkhead_facts::durable_job::DurableJob;
use bulkhead_facts::fact::{AttemptEnd, DurableEnd, EndedAttempt};
use bulkhead_proto::client::outcome::{Outcome, Survivor};
use bulkhead_proto::client::why::Canceller;
use bulkhead_proto::ids::{Fence, JobId};
use bulkhead_proto::job::{Payload, Policy};
use rusqlite::types::Type;
use rusqlite::{Error, Row};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// How many columns [`counts_of`] reads.
pub(crate) const COUNTS_WIDTH: usize = 9;
/// The columns of [`counts_of`], in its order.
pub(crate) const COUNTS: &str = "fence, is_open, attempts, crashes, retries, lost, lost_since, asked, alone";

/// What is known of an end besides its columns.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct EndDetail {
    /// The outcome, unless the job is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<Canceller>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    survivors: Vec<Survivor>,
}

/// The fields that the jobs of a submit share, as rows of its jobs repeat them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SharedFields {
    pub(crate) first: JobId,
    pub(crate) count: u32,
    pub(crate) uid: u32,
    pub(crate) urgency: u8,
    pub(crate) kind: String,
}

impl SharedFields {
    /// The columns of [`Self::of`], in its order.
    pub(crate) const COLUMNS: &str = "first, count, uid, urgency, kind";

    pub(crate) fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            first: JobId(row.get(0)?),
            count: row.get(1)?,
            uid: row.get(2)?,
            urgency: row.get(3)?,
            kind: row.get(4)?,
        })
    }

    /// Whether the job is one of them.
    pub(crate) fn has(&self, job: JobId) -> bool {
        (self.first.0..self.first.0 + u64::from(self.count)).contains(&job.0)
    }
}

/// The counts of a job, from this column on.
pub(crate) fn counts_of(row: &Row<'_>, from: usize) -> rusqlite::Result<DurableJob> {
    Ok(DurableJob {
        fence: Fence(row.get(from)?),
        is_open: row.get(from + 1)?,
        attempts: row.get(from + 2)?,
        crashes: row.get(from + 3)?,
        retries: row.get(from + 4)?,
        lost: row.get(from + 5)?,
        lost_since: row.get(from + 6)?,
        asked: row.get(from + 7)?,
        alone: row.get(from + 8)?,
    })
}

/// A value as JSON.
pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain values with names as keys are JSON")
}

/// The value of a column with JSON.
pub(crate) fn from_json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

/// Whether the value of a row cannot be what was stored: the row is damaged, and others may be whole.
pub(crate) fn is_of_row(error: &Error) -> bool {
    matches!(
        error,
        Error::FromSqlConversionFailure(..)
            | Error::InvalidColumnType(..)
            | Error::IntegralValueOutOfRange(..)
            | Error::Utf8Error(..)
    )
}

/// The order of a job among its user's: the most urgent first.
pub(crate) fn urgency(policy: &Policy) -> u8 {
    bulkhead_proto::limits::PRIORITY_MAX.saturating_sub(policy.priority)
}

/// The columns `cause` and `detail` of an end.
pub(crate) fn cause_of(end: &DurableEnd) -> (Option<String>, Option<String>) {
    let outcome = (end.outcome != Outcome::Done).then(|| end.outcome.clone());
    if outcome.is_none() && end.by.is_none() && end.survivors.is_empty() {
        return (None, None);
    }
    let cause = outcome.as_ref().map(Outcome::to_string);
    (cause, Some(json(&EndDetail { outcome, by: end.by, survivors: end.survivors.clone() })))
}

/// A row of the table of results, with the fields of its submit that `job` and `jobs` show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEnd {
    /// How it ended.
    pub end: DurableEnd,
    /// Its counts.
    pub counts: DurableJob,
    /// The first job of its submit.
    pub submit: JobId,
    /// The user who submitted it.
    pub uid: u32,
    /// Its kind.
    pub kind: String,
    /// When it was accepted.
    pub accepted_us: u64,
}

impl StoredEnd {
    /// The columns of [`Self::of`], in its order, of `result` and `submit` joined.
    pub(crate) const COLUMNS: &str = "job, result.fence, 0, attempts, crashes, retries, lost, lost_since, asked, alone, \
        result.submit, result.uid, result.kind, accepted_us, \
        end_fence, at_us, started_us, waited_us, ran_us, detail, output";

    pub(crate) fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        let detail: Option<String> = row.get(19)?;
        let detail = if detail.is_some() { from_json(row, 19)? } else { EndDetail::default() };
        let output: Option<Vec<u8>> = row.get(20)?;
        let fence: Option<u32> = row.get(14)?;
        let end = DurableEnd {
            job: JobId(row.get(0)?),
            fence: fence.map(Fence),
            outcome: detail.outcome.unwrap_or(Outcome::Done),
            output: output.map(Payload::from),
            at_us: row.get(15)?,
            started_us: row.get(16)?,
            waited_us: row.get(17)?,
            ran_us: row.get(18)?,
            by: detail.by,
            survivors: detail.survivors,
        };
        Ok(Self {
            end,
            counts: counts_of(row, 1)?,
            submit: JobId(row.get(10)?),
            uid: row.get(11)?,
            kind: row.get(12)?,
            accepted_us: row.get(13)?,
        })
    }
}

/// The columns of [`attempt_of`], in its order.
pub(crate) const ATTEMPT: &str = "job, fence, number, how, at_us, message, death";

/// A row of the table of attempts.
pub(crate) fn attempt_of(row: &Row<'_>) -> rusqlite::Result<EndedAttempt> {
    let how: String = row.get(3)?;
    let how = AttemptEnd::of_word(&how).ok_or_else(|| {
        rusqlite::Error::FromSqlConversionFailure(3, Type::Text, format!("{how:?} ends no attempt").into())
    })?;
    let death: Option<String> = row.get(6)?;
    Ok(EndedAttempt {
        job: JobId(row.get(0)?),
        fence: Fence(row.get(1)?),
        number: row.get(2)?,
        how,
        at_us: row.get(4)?,
        message: row.get(5)?,
        death: if death.is_some() { Some(Box::new(from_json(row, 6)?)) } else { None },
    })
}

/// A checksum of an input: it finds a page that the disk has changed, and nothing that is done on purpose.
pub(crate) fn checksum(bytes: &[u8]) -> i64 {
    // FNV-1a over words of eight bytes, with the high bits folded in; the length tells a short last word from zeros.
    let mut sum = 0xcbf2_9ce4_8422_2325 ^ bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        sum = (sum ^ u64::from_le_bytes(word)).wrapping_mul(0x0000_0100_0000_01b3);
        sum ^= sum >> 32;
    }
    i64::from_le_bytes(sum.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bit_that_flips_changes_the_checksum() {
        let bytes: Vec<u8> = (0..100).collect();
        for at in 0..bytes.len() * 8 {
            let mut other = bytes.clone();
            other[at / 8] ^= 1 << (at % 8);
            assert_ne!(checksum(&other), checksum(&bytes), "bit {at}");
        }
        assert_ne!(checksum(&[1]), checksum(&[1, 0]));
    }

    #[test]
    fn the_end_of_a_job_that_is_simply_done_has_no_detail() {
        let mut end = DurableEnd {
            job: JobId(1),
            fence: None,
            outcome: Outcome::Done,
            output: None,
            at_us: 0,
            started_us: None,
            waited_us: 0,
            ran_us: 0,
            by: None,
            survivors: Vec::new(),
        };
        assert_eq!(cause_of(&end), (None, None));
        end.outcome = Outcome::Failed { message: "no".to_owned(), code: None };
        let (cause, detail) = cause_of(&end);
        assert_eq!(cause.as_deref(), Some("failed: no"));
        assert_eq!(detail.unwrap(), r#"{"outcome":{"outcome":"failed","message":"no","code":null}}"#);
    }
}

//! Deaths, as the daemon sends them, with their frames as lines of text.
//!
//! The caller resolves addresses to lines, because that needs the file of the worker program; this crate opens no file.

use bulkhead_proto::client::evidence::Evidence;
use bulkhead_proto::client::view::{DeathRow, JobDetail};
use serde::Serialize;
use serde_json::{Value, json};

/// A row of `deaths`; `backtrace` gives the lines for its frames.
///
/// # Errors
/// If it cannot be serialised.
pub fn row(row: &DeathRow, mut backtrace: impl FnMut(&Evidence) -> Vec<String>) -> serde_json::Result<Value> {
    with_lines(row, backtrace(&row.death.evidence))
}

/// All about a job; `backtrace` gives the lines for the frames of each of its deaths.
///
/// # Errors
/// If it cannot be serialised.
pub fn job(
    detail: &JobDetail,
    mut backtrace: impl FnMut(&Evidence) -> Vec<String>,
) -> serde_json::Result<Value> {
    let mut value = serde_json::to_value(detail)?;
    let deaths: serde_json::Result<Vec<Value>> =
        detail.deaths.iter().map(|one| with_lines(one, backtrace(&one.evidence))).collect();
    value["deaths"] = deaths?.into();
    Ok(value)
}

fn with_lines(of: &impl Serialize, lines: Vec<String>) -> serde_json::Result<Value> {
    let mut value = serde_json::to_value(of)?;
    if let Some(fields) = value.as_object_mut() {
        fields.insert("backtrace".to_owned(), json!(lines));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use bulkhead_proto::client::view::JobDeath;
    use bulkhead_proto::death::Death;
    use bulkhead_proto::ids::{JobId, WorkerId};

    use super::*;

    #[test]
    fn programs_get_the_frames_as_lines_too() {
        let evidence = Evidence { frames: vec![0x10], ..Evidence::default() };
        let value = with_lines(&evidence, vec!["0x10".to_owned()]).unwrap();
        assert_eq!((&value["frames"][0], &value["backtrace"][0]), (&json!(16), &json!("0x10")));
    }

    #[test]
    fn a_row_has_the_lines_beside_its_death() {
        let death = JobDeath {
            at_us: 5,
            part: None,
            attempt: 1,
            worker: WorkerId(3),
            pid: 812,
            death: Death::Signalled { signal: 9, core: false },
            charged: true,
            evidence: Evidence { frames: vec![0x10], ..Evidence::default() },
        };
        let of = DeathRow { job: JobId(7), kind: "chaos".to_owned(), uid: 1000, death };
        let value = row(&of, |evidence| evidence.frames.iter().map(u64::to_string).collect()).unwrap();
        assert_eq!((&value["job"], &value["backtrace"]), (&json!(7), &json!(["16"])));
    }
}

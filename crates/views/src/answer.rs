//! The short answers: one JSON object for each reply that is neither a row of a list nor the end of a job.
//!
//! Each function is named after the answer. All values are arguments; nothing is computed here. Driven by the verbs of
//! the command line.

use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::ids::JobId;
use serde_json::{Value, json};

/// A job was accepted with this number.
pub fn accepted(job: JobId) -> Value {
    json!({ "job": job })
}

/// How many jobs were changed, and why the others were not.
pub fn changed(count: u64, refused: &[Refusal]) -> Value {
    json!({ "count": count, "refused": refused })
}

/// Which jobs were ended because they waited, which run on, and why the others were not ended.
pub fn cancelled_waiting(ended: &[JobId], running: &[JobId], refused: &[Refusal]) -> Value {
    json!({ "ended": ended, "running": running, "refused": refused })
}

/// The daemon refused a request about this job.
pub fn refused(job: JobId, refusal: &Refusal) -> Value {
    json!({ "job": job, "refused": refusal })
}

/// The progress of a job: `done` of `total` units; a total of 0 is not known.
pub fn progress(job: JobId, done: u64, total: u64) -> Value {
    json!({ "job": job, "done": done, "total": total })
}

/// How many events the daemon dropped before they were read.
pub fn missed(count: u64) -> Value {
    json!({ "event": "missed", "count": count })
}

/// The daemon's process id, and the time of its answer in microseconds.
pub fn pong(pid: u32, round_trip_us: u64) -> Value {
    json!({ "pid": pid, "round_trip_us": round_trip_us })
}

/// The daemon drains; `left` jobs have not ended.
pub fn draining(left: u64) -> Value {
    json!({ "draining": true, "left": left })
}

/// The daemon has stopped; `lost` is `None` if it did not say how many jobs were lost.
pub fn drained(lost: Option<u64>) -> Value {
    json!({ "stopped": true, "lost": lost })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_the_order_of_the_alphabet() {
        let refusal = || Refusal::NeverWas { job: JobId(9), last: JobId(3) };
        for (value, text) in [
            (accepted(JobId(7)), r#"{"job":7}"#),
            (changed(2, &[]), r#"{"count":2,"refused":[]}"#),
            (changed(0, &[refusal()]), r#"{"count":0,"refused":[{"job":9,"last":3,"refusal":"never-was"}]}"#),
            (cancelled_waiting(&[JobId(4)], &[JobId(5)], &[]), r#"{"ended":[4],"refused":[],"running":[5]}"#),
            (
                refused(JobId(9), &refusal()),
                r#"{"job":9,"refused":{"job":9,"last":3,"refusal":"never-was"}}"#,
            ),
            (progress(JobId(7), 1, 2), r#"{"done":1,"job":7,"total":2}"#),
            (missed(4), r#"{"count":4,"event":"missed"}"#),
            (pong(812, 41), r#"{"pid":812,"round_trip_us":41}"#),
            (draining(3), r#"{"draining":true,"left":3}"#),
            (drained(Some(0)), r#"{"lost":0,"stopped":true}"#),
            (drained(None), r#"{"lost":null,"stopped":true}"#),
        ] {
            assert_eq!(value.to_string(), text);
        }
    }
}

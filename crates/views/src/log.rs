//! The entries of a job's log: one object for each entry, and one for each gap.
//!
//! The objects are the same for a log that is read once and for one that is followed. Bytes that are no UTF-8 are
//! replaced.

use bulkhead_proto::ids::JobId;
use bulkhead_proto::log::LogStream;
use serde_json::{Value, json};

use bulkhead_proto::utc::utc;

/// The name of a stream.
pub fn stream_name(stream: LogStream) -> &'static str {
    match stream {
        LogStream::Out => "stdout",
        LogStream::Err => "stderr",
    }
}

/// Bytes that a job wrote at this moment, in microseconds since 1970.
pub fn entry(job: JobId, wall_us: u64, stream: LogStream, bytes: &[u8]) -> Value {
    let text = String::from_utf8_lossy(bytes);
    json!({ "job": job, "at": utc(wall_us), "stream": stream_name(stream), "text": text })
}

/// This many bytes are missing here, because the log is full.
pub fn dropped(job: JobId, bytes: u64) -> Value {
    json!({ "job": job, "dropped_bytes": bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_has_its_moment_and_its_stream() {
        assert_eq!(
            entry(JobId(7), 1, LogStream::Err, b"no\xFF\n").to_string(),
            "{\"at\":\"1970-01-01T00:00:00.000001Z\",\"job\":7,\"stream\":\"stderr\",\"text\":\"no\u{FFFD}\\n\"}"
        );
        assert_eq!(entry(JobId(7), 1, LogStream::Out, b"")["stream"], "stdout");
        assert_eq!(dropped(JobId(7), 64).to_string(), r#"{"dropped_bytes":64,"job":7}"#);
    }
}

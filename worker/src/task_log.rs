//! Writes the log of a task while it runs, so that a reader who follows the job finds new entries at once.
//!
//! For each attempt of a kind that keeps logs the supervisor makes a memfd of 1 MiB, sealed in its size. The worker
//! gets it with its offer and writes to it. Users who may see the job get a second descriptor, which can only be read,
//! and read it themselves; the file's mode lets no other process open it again. The format (`proto/src/log.rs`) needs
//! no lock. No result depends on the log: if it cannot be written any more, that is logged once and the task goes on.
//! Driven by `TaskContext::log`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{SystemTime, UNIX_EPOCH};

use bulkhead_proto::log::{LogStream, LogWriter, Write};

/// The log of one task.
#[derive(Debug)]
pub(crate) struct TaskLog {
    /// `None` if there is no log, or it cannot be written any more.
    file: Option<File>,
    writer: LogWriter,
}

impl TaskLog {
    /// Writes into an empty file of the supervisor, if there is one.
    pub(crate) fn new(file: Option<File>) -> Self {
        Self { file, writer: LogWriter::default() }
    }

    /// Adds bytes with the current time.
    pub(crate) fn add(&mut self, stream: LogStream, bytes: &[u8]) {
        let Some(file) = &self.file else { return };
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall_us = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        if let Err(error) = self.writer.add(wall_us, stream, bytes, |write| put(file, &write)) {
            log::warn!("the log of a task ends here error={error}");
            self.file = None;
        }
    }
}

/// Writes the records first and then the head that counts them, so that a reader never sees a head without its records.
fn put(file: &File, write: &Write<'_>) -> io::Result<()> {
    if write.is_reused {
        file.write_all_at(&[0; 8], write.at)?;
    }
    let (from, records) = write.records;
    file.write_all_at(records, write.at + from as u64)?;
    file.write_all_at(&write.head, write.at)
}

#[cfg(test)]
mod tests {
    use bulkhead_proto::log::{LOG_BYTES, LogFound, LogReader};
    use bulkhead_sys::memfd::log_file;

    use super::*;

    #[test]
    fn what_is_added_can_be_read_by_another_descriptor() {
        let (writer, reader) = log_file("log", LOG_BYTES).unwrap();
        let (mut log, file) = (TaskLog::new(Some(writer.into())), File::from(reader));
        let mut whole = Vec::new();
        let mut reading = LogReader::default();
        let mut read = Vec::new();
        let mut look = |reading: &mut LogReader| {
            let load = |at: u64, into: &mut [u8]| file.read_exact_at(into, at);
            let each = |found| {
                if let LogFound::Entry(entry) = found {
                    assert!(entry.wall_us > 1_600_000_000_000_000);
                    read.extend(entry.bytes);
                }
                Ok(())
            };
            reading.read(load, each).unwrap();
            read.len()
        };
        for number in 0..4000 {
            let line = format!("line {number} of a log that goes round\n");
            log.add(LogStream::Err, line.as_bytes());
            whole.extend_from_slice(line.as_bytes());
            if number % 300 == 0 {
                assert_eq!(look(&mut reading), whole.len());
            }
        }
        look(&mut reading);
        assert_eq!(read, whole);
        assert!(log.file.is_some());
        TaskLog::new(None).add(LogStream::Out, b"nowhere");
    }
}

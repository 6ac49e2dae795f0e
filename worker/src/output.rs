//! Where a task's output goes: into the box while it is short, into the output descriptor once it is not.
//!
//! A write that failed is not forgotten: the task fails with it even if its handler goes on as if nothing had
//! happened, so that no output is ever told as whole that is not.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;

use bulkhead_jobs::Task;
use bulkhead_link::worker::{Finish, Kept, WorkerRing};
use bulkhead_proto::limits::{INLINE_MAX_BYTES, OUTPUT_MAX_BYTES};
use bulkhead_sys::memfd;

const FILE_BUFFER_BYTES: usize = 256 << 10;

/// The output of one task, and the task's way to the box.
pub(crate) struct TaskOutput<'a> {
    ring: &'a WorkerRing,
    inline: Vec<u8>,
    file: Option<BufWriter<File>>,
    /// Bytes that went into the file.
    spilled: u64,
    /// The first write that failed.
    failure: Option<String>,
    breathed: bool,
}

impl<'a> TaskOutput<'a> {
    /// `file` is where output that does not fit the box goes.
    pub(crate) fn new(ring: &'a WorkerRing, file: Option<File>) -> Self {
        let file = file.map(|file| BufWriter::with_capacity(FILE_BUFFER_BYTES, file));
        Self { ring, inline: Vec::new(), file, spilled: 0, failure: None, breathed: false }
    }

    /// Everything written, in the place where it ends up.
    ///
    /// # Errors
    /// A write failed, the last bytes cannot be written to the descriptor, or its task keeps it in use.
    pub(crate) fn finish(&mut self) -> io::Result<Finish<'_>> {
        if let Some(failure) = &self.failure {
            return Err(io::Error::other(failure.clone()));
        }
        if self.spilled == 0 {
            return Ok(Finish::Inline(&self.inline));
        }
        self.seal()?;
        Ok(Finish::Descriptor { bytes: self.spilled })
    }

    /// What a task that failed with this text has written, as far as there is a place for it.
    pub(crate) fn keep(&mut self, text: &str) -> Kept<'_> {
        let is_short = self.spilled == 0 && Kept::fits(text, self.inline.len());
        if is_short {
            return if self.inline.is_empty() { Kept::Nothing } else { Kept::Inline(&self.inline) };
        }
        if self.spilled == 0 && self.spill(&[]).is_err() {
            return Kept::Nothing;
        }
        match self.seal() {
            Ok(()) => Kept::Descriptor { bytes: self.spilled },
            Err(error) => {
                log::warn!("the output of a failed task is not kept error={error}");
                Kept::Nothing
            }
        }
    }

    /// Here and not in the supervisor: the kernel may wait for whoever has the file in use.
    fn seal(&mut self) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            file.flush()?;
            memfd::seal_output(file.get_ref().as_fd())?;
        }
        Ok(())
    }

    /// The task is over and its worker lives, whatever the task had announced.
    pub(crate) fn outlive(&self) {
        if self.breathed {
            self.ring.breathe_on();
        }
    }

    fn spill(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(file) = &mut self.file else {
            return Err(io::Error::other(format!(
                "longer than the {INLINE_MAX_BYTES} bytes that fit inline: ask for an output descriptor (--large)"
            )));
        };
        let total = self.spilled + (self.inline.len() + bytes.len()) as u64;
        if total > OUTPUT_MAX_BYTES {
            return Err(io::Error::other(format!("longer than the limit of {OUTPUT_MAX_BYTES} bytes")));
        }
        file.write_all(&self.inline)?;
        self.inline.clear();
        file.write_all(bytes)?;
        self.spilled = total;
        Ok(bytes.len())
    }
}

impl Write for TaskOutput<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(failure) = &self.failure {
            return Err(io::Error::other(failure.clone()));
        }
        if self.spilled > 0 || self.inline.len() + bytes.len() > INLINE_MAX_BYTES {
            return self.spill(bytes).inspect_err(|error| self.failure = Some(error.to_string()));
        }
        self.inline.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Task for TaskOutput<'_> {
    fn progress(&mut self, done: u64, total: u64) {
        self.ring.progress(done, total);
    }

    fn say(&mut self, words: &str) {
        self.ring.say(words);
    }

    fn last_breath(&mut self) {
        self.breathed = true;
        self.ring.last_breath();
    }
}

#[cfg(test)]
mod tests;

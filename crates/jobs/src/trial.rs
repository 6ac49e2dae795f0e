//! For tests: a task that keeps its output in memory, and can be told to refuse it.

use std::io;

use crate::{Failure, Handler, Task};

/// A task without a worker.
#[derive(Default)]
pub(crate) struct Trial {
    /// What was written.
    pub(crate) output: Vec<u8>,
    /// How often the last breath was drawn.
    pub(crate) breaths: usize,
    /// The last progress that was told.
    pub(crate) progress: Option<(u64, u64)>,
    /// Everything that was said.
    pub(crate) said: Vec<String>,
    /// Bytes after which writing fails.
    pub(crate) room: Option<usize>,
}

impl io::Write for Trial {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.room {
            Some(room) if self.output.len() + bytes.len() > room => Err(io::Error::other("no room")),
            _ => {
                self.output.extend_from_slice(bytes);
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Task for Trial {
    fn progress(&mut self, done: u64, total: u64) {
        self.progress = Some((done, total));
    }

    fn say(&mut self, words: &str) {
        self.said.push(words.to_owned());
    }

    fn last_breath(&mut self) {
        self.breaths += 1;
    }
}

/// Runs a handler on text and gives its output as text.
pub(crate) fn output_of(handler: Handler, input: &str) -> Result<String, Failure> {
    let mut task = Trial::default();
    handler(input.as_bytes(), &mut task)?;
    Ok(String::from_utf8(task.output).unwrap())
}

/// Runs a handler that must fail and gives what it said.
pub(crate) fn failure_of(handler: Handler, input: &str) -> String {
    output_of(handler, input).unwrap_err().to_string()
}

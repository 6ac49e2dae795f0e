//! The end of a job as a client holds it: its outcome, and its output as bytes or as a file.
//!
//! A descriptor's word is checked on arrival: it must be a file as long as announced. It is read by position only:
//! everybody who got this output shares one file offset, so nobody may use it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use bulkhead_proto::client::outcome::{self, Ended, Outcome};
use bulkhead_proto::ids::JobId;

use crate::error::{Error, ProtocolError};

/// How a job ended, and what it left.
#[derive(Debug)]
pub struct JobEnd {
    /// Which job.
    pub job: JobId,
    /// How it ended.
    pub outcome: Outcome,
    /// What it left.
    pub output: ReceivedOutput,
    /// Attempts that were started.
    pub attempts: u32,
}

/// What a job left: its result, or what it had written when it failed.
#[derive(Debug)]
pub enum ReceivedOutput {
    /// Nothing: the job is not `done`, or failed and left nothing.
    None,
    /// Bytes that came with the answer.
    Inline(Vec<u8>),
    /// A file, for what is longer.
    File(ReceivedFile),
}

impl ReceivedOutput {
    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Inline(bytes) => bytes.len() as u64,
            Self::File(file) => file.bytes(),
        }
    }
}

/// An output in a descriptor of its own: sealed against change, gone when the last holder drops it.
#[derive(Debug)]
pub struct ReceivedFile {
    file: File,
    bytes: u64,
}

impl ReceivedFile {
    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads it from its beginning. Any number of readers may read at once.
    pub fn reader(&self) -> OutputReader<'_> {
        OutputReader { output: self, at: 0 }
    }

    /// The file itself. Read it by position (`read_at`): its offset is shared with others and may be anywhere.
    pub fn into_file(self) -> File {
        self.file
    }
}

/// Reads an [`ReceivedFile`] without touching its offset.
#[derive(Debug)]
pub struct OutputReader<'a> {
    output: &'a ReceivedFile,
    at: u64,
}

impl Read for OutputReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.output.bytes - self.at).unwrap_or(usize::MAX).min(into.len());
        if left == 0 {
            return Ok(0);
        }
        let count = self.output.file.read_at(&mut into[..left], self.at)?;
        self.at += count as u64;
        if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(count) }
    }
}

impl JobEnd {
    /// Takes what the daemon said, and the descriptor if it announced one.
    pub(crate) fn receive(
        ended: Ended,
        mut descriptor: impl FnMut() -> Option<OwnedFd>,
    ) -> Result<Self, Error> {
        let Ended { job, outcome, output, attempts } = ended;
        let output = match output {
            outcome::Output::None => ReceivedOutput::None,
            outcome::Output::Inline(payload) => ReceivedOutput::Inline(payload.into()),
            outcome::Output::Descriptor { bytes } => {
                let file = File::from(descriptor().ok_or(ProtocolError::NoDescriptor(job))?);
                let there = file.metadata()?.len();
                if there != bytes {
                    return Err(ProtocolError::DescriptorSize { job, announced: bytes, there }.into());
                }
                ReceivedOutput::File(ReceivedFile { file, bytes })
            }
        };
        Ok(Self { job, outcome, output, attempts })
    }
}

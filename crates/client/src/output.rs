//! The end of a job as a client holds it: its outcome, and its output as bytes or as a file.
//!
//! The size of a descriptor is compared with the announced size when it arrives. Its file is read by position only
//! (pread): all processes that hold this output share one file offset.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use bulkhead_proto::client::outcome::{self, JobEnded, Outcome, OutputGone, Survivor};
use bulkhead_proto::ids::JobId;

use crate::error::{Error, ProtocolError};
use crate::frame_halves::FrameReceiver;

/// How a job ended, and its output.
#[derive(Debug)]
pub struct JobEnd {
    /// The job.
    pub job: JobId,
    /// How it ended.
    pub outcome: Outcome,
    /// Its output.
    pub output: ReceivedOutput,
    /// Attempts that were started.
    pub attempts: u32,
    /// Processes of its last attempt that the daemon could not end, because they run as other users.
    pub survivors: Vec<Survivor>,
}

/// The output of a job: its result, or what it had written before it failed.
#[derive(Debug)]
pub enum ReceivedOutput {
    /// None: the job did not end `done`, or it failed and had written nothing.
    None,
    /// Bytes that arrived in the reply, or that were copied out of an arena.
    Inline(Vec<u8>),
    /// A file, for longer outputs.
    File(ReceivedFile),
    /// The daemon has dropped it to make room.
    Gone(OutputGone),
}

impl ReceivedOutput {
    /// What the daemon says of an output that it has dropped to make room.
    pub fn gone(&self) -> Option<OutputGone> {
        match self {
            Self::Gone(gone) => Some(*gone),
            Self::None | Self::Inline(_) | Self::File(_) => None,
        }
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::None | Self::Gone(_) => 0,
            Self::Inline(bytes) => bytes.len() as u64,
            Self::File(file) => file.bytes(),
        }
    }
}

/// An output in a descriptor of its own, sealed against changes. The kernel frees it with its last descriptor.
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

    /// A reader that begins at byte 0. Any number of readers may read at the same time.
    pub fn reader(&self) -> OutputReader<'_> {
        OutputReader { output: self, at: 0 }
    }

    /// The file itself. Read it by position (`read_at`): other processes share its offset and move it.
    pub fn into_file(self) -> File {
        self.file
    }
}

/// Reads a [`ReceivedFile`] without using its offset.
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
    /// Makes it from the daemon's reply, and from the descriptor or the arena if the reply announces one.
    pub(crate) fn receive(ended: JobEnded, half: &mut FrameReceiver) -> Result<Self, Error> {
        let JobEnded { job, outcome, output, attempts, survivors } = ended;
        let output = match output {
            outcome::JobOutput::None => ReceivedOutput::None,
            outcome::JobOutput::Gone(gone) => ReceivedOutput::Gone(gone),
            outcome::JobOutput::Inline(payload) => ReceivedOutput::Inline(payload.into()),
            outcome::JobOutput::Block(block) => ReceivedOutput::Inline(half.read_block(job, block)?),
            outcome::JobOutput::Descriptor { bytes } => {
                let file = File::from(half.next_descriptor().ok_or(ProtocolError::NoDescriptor(job))?);
                let there = file.metadata()?.len();
                if there != bytes {
                    return Err(ProtocolError::DescriptorSize { job, announced: bytes, there }.into());
                }
                ReceivedOutput::File(ReceivedFile { file, bytes })
            }
        };
        Ok(Self { job, outcome, output, attempts, survivors })
    }
}

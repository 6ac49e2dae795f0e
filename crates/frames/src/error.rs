//! What can be wrong with a clip, a chain or the I/O around them, in words for whoever asked for the transform.
//!
//! A fault of a clip names the byte where it was seen, counted from the start of the clip. Nothing here decides
//! what happens next.

use std::{fmt, io};

use crate::limits::{FRAME_LINE_MAX_BYTES, FRAME_MAX_BYTES, HEADER_MAX_BYTES};

/// Why a transform cannot be done.
#[derive(Debug)]
pub enum TransformError {
    /// The clip is no Y4M, or not a whole one.
    Clip {
        /// The byte where that was seen, from the start of the clip.
        at: u64,
        /// What was seen there.
        flaw: Flaw,
    },
    /// The clip could not be read.
    Read {
        /// The byte from which on.
        at: u64,
        /// What the system said.
        error: io::Error,
    },
    /// The output could not be written.
    Write {
        /// The byte from which on.
        at: u64,
        /// What the system said.
        error: io::Error,
    },
    /// The chain says no operation, or cannot be done to this clip.
    Chain(String),
    /// What the run tasks told does not add up to the plan.
    Merge(String),
    /// Whoever asked for it said in the middle that it is to stop.
    Stopped,
}

/// What is wrong at a byte of a clip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It does not begin as every Y4M clip does.
    NotY4m,
    /// There is not a byte: whoever should have written it has probably failed.
    Empty,
    /// The header has no end.
    HeaderTooLong,
    /// The clip ends within its header.
    HeaderCut,
    /// A tag that must be there is not.
    Missing(&'static str),
    /// The same tag again, which may have only one value.
    Twice(&'static str),
    /// A tag that Y4M does not know.
    UnknownTag(String),
    /// A value that the tag cannot have, and what it can.
    Value {
        /// What the tag is for.
        name: &'static str,
        /// What stands there.
        value: String,
        /// What could stand there.
        wanted: String,
    },
    /// A frame of this many bytes.
    FrameTooLarge(u64),
    /// A header and nothing behind it.
    NoFrames,
    /// Something else where the line before a frame must stand.
    NoFrameLine,
    /// A line before a frame that does not end.
    FrameLineTooLong,
    /// The clip ends within a frame.
    Cut {
        /// The frame, counted from 0.
        frame: u64,
        /// How many of its bytes are not there.
        missing: u64,
    },
    /// The clip is not the one that was planned for.
    Changed,
}

impl TransformError {
    /// A flaw of the clip at this byte.
    pub(crate) fn clip(at: u64, flaw: Flaw) -> Self {
        Self::Clip { at, flaw }
    }
}

impl fmt::Display for TransformError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clip { at, flaw } => write!(out, "clip at byte {at}: {flaw}"),
            Self::Read { at, error } => write!(out, "clip at byte {at}: it cannot be read: {error}"),
            Self::Write { at, error } => write!(out, "output at byte {at}: it cannot be written: {error}"),
            Self::Chain(text) | Self::Merge(text) => out.write_str(text),
            Self::Stopped => out.write_str("it was stopped in the middle"),
        }
    }
}

impl std::error::Error for TransformError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { error, .. } | Self::Write { error, .. } => Some(error),
            Self::Clip { .. } | Self::Chain(_) | Self::Merge(_) | Self::Stopped => None,
        }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotY4m => out.write_str("it does not begin with \"YUV4MPEG2 \"; give a Y4M clip"),
            Self::Empty => {
                out.write_str("it is empty; give a Y4M clip, and see what became of whoever writes it")
            }
            Self::HeaderTooLong => write!(out, "the header has no end within {HEADER_MAX_BYTES} bytes"),
            Self::HeaderCut => out.write_str("the clip ends within its header"),
            Self::Missing(name) => write!(out, "the header gives no {name}"),
            Self::Twice(name) => write!(out, "the header gives the {name} twice"),
            Self::UnknownTag(tag) => write!(out, "the header has a tag {tag:?} that Y4M does not know"),
            Self::Value { name, value, wanted } => {
                write!(out, "{name} {value:?} is not possible; {wanted} is")
            }
            Self::FrameTooLarge(bytes) => {
                write!(out, "a frame of {bytes} bytes is too large; {FRAME_MAX_BYTES} are possible")
            }
            Self::NoFrames => out.write_str("the clip has no frames"),
            Self::NoFrameLine => out.write_str("no FRAME line where a frame must begin"),
            Self::FrameLineTooLong => {
                write!(out, "a FRAME line has no end within {FRAME_LINE_MAX_BYTES} bytes")
            }
            Self::Cut { frame, missing } => {
                write!(out, "the clip ends within frame {frame}, {missing} bytes early")
            }
            Self::Changed => out.write_str("the clip was changed after the plan was made"),
        }
    }
}

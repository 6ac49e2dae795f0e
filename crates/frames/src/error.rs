//! The errors of a transform: what is wrong with a clip, a chain or the I/O, in words for the user.
//!
//! An error in a clip names its byte offset from the start of the clip. Nothing here decides what happens next.

use std::{fmt, io};

use crate::limits::{FRAME_LINE_MAX_BYTES, FRAME_MAX_BYTES, HEADER_MAX_BYTES};

/// Why a transform cannot be done.
#[derive(Debug)]
pub enum TransformError {
    /// The clip is no Y4M, or incomplete.
    Clip {
        /// The byte offset, from the start of the clip.
        at: u64,
        /// What is wrong there.
        flaw: Flaw,
    },
    /// The clip could not be read.
    Read {
        /// The byte offset of the read.
        at: u64,
        /// The error of the system call.
        error: io::Error,
    },
    /// The output could not be written.
    Write {
        /// The byte offset of the write.
        at: u64,
        /// The error of the system call.
        error: io::Error,
    },
    /// The chain has an unknown operation, or cannot be applied to this clip.
    Chain(String),
    /// The reports of the run tasks do not match the plan.
    Merge(String),
    /// The caller stopped it in the middle.
    Stopped,
}

/// What is wrong at a byte of a clip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It does not begin with the magic bytes of Y4M.
    NotY4m,
    /// It has no bytes: the program that should have written it has probably failed.
    Empty,
    /// The header has no end.
    HeaderTooLong,
    /// The clip ends within its header.
    HeaderCut,
    /// A tag that must be there is not.
    Missing(&'static str),
    /// A tag that may stand only once stands twice.
    Twice(&'static str),
    /// A tag that Y4M does not define.
    UnknownTag(String),
    /// A tag with an invalid value.
    Value {
        /// The meaning of the tag.
        name: &'static str,
        /// The value.
        value: String,
        /// The valid values.
        wanted: String,
    },
    /// A frame of this many bytes.
    FrameTooLarge(u64),
    /// The clip ends after its header.
    NoFrames,
    /// Other bytes where a FRAME line is expected.
    NoFrameLine,
    /// A FRAME line without an end.
    FrameLineTooLong,
    /// The clip ends within a frame.
    Cut {
        /// The frame, counted from 0.
        frame: u64,
        /// How many of its bytes are missing.
        missing: u64,
    },
    /// The clip has changed since the plan was made.
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
            Self::Stopped => out.write_str("it was stopped before its end"),
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
            Self::Empty => out.write_str(
                "it is empty; give a Y4M clip, and check whether the program that writes it has failed",
            ),
            Self::HeaderTooLong => write!(out, "the header has no end within {HEADER_MAX_BYTES} bytes"),
            Self::HeaderCut => out.write_str("the clip ends within its header"),
            Self::Missing(name) => write!(out, "the header gives no {name}"),
            Self::Twice(name) => write!(out, "the header gives the {name} twice"),
            Self::UnknownTag(tag) => write!(out, "the header has a tag {tag:?} that Y4M does not know"),
            Self::Value { name, value, wanted } => {
                write!(out, "{name} {value:?} is not valid; give {wanted}")
            }
            Self::FrameTooLarge(bytes) => {
                write!(out, "a frame has {bytes} bytes, the limit is {FRAME_MAX_BYTES}")
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

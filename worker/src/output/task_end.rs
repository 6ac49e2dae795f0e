//! How a task ended, and the form in which that is written to the box.
//!
//! It holds no file: all files of the task are closed when it is made. `output.rs` makes it, and `runtime.rs` writes it to the box.

use bulkhead_link::worker::{Finish, PartialOutput};
use bulkhead_proto::death::ProgramEnd;

/// How a task ended and its output, after its files are closed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TaskEnd {
    /// Done, with these bytes.
    Inline(Vec<u8>),
    /// Done, with its output in its descriptor.
    Descriptor { bytes: u64 },
    /// Done, with its output in a block of the arena.
    Block { offset: u64, bytes: usize },
    /// It failed with this text; `inline` or `spilled` is the output before the failure, if it is kept.
    Failed { text: String, program: Option<ProgramEnd>, inline: Vec<u8>, spilled: u64 },
}

impl TaskEnd {
    /// The form in which it is written to the box.
    pub(crate) fn as_finish(&self) -> Finish<'_> {
        match self {
            Self::Inline(bytes) => Finish::Inline(bytes),
            Self::Descriptor { bytes } => Finish::Descriptor { bytes: *bytes },
            Self::Block { offset, bytes } => Finish::Block { offset: *offset, bytes: *bytes },
            Self::Failed { text, program, inline, spilled } => {
                let output = match (inline.is_empty(), *spilled) {
                    (true, 0) => PartialOutput::Nothing,
                    (true, bytes) => PartialOutput::Descriptor { bytes },
                    (false, _) => PartialOutput::Inline(inline),
                };
                Finish::Failed { text, output, program: *program }
            }
        }
    }
}

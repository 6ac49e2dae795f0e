//! What is known of a worker besides its death: what it wrote into its box, and what the kernel showed of it.
//!
//! The supervisor collects it, the core stores it, and `bulkhead job`, `deaths`, `events` and `workers` show it. Frames,
//! progress, last words and the text of a stack were written by the worker and may be anything: nothing may ever be decided by them.
//! [`ProcessSeen`] comes from the kernel.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::client::record_text::Span;
use crate::codec::{Decode, Encode};
use crate::plain::Plain;

/// All that is known of the end of one attempt. Unknown fields are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(default)]
pub struct Evidence {
    /// The backtrace: the innermost [`crate::limits::BACKTRACE_MAX`] addresses at most, the innermost first, as offsets
    /// in the file of the worker program. A caller's address lies inside its call instruction, so each can be looked up
    /// as it is.
    pub frames: Vec<u64>,
    /// Frames of other files, libc for example: [`crate::limits::OTHER_FRAMES_MAX`] at most, the innermost first.
    pub other_frames: Vec<OtherFrame>,
    /// Whether the stack was searched because the running code had no frame pointers: `frames` and `other_frames` may then
    /// contain calls that had already returned.
    pub searched: bool,
    /// The file that the frames belong to. `None` without frames, or if its path is too long.
    pub program: Option<Box<ProgramFile>>,
    /// The last progress that its task reported.
    pub progress: Option<TaskProgress>,
    /// The last words that its task reported; at most [`crate::limits::LAST_WORDS_MAX_BYTES`].
    pub last_words: String,
    /// The stack of its task as its own runtime wrote it, with a mark at the end if it was cut; at most
    /// [`crate::limits::STACK_TEXT_MAX_BYTES`] and the mark. The daemon has it of the last
    /// [`crate::limits::DEATHS_KEPT`] deaths.
    pub stack_text: String,
    /// What the kernel showed of it right before the supervisor killed it.
    pub seen: Option<Box<ProcessSeen>>,
    /// Whether `other_frames` and `stack_text` were left out, because a list of deaths was too long: the detail of the job has them.
    pub shortened: bool,
}

impl Evidence {
    /// About how many bytes those parts take in a message that [`Self::shorten`] leaves out.
    pub fn long_bytes(&self) -> u64 {
        let frames: u64 = self.other_frames.iter().map(|other| 12 + other.image.len() as u64).sum();
        frames + self.stack_text.len() as u64
    }

    /// Leaves out the parts that a list of a thousand deaths has no room for.
    pub fn shorten(&mut self) {
        if self.long_bytes() > 0 {
            (self.other_frames, self.stack_text) = (Vec::new(), String::new());
            self.shortened = true;
        }
    }

    /// The same without the text of the stack, which is too long for what is kept of every death.
    #[must_use]
    pub fn without_stack_text(&self) -> Self {
        Self { stack_text: String::new(), ..self.clone() }
    }

    /// About how many bytes its texts and frames take in a message.
    pub fn wire_bytes(&self) -> u64 {
        let path = self.program.as_ref().map_or(0, |program| program.path.len());
        let place = self.seen.as_ref().map_or(0, |seen| seen.waits_in.len());
        self.long_bytes() + (10 * self.frames.len() + path + place + self.last_words.len()) as u64
    }
}

/// A frame of a file that is not the worker program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct OtherFrame {
    /// The last part of the file's path, without control characters; at most
    /// [`crate::limits::IMAGE_NAME_MAX_BYTES`].
    pub image: String,
    /// The address in that file.
    pub offset: u64,
    /// How many of the program's frames are further in.
    pub after: u8,
}

impl fmt::Display for OtherFrame {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}+{:#x}", Plain(&self.image), self.offset)
    }
}

/// The file of a worker program when the worker was started: frames may be looked up only in a file with these values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct ProgramFile {
    /// Its path; at most [`crate::limits::PROGRAM_PATH_MAX_BYTES`].
    pub path: String,
    /// Its inode number.
    pub inode: u64,
    /// Its length.
    pub bytes: u64,
    /// When its contents were last changed, in nanoseconds since 1970.
    pub modified_ns: i64,
}

/// The progress that a task reports, in a unit that the kind chooses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct TaskProgress {
    /// How much is done.
    pub done: u64,
    /// How much there is to do in all; 0 if unknown.
    pub total: u64,
}

/// What the kernel shows of a living process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct ProcessSeen {
    /// The process: the worker itself, or, once the worker is reaped, a process that it left behind.
    pub pid: u32,
    /// The user that it runs as (its effective uid), if /proc shows it.
    pub uid: Option<u32>,
    /// Its state.
    pub state: RunState,
    /// Processor time of all its threads since its start, in microseconds.
    pub cpu_us: u64,
    /// Processor time since its task was offered to it, in microseconds, if that is measured; of tasks that it ran in the
    /// millisecond before the offer too.
    pub task_cpu_us: Option<u64>,
    /// Processor time of its descendants since its start, in microseconds: of those that live, and of those whose parent
    /// has reaped them.
    pub below_us: u64,
    /// Resident memory, in bytes.
    pub resident_bytes: u64,
    /// The kernel function that it waits in; empty when it runs or the kernel does not say.
    pub waits_in: String,
}

/// The state of a process: the name of the state letter in proc_pid_stat(5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// On a processor, or ready to be.
    Running,
    /// Waits in a sleep that a signal ends.
    Sleeping,
    /// Waits in the kernel in a sleep that not even SIGKILL ends.
    Uninterruptible,
    /// Stopped by a signal.
    Stopped,
    /// Stopped by a debugger.
    Traced,
    /// Dead and not reaped.
    Dead,
    /// Anything else.
    #[default]
    Unknown,
}

impl fmt::Display for RunState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Running => "running",
            Self::Sleeping => "sleeping",
            Self::Uninterruptible => "uninterruptible",
            Self::Stopped => "stopped",
            Self::Traced => "traced",
            Self::Dead => "dead",
            Self::Unknown => "unknown",
        })
    }
}

/// For the end of a line: `key=value` fields with a blank before each; unknown fields are left out.
impl fmt::Display for Evidence {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(seen) = &self.seen {
            write!(out, "{seen}")?;
        }
        match self.progress {
            Some(TaskProgress { done, total: 0 }) => write!(out, " progress={done}")?,
            Some(TaskProgress { done, total }) => write!(out, " progress={done}/{total}")?,
            None => {}
        }
        match (self.other_frames.first().filter(|other| other.after == 0), self.frames.first()) {
            (Some(innermost), _) => write!(out, " at={innermost}")?,
            (None, Some(innermost)) => write!(out, " at={innermost:#x}")?,
            (None, None) => {}
        }
        if !self.last_words.is_empty() {
            write!(out, " last_words={:?}", self.last_words)?;
        }
        Ok(())
    }
}

impl fmt::Display for ProcessSeen {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpu = Span::us(self.task_cpu_us.unwrap_or(self.cpu_us));
        write!(out, " state={} cpu={cpu}", self.state)?;
        if self.below_us > 0 {
            write!(out, " below={}", Span::us(self.below_us))?;
        }
        write!(out, " resident_bytes={}", self.resident_bytes)?;
        if !self.waits_in.is_empty() {
            write!(out, " waits_in={}", Plain(&self.waits_in))?;
        }
        Ok(())
    }
}

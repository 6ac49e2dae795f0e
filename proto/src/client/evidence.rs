//! What is known of a worker beside how it ended: what it left in its box, and what the kernel showed of it.
//!
//! Frames, progress and last words are the worker's own testimony, and may be anything; they are shown, and nothing
//! is decided by them. What was seen is the kernel's word. Made by the supervisor, carried by the core, shown by
//! `job`, `deaths`, `events` and `workers`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::client::record_text::Span;
use crate::codec::{Decode, Encode};

/// All that is known of the end of one attempt. Empty where nothing is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(default)]
pub struct Evidence {
    /// Where it was, then the calls that led there, as they stand in the file of the worker program; at most
    /// [`crate::limits::BACKTRACE_MAX`], the innermost. A caller's address lies inside its call, so that all can be
    /// looked up as they are. What is not of that file (libc, say) is left out.
    pub frames: Vec<u64>,
    /// Whether code without frame pointers was running, so that the stack had to be searched: a call that was over
    /// may be among the frames.
    pub searched: bool,
    /// The file that the frames belong to. `None` without frames, or when it cannot be named.
    pub program: Option<Box<Program>>,
    /// How far its task said it was.
    pub progress: Option<Progress>,
    /// What its task said last; at most [`crate::limits::LAST_WORDS_MAX_BYTES`].
    pub last_words: String,
    /// What the kernel showed of it right before it was killed.
    pub seen: Option<Box<Seen>>,
}

impl Evidence {
    /// What its texts and frames take on the wire, in bytes, about.
    pub fn wire_bytes(&self) -> u64 {
        let path = self.program.as_ref().map_or(0, |program| program.path.len());
        let place = self.seen.as_ref().map_or(0, |seen| seen.waits_in.len());
        (10 * self.frames.len() + path + place + self.last_words.len()) as u64
    }
}

/// A program's file as it was when a worker was started from it: whoever looks frames up must find the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Program {
    /// Where it is; at most [`crate::limits::PROGRAM_PATH_MAX_BYTES`].
    pub path: String,
    /// Its number in its file system.
    pub inode: u64,
    /// Its length.
    pub bytes: u64,
    /// When it was last written, in nanoseconds since 1970.
    pub modified_ns: i64,
}

/// How far a task says it is, in a unit of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Progress {
    /// Parts done.
    pub done: u64,
    /// Of how many; 0 when it cannot tell.
    pub total: u64,
}

/// What the kernel shows of a process that lives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Seen {
    /// Whose it is: the worker's own process, or, once that is reaped, one that it left behind.
    pub pid: u32,
    /// What it is doing.
    pub state: RunState,
    /// Processor time of its whole life, in microseconds, all threads together.
    pub cpu_us: u64,
    /// Processor time since its task was handed to it, in microseconds, where that is watched.
    pub task_cpu_us: Option<u64>,
    /// Processor time of the processes that it started, and that those started, in its whole life, in microseconds:
    /// of the living, and of the dead that somebody waited for.
    pub below_us: u64,
    /// Resident memory, in bytes.
    pub resident_bytes: u64,
    /// The kernel function that it waits in; empty when it runs or the kernel does not say.
    pub waits_in: String,
}

/// What a process is doing: the letter of proc_pid_stat(5), by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// On a processor, or ready to be.
    Running,
    /// Waits for something; a signal wakes it.
    Sleeping,
    /// Waits in the kernel; not even SIGKILL wakes it.
    Uninterruptible,
    /// Stopped by a signal.
    Stopped,
    /// Stopped by a debugger.
    Traced,
    /// Dead, and not reaped.
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

/// As it stands at the end of a line: `key=value` fields, each with a blank before it; nothing where nothing is known.
impl fmt::Display for Evidence {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(seen) = &self.seen {
            write!(out, "{seen}")?;
        }
        match self.progress {
            Some(Progress { done, total: 0 }) => write!(out, " progress={done}")?,
            Some(Progress { done, total }) => write!(out, " progress={done}/{total}")?,
            None => {}
        }
        if let Some(innermost) = self.frames.first() {
            write!(out, " at={innermost:#x}")?;
        }
        if !self.last_words.is_empty() {
            write!(out, " last_words={:?}", self.last_words)?;
        }
        Ok(())
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpu = Span::us(self.task_cpu_us.unwrap_or(self.cpu_us));
        write!(out, " state={} cpu={cpu}", self.state)?;
        if self.below_us > 0 {
            write!(out, " below={}", Span::us(self.below_us))?;
        }
        write!(out, " resident_bytes={}", self.resident_bytes)?;
        if !self.waits_in.is_empty() {
            write!(out, " waits_in={}", self.waits_in)?;
        }
        Ok(())
    }
}

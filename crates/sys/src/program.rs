//! Runs a program to its end, passes on its output as it arrives, and ends all processes that it leaves.
//!
//! The program leads a session and a process group of its own (`program/start.rs`), so that a program which signals
//! its group (`kill 0`) does not hit the caller. While it runs, the caller is a subreaper: when the program has ended,
//! its remaining descendants are killed and reaped, and what they wrote until then is passed on. Processes that have
//! become another user cannot be killed: they are returned, and live on. If the caller dies first, all of them become
//! strays of the subreaper above; a caller that will die with its parent ends them first (`program/parent.rs`). Never
//! call it in a process with other children, because it would end those too.
//!
//! It polls both streams and the program's pidfd together, so full pipes cannot block the program for ever. The
//! program's own exit ends the run: it may close its output early, and its children may keep the output open. A program
//! that was asked to end has until its grace is over, with its whole group: a shell may die of TERM while what it runs
//! writes its last bytes. SIGCHLD tells that a signal stopped or continued the program; the run goes on either way. What
//! the program has started is not seen: the kernel tells such a stop to its parent alone. Driven by the worker's `exec`.

use std::ffi::{OsStr, OsString};
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::descendants_end::{DescendantsEnd, end_descendants};
use crate::exit::{ExitStatus, Which};
use crate::pidfd::Process;
use crate::poll::{PollTarget, wait};
use crate::signals::{self, Signals};
use crate::stops::{Stop, next_stop_of};
use crate::strays::has_others_in_group;
use crate::tree::{become_subreaper, stop_being_subreaper};

use parent::Parent;
use start::start;

mod parent;
mod start;

/// Bytes that fit an unread pipe in any case.
pub const STDIN_MAX_BYTES: usize = 4096;
/// Size of one read.
const CHUNK_BYTES: usize = 64 << 10;
/// Bytes that an unread pipe can hold at most (/proc/sys/fs/pipe-max-size), unless root has made it larger.
const PIPE_MAX_BYTES: usize = 1 << 20;

/// The program to run.
#[derive(Debug)]
pub struct ProgramSpec<'a> {
    /// The path of its file; PATH is not searched.
    pub path: &'a Path,
    /// Its `argv[0]`.
    pub name: &'a OsStr,
    /// Its arguments without the name.
    pub args: &'a [OsString],
    /// Its whole environment; of two entries with one name the later counts.
    pub env: &'a [(OsString, OsString)],
    /// Its working directory.
    pub folder: &'a Path,
    /// Its standard input.
    pub stdin: Input<'a>,
    /// Files that stay open in it, under the same descriptor numbers; see [`path_of`].
    pub files: &'a [BorrowedFd<'a>],
    /// The longest file that it may write, in bytes (RLIMIT_FSIZE); `None`: as long as this process may.
    pub file_max_bytes: Option<u64>,
}

/// The standard input of a program.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// At most [`STDIN_MAX_BYTES`]; /dev/null if there are none.
    Bytes(&'a [u8]),
    /// A regular file, from its beginning.
    File(BorrowedFd<'a>),
}

/// The path by which a program opens one of its files again, with a file offset of its own.
pub fn path_of(file: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// An output stream of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// The observer's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextStep {
    /// Let the program run.
    Continue,
    /// Ask the program to end: TERM to its group, and CONT, so that a stopped one hears it. Kill it after this time.
    End(Duration),
    /// Kill the program.
    Stop,
}

/// Receives what a program does.
pub trait ProgramObserver {
    /// Called with each piece of output.
    fn on_output(&mut self, stream: Stream, bytes: &[u8]) -> NextStep;
    /// Called after SIGURG, and once at the start because an earlier SIGURG may have been lost: whether the program
    /// may run.
    fn on_nudge(&mut self) -> NextStep;
    /// Called when a signal has stopped the program itself, or continued it. Of changes in quick succession only the last
    /// may be told.
    fn on_stop(&mut self, stop: Stop);
}

/// The end of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedProgram {
    /// How it ended; `None`: it lives on, because it runs as another user, and is among the survivors.
    pub status: Option<ExitStatus>,
    /// Its processes that could not be ended, because they run as other users. They are children of this process, or
    /// below one.
    pub survivors: Vec<u32>,
}

/// Runs a program until it has ended or its observer answers [`NextStep::Stop`], and returns how it ended.
///
/// # Errors
/// ENOENT, EACCES, ENOEXEC, E2BIG: the program cannot be run. EAGAIN, ENOMEM, EMFILE: a resource is exhausted.
/// EINVAL: its standard input is too long.
pub fn run(program: &ProgramSpec<'_>, observer: &mut dyn ProgramObserver) -> io::Result<EndedProgram> {
    // Dropped last: if the parent has died meanwhile, this process dies here, after the program's processes have
    // ended.
    let parent = Parent::hold()?;
    become_subreaper()?;
    let ended = run_below(program, parent.as_ref(), observer);
    stop_being_subreaper().and(ended)
}

fn run_below(
    program: &ProgramSpec<'_>,
    parent: Option<&Parent>,
    observer: &mut dyn ProgramObserver,
) -> io::Result<EndedProgram> {
    let nudges = Signals::new(&[signals::URG, signals::CHLD])?;
    let (out, out_writer) = reader()?;
    let (err, err_writer) = reader()?;
    let child = start(program, out_writer, err_writer)?;
    let pipes = [(Stream::Out, Some(out)), (Stream::Err, Some(err))];
    let mut streams = Streams { pipes, parent, nudges, observer };
    // If the program cannot be followed, it is killed like the processes that it leaves.
    streams.run_to_end(child).or_else(|error| end_descendants(None).and(Err(error)))
}

/// A pipe with a non-blocking reader.
fn reader() -> io::Result<(PipeReader, OwnedFd)> {
    let (reader, writer) = io::pipe()?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((reader, writer.into()))
}

/// Signals a program's group; a group that is gone or runs as another user is passed over.
fn signal_group(leader: &Process, signal: Signal) {
    if let Ok(group) = i32::try_from(leader.pid()) {
        let _ = killpg(Pid::from_raw(group), signal);
    }
}

struct Streams<'a> {
    /// `None`: the stream has ended.
    pipes: [(Stream, Option<PipeReader>); 2],
    parent: Option<&'a Parent>,
    nudges: Signals,
    observer: &'a mut dyn ProgramObserver,
}

impl Streams<'_> {
    /// Follows a child to its end, kills what it left, and reads the rest of its output.
    fn run_to_end(&mut self, child: u32) -> io::Result<EndedProgram> {
        let process = Process::open(child)?;
        let followed = self.follow(&process);
        let DescendantsEnd { status, survivors } = end_descendants(Some(&process))?;
        if followed? != NextStep::Stop {
            self.drain(survivors.is_empty())?;
        }
        Ok(EndedProgram { status, survivors })
    }

    /// Passes on output until the process has ended, the observer stops it, or the parent has died.
    fn follow(&mut self, process: &Process) -> io::Result<NextStep> {
        // A SIGURG before the handler was installed was lost, so the first answer is always asked for.
        let mut nudged = true;
        let (mut until, mut is_dead) = (None, false);
        loop {
            if nudged && until.is_none() {
                match self.observer.on_nudge() {
                    NextStep::Continue => {}
                    NextStep::Stop => return Ok(NextStep::Stop),
                    NextStep::End(grace) => {
                        signal_group(process, Signal::SIGTERM);
                        signal_group(process, Signal::SIGCONT);
                        until = Some(Instant::now() + grace);
                    }
                }
            }
            let left = until.map(|until: Instant| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(NextStep::Continue);
            }
            let [out, err] = [0, 1].map(|place| self.watch(place, process.as_fd()));
            let parent = self
                .parent
                .map_or(PollTarget::end(process.as_fd()), |parent| PollTarget::readable(parent.as_fd()));
            let nudge = PollTarget::readable(self.nudges.as_fd());
            let death = match is_dead {
                true => PollTarget::end(process.as_fd()),
                false => PollTarget::readable(process.as_fd()),
            };
            let [out, err, died, orphaned, nudge] = wait([out, err, death, parent, nudge], left)?;
            nudged = nudge.readable && self.hear_signals(process)?;
            is_dead |= died.readable;
            if orphaned.readable {
                return Ok(NextStep::Stop);
            }
            for place in [(0, out), (1, err)].into_iter().filter_map(|(at, seen)| seen.readable.then_some(at))
            {
                if self.read_pipe(place)? == PipeRead::Stop {
                    return Ok(NextStep::Stop);
                }
            }
            if is_dead && (until.is_none() || !has_others_in_group(process.pid())?) {
                return Ok(NextStep::Continue);
            }
        }
    }

    /// Takes the signals that arrived: tells the observer of a program that was stopped or continued, and returns whether
    /// there was a SIGURG.
    fn hear_signals(&mut self, process: &Process) -> io::Result<bool> {
        let signals = self.nudges.pending();
        if signals.contains(&signals::CHLD) {
            while let Some(stop) = next_stop_of(Which::Pidfd(process.as_fd()))? {
                self.observer.on_stop(stop);
            }
        }
        Ok(signals.contains(&signals::URG))
    }

    /// An ended stream keeps its place in the array and is not polled.
    fn watch<'a>(&'a self, place: usize, process: BorrowedFd<'a>) -> PollTarget<'a> {
        self.pipes[place]
            .1
            .as_ref()
            .map_or(PollTarget::end(process), |pipe| PollTarget::readable(pipe.as_fd()))
    }

    /// Reads what is left in the pipes. Unless all writers have ended it stops after as much as a pipe can hold, because a
    /// survivor may write without end.
    fn drain(&mut self, is_ended: bool) -> io::Result<()> {
        let reads_max = if is_ended { usize::MAX } else { PIPE_MAX_BYTES / CHUNK_BYTES };
        for place in [0, 1] {
            for _ in 0..reads_max {
                if self.read_pipe(place)? != PipeRead::Some {
                    break;
                }
            }
        }
        Ok(())
    }

    fn read_pipe(&mut self, place: usize) -> io::Result<PipeRead> {
        let (stream, pipe) = &mut self.pipes[place];
        let Some(open) = pipe else { return Ok(PipeRead::Nothing) };
        let mut chunk = [0; CHUNK_BYTES];
        match open.read(&mut chunk) {
            Ok(0) => {
                *pipe = None;
                Ok(PipeRead::Nothing)
            }
            Ok(length) if self.observer.on_output(*stream, &chunk[..length]) == NextStep::Stop => {
                Ok(PipeRead::Stop)
            }
            Ok(_) => Ok(PipeRead::Some),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(PipeRead::Nothing),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(PipeRead::Some),
            Err(error) => Err(error),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PipeRead {
    Some,
    Nothing,
    Stop,
}

#[cfg(test)]
mod tests;

//! A program that is run to its end: what it writes is heard as it comes, and nobody of it is left afterwards.
//!
//! It leads a process group of its own, so that a program which signals its group (`kill 0`) does not hit its caller.
//! The caller is made the subreaper of what it starts; when the program has ended, all that it left behind is killed
//! and reaped, and what they wrote until then is still heard. If the caller dies, they are strays to whoever is a
//! subreaper above it; if the caller is to die with its parent, it ends them first (`program/parent.rs`). Never call it
//! in a process that has other children: they would be ended too.
//!
//! It waits in poll(2) for both streams and the program's pidfd at once, so full pipes cannot lock it up. The end is
//! the end of the program itself: not that of its output, which it may close early and its children may keep open.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::libc;

use crate::exit::{ExitStatus, Reap, Which, wait_now};
use crate::pidfd::Process;
use crate::poll::{PollTarget, wait};
use crate::signals::{self, Signals};
use crate::strays::end_children;
use crate::tree::{become_subreaper, stop_being_subreaper};

use parent::Parent;

mod parent;

/// What surely fits a pipe that nobody reads yet, in bytes.
pub const STDIN_MAX_BYTES: usize = 4096;
/// What is read at once.
const CHUNK_BYTES: usize = 64 << 10;

/// What to run.
#[derive(Debug)]
pub struct ProgramSpec<'a> {
    /// Its file; it is not looked up.
    pub path: &'a Path,
    /// What it is told as its own name.
    pub name: &'a OsStr,
    /// Its arguments, the name not among them.
    pub args: &'a [OsString],
    /// Its whole environment; of two with one name the later counts.
    pub env: &'a [(OsString, OsString)],
    /// The folder in which it starts.
    pub folder: &'a Path,
    /// Its standard input.
    pub stdin: Input<'a>,
    /// Open in it too, under the numbers that they have here; see [`path_of`].
    pub files: &'a [BorrowedFd<'a>],
}

/// What a program reads from its standard input.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// At most [`STDIN_MAX_BYTES`]; /dev/null if there are none.
    Bytes(&'a [u8]),
    /// A regular file, from its beginning.
    File(BorrowedFd<'a>),
}

/// The path under which a program opens one of its files anew, with a place of its own in it.
pub fn path_of(file: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// One of the two streams that a program writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// What to do after something was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextStep {
    /// The program may go on.
    Continue,
    /// End it: no more of it is wanted.
    Stop,
}

/// Whoever follows a program.
pub trait ProgramObserver {
    /// It has written this: a piece of what it writes.
    fn on_output(&mut self, stream: Stream, bytes: &[u8]) -> NextStep;
    /// Somebody sent SIGURG, or may have before: whether the program is still wanted.
    fn on_nudge(&mut self) -> NextStep;
}

/// Runs a program until it has ended or its observer says stop, and gives how it ended.
///
/// # Errors
/// ENOENT, EACCES, ENOEXEC, E2BIG: the program cannot be run. EAGAIN, ENOMEM, EMFILE: a resource is exhausted. EINVAL: its
/// standard input is too long. EPERM: what it left behind runs as somebody else and cannot be ended.
pub fn run(program: &ProgramSpec<'_>, observer: &mut dyn ProgramObserver) -> io::Result<ExitStatus> {
    close_at_exec()?;
    for file in program.files {
        fcntl(file, FcntlArg::F_SETFD(FdFlag::empty()))?;
    }
    // Dropped last: a parent that has died meanwhile takes us along once nobody of the program is left.
    let parent = Parent::hold()?;
    become_subreaper()?;
    let ended = run_below(program, parent.as_ref(), observer);
    stop_being_subreaper().and(ended)
}

fn run_below(
    program: &ProgramSpec<'_>,
    parent: Option<&Parent>,
    observer: &mut dyn ProgramObserver,
) -> io::Result<ExitStatus> {
    let nudges = Signals::new(&[signals::URG])?;
    let (out, out_writer) = reader()?;
    let (err, err_writer) = reader()?;
    let child = Command::new(program.path)
        .arg0(program.name)
        .args(program.args)
        .env_clear()
        .envs(program.env.iter().map(|(name, value)| (name, value)))
        .current_dir(program.folder)
        .stdin(stdin(program.stdin)?)
        .stdout(out_writer)
        .stderr(err_writer)
        .process_group(0)
        .spawn()?;
    let pipes = [(Stream::Out, Some(out)), (Stream::Err, Some(err))];
    let mut streams = Streams { pipes, parent, nudges, observer };
    // A program that could not be followed is ended like what a program leaves.
    streams.run_to_end(child.id()).or_else(|error| end_children().and(Err(error)))
}

/// Has every descriptor but the three standard ones closed when a program is executed: those that a library made without
/// that mark too, and those that this process was started with.
fn close_at_exec() -> io::Result<()> {
    // SAFETY: close_range takes three integers; with this flag it closes nothing in this process.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    Errno::result(result)?;
    Ok(())
}

/// A pipe whose reader never blocks.
fn reader() -> io::Result<(PipeReader, Stdio)> {
    let (reader, writer) = io::pipe()?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((reader, writer.into()))
}

/// A file is opened anew, or it would be read from where whoever had it before has left off.
fn stdin(input: Input<'_>) -> io::Result<Stdio> {
    match input {
        Input::Bytes(bytes) => filled(bytes),
        Input::File(file) => Ok(File::open(path_of(file))?.into()),
    }
}

/// A pipe that is filled before anybody reads, which its size allows.
fn filled(bytes: &[u8]) -> io::Result<Stdio> {
    if bytes.is_empty() {
        return Ok(Stdio::null());
    }
    if bytes.len() > STDIN_MAX_BYTES {
        return Err(Errno::EINVAL.into());
    }
    let (reader, mut writer) = io::pipe()?;
    writer.write_all(bytes)?;
    Ok(reader.into())
}

/// Waits for a process that was killed, or has ended.
fn end(process: &Process) -> io::Result<ExitStatus> {
    loop {
        if let Some(status) = wait_now(Which::Pidfd(process.as_fd()), Reap::Yes)? {
            return Ok(status);
        }
        wait([PollTarget::readable(process.as_fd())], None)?;
    }
}

struct Streams<'a> {
    /// `None`: it has ended.
    pipes: [(Stream, Option<PipeReader>); 2],
    parent: Option<&'a Parent>,
    nudges: Signals,
    observer: &'a mut dyn ProgramObserver,
}

impl Streams<'_> {
    /// Follows a child to its end, ends what it left, and hears the rest.
    fn run_to_end(&mut self, child: u32) -> io::Result<ExitStatus> {
        let process = Process::open(child)?;
        let followed = self.follow(&process);
        // Dead or alive, its number is its own until it is reaped.
        process.kill(libc::SIGKILL)?;
        let status = end(&process)?;
        end_children()?;
        if followed? == NextStep::Continue {
            self.drain()?;
        }
        Ok(status)
    }

    /// Hears all there is until the process has ended or no more is wanted, by a parent that died neither.
    fn follow(&mut self, process: &Process) -> io::Result<NextStep> {
        // A nudge that came before they were caught was lost.
        let mut nudged = true;
        loop {
            if nudged && self.observer.on_nudge() == NextStep::Stop {
                return Ok(NextStep::Stop);
            }
            let [out, err] = [0, 1].map(|place| self.watch(place, process.as_fd()));
            let parent = self
                .parent
                .map_or(PollTarget::end(process.as_fd()), |parent| PollTarget::readable(parent.as_fd()));
            let nudge = PollTarget::readable(self.nudges.as_fd());
            let [out, err, died, orphaned, nudge] =
                wait([out, err, PollTarget::readable(process.as_fd()), parent, nudge], None)?;
            nudged = nudge.readable && !self.nudges.pending().is_empty();
            if orphaned.readable {
                return Ok(NextStep::Stop);
            }
            for place in [(0, out), (1, err)].into_iter().filter_map(|(at, seen)| seen.readable.then_some(at))
            {
                if self.read_pipe(place)? == PipeRead::Stop {
                    return Ok(NextStep::Stop);
                }
            }
            if died.readable {
                return Ok(NextStep::Continue);
            }
        }
    }

    /// A stream that has ended keeps its place and is not waited for.
    fn watch<'a>(&'a self, place: usize, process: BorrowedFd<'a>) -> PollTarget<'a> {
        self.pipes[place]
            .1
            .as_ref()
            .map_or(PollTarget::end(process), |pipe| PollTarget::readable(pipe.as_fd()))
    }

    /// What is left in the pipes once nobody of the program is there to write.
    fn drain(&mut self) -> io::Result<()> {
        for place in [0, 1] {
            while self.read_pipe(place)? == PipeRead::Some {}
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

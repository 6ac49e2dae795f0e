//! The `exec` kind: runs a program, returns its standard output, and reports how it ended.
//!
//! The program gets an empty folder, which is removed afterwards, and a clean environment. It runs with the rights of
//! the daemon, so a daemon in system mode must not offer this kind. `sys::program` starts it in a session and a process
//! group of its own: scripts end with `kill 0`, which must not hit the worker. The worker is a subreaper: every process
//! that the program leaves, in any session, becomes its child and is killed and reaped before the task ends. One that has
//! become another user cannot be killed: the task reports it, and the worker leaves. If the worker dies first, they become
//! the supervisor's strays with this worker's mark, and the proof of death waits for them.
//!
//! The worker polls both streams and the program's pidfd, and only the pidfd ends the task: a stream may close early,
//! or a grandchild may hold it open. Standard input is at most what a pipe holds unread, written before the start, or a
//! file of the job that is opened anew. Every file of the job has a path (`exec/placed_files.rs`): the client's own, if
//! that leads to it (`exec/real_path.rs`, `exec/output_folder.rs`), else that of a copy (`exec/copies.rs`). Every file
//! also stays open under its number, and everything else is closed. The mark, the limits of memory and file size, and the
//! client's umask are inherited.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder};
use std::io;
use std::num::NonZeroU8;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bulkhead_proto::death::{ProgramEnd, SIGNAL_MAX, signal_name};
use bulkhead_proto::exec::{Program, STDIN};
use bulkhead_proto::file::{OUT, Way};
use bulkhead_proto::limits::{EXEC_OUTPUT_MAX_BYTES, OUTPUT_MAX_BYTES};
use bulkhead_proto::log::LogStream;
use bulkhead_proto::worker::copies::MAX_KEY;
use bulkhead_sys::exit::ExitStatus;
use bulkhead_sys::held_folder::HeldFolder;
use bulkhead_sys::program::{self, EndedProgram, Input, NextStep, ProgramObserver, Stream};
use bulkhead_sys::stops::Stop;
use bulkhead_task::{PositionedFile, TaskContext, TaskFailure};

use crate::boot_folder;
use inherited::ClientUmask;
use placed_files::PlacedFiles;
use stderr_tail::StderrTail;

mod copies;
mod core_file;
mod inherited;
mod output_folder;
mod placed_files;
mod real_path;
mod stderr_tail;

/// The search path for programs whose environment has no `PATH`.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// The exit codes of shells: for a program that cannot be executed, and for one that is not found.
const NOT_RUNNABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
/// The exit code for a program that was to end and lives on: as if SIGKILL had ended it.
const LIVES_ON: u8 = 137;
// Linux signal numbers (signal(7), x86 and ARM).
const SIGXCPU: i32 = 24;
const SIGXFSZ: i32 = 25;

/// Runs the program that `input` encodes.
///
/// # Errors
/// The program cannot be run, did not end with code 0, or wrote more than its limit.
pub(crate) fn run(input: &[u8], task: &mut dyn TaskContext) -> Result<(), TaskFailure> {
    let program = Program::from_input(input).map_err(|error| TaskFailure::new(error.to_string()))?;
    let mut placed = PlacedFiles::decide(&program, task.files());
    let ended = placed.make_ready(task).and_then(|()| run_placed(program, &placed, task));
    if task.is_cancelled() {
        placed.remove_folders();
    }
    ended
}

/// Runs the program with its files in their places, and takes its outputs.
fn run_placed(
    mut program: Program,
    placed: &PlacedFiles,
    task: &mut dyn TaskContext,
) -> Result<(), TaskFailure> {
    placed.tell(&mut program);
    let files = task.files();
    let (out_max_bytes, own_max_bytes) = (out_max_bytes(&files), own_max_bytes(&files));
    let descriptors: Vec<BorrowedFd<'_>> = files.iter().map(|file| file.as_fd()).collect();
    let stdin_file = files.iter().any(|file| file.name() == STDIN).then(|| task.file(STDIN)).transpose()?;
    let stdin = match &stdin_file {
        Some(file) => Input::File(file.as_fd()),
        None => Input::Bytes(&program.stdin),
    };
    let folder = WorkFolder::make()
        .map_err(|error| TaskFailure::new(format!("there is no folder for the program: {error}")))?;
    let env = environment(&folder.path, program.env);
    let argv: Vec<OsString> = program.argv.into_iter().map(OsString::from_vec).collect();
    let (name, args) = argv.split_first().ok_or_else(|| TaskFailure::new("there is no program"))?;
    let path = look_up(name, &env, &folder.path)?;
    let folder = folder.path.as_path();
    let (path, env, files) = (&*path, &*env, &*descriptors);
    let made_max_bytes = placed.file_max_bytes();
    let file_max_bytes = made_max_bytes.or(own_max_bytes);
    let spec = program::ProgramSpec { path, name, args, env, folder, stdin, files, file_max_bytes };
    let mut listener = ProgramListener::new(task, out_max_bytes);
    let ended = {
        let _umask = ClientUmask::set(program.umask);
        program::run(&spec, &mut listener)
    };
    let survivors = ended.as_ref().map_or(&[][..], |ended| &ended.survivors);
    if !survivors.is_empty() {
        log::warn!("a program's processes live on, they run as other users pids={survivors:?}");
        listener.task.leave_behind(survivors);
    }
    match (listener.failure.take(), ended) {
        (Some(failure), _) => Err(failure),
        (None, Ok(EndedProgram { status: Some(ExitStatus::Code(0)), .. })) => placed.take_outputs(task),
        (None, Ok(EndedProgram { status: Some(status), .. })) => Err(listener.fate(status, made_max_bytes)),
        (None, Ok(EndedProgram { status: None, .. })) => {
            let text = "the program runs as another user, cannot be ended, and lives on".to_owned();
            Err(failed(LIVES_ON, text).with_output())
        }
        (None, Err(error)) => Err(not_run(name, &error)),
    }
}

/// Most bytes that the program may write to its standard output. If that is a file of the client, only the disk limits
/// it.
fn out_max_bytes(files: &[Arc<dyn PositionedFile>]) -> u64 {
    let has_out = files.iter().any(|file| file.name() == OUT && file.way() == Way::Out);
    if has_out { u64::MAX } else { EXEC_OUTPUT_MAX_BYTES }
}

/// Most bytes of a file that the program writes: those of the largest output, whatever room is left for the output of this
/// task, because the program writes that into a pipe. `None` if it writes a file of the client, which has no such limit.
fn own_max_bytes(files: &[Arc<dyn PositionedFile>]) -> Option<u64> {
    files.iter().all(|file| file.way() == Way::In).then_some(OUTPUT_MAX_BYTES)
}

/// The environment: the variables that every program has, then those of the job. Of two with one name the later counts.
fn environment(folder: &Path, own: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<(OsString, OsString)> {
    let given = [
        ("PATH", OsStr::new(PATH)),
        ("LANG", OsStr::new("C.UTF-8")),
        ("HOME", folder.as_os_str()),
        ("PWD", folder.as_os_str()),
        ("TMPDIR", folder.as_os_str()),
    ];
    let given = given.into_iter().map(|(name, value)| (OsString::from(name), value.to_owned()));
    let own = own.into_iter().map(|(name, value)| (OsString::from_vec(name), OsString::from_vec(value)));
    given.chain(own).collect()
}

/// The path of a program: its name if that has a slash, else the first executable file of this name on its `PATH`.
fn look_up(name: &OsStr, env: &[(OsString, OsString)], folder: &Path) -> Result<PathBuf, TaskFailure> {
    if name.as_encoded_bytes().contains(&b'/') {
        return Ok(folder.join(name));
    }
    let path = env.iter().rev().find(|(name, _)| name == "PATH").map_or(OsStr::new(PATH), |(_, path)| path);
    let mut refused = None;
    for place in std::env::split_paths(path).map(|place| folder.join(place).join(name)) {
        match fs::metadata(&place) {
            Ok(file) if file.is_file() && file.permissions().mode() & 0o111 != 0 => return Ok(place),
            Ok(_) => refused = Some(place),
            Err(_) => {}
        }
    }
    Err(match refused {
        Some(place) => failed(NOT_RUNNABLE, format!("{} may not be executed", place.display())),
        None => failed(NOT_FOUND, format!("there is no program {name:?} on its PATH, {}", path.display())),
    })
}

fn failed(code: u8, text: String) -> TaskFailure {
    let failure = TaskFailure::new(text);
    match NonZeroU8::new(code) {
        Some(code) => failure.with_program_end(ProgramEnd::Code(code)),
        None => failure,
    }
}

/// How a program ended, if not with code 0.
fn end_of(status: ExitStatus) -> Option<ProgramEnd> {
    match status {
        ExitStatus::Code(0) => None,
        ExitStatus::Code(code) => {
            let code = u8::try_from(code).ok().and_then(NonZeroU8::new).unwrap_or(NonZeroU8::MAX);
            Some(ProgramEnd::Code(code))
        }
        ExitStatus::Signal { signal, core } => {
            let signal = u8::try_from(signal).unwrap_or(SIGNAL_MAX).min(SIGNAL_MAX);
            Some(ProgramEnd::Signal { signal, core })
        }
    }
}

/// The failure of a program that could not be started or watched.
fn not_run(name: &OsStr, error: &io::Error) -> TaskFailure {
    // The kernel's numbers: ENOENT, E2BIG, ENOEXEC, EACCES, ENOTDIR, EISDIR, ELOOP.
    let code = match error.raw_os_error() {
        Some(2) => NOT_FOUND,
        Some(7 | 8 | 13 | 20 | 21 | 40) => NOT_RUNNABLE,
        _ => 0,
    };
    let hint = match error.raw_os_error() {
        Some(2) => "; give an absolute path, and if that is right its interpreter is missing",
        Some(8) => "; a script needs a first line such as #!/bin/sh",
        _ => "",
    };
    failed(code, format!("cannot run {name:?}: {error}{hint}"))
}

/// Handles the output of a program while it runs.
struct ProgramListener<'a> {
    task: &'a mut dyn TaskContext,
    out_bytes: u64,
    out_max_bytes: u64,
    bytes: u64,
    tail: StderrTail,
    failure: Option<TaskFailure>,
}

impl<'a> ProgramListener<'a> {
    fn new(task: &'a mut dyn TaskContext, out_max_bytes: u64) -> Self {
        Self { task, out_bytes: 0, out_max_bytes, bytes: 0, tail: StderrTail::default(), failure: None }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.out_bytes += bytes.len() as u64;
        if self.out_bytes > self.out_max_bytes {
            let max = self.out_max_bytes;
            let failure = TaskFailure::new(format!(
                "the program wrote more than {max} bytes to its standard output, the limit, and was \
                 killed: have it write to a file (-o, --out)"
            ));
            self.failure = Some(failure.with_output());
        } else if let Err(error) = self.task.write_all(bytes) {
            self.failure = Some(error.into());
        }
    }

    /// The failure for a program that ended with this status, and that could write files of so many bytes.
    fn fate(&self, status: ExitStatus, file_max: Option<u64>) -> TaskFailure {
        let mut text = match status {
            ExitStatus::Code(code) => format!("exit code {code}"),
            ExitStatus::Signal { signal, core } => {
                killed_by(signal, file_max) + &core_file::told(signal, core)
            }
        };
        let words = self.tail.text();
        if !words.is_empty() {
            text.push_str(": ");
            text.push_str(&words);
        }
        let failure = TaskFailure::new(text).with_output();
        match end_of(status) {
            Some(end) => failure.with_program_end(end),
            None => failure,
        }
    }
}

impl ProgramObserver for ProgramListener<'_> {
    fn on_output(&mut self, stream: Stream, bytes: &[u8]) -> NextStep {
        self.bytes += bytes.len() as u64;
        self.task.progress(self.bytes, 0);
        self.task.log(log_stream(stream), bytes);
        match stream {
            Stream::Out => self.take(bytes),
            Stream::Err => {
                self.tail.add(bytes);
                self.task.say(&self.tail.last_words());
            }
        }
        if self.failure.is_some() { NextStep::Stop } else { NextStep::Continue }
    }

    /// Called at the start, and when SIGURG woke the wait. A program whose task is to end is asked to end, and is killed
    /// with all its descendants after its grace. What it wrote is handed in either way.
    fn on_nudge(&mut self) -> NextStep {
        if self.task.is_cancelled() { NextStep::End(self.task.grace()) } else { NextStep::Continue }
    }

    fn on_stop(&mut self, stop: Stop) {
        match stop {
            Stop::Stopped { pid, signal } => self.task.program_stopped(pid, signal),
            Stop::Continued { .. } => self.task.program_continued(),
        }
    }
}

fn log_stream(stream: Stream) -> LogStream {
    match stream {
        Stream::Out => LogStream::Out,
        Stream::Err => LogStream::Err,
    }
}

fn killed_by(signal: i32, file_max: Option<u64>) -> String {
    let name = signal_name(signal).map_or_else(|| format!("signal {signal}"), str::to_owned);
    match (signal, file_max) {
        (SIGXCPU, _) => format!("killed by {name}, processor time above its limit (RLIMIT_CPU)"),
        (SIGXFSZ, Some(bytes)) => format!(
            "killed by {name}, a file above {bytes} bytes ({MAX_KEY} in the daemon's configuration) or its own limit \
             (RLIMIT_FSIZE)"
        ),
        (SIGXFSZ, None) => {
            format!("killed by {name}, a file above {OUTPUT_MAX_BYTES} bytes or its own limit (RLIMIT_FSIZE)")
        }
        _ => format!("killed by {name}"),
    }
}

/// The folder of one program, inside the worker's own. If it cannot be removed, the supervisor removes it with the
/// worker's.
struct WorkFolder {
    path: PathBuf,
    held: HeldFolder,
}

impl WorkFolder {
    fn make() -> io::Result<Self> {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("exec-{}-{number}", std::process::id());
        let path = boot_folder::path()?.join(name);
        let held = boot_folder::with(|| {
            DirBuilder::new().mode(0o700).create(&path)?;
            HeldFolder::open(&path)
        })?;
        Ok(Self { path, held })
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        if let Err(error) = self.held.remove(&self.path) {
            log::warn!(
                "a program's folder stays until its worker ends path={} error={error}",
                self.path.display()
            );
        }
    }
}

#[cfg(test)]
mod tests;

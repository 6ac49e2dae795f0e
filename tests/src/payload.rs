//! Jobs with files: a worker that reads and writes them as its input says, and a client that attaches them.
//!
//! The worker's kind replaces `noop`, so that the daemon knows it; beside it is a kind that plans (`pieces.rs`). If a
//! test has to act in the middle of a task, the task waits for it at a named pipe. Driven by `payload-worker` and by
//! the tests.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bulkhead_proto::client::message::{Reply, Request, Submit};
use bulkhead_proto::client::outcome::{JobEnded, JobOutput, Outcome};
use bulkhead_proto::file::{FileUse, IN, OUT};
use bulkhead_proto::ids::{JobId, Tag};
use bulkhead_sys::hostile_peer::{self, SendMode};
use bulkhead_worker::{Registry, TaskContext, TaskFailure};
use tempfile::TempDir;

use crate::daemon::{Daemon, Setup, binary, eventually};
use crate::pieces::{PIECES, Pieces};
use crate::raid::frame;
use crate::wire::Wire;

/// Reads all of `in`: its length and a sum over its bytes.
pub const SUM: &str = "sum";
/// Reads the first and the last eight bytes of `in`.
pub const ENDS: &str = "ends";
/// Copies `in` into `out`.
pub const COPY: &str = "copy";
/// Followed by a path: as [`SUM`], but in the middle it writes its process id to that path and waits until the test
/// opens the named pipe `PATH.go`. A later task that finds the file does not wait.
pub const PAUSE: &str = "pause:";

/// Bytes read at a time.
const STEP: usize = 64 << 10;

/// Runs this process as a worker.
pub fn main() -> ExitCode {
    bulkhead_worker::run(&Registry::builtin().with("noop", run).with_plan(PIECES, Pieces))
}

fn run(input: &[u8], task: &mut dyn TaskContext) -> Result<(), TaskFailure> {
    let deed = std::str::from_utf8(input).unwrap_or_default();
    match (deed, deed.strip_prefix(PAUSE)) {
        (SUM, _) => sum(task, |_| Ok(())),
        (ENDS, _) => ends(task),
        (COPY, _) => copy(task),
        (_, Some(path)) => sum(task, |at| if at == 0 { pause(Path::new(path)) } else { Ok(()) }),
        _ => Ok(task.write_all(input)?),
    }
}

/// `meanwhile` is called with the place after which bytes were read.
fn sum(task: &mut dyn TaskContext, meanwhile: impl Fn(u64) -> io::Result<()>) -> Result<(), TaskFailure> {
    let file = task.file(IN)?;
    let (mut at, mut sum, mut bytes) = (0, 0_u64, vec![0; STEP]);
    while at < file.length() {
        let left = usize::try_from(file.length() - at).map_or(STEP, |left| left.min(STEP));
        file.read_exact_at(&mut bytes[..left], at)?;
        sum = add(sum, &bytes[..left]);
        meanwhile(at)?;
        at += left as u64;
    }
    Ok(write!(task, "{at} {sum}")?)
}

fn ends(task: &mut dyn TaskContext) -> Result<(), TaskFailure> {
    let file = task.file(IN)?;
    let mut bytes = [0; 16];
    file.read_exact_at(&mut bytes[..8], 0)?;
    file.read_exact_at(&mut bytes[8..], file.length() - 8)?;
    Ok(task.write_all(&bytes)?)
}

fn copy(task: &mut dyn TaskContext) -> Result<(), TaskFailure> {
    let (from, to) = (task.file(IN)?, task.file(OUT)?);
    let mut bytes = vec![0; STEP];
    let mut at = 0;
    while at < from.length() {
        let left = usize::try_from(from.length() - at).map_or(STEP, |left| left.min(STEP));
        from.read_exact_at(&mut bytes[..left], at)?;
        to.write_all_at(&bytes[..left], at)?;
        at += left as u64;
    }
    Ok(())
}

/// What [`PAUSE`] does in its middle.
pub(crate) fn pause(path: &Path) -> io::Result<()> {
    let told = path.with_extension("new");
    if path.exists() {
        return Ok(());
    }
    std::fs::write(&told, std::process::id().to_string())?;
    std::fs::rename(&told, path)?;
    // open blocks until the test opens the other side.
    File::open(path.with_extension("go")).map(drop)
}

fn add(sum: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(sum, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)))
}

/// The point at which a task waits in its middle, see [`PAUSE`].
#[derive(Debug)]
pub struct Gate {
    folder: TempDir,
}

impl Gate {
    /// A gate that no task has reached yet.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        hostile_peer::make_fifo(&folder.path().join("pid.go")).expect("a named pipe");
        Self { folder }
    }

    /// The part of the input that names it.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("pid")
    }

    /// The process that waits there.
    pub fn worker(&self) -> u32 {
        eventually("a task is in its middle", || std::fs::read_to_string(self.path()).ok()?.parse().ok())
    }

    /// Lets it go on.
    pub fn open(&self) {
        drop(File::options().write(true).open(self.folder.path().join("pid.go")).expect("a named pipe"));
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

/// The output of [`SUM`] for these bytes.
pub fn sum_of(bytes: &[u8]) -> String {
    format!("{} {}", bytes.len(), add(0, bytes))
}

/// A daemon with these workers.
pub fn daemon() -> Daemon {
    let config = format!("worker_program = {:?}\n", binary("payload-worker"));
    Daemon::start_with(&Setup { config, ..Setup::default() })
}

/// Submits one attached job that does `deed` with these files, and returns its number.
pub fn submit(wire: &mut Wire, deed: &str, files: &[(FileUse, BorrowedFd<'_>)]) -> JobId {
    submit_as(wire, "noop", deed, files)
}

/// The same for a job of any kind.
pub fn submit_as(wire: &mut Wire, kind: &str, input: &str, files: &[(FileUse, BorrowedFd<'_>)]) -> JobId {
    let names = files.iter().map(|(name, _)| name.clone()).collect();
    let submit = Submit { files: names, ..crate::wire::submit(kind, &[input], true) };
    let attached: Vec<_> = files.iter().map(|(_, descriptor)| *descriptor).collect();
    let bytes = frame(u32::MAX, Request::Submit(submit));
    let sent =
        hostile_peer::send(wire_fd(wire), &bytes, &attached, SendMode::Plain).expect("the daemon reads");
    assert_eq!(sent, bytes.len(), "a short frame goes at once");
    match wire.next_reply().expect("the daemon answers") {
        reply if reply.tag != Tag(u32::MAX) => panic!("an answer to something else: {reply:?}"),
        reply => match reply.reply {
            Reply::Accepted { first, refused: None, .. } => first,
            other => panic!("the submit was not accepted: {other:?}"),
        },
    }
}

fn wire_fd(wire: &Wire) -> BorrowedFd<'_> {
    std::os::fd::AsFd::as_fd(&wire.socket)
}

/// How the next job of this connection ended.
pub fn end(wire: &mut Wire) -> JobEnded {
    match wire.next_reply().expect("the daemon answers").reply {
        Reply::Ended(mut ended) if ended.len() == 1 => ended.remove(0),
        other => panic!("unexpected reply: {other:?}"),
    }
}

/// The result of a job that must be done.
pub fn result(ended: &JobEnded) -> &[u8] {
    match (&ended.outcome, &ended.output) {
        (Outcome::Done, JobOutput::Inline(payload)) => payload.as_bytes(),
        _ => panic!("it is not done: {ended:?}"),
    }
}

/// The failure text of a job that must have failed.
pub fn failure(ended: &JobEnded) -> &str {
    match &ended.outcome {
        Outcome::Failed { message, .. } => message,
        _ => panic!("it has not failed: {ended:?}"),
    }
}

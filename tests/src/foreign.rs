//! A worker program as others write them: its kind does what a program of one's own may do and ours never do.
//!
//! Its kind replaces `noop`, so that the daemon knows it; an input is a deed, then `:`, then what it is done to. Driven by
//! `foreign-worker`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::OnceLock;

use bulkhead_sys::{foreign_code, raise};
use bulkhead_worker::{Registry, TaskContext, TaskFailure};

/// Followed by a path: makes a file of [`LONG_BYTES`] there, and writes its last byte.
pub const LONG: &str = "long";
/// Followed by a number: makes the output that long through its descriptor, past every check of the worker library.
pub const PAST_THE_CHECKS: &str = "past";
/// Writes the environment, once as it was before the worker library was called and once as it is now.
pub const VARIABLES: &str = "variables";
/// Writes the descriptors that a child has: of one that ran before the worker library was called, and of one now.
pub const CHILDREN: &str = "children";
/// Writes through a wild pointer.
pub const FAULT: &str = "fault";

/// More than an output in memory may ever have.
pub const LONG_BYTES: u64 = 3 << 30;

/// The environment at the start of this program.
static BEFORE: OnceLock<String> = OnceLock::new();

/// What a child had that was started then.
static CHILD_BEFORE: OnceLock<String> = OnceLock::new();

/// Beside the link through which the program was called: if it is there, signals are handled, and noted in it.
pub const NOTES: &str = "notes";
/// Beside that link too: if it is there, the exit is noted, and hangs if the file says [`HANGS`].
pub const AT_EXIT: &str = "at-exit";
/// What that file says.
pub const HANGS: &str = "hangs";
/// The signals that are noted then.
pub const NOTED: [i32; 3] = [SEGV, INT, USR1];
/// Their numbers, on every Linux.
const INT: i32 = 2;
const USR1: i32 = 10;
const SEGV: i32 = 11;

/// Runs this process as a worker.
pub fn main() -> ExitCode {
    bulkhead_worker::take_lane().expect("a daemon has started this program");
    BEFORE.get_or_init(variables);
    CHILD_BEFORE.get_or_init(descriptors_of_a_child);
    let link = PathBuf::from(std::env::args().next().unwrap_or_default());
    if let Ok(notes) = File::options().append(true).open(link.with_file_name(NOTES)) {
        foreign_code::note_signals(&NOTED, notes).expect("they are signals");
    }
    if let Ok(way) = std::fs::read_to_string(link.with_file_name(AT_EXIT)) {
        foreign_code::note_exit(way == HANGS).expect("it is registered");
    }
    bulkhead_worker::run(&Registry::builtin().with("noop", run))
}

fn run(input: &[u8], task: &mut dyn TaskContext) -> Result<(), TaskFailure> {
    let text = String::from_utf8_lossy(input);
    let (deed, rest) = text.split_once(':').unwrap_or((&text, ""));
    match deed {
        LONG => {
            let file = File::create(rest)?;
            file.set_len(LONG_BYTES / 2)?;
            Ok(file.write_all_at(b"x", LONG_BYTES - 1)?)
        }
        PAST_THE_CHECKS => {
            let length = rest.parse().map_err(|_| TaskFailure::new("no number of bytes"))?;
            let output = File::from(task.shared()?.as_fd().try_clone_to_owned()?);
            Ok(output.set_len(length)?)
        }
        CHILDREN => {
            let now = descriptors_of_a_child();
            Ok(write!(task, "{}\n--\n{now}", CHILD_BEFORE.get_or_init(descriptors_of_a_child))?)
        }
        FAULT => raise::fault(),
        VARIABLES => Ok(write!(task, "{}\n{}", BEFORE.get_or_init(variables), variables())?),
        _ => Ok(task.write_all(input)?),
    }
}

/// The descriptors of a child of this process.
fn descriptors_of_a_child() -> String {
    let mut ls = Command::new("ls");
    let listed = ls.args(["-l", "/proc/self/fd"]).stdin(Stdio::inherit()).output().expect("ls runs");
    String::from_utf8_lossy(&listed.stdout).into_owned()
}

/// The variables of the environment, sorted, in one line.
fn variables() -> String {
    let mut all: Vec<_> = std::env::vars().map(|(name, value)| format!("{name}={value}")).collect();
    all.sort();
    all.join(" ")
}

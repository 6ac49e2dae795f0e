//! A worker whose loader does with a context what its bytes say, and whose kind shows what the loader made.
//!
//! Its kind replaces `noop`, so that the daemon knows it. Driven by `context-worker` and by the tests.

use std::fs::File;
use std::io;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};

use bulkhead_sys::memfd;
use bulkhead_worker::{RegisteredContext, Registry, TaskContext, TaskFailure};

/// A context whose loader never returns.
pub const HANG: &str = "hang";
/// A context whose loader kills its process.
pub const CRASH: &str = "crash";
/// A context whose loader fails.
pub const FAIL: &str = "fail";

/// A context whose drop never returns.
pub const STICK: &str = "stick";
/// A context whose drop returns at the end of the pipe that is its file `a`.
pub const LINGER: &str = "linger";

/// An input: shows the contexts of the job.
pub const SHOW: &str = "show";
/// An input: reads the file `a` of the first context.
pub const READ: &str = "read";
/// An input: never returns.
pub const STAY: &str = "stay";

/// The beginning of an input: writes how many bytes of this process are resident.
pub const RESIDENT: &[u8] = b"resident";

/// How often the loader was called in this process.
static LOADS: AtomicU32 = AtomicU32::new(0);

/// Runs this process as a worker.
pub fn main() -> ExitCode {
    bulkhead_worker::run(&Registry::builtin().with_loader(load).with("noop", run))
}

/// What the loader makes: a text, and the pipe of a context that lingers.
struct LoadedText(String, Option<File>);

fn load(context: &RegisteredContext, task: &mut dyn TaskContext) -> Result<LoadedText, TaskFailure> {
    let text = String::from_utf8_lossy(context.bytes()).into_owned();
    match text.as_str() {
        HANG => stay(),
        CRASH => std::process::abort(),
        FAIL => return Err(TaskFailure::new("this context says no")),
        _ => {}
    }
    task.say("loading");
    let load = LOADS.fetch_add(1, Ordering::Relaxed) + 1;
    let pipe = context.file("a").filter(|_| text == LINGER);
    let pipe = pipe.map(|pipe| pipe.try_clone_to_owned()).transpose()?.map(File::from);
    Ok(LoadedText(format!("{text}:{load}"), pipe))
}

impl Drop for LoadedText {
    fn drop(&mut self) {
        if self.0.starts_with(STICK) {
            stay();
        }
        if let Some(pipe) = &mut self.1 {
            drop(io::copy(pipe, &mut io::sink()));
        }
    }
}

/// Never returns.
fn stay() -> ! {
    loop {
        std::thread::park();
    }
}

fn run(input: &[u8], task: &mut dyn TaskContext) -> Result<(), TaskFailure> {
    if input.starts_with(RESIDENT) {
        return Ok(write!(task, "{}", resident_bytes()?)?);
    }
    match std::str::from_utf8(input).unwrap_or_default() {
        SHOW => {
            let mut at = 0;
            while let Ok(context) = task.context(at) {
                let text =
                    context.loaded::<LoadedText>().map_or("not loaded".to_owned(), |loaded| loaded.0.clone());
                write!(task, "{text} ")?;
                at += 1;
            }
            Ok(write!(task, "in {}", std::process::id())?)
        }
        READ => {
            let context = task.context(0)?;
            let file = context.file("a").ok_or_else(|| TaskFailure::new("no file a"))?;
            let mut bytes = [0; 64];
            let count = memfd::read_at(file, &mut bytes, 0)?;
            Ok(task.write_all(&bytes[..count])?)
        }
        STAY => stay(),
        _ => Ok(write!(task, "{}", summed(input))?),
    }
}

fn resident_bytes() -> io::Result<u64> {
    let line = std::fs::read_to_string("/proc/self/statm")?;
    let pages = line.split_ascii_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.map(|pages| pages * 4096).ok_or_else(|| io::Error::other("statm has no pages"))
}

/// What the kind writes for any other input: its length and a sum over it.
pub fn summed(input: &[u8]) -> String {
    let sum = input.iter().fold(7_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    format!("{} {sum}", input.len())
}

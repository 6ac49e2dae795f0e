//! A worker whose runtime writes its stack as text, as Python's faulthandler does: a handler of SIGSEGV that is older than
//! ours writes into the page, and so does its kind.
//!
//! Its kind replaces `noop`, so that the daemon knows it; an input is a deed, then `:`, then a text. Driven by
//! `writing-worker`.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::sync::OnceLock;

use bulkhead_proto::worker::boxes::STACK_SEQ_AT;
use bulkhead_sys::{foreign_code, raise};
use bulkhead_worker::{Registry, STACK_SIGNAL, StackPage, TaskContext, TaskFailure};

/// Writes the text and is done.
pub const DONE: &str = "done";
/// Writes the text and aborts.
pub const ABORT: &str = "abort";
/// Writes the text until the page is full, and aborts.
pub const FLOOD: &str = "flood";
/// Faults: the older handler writes [`NOTE`].
pub const FAULT: &str = "fault";

/// Followed by a number and `:`: writes the text, says that it was written for the offer of that number, and aborts.
pub const FORGE: &str = "forge";
/// The same, and hangs.
pub const FORGE_AND_HANG: &str = "forge-and-hang";

/// What the handler writes.
pub const NOTE: &str = "11\n";
const SEGV: i32 = 11;

static PAGE: OnceLock<&'static StackPage> = OnceLock::new();

/// Hangs, and so does a thread of its own.
pub const HANG: &str = "hang";

/// An argument of the program: the stacks of its threads are written when it is asked.
pub const THREADS: &str = "threads";
/// Another one: a handler writes [`ASKED_NOTE`] when it is asked.
pub const ASKED: &str = "asked";
/// Another one: it says so, and ignores the signal.
pub const DEAF: &str = "deaf";
/// Another one: it says so, and dies of the signal.
pub const FRAIL: &str = "frail";
/// Another one: it faults in its start, when it gets the page.
pub const STILLBORN: &str = "stillborn";
/// What the handler of [`ASKED`] writes.
pub const ASKED_NOTE: &str = "42\n";

/// Runs this process as a worker.
pub fn main() -> ExitCode {
    let registry = Registry::builtin().with("noop", run);
    let registry = match std::env::args().nth(1).as_deref() {
        Some(THREADS) => registry.with_thread_stacks(),
        Some(ASKED) => registry.with_stack_text_when_asked(|page| {
            PAGE.get_or_init(|| page);
            foreign_code::note_signals(&[STACK_SIGNAL], File::from(page.as_fd().try_clone_to_owned()?))
        }),
        Some(DEAF) => registry.with_stack_text_when_asked(|_| foreign_code::ignore_signal(STACK_SIGNAL)),
        Some(FRAIL) => registry.with_stack_text_when_asked(|_| Ok(())),
        Some(STILLBORN) => registry.with_stack_text(|_| raise::fault()),
        _ => registry.with_stack_text(prepare),
    };
    bulkhead_worker::run(&registry)
}

/// Never returns.
#[inline(never)]
fn hang_here() -> ! {
    loop {
        std::thread::park();
    }
}

fn prepare(page: &'static StackPage) -> io::Result<()> {
    PAGE.get_or_init(|| page);
    foreign_code::note_signals(&[SEGV], File::from(page.as_fd().try_clone_to_owned()?))
}

/// Writes a text, and another number than that of the task before it.
fn forge(mut page: &StackPage, seq: u64, text: &str) -> io::Result<()> {
    page.write_all(text.as_bytes())?;
    let file = File::from(page.as_fd().try_clone_to_owned()?);
    file.write_all_at(&seq.to_ne_bytes(), STACK_SEQ_AT as u64)
}

fn run(input: &[u8], _: &mut dyn TaskContext) -> Result<(), TaskFailure> {
    let (deed, text) =
        std::str::from_utf8(input).ok().and_then(|text| text.split_once(':')).unwrap_or_default();
    if deed == HANG {
        drop(std::thread::Builder::new().name("second".to_owned()).spawn(|| hang_here()));
        hang_here();
    }
    let mut page = *PAGE.get().expect("it came before the first task");
    match deed {
        DONE => Ok(page.write_all(text.as_bytes())?),
        FLOOD => {
            while page.write_all(text.as_bytes()).is_ok() {}
            std::process::abort()
        }
        FAULT => raise::fault(),
        FORGE | FORGE_AND_HANG => {
            let (seq, text) = text.split_once(':').ok_or_else(|| TaskFailure::new("no number"))?;
            forge(page, seq.parse().map_err(|_| TaskFailure::new("no number"))?, text)?;
            if deed == FORGE_AND_HANG { hang_here() } else { std::process::abort() }
        }
        _ => {
            page.write_all(text.as_bytes())?;
            std::process::abort()
        }
    }
}

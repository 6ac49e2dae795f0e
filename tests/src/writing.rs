//! A worker whose runtime writes its stack as text, as Python's faulthandler does: a handler of SIGSEGV that is older than
//! ours writes into the page, and so does its kind.
//!
//! Its kind replaces `noop`, so that the daemon knows it; an input is a deed, then `:`, then a text. Driven by
//! `writing-worker`.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::OnceLock;

use bulkhead_sys::{foreign_code, raise};
use bulkhead_worker::{Registry, StackPage, TaskContext, TaskFailure};

/// Writes the text and is done.
pub const DONE: &str = "done";
/// Writes the text and aborts.
pub const ABORT: &str = "abort";
/// Writes the text until the page is full, and aborts.
pub const FLOOD: &str = "flood";
/// Faults: the older handler writes [`NOTE`].
pub const FAULT: &str = "fault";

/// What the handler writes.
pub const NOTE: &str = "11\n";
const SEGV: i32 = 11;

static PAGE: OnceLock<&'static StackPage> = OnceLock::new();

/// Runs this process as a worker.
pub fn main() -> ExitCode {
    let registry = Registry::builtin().with("noop", run).with_stack_text(prepare);
    bulkhead_worker::run(&registry)
}

fn prepare(page: &'static StackPage) -> io::Result<()> {
    PAGE.get_or_init(|| page);
    foreign_code::note_signals(&[SEGV], File::from(page.as_fd().try_clone_to_owned()?))
}

fn run(input: &[u8], _: &mut dyn TaskContext) -> Result<(), TaskFailure> {
    let (deed, text) =
        std::str::from_utf8(input).ok().and_then(|text| text.split_once(':')).unwrap_or_default();
    let mut page = *PAGE.get().expect("it came before the first task");
    match deed {
        DONE => Ok(page.write_all(text.as_bytes())?),
        FLOOD => {
            while page.write_all(text.as_bytes()).is_ok() {}
            std::process::abort()
        }
        FAULT => raise::fault(),
        _ => {
            page.write_all(text.as_bytes())?;
            std::process::abort()
        }
    }
}

//! The worker of the bench: the built-in kinds, and a few that only a measurement wants.
//!
//! `once PATH` tells its process id on the datagram socket at PATH and waits there to be killed, unless it did so
//! before: the file `PATH.ID` with the job's own word remembers. `grow:MIB` in front of that makes the process that
//! large first. Started by the supervisor of a bench, never by hand.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)] // a bench that cannot go on says so by a panic

use std::os::unix::net::UnixDatagram;
use std::process::ExitCode;
use std::sync::Mutex;

use bulkhead_jobs::{Failure, Task};
use bulkhead_sys::allocator::Watched;
use bulkhead_worker::{Registry, run};

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// What `grow` holds, for as long as the process lives.
static HELD: Mutex<Vec<u8>> = Mutex::new(Vec::new());

fn main() -> ExitCode {
    run(&Registry::builtin().with("noop", once))
}

/// `SOCKET WORD [MIB]`; any other input is given back, as `noop` does.
fn once(input: &[u8], task: &mut dyn Task) -> Result<(), Failure> {
    let text = std::str::from_utf8(input).unwrap_or_default();
    let words: Vec<&str> = text.split(' ').collect();
    let [socket, word, mebibytes] = words[..] else {
        return Ok(task.write_all(input)?);
    };
    let mark = format!("{socket}.{word}");
    if std::fs::File::create_new(&mark).is_err() {
        return Ok(task.write_all(word.as_bytes())?);
    }
    let bytes = mebibytes.parse::<usize>().expect("a number of MiB") << 20;
    HELD.lock().unwrap().resize(bytes, 1);
    let own = std::process::id().to_string();
    UnixDatagram::unbound().unwrap().send_to(own.as_bytes(), socket).unwrap();
    loop {
        std::thread::park();
    }
}

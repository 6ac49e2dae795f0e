//! The worker of the benchmark: the built-in kinds, and a few that only a measurement needs.
//!
//! `once PATH` sends its process id to the datagram socket at PATH and waits there to be killed, unless an earlier
//! attempt did so: the file `PATH.ID`, with the job's own word, records that. `grow:MIB` before it makes the process
//! that large first. `letters N` writes N letters, `echo` what it was given. An item of `items` comes back. A job with a file `in` reads it and writes as many bytes of its own. The supervisor of a benchmark
//! starts it; it must never be started by hand.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)] // a bench that cannot go on says so by a panic

use std::os::unix::net::UnixDatagram;
use std::process::ExitCode;
use std::sync::Mutex;

use bulkhead_sys::allocator::TrackingAllocator;
use bulkhead_worker::{PositionedFile, Registry, TaskContext, TaskFailure, run};
use simd_adler32::Adler32;

#[global_allocator]
static ALLOCATOR: TrackingAllocator = TrackingAllocator;

/// Bytes read and written at once.
const PIECE: usize = 256 << 10;

/// What `grow` holds, for as long as the process lives.
static HELD: Mutex<Vec<u8>> = Mutex::new(Vec::new());

fn main() -> ExitCode {
    run(&Registry::builtin()
        .with("noop", once)
        .with("letters", letters)
        .with("echo", echo)
        .with_items("items", item))
}

/// An item that comes back unchanged.
fn item(_: &[u8], item: &[u8], _: &mut dyn TaskContext) -> Result<Vec<u8>, TaskFailure> {
    Ok(item.to_vec())
}

/// As many letters as the input says.
fn letters(input: &[u8], task: &mut dyn TaskContext) -> Result<(), TaskFailure> {
    let count = std::str::from_utf8(input).ok().and_then(|text| text.parse().ok());
    Ok(task.write_all(&vec![b'x'; count.expect("a number")])?)
}

/// The input, or all of a file `in`, as a kind gets it that needs all of it in memory.
fn echo(input: &[u8], task: &mut dyn TaskContext) -> Result<(), TaskFailure> {
    let Ok(file) = task.file("in") else { return Ok(task.write_all(input)?) };
    let mut bytes = vec![0; usize::try_from(file.length()).expect("it is in memory")];
    let mut at = 0;
    while at < bytes.len() {
        at += file.read_at(&mut bytes[at..], at as u64)?;
    }
    Ok(task.write_all(&bytes)?)
}

/// Reads all of a file and writes as many other bytes, which its checksum decides.
fn turn_over(file: &dyn PositionedFile, task: &mut dyn TaskContext) -> Result<(), TaskFailure> {
    let (mut at, mut sum, mut piece) = (0, Adler32::new(), vec![0; PIECE]);
    while at < file.length() {
        let count = file.read_at(&mut piece, at)?;
        if count == 0 {
            return Err(TaskFailure::new("the file is shorter than it was"));
        }
        sum.write(&piece[..count]);
        at += count as u64;
    }
    piece.fill(sum.finish() as u8);
    while at > 0 {
        let count = at.min(PIECE as u64);
        task.write_all(&piece[..count as usize])?;
        at -= count;
    }
    Ok(())
}

/// `SOCKET WORD [MIB]`, or a file to be turned over; any other input is given back, as `noop` does.
fn once(input: &[u8], task: &mut dyn TaskContext) -> Result<(), TaskFailure> {
    if let Ok(file) = task.file("in") {
        return turn_over(&*file, task);
    }
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

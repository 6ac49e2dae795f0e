//! A worker with a kind of its own: it reports progress, uses memory, and dies on the thread that its input names.
//!
//! It does what `chaos`, which is in every worker, must not be able to do: use much memory, and fault on threads of its
//! own. Its kind replaces `noop`, so that the daemon knows it. Driven by `odd-worker`.

use std::path::Path;
use std::process::ExitCode;

use bulkhead_proto::worker::message::BOOT_FOLDER_VARIABLE;
use bulkhead_sys::raise;
use bulkhead_worker::{Registry, TaskContext, TaskFailure};

/// Reports progress and last words, makes a file [`TOLD`] in its boot folder, and goes on for ever.
pub const TELL: &str = "tell";
/// Faults on a thread of its own.
pub const THREAD: &str = "thread";
/// Uses up the stack of a thread of its own.
pub const THREAD_OVERFLOW: &str = "thread-overflow";
/// Followed by a number: fills this many bytes, then faults.
pub const GROW: &str = "grow:";

/// The last words of [`TELL`].
pub const WORDS: &str = "row 3, \u{1b}[31mred\n";

/// The file that shows that [`TELL`] has reported everything.
pub const TOLD: &str = "told";

/// Runs this process as a worker.
pub fn main() -> ExitCode {
    bulkhead_worker::run(&Registry::builtin().with("noop", run).with("letters", letters))
}

/// Writes as many letters as its input says, all of them [`letter_of`] their number.
fn letters(input: &[u8], task: &mut dyn TaskContext) -> Result<(), TaskFailure> {
    let count = std::str::from_utf8(input).ok().and_then(|text| text.parse().ok()).unwrap_or_default();
    Ok(task.write_all(&vec![letter_of(count); count])?)
}

/// The letter of a result of so many letters.
pub fn letter_of(count: usize) -> u8 {
    b"abcdefghijklmnopqrstuvw"[count % 23]
}

fn run(input: &[u8], task: &mut dyn TaskContext) -> Result<(), TaskFailure> {
    let deed = std::str::from_utf8(input).unwrap_or_default();
    match (deed, deed.strip_prefix(GROW)) {
        (TELL, _) => tell(task),
        (THREAD, _) => fault_on_a_thread(),
        (THREAD_OVERFLOW, _) => overflow_on_a_thread(),
        (_, Some(bytes)) => grow(bytes.parse().expect("a number of bytes")),
        _ => Ok(task.write_all(input)?),
    }
}

fn tell(task: &mut dyn TaskContext) -> ! {
    task.say("row 2");
    task.progress(2, 7);
    task.say(WORDS);
    task.progress(3, 7);
    let folder = std::env::var_os(BOOT_FOLDER_VARIABLE).expect("the daemon names its boot folder");
    std::fs::write(Path::new(&folder).join(TOLD), "").expect("a file");
    loop {
        std::thread::park();
    }
}

fn fault_on_a_thread() -> ! {
    let thread = std::thread::spawn(|| raise::fault());
    drop(thread.join());
    unreachable!("a fault on any thread ends the process")
}

fn overflow_on_a_thread() -> ! {
    let thread = std::thread::spawn(|| std::hint::black_box(deeper(0)));
    drop(thread.join());
    unreachable!("an overflow on any thread ends the process")
}

/// Recurses without end.
fn deeper(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 512]);
    if frame[0] == u64::MAX { 0 } else { deeper(depth + 1) + std::hint::black_box(frame)[1] }
}

fn grow(bytes: usize) -> ! {
    let held = std::hint::black_box(vec![1_u8; bytes]);
    assert_eq!(held.len(), bytes);
    raise::fault()
}

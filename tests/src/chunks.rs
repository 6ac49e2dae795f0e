//! Kinds that take chunks of items: one whose items do what they say, one that dies between two steps, and one that lies.
//!
//! Each item that runs leaves a line in a log, so that a test can count its runs: the head of a chunk is the folder of that log. Driven
//! by `chunk-worker`, whose config declares the kinds, and by the tests.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bulkhead_proto::chunk::{ChunkRegion, RESULT_HEAD_BYTES, ResultHead, STORE_FILE};
use bulkhead_sys::raise;
use bulkhead_sys::shared_page::SharedPage;
use bulkhead_worker::{ChunkInput, ItemWriter, Registry, TaskContext, TaskFailure};

use crate::daemon::send_signal;

/// The kind whose items do what they say: `NAME DEED`.
pub const ITEMS: &str = "items";
/// The kind that kills its worker between two steps: its head is `FOLDER STEP INDEX`.
pub const STEPS: &str = "steps";
/// The kind that lies: its head is `FOLDER LIE`.
pub const LIARS: &str = "liars";

/// Where a worker of the kind [`STEPS`] dies, beside an item.
pub const STEP_NAMES: [&str; 4] = ["before", "begun", "ran", "counted"];

/// What a worker of the kind [`LIARS`] does to its region, and whether the job is then done.
pub const LIES: [(&str, bool); 10] = [
    ("counts-beyond-items", true),
    ("counts-without-begin", false),
    ("begins-two-at-once", false),
    ("counts-all", false),
    ("counts-back", false),
    ("length-beyond-region", false),
    ("length-of-all-memory", false),
    ("mark-of-another", false),
    ("done-without-results", true),
    ("long-of-another", true),
];

/// The file that a worker leaves when an item of it hangs, or waits for a cancel, with its process id.
pub const HANGING: &str = "hanging";

/// The text of a config that declares the kinds.
pub fn config(program: &Path) -> String {
    let program = program.display().to_string();
    let kinds = [ITEMS, STEPS, LIARS].map(|kind| format!("[kinds.{kind}]\nring = 16\n"));
    format!("worker_program = {program:?}\n{}", kinds.concat())
}

/// Runs this process as a worker.
pub fn main() -> ExitCode {
    let registry = Registry::builtin().with_items(ITEMS, item).with(STEPS, steps).with(LIARS, lie);
    bulkhead_worker::run(&registry)
}

/// Notes that an item runs: one write of a whole line, so that none is lost or torn.
fn note(folder: &Path, name: &str) {
    let log = File::options().append(true).create(true).open(folder.join("runs"));
    log.and_then(|mut log| log.write_all(format!("{name}\n").as_bytes())).expect("the log of runs");
}

/// How often each item has run, by the log in this folder.
pub fn runs(folder: &Path) -> std::collections::BTreeMap<String, u32> {
    let mut runs = std::collections::BTreeMap::new();
    let text = std::fs::read_to_string(folder.join("runs")).unwrap_or_default();
    text.lines().for_each(|name| *runs.entry(name.to_owned()).or_default() += 1);
    runs
}

fn text(bytes: &[u8]) -> Result<&str, TaskFailure> {
    std::str::from_utf8(bytes).map_err(|_| TaskFailure::new("it is no text"))
}

/// The honest result of an item.
pub fn result_of(name: &str) -> String {
    format!("{name} is done")
}

fn item(head: &[u8], item: &[u8], task: &mut dyn TaskContext) -> Result<Vec<u8>, TaskFailure> {
    let (folder, item) = (PathBuf::from(text(head)?), text(item)?);
    let (name, deed) = item.split_once(' ').unwrap_or((item, ""));
    note(&folder, name);
    match deed.split_once(':').unwrap_or((deed, "")) {
        ("fail", _) => return Err(TaskFailure::new(format!("{name} says no"))),
        ("panic", _) => panic!("{name} panics"),
        ("abort", _) => std::process::abort(),
        ("fault", _) => raise::fault(),
        ("kill", _) => die(),
        ("exit", _) => std::process::exit(0),
        ("hang", _) => hang(&folder),
        ("linger", _) => {
            tell(&folder);
            while !task.is_cancelled() {
                std::thread::park_timeout(Duration::from_millis(1));
            }
        }
        ("write", _) => task.write_all(b"output of its own")?,
        ("long", bytes) => return Ok(vec![name.as_bytes()[0]; bytes.parse().expect("a length")]),
        _ => {}
    }
    Ok(result_of(name).into_bytes())
}

fn die() -> ! {
    send_signal(std::process::id(), "KILL");
    stay()
}

fn hang(folder: &Path) -> ! {
    tell(folder);
    stay()
}

/// Leaves the file [`HANGING`].
fn tell(folder: &Path) {
    let (new, told) = (folder.join("new"), folder.join(HANGING));
    std::fs::write(&new, std::process::id().to_string()).expect("a file");
    std::fs::rename(new, told).expect("a file");
}

fn stay() -> ! {
    loop {
        std::thread::park();
    }
}

fn steps(input: &[u8], task: &mut dyn TaskContext) -> Result<(), TaskFailure> {
    let chunk = ChunkInput::read(input).map_err(TaskFailure::new)?;
    let words: Vec<&str> = text(chunk.head)?.split(' ').collect();
    let &[folder, step, place] = &words[..] else { return Err(TaskFailure::new("no step")) };
    let place: usize = place.parse().map_err(|_| TaskFailure::new("no place"))?;
    let die_at = |now: &str, at: usize| {
        if (now, at) == (step, place) {
            die()
        }
    };
    let (mut writer, mut items) = (ItemWriter::open(&chunk, task)?, chunk.items());
    loop {
        die_at("before", writer.counted());
        let Some(at) = writer.begin()? else { break };
        die_at("begun", at);
        let name = text(items.next().unwrap_or_default())?;
        note(Path::new(folder), name);
        die_at("ran", at);
        writer.store(result_of(name).as_bytes(), false, task)?;
        die_at("counted", at);
    }
    writer.finish()
}

/// The memory of the store that the last context of the job is, and the region of the chunk.
fn open_store(
    chunk: &ChunkInput<'_>,
    task: &dyn TaskContext,
) -> Result<(SharedPage, ChunkRegion), TaskFailure> {
    let contexts = (0..).map_while(|at| task.context(at).ok());
    let store = contexts.last().ok_or_else(|| TaskFailure::new("no store"))?;
    let file = store.file(STORE_FILE).ok_or_else(|| TaskFailure::new("no store"))?;
    let region = chunk.region.ok_or_else(|| TaskFailure::new("no region"))?;
    Ok((SharedPage::map_for_writing(file)?, region))
}

/// Honest results for the first two items, then a lie.
fn lie(input: &[u8], task: &mut dyn TaskContext) -> Result<(), TaskFailure> {
    let chunk = ChunkInput::read(input).map_err(TaskFailure::new)?;
    let (folder, lie) = text(chunk.head)?.split_once(' ').ok_or_else(|| TaskFailure::new("no lie"))?;
    let (page, region) = open_store(&chunk, task)?;
    if let Some(is_copy) = ["zeroes-all", "copies-itself"].iter().position(|name| *name == lie) {
        return overwrite(&page, region, is_copy == 1);
    }
    let (mut writer, mut items) = (ItemWriter::open(&chunk, task)?, chunk.items());
    let mut at = ChunkRegion::HEADER_BYTES;
    for _ in 0..2 {
        writer.begin()?;
        let name = text(items.next().unwrap_or_default())?;
        note(Path::new(folder), name);
        writer.store(result_of(name).as_bytes(), false, task)?;
        at += ResultHead::stored_bytes(result_of(name).len() as u64).expect("a short result");
    }
    let set = |at: u64, word: u64| page.store((region.offset + at) as usize, word, Ordering::Release);
    let counts = |begun: u64, counted: u64| {
        set(ChunkRegion::BEGUN_AT, region.count_word(begun));
        set(ChunkRegion::COUNTED_AT, region.count_word(counted));
    };
    let put = |mark: u64, length: u64| {
        set(at, mark);
        set(at + 8, ResultHead { number: length, is_failed: false }.to_word());
        counts(3, 3);
    };
    let room = region.length - at - RESULT_HEAD_BYTES;
    match lie {
        "counts-beyond-items" => counts(chunk.len() as u64 + 1, chunk.len() as u64 + 1),
        "counts-without-begin" => counts(2, 3),
        "begins-two-at-once" => counts(4, 2),
        "counts-back" => counts(1, 1),
        "counts-all" => counts(chunk.len() as u64, chunk.len() as u64),
        "length-beyond-region" => put(region.mark(2), room + 1),
        "length-of-all-memory" => put(region.mark(2), u64::MAX >> 8),
        "mark-of-another" => put(region.mark(5), 1),
        "done-without-results" => {}
        "long-of-another" => {
            counts(3, 2);
            set(ChunkRegion::LONG_AT, ResultHead { number: 4, is_failed: false }.to_word());
        }
        _ => return Err(TaskFailure::new("no such lie")),
    }
    if LIES.contains(&(lie, true)) { Ok(()) } else { die() }
}

/// Writes over the regions of all other chunks: zeroes, or what stands in its own.
fn overwrite(page: &SharedPage, region: ChunkRegion, is_copy: bool) -> Result<(), TaskFailure> {
    let own = region.offset..region.offset + region.length;
    for at in (0..page.length() as u64).step_by(8).filter(|at| !own.contains(at)) {
        let word = if is_copy {
            let from = region.offset + at % region.length;
            page.load(from as usize, Ordering::Relaxed)
        } else {
            0
        };
        page.store(at as usize, word, Ordering::Relaxed);
    }
    Ok(())
}

//! The writer over a store in memory: what a client finds after each step, and every way in which it refuses.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use bulkhead_proto::chunk::STORE_FILE;
use bulkhead_proto::file::{FileUse, Way};
use bulkhead_sys::memfd;
use bulkhead_sys::shared_page::SharedPage;
use bulkhead_task::RegisteredContext;

use super::*;

const REGION: ChunkRegion = ChunkRegion { key: 77, offset: 64, length: 256 };

/// A task whose job names these contexts.
#[derive(Default)]
struct WriterTask {
    output: Vec<u8>,
    contexts: Vec<Arc<RegisteredContext>>,
    /// Whether its output takes nothing.
    is_full: bool,
}

impl io::Write for WriterTask {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_full { Err(io::ErrorKind::StorageFull.into()) } else { self.output.write(bytes) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TaskContext for WriterTask {
    fn progress(&mut self, _done: u64, _total: u64) {}
    fn say(&mut self, _words: &str) {}
    fn last_breath(&mut self) {}

    fn context(&self, at: usize) -> Result<Arc<RegisteredContext>, TaskFailure> {
        self.contexts.get(at).cloned().ok_or_else(|| TaskFailure::new("no more"))
    }
}

fn context(name: &str, descriptor: OwnedFd) -> Arc<RegisteredContext> {
    Arc::new(RegisteredContext::new(Vec::new(), vec![(FileUse::new(name, Way::Out), descriptor)]))
}

/// The client's side of a store, and a task that names it behind another context.
fn begin() -> (SharedPage, WriterTask) {
    let (page, descriptor) = SharedPage::create_for_writers("a test", 4096).unwrap();
    for at in [ChunkRegion::BEGUN_AT, ChunkRegion::COUNTED_AT] {
        page.store(64 + at as usize, REGION.count_word(0), Ordering::Relaxed);
    }
    let other = context("other", File::open("/dev/null").unwrap().into());
    (page, WriterTask { contexts: vec![other, context(STORE_FILE, descriptor)], ..WriterTask::default() })
}

fn input(region: Option<ChunkRegion>, items: &[&str]) -> Vec<u8> {
    ChunkInput::encode(region, b"", items).unwrap()
}

fn open(bytes: &[u8], task: &WriterTask) -> Result<ItemWriter, String> {
    ItemWriter::open(&ChunkInput::read(bytes).unwrap(), task).map_err(|failure| failure.to_string())
}

/// What the client finds: how many have begun, how many are counted, and what is said of a long result.
fn words(page: &SharedPage) -> (u64, u64, u64) {
    let word = |at: u64| page.load(64 + at as usize, Ordering::Acquire);
    let count = |at| REGION.read_count(word(at)).expect("a count").0;
    (count(ChunkRegion::BEGUN_AT), count(ChunkRegion::COUNTED_AT), word(ChunkRegion::LONG_AT))
}

#[test]
fn each_item_is_stored_then_counted_before_the_next_begins() {
    let (page, mut task) = begin();
    let bytes = input(Some(REGION), &["a", "b"]);
    let mut writer = open(&bytes, &task).unwrap();
    assert_eq!(words(&page), (0, 0, 0));
    assert_eq!(writer.begin().unwrap(), Some(0));
    assert_eq!(words(&page), (1, 0, 0));
    writer.store(b"first", false, &mut task).unwrap();
    assert_eq!((words(&page), writer.counted()), ((1, 1, 0), 1));
    assert_eq!(writer.begin().unwrap(), Some(1));
    writer.store(b"", true, &mut task).unwrap();
    assert_eq!((words(&page), writer.begin().unwrap()), ((2, 2, 0), None));
    writer.finish().unwrap();
    let results = 64 + ChunkRegion::HEADER_BYTES as usize;
    let mut first = [0; 5];
    page.read_bytes(results + 16, &mut first);
    assert_eq!((page.load(results, Ordering::Relaxed), &first), (REGION.mark(0), b"first"));
    let second = results + 24;
    assert_eq!(page.load(second, Ordering::Relaxed), REGION.mark(1));
    let head = ResultHead::from_word(page.load(second + 8, Ordering::Relaxed));
    assert_eq!(head, Some(ResultHead { number: 0, is_failed: true }));
    assert!(task.output.is_empty());
}

/// Bytes of all mappings of a memfd of this name that are in the resident memory of this process.
fn resident_bytes(name: &str) -> usize {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let file = format!("/memfd:{name} (deleted)");
    let (mut is_own, mut bytes) = (false, 0);
    for line in maps.lines() {
        if line.contains(" kB") {
            let kib = line.strip_prefix("Rss:").map(|rest| rest.trim().trim_end_matches(" kB"));
            bytes += kib.filter(|_| is_own).map_or(0, |kib| kib.parse::<usize>().unwrap() << 10);
        } else if line.contains('-') {
            is_own = line.ends_with(&file);
        }
    }
    bytes
}

/// The memory limit of the task would count them, and they are memory of the client.
#[test]
fn results_are_in_the_store_and_not_in_the_resident_memory_of_the_worker() {
    const STORE_BYTES: usize = 16 << 20;
    let (page, descriptor) = SharedPage::create_for_writers("a large store", STORE_BYTES).unwrap();
    let region = ChunkRegion { length: STORE_BYTES as u64 - 64, ..REGION };
    for at in [ChunkRegion::BEGUN_AT, ChunkRegion::COUNTED_AT] {
        page.store(64 + at as usize, region.count_word(0), Ordering::Relaxed);
    }
    let mut task = WriterTask { contexts: vec![context(STORE_FILE, descriptor)], ..WriterTask::default() };
    let bytes = input(Some(region), &["item"; 201]);
    let mut writer = open(&bytes, &task).unwrap();
    let long: Vec<u8> = (0..5 << 20).map(|at: u32| (at % 251) as u8).collect();
    for item in 0..201 {
        writer.begin().unwrap();
        let result = if item == 0 { &long } else { &long[..50_000] };
        writer.store(result, false, &mut task).unwrap();
        let resident = resident_bytes("a large store");
        assert!(resident < (1 << 20) + (512 << 10), "{resident} bytes after item {item}");
    }
    assert!(task.output.is_empty());
    writer.finish().unwrap();
    assert!(resident_bytes("a large store") <= 256 << 10);
    let mut read = vec![0; long.len()];
    page.read_bytes(64 + ChunkRegion::HEADER_BYTES as usize + 16, &mut read);
    assert!(read == long);
}

#[test]
fn a_result_without_room_becomes_the_output_and_no_further_item_begins() {
    let (page, mut task) = begin();
    page.store(64 + 256, 5, Ordering::Relaxed);
    let bytes = input(Some(REGION), &["a", "b", "c"]);
    let mut writer = open(&bytes, &task).unwrap();
    writer.begin().unwrap();
    // It fills the region but for the words before another result.
    writer.store(&[1; 256 - 64 - 16 - 16], false, &mut task).unwrap();
    writer.begin().unwrap();
    task.is_full = true;
    let refused = writer.store(b"x", true, &mut task).unwrap_err();
    assert!(refused.to_string().contains("output"), "{refused}");
    assert_eq!(words(&page), (2, 1, 0), "a result that cannot be written is not announced");
    task.is_full = false;
    assert!(!writer.is_over());
    writer.store(b"x", true, &mut task).unwrap();
    assert!(writer.is_over(), "its client may have cancelled it or not: no further item begins");
    assert_eq!(words(&page), (2, 1, ResultHead { number: 1, is_failed: true }.to_word()));
    assert_eq!((task.output.as_slice(), writer.begin().unwrap()), (&b"x"[..], None));
    assert_eq!(page.load(64 + 256, Ordering::Relaxed), 5, "what follows the region is not touched");
    writer.finish().unwrap();
}

#[test]
fn nothing_begins_once_the_client_has_closed_the_chunk() {
    let (page, mut task) = begin();
    let bytes = input(Some(REGION), &["a", "b"]);
    let mut writer = open(&bytes, &task).unwrap();
    writer.begin().unwrap();
    page.set_bits(64 + ChunkRegion::BEGUN_AT as usize, ChunkRegion::CLOSED);
    writer.store(b"late", false, &mut task).unwrap();
    assert!(writer.begin().unwrap_err().to_string().contains("closed the chunk"));
    assert_eq!(words(&page), (1, 1, 0));
    assert!(writer.finish().unwrap_err().to_string().contains("1 of the 2 items"));
    assert!(open(&bytes, &task).unwrap_err().contains("closed the chunk"));
}

#[test]
fn a_chunk_of_which_an_item_has_begun_is_refused_and_so_is_a_changed_word() {
    let (page, task) = begin();
    let bytes = input(Some(REGION), &["a", "b"]);
    let (mut first, mut second) = (open(&bytes, &task).unwrap(), open(&bytes, &task).unwrap());
    first.begin().unwrap();
    assert!(second.begin().unwrap_err().to_string().contains("where 0 had begun"));
    let refused = open(&bytes, &task).unwrap_err();
    assert!(refused.contains("1 items of the chunk have begun in an earlier attempt"), "{refused}");
    assert!(refused.contains("crashes_max = 1"), "{refused}");
    for word in [0, ChunkRegion { key: 1 << 60, ..REGION }.count_word(0)] {
        page.store(64 + ChunkRegion::BEGUN_AT as usize, word, Ordering::Relaxed);
        assert!(open(&bytes, &task).unwrap_err().contains("is that of another one"));
    }
}

#[test]
fn begin_and_store_take_turns() {
    let (_, mut task) = begin();
    let bytes = input(Some(REGION), &["a"]);
    let mut writer = open(&bytes, &task).unwrap();
    assert!(
        writer
            .store(b"", false, &mut task)
            .unwrap_err()
            .to_string()
            .contains("item 0 of the chunk has not begun")
    );
    writer.begin().unwrap();
    assert!(writer.begin().unwrap_err().to_string().contains("item 0 of the chunk has no result"));
    assert!(writer.finish().is_err());
}

#[test]
fn a_region_outside_of_its_store_and_a_store_that_is_none_are_refused() {
    let (_page, task) = begin();
    for (offset, length) in [(4096, 64), (3840, 320), (64, 32), (64, 0x1000), (u64::MAX - 63, 64)] {
        let region = ChunkRegion { offset, length, ..REGION };
        let refused = open(&input(Some(region), &["a"]), &task).unwrap_err();
        assert!(refused.contains("of a store of 4096 bytes"), "{refused}");
    }
    let bytes = input(Some(REGION), &["a"]);
    assert!(open(&input(None, &["a"]), &task).unwrap_err().contains("one item and no region"));
    assert!(open(&bytes, &WriterTask::default()).unwrap_err().contains("names no item store"));
    let loose = memfd::output_file("loose").unwrap();
    for descriptor in [loose, File::open("/dev/null").unwrap().into()] {
        let contexts = vec![context(STORE_FILE, descriptor)];
        let refused = open(&bytes, &WriterTask { contexts, ..WriterTask::default() }).unwrap_err();
        assert!(refused.contains("cannot be mapped"), "{refused}");
    }
    let (_, sealed) = SharedPage::create_arena("read alone", 4096).unwrap();
    let contexts = vec![context(STORE_FILE, sealed.as_fd().try_clone_to_owned().unwrap())];
    assert!(open(&bytes, &WriterTask { contexts, ..WriterTask::default() }).is_err());
}

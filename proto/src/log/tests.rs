//! Tests of the log's layout: a reader gets all that was written, or the number of bytes that are missing.
//!
//! A log with hostile contents must end no reader and make it allocate no more than the file could hold.

use std::convert::Infallible;

use super::*;

/// A log's file in memory, and its writer.
struct Book {
    file: Vec<u8>,
    writer: LogWriter,
    written: u64,
}

impl Book {
    fn new() -> Self {
        Self { file: vec![0; LOG_BYTES as usize], writer: LogWriter::default(), written: 0 }
    }

    fn add(&mut self, stream: LogStream, bytes: &[u8]) {
        let file = &mut self.file;
        let put = |write: Write<'_>| {
            let at = write.at as usize;
            if write.is_reused {
                file[at..at + BLOCK_HEAD].fill(0);
            }
            let (from, records) = write.records;
            file[at + from..][..records.len()].copy_from_slice(records);
            file[at..][..BLOCK_HEAD].copy_from_slice(&write.head);
            Ok::<(), Infallible>(())
        };
        self.writer.add(77, stream, bytes, put).unwrap();
        self.written += bytes.len() as u64;
    }

    fn read(&self, reader: &mut LogReader) -> Vec<LogFound> {
        let mut found = Vec::new();
        let load = |at: u64, into: &mut [u8]| {
            into.copy_from_slice(&self.file[at as usize..][..into.len()]);
            Ok::<(), Infallible>(())
        };
        let each = |one| {
            found.push(one);
            Ok(())
        };
        reader.read(load, each).unwrap();
        found
    }
}

fn text(found: &[LogFound]) -> String {
    let pieces = found.iter().map(|found| match found {
        LogFound::Entry(entry) => String::from_utf8_lossy(&entry.bytes).into_owned(),
        LogFound::Dropped(_) => "[...]".to_owned(),
    });
    pieces.collect()
}

fn length(found: &[LogFound]) -> u64 {
    let of = |found: &LogFound| match found {
        LogFound::Entry(entry) => entry.bytes.len() as u64,
        LogFound::Dropped(bytes) => *bytes,
    };
    found.iter().map(of).sum()
}

#[test]
fn what_is_written_is_read_once_as_it_comes() {
    let (mut book, mut reader) = (Book::new(), LogReader::default());
    assert_eq!(book.read(&mut reader), []);
    book.add(LogStream::Out, b"one\n");
    book.add(LogStream::Err, b"two\n");
    let entry =
        |stream, bytes: &[u8]| LogFound::Entry(LogEntry { wall_us: 77, stream, bytes: bytes.to_vec() });
    let both = [entry(LogStream::Out, b"one\n"), entry(LogStream::Err, b"two\n")];
    assert_eq!(book.read(&mut reader), both);
    assert_eq!(book.read(&mut reader), []);
    let mut whole = String::new();
    for number in 0..5000 {
        let line = format!("line {number}\n");
        book.add(LogStream::Out, line.as_bytes());
        whole.push_str(&line);
        if number % 700 == 0 {
            let read = text(&book.read(&mut reader));
            assert!(whole.starts_with(&read) && whole.len() == read.len());
            whole.clear();
        }
    }
    assert_eq!(text(&book.read(&mut reader)), whole);
    assert!(text(&book.read(&mut LogReader::default())).starts_with("one\ntwo\nline 0\n"));
}

#[test]
fn of_too_much_the_beginning_and_the_end_stay_and_the_gap_is_said() {
    for piece in [7, 1000, 16_000, 65_536, 3_000_000] {
        let mut book = Book::new();
        let mut slow = LogReader::default();
        book.add(LogStream::Err, b"the beginning\n");
        assert_eq!(text(&book.read(&mut slow)), "the beginning\n");
        while book.written < 3 * LOG_BYTES {
            book.add(LogStream::Out, &vec![b'x'; piece]);
        }
        book.add(LogStream::Err, b"the end\n");
        let all = book.read(&mut LogReader::default());
        assert_eq!(length(&all), book.written, "pieces of {piece}");
        assert_eq!(all.iter().filter(|found| matches!(found, LogFound::Dropped(_))).count(), 1);
        assert!(text(&all).starts_with("the beginning\nx") && text(&all).ends_with("xthe end\n"));
        let kept =
            length(&all.iter().filter(|f| matches!(f, LogFound::Entry(_))).cloned().collect::<Vec<_>>());
        assert!(kept > LOG_BYTES / 3, "{kept} bytes are kept of pieces of {piece}");
        assert_eq!(length(&book.read(&mut slow)) + 14, book.written);
        assert_eq!(book.read(&mut slow), []);
    }
}

#[test]
fn nonsense_ends_nothing_and_brings_no_more_than_there_is() {
    let mut book = Book::new();
    for _ in 0..10 {
        book.add(LogStream::Out, &[b'y'; 60_000]);
    }
    let mut state = 1_u64;
    for _ in 0..300 {
        for _ in 0..50 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let block = (state >> 33) % PLACES;
            let at = block as usize * BLOCK_BYTES + (state >> 20) as usize % 64;
            book.file[at] = (state >> 56) as u8;
        }
        let mut reader = LogReader::default();
        for _ in 0..3 {
            let found = book.read(&mut reader);
            let entries = found.iter().filter(|found| matches!(found, LogFound::Entry(_))).count();
            assert!(entries <= 2 * LOG_BYTES as usize / RECORD_HEAD, "{entries} entries");
        }
    }
    book.file.fill(255);
    assert_eq!(length(&book.read(&mut LogReader::default())), 0);
}

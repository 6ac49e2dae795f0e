//! Numbers that are never given out twice, over all runs: reserved in blocks, before any of a block is used.
//!
//! The first number that is not reserved stands twice: in the database, and in a small file beside it, so that a database that
//! was deleted or restored repeats none: the higher of both counts. The file is replaced as a whole: written, synced, renamed, and
//! its folder synced. Used by `opening.rs` and `writer.rs`.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use crate::bounds::BLOCK;

/// What is numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NumberKind {
    /// Jobs, durable and volatile.
    Job,
    /// Workers.
    Worker,
    /// Records.
    Record,
    /// Outputs.
    Output,
    /// Files that the tasks of one job share.
    Scratch,
    /// Logs.
    Log,
    /// Runs of the daemon: one at a time, and no block of them.
    Epoch,
}

/// All of them.
pub const NUMBER_KINDS: [NumberKind; 7] = [
    NumberKind::Job,
    NumberKind::Worker,
    NumberKind::Record,
    NumberKind::Output,
    NumberKind::Scratch,
    NumberKind::Log,
    NumberKind::Epoch,
];

impl NumberKind {
    /// Its name, in the file and in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Worker => "worker",
            Self::Record => "record",
            Self::Output => "output",
            Self::Scratch => "scratch",
            Self::Log => "log",
            Self::Epoch => "epoch",
        }
    }

    fn of_name(name: &str) -> Option<Self> {
        NUMBER_KINDS.into_iter().find(|kind| kind.name() == name)
    }
}

/// The first number of each kind that is not reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextNumbers([u64; NUMBER_KINDS.len()]);

/// Nothing was given out yet: numbers count from 1.
impl Default for NextNumbers {
    fn default() -> Self {
        Self([1; NUMBER_KINDS.len()])
    }
}

impl NextNumbers {
    /// The first number of a kind that is not reserved.
    pub fn of(&self, kind: NumberKind) -> u64 {
        self.0[kind as usize]
    }

    /// Sets it.
    pub fn set(&mut self, kind: NumberKind, next: u64) {
        self.0[kind as usize] = next;
    }

    /// The higher of both counts, kind by kind.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at].max(other.0[at])))
    }

    /// The lower of both counts, kind by kind.
    #[must_use]
    pub(crate) fn min(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at].min(other.0[at])))
    }

    /// After one more run, which has a block of each kind.
    #[must_use]
    pub fn with_a_run(self) -> Self {
        let mut next = Self(self.0.map(|next| next + BLOCK));
        next.set(NumberKind::Epoch, self.of(NumberKind::Epoch) + 1);
        next
    }
}

/// The file's first line.
const HEAD: &str = "bulkhead numbers 1";

impl fmt::Display for NextNumbers {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{HEAD}")?;
        NUMBER_KINDS.iter().try_for_each(|kind| writeln!(out, "{} {}", kind.name(), self.of(*kind)))
    }
}

/// Reads the file. `None`: there is none.
///
/// # Errors
/// As read(2). [`io::ErrorKind::InvalidData`]: it is no such file.
pub(crate) fn read(path: &Path) -> io::Result<Option<NextNumbers>> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text?,
    };
    parse(&text).map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// A line of a later version about another kind of number is passed over.
fn parse(text: &str) -> Option<NextNumbers> {
    let mut lines = text.lines();
    let mut numbers = NextNumbers::default();
    if lines.next() != Some(HEAD) || !text.ends_with('\n') {
        return None;
    }
    for line in lines {
        let (name, next) = line.split_once(' ')?;
        let next = next.parse().ok()?;
        if let Some(kind) = NumberKind::of_name(name) {
            numbers.set(kind, next);
        }
    }
    Some(numbers)
}

/// Replaces the file at `path`, whose folder is `folder`.
///
/// # Errors
/// As open(2), write(2), fsync(2) and rename(2). The old file, or the new one, is there as a whole.
pub(crate) fn write(folder: &Path, path: &Path, numbers: &NextNumbers) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(numbers.to_string().as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_it_was_written_and_a_damaged_one_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("numbers");
        assert_eq!(read(&path).unwrap(), None);
        let mut numbers = NextNumbers::default().with_a_run();
        numbers.set(NumberKind::Log, 7);
        write(folder.path(), &path, &numbers).unwrap();
        assert_eq!(read(&path).unwrap(), Some(numbers));
        assert_eq!(numbers.of(NumberKind::Job), BLOCK + 1);
        let text = std::fs::read_to_string(&path).unwrap();
        for damaged in ["", "bulkhead numbers 2\n", &text[..text.len() - 1], &text.replace('7', "x")] {
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::InvalidData, "{damaged:?}");
        }
        std::fs::write(&path, format!("{text}colour 9\n")).unwrap();
        assert_eq!(read(&path).unwrap(), Some(numbers), "what a later version adds is passed over");
    }

    #[test]
    fn the_higher_count_is_taken_kind_by_kind() {
        let (mut one, mut other) = (NextNumbers::default(), NextNumbers::default());
        one.set(NumberKind::Job, 9);
        other.set(NumberKind::Worker, 5);
        let both = one.max(other);
        assert_eq!(
            (both.of(NumberKind::Job), both.of(NumberKind::Worker), both.of(NumberKind::Log)),
            (9, 5, 1)
        );
    }
}

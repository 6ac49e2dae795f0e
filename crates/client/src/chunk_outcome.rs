//! What became of the items of a chunk, read from its region after the end of its job.
//!
//! The region was written by a worker, which may be corrupted, or hostile, or alive. Each word is read once; what is read is checked, and
//! the bytes of a result are copied once. Nothing is read outside of the region. When the words cannot be true, no item that
//! may have begun is called one that has not: what has no result is in error then, and nothing of it is to be run again. Driven
//! by `chunk.rs`.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::Ordering;

use bulkhead_proto::chunk::{ChunkRegion, RESULT_HEAD_BYTES, ResultHead};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_sys::shared_page::SharedPage;

use crate::session::SessionEnd;

/// What became of the items of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkOutcome {
    /// The bytes of all results, one after another.
    bytes: Vec<u8>,
    /// Of each result where it ends in `bytes`, and whether its item has failed.
    ends: Vec<(usize, bool)>,
    items: usize,
    stop: ChunkStop,
}

/// The result of one item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemResult<'a> {
    /// What its handler returned.
    Done(&'a [u8]),
    /// Why it failed, as its handler says: a text, unless the kind has words of its own.
    Failed(&'a [u8]),
}

/// What became of the first item that is not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkStop {
    /// There is none: all are delivered.
    AllDelivered,
    /// Its result had no room in the region, and is the output of the job, which is done. The items after it never began.
    LongResult {
        /// Whether the output is why the item failed.
        is_failed: bool,
    },
    /// It had begun and left no result: it fails with the end of the job. The items after it never began.
    Begun,
    /// It never began, nor did those after it. Where no item at all was delivered, the job ended before its first one: submitted
    /// anew, it may well end the same way.
    Unbegun,
    /// The words in the region cannot be true. It and all items after it are in error, and none may be run again.
    Fault(ChunkFault),
}

/// Why a region cannot be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkFault {
    /// The counts are none of this chunk: other memory was written over them.
    Overwritten,
    /// The counts cannot be those of a chunk of so many items.
    Counts {
        /// How many have begun, as its worker says.
        begun: u64,
        /// How many have a result, as its worker says.
        counted: u64,
        /// How many there are.
        items: usize,
    },
    /// A result that was counted is none.
    Result {
        /// The item.
        index: usize,
    },
    /// The region has a result of an item that by its counts had not begun: the worker has lowered them.
    WentBack {
        /// The item.
        index: usize,
    },
    /// The job is done, and items have no result.
    Unfinished {
        /// How many have one.
        counted: u64,
        /// How many there are.
        items: usize,
    },
}

impl ChunkOutcome {
    /// The results of the items from the first one on, in their order.
    pub fn delivered(&self) -> impl ExactSizeIterator<Item = ItemResult<'_>> {
        let mut start = 0;
        self.ends.iter().map(move |(end, is_failed)| {
            let bytes = &self.bytes[std::mem::replace(&mut start, *end)..*end];
            if *is_failed { ItemResult::Failed(bytes) } else { ItemResult::Done(bytes) }
        })
    }

    /// What became of the item behind the delivered ones.
    pub fn stop(&self) -> ChunkStop {
        self.stop
    }

    /// The items that never began and never will: they can be submitted anew.
    pub fn rest(&self) -> Range<usize> {
        let first = match self.stop {
            ChunkStop::AllDelivered | ChunkStop::Fault(_) => self.items,
            ChunkStop::LongResult { .. } | ChunkStop::Begun => self.ends.len() + 1,
            ChunkStop::Unbegun => self.ends.len(),
        };
        first..self.items
    }
}

/// The results that are there while a chunk still runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountedResults(pub(crate) ChunkOutcome);

impl CountedResults {
    /// As [`ChunkOutcome::delivered`].
    pub fn delivered(&self) -> impl ExactSizeIterator<Item = ItemResult<'_>> {
        self.0.delivered()
    }
}

impl fmt::Display for ChunkFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overwritten => {
                out.write_str("the counts of the chunk are none: a worker has written other memory over them")
            }
            Self::Counts { begun, counted, items } => write!(
                out,
                "the worker of the chunk has written that {begun} items have begun and {counted} have a result, of {items}"
            ),
            Self::Result { index } => {
                write!(out, "what the worker of the chunk has stored for item {index} is no result")
            }
            Self::WentBack { index } => {
                write!(
                    out,
                    "item {index} has a result, and by the counts of the chunk it had not begun: its worker has lowered them"
                )
            }
            Self::Unfinished { counted, items } => write!(
                out,
                "the chunk is done and {counted} of its {items} items have a result: does its kind take chunks?"
            ),
        }
    }
}

impl std::error::Error for ChunkFault {}

/// Reads a region.
#[derive(Debug)]
pub(crate) struct RegionReader<'a> {
    pub(crate) page: &'a SharedPage,
    pub(crate) place: ChunkRegion,
    pub(crate) items: usize,
}

impl RegionReader<'_> {
    /// Closes the region, and reads it.
    pub(crate) fn read(&self, end: &SessionEnd) -> ChunkOutcome {
        // In this order: what an honest worker counts, it has begun before.
        let begun = self.page.set_bits(self.at(ChunkRegion::BEGUN_AT), ChunkRegion::CLOSED);
        let counted = self.load(ChunkRegion::COUNTED_AT);
        let long = self.load(ChunkRegion::LONG_AT);
        let stop = ChunkStop::Fault(ChunkFault::Overwritten);
        let mut outcome = ChunkOutcome { bytes: Vec::new(), ends: Vec::new(), items: self.items, stop };
        let (Some((begun, _)), Some((counted, false))) =
            (self.place.read_count(begun), self.place.read_count(counted))
        else {
            return outcome;
        };
        let items = self.items as u64;
        if begun > items || counted > begun || begun > counted + 1 {
            let fault = ChunkFault::Counts { begun, counted, items: self.items };
            return ChunkOutcome { stop: ChunkStop::Fault(fault), ..outcome };
        }
        let copied = self.copy_results(counted, &mut outcome);
        let is_done = matches!(end, SessionEnd::Ended(end) if end.outcome == Outcome::Done);
        outcome.stop = match copied {
            Err(fault) => ChunkStop::Fault(fault),
            Ok(_) if counted == items => ChunkStop::AllDelivered,
            Ok(at) if self.has_result_of_unbegun(at, counted, begun) => {
                ChunkStop::Fault(ChunkFault::WentBack { index: in_memory(begun) })
            }
            Ok(_) => match ResultHead::from_word(long) {
                Some(ResultHead { number, is_failed }) if is_done && number == counted && begun > counted => {
                    ChunkStop::LongResult { is_failed }
                }
                _ if is_done => ChunkStop::Fault(ChunkFault::Unfinished { counted, items: self.items }),
                _ if begun > counted => ChunkStop::Begun,
                _ => ChunkStop::Unbegun,
            },
        };
        outcome
    }

    /// Reads the counted results and closes nothing.
    pub(crate) fn counted(&self) -> ChunkOutcome {
        let mut outcome =
            ChunkOutcome { bytes: Vec::new(), ends: Vec::new(), items: self.items, stop: ChunkStop::Unbegun };
        let counted = self.place.read_count(self.load(ChunkRegion::COUNTED_AT));
        let counted = counted.map_or(0, |(counted, _)| counted).min(self.items as u64);
        // What is no result ends what is read, here as at the end.
        let _ = self.copy_results(counted, &mut outcome);
        outcome
    }

    /// Copies so many results, at most as many as there are items. Gives the place behind the last.
    ///
    /// # Errors
    /// One is none, or would reach beyond the region: those before it are copied.
    fn copy_results(&self, counted: u64, outcome: &mut ChunkOutcome) -> Result<u64, ChunkFault> {
        let mut at = ChunkRegion::HEADER_BYTES;
        for index in 0..counted {
            let fault = ChunkFault::Result { index: outcome.ends.len() };
            let (ResultHead { number: length, is_failed }, next) = self.result_at(at, index).ok_or(fault)?;
            let start = outcome.bytes.len();
            outcome.bytes.resize(start + in_memory(length), 0);
            self.page.read_bytes(self.at(at + RESULT_HEAD_BYTES), &mut outcome.bytes[start..]);
            outcome.ends.push((outcome.bytes.len(), is_failed));
            at = next;
        }
        Ok(at)
    }

    /// Whether the first item that has not begun, by the counts, has a result behind the counted ones: then the counts went back.
    fn has_result_of_unbegun(&self, at: u64, counted: u64, begun: u64) -> bool {
        // The item that has begun may have a result that was not counted.
        let at = if begun > counted { self.result_at(at, counted).map(|(_, next)| next) } else { Some(at) };
        at.is_some_and(|at| self.result_at(at, begun).is_some())
    }

    /// The head of the result of this item, if it begins at this place of the region, and the place behind the result.
    fn result_at(&self, at: u64, index: u64) -> Option<(ResultHead, u64)> {
        if at + RESULT_HEAD_BYTES > self.place.length || self.load(at) != self.place.mark(index) {
            return None;
        }
        let head = ResultHead::from_word(self.load(at + 8))?;
        let next = at.checked_add(ResultHead::stored_bytes(head.number)?)?;
        (next <= self.place.length).then_some((head, next))
    }

    /// Loads a word, by its place in the region.
    fn load(&self, at: u64) -> u64 {
        self.page.load(self.at(at), Ordering::Acquire)
    }

    /// Where this byte of the region lies in the store.
    fn at(&self, at: u64) -> usize {
        in_memory(self.place.offset + at)
    }
}

fn in_memory(number: u64) -> usize {
    usize::try_from(number).expect("a region is in memory")
}

#[cfg(test)]
mod tests;

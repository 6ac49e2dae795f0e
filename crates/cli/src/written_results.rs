//! Which results are whole in the output of `run`, for a command that ends before all of its jobs have.
//!
//! A result is noted when it goes into the buffer of the output, and is whole when the buffer has passed on all
//! its bytes. Memory grows with the gaps between the results and with what is buffered, never with the number of jobs.
//! Driven by the verb `run`.

use std::collections::VecDeque;

use anyhow::{Context, Result};

use crate::index_ranges::IndexRanges;
use crate::inputs::Inputs;
use crate::output_target::OutputTarget;
use crate::plural;
use crate::stdio::say;

/// Most ranges of missing inputs that are printed; the others are only counted.
const RANGES_MAX: usize = 10;

/// Results that were written, and jobs without one.
#[derive(Debug, Default)]
pub(crate) struct WrittenResults {
    buffered: VecDeque<BufferedEnd>,
    settled: IndexRanges,
    results: u64,
    bytes: u64,
}

/// The end of a job whose last byte may be in the buffer.
#[derive(Debug)]
struct BufferedEnd {
    index: u64,
    /// Whether it has a result.
    is_result: bool,
    /// The length of the output after it.
    end: u64,
}

impl WrittenResults {
    /// Notes the end of a job; `end` is the length of the output after it, with what is buffered.
    pub(crate) fn note(&mut self, index: u64, is_result: bool, end: u64) {
        self.buffered.push_back(BufferedEnd { index, is_result, end });
    }

    /// The output has this length now.
    pub(crate) fn reached(&mut self, length: u64) {
        while self.buffered.front().is_some_and(|one| one.end <= length)
            && let Some(one) = self.buffered.pop_front()
        {
            self.settled.insert(one.index);
            self.results += u64::from(one.is_result);
            self.bytes = one.end;
        }
    }

    /// How many jobs have ended with all that they have in the output.
    pub(crate) fn settled(&self) -> u64 {
        self.settled.count()
    }

    /// Keeps an output that will not be complete, up to the end of the last whole result. Prints where the results are,
    /// and which are missing.
    ///
    /// # Errors
    /// They cannot be kept.
    pub(crate) fn keep(&self, file: OutputTarget, inputs: &Inputs) -> Result<()> {
        let name = file.name().to_owned();
        let kept = file.keep_partial(self.bytes);
        let kept = kept.with_context(|| format!("the results for {name} could not be kept"))?;
        let place = kept.map_or(name, |path| path.display().to_string());
        say(format_args!("bulkhead: {}", self.told(&place, inputs)));
        Ok(())
    }

    fn told(&self, place: &str, inputs: &Inputs) -> String {
        let (total, results) = (inputs.total(), self.results);
        let without = match self.settled() - results {
            0 => String::new(),
            count => format!(", {} ended without one", plural::count(count, "job")),
        };
        let is_in = if results == 1 { "is" } else { "are" };
        let mut missing = self.missing(total).map(|(first, last)| inputs.span(first, last));
        let shown: Vec<String> = missing.by_ref().take(RANGES_MAX).collect();
        let more = match missing.count() {
            0 => String::new(),
            count => format!(" and {} more", plural::count(count as u64, "range")),
        };
        format!(
            "{results} of {total} results {is_in} in {place}{without}; missing: {}{more}",
            shown.join(", ")
        )
    }

    /// The ranges of jobs, both ends included, that have not settled, of `total` jobs.
    fn missing(&self, total: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let ends = self.settled.iter().map(|(first, last)| (first, last + 1)).chain([(total, total)]);
        let gaps = ends.scan(0, |from, (first, next)| Some((std::mem::replace(from, next), first)));
        gaps.filter(|(from, first)| from < first).map(|(from, first)| (from, first - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_left_the_buffer_is_whole() {
        let mut written = WrittenResults::default();
        for (index, is_result, end) in [(0, true, 10), (2, true, 20), (1, false, 20), (9, true, 35)] {
            written.note(index, is_result, end);
        }
        written.reached(9);
        assert_eq!((written.results, written.bytes), (0, 0));
        assert_eq!(written.missing(3).collect::<Vec<_>>(), [(0, 2)]);
        written.reached(34);
        assert_eq!((written.results, written.settled(), written.bytes), (2, 3, 20));
        assert_eq!(written.missing(12).collect::<Vec<_>>(), [(3, 11)]);
        written.reached(35);
        assert_eq!(written.missing(12).collect::<Vec<_>>(), [(3, 8), (10, 11)]);
        assert_eq!(written.missing(10).collect::<Vec<_>>(), [(3, 8)]);
    }

    #[test]
    fn what_is_missing_is_told_in_ranges() {
        let inputs = Inputs::places(3).unwrap();
        let mut written = WrittenResults::default();
        written.note(0, true, 2);
        written.reached(2);
        assert_eq!(written.told("x", &inputs), "1 of 3 results is in x; missing: inputs 2..3");
        written.note(2, false, 2);
        written.reached(2);
        let told = written.told("x", &inputs);
        assert_eq!(told, "1 of 3 results is in x, 1 job ended without one; missing: input 2");
        let mut written = WrittenResults::default();
        (0..30).filter(|index| index % 2 == 0).for_each(|index| written.note(index, true, 0));
        written.reached(0);
        let told = written.told("x", &Inputs::places(30).unwrap());
        assert!(told.ends_with("input 18, input 20 and 5 ranges more"), "{told}");
    }
}

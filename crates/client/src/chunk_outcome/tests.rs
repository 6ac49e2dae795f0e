//! The reader beside a writer that keeps the rules and stops anywhere, and beside words that lie.

use bulkhead_proto::ids::JobId;

use super::*;
use crate::output::{JobEnd, ReceivedOutput};

const PAGE: usize = 8192;
const PLACE: ChunkRegion =
    ChunkRegion { key: 0x1234_5678_9abc_def0, offset: PAGE as u64 - 2048, length: 2048 };

fn ended(outcome: Outcome) -> SessionEnd {
    let output = ReceivedOutput::None;
    SessionEnd::Ended(JobEnd { job: JobId(1), outcome, output, attempts: 1, survivors: Vec::new() })
}

fn done() -> SessionEnd {
    ended(Outcome::Done)
}

fn crashed() -> SessionEnd {
    ended(Outcome::Crashed { crashes: 1, last: "signal".to_owned() })
}

/// A region at the end of a page, as its worker writes it.
struct Region(SharedPage);

impl Region {
    fn new() -> Self {
        let (page, _) = SharedPage::create("a test", PAGE).unwrap();
        // Nothing outside of the region may be read as a result.
        (0..PAGE).step_by(8).for_each(|at| page.store(at, PLACE.key, Ordering::Relaxed));
        let region = Self(page);
        (0..PLACE.length).step_by(8).for_each(|at| region.set(at, 0));
        region.counts(0, 0);
        region
    }

    fn set(&self, at: u64, word: u64) {
        self.0.store(in_memory(PLACE.offset + at), word, Ordering::Release);
    }

    fn counts(&self, begun: u64, counted: u64) {
        self.set(ChunkRegion::BEGUN_AT, PLACE.count_word(begun));
        self.set(ChunkRegion::COUNTED_AT, PLACE.count_word(counted));
    }

    /// Stores a result at this place, and gives the place behind it.
    fn put(&self, at: u64, index: u64, result: &[u8], is_failed: bool) -> u64 {
        let length = result.len() as u64;
        self.set(at, PLACE.mark(index));
        self.set(at + 8, ResultHead { number: length, is_failed }.to_word());
        self.0.write_bytes(in_memory(PLACE.offset + at + RESULT_HEAD_BYTES), result);
        at + ResultHead::stored_bytes(length).unwrap()
    }

    fn read(&self, items: usize, end: &SessionEnd) -> ChunkOutcome {
        RegionReader { page: &self.0, place: PLACE, items }.read(end)
    }
}

fn fault(outcome: &ChunkOutcome) -> String {
    let ChunkStop::Fault(fault) = outcome.stop() else { panic!("{outcome:?}") };
    assert!(outcome.rest().is_empty(), "nothing of it is run again: {outcome:?}");
    fault.to_string()
}

/// A worker that keeps the rules is stopped between any two of its stores.
#[test]
fn wherever_the_worker_stops_each_item_is_delivered_begun_or_left() {
    let mut state = 11_u64;
    let mut draw = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    for _ in 0..2000 {
        let (region, items) = (Region::new(), draw(20));
        let results: Vec<Vec<u8>> = (0..items).map(|index| vec![index as u8; draw(60) as usize]).collect();
        let (mut left, mut at) = (draw(3 * items + 2), ChunkRegion::HEADER_BYTES);
        let mut step = || {
            let is_left = left > 0;
            left = left.saturating_sub(1);
            is_left
        };
        let (mut begun, mut counted) = (0, 0);
        for (index, result) in (0..).zip(&results) {
            if !step() {
                break;
            }
            begun = index + 1;
            region.counts(begun, counted);
            if !step() {
                break;
            }
            at = region.put(at, index, result, index % 3 == 2);
            if !step() {
                break;
            }
            counted = index + 1;
            region.counts(begun, counted);
        }
        let outcome = region.read(items as usize, &crashed());
        let wanted = (0..).zip(&results).map(|(index, bytes)| {
            if index % 3 == 2 { ItemResult::Failed(bytes) } else { ItemResult::Done(bytes) }
        });
        assert!(outcome.delivered().eq(wanted.take(counted as usize)), "{outcome:?}");
        let (stop, rest) = match begun > counted {
            _ if counted == items => (ChunkStop::AllDelivered, items..items),
            true => (ChunkStop::Begun, begun..items),
            false => (ChunkStop::Unbegun, counted..items),
        };
        assert_eq!((outcome.stop(), outcome.rest()), (stop, rest.start as usize..rest.end as usize));
        let closed = region.0.load(in_memory(PLACE.offset + ChunkRegion::BEGUN_AT), Ordering::Acquire);
        assert_eq!(
            closed,
            PLACE.count_word(begun) | ChunkRegion::CLOSED,
            "nothing can begin after it was read"
        );
    }
}

#[test]
fn counts_that_cannot_be_true_deliver_nothing_and_leave_nothing_to_be_run() {
    for (begun, counted) in [(0, 1), (1, 2), (2, 0), (5, 3), (4, 4), (3, 4), (9, 9), (u64::from(u32::MAX), 2)]
    {
        let region = Region::new();
        let at = region.put(ChunkRegion::HEADER_BYTES, 0, b"zero", false);
        region.put(at, 1, b"one", false);
        region.counts(begun, counted);
        for end in [done(), crashed(), SessionEnd::Lost] {
            let outcome = region.read(3, &end);
            assert_eq!(outcome.delivered().len(), 0, "{begun} {counted}");
            assert!(fault(&outcome).contains(&format!("{begun} items have begun and {counted}")));
        }
    }
}

#[test]
fn counts_that_are_zeroes_or_of_another_chunk_are_no_counts() {
    let other = ChunkRegion { key: !PLACE.key, ..PLACE };
    for word in [0, 1, u64::MAX, PLACE.key, other.count_word(0), other.count_word(2)] {
        for at in [ChunkRegion::BEGUN_AT, ChunkRegion::COUNTED_AT] {
            let region = Region::new();
            region.put(ChunkRegion::HEADER_BYTES, 0, b"zero", false);
            region.counts(2, 1);
            region.set(at, word);
            let outcome = region.read(3, &crashed());
            assert_eq!(outcome.delivered().len(), 0);
            assert!(fault(&outcome).contains("other memory"));
        }
    }
    let region = Region::new();
    region.set(ChunkRegion::COUNTED_AT, PLACE.count_word(0) | ChunkRegion::CLOSED);
    assert!(fault(&region.read(3, &crashed())).contains("other memory"), "only the other count is closed");
}

#[test]
fn a_result_that_lies_ends_what_is_delivered_and_nothing_beyond_the_region_is_read() {
    let end = PLACE.length;
    let second = ChunkRegion::HEADER_BYTES + 24;
    let lies = [
        (second, PLACE.mark(2)),                                              // of another item
        (second, 0),                                                          // none
        (second + 8, 0),                                                      // no length
        (second + 8, 3 << 8 | 9),                                             // neither done nor failed
        (second + 8, ResultHead { number: end, is_failed: false }.to_word()), // as long as the region
        (second + 8, ResultHead { number: end - second - 15, is_failed: false }.to_word()), // one byte too long
        (second + 8, u64::MAX << 8 | 1),
    ];
    for (at, word) in lies {
        let region = Region::new();
        let place = region.put(ChunkRegion::HEADER_BYTES, 0, b"zero", false);
        assert_eq!(place, second);
        region.put(place, 1, b"one", true);
        region.counts(2, 2);
        let honest = region.read(3, &crashed());
        assert!(honest.delivered().eq([ItemResult::Done(b"zero"), ItemResult::Failed(b"one")]));
        region.counts(2, 2);
        region.set(at, word);
        let outcome = region.read(3, &crashed());
        assert!(outcome.delivered().eq([ItemResult::Done(b"zero")]), "{at} {word:x}: {outcome:?}");
        assert!(fault(&outcome).contains("for item 1 is no result"));
    }
}

#[test]
fn counts_that_went_back_are_seen_by_the_results_that_are_left() {
    let region = Region::new();
    let mut at = ChunkRegion::HEADER_BYTES;
    for index in 0..3 {
        at = region.put(at, index, b"result", false);
    }
    for (begun, counted) in [(0, 0), (1, 0), (1, 1), (2, 1), (2, 2)] {
        region.counts(begun, counted);
        let outcome = region.read(5, &crashed());
        assert_eq!(outcome.delivered().len() as u64, counted);
        assert!(fault(&outcome).contains(&format!("item {begun} has a result")), "{begun} {counted}");
    }
    // The third had begun, and its worker died between the result and its count.
    region.counts(3, 2);
    let outcome = region.read(5, &crashed());
    assert_eq!((outcome.stop(), outcome.rest()), (ChunkStop::Begun, 3..5));
}

#[test]
fn more_results_than_fit_are_not_read_beyond_the_end() {
    let region = Region::new();
    // 62 empty results fill a half, then one fills the other half.
    let mut at = ChunkRegion::HEADER_BYTES;
    for index in 0..62 {
        at = region.put(at, index, b"", false);
    }
    let rest = vec![7; (PLACE.length - at - RESULT_HEAD_BYTES) as usize];
    assert_eq!(region.put(at, 62, &rest, false), PLACE.length);
    region.counts(63, 63);
    let whole = region.read(80, &crashed());
    assert_eq!((whole.delivered().len(), whole.stop()), (63, ChunkStop::Unbegun));
    assert!(whole.delivered().last() == Some(ItemResult::Done(&rest)));
    // Nothing behind the region is read: there the page ends.
    region.counts(64, 64);
    let outcome = region.read(80, &crashed());
    assert_eq!(outcome.delivered().len(), 63);
    assert!(fault(&outcome).contains("item 63"));
}

#[test]
fn a_long_result_is_believed_only_of_a_job_that_is_done_and_of_the_item_that_had_begun() {
    let word = |number, is_failed| ResultHead { number, is_failed }.to_word();
    let read = |counts: (u64, u64), long: u64, end: &SessionEnd| {
        let region = Region::new();
        region.put(ChunkRegion::HEADER_BYTES, 0, b"zero", false);
        region.counts(counts.0, counts.1);
        region.set(ChunkRegion::LONG_AT, long);
        region.read(4, end)
    };
    for is_failed in [false, true] {
        let outcome = read((2, 1), word(1, is_failed), &done());
        assert_eq!((outcome.stop(), outcome.rest()), (ChunkStop::LongResult { is_failed }, 2..4));
        let outcome = read((2, 1), word(1, is_failed), &crashed());
        assert_eq!((outcome.stop(), outcome.rest()), (ChunkStop::Begun, 2..4), "its output is lost");
    }
    for (counts, long) in
        [((2, 1), 0), ((2, 1), word(0, false)), ((2, 1), word(2, false)), ((1, 1), word(1, false))]
    {
        let outcome = read(counts, long, &done());
        assert_eq!(outcome.delivered().len(), 1);
        assert!(fault(&outcome).contains("does its kind take chunks"));
    }
}

#[test]
fn a_chunk_that_never_ran_is_left_whole_and_one_without_items_is_delivered() {
    for end in [SessionEnd::Withdrawn, SessionEnd::Lost, ended(Outcome::Expired), ended(Outcome::Cancelled)] {
        let outcome = Region::new().read(7, &end);
        assert_eq!((outcome.stop(), outcome.rest()), (ChunkStop::Unbegun, 0..7));
    }
    assert_eq!(Region::new().read(0, &done()).stop(), ChunkStop::AllDelivered);
    assert!(fault(&Region::new().read(7, &done())).contains("does its kind take chunks"));
}

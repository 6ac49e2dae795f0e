//! Chunks: one job that carries many items, and the region of memory in which its worker stores and counts their results.
//!
//! The client chooses items and region, its worker writes the region; the daemon knows one job and reads neither. Both sides may
//! read hostile bytes: each length and each place is checked before it is used. Only numbers here, no memory is touched: the client
//! has the reader (`crates/client/src/chunk_outcome.rs`), the worker the writer (`worker/src/item_writer.rs`).
//!
//! An item is stored, then counted, before the next one begins. So whatever ends the worker, the words of the region say which
//! items have a result, which one had begun, and which never began.

use crate::limits::CHUNK_ITEMS_MAX;
use crate::registration::ArenaBlock;

/// The name of the one file of a registration that is an item store: a memfd whose size is sealed, which workers map for writing.
pub const STORE_FILE: &str = "bulkhead_item_store";

/// The first bytes of the input of a chunk.
const MAGIC: &[u8; 8] = b"bhchunk1";
/// Bytes of an input before the head: the magic, the region, and the lengths of what follows.
const FIXED_BYTES: usize = 40;

const _: () = assert!(CHUNK_ITEMS_MAX < 1 << ChunkRegion::COUNT_BITS, "a count has its bits");

/// Bytes before each item: its length.
const LENGTH_BYTES: usize = 4;
/// Bytes before each result: its mark, and [`ResultHead`].
pub const RESULT_HEAD_BYTES: u64 = 16;

/// The part of an item store that belongs to one chunk: a header of words, then the results one after another, each at a multiple
/// of 8.
///
/// | word | written by |
/// |---|---|
/// | [`ChunkRegion::BEGUN_AT`]: how many items have begun, as [`ChunkRegion::count_word`] | the worker, by a compare-and-swap from one number to the next. The client sets [`ChunkRegion::CLOSED`] before it reads: from then on no item can begin |
/// | [`ChunkRegion::COUNTED_AT`]: how many results are stored, as such a word | the worker, after the result (Release) |
/// | [`ChunkRegion::LONG_AT`]: 0, or that the result of the item which had begun is the output of the job ([`ResultHead`] of its index) | the worker, when a result has no room left |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRegion {
    /// A number that no other chunk of the store has.
    pub key: u64,
    /// Where it begins in its store, in bytes; a multiple of [`ChunkRegion::ALIGNMENT`].
    pub offset: u64,
    /// How long it is, in bytes; a multiple of [`ChunkRegion::ALIGNMENT`].
    pub length: u64,
}

impl ChunkRegion {
    /// Regions begin and end at a multiple of this many bytes.
    pub const ALIGNMENT: u64 = ArenaBlock::ALIGNMENT;
    /// Bytes before the first result.
    pub const HEADER_BYTES: u64 = 64;
    /// Where the count of items that have begun lies, in bytes from the start of the region.
    pub const BEGUN_AT: u64 = 0;
    /// Where the count of stored results lies.
    pub const COUNTED_AT: u64 = 8;
    /// Where the word about a long result lies.
    pub const LONG_AT: u64 = 16;
    /// The bit of the count of begun items by which the client closes the chunk.
    pub const CLOSED: u64 = 1 << 63;
    /// The bits of a count.
    const COUNT_BITS: u32 = 32;

    /// How long a region has to be for so many results of so many bytes together; `None`: no memory is that long.
    pub fn bytes_for(items: usize, results_bytes: usize) -> Option<u64> {
        // Each result may be padded to whole words.
        let heads = (items as u64).checked_mul(RESULT_HEAD_BYTES + 7)?;
        let all = Self::HEADER_BYTES.checked_add(heads)?.checked_add(results_bytes as u64)?;
        all.checked_next_multiple_of(Self::ALIGNMENT)
    }

    /// What is wrong with it in a store of so many bytes, as a text for people; `None`: nothing.
    pub fn fault(&self, store_bytes: u64) -> Option<String> {
        let Self { offset, length, .. } = self;
        let is_aligned = offset.is_multiple_of(Self::ALIGNMENT) && length.is_multiple_of(Self::ALIGNMENT);
        let is_inside = offset.checked_add(*length).is_some_and(|end| end <= store_bytes);
        if is_aligned && is_inside && *length >= Self::HEADER_BYTES {
            return None;
        }
        let (least, alignment) = (Self::HEADER_BYTES, Self::ALIGNMENT);
        Some(format!(
            "the region of the chunk is {length} bytes from byte {offset} of a store of {store_bytes} bytes: it has to be \
             inside, at least {least} bytes, at multiples of {alignment}"
        ))
    }

    /// The word for a count. It holds a part of the key, so that zeroes, or words of another chunk, are no count of this one.
    pub fn count_word(&self, count: u64) -> u64 {
        self.tag() | count
    }

    /// The count in a word, and whether the chunk is closed; `None`: it is no word of this chunk.
    pub fn read_count(&self, word: u64) -> Option<(u64, bool)> {
        let (open, is_closed) = (word & !Self::CLOSED, word & Self::CLOSED != 0);
        let count = open & ((1 << Self::COUNT_BITS) - 1);
        (open == self.count_word(count)).then_some((count, is_closed))
    }

    /// The bits between a count and the bit that closes: never all 0.
    fn tag(&self) -> u64 {
        (self.key >> (Self::COUNT_BITS + 1) | 1) << Self::COUNT_BITS
    }

    /// The word before the result of an item: nothing else in a store is likely to be it.
    pub fn mark(&self, index: u64) -> u64 {
        self.key.wrapping_add(index)
    }
}

/// What a word says of a result: how long it is, or, in [`ChunkRegion::LONG_AT`], of which item; and whether its item has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResultHead {
    /// The length in bytes, or the index of the item.
    pub number: u64,
    /// Whether the result is why the item failed.
    pub is_failed: bool,
}

impl ResultHead {
    const DONE: u64 = 1;
    const FAILED: u64 = 2;

    /// The word. It is never 0.
    pub fn to_word(self) -> u64 {
        self.number << 8 | if self.is_failed { Self::FAILED } else { Self::DONE }
    }

    /// What a word says; `None`: it is none of these.
    pub fn from_word(word: u64) -> Option<Self> {
        let number = word >> 8;
        match word & 0xff {
            Self::DONE => Some(Self { number, is_failed: false }),
            Self::FAILED => Some(Self { number, is_failed: true }),
            _ => None,
        }
    }

    /// Bytes that a result of this length takes in a region, with what stands before it; `None`: no memory is that long.
    pub fn stored_bytes(length: u64) -> Option<u64> {
        length.checked_next_multiple_of(8)?.checked_add(RESULT_HEAD_BYTES)
    }
}

/// The input of a chunk, or of a job with one item of the same kind: a head for all items, and the items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkInput<'a> {
    /// Where the results go; `None`: it has one item, whose result is the output of the job.
    pub region: Option<ChunkRegion>,
    /// What all items share: for instance the function that is called for each.
    pub head: &'a [u8],
    /// The items, each behind its length.
    items: &'a [u8],
    count: usize,
}

impl<'a> ChunkInput<'a> {
    /// Encodes an input. `None`: it has more than [`CHUNK_ITEMS_MAX`] items, or one that is longer than 4 GiB.
    pub fn encode(region: Option<ChunkRegion>, head: &[u8], items: &[impl AsRef<[u8]>]) -> Option<Vec<u8>> {
        let count = u32::try_from(items.len()).ok().filter(|_| items.len() <= CHUNK_ITEMS_MAX)?;
        let bytes: usize = items.iter().map(|item| LENGTH_BYTES + item.as_ref().len()).sum();
        let mut input = Vec::with_capacity(FIXED_BYTES + head.len() + bytes);
        input.extend_from_slice(MAGIC);
        let ChunkRegion { key, offset, length } =
            region.unwrap_or(ChunkRegion { key: 0, offset: 0, length: 0 });
        [key, offset, length].iter().for_each(|word| input.extend_from_slice(&word.to_le_bytes()));
        input.extend_from_slice(&count.to_le_bytes());
        input.extend_from_slice(&u32::try_from(head.len()).ok()?.to_le_bytes());
        input.extend_from_slice(head);
        for item in items {
            input.extend_from_slice(&u32::try_from(item.as_ref().len()).ok()?.to_le_bytes());
            input.extend_from_slice(item.as_ref());
        }
        Some(input)
    }

    /// Reads an input.
    ///
    /// # Errors
    /// What is wrong with it, as a text for people.
    pub fn read(input: &'a [u8]) -> Result<Self, String> {
        let malformed = |what: &str| {
            let bytes = input.len();
            Err(format!("the input of {bytes} bytes is no chunk of items: {what}"))
        };
        let Some((fixed, rest)) = input.split_first_chunk::<FIXED_BYTES>() else {
            return malformed("it is too short");
        };
        if fixed[..8] != *MAGIC {
            return malformed("it does not begin as one");
        }
        let long = |at: usize| u64::from_le_bytes(*fixed[at..].first_chunk().expect("it lies in the array"));
        let short = |at: usize| u32::from_le_bytes(*fixed[at..].first_chunk().expect("it lies in the array"));
        let (count, head) = (short(32) as usize, short(36) as usize);
        let Some((head, items)) = rest.split_at_checked(head) else {
            return malformed("its head is longer than the rest");
        };
        if count > CHUNK_ITEMS_MAX {
            return malformed(&format!("it has {count} items, the limit is {CHUNK_ITEMS_MAX}"));
        }
        let region = ChunkRegion { key: long(8), offset: long(16), length: long(24) };
        let region = (region.length > 0).then_some(region);
        if region.is_none() && count != 1 {
            return malformed(&format!("it has {count} items and no region for their results"));
        }
        let mut left = items;
        for at in 0..count {
            let Some((_, behind)) = split_item(left) else {
                return malformed(&format!("it ends before item {at} of {count}"));
            };
            left = behind;
        }
        if !left.is_empty() {
            return malformed(&format!("{} bytes follow its last item", left.len()));
        }
        Ok(Self { region, head, items, count })
    }

    /// How many items it has.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The items in their order.
    pub fn items(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut left = self.items;
        std::iter::from_fn(move || {
            let (item, behind) = split_item(left)?;
            left = behind;
            Some(item)
        })
    }
}

/// The first item, and what follows it; `None`: there is no whole item.
fn split_item(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGION: ChunkRegion = ChunkRegion { key: 7, offset: 128, length: 192 };

    #[test]
    fn an_input_is_read_as_it_was_written() {
        let many = [&b"one"[..], b"", b"three"];
        let bytes = ChunkInput::encode(Some(REGION), b"head", &many).unwrap();
        let input = ChunkInput::read(&bytes).unwrap();
        assert_eq!((input.region, input.head, input.len()), (Some(REGION), &b"head"[..], 3));
        assert_eq!(input.items().collect::<Vec<_>>(), many);
        let alone = ChunkInput::encode(None, b"", &["alone"]).unwrap();
        let input = ChunkInput::read(&alone).unwrap();
        assert_eq!((input.region, input.head.len()), (None, 0));
        assert_eq!(input.items().collect::<Vec<_>>(), [b"alone"]);
        let none = ChunkInput::encode(Some(REGION), b"", &[b""; 0]).unwrap();
        assert!(ChunkInput::read(&none).unwrap().is_empty());
        assert!(ChunkInput::encode(Some(REGION), b"", &vec![b""; CHUNK_ITEMS_MAX + 1]).is_none());
    }

    /// Cut, extended or changed anywhere, it is refused or read as other items, within its bytes.
    #[test]
    fn no_forged_input_is_read_beyond_its_end() {
        let good = ChunkInput::encode(Some(REGION), b"head", &[&b"one"[..], b"three"]).unwrap();
        for length in 0..good.len() {
            assert!(ChunkInput::read(&good[..length]).is_err(), "{length} bytes");
        }
        let mut longer = good.clone();
        longer.push(0);
        assert!(ChunkInput::read(&longer).unwrap_err().contains("1 bytes follow its last item"));
        for at in 0..good.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut forged = good.clone();
                forged[at] = byte;
                if let Ok(input) = ChunkInput::read(&forged) {
                    assert_eq!(input.items().count(), input.len());
                }
            }
        }
        let several = ChunkInput::encode(None, b"", &["a", "b"]).unwrap();
        assert!(ChunkInput::read(&several).unwrap_err().contains("2 items and no region"));
    }

    #[test]
    fn a_region_that_is_not_inside_is_named() {
        let inside = |offset, length| ChunkRegion { key: 1, offset, length }.fault(4096);
        assert_eq!((inside(0, 64), inside(4032, 64), inside(0, 4096)), (None, None, None));
        for (offset, length) in [(0, 0), (32, 64), (0, 65), (4096, 64), (64, 4096), (u64::MAX - 63, 64)] {
            let fault = inside(offset, length).unwrap();
            assert!(fault.contains("of a store of 4096 bytes"), "{fault}");
        }
    }

    #[test]
    fn a_count_is_read_back_and_no_word_of_another_chunk_is_a_count() {
        for key in [0, 7, u64::MAX, 0x9e37_79b9_7f4a_7c15] {
            let region = ChunkRegion { key, ..REGION };
            for count in [0, 1, CHUNK_ITEMS_MAX as u64] {
                let word = region.count_word(count);
                assert_eq!(region.read_count(word), Some((count, false)));
                assert_eq!(region.read_count(word | ChunkRegion::CLOSED), Some((count, true)));
            }
            let other = ChunkRegion { key: key ^ 1 << 62, ..REGION };
            for word in [0, 1, ChunkRegion::CLOSED, u64::MAX >> 2, other.count_word(1)] {
                assert_eq!(region.read_count(word), None, "{key:x} {word:x}");
            }
        }
    }

    #[test]
    fn a_region_has_room_for_the_results_that_it_was_made_for() {
        for (items, length) in [(0, 0), (1, 0), (1, 1), (7, 9), (100, 33)] {
            let room = ChunkRegion::bytes_for(items, items * length).unwrap();
            let used = ResultHead::stored_bytes(length as u64).unwrap() * items as u64;
            assert!(ChunkRegion::HEADER_BYTES + used <= room, "{items} of {length}: {used} in {room}");
        }
        assert_eq!(ChunkRegion::bytes_for(1, usize::MAX), None);
        assert_eq!(ResultHead::stored_bytes(u64::MAX), None);
    }

    #[test]
    fn a_word_says_what_was_put_into_it_and_no_other_word_says_anything() {
        for (number, is_failed) in [(0, false), (0, true), (1 << 40, false), (9, true)] {
            let head = ResultHead { number, is_failed };
            assert_eq!(ResultHead::from_word(head.to_word()), Some(head));
        }
        assert!([0, 3, 0xff, u64::MAX].into_iter().all(|word| ResultHead::from_word(word).is_none()));
    }
}

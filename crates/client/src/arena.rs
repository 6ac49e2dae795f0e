//! An arena: memory that a session shares with the workers of its daemon, for inputs from a few KiB to about a megabyte.
//!
//! This process writes inputs into blocks of it, and a job names its block; no bytes and no descriptor travel with the job. The
//! arena is sealed before it leaves this process: nobody else can write to it or change its size. A block is free when its last
//! clone is dropped; the session keeps one of a job that it has submitted until no worker can read it any more.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bulkhead_proto::file::Way;
use bulkhead_proto::registration::ArenaBlock;
use bulkhead_sys::shared_page::SharedPage;

use crate::block_allocator::BlockAllocator;
use crate::chunk::TakenRegion;
use crate::file::JobFile;

/// Memory for inputs. A clone is the same arena.
#[derive(Clone, Debug)]
pub struct Arena(Arc<ArenaMemory>);

#[derive(Debug)]
struct ArenaMemory {
    number: u32,
    page: SharedPage,
    free: Mutex<BlockAllocator>,
}

impl Arena {
    /// A new arena of at least so many bytes, and its file to be registered under this number.
    pub(crate) fn create(number: u32, bytes: usize) -> io::Result<(Self, JobFile)> {
        let page_bytes = 4096;
        let bytes = bytes.max(1).checked_next_multiple_of(page_bytes).ok_or(io::ErrorKind::InvalidInput)?;
        let (page, descriptor) = SharedPage::create_arena("bulkhead inputs", bytes)?;
        let free = Mutex::new(BlockAllocator::new(bytes as u64));
        let file = JobFile { name: "arena".to_owned(), way: Way::In, file: Arc::new(File::from(descriptor)) };
        Ok((Self(Arc::new(ArenaMemory { number, page, free })), file))
    }

    /// Copies an input into a block. `None`: no free part has room for it, until blocks are free again.
    pub fn block(&self, input: &[u8]) -> Option<InputBlock> {
        self.block_with(input, None)
    }

    /// The same of an input in two parts.
    pub fn block_of_parts(&self, first: &[u8], rest: &[u8]) -> Option<InputBlock> {
        let length = first.len() + rest.len();
        let place = self.0.free.lock().unwrap_or_else(PoisonError::into_inner).take(length as u64)?;
        let offset = usize::try_from(place.offset).expect("an arena is in memory");
        // Whole words, so that the second copy begins at one.
        let word = size_of::<u64>();
        let (end_of_word, rest) =
            rest.split_at(rest.len().min(first.len().next_multiple_of(word) - first.len()));
        let begin = [first, end_of_word].concat();
        self.0.page.write_bytes(offset, &begin);
        if !rest.is_empty() {
            self.0.page.write_bytes(offset + begin.len(), rest);
        }
        Some(InputBlock(Arc::new(TakenBlock { arena: self.clone(), place, _region: None })))
    }

    /// The same for a chunk: its region of an item store is used no longer than the block.
    pub(crate) fn block_with(&self, input: &[u8], region: Option<Arc<TakenRegion>>) -> Option<InputBlock> {
        let place = self.0.free.lock().unwrap_or_else(PoisonError::into_inner).take(input.len() as u64)?;
        self.0.page.write_bytes(usize::try_from(place.offset).expect("an arena is in memory"), input);
        Some(InputBlock(Arc::new(TakenBlock { arena: self.clone(), place, _region: region })))
    }

    /// How long it is, in bytes.
    pub fn length(&self) -> usize {
        self.0.page.length()
    }

    /// The number of its registration.
    pub(crate) fn number(&self) -> u32 {
        self.0.number
    }
}

/// An input in an arena. A clone is the same block; it is free once all are dropped.
#[derive(Clone, Debug)]
pub struct InputBlock(Arc<TakenBlock>);

#[derive(Debug)]
struct TakenBlock {
    arena: Arena,
    place: ArenaBlock,
    /// Where the results of its items go, if it is a chunk: dropped with the block.
    _region: Option<Arc<TakenRegion>>,
}

impl InputBlock {
    /// How long the input is, in bytes.
    pub fn length(&self) -> usize {
        usize::try_from(self.0.place.length).expect("an arena is in memory")
    }

    /// The number of its arena.
    pub(crate) fn arena(&self) -> u32 {
        self.0.arena.number()
    }

    /// The input that names it.
    pub(crate) fn to_input(&self) -> [u8; ArenaBlock::BYTES] {
        self.0.place.to_bytes()
    }
}

impl Drop for TakenBlock {
    fn drop(&mut self) {
        self.arena.0.free.lock().unwrap_or_else(PoisonError::into_inner).give_back(self.place);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_block_holds_its_input_and_is_free_when_its_last_clone_goes() {
        let (arena, file) = Arena::create(1, 5000).unwrap();
        assert_eq!(arena.length(), 8192);
        let reader = SharedPage::map_arena(file.file.as_fd()).unwrap();
        let one = arena.block(b"one").unwrap();
        let rest = arena.block(&[7; 8128]).unwrap();
        assert!(arena.block(b"more").is_none(), "it is full");
        let mut seen = [0; 3];
        reader.read_bytes(0, &mut seen);
        assert_eq!(&seen, b"one");
        let again = one.clone();
        drop(one);
        assert!(arena.block(b"more").is_none(), "a clone is left");
        drop(again);
        assert!(arena.block(b"more").is_some());
        assert_eq!(rest.length(), 8128);
    }

    #[test]
    fn the_parts_of_an_input_stand_behind_each_other() {
        let (arena, file) = Arena::create(1, 4096).unwrap();
        let reader = SharedPage::map_arena(file.file.as_fd()).unwrap();
        for first in 0..20_usize {
            for rest in [0, 1, 7, 8, 9, 30] {
                let input: Vec<u8> = (1..).take(first + rest).collect();
                let block = arena.block_of_parts(&input[..first], &input[first..]).unwrap();
                let mut seen = vec![0; input.len()];
                reader.read_bytes(usize::try_from(block.0.place.offset).unwrap(), &mut seen);
                assert_eq!((seen, block.length()), (input, first + rest));
            }
        }
    }

    #[test]
    fn nobody_else_can_write_to_it() {
        let (_arena, file) = Arena::create(1, 4096).unwrap();
        assert!(SharedPage::map_shared(file.file.as_fd(), 4096).is_err());
        assert!(file.file.set_len(0).is_err());
        assert!(std::os::unix::fs::FileExt::write_at(&*file.file, b"x", 0).is_err());
    }
}

//! The arenas of workers from which this connection reads results, and the blocks that it has read.
//!
//! An arena is mapped for reading when its descriptor arrives, after its seals were checked, so no access can fault. Its bytes
//! may change at any time if its worker breaks the rules: a result is copied once, and what was copied is the result. Offset and
//! length are checked. A block is freed when it was copied; the numbers are sent with the next request, or when [`FREED_COUNT`] of
//! them or [`FREED_BYTES`] wait. An arena stays mapped until the daemon says that it is gone. What is
//! copied late is believed only if the connection is open after that (`FrameReceiver::check_late`). Driven by `frame_halves.rs`.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use bulkhead_proto::client::outcome::ResultBlock;
use bulkhead_proto::ids::JobId;
use bulkhead_proto::limits::{ARENA_BYTES, BLOCK_MAX_BYTES, FREED_MAX};
use bulkhead_sys::shared_page::SharedPage;

use crate::error::{Error, ProtocolError};

/// After so many freed blocks the client sends `Request::Freed` at once; fewer wait for its next request.
const FREED_COUNT: usize = 64;
/// The same, by the bytes of the freed blocks.
const FREED_BYTES: u64 = 1 << 20;

/// So many results keep their memory for the next ones, each no longer than a block. Fresh memory costs a fault for each of its pages.
const SPARE_MAX: usize = 16;

/// Blocks that were read and that the daemon was not told of.
#[derive(Debug, Default)]
pub(crate) struct FreedNumbers {
    blocks: Vec<u64>,
    bytes: u64,
}

impl FreedNumbers {
    /// Adds those of another list.
    pub(crate) fn append(&mut self, other: &mut Self) {
        self.blocks.append(&mut other.blocks);
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Takes the numbers for one request; `is_due`: also if they are few.
    pub(crate) fn take(&mut self, is_due: bool) -> Option<Vec<u64>> {
        let is_much = self.blocks.len() >= FREED_COUNT || self.bytes >= FREED_BYTES;
        if self.blocks.is_empty() || !is_due && !is_much {
            return None;
        }
        let rest = self.blocks.split_off(self.blocks.len().min(FREED_MAX));
        if rest.is_empty() {
            self.bytes = 0;
        }
        Some(std::mem::replace(&mut self.blocks, rest))
    }
}

/// The arenas of one connection.
#[derive(Debug, Default)]
pub(crate) struct ReadArenas {
    arenas: BTreeMap<u64, SharedPage>,
    pub(crate) freed: FreedNumbers,
    spare: Vec<Vec<u8>>,
}

impl ReadArenas {
    /// Copies a block, and frees it. `descriptor` is that of its arena, if the reply brought it.
    ///
    /// # Errors
    /// The daemon broke the protocol, or the arena cannot be mapped.
    pub(crate) fn read(
        &mut self,
        job: JobId,
        block: ResultBlock,
        descriptor: Option<OwnedFd>,
    ) -> Result<Vec<u8>, Error> {
        let fault = |why| Error::from(ProtocolError::Block { job, why });
        if block.is_attached {
            let descriptor = descriptor.ok_or(ProtocolError::NoDescriptor(job))?;
            // Without it the other blocks of this arena cannot be read either: the connection is of no use.
            let arena = SharedPage::map_read_only(descriptor.as_fd(), ARENA_BYTES);
            self.arenas.insert(block.arena, arena.map_err(|_| fault("its arena cannot be mapped"))?);
        }
        let arena = self.arenas.get(&block.arena).ok_or_else(|| fault("its arena was not sent"))?;
        let (offset, length) = block.place().ok_or_else(|| fault("there is no such place in an arena"))?;
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.resize(length, 0);
        arena.read_bytes(offset, &mut bytes);
        self.freed.blocks.push(block.block);
        self.freed.bytes += block.bytes;
        Ok(bytes)
    }

    /// Takes the memory of results that are not needed any more.
    pub(crate) fn reuse(&mut self, read: Vec<Vec<u8>>) {
        let room = SPARE_MAX.saturating_sub(self.spare.len());
        self.spare.extend(read.into_iter().filter(|bytes| bytes.capacity() <= BLOCK_MAX_BYTES).take(room));
    }

    /// The daemon says that an arena is gone.
    pub(crate) fn forget(&mut self, arena: u64) {
        self.arenas.remove(&arena);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use bulkhead_sys::memfd;

    use super::*;

    fn block(offset: u64, bytes: u64, is_attached: bool) -> ResultBlock {
        ResultBlock { block: 1, arena: 5, offset, bytes, is_attached }
    }

    fn read(arenas: &mut ReadArenas, block: ResultBlock, file: Option<&File>) -> Result<Vec<u8>, String> {
        let descriptor = file.map(|file| file.try_clone().unwrap().into());
        arenas.read(JobId(3), block, descriptor).map_err(|error| error.to_string())
    }

    #[test]
    fn an_arena_that_is_not_sealed_or_not_as_long_is_refused() {
        let loose = File::from(memfd::output_file("loose").unwrap());
        loose.set_len(ARENA_BYTES as u64).unwrap();
        let (_, short) = memfd::log_file("short", 4096).unwrap();
        for file in [loose, File::from(short)] {
            let mut arenas = ReadArenas::default();
            assert!(read(&mut arenas, block(0, 5000, true), Some(&file)).is_err());
            assert!(arenas.arenas.is_empty() && arenas.freed.take(true).is_none());
        }
    }

    #[test]
    fn an_offset_or_a_length_that_lies_is_a_fault_and_reads_nothing() {
        let (_, file) = memfd::log_file("arena", ARENA_BYTES as u64).unwrap();
        let (file, end) = (File::from(file), ARENA_BYTES as u64);
        let mut arenas = ReadArenas::default();
        assert!(read(&mut arenas, block(0, 5000, false), None).unwrap_err().contains("was not sent"));
        assert!(read(&mut arenas, block(0, 5000, true), None).is_err(), "no descriptor came");
        assert_eq!(read(&mut arenas, block(0, 5000, true), Some(&file)), Ok(vec![0; 5000]));
        for (offset, bytes) in
            [(end, 1), (end - 4096, 4097), (u64::MAX - 4095, 4096), (8, 8), (0, 0), (0, end)]
        {
            let error = read(&mut arenas, block(offset, bytes, false), None).unwrap_err();
            assert!(error.contains("no such place"), "{offset} {bytes}: {error}");
        }
        assert_eq!(arenas.freed.take(true), Some(vec![1]));
        arenas.forget(5);
        assert!(read(&mut arenas, block(0, 5000, false), None).is_err());
    }

    #[test]
    fn memory_of_an_earlier_result_holds_the_next_one_and_nothing_of_the_earlier() {
        let (_, file) = memfd::log_file("arena", ARENA_BYTES as u64).unwrap();
        let file = File::from(file);
        let mut arenas = ReadArenas::default();
        let longer = vec![7; 9000];
        let memory = longer.as_ptr();
        arenas.reuse(vec![longer, vec![7; BLOCK_MAX_BYTES + 1]]);
        assert_eq!(arenas.spare.len(), 1, "what no block needs is not kept");
        let found = read(&mut arenas, block(0, 5000, true), Some(&file)).unwrap();
        assert_eq!((found.as_ptr(), &found), (memory, &vec![0; 5000]));
        arenas.reuse(vec![vec![7; 5000]; SPARE_MAX + 1]);
        assert_eq!(arenas.spare.len(), SPARE_MAX);
        assert_eq!(read(&mut arenas, block(0, 8000, false), None), Ok(vec![0; 8000]));
    }

    #[test]
    fn few_blocks_wait_for_a_request_and_many_do_not() {
        let mut freed = FreedNumbers::default();
        assert_eq!(freed.take(true), None);
        freed.append(&mut FreedNumbers { blocks: vec![1, 2], bytes: 9000 });
        assert_eq!(freed.take(false), None);
        assert_eq!(freed.take(true), Some(vec![1, 2]));
        freed.append(&mut FreedNumbers { blocks: vec![3], bytes: FREED_BYTES });
        assert_eq!(freed.take(false), Some(vec![3]));
        freed.append(&mut FreedNumbers { blocks: vec![4; FREED_MAX + 1], bytes: 1 });
        assert_eq!(freed.take(false).map(|blocks| blocks.len()), Some(FREED_MAX));
        assert_eq!((freed.take(false), freed.take(true)), (None, Some(vec![4])));
    }
}

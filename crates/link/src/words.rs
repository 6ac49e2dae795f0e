//! What the ring needs of the memory that both sides share: words, byte strings and a fence.
//!
//! The two rings are generic over it, so that their own code, with the orderings that it names, also runs in a model
//! that tries every order which the memory model allows (`supervisor/ring/model.rs`). Everything else uses a
//! [`SharedPage`]. This file names no ordering but that of the fence.

use std::sync::atomic::{Ordering, fence};

use bulkhead_sys::shared_page::SharedPage;

/// Shared memory, as [`SharedPage`] has it: the methods have its meaning and its panics.
pub trait Words {
    /// Loads the word at `at`.
    fn load(&self, at: usize, order: Ordering) -> u64;

    /// Stores the word at `at`.
    fn store(&self, at: usize, value: u64, order: Ordering);

    /// Replaces the word at `at` by `new` if it is `current`, in the order of [`bulkhead_sys::shared_page::EXCHANGE`].
    ///
    /// # Errors
    /// The word that was there.
    fn compare_exchange(&self, at: usize, current: u64, new: u64) -> Result<u64, u64>;

    /// Copies bytes from `at` into `into`, word by word and Relaxed.
    fn read_bytes(&self, at: usize, into: &mut [u8]);

    /// Copies `bytes` to `at`, word by word and Relaxed.
    fn write_bytes(&self, at: usize, bytes: &[u8]);

    /// A fence, SeqCst.
    fn fence();
}

impl Words for SharedPage {
    fn load(&self, at: usize, order: Ordering) -> u64 {
        SharedPage::load(self, at, order)
    }

    fn store(&self, at: usize, value: u64, order: Ordering) {
        SharedPage::store(self, at, value, order);
    }

    fn compare_exchange(&self, at: usize, current: u64, new: u64) -> Result<u64, u64> {
        SharedPage::compare_exchange(self, at, current, new)
    }

    fn read_bytes(&self, at: usize, into: &mut [u8]) {
        SharedPage::read_bytes(self, at, into);
    }

    fn write_bytes(&self, at: usize, bytes: &[u8]) {
        SharedPage::write_bytes(self, at, bytes);
    }

    fn fence() {
        fence(Ordering::SeqCst);
    }
}

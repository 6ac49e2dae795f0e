//! A global allocator that remembers failed allocations: the system's allocator, with a record of its failures.
//!
//! A failure is remembered until some allocations have succeeded. So it is known when the process aborts because of
//! it, which takes the runtime an allocation or two, and forgotten if the code went on without the memory. Results
//! are passed on unchanged.
//!
//! Set as global allocator by the worker program; [`crate::crash_handler`] stores the failed size in the crash
//! record.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

/// Successful allocations after which a failure is forgotten.
const FORGET_AFTER: u64 = 16;

static FAILED_BYTES: AtomicU64 = AtomicU64::new(0);
static SUCCEEDED_SINCE: AtomicU64 = AtomicU64::new(0);

/// The system's allocator, with a record of failures.
#[derive(Clone, Copy, Debug, Default)]
pub struct TrackingAllocator;

/// The size of the last failed allocation if it was recent, otherwise 0.
pub fn failed_bytes() -> u64 {
    FAILED_BYTES.load(Ordering::Relaxed)
}

/// Costs one load if no failure is remembered.
fn watch(start: *mut u8, bytes: usize) -> *mut u8 {
    if start.is_null() {
        SUCCEEDED_SINCE.store(0, Ordering::Relaxed);
        FAILED_BYTES.store(bytes as u64, Ordering::Relaxed);
    } else if FAILED_BYTES.load(Ordering::Relaxed) != 0
        && SUCCEEDED_SINCE.fetch_add(1, Ordering::Relaxed) + 1 >= FORGET_AFTER
    {
        FAILED_BYTES.store(0, Ordering::Relaxed);
    }
    start
}

// SAFETY: every call is handed to the system's allocator as it came, and its answer back as it is.
unsafe impl GlobalAlloc for TrackingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: what the caller promises is what the system's allocator asks for.
        watch(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        watch(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: as above.
        watch(unsafe { System.realloc(start, layout, bytes) }, bytes)
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(start, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_remembered_until_the_code_goes_on() {
        let (small, huge) = (Layout::new::<u64>(), Layout::array::<u8>(isize::MAX as usize / 2).unwrap());
        // SAFETY: both layouts have a size; what was given is given back with its own layout.
        unsafe {
            for round in 1..=FORGET_AFTER {
                assert!(TrackingAllocator.alloc(huge).is_null());
                for _ in 1..round {
                    TrackingAllocator.dealloc(TrackingAllocator.alloc_zeroed(small), small);
                }
                assert_eq!(failed_bytes(), huge.size() as u64, "round {round}");
            }
            let start = TrackingAllocator.alloc(small);
            assert_eq!((start.is_null(), failed_bytes()), (false, 0));
            assert!(TrackingAllocator.realloc(start, small, huge.size()).is_null());
            assert_eq!(failed_bytes(), huge.size() as u64);
            TrackingAllocator.dealloc(start, small);
        }
    }
}

//! What the heap keeps. In a process of its own, because other tests change what the heap of the whole process does.

use bulkhead_sys::heap;
use nix::sys::resource::{UsageWho, getrusage};

/// How many pages were new to this thread while it made and dropped six blocks of 64 KiB so many times.
fn fresh_pages(times: usize) -> i64 {
    let count =
        || getrusage(UsageWho::RUSAGE_THREAD).expect("this thread has an account").minor_page_faults();
    let before = count();
    for _ in 0..times {
        let blocks: Vec<Vec<u8>> = (0..6).map(|_| vec![7; 64 << 10]).collect();
        drop(std::hint::black_box(blocks));
    }
    count() - before
}

#[test]
fn blocks_that_are_kept_have_their_pages_the_next_time() {
    // Threads have heaps of their own, with the same limits.
    let counted = std::thread::spawn(|| {
        let without = fresh_pages(50);
        heap::keep_freed_blocks(2 << 20);
        fresh_pages(1);
        (fresh_pages(50), without)
    });
    let (with, without) = counted.join().expect("it counts");
    assert!(with < 50 && without > 500, "{with} new pages where blocks are kept, {without} before");
}

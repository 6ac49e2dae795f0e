//! What the C library's heap keeps of memory that was freed.
//!
//! glibc takes large blocks from the kernel one by one and gives them back when they are freed, but only until the first
//! of them is freed: then it raises its limit, up to 32 MiB, and later blocks lie in the heap. The heap shrinks at its end
//! alone, so one small block behind a hundred freed ones keeps the memory of all of them. A process that holds a lot at
//! times, and is to be small again afterwards, sets the limit itself, and now and then gives free pages back wherever they
//! lie. A process that makes and drops blocks of up to a megabyte all the time does better with the opposite: each fresh page costs a fault,
//! and a block of 1 MiB has 256. Called by the supervisor, at its start and between busy turns, and by both halves of the Python package.

/// Blocks of so many bytes are taken from the kernel one by one.
const LARGE_BYTES: i32 = 32 << 10;
/// So many free bytes may stay at the end of the heap: without them, each turn of a busy loop takes and gives back some.
const SPARE_BYTES: i32 = 2 << 20;

/// From now on blocks of up to `bytes`, at most 32 MiB, lie in the heap, of which twice as many bytes stay at each end when they are freed, so
/// that the next ones have pages. glibc itself does so once the program has freed such a block; this is the same, and not done where the
/// user has chosen its limits (`MALLOC_TRIM_THRESHOLD_`).
pub fn keep_freed_blocks(bytes: usize) {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(bytes)));
}

/// From now on each block of 32 KiB or more goes back to the kernel when it is freed. Returns `false` if the C library
/// has no such setting, or refuses it.
pub fn return_large_blocks() -> bool {
    #[cfg(target_env = "gnu")]
    {
        let set = |parameter, value| {
            // SAFETY: changes a number of the allocator under the allocator's own lock.
            unsafe { nix::libc::mallopt(parameter, value) == 1 }
        };
        set(nix::libc::M_MMAP_THRESHOLD, LARGE_BYTES) && set(nix::libc::M_TRIM_THRESHOLD, SPARE_BYTES)
    }
    #[cfg(not(target_env = "gnu"))]
    false
}

/// Gives free pages of the heap back to the kernel. Takes about a millisecond for tens of megabytes; other threads wait for
/// memory meanwhile.
pub fn return_free_pages() {
    #[cfg(target_env = "gnu")]
    // SAFETY: works on free memory alone, under the allocator's own lock.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    fn resident_bytes() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").expect("proc is mounted");
        let pages = statm.split(' ').nth(1).expect("the second number is the resident size");
        pages.parse::<usize>().expect("it is a number") * 4096
    }

    /// A thousand blocks of this size, every second one of which was freed: no free one is at the end of the heap.
    fn with_holes(bytes: usize) -> Vec<Vec<u8>> {
        let mut blocks: Vec<Vec<u8>> = (0..1000).map(|_| vec![1; bytes]).collect();
        let mut is_kept = false;
        blocks.retain(|_| {
            is_kept = !is_kept;
            is_kept
        });
        blocks
    }

    #[test]
    fn freed_memory_goes_back_wherever_it_lies() {
        assert!(return_large_blocks());
        let before = resident_bytes();
        let large = with_holes(64 << 10);
        let grown = resident_bytes().saturating_sub(before);
        assert!(grown < 40 << 20, "half of 64 MB is left at once: {grown}");
        let small = with_holes(24 << 10);
        let with_free = resident_bytes();
        return_free_pages();
        let given_back = with_free.saturating_sub(resident_bytes());
        assert!(given_back > 6 << 20, "most of 12 MB that lie between blocks: {given_back}");
        drop((large, small));
    }
}

//! Deaths of whole processes: this test binary, started again for one death each.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use super::*;
use crate::raise;
use crate::testing::spawning;

const PAGE_BYTES: usize = 4096;
const FRAMES_MAX: usize = 16;
const PLACES: Places = Places {
    moment: 0,
    signal: 8,
    code: 16,
    address: 24,
    sender: 32,
    stack_overflow: 40,
    allocation: 48,
    frame_count: 56,
    frames_searched: 64,
    frames: 128,
    frames_max: FRAMES_MAX,
};

/// What a death left.
struct Left {
    page: Page,
    signal: Option<i32>,
    pid: u32,
}

impl Left {
    fn word(&self, at: usize) -> u64 {
        self.page.load(at, Ordering::Acquire)
    }

    fn code(&self) -> i64 {
        self.word(PLACES.code).cast_signed()
    }
}

/// Runs the death of this name in a process of its own, whose standard input is the page.
fn dies_of(mode: &str) -> Left {
    let (page, fd) = Page::create("testimony", PAGE_BYTES).unwrap();
    let mut test = Command::new(std::env::current_exe().unwrap());
    test.args(["--exact", "fatal::tests::dies", "--ignored", "--test-threads=1"]);
    test.env("BULKHEAD_SYS_DEATH", mode).stdin(File::from(fd)).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = spawning(|| test.spawn()).unwrap();
    let (pid, status) = (child.id(), child.wait().unwrap());
    Left { page, signal: status.signal(), pid }
}

fn overflow(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 512]);
    if std::hint::black_box(depth) == u64::MAX { 0 } else { overflow(depth + 1) + frame[7] }
}

/// Run by the other tests, in a process of its own: must not come back.
#[test]
#[ignore = "ends its own process: started by the other tests"]
fn dies() {
    let fd: OwnedFd = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    install(Page::map_shared(fd.as_fd(), PAGE_BYTES).unwrap(), &PLACES).unwrap();
    match std::env::var("BULKHEAD_SYS_DEATH").unwrap().as_str() {
        "fault" => raise::fault(),
        "overflow" => {
            std::hint::black_box(overflow(0));
        }
        "abort" => std::process::abort(),
        "allocation" => {
            std::hint::black_box(allocator::Watched);
            let layout = std::alloc::Layout::array::<u8>(1 << 62).unwrap();
            // SAFETY: the layout has a size.
            assert!(unsafe { std::alloc::GlobalAlloc::alloc(&allocator::Watched, layout) }.is_null());
            std::process::abort();
        }
        "child" => fork_and_fault(),
        signal => raise::raise(signal.parse().unwrap()).unwrap(),
    }
}

/// A child that faults, then an exit of our own.
fn fork_and_fault() {
    // SAFETY: the child does nothing but fault.
    match unsafe { libc::fork() } {
        0 => raise::fault(),
        child => {
            let mut status = 0;
            // SAFETY: waits for our own child; `status` is ours.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(libc::WTERMSIG(status), libc::SIGSEGV);
        }
    }
}

#[test]
fn a_fault_leaves_its_address_and_its_moment() {
    let before = monotonic_ns();
    let left = dies_of("fault");
    assert_eq!(left.signal, Some(libc::SIGSEGV), "the wait status tells the truth");
    assert_eq!(left.word(PLACES.signal), 11);
    assert!(left.code() > 0 && left.word(PLACES.address) != 0);
    assert_eq!(left.word(PLACES.stack_overflow), 0, "a wild store is no overflow");
    assert!((before..=monotonic_ns()).contains(&left.word(PLACES.moment)));
}

#[test]
fn an_overflow_of_the_stack_is_told_from_other_faults() {
    let left = dies_of("overflow");
    assert_eq!((left.signal, left.word(PLACES.signal)), (Some(libc::SIGSEGV), 11));
    assert_eq!(left.word(PLACES.stack_overflow), 1);
}

#[test]
fn every_signal_that_ends_a_process_is_told_with_its_sender() {
    for signal in CAUGHT {
        let left = dies_of(&signal.to_string());
        assert_eq!((left.signal, left.word(PLACES.signal)), (Some(signal), signal as u64));
        assert_eq!((left.code(), left.word(PLACES.sender)), (libc::SI_TKILL.into(), left.pid.into()));
    }
}

#[test]
fn an_abort_knows_whether_memory_was_refused() {
    let left = dies_of("abort");
    assert_eq!((left.signal, left.word(PLACES.allocation)), (Some(libc::SIGABRT), 0));
    let left = dies_of("allocation");
    assert_eq!((left.signal, left.word(PLACES.allocation)), (Some(libc::SIGABRT), 1 << 62));
}

#[test]
fn a_forked_child_does_not_speak_for_its_parent() {
    let left = dies_of("child");
    assert_eq!((left.signal, left.word(PLACES.signal)), (None, 0));
}

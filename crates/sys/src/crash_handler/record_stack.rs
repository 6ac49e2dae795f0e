//! The stacks of the crash handler: the signal stack of the thread that installed it, and one for all other threads.
//!
//! The Rust runtime gives each thread of a program a signal stack of 8 KiB. That holds what the kernel pushes and the first calls of the
//! handler, and no more: in a build without optimization the search for frames takes another 7 KiB, so that the handler met the guard page, and
//! the process died of SIGSEGV instead of its own signal. So a thread that records leaves its signal stack for one of
//! [`STACK_BYTES`], whose address is in no register before. One thread records at a time; the handler makes sure of
//! that, calls [`RecordStacks::run`], and is back on the signal stack afterwards. On processors other than x86-64 and aarch64 it stays
//! where it is.

use std::io;
use std::ops::Range;

use nix::errno::Errno;
use nix::libc::{self, c_void};

/// Size of each: two of the largest frames that a kernel pushes (about 11 KiB with AMX), and, on the first, what a handler needs that
/// was installed before ours. What is not used takes no memory.
const STACK_BYTES: usize = 256 << 10;

/// What runs on such a stack.
pub(super) type Recording = extern "C" fn(*mut c_void);

/// Both stacks. They stay mapped for good.
#[derive(Debug)]
pub(super) struct RecordStacks {
    /// The signal stack of the thread that installed the handler.
    own: Range<usize>,
    /// That of the others, while they record.
    others: Range<usize>,
}

impl RecordStacks {
    /// Makes both; [`RecordStacks::use_own`] sets the first one.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { own: guarded_stack()?, others: guarded_stack()? })
    }

    /// Sets the first as the signal stack of the calling thread.
    pub(super) fn use_own(&self) -> io::Result<()> {
        let stack = libc::stack_t {
            ss_sp: std::ptr::with_exposed_provenance_mut(self.own.start),
            ss_flags: 0,
            ss_size: STACK_BYTES,
        };
        // SAFETY: the memory stays mapped for good and no other code uses it.
        Errno::result(unsafe { libc::sigaltstack(&raw const stack, std::ptr::null_mut()) })?;
        Ok(())
    }

    /// Calls `recording` on a stack that is large enough for it.
    ///
    /// # Safety
    /// No other thread does so meanwhile, and no signal handler of this thread. `recording` may be called with `argument`, and does
    /// not unwind.
    pub(super) unsafe fn run(&self, recording: Recording, argument: *mut c_void) {
        let here = 0_u8;
        if self.own.contains(&(&raw const here).addr()) {
            return recording(argument);
        }
        // SAFETY: the stack is mapped, is used by nobody else as the caller says, and its end is a multiple of the size of a
        // page.
        unsafe { call_on(self.others.end, recording, argument) }
    }
}

/// A stack with a guard page below it.
fn guarded_stack() -> io::Result<Range<usize>> {
    // SAFETY: asks for a number.
    let guard_bytes = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    let bytes = guard_bytes + STACK_BYTES;
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at a place of the kernel's choice touches nothing that exists.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the first page of the mapping that was just made, which is not in use.
    Errno::result(unsafe { libc::mprotect(start, guard_bytes, libc::PROT_NONE) })?;
    let lowest = start.expose_provenance() + guard_bytes;
    Ok(lowest..lowest + STACK_BYTES)
}

/// Calls a function on another stack.
///
/// # Safety
/// `end` is a multiple of 16 and the end of a stack that nobody uses; the function may be called so, and returns.
#[cfg(target_arch = "x86_64")]
unsafe fn call_on(end: usize, recording: Recording, argument: *mut c_void) {
    // SAFETY: r12 is kept by the function that is called, and has the stack pointer meanwhile. The compiler is told of all
    // registers that the call may change.
    unsafe {
        std::arch::asm!(
            "mov r12, rsp",
            "mov rsp, {end}",
            "call {recording}",
            "mov rsp, r12",
            end = in(reg) end,
            recording = in(reg) recording,
            in("rdi") argument,
            out("r12") _,
            clobber_abi("C"),
        );
    }
}

/// As above.
#[cfg(target_arch = "aarch64")]
unsafe fn call_on(end: usize, recording: Recording, argument: *mut c_void) {
    // SAFETY: as above, with x20.
    unsafe {
        std::arch::asm!(
            "mov x20, sp",
            "mov sp, {end}",
            "blr {recording}",
            "mov sp, x20",
            end = in(reg) end,
            recording = in(reg) recording,
            in("x0") argument,
            out("x20") _,
            clobber_abi("C"),
        );
    }
}

/// On other processors it stays on its own stack.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn call_on(_: usize, recording: Recording, argument: *mut c_void) {
    recording(argument);
}

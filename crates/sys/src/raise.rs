//! Ways to crash, hang or overload the calling process: signals to itself, real faults, endless waits, too much
//! memory.
//!
//! For the `chaos` kind alone, and for tests: it shows that such a worker harms no other.

#![allow(unsafe_code, reason = "wild stores and illegal instructions are what this file is for")]

use std::io;
use std::num::NonZeroUsize;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous};
use nix::sys::signal::Signal;

use crate::memfd;

/// Memory that [`share`] maps at a time.
const SHARE_STEP_BYTES: usize = 1 << 20;

/// Sends `signal` to the calling thread, as raise(3) does.
///
/// # Errors
/// If the number is no signal. Does not return for a signal that ends the process.
pub fn raise(signal: i32) -> io::Result<()> {
    let signal = Signal::try_from(signal)?;
    Ok(nix::sys::signal::raise(signal)?)
}

/// Waits for ever in the kernel, without using processor time.
pub fn hang() -> ! {
    loop {
        nix::unistd::pause();
    }
}

/// Maps `bytes` of shared memory, touches all of it in steps, and keeps it. No limit on data counts it.
///
/// # Errors
/// ENOMEM: no address space for so much.
pub fn share(bytes: usize) -> io::Result<()> {
    let (write, shared) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED);
    let Some(step) = NonZeroUsize::new(SHARE_STEP_BYTES) else { return Ok(()) };
    for _ in 0..bytes.div_ceil(SHARE_STEP_BYTES) {
        // SAFETY: a fresh anonymous mapping, chosen by the kernel; it overlaps nothing.
        let start = unsafe { mmap_anonymous(None, step, write, shared) }?;
        // SAFETY: the mapping is that long, writable, and used by no other code.
        unsafe { start.cast::<u8>().as_ptr().write_bytes(1, SHARE_STEP_BYTES) };
    }
    Ok(())
}

/// Writes to a protected page, as a wild pointer would: the kernel sends SIGSEGV.
///
/// # Panics
/// If no page can be mapped.
pub fn fault() -> ! {
    let (length, none) = (NonZeroUsize::MIN, ProtFlags::PROT_NONE);
    // SAFETY: a fresh anonymous mapping, chosen by the kernel; it overlaps nothing.
    let page = unsafe { mmap_anonymous(None, length, none, MapFlags::MAP_PRIVATE) };
    let page = page.expect("one page of address space is to be had in a process about to end");
    // SAFETY: the address is a live mapping of at least one byte, so the pointer is valid for the language;
    // its protection allows no access, so the store faults and the process ends here.
    unsafe { page.cast::<u8>().as_ptr().write_volatile(1) };
    unreachable!("a store to a page without access faults");
}

/// Writes to a mapped file beyond its end, as code does that relies on a file which shrinks: the kernel sends SIGBUS.
///
/// # Errors
/// No file or mapping can be created.
pub fn bus_error() -> io::Result<()> {
    let (length, write) = (NonZeroUsize::MIN, ProtFlags::PROT_WRITE);
    let empty = memfd::create("empty")?;
    // SAFETY: a fresh mapping, chosen by the kernel; it overlaps nothing.
    let page = unsafe { mmap(None, length, write, MapFlags::MAP_SHARED, &empty, 0) }?;
    // SAFETY: the address is a live mapping of at least one byte, so the pointer is valid for the language; there is
    // no file behind it, so the store faults and the process ends here.
    unsafe { page.cast::<u8>().as_ptr().write_volatile(1) };
    unreachable!("a store behind the end of a file faults");
}

/// Executes an invalid instruction: the kernel sends SIGILL.
///
/// # Errors
/// On other processors the signal is sent instead, which can fail.
pub fn illegal_instruction() -> io::Result<()> {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the instruction is there to fault, and the process ends here.
    unsafe {
        std::arch::asm!("ud2", options(noreturn))
    };
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the instruction is there to fault, and the process ends here.
    unsafe {
        std::arch::asm!("udf #0", options(noreturn))
    };
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    raise(nix::libc::SIGILL)
}

/// Divides an integer by zero, unchecked: the kernel sends SIGFPE. ARM returns zero instead; there the signal is
/// sent.
///
/// # Errors
/// Where the division does not fault, the signal is sent instead, which can fail.
pub fn divide_by_zero() -> io::Result<()> {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the division faults, and the process ends here; the registers that it would change are named.
    unsafe {
        std::arch::asm!("div {zero:e}", zero = in(reg) 0, inout("eax") 1 => _, inout("edx") 0 => _);
    }
    raise(nix::libc::SIGFPE)
}

//! Ending the own process from within, or the patience of others: a signal to itself, real faults of memory and of the
//! processor, waiting for ever, and taking too much.
//!
//! For the `chaos` kind alone, which shows that such a worker hurts nobody else.

#![allow(unsafe_code, reason = "wild stores and illegal instructions are what this file is for")]

use std::io;
use std::num::NonZeroUsize;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous};
use nix::sys::signal::Signal;

use crate::memfd;

/// What [`share`] takes at a time.
const SHARE_STEP_BYTES: usize = 1 << 20;

/// Sends `signal` to the calling thread, as raise(3) does.
///
/// # Errors
/// If the number names no signal. For a signal that ends the process it does not return.
pub fn raise(signal: i32) -> io::Result<()> {
    let signal = Signal::try_from(signal)?;
    Ok(nix::sys::signal::raise(signal)?)
}

/// Waits for ever, in the kernel, and takes no processor time.
pub fn hang() -> ! {
    loop {
        nix::unistd::pause();
    }
}

/// Takes `bytes` of memory that children would share, touches all of them in steps, and keeps them: no limit on data
/// counts such memory.
///
/// # Errors
/// ENOMEM: no address space for so much.
pub fn share(bytes: usize) -> io::Result<()> {
    let (write, shared) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED);
    let Some(step) = NonZeroUsize::new(SHARE_STEP_BYTES) else { return Ok(()) };
    for _ in 0..bytes.div_ceil(SHARE_STEP_BYTES) {
        // SAFETY: a fresh anonymous mapping, chosen by the kernel; it overlaps nothing.
        let start = unsafe { mmap_anonymous(None, step, write, shared) }?;
        // SAFETY: the mapping is that long, writable, and nobody else's.
        unsafe { start.cast::<u8>().as_ptr().write_bytes(1, SHARE_STEP_BYTES) };
    }
    Ok(())
}

/// Writes where nothing may be written, as a wild pointer would: the kernel answers with SIGSEGV.
///
/// # Panics
/// If no page could be had to fault on.
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

/// Writes into a mapped file behind its end, as whoever trusts a file that shrinks does: the kernel answers with
/// SIGBUS.
///
/// # Errors
/// No file or mapping could be had.
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

/// Runs an instruction that does not exist: the kernel answers with SIGILL.
///
/// # Errors
/// Where it is not known how: the signal cannot be sent instead.
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

/// Divides a whole number by zero, unchecked: the kernel answers with SIGFPE. ARM gives zero instead; there the
/// signal is sent.
///
/// # Errors
/// Where the division does not fault: the signal cannot be sent instead.
pub fn divide_by_zero() -> io::Result<()> {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the division faults, and the process ends here; the registers that it would change are named.
    unsafe {
        std::arch::asm!("div {zero:e}", zero = in(reg) 0, inout("eax") 1 => _, inout("edx") 0 => _);
    }
    raise(nix::libc::SIGFPE)
}

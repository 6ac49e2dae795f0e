//! Ending the own process from within: a signal to itself, and a real memory fault.
//!
//! For the `chaos` kind alone, which shows that a dying worker hurts nobody else. Nothing here returns to
//! work; what calls it has said its last words before.

#![allow(unsafe_code, reason = "a wild store is what this file is for")]

use std::io;

use nix::sys::signal::Signal;

/// Sends `signal` to the calling thread, as raise(3) does.
///
/// # Errors
/// If the number names no signal. For a signal that ends the process it does not return.
pub fn raise(signal: i32) -> io::Result<()> {
    let signal = Signal::try_from(signal)?;
    Ok(nix::sys::signal::raise(signal)?)
}

/// Writes where nothing may be written, as a wild pointer would: the kernel answers with SIGSEGV.
///
/// # Panics
/// If no page could be had to fault on.
pub fn fault() -> ! {
    let length = std::num::NonZeroUsize::MIN;
    let (none, private) = (nix::sys::mman::ProtFlags::PROT_NONE, nix::sys::mman::MapFlags::MAP_PRIVATE);
    // SAFETY: a fresh anonymous mapping, chosen by the kernel; it overlaps nothing.
    let page = unsafe { nix::sys::mman::mmap_anonymous(None, length, none, private) };
    let page = page.expect("one page of address space is to be had in a process about to end");
    // SAFETY: the address is a live mapping of at least one byte, so the pointer is valid for the language;
    // its protection allows no access, so the store faults and the process ends here.
    unsafe { page.cast::<u8>().as_ptr().write_volatile(1) };
    unreachable!("a store to a page without access faults");
}

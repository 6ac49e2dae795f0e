//! The walk of a stack for handlers that are no crash handler: the frames with the names of their files.
//!
//! Driven by `thread_stacks.rs`: it must not allocate or lock.

use std::ffi::c_void;

use super::backtrace::{self, Image, Registers, StackFrame};
use super::images;

/// Most time to wait for other threads that read the list of mappings.
const OTHERS_NS: u64 = 2_000_000;

/// A frame, and where it is in its file.
pub(crate) enum PlacedFrame<'a> {
    /// Of the program: the address in its file.
    Own(u64),
    /// Of another file.
    Other { name: &'a [u8], offset: u64 },
}

/// The program's own image.
#[derive(Debug)]
pub(crate) struct StackWalker(Image);

impl StackWalker {
    /// Asks the loader for the program's image, so it must not be called in a handler.
    pub(crate) fn new() -> Self {
        Self(Image::own())
    }

    /// Passes the frames of an interrupted thread to `keep`, the innermost first, until it returns `false`.
    ///
    /// # Safety
    /// `context` is what the kernel gave to a handler that was installed with SA_SIGINFO.
    pub(crate) unsafe fn walk(&self, context: *const c_void, keep: &mut dyn FnMut(PlacedFrame<'_>) -> bool) {
        // SAFETY: the caller says that the context is filled.
        let Some(registers) = (unsafe { Registers::of(context) }) else { return };
        let others = images::read_within(self.0.code(), OTHERS_NS);
        backtrace::walk(&self.0, others.as_deref(), registers, &mut |frame| match frame {
            StackFrame::Own(address) => keep(PlacedFrame::Own(address)),
            StackFrame::Other(address) => {
                let found = others.as_deref().and_then(|others| others.find(address));
                found.is_none_or(|(mapping, offset)| {
                    let end = mapping.name.iter().position(|byte| *byte == 0).unwrap_or(mapping.name.len());
                    keep(PlacedFrame::Other { name: &mapping.name[..end], offset })
                })
            }
        });
    }
}

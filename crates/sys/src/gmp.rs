//! Lets GMP allocate through the program's own allocator, so that its failed allocations are recorded like all
//! others.
//!
//! By default GMP calls malloc(3), and on failure prints a line and aborts, without the size. Only for the program
//! that links GMP; the feature `gmp` keeps it out of all others.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error, realloc};
use std::ffi::c_void;

use gmp_mpfr_sys::gmp;

/// GMP's numbers consist of words.
const ALIGN: usize = 8;

/// Switches GMP to the program's allocator. To be called before the first number is created: earlier allocations
/// would be freed by the wrong allocator.
pub fn use_global_allocator() {
    // SAFETY: the three functions keep to the contract of mp_set_memory_functions: GMP hands back what it was given,
    // with the size that it asked for, and none of them returns without the memory or unwinds.
    unsafe { gmp::set_memory_functions(Some(allocate), Some(reallocate), Some(free)) };
}

fn layout(bytes: usize) -> Layout {
    let layout = Layout::from_size_align(bytes.max(1), ALIGN);
    layout.expect("GMP aborts by itself before it asks for more than half of the address space")
}

extern "C" fn allocate(bytes: usize) -> *mut c_void {
    let layout = layout(bytes);
    // SAFETY: the layout has a size.
    let start = unsafe { alloc(layout) };
    if start.is_null() {
        handle_alloc_error(layout);
    }
    start.cast()
}

extern "C" fn reallocate(start: *mut c_void, before: usize, bytes: usize) -> *mut c_void {
    // SAFETY: GMP got `start` from here, with this layout, and the new size is not zero.
    let moved = unsafe { realloc(start.cast(), layout(before), bytes.max(1)) };
    if moved.is_null() {
        handle_alloc_error(layout(bytes));
    }
    moved.cast()
}

extern "C" fn free(start: *mut c_void, bytes: usize) {
    // SAFETY: GMP got `start` from here, with this layout.
    unsafe { dealloc(start.cast(), layout(bytes)) };
}

//! Threads of sessions that ended their session themselves: nobody could wait for them then, and they may still run code of Python's.
//!
//! A thread that asks for the GIL while the interpreter is finalized crashes the process, so [`join_left`] waits for them at the exit,
//! before that. A forked child has none of them. Driven by `session.rs` and `_exit.py`.

use std::sync::Mutex;
use std::thread::JoinHandle;

use pyo3::prelude::*;

use crate::connection::locked;

/// Locked with the GIL held alone, so no fork by Python meets it locked.
static LEFT: Mutex<Vec<(u32, JoinHandle<()>)>> = Mutex::new(Vec::new());

/// Notes the thread that calls this, which is about to end.
pub(crate) fn leave(_: Python<'_>, thread: JoinHandle<()>) {
    let mut left = locked(&LEFT);
    left.retain(|(process, thread)| *process == std::process::id() && !thread.is_finished());
    left.push((std::process::id(), thread));
}

/// Waits for the threads that ended their session themselves. To be called by a thread that has not; it lets others run meanwhile.
#[pyfunction]
pub(crate) fn join_left(py: Python<'_>) {
    let left = std::mem::take(&mut *locked(&LEFT));
    py.detach(|| {
        for (process, thread) in left {
            if process == std::process::id() {
                // A panic of that thread has been printed.
                drop(thread.join());
            } else {
                // It is the parent's: this process has no such thread.
                std::mem::forget(thread);
            }
        }
    });
}

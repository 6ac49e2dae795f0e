//! The worker runtime: it connects to its supervisor, runs tasks one at a time, reports their results, and exits when
//! the supervisor closes its channel. Below stands the guide for writing kinds of one's own.
//!
//! It trusts its supervisor and no other process, and keeps nothing between tasks. It must never run a task that it has
//! not claimed, and must never report a task as done before its result is in the box.
//!
//! The start, in order: take the lane from standard input; unblock all signals; ask to die with the parent (PDEATHSIG);
//! receive the setup with box and orders; open the one-shot server of ipc-channel; send its name on the lane; accept the
//! supervisor.

#![doc = include_str!("../GUIDE.md")]

mod boot_folder;
mod bootstrap;
mod chunk_run;
mod closer;
mod early_files;
#[cfg(feature = "builtin")]
mod exec;
mod item_store;
mod item_writer;
mod output;
mod panics;
mod registrations;
mod registry;
mod report_gate;
mod runtime;
mod stage_call;
mod stderr_log;
mod taken_lane;
mod task_files;
mod task_log;

use std::process::ExitCode;

use anyhow::{Context, Result};
use bulkhead_proto::worker::message::{LEFT_AFTER_PANIC, LEFT_PROCESSES};

use crate::runtime::ExitReason;

pub use bulkhead_link::worker::StackPage;
pub use bulkhead_proto::chunk::ChunkInput;
pub use bulkhead_proto::file::Way;
pub use bulkhead_proto::log::LogStream;
pub use bulkhead_proto::worker::boxes::STACK_SIGNAL;
pub use bulkhead_sys::allocator::TrackingAllocator;
pub use bulkhead_task::{
    FanOut, PackedParts, Planned, PositionedFile, RegisteredContext, Split, TaskContext, TaskFailure,
    TaskReporter,
};
pub use item_writer::ItemWriter;
pub use registry::Registry;
pub use taken_lane::take_lane;

/// Serves the supervisor that started this process, with the kinds of `registry`, until the supervisor closes
/// the channel. The exit code is a failure only if the worker could not start, if its channel broke, or if a task
/// panicked or left processes that it may not end. A program that makes `bulkhead_sys::allocator::TrackingAllocator` its
/// global allocator also tells how much memory a task wanted that dies of the want of it.
pub fn run(registry: &Registry) -> ExitCode {
    ExitCode::from(run_inside(registry))
}

/// As [`run`], for programs that do not end with their `main` in Rust, such as an interpreter: the exit code as a number.
pub fn run_inside(registry: &Registry) -> u8 {
    stderr_log::install();
    match serve(registry) {
        Ok(ExitReason::Closed) => 0,
        Ok(ExitReason::Panicked) => LEFT_AFTER_PANIC,
        Ok(ExitReason::LeftProcesses) => LEFT_PROCESSES,
        Err(error) => {
            log::error!("worker cannot go on pid={} error=\"{error:#}\"", std::process::id());
            1
        }
    }
}

fn serve(registry: &Registry) -> Result<ExitReason> {
    let lane = taken_lane::lane().context("cannot take the lane")?;
    bulkhead_sys::inherited_signals::start_clean()
        .context("cannot reset the signals that it was started with")?;
    match bootstrap::come_up(registry, lane)? {
        Some(mut runtime) => runtime.serve(),
        // The supervisor ended before this worker was connected, so no one needs an error.
        None => Ok(ExitReason::Closed),
    }
}

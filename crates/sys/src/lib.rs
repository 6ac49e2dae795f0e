//! All system calls and all `unsafe` code of the project. Nothing here knows a job.
//!
//! One file per kernel object. Each function documents its errors in terms of its caller. A function that can block
//! says so, and nothing here decides. Called by `supervisor`, `link`, `worker` and `client`.
//!
//! Each descriptor created here is close-on-exec; a child inherits its three standard streams and no other.
#![allow(unsafe_code)]

#[cfg(not(target_os = "linux"))]
compile_error!("Bulkhead is for Linux only (the Python package: with glibc only)");

#[cfg(test)]
#[macro_use]
#[path = "../../../tests/src/skip.rs"]
pub mod skip;

pub mod allocator;
pub mod bell;
pub mod call_filter;
pub mod clock;
pub mod crash_handler;
mod descendants;
mod descendants_end;
pub mod descriptors;
pub mod dial;
mod ended_strays;
pub mod exit;
pub mod extended_attributes;
pub mod file_copy;
pub mod file_system;
#[cfg(any(test, feature = "hostile-peer"))]
pub mod foreign_code;
mod freeze;
#[cfg(feature = "gmp")]
pub mod gmp;
pub mod heap;
pub mod held_folder;
#[cfg(any(test, feature = "hostile-peer"))]
pub mod hostile_filter;
#[cfg(any(test, feature = "hostile-peer"))]
pub mod hostile_peer;
pub mod inherited_signals;
pub mod inode_flags;
pub mod interrupt_timer;
pub mod lane;
pub mod lock;
pub mod locked_folder;
pub mod mark;
pub mod memfd;
pub mod memory_limit;
mod message;
pub mod notify;
pub mod open_flags;
pub mod outer;
pub mod passed_descriptor;
pub mod pidfd;
pub mod poll;
pub mod process;
pub mod process_identity;
pub mod process_stats;
pub mod program;
pub mod raise;
pub mod random;
pub mod remove_tree;
pub mod send_queue;
pub mod shared_page;
pub mod shortage;
pub mod signals;
pub mod socket;
pub mod spawn;
pub mod spawner;
pub mod stops;
mod strays;
pub mod task_limit;
#[cfg(test)]
mod testing;
pub mod thread_stacks;
pub mod tree;
pub mod unnamed_file;
pub mod untrusted;
pub mod user_namespace;
pub mod variables;

//! The worker protocol: the messages of lane and ipc channel, the layout of the two shared pages, and plans.
//!
//! The supervisor, the core, `crates/link`, the worker runtime, `crates/task` and `crates/jobs` use it. Nothing of a client may
//! name this module: neither `crates/client` nor `crates/cli`.

pub mod boxes;
pub mod copies;
pub mod message;
pub mod stage;

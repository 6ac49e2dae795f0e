//! The client protocol: requests, replies and rows, with the texts in which the command line shows them.
//!
//! The supervisor, the core, the client library and the command line use it. Nothing that runs in a worker may name this
//! module: not `worker/`, not `crates/jobs`, not the worker's half of `crates/link`.

pub mod evidence;
pub mod exit;
pub mod frame;
pub mod message;
pub mod outcome;
pub mod places;
pub mod record;
pub mod record_text;
pub mod refusal;
pub mod view;
pub mod why;
mod why_text;

//! What supervisor and workers say to each other: by the lane, the ipc channel, and two shared pages.
//!
//! No client sees any of it: nothing under `crates/client` or `crates/cli` names this module.

pub mod boxes;
pub mod message;
pub mod stage;

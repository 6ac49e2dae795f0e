//! The worker channel: both halves of the connection between the supervisor and one worker.
//!
//! The supervisor sends tasks over an ipc-channel (no other crate names that library). The worker returns results in
//! the box, a shared page, and one claim word per offer decides who has a task. The supervisor's half believes
//! nothing that it reads in a box, and blocks in [`supervisor::connect`] alone, which runs in a thread of its own.
//! The worker's half trusts its supervisor.
//!
//! This crate knows no jobs and decides nothing. Driven by the supervisor's `worker_table.rs` and the worker's
//! runtime.

#![deny(clippy::wildcard_enum_match_arm)] // a new state or error is considered in every match

mod ipc_connect;
pub mod supervisor;
pub mod unit_runs;
mod wire;
mod words;
pub mod worker;

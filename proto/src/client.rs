//! What clients and supervisor say to each other, and what people are shown.
//!
//! No worker sees any of it: nothing under `worker/`, `crates/jobs` or the worker's half of `crates/link` names
//! this module.

pub mod evidence;
pub mod exit;
pub mod frame;
pub mod message;
pub mod outcome;
pub mod places;
pub mod plain;
pub mod record;
pub mod record_text;
pub mod refusal;
pub mod view;
pub mod why;
mod why_text;

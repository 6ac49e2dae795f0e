//! The state machine of the daemon: it decides everything and does nothing.
//!
//! One call of [`Core::step`] is one turn: a batch of [`event::Event`]s goes in, [`action::Output`] comes out. The
//! core has no clock, no I/O, no threads and no randomness but a seeded generator: the same events give the same
//! actions. The supervisor's loop and the simulation drive the same machine.
//!
//! Nothing that a client or worker says makes the core panic. What the shell promises (no number is used twice, no
//! death is told twice) is asserted.

#![deny(clippy::wildcard_enum_match_arm)] // a new state, event or cause of death is considered in every match

mod client;
mod job;
mod machine;
mod turn;
mod view;
mod worker;

pub mod account;
pub mod action;
pub mod config;
pub mod event;

pub use machine::Core;
pub use turn::UserTurns;

#[cfg(test)]
#[path = "../../../tests/src/state_tables.rs"]
pub mod state_tables;

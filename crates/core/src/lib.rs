//! Decides everything, and does nothing: the state machine of the daemon.
//!
//! One call is one turn: a batch of [`event::Event`]s goes in, [`action::Output`] comes out. No clock, no I/O, no
//! threads, no randomness that is not seeded: the same events give the same actions. The supervisor's loop and
//! the simulation drive the same machine.
//!
//! What clients and workers say is hostile and never panics here. What the shell itself promises (an id that is
//! not used twice, a death that is told once) may be asserted.

mod client;
mod job;
mod machine;
mod turn;
mod view;
mod worker;

pub mod action;
pub mod config;
pub mod event;

pub use machine::Core;

#[cfg(test)]
#[path = "../../../tests/src/state_tables.rs"]
pub mod state_tables;

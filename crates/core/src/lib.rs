//! Decides everything, and does nothing: the state machine of the daemon.
//!
//! One call is one turn: a batch of [`event::Event`]s goes in, [`action::Output`] comes out. No clock, no I/O, no
//! threads, no randomness that is not seeded: the same events give the same actions. The supervisor's loop and
//! the simulation drive the same machine.

pub mod action;
pub mod config;
pub mod event;

//! Decides everything, and does nothing: the state machine of the daemon.
//!
//! One call is one turn: a batch of [`event::Event`]s goes in, [`action::Output`] comes out. No clock, no I/O, no
//! threads, no randomness that is not seeded: the same events give the same actions. The supervisor's loop and
//! the simulation drive the same machine.
//!
//! What clients and workers say is hostile and never panics here. What the shell itself promises (an id that is
//! not used twice, a death that is told once) may be asserted.

mod admit;
mod answer;
mod ask;
mod assign;
mod audit;
mod balance;
mod batch;
mod blame;
mod claim;
mod clients;
mod deaths;
mod deliver;
mod drain;
mod end;
mod fan;
mod files;
mod follow;
mod ids;
mod job;
mod jobs;
mod kept;
mod kill;
mod lane;
mod limits;
mod list;
mod log;
mod logs;
mod machine;
mod notice;
mod pace;
mod parts;
mod pool;
mod pools;
mod progress;
mod queue;
mod queues;
mod recycle;
mod restart;
mod retry;
mod rng;
mod shortage;
mod suspend;
mod sweep;
mod timers;
mod unwanted;
mod view;
mod watch;
mod why;
mod worker;

pub mod action;
pub mod config;
pub mod event;

pub use machine::Core;

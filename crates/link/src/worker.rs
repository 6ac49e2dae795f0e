//! The worker's half of the worker channel: receives tasks, claims them, writes results, rings the doorbell.
//!
//! Driven by the worker runtime. It may block on the supervisor, because a worker without one has nothing to do.

mod arena;
mod channel;
mod ring;
mod stack_page;

pub use arena::ResultArena;
pub use channel::{Channel, RecvError, Server};
pub use ring::{Finish, PartialOutput, WorkerRing};
pub use stack_page::StackPage;

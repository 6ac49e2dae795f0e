//! The worker's half of the worker channel: receive, claim, finish, ring.
//!
//! Driven by the worker runtime. It may wait for the supervisor: without one a worker has nothing to do.

mod channel;
mod ring;

pub use channel::{Channel, RecvError, Server};
pub use ring::{Finish, PartialOutput, WorkerRing};

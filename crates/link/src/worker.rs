//! The worker's half: the receiving end of its channel, and its view of box and orders.

mod channel;
mod ring;

pub use channel::{Channel, RecvError, Server};
pub use ring::{Finish, WorkerRing};

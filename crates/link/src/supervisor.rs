//! The supervisor's half: the ring of a worker's offers, and the sending end of its channel.

mod connect;
mod ring;
mod sender;

pub use connect::{ConnectError, connect};
pub use ring::{Found, FoundResult, Ring, RingDescriptors};
pub use sender::{SendError, Sender, encoded_size, warm_up};

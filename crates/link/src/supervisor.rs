//! The supervisor's half of the worker channel: connect, send, and read the box.
//!
//! Nothing here waits for a worker but the connect, which has a thread of its own; nothing here believes one.

mod connect;
mod ring;
mod sender;

pub use connect::{ConnectError, connect};
pub use ring::{FailureOutput, FinishedResult, FinishedTask, Ring, RingDescriptors};
pub use sender::{SendError, Sender, encoded_size, warm_up};

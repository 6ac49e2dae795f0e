//! The supervisor's half of the worker channel: connects, sends tasks, reads the box.
//!
//! Only [`connect()`] waits for a worker. All that a worker wrote is checked before it is used.

mod arena;
mod connect;
mod ring;
mod sender;
mod stack_page;

pub use arena::{ArenaDescriptors, FreedBlocks};
pub use connect::{ConnectError, connect};
pub use ring::{FailureOutput, FinishedResult, FinishedTask, ProgramChange, Ring, RingDescriptors};
pub use sender::{SendError, Sender, encoded_size, warm_up};
pub use stack_page::{CUT_MARK, StackPageReader};

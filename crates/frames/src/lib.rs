//! Y4M clips and what `transform` does to their frames: read, checked, changed and written as plain functions.
//!
//! It knows nothing of jobs, workers or descriptors: clips come from a reader or from positioned reads, and
//! leave through positioned writes. The same clip and chain give the same bytes, however the frames are cut into
//! ranges and in whatever order those run. A crate of its own so that it is optimised in test builds too.

mod chain;
mod colour;
mod fault;
mod frame;
mod header;
pub mod limits;
mod merge;
mod plan;
mod plane;
mod read;
mod recipe;
mod run;
mod scan;
mod shape;
mod stream;
mod transform;
#[cfg(test)]
mod trial;

pub use chain::{Chain, Filter, Operation, Turn};
pub use colour::{Chroma, Colour, Depth};
pub use fault::{Fault, Flaw};
pub use frame::Frame;
pub use header::{Header, Interlacing, Ratio};
pub use merge::{Merged, merge};
pub use plan::{FrameRange, Plan};
pub use read::ClipReader;
pub use recipe::Recipe;
pub use run::{RangeDone, run};
pub use shape::{Shape, Size};
pub use stream::stream;
pub use transform::Transform;

//! Y4M clips and the operations of `transform` on their frames: read, checked, changed and written as plain functions.
//!
//! It must not know jobs, workers or descriptors: a clip comes from a reader or from positioned reads, and is written
//! with positioned writes. The same clip and chain give the same bytes, however the frames are split into ranges and in
//! whatever order the ranges run. It is a crate of its own so that it is optimised in test builds too.

mod clip_reader;
mod clip_scan;
mod colour;
mod error;
mod frame;
mod header;
pub mod limits;
mod merge;
mod operation_chain;
mod plan;
mod plane;
mod range_run;
mod recipe;
mod shape;
mod stream;
#[cfg(test)]
mod test_clip;
mod transform;

pub use clip_reader::ClipReader;
pub use colour::{Chroma, Colour, Depth};
pub use error::{Flaw, TransformError};
pub use frame::Frame;
pub use header::{Header, Interlacing, Ratio};
pub use merge::{Merged, merge};
pub use operation_chain::{Filter, Operation, OperationChain, Rotation};
pub use plan::{FrameRange, Plan};
pub use range_run::{RangeDone, run};
pub use recipe::Recipe;
pub use shape::{Shape, Size};
pub use stream::stream;
pub use transform::FrameTransform;

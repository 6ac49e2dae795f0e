//! Every limit of this crate, with assertions where one depends on another.
//!
//! They bound what a hostile header or chain can make a worker allocate or compute; none is a tuning parameter. Error
//! messages quote them.

/// Most pixels in a row or a column of a frame.
pub const SIDE_MAX: u32 = 16_384;
/// Most bytes of one frame: 16,384 x 16,384 in 8-bit 4:2:0, or 8192 x 8192 in 10-bit 4:4:4.
pub const FRAME_MAX_BYTES: u64 = 402_653_184;
/// Most bytes of a clip's first line, without its newline.
pub const HEADER_MAX_BYTES: usize = 4096;
/// Most bytes of a FRAME line, without its newline.
pub const FRAME_LINE_MAX_BYTES: usize = 255;
/// Most operations in a chain.
pub const OPERATIONS_MAX: usize = 16;
/// Largest radius of a blur. A sum of its whole window must fit 31 bits: 1023 x (2 x 512 + 1)^2 does.
pub const BLUR_RADIUS_MAX: u32 = 512;
/// Most ranges of a plan.
pub const RANGES_MAX: u64 = 10_000;

const _: () = assert!(1023 * (2 * BLUR_RADIUS_MAX as u64 + 1).pow(2) < 1 << 31);
const _: () = assert!(SIDE_MAX as u64 * SIDE_MAX as u64 * 3 / 2 <= FRAME_MAX_BYTES);
const _: () = assert!(FRAME_MAX_BYTES < u32::MAX as u64);

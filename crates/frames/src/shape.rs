//! The shape of a frame: its size, its planes, and its length in bytes.
//!
//! The chroma size of an odd size is rounded up: 5 pixels in 4:2:0 have 3 chroma samples. Every size was checked
//! against the limits before, so no product overflows.

use crate::colour::{Chroma, Colour};
use crate::error::Flaw;
use crate::limits::{FRAME_MAX_BYTES, SIDE_MAX};

/// Columns and rows of a plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Samples in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl Size {
    /// A size of this many columns and rows.
    pub fn new(width: u32, height: u32) -> Self {
        Self { width, height }
    }

    /// Samples in all.
    pub fn samples(self) -> usize {
        self.width as usize * self.height as usize
    }

    /// The size after a quarter turn.
    pub(crate) fn turned(self) -> Self {
        Self::new(self.height, self.width)
    }

    /// Whether the size is within the limits.
    pub(crate) fn is_possible(self) -> bool {
        let possible = 1..=SIDE_MAX;
        possible.contains(&self.width) && possible.contains(&self.height)
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}x{}", self.width, self.height)
    }
}

/// The size and the colour space of all frames of a clip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    size: Size,
    colour: Colour,
}

impl Shape {
    /// A shape within the limits.
    ///
    /// # Errors
    /// [`Flaw::FrameTooLarge`]. The caller has checked the sides before, because it knows their byte offsets.
    pub(crate) fn new(size: Size, colour: Colour) -> Result<Self, Flaw> {
        debug_assert!(size.is_possible());
        let shape = Self { size, colour };
        match shape.bytes() {
            bytes if bytes > FRAME_MAX_BYTES => Err(Flaw::FrameTooLarge(bytes)),
            _ => Ok(shape),
        }
    }

    /// The size of the picture, which is that of its luma plane.
    pub fn size(self) -> Size {
        self.size
    }

    /// The colour space.
    pub fn colour(self) -> Colour {
        self.colour
    }

    /// The size of a chroma plane, rounded up.
    pub fn chroma_size(self) -> Size {
        let (across, down) = self.colour.chroma().steps();
        Size::new(self.size.width.div_ceil(across), self.size.height.div_ceil(down))
    }

    /// The planes in the order of the clip: luma, then both of chroma, if there are any.
    pub fn planes(self) -> impl Iterator<Item = Size> {
        let chroma = if self.colour.chroma() == Chroma::Mono { 0 } else { 2 };
        std::iter::once(self.size).chain(std::iter::repeat_n(self.chroma_size(), chroma))
    }

    /// Samples of a whole frame.
    pub fn samples(self) -> usize {
        self.planes().map(Size::samples).sum()
    }

    /// Bytes of a whole frame, without its line.
    pub fn bytes(self) -> u64 {
        self.samples() as u64 * self.colour.depth().bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(width: u32, height: u32, tag: &str) -> u64 {
        Shape::new(Size::new(width, height), Colour::named(tag).unwrap()).unwrap().bytes()
    }

    #[test]
    fn chroma_of_odd_sizes_rounds_up() {
        assert_eq!(bytes(1, 1, "420jpeg"), 3);
        assert_eq!(bytes(5, 3, "420mpeg2"), 15 + 2 * 3 * 2);
        assert_eq!(bytes(5, 3, "422"), 15 + 2 * 3 * 3);
        assert_eq!(bytes(5, 3, "444"), 45);
        assert_eq!(bytes(5, 3, "mono"), 15);
        assert_eq!(bytes(5, 3, "422p10"), 2 * (15 + 2 * 9));
        assert_eq!(bytes(1920, 1080, "420jpeg"), 3_110_400);
    }

    #[test]
    fn a_frame_can_be_too_large() {
        let shape = |tag| Shape::new(Size::new(SIDE_MAX, SIDE_MAX), Colour::named(tag).unwrap());
        assert!(shape("420jpeg").is_ok());
        assert_eq!(shape("444p10"), Err(Flaw::FrameTooLarge(6 * u64::from(SIDE_MAX).pow(2))));
    }
}

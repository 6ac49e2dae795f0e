//! The operations on one plane of samples: each reads a plane and writes another one.
//!
//! Generic over 8 and 10-bit samples. No state passes from one plane to the next: scratch memory is kept only to save
//! its allocation. Driven by `transform.rs`, stage by stage.

pub(crate) mod blur;
mod lanczos;
pub(crate) mod rotate;
pub(crate) mod scale;

use fast_image_resize::{PixelTrait, pixels};

use crate::shape::Size;

/// A sample of 8 or 10 bits.
pub(crate) trait Sample: bytemuck::Pod + Into<i32> + Ord {
    /// The scaler's type for the same memory.
    type Pixel: PixelTrait + bytemuck::Pod;
    /// The largest value of a sample.
    const MAX: Self;
    /// The value of a chroma sample without colour.
    const NEUTRAL: Self;
    /// Samples in eight bytes.
    const LANES: usize = 8 / size_of::<Self>();

    /// The sample in the low bits of a word, at most [`Self::MAX`].
    fn from_low_bits(word: u32) -> Self;

    /// Transposes `LANES` rows of `LANES` samples each; the first sample of a row is in its lowest bits.
    fn transpose(rows: &mut [u64; 8]);
}

impl Sample for u8 {
    type Pixel = pixels::U8;
    const MAX: Self = 255;
    const NEUTRAL: Self = 128;

    fn from_low_bits(word: u32) -> Self {
        word as u8
    }

    fn transpose(rows: &mut [u64; 8]) {
        rotate::swap_corners(rows, 4, 32, 0x0000_0000_ffff_ffff);
        rotate::swap_corners(rows, 2, 16, 0x0000_ffff_0000_ffff);
        rotate::swap_corners(rows, 1, 8, 0x00ff_00ff_00ff_00ff);
    }
}

impl Sample for u16 {
    type Pixel = pixels::U16;
    const MAX: Self = 1023;
    const NEUTRAL: Self = 512;

    fn from_low_bits(word: u32) -> Self {
        word as u16
    }

    fn transpose(rows: &mut [u64; 8]) {
        let (rows, _) = rows.split_at_mut(4);
        rotate::swap_corners(rows, 2, 32, 0x0000_0000_ffff_ffff);
        rotate::swap_corners(rows, 1, 16, 0x0000_ffff_0000_ffff);
    }
}

/// Copies the part of the plane that begins at column `x` of row `y` and has the size `kept`.
pub(crate) fn crop<S: Sample>(from: &[S], size: Size, (x, y): (u32, u32), into: &mut [S], kept: Size) {
    let rows = from.chunks_exact(size.width as usize).skip(y as usize);
    let columns = x as usize..(x + kept.width) as usize;
    for (row, into) in rows.zip(into.chunks_exact_mut(kept.width as usize)) {
        into.copy_from_slice(&row[columns.clone()]);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Samples that look random and are the same each time.
    pub(crate) fn noise<S: Sample>(size: Size, seed: u32) -> Vec<S> {
        let mut state = seed.wrapping_mul(2_654_435_761) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            S::from_low_bits((state >> 8) & S::MAX.into() as u32)
        };
        (0..size.samples()).map(|_| next()).collect()
    }

    /// Sizes around every block size, and thin ones.
    pub(crate) const SIZES: [(u32, u32); 12] = [
        (1, 1),
        (1, 7),
        (9, 1),
        (2, 2),
        (5, 3),
        (7, 8),
        (8, 8),
        (16, 9),
        (63, 65),
        (64, 64),
        (129, 70),
        (33, 200),
    ];

    #[test]
    fn crop_keeps_what_it_is_told() {
        let size = Size::new(5, 4);
        let from: Vec<u8> = (0..20).collect();
        let mut into = vec![0; 6];
        crop(&from, size, (2, 1), &mut into, Size::new(3, 2));
        assert_eq!(into, [7, 8, 9, 12, 13, 14]);
        let mut whole = vec![0; 20];
        crop(&from, size, (0, 0), &mut whole, size);
        assert_eq!(whole, from);
    }
}

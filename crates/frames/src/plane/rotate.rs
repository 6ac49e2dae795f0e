//! Rotations by 90, 180 and 270 degrees.
//!
//! Quarter turns go tile by tile, so that source and target stay in the first-level cache, and within a tile in blocks
//! of eight bytes a side, which are transposed in registers. The rest at the edges is moved sample by sample.

use super::Sample;
use crate::operation_chain::Rotation;
use crate::shape::Size;

/// Columns and rows of a tile: a cache line of 8-bit samples.
const TILE: usize = 64;

/// Fills `into`, which has the turned size, with the turned plane.
pub(crate) fn rotate<S: Sample>(turn: Rotation, from: &[S], size: Size, into: &mut [S]) {
    let plane = Plane { from, width: size.width as usize, height: size.height as usize, turn };
    match turn {
        Rotation::Half => into.iter_mut().zip(from.iter().rev()).for_each(|(into, from)| *into = *from),
        Rotation::Quarter | Rotation::ThreeQuarters => {
            for y in (0..plane.height).step_by(TILE) {
                for x in (0..plane.width).step_by(TILE) {
                    plane.tile(x, y, into);
                }
            }
        }
    }
}

/// A plane that is being turned by a quarter.
struct Plane<'a, S> {
    from: &'a [S],
    width: usize,
    height: usize,
    turn: Rotation,
}

impl<S: Sample> Plane<'_, S> {
    /// Moves the tile that begins at (x, y).
    fn tile(&self, x: usize, y: usize, into: &mut [S]) {
        let (right, bottom) = ((x + TILE).min(self.width), (y + TILE).min(self.height));
        let whole = |start: usize, end: usize| end - (end - start) % S::LANES;
        let (whole_right, whole_bottom) = (whole(x, right), whole(y, bottom));
        for x in (x..whole_right).step_by(S::LANES) {
            for y in (y..whole_bottom).step_by(S::LANES) {
                self.block(x, y, into);
            }
        }
        self.samples(whole_right..right, y..bottom, into);
        self.samples(x..whole_right, whole_bottom..bottom, into);
    }

    /// Moves a block of eight bytes a side.
    fn block(&self, x: usize, y: usize, into: &mut [S]) {
        let lanes = S::LANES;
        let is_quarter = self.turn == Rotation::Quarter;
        let mut rows = [0_u64; 8];
        for (lane, row) in rows[..lanes].iter_mut().enumerate() {
            // A quarter turn puts the lowest row first.
            let y = if is_quarter { y + lanes - 1 - lane } else { y + lane };
            let start = y * self.width + x;
            let bytes = bytemuck::cast_slice(&self.from[start..start + lanes]);
            *row = u64::from_le_bytes(bytes.try_into().expect("LANES samples are eight bytes"));
        }
        S::transpose(&mut rows);
        let column = if is_quarter { self.height - y - lanes } else { y };
        for (lane, row) in rows[..lanes].iter().enumerate() {
            let line = if is_quarter { x + lane } else { self.width - 1 - x - lane };
            let start = line * self.height + column;
            let into = bytemuck::cast_slice_mut(&mut into[start..start + lanes]);
            into.copy_from_slice(&row.to_le_bytes());
        }
    }

    /// Moves single samples.
    fn samples(&self, columns: std::ops::Range<usize>, rows: std::ops::Range<usize>, into: &mut [S]) {
        for y in rows {
            for x in columns.clone() {
                let (line, column) = match self.turn {
                    Rotation::Quarter => (x, self.height - 1 - y),
                    _ => (self.width - 1 - x, y),
                };
                into[line * self.height + column] = self.from[y * self.width + x];
            }
        }
    }
}

/// Of each pair of rows that are `apart`, swaps the upper right corner with the lower left one: a step of the
/// transposition by halves (Warren, Hacker's Delight, 7-3). `mask` is the left corner, `bits` its width.
pub(crate) fn swap_corners(rows: &mut [u64], apart: usize, bits: u32, mask: u64) {
    for pair in rows.chunks_exact_mut(2 * apart) {
        let (upper, lower) = pair.split_at_mut(apart);
        for (upper, lower) in upper.iter_mut().zip(lower) {
            let swapped = ((*upper >> bits) ^ *lower) & mask;
            *lower ^= swapped;
            *upper ^= swapped << bits;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{SIZES, noise};
    use super::*;

    fn turned<S: Sample>(turn: Rotation, from: &[S], size: Size) -> Vec<S> {
        let mut into = vec![S::from_low_bits(0); from.len()];
        rotate(turn, from, size, &mut into);
        into
    }

    /// Where the sample at (x, y) must come to lie, by the definition alone.
    fn place(turn: Rotation, size: Size, x: u32, y: u32) -> usize {
        let (line, column, width) = match turn {
            Rotation::Quarter => (x, size.height - 1 - y, size.height),
            Rotation::Half => (size.height - 1 - y, size.width - 1 - x, size.width),
            Rotation::ThreeQuarters => (size.width - 1 - x, y, size.height),
        };
        (line * width + column) as usize
    }

    fn every_sample_is_in_its_place<S: Sample + std::fmt::Debug>() {
        for (width, height) in SIZES {
            let size = Size::new(width, height);
            let from: Vec<S> = noise(size, width * 1000 + height);
            for turn in [Rotation::Quarter, Rotation::Half, Rotation::ThreeQuarters] {
                let into = turned(turn, &from, size);
                for y in 0..height {
                    for x in 0..width {
                        let sample = from[(y * width + x) as usize];
                        assert_eq!(into[place(turn, size, x, y)], sample, "{size} {turn:?} ({x}, {y})");
                    }
                }
            }
        }
    }

    #[test]
    fn every_sample_is_in_its_place_in_8_and_10_bits() {
        every_sample_is_in_its_place::<u8>();
        every_sample_is_in_its_place::<u16>();
    }

    #[test]
    fn turns_add_up() {
        for (width, height) in SIZES {
            let size = Size::new(width, height);
            let from: Vec<u8> = noise(size, 7);
            let quarter = turned(Rotation::Quarter, &from, size);
            assert_eq!(
                turned(Rotation::Quarter, &quarter, size.turned()),
                turned(Rotation::Half, &from, size)
            );
            assert_eq!(turned(Rotation::ThreeQuarters, &quarter, size.turned()), from);
        }
    }
}

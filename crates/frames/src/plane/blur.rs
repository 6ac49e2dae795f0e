//! Box blur: each sample becomes the mean of the window around it, exactly rounded.
//!
//! A running sum down each column and one along each row make the cost of a sample independent of the radius. Beyond
//! its edges the plane is mirrored, with the edge sample twice. The sums are integers. A mean is the sum times the
//! inverse of the window's odd area, precise enough never to fall on the wrong side of a half (see [`Mean`]), so no
//! rounding depends on the order of the work.

use super::Sample;
use crate::shape::Size;

/// Memory that is reused from plane to plane.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// The sum of each column's window, mirrored beyond both ends: `across + 1` columns to the left, `across` to the
    /// right.
    columns: Vec<i32>,
    /// The sum of each sample's window.
    windows: Vec<i32>,
}

/// Radius across and down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Radius {
    pub(crate) across: u32,
    pub(crate) down: u32,
}

/// Fills `into` with the blurred plane.
pub(crate) fn blur<S: Sample>(scratch: &mut Scratch, radius: Radius, from: &[S], size: Size, into: &mut [S]) {
    let (width, height) = (size.width as usize, size.height as usize);
    let (across, down) = (radius.across as usize, radius.down as i64);
    scratch.columns.clear();
    scratch.columns.resize(width + 2 * across + 1, 0);
    scratch.windows.resize(width, 0);
    let own = across + 1..across + 1 + width;
    let row = |y: i64| {
        let start = mirror(y, height) * width;
        &from[start..start + width]
    };
    for y in -down - 1..down {
        add_row(&mut scratch.columns[own.clone()], row(y));
    }
    let mean = Mean::of(radius, S::MAX.into());
    for (y, into) in (0_i64..).zip(into.chunks_exact_mut(width)) {
        slide_down(&mut scratch.columns[own.clone()], row(y - down - 1), row(y + down));
        mirror_ends(&mut scratch.columns, across, width);
        slide_along(&scratch.columns, 2 * across + 1, &mut scratch.windows);
        mean.write(&scratch.windows, into);
    }
}

/// The index inside the plane of an index that may lie beyond its ends, where the plane is mirrored.
fn mirror(index: i64, length: usize) -> usize {
    let turn = index.rem_euclid(2 * length as i64) as usize;
    turn.min(2 * length - 1 - turn)
}

fn add_row<S: Sample>(columns: &mut [i32], row: &[S]) {
    for (column, sample) in columns.iter_mut().zip(row) {
        *column += (*sample).into();
    }
}

/// Moves the window of each column down by a row.
fn slide_down<S: Sample>(columns: &mut [i32], leaves: &[S], comes: &[S]) {
    for ((column, leaves), comes) in columns.iter_mut().zip(leaves).zip(comes) {
        let (leaves, comes): (i32, i32) = ((*leaves).into(), (*comes).into());
        *column += comes - leaves;
    }
}

/// Fills the mirrored columns beyond both ends.
fn mirror_ends(columns: &mut [i32], across: usize, width: usize) {
    let first = across + 1;
    for beyond in 1..=across as i64 + 1 {
        columns[first - beyond as usize] = columns[first + mirror(-beyond, width)];
    }
    for beyond in 0..across {
        let inside = mirror((width + beyond) as i64, width);
        columns[first + width + beyond] = columns[first + inside];
    }
}

/// The sum of each window of `length` columns, beginning with the window at the second column.
fn slide_along(columns: &[i32], length: usize, windows: &mut [i32]) {
    let mut sum: i32 = columns[..length].iter().sum();
    for ((window, leaves), comes) in windows.iter_mut().zip(columns).zip(&columns[length..]) {
        sum += comes - leaves;
        *window = sum;
    }
}

/// Converts a sum to a mean.
///
/// The area of a window is odd, so the exact mean is never a half: it stays at least 1 / (2 area) away from one.
/// A single-precision product is off by less than `max` / 2^23. Adding 2^23 then rounds it to a whole number in the
/// low bits. So it is exact where `max` x area < 2^22; beyond, double precision is, with room to spare.
enum Mean {
    Single(f32),
    Double(f64),
}

impl Mean {
    fn of(radius: Radius, max: i32) -> Self {
        let area = f64::from((2 * radius.across + 1) * (2 * radius.down + 1));
        if area * f64::from(max) < f64::from(1 << 22) {
            Self::Single((1.0 / area) as f32)
        } else {
            Self::Double(1.0 / area)
        }
    }

    fn write<S: Sample>(&self, sums: &[i32], into: &mut [S]) {
        match self {
            Self::Single(inverse) => {
                for (into, sum) in into.iter_mut().zip(sums) {
                    let word = (*sum as f32 * inverse + (1 << 23) as f32).to_bits();
                    *into = S::from_low_bits(word);
                }
            }
            Self::Double(inverse) => {
                for (into, sum) in into.iter_mut().zip(sums) {
                    let word = (f64::from(*sum) * inverse + (1_u64 << 52) as f64).to_bits();
                    *into = S::from_low_bits(word as u32);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{SIZES, noise};
    use super::*;

    /// The definition, sample by sample.
    fn slowly<S: Sample>(radius: Radius, from: &[S], size: Size) -> Vec<i32> {
        let (width, height) = (size.width as usize, size.height as usize);
        let (across, down) = (i64::from(radius.across), i64::from(radius.down));
        let area = (2 * across + 1) * (2 * down + 1);
        let mut means = Vec::new();
        for y in 0..height as i64 {
            for x in 0..width as i64 {
                let mut sum = 0;
                for row in y - down..=y + down {
                    for column in x - across..=x + across {
                        let sample = from[mirror(row, height) * width + mirror(column, width)];
                        sum += i64::from(sample.into());
                    }
                }
                means.push(((2 * sum + area) / (2 * area)) as i32);
            }
        }
        means
    }

    fn matches_the_definition<S: Sample>() {
        let mut scratch = Scratch::default();
        for (width, height) in SIZES {
            let size = Size::new(width, height);
            let from: Vec<S> = noise(size, width + height);
            for (across, down) in [(1, 1), (2, 2), (1, 0), (0, 3), (2, 4), (11, 7), (40, 3)] {
                let radius = Radius { across, down };
                let mut into = vec![S::from_low_bits(0); from.len()];
                blur(&mut scratch, radius, &from, size, &mut into);
                let into: Vec<i32> = into.into_iter().map(Into::into).collect();
                assert_eq!(into, slowly(radius, &from, size), "{size} {radius:?}");
            }
        }
    }

    #[test]
    fn every_sample_is_the_exactly_rounded_mean() {
        matches_the_definition::<u8>();
        matches_the_definition::<u16>();
    }

    /// Every sum beside every half that a window can give.
    fn means_round_right<S: Sample>(radius: Radius) {
        let area = i64::from((2 * radius.across + 1) * (2 * radius.down + 1));
        let max: i32 = S::MAX.into();
        let mean = Mean::of(radius, max);
        let mut sums = Vec::new();
        for value in 0..i64::from(max) {
            let half = (2 * value + 1) * area / 2;
            sums.extend((half - 1..=half + 2).map(|sum| sum as i32));
        }
        sums.push(max * area as i32);
        let mut into = vec![S::from_low_bits(0); sums.len()];
        mean.write(&sums, &mut into);
        for (sum, into) in sums.iter().zip(into) {
            let wanted = (2 * i64::from(*sum) + area) / (2 * area);
            assert_eq!(i64::from(into.into()), wanted, "{sum} over {area}");
        }
    }

    #[test]
    fn means_round_right_for_every_radius() {
        for radius in 1..=crate::limits::BLUR_RADIUS_MAX {
            for down in [radius, radius.div_ceil(2), 0] {
                means_round_right::<u8>(Radius { across: radius, down });
                means_round_right::<u16>(Radius { across: radius, down });
            }
        }
    }

    #[test]
    fn a_radius_beyond_the_plane_and_the_largest() {
        let size = Size::new(5, 3);
        let flat = vec![1023_u16; 15];
        let mut into = vec![0; 15];
        let radius = Radius { across: 512, down: 512 };
        blur(&mut Scratch::default(), radius, &flat, size, &mut into);
        assert_eq!(into, flat);
    }
}

//! Scaling, by `fast_image_resize`: the filter's kernel is widened when the picture shrinks, so nothing aliases.
//!
//! It chooses the processor's best instructions at run time. Chroma is scaled as if its samples lay in the
//! middle of their pixels, as ffmpeg's scaler does unless told otherwise.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};

use super::Sample;
use crate::chain::Filter;
use crate::shape::Size;

/// Fills `into` with the plane in its new size.
pub(crate) fn scale<S: Sample>(
    scaler: &mut Resizer,
    filter: Filter,
    (from, size): (&[S], Size),
    (into, wanted): (&mut [S], Size),
) {
    let filter = match filter {
        Filter::Lanczos => FilterType::Lanczos3,
        Filter::Bilinear => FilterType::Bilinear,
    };
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)).use_alpha(false);
    let (columns, rows) = (size.width, size.height);
    let source = TypedImageRef::<S::Pixel>::new(columns, rows, bytemuck::cast_slice(from));
    let source = source.expect("a plane has as many samples as its size says");
    let target = bytemuck::cast_slice_mut(&mut *into);
    let target = TypedImage::<S::Pixel>::from_pixels_slice(wanted.width, wanted.height, target);
    let mut target = target.expect("a plane has as many samples as its size says");
    scaler.resize_typed(&source, &mut target, &options).expect("the whole of a plane lies within it");
    // The scaler works in 16 bits; beside an edge the kernel swings above the 10 that there are.
    if size_of::<S>() > 1 {
        into.iter_mut().for_each(|sample| *sample = (*sample).min(S::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::SIZES;
    use super::*;

    fn scaled<S: Sample>(filter: Filter, from: &[S], size: Size, wanted: Size) -> Vec<S> {
        let mut into = vec![S::from_low_bits(0); wanted.samples()];
        scale(&mut Resizer::new(), filter, (from, size), (&mut into, wanted));
        into
    }

    fn flat_stays_flat<S: Sample + std::fmt::Debug>(value: S) {
        for (width, height) in SIZES {
            for (to_width, to_height) in SIZES {
                let (size, wanted) = (Size::new(width, height), Size::new(to_width, to_height));
                for filter in [Filter::Lanczos, Filter::Bilinear] {
                    let from = vec![value; size.samples()];
                    let into = scaled(filter, &from, size, wanted);
                    assert!(into.iter().all(|sample| *sample == value), "{size} to {wanted} {filter:?}");
                }
            }
        }
    }

    #[test]
    fn a_flat_plane_stays_flat_in_every_size() {
        flat_stays_flat(0_u8);
        flat_stays_flat(200_u8);
        flat_stays_flat(255_u8);
        flat_stays_flat(1023_u16);
        flat_stays_flat(513_u16);
    }

    #[test]
    fn ten_bits_never_become_more() {
        // A step from 0 to the top: lanczos overshoots on both sides of it.
        let size = Size::new(32, 1);
        let step: Vec<u16> = (0..32).map(|x| if x < 16 { 0 } else { 1023 }).collect();
        let into = scaled(Filter::Lanczos, &step, size, Size::new(77, 3));
        assert!(into.iter().all(|sample| *sample <= 1023));
        assert!(into.contains(&1023) && into.contains(&0));
    }

    #[test]
    fn halving_by_bilinear_is_a_weighted_mean() {
        let from: Vec<u8> = vec![0, 0, 80, 80, 0, 0, 0, 0];
        let into = scaled(Filter::Bilinear, &from, Size::new(8, 1), Size::new(4, 1));
        // Weights 1 3 3 1 over 8 around each pair; the edge has no left neighbour: 3 3 1 over 7.
        assert_eq!(into, [11, 60, 10, 0]);
    }
}

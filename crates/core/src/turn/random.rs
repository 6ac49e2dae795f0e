//! Jitter: a small seeded generator, splitmix64, so that the same events give the same actions.
//!
//! Never for secrets. Constants: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.

/// A splitmix64 generator.
#[derive(Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    /// A generator for this seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A random span between half of `span` and all of it: retries spread out, and none comes at once.
    pub(crate) fn jitter(&mut self, span: u64) -> u64 {
        let half = span / 2;
        half + self.next() % (span - half + 1)
    }
}

/// `first` doubled `times` times, but at most `most`.
pub(crate) fn doubled(first: u64, times: u32, most: u64) -> u64 {
    let factor = 1_u64.checked_shl(times.min(32)).unwrap_or(u64::MAX);
    first.saturating_mul(factor).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_between_half_and_all() {
        let mut rng = Rng::new(7);
        for span in [0, 1, 2, 3, 100, 1 << 40] {
            for _ in 0..100 {
                let drawn = rng.jitter(span);
                assert!((span / 2..=span).contains(&drawn), "span={span} drawn={drawn}");
            }
        }
    }

    #[test]
    fn doubling_stops_at_the_most() {
        assert_eq!(doubled(100, 0, 30_000), 100);
        assert_eq!(doubled(100, 3, 30_000), 800);
        assert_eq!(doubled(100, u32::MAX, 30_000), 30_000);
    }
}

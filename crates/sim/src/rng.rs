//! The one source of chance: a small seeded generator.
//!
//! Splitmix64 (Steele, Lea and Flood, 2014): one word of state, good enough for choosing faults, and the same
//! on every machine. It must never be seeded from anything but the seed of the run. The whole world draws
//! from one generator, so that the order of draws is part of the trace.

/// A seeded generator.
#[derive(Clone, Debug)]
pub struct SimRng(u64);

impl SimRng {
    /// One that always gives the same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x5851_f42d_4c95_7f2d)
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 if `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.draw() % end }
    }

    /// A number from `from` to `to`, both included.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// A place in a list of this length.
    pub fn place(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// True so many times in a thousand.
    pub fn chance(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.below(1000) < u64::from(per_mille)
    }

    /// One of a list that is not empty.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.place(list.len())]
    }

    /// A span whose order of size is random too: from 0 to `longest`, short ones as likely as long ones.
    pub fn span(&mut self, longest: u64) -> u64 {
        let bits = u64::from(64 - longest.leading_zeros());
        let cut = self.between(0, bits);
        let mask = if cut >= 64 { u64::MAX } else { (1 << cut) - 1 };
        (self.draw() & mask).min(longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let mut first = SimRng::new(7);
        let mut second = SimRng::new(7);
        assert!((0..100).all(|_| first.draw() == second.draw()));
        assert_ne!(SimRng::new(7).draw(), SimRng::new(8).draw());
    }

    #[test]
    fn draws_keep_their_bounds() {
        let mut rng = SimRng::new(1);
        for _ in 0..1000 {
            assert!(rng.below(3) < 3);
            assert!((5..=9).contains(&rng.between(5, 9)));
            assert!(rng.span(1000) <= 1000);
        }
        assert_eq!(rng.below(0), 0);
        assert!(!rng.chance(0) && rng.chance(1000));
    }
}

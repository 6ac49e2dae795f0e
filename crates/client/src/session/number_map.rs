//! Maps whose keys are numbers by which a session knows its jobs: tokens, tags and numbers of jobs.
//!
//! They come from this process and from the daemon that it chose, so no stranger can make them collide: a multiplication does, in
//! place of the keyed hash of the standard library. Used by `session/outbox.rs`.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map whose keys are one number.
pub(super) type NumberMap<K, V> = HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// 2^64 divided by the golden ratio, odd: neighbours go far apart.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        // A map takes the lowest bits, and those of a product depend on the lowest bits of the number alone: both halves are mixed.
        let product = u128::from(self.0 ^ number) * u128::from(FACTOR);
        self.0 = product as u64 ^ (product >> 64) as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::BuildHasher;

    use super::*;

    /// Tokens that callers choose: counted up, in steps, and with a number of the thread above.
    #[test]
    fn numbers_in_a_row_in_steps_and_of_threads_fall_into_different_buckets() {
        let hash = |number: u64| BuildHasherDefault::<NumberHasher>::default().hash_one(number);
        for step in [1, 2, 64, 4096, 1 << 20, 1 << 32, 1 << 40] {
            let buckets: HashSet<u64> = (0..1024_u64).map(|at| hash(at * step) % 1024).collect();
            assert!(buckets.len() > 500, "{} buckets of 1024 for steps of {step}", buckets.len());
        }
    }
}

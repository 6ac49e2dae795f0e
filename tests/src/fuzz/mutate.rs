//! A small mutator: it makes an input that is similar to another one. The same seed gives the same inputs.
//!
//! It has no coverage and no memory: it stands in for libFuzzer in the ordinary tests, which only go a little beyond
//! the seeds. Driven by `tests/tests/fuzz.rs`.

/// Numbers at which code often changes its behaviour.
const EDGES: [u64; 12] = [0, 1, 7, 8, 127, 128, 251, 253, 255, 65_535, u32::MAX as u64, u64::MAX];
/// No input grows beyond this.
const LONGEST_BYTES: usize = 8192;

/// A source of mutations.
#[derive(Clone, Debug)]
pub struct Mutator(u64);

impl Mutator {
    /// Starts from a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// xorshift64* (Vigna, 2016).
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 11) as usize % bound
    }

    /// Changes `input` in one to four places; `other` is another input to take from.
    pub fn mutate(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..=self.below(4) {
            let at = self.below(input.len() + 1);
            match self.below(7) {
                0 => self.flip(input),
                1 => {
                    let byte = self.next() as u8;
                    input.insert(at, byte);
                }
                2 => {
                    let end = input.len().min(at + 1 + self.below(16));
                    drop(input.drain(at..end));
                }
                3 => self.overwrite(input, at),
                4 => {
                    let end = input.len().min(at + self.below(64));
                    let piece = input[at..end].to_vec();
                    input.extend_from_slice(&piece);
                }
                5 => {
                    let from = self.below(other.len() + 1);
                    input.truncate(at);
                    input.extend_from_slice(&other[from..]);
                }
                _ => input.extend_from_slice(&EDGES[self.below(EDGES.len())].to_le_bytes()[..4]),
            }
        }
        input.truncate(LONGEST_BYTES);
    }

    fn flip(&mut self, input: &mut [u8]) {
        if !input.is_empty() {
            let at = self.below(input.len());
            input[at] ^= 1 << self.below(8);
        }
    }

    fn overwrite(&mut self, input: &mut [u8], at: usize) {
        let edge = EDGES[self.below(EDGES.len())].to_le_bytes();
        let width = 1 << self.below(4);
        for (byte, edge) in input[at..].iter_mut().zip(&edge[..width]) {
            *byte = *edge;
        }
    }
}

//! Which numbers are reserved for this run, beside those of jobs, for which the core asks itself: when half of a block is left, the next
//! one is reserved.
//!
//! Nothing waits for it. If the disk fails for so long that a block is used up, numbers go on without a reservation, because workers and
//! their outputs are needed now; a log line says that a later run may repeat them. Driven by `journal.rs`.

use bulkhead_journal::bounds::BLOCK;
use bulkhead_journal::numbers::{NUMBER_KINDS, NextNumbers, NumberKind};

/// The blocks of this run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NumberBlocks {
    /// Of each kind the first number that is not reserved.
    reserved: NextNumbers,
    /// The same once what was asked for is reserved.
    asked: NextNumbers,
}

impl NumberBlocks {
    /// A block of each kind, from these numbers on.
    pub(crate) fn new(first: NextNumbers) -> Self {
        let reserved = first.with_a_run();
        Self { reserved, asked: reserved }
    }

    /// Asks for numbers of each kind of which half a block is left.
    pub(crate) fn look(&mut self, next: &NextNumbers, mut ask: impl FnMut(NumberKind, u64)) {
        for kind in NUMBER_KINDS {
            let asked = self.asked.of(kind);
            let is_ours = !matches!(kind, NumberKind::Job | NumberKind::Epoch);
            if is_ours && next.of(kind) + BLOCK / 2 > asked {
                self.asked.set(kind, asked + BLOCK);
                ask(kind, asked + BLOCK);
                if next.of(kind) > self.reserved.of(kind) {
                    log::error!(
                        "numbers are given out that the journal could not reserve: a later run may repeat them kind={}",
                        kind.name()
                    );
                }
            }
        }
    }

    /// Numbers of a kind are reserved below this one.
    pub(crate) fn reserved(&mut self, kind: NumberKind, next: u64) {
        self.reserved.set(kind, next.max(self.reserved.of(kind)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is asked for when this number of a worker comes next.
    fn asked(blocks: &mut NumberBlocks, worker: u64) -> Vec<(NumberKind, u64)> {
        let mut next = NextNumbers::default();
        next.set(NumberKind::Worker, worker);
        next.set(NumberKind::Job, 10 * BLOCK);
        let mut asked = Vec::new();
        blocks.look(&next, |kind, up_to| asked.push((kind, up_to)));
        asked
    }

    #[test]
    fn the_next_block_is_asked_for_once_when_half_of_one_is_left() {
        let mut blocks = NumberBlocks::new(NextNumbers::default());
        assert_eq!(asked(&mut blocks, BLOCK / 2), []);
        assert_eq!(asked(&mut blocks, BLOCK / 2 + 2), [(NumberKind::Worker, 2 * BLOCK + 1)]);
        assert_eq!(asked(&mut blocks, BLOCK), [], "it is on its way");
        blocks.reserved(NumberKind::Worker, 2 * BLOCK + 1);
        assert_eq!(asked(&mut blocks, BLOCK + BLOCK / 2), []);
        assert_eq!(asked(&mut blocks, BLOCK + BLOCK / 2 + 2), [(NumberKind::Worker, 3 * BLOCK + 1)]);
    }
}

//! Which numbered ends the caller has got, and up to which number it said that they are where it wants them.
//!
//! Pure. A receipt is cumulative and an ordered run returns ends in another order than they arrived, so the receipt goes
//! up to the last number before which no end is missing. An end that is never returned, such as one that arrived out of
//! turn before its run was given up, stays kept by the daemon, and so do the later ones of the connection. Driven by
//! `client.rs`, which sends the receipt.

use std::collections::BTreeSet;

/// The numbered ends of one connection.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    /// Returned to the caller since its last report.
    returned: Vec<u64>,
    /// Reported, while one with a lower number was not.
    beyond: BTreeSet<u64>,
    /// All up to this number were reported.
    through: u64,
    /// The last receipt that was made.
    sent: u64,
}

impl Receipts {
    /// The caller gets the end with this number.
    pub(crate) fn returned(&mut self, number: u64) {
        self.returned.push(number);
    }

    /// The caller has every end that it got where it wants it.
    pub(crate) fn report(&mut self) {
        for number in self.returned.drain(..) {
            if number == self.through + 1 {
                self.through = number;
            } else if number > self.through {
                self.beyond.insert(number);
            }
        }
        while self.beyond.remove(&(self.through + 1)) {
            self.through += 1;
        }
    }

    /// The receipt to send, if there is a new one; it counts as sent.
    pub(crate) fn take(&mut self) -> Option<u64> {
        let is_new = self.through > self.sent;
        self.sent = self.through;
        is_new.then_some(self.through)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_goes_up_to_the_first_end_that_is_missing() {
        let mut receipts = Receipts::default();
        for (number, through) in [(2, None), (1, Some(2)), (5, None), (4, None), (3, Some(5))] {
            receipts.returned(number);
            assert_eq!(receipts.take(), None, "{number} is not reported");
            receipts.report();
            assert_eq!(receipts.take(), through, "{number}");
            assert_eq!(receipts.take(), None, "once");
        }
        assert!(receipts.beyond.is_empty());
    }
}

//! The core's list of one worker's ring: its offers that are not settled, in the order of their seq.
//!
//! The claim words stand in shared pages that the shell reads. With this list every answer is matched to its offer, and
//! every death to its tasks. A seq is never reused, and is less than [`RING`] ahead of the oldest offer that is not
//! settled.

use std::collections::VecDeque;

use bulkhead_proto::ids::Seq;
use bulkhead_proto::limits::RING;

use crate::worker::NewOffer;
use crate::worker::offer::{Offer, Recall};
use crate::worker::prefetch::{AHEAD_NS, PAIR_NS};

/// The offers of one worker.
#[derive(Debug)]
pub(crate) struct OfferRing<T> {
    offers: VecDeque<Offer<T>>,
    next: Seq,
    ahead_ns: u64,
    /// How many offers are of another user than the offer before them.
    changes: usize,
    /// Since when the first of them is the first.
    head_ns: u64,
}

impl<T: Copy> OfferRing<T> {
    /// An empty ring.
    pub(super) fn new() -> Self {
        Self { offers: VecDeque::new(), next: Seq(1), ahead_ns: 0, changes: 0, head_ns: 0 }
    }

    /// The number of offers.
    pub(crate) fn len(&self) -> usize {
        self.offers.len()
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.offers.is_empty()
    }

    /// The first of them.
    pub(crate) fn head(&self) -> Option<&Offer<T>> {
        self.offers.front()
    }

    /// Since when the first of them is the first, nanoseconds on the clock of the turns.
    pub(crate) fn head_ns(&self) -> u64 {
        self.head_ns
    }

    /// All offers, in order.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Offer<T>> {
        self.offers.iter()
    }

    /// Whether one more offer of this cost has room: in the ring, and in the millisecond of work ahead or as the second of
    /// a pair.
    pub(crate) fn has_room(&self, cost_ns: u64) -> bool {
        let Some(head) = self.head() else { return true };
        let is_pair = self.offers.len() == 1 && head.cost_ns.max(cost_ns) < PAIR_NS;
        let has_time = is_pair || self.ahead_ns.saturating_add(cost_ns) <= AHEAD_NS;
        has_time && self.has_entry()
    }

    /// Whether the first offer has taken longer than all work ahead may, and longer than twice its estimate: nothing is to
    /// wait behind it.
    pub(crate) fn is_overdue(&self, now_ns: u64) -> bool {
        let expected_ns = self.head().map(|head| head.cost_ns).filter(|cost_ns| *cost_ns < PAIR_NS);
        now_ns.saturating_sub(self.head_ns)
            > expected_ns.map_or(AHEAD_NS, |cost_ns| AHEAD_NS.max(2 * cost_ns))
    }

    /// Whether it has offers of several users.
    pub(crate) fn is_mixed(&self) -> bool {
        self.changes > 0
    }

    /// Whether all its offers, if it has any, are of this user.
    pub(crate) fn is_all_of(&self, uid: u32) -> bool {
        !self.is_mixed() && self.head().is_none_or(|head| head.uid() == uid)
    }

    /// Whether even the cheapest task has no room.
    pub(crate) fn is_full(&self) -> bool {
        !self.has_room(0)
    }

    /// The seq that the next offer gets.
    pub(crate) fn next_seq(&self) -> Seq {
        self.next
    }

    /// The number of offers that were settled.
    pub(super) fn settled(&self) -> u64 {
        self.next.0 - 1 - self.offers.len() as u64
    }

    /// Adds an offer; gives whether it is the first.
    ///
    /// # Panics
    /// If the ring has no room, or the offer no task.
    pub(super) fn push(&mut self, offer: NewOffer<T>, now_ns: u64) -> bool {
        assert!(self.has_entry() && offer.count > 0, "an offer has an entry of the ring, and a task");
        let is_first = self.offers.is_empty();
        if is_first {
            self.head_ns = now_ns;
        }
        self.ahead_ns += offer.cost_ns;
        self.changes += usize::from(self.offers.back().is_some_and(|last| last.uid() != offer.uid));
        self.offers.push_back(Offer::new(self.next, offer));
        self.next.0 += 1;
        is_first
    }

    /// Whether an entry of the ring is free for one more.
    fn has_entry(&self) -> bool {
        self.head().is_none_or(|head| self.next.0 - head.seq.0 < RING as u64)
    }

    /// One offer.
    pub(crate) fn get(&self, seq: Seq) -> Option<&Offer<T>> {
        self.offers.get(self.position(seq)?)
    }

    /// Removes an offer that is settled now. `None` if it was settled before, or never made.
    ///
    /// # Panics
    /// If the work ahead does not add up.
    pub(super) fn remove(&mut self, seq: Seq, now_ns: u64) -> Option<Offer<T>> {
        let at = self.position(seq)?;
        let offer = self.offers.remove(at)?;
        if self.changes > 0 {
            let user = |at: Option<usize>| at.and_then(|at| self.offers.get(at)).map(Offer::uid);
            let (before, own, behind) = (user(at.checked_sub(1)), Some(offer.uid()), user(Some(at)));
            let differ = |one: Option<u32>, next: Option<u32>| {
                usize::from(one.is_some() && next.is_some() && one != next)
            };
            self.changes = self.changes + differ(before, behind) - differ(before, own) - differ(own, behind);
        }
        let left_ns =
            self.ahead_ns.checked_sub(offer.cost_ns).filter(|left_ns| *left_ns == 0 || !self.is_empty());
        self.ahead_ns = left_ns.expect("the work ahead is that of the offers in the ring");
        if at == 0 {
            self.head_ns = now_ns;
        }
        Some(offer)
    }

    /// The worker has begun this offer, or ended it already.
    pub(super) fn claim(&mut self, seq: Seq) -> Option<Offer<T>> {
        let at = self.position(seq)?;
        let offer = self.offers.get_mut(at)?;
        offer.claimed = true;
        Some(*offer)
    }

    /// Gives an offer another ticket.
    pub(super) fn change_ticket(&mut self, seq: Seq, ticket: T) {
        if let Some(offer) = self.position(seq).and_then(|at| self.offers.get_mut(at)) {
            offer.ticket = ticket;
        }
    }

    /// Marks this offer as recalled, if it may not have begun.
    pub(super) fn recall(&mut self, seq: Seq) -> Option<Recall> {
        let at = self.position(seq)?;
        let offer = self.offers.get_mut(at)?;
        if offer.claimed {
            return Some(Recall::Claimed);
        }
        Some(if std::mem::replace(&mut offer.recalled, true) { Recall::Before } else { Recall::Now })
    }

    /// Whether this offer is not settled.
    pub(crate) fn holds(&self, seq: Seq) -> bool {
        self.position(seq).is_some()
    }

    fn position(&self, seq: Seq) -> Option<usize> {
        // Nearly always the first one ends.
        if self.offers.front().is_some_and(|head| head.seq == seq) {
            return Some(0);
        }
        self.offers.binary_search_by_key(&seq, |offer| offer.seq).ok()
    }

    /// Offers behind the first that no take-back was asked for.
    pub(super) fn spare_offers(&self) -> usize {
        self.offers.iter().skip(1).filter(|offer| !offer.recalled).count()
    }

    /// Marks up to `count` of these as recalled, the last first, and gives their seqs.
    pub(super) fn recall_tail(&mut self, count: usize) -> Vec<Seq> {
        let behind = self.offers.iter_mut().skip(1).rev().filter(|offer| !offer.recalled);
        behind.take(count).map(Offer::recall).collect()
    }

    /// Marks the offers of a user behind the first offer as recalled, and gives their seqs. None if the first is the user's.
    pub(super) fn recall_of(&mut self, uid: u32) -> Vec<Seq> {
        if !self.is_mixed() || self.head().is_some_and(|head| head.uid() == uid) {
            return Vec::new();
        }
        let own =
            self.offers.iter_mut().filter(|offer| offer.uid() == uid && !offer.recalled && !offer.claimed);
        own.map(Offer::recall).collect()
    }

    /// Marks all offers that are not known to have begun as recalled, and gives their seqs.
    pub(super) fn recall_all(&mut self) -> Vec<Seq> {
        self.offers.iter_mut().filter(|offer| !offer.recalled && !offer.claimed).map(Offer::recall).collect()
    }

    /// Checks the invariants of a ring.
    ///
    /// # Panics
    /// If one is broken.
    pub(super) fn audit(&self) {
        let ordered =
            self.offers.iter().zip(self.offers.iter().skip(1)).all(|(one, next)| one.seq < next.seq);
        assert!(ordered, "offers stand in the order of their seqs");
        assert_eq!(self.ahead_ns, self.offers.iter().map(|offer| offer.cost_ns).sum::<u64>());
        let pairs = self.offers.iter().zip(self.offers.iter().skip(1));
        let changes = pairs.filter(|(one, next)| one.uid() != next.uid()).count();
        assert_eq!(self.changes, changes, "changes of users in a ring are counted");
        if let Some(head) = self.head() {
            assert!(self.next.0 - head.seq.0 <= RING as u64, "no entry of the ring is used twice");
        }
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_proto::ids::{Fence, JobId};

    use super::*;

    fn push(ring: &mut OfferRing<()>, cost_ns: u64) {
        let (number, fence) = (JobId(ring.next_seq().0), Fence(1));
        let offer = NewOffer {
            ticket: (),
            number,
            count: 1,
            shown: number,
            uid: 7,
            fence,
            cost_ns,
            timeout_ms: None,
            grace_ms: 0,
        };
        ring.push(offer, 5);
    }

    fn ring(count: u64) -> OfferRing<()> {
        let mut ring = OfferRing::new();
        (0..count).for_each(|_| push(&mut ring, 10));
        ring
    }

    #[test]
    fn the_ring_has_no_room_while_its_oldest_entry_is_used() {
        let mut ring = ring(RING as u64);
        assert!(ring.is_full());
        ring.remove(Seq(7), 6);
        assert!(ring.is_full(), "a gap in the middle is no room");
        ring.remove(Seq(1), 6);
        assert!(!ring.is_full());
        ring.audit();
    }

    #[test]
    fn a_longer_task_has_room_behind_one_and_waits_for_twice_its_time() {
        let mut ring = OfferRing::new();
        push(&mut ring, 2_000_000);
        assert!(ring.has_room(2_000_000) && !ring.has_room(PAIR_NS));
        assert!(!ring.is_overdue(4_000_005) && ring.is_overdue(4_000_006));
        push(&mut ring, 2_000_000);
        assert!(ring.is_full(), "one waits, and no second one");
        let mut alone = OfferRing::new();
        push(&mut alone, PAIR_NS);
        assert!(!alone.has_room(1000) && alone.is_overdue(AHEAD_NS + 6));
    }

    #[test]
    fn recalls_spare_the_head_and_come_once() {
        let mut ring = ring(4);
        assert_eq!(ring.recall_tail(2), [Seq(4), Seq(3)]);
        assert_eq!(ring.spare_offers(), 1);
        assert_eq!(ring.recall_tail(9), [Seq(2)]);
        assert!(ring.recall_tail(9).is_empty());
        assert_eq!(ring.recall_all(), [Seq(1)]);
    }

    #[test]
    fn a_settled_seq_is_settled_once() {
        let mut ring = ring(3);
        assert!(ring.remove(Seq(2), 9).is_some());
        assert!(ring.remove(Seq(2), 9).is_none());
        assert_eq!(ring.head_ns(), 5, "the head is still the first");
        ring.remove(Seq(1), 11);
        assert_eq!((ring.head_ns(), ring.head().map(|head| head.seq)), (11, Some(Seq(3))));
        assert!(!ring.holds(Seq(99)));
    }

    #[test]
    #[should_panic(expected = "the work ahead is that of the offers in the ring")]
    fn work_ahead_that_does_not_add_up_is_noticed() {
        let mut ring = ring(1);
        ring.ahead_ns += 1;
        ring.remove(Seq(1), 6);
    }
}

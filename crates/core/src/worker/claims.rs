//! What the core knows of one worker's ring: its offers in the order of their seq.
//!
//! The words themselves stand in shared pages that the shell reads; here is who was offered what, so that every
//! answer can be matched and every death accounted for. A seq is never reused, and never more than a ring's
//! length ahead of the oldest that is not settled.

use std::collections::VecDeque;

use bulkhead_proto::ids::{Fence, JobId, Seq};
use bulkhead_proto::limits::RING;

use crate::worker::prefetch::{AHEAD_NS, PAIR_NS};

/// A task that was handed to a worker and is not settled. `T` is what the machine wants back with it: nothing here looks
/// into that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer<T> {
    pub(crate) seq: Seq,
    pub(crate) ticket: T,
    /// The number of the task: of the job, or of the part.
    pub(crate) number: JobId,
    /// How many tasks, whose numbers follow each other.
    pub(crate) count: u32,
    /// The job, as clients know it.
    pub(crate) shown: JobId,
    pub(crate) fence: Fence,
    /// What it adds to the work ahead, in nanoseconds.
    pub(crate) cost_ns: u64,
    /// Its limit of wall time, in milliseconds.
    pub(crate) timeout_ms: Option<u64>,
    /// A take-back was asked for.
    pub(crate) recalled: bool,
    /// A take-back was lost, so the worker has begun or ended it.
    pub(crate) claimed: bool,
    /// How long its task may take to end by itself once nobody wants it, in milliseconds.
    pub(crate) grace_ms: u32,
}

/// The offers of one worker.
#[derive(Debug)]
pub(crate) struct Claims<T> {
    offers: VecDeque<Offer<T>>,
    next: Seq,
    ahead_ns: u64,
    /// Since when the first of them is the first.
    head_ns: u64,
}

impl<T: Copy> Claims<T> {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self { offers: VecDeque::new(), next: Seq(1), ahead_ns: 0, head_ns: 0 }
    }

    /// Offers that are not settled.
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

    /// Since when the first of them is the first, CLOCK_MONOTONIC nanoseconds.
    pub(crate) fn head_ns(&self) -> u64 {
        self.head_ns
    }

    /// All of them, in order.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Offer<T>> {
        self.offers.iter()
    }

    /// Whether one more of this cost has room: in the ring, and in the millisecond of work ahead or as the second of a
    /// pair.
    pub(crate) fn has_room(&self, cost_ns: u64) -> bool {
        let Some(head) = self.head() else { return true };
        let is_pair = self.offers.len() == 1 && head.cost_ns.max(cost_ns) < PAIR_NS;
        let has_time = is_pair || self.ahead_ns.saturating_add(cost_ns) <= AHEAD_NS;
        has_time && self.next.0 - head.seq.0 < RING as u64
    }

    /// Whether the first of them takes longer than the work ahead was meant to, or twice what it was expected to:
    /// nothing is to wait behind it.
    pub(crate) fn is_overdue(&self, now_ns: u64) -> bool {
        let expected_ns = self.head().map(|head| head.cost_ns).filter(|cost_ns| *cost_ns < PAIR_NS);
        now_ns.saturating_sub(self.head_ns)
            > expected_ns.map_or(AHEAD_NS, |cost_ns| AHEAD_NS.max(2 * cost_ns))
    }

    /// Whether even the cheapest task has no room.
    pub(crate) fn is_full(&self) -> bool {
        !self.has_room(0)
    }

    /// The seq that the next offer gets.
    pub(crate) fn next_seq(&self) -> Seq {
        self.next
    }

    /// Adds an offer.
    ///
    /// # Panics
    /// If it does not have the next seq.
    pub(crate) fn push(&mut self, offer: Offer<T>, now_ns: u64) {
        assert_eq!(offer.seq, self.next, "offers are numbered in their order");
        self.next.0 += 1;
        if self.offers.is_empty() {
            self.head_ns = now_ns;
        }
        self.ahead_ns += offer.cost_ns;
        self.offers.push_back(offer);
    }

    /// One of them, to be looked at.
    pub(crate) fn get(&self, seq: Seq) -> Option<&Offer<T>> {
        self.offers.get(self.position(seq)?)
    }

    /// Removes an offer that is settled now. `None` if it was settled before, or never made.
    pub(crate) fn remove(&mut self, seq: Seq, now_ns: u64) -> Option<Offer<T>> {
        let at = self.position(seq)?;
        let offer = self.offers.remove(at)?;
        self.ahead_ns -= offer.cost_ns;
        if at == 0 {
            self.head_ns = now_ns;
        }
        Some(offer)
    }

    /// One of them.
    pub(crate) fn get_mut(&mut self, seq: Seq) -> Option<&mut Offer<T>> {
        let at = self.position(seq)?;
        self.offers.get_mut(at)
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
    pub(crate) fn spare_offers(&self) -> usize {
        self.offers.iter().skip(1).filter(|offer| !offer.recalled).count()
    }

    /// Marks up to `count` of them as recalled, from the last, and gives their seqs.
    pub(crate) fn recall_tail(&mut self, count: usize) -> Vec<Seq> {
        let behind = self.offers.iter_mut().skip(1).rev().filter(|offer| !offer.recalled);
        behind.take(count).map(Offer::recall).collect()
    }

    /// Marks all that may not have begun as recalled, and gives their seqs.
    pub(crate) fn recall_all(&mut self) -> Vec<Seq> {
        self.offers.iter_mut().filter(|offer| !offer.recalled && !offer.claimed).map(Offer::recall).collect()
    }

    /// Everything that is left, when the worker is dead.
    pub(crate) fn into_offers(self) -> VecDeque<Offer<T>> {
        self.offers
    }

    /// Checks what must always hold.
    pub(crate) fn audit(&self) {
        let ordered =
            self.offers.iter().zip(self.offers.iter().skip(1)).all(|(one, next)| one.seq < next.seq);
        assert!(ordered, "offers stand in the order of their seqs");
        assert_eq!(self.ahead_ns, self.offers.iter().map(|offer| offer.cost_ns).sum::<u64>());
        if let Some(head) = self.head() {
            assert!(self.next.0 - head.seq.0 <= RING as u64, "no entry of the ring is used twice");
        }
    }
}

impl<T> Offer<T> {
    fn recall(&mut self) -> Seq {
        self.recalled = true;
        self.seq
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(claims: &mut Claims<()>, cost_ns: u64) {
        let seq = claims.next_seq();
        let (number, fence) = (JobId(seq.0), Fence(1));
        let offer = Offer {
            seq,
            ticket: (),
            number,
            count: 1,
            shown: number,
            fence,
            cost_ns,
            timeout_ms: None,
            recalled: false,
            claimed: false,
            grace_ms: 0,
        };
        claims.push(offer, 5);
    }

    fn claims(count: u64) -> Claims<()> {
        let mut claims = Claims::new();
        (0..count).for_each(|_| push(&mut claims, 10));
        claims
    }

    #[test]
    fn the_ring_has_no_room_while_its_oldest_entry_is_used() {
        let mut claims = claims(RING as u64);
        assert!(claims.is_full());
        claims.remove(Seq(7), 6);
        assert!(claims.is_full(), "a gap in the middle is no room");
        claims.remove(Seq(1), 6);
        assert!(!claims.is_full());
        claims.audit();
    }

    #[test]
    fn a_longer_task_has_room_behind_one_and_waits_for_twice_its_time() {
        let mut claims = Claims::new();
        push(&mut claims, 2_000_000);
        assert!(claims.has_room(2_000_000) && !claims.has_room(PAIR_NS));
        assert!(!claims.is_overdue(4_000_005) && claims.is_overdue(4_000_006));
        push(&mut claims, 2_000_000);
        assert!(claims.is_full(), "one waits, and no second one");
        let mut alone = Claims::new();
        push(&mut alone, PAIR_NS);
        assert!(!alone.has_room(1000) && alone.is_overdue(AHEAD_NS + 6));
    }

    #[test]
    fn recalls_spare_the_head_and_come_once() {
        let mut claims = claims(4);
        assert_eq!(claims.recall_tail(2), [Seq(4), Seq(3)]);
        assert_eq!(claims.spare_offers(), 1);
        assert_eq!(claims.recall_tail(9), [Seq(2)]);
        assert!(claims.recall_tail(9).is_empty());
        assert_eq!(claims.recall_all(), [Seq(1)]);
    }

    #[test]
    fn a_settled_seq_is_settled_once() {
        let mut claims = claims(3);
        assert!(claims.remove(Seq(2), 9).is_some());
        assert!(claims.remove(Seq(2), 9).is_none());
        assert_eq!(claims.head_ns(), 5, "the head is still the first");
        claims.remove(Seq(1), 11);
        assert_eq!((claims.head_ns(), claims.head().map(|head| head.seq)), (11, Some(Seq(3))));
        assert!(!claims.holds(Seq(99)));
    }
}

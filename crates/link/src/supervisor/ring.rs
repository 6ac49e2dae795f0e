//! The ring of one worker's offers: its box and its orders, as the supervisor sees them.
//!
//! The claim word of an entry decides; who may take which step stands in ARCHITECTURE.md. Words are loaded
//! with Acquire, so that a result seen DONE is whole, and stored with Release, so that an order is there
//! before its offer. Every entry remembers the last state seen: a step back is a protocol violation.
//!
//! # No doorbell is lost
//!
//! Supervisor, before it sleeps: NAP := a new odd value; fence; read the boxes once more. Worker, after each
//! task: word := DONE; fence; load NAP, and ring if it is odd and was not rung for yet. Both fences are
//! SeqCst, so one of them comes first. If the worker's does, the supervisor sees DONE in its last look and
//! does not sleep on it. If the supervisor's does, the worker sees the odd value: it rings, or has rung for
//! this very nap already, and that doorbell wakes the supervisor, which reads all boxes before its next
//! sleep. Waking makes NAP even, which only spares doorbells: every sleep begins with a new odd value.

use std::fmt;
use std::io;
use std::num::NonZeroU8;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{Ordering, fence};

use bulkhead_proto::client::evidence::{Evidence, Progress};
use bulkhead_proto::death::{Death, Lie};
use bulkhead_proto::ids::{Fence, JobId, Seq};
use bulkhead_proto::job::Payload;
use bulkhead_proto::limits::RING;
use bulkhead_proto::worker::boxes::{
    self, BOX_BYTES, ClaimState, ClaimWord, LAST_BREATH_AT, NAP_AT, ORDER_FENCE_AT, ORDER_JOB_AT,
    ORDER_SEQ_AT, ORDERS_BYTES, PROGRESS_NS_AT, UNWANTED_AT, WORD_AT,
};
use bulkhead_sys::shared_page::SharedPage;

mod death_cause;
mod evidence;
mod result;

/// A task that its worker has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedTask {
    /// Which offer.
    pub seq: Seq,
    /// How long it took, as the worker says.
    pub elapsed_ns: u64,
    /// How it ended.
    pub result: FinishedResult,
}

/// What a task that failed had written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailureOutput {
    /// Nothing, or nothing that is kept.
    Nothing,
    /// These bytes.
    Inline(Payload),
    /// Its descriptor has so many bytes, it says.
    Descriptor {
        /// So many.
        bytes: u64,
    },
}

/// How a task ended, as its worker says; of good form, but no more than that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FinishedResult {
    /// Done, with these bytes.
    Inline(Payload),
    /// Done, with its output in its descriptor.
    Descriptor {
        /// So many bytes, it says.
        bytes: u64,
    },
    /// Its own code said no.
    Failed {
        /// What it wrote before.
        output: FailureOutput,
        /// What it said.
        message: String,
        /// The exit code of the program that it was.
        code: Option<NonZeroU8>,
    },
}

/// What the worker gets of a ring, with its setup. To be closed once it is sent.
#[derive(Debug)]
pub struct RingDescriptors {
    /// The box: the worker writes.
    pub box_page: OwnedFd,
    /// The orders: nobody but the supervisor's own mapping can write.
    pub orders_page: OwnedFd,
}

/// What we know of an entry: the last offer that used it, and the last state seen.
#[derive(Clone, Copy, Debug)]
struct RingEntry {
    seq: Seq,
    state: ClaimState,
}

/// The offers of one worker. Offers must come with growing seqs.
pub struct Ring {
    box_page: SharedPage,
    orders: SharedPage,
    entries: Vec<RingEntry>,
    /// No offer before this one is outstanding.
    first: u64,
    /// No offer from this one on was made.
    next: u64,
    outstanding: usize,
    nap: u64,
    /// The first rule that the worker broke: from then on no result is taken, whatever it puts right.
    violation: Option<Lie>,
}

impl fmt::Debug for Ring {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Ring")
            .field("outstanding", &self.outstanding)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl Ring {
    /// Makes the two pages of a worker.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM: something is short; try again later. EINVAL: a kernel before 5.1.
    pub fn create() -> io::Result<(Self, RingDescriptors)> {
        let (box_page, box_descriptor) = SharedPage::create("bulkhead-box", BOX_BYTES)?;
        let (orders, orders_descriptor) = SharedPage::create("bulkhead-orders", ORDERS_BYTES)?;
        SharedPage::seal_future_writes(orders_descriptor.as_fd())?;
        let free = RingEntry { seq: Seq(0), state: ClaimState::Settled };
        let ring = Self {
            box_page,
            orders,
            entries: vec![free; RING],
            first: 1,
            next: 1,
            outstanding: 0,
            nap: 0,
            violation: None,
        };
        Ok((ring, RingDescriptors { box_page: box_descriptor, orders_page: orders_descriptor }))
    }

    /// SETTLED -> OFFERED: the orders, then the word.
    ///
    /// # Panics
    /// If the seq does not grow, or its entry is not settled: the core's mistake.
    pub fn offer(&mut self, seq: Seq, job: JobId, fence: Fence) {
        let index = boxes::index_of(seq);
        let entry = self.entries[index];
        assert!(seq.0 >= self.next, "offer with an old seq: seq={seq} next={}", self.next);
        assert!(entry.state == ClaimState::Settled, "entry in use: seq={seq} held by {entry:?}");
        let at = boxes::order_at(index);
        self.orders.store(at + ORDER_SEQ_AT, seq.0, Ordering::Relaxed);
        self.orders.store(at + ORDER_JOB_AT, job.0, Ordering::Relaxed);
        self.orders.store(at + ORDER_FENCE_AT, u64::from(fence.0), Ordering::Relaxed);
        self.box_page.store(word_at(seq), ClaimWord::pack(seq, ClaimState::Offered), Ordering::Release);
        self.entries[index] = RingEntry { seq, state: ClaimState::Offered };
        self.next = seq.0 + 1;
        self.outstanding += 1;
    }

    /// OFFERED -> TAKEN. `true`: won back, the worker will not run it. `false`: the worker has claimed or done
    /// it, and only its result or a proven death ends it.
    ///
    /// # Errors
    /// A claim word that no rule allows; the offer stays outstanding.
    pub fn take_back(&mut self, seq: Seq) -> Result<bool, Lie> {
        if !self.is_outstanding(seq) {
            return Ok(false);
        }
        if self.entry(seq).state == ClaimState::Offered && self.try_take(seq) {
            return Ok(true);
        }
        // Lost, or known to be claimed: what stands there must be a state beyond OFFERED.
        match self.observe(seq)? {
            ClaimState::Claimed | ClaimState::Done => Ok(false),
            _ => Err(self.record_violation(seq, Lie::ClaimWord)),
        }
    }

    fn try_take(&mut self, seq: Seq) -> bool {
        let (offered, taken) =
            (ClaimWord::pack(seq, ClaimState::Offered), ClaimWord::pack(seq, ClaimState::Taken));
        let won = self.box_page.compare_exchange(word_at(seq), offered, taken).is_ok();
        if won {
            self.end(seq, ClaimState::Taken);
        }
        won
    }

    /// DONE or TAKEN -> SETTLED: the entry may be used again.
    ///
    /// # Panics
    /// If the offer is still outstanding: the core's mistake.
    pub fn settle(&mut self, seq: Seq) {
        assert!(!self.is_outstanding(seq), "settled before its end: seq={seq}");
        let index = boxes::index_of(seq);
        if self.entries[index].seq == seq {
            self.entries[index].state = ClaimState::Settled;
            self.box_page.store(word_at(seq), ClaimWord::pack(seq, ClaimState::Settled), Ordering::Release);
        }
    }

    /// Says whether the supervisor sleeps: `true` right before its last look at the boxes, `false` on waking.
    /// Each `true` asks for one doorbell anew.
    pub fn nap(&mut self, asleep: bool) {
        self.nap = match (self.nap % 2 == 1, asleep) {
            (odd, true) => self.nap + if odd { 2 } else { 1 },
            (true, false) => self.nap + 1,
            (false, false) => return,
        };
        self.orders.store(NAP_AT, self.nap, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Tells the worker that nobody wants this offer any more, which it has begun. It may end it early, and may not have
    /// seen it when it ends; nothing else follows from it.
    pub fn request_cancel(&mut self, seq: Seq) {
        self.orders.store(UNWANTED_AT, seq.0, Ordering::Release);
    }

    /// Whether there are offers that were neither reported, nor taken back.
    pub fn has_outstanding(&self) -> bool {
        self.outstanding > 0
    }

    /// Appends every offer that is newly DONE, in the order of seq, up to the first that is not. One load when
    /// nothing has moved and the worker has claimed nothing, two when it has.
    ///
    /// # Errors
    /// The rule that the worker broke, now or before; what was appended before is good. The entry in question and
    /// those after it stay outstanding, and it counts as claimed, whatever it may hold later.
    pub fn poll(&mut self, into: &mut Vec<FinishedTask>) -> Result<(), Lie> {
        self.violation.map_or(Ok(()), Err)?;
        while let Some(seq) = self.first_outstanding() {
            match self.observe(seq)? {
                ClaimState::Done => {
                    let found = result::copy(&self.box_page, seq);
                    into.push(found.map_err(|violation| self.record_violation(seq, violation))?);
                    self.end(seq, ClaimState::Done);
                }
                ClaimState::Claimed if self.is_overtaken(seq) => {
                    // An honest worker has stored DONE before it goes on to the next.
                    if self.observe(seq)? != ClaimState::Done {
                        return Err(self.record_violation(seq, Lie::ClaimWord));
                    }
                }
                _ => break,
            }
        }
        Ok(())
    }

    /// The first offer that is not done, and whether the worker has claimed it.
    pub fn head(&self) -> Option<(Seq, bool)> {
        let seq = (self.first..self.next).map(Seq).find(|&seq| self.is_outstanding(seq))?;
        let offered = ClaimWord::pack(seq, ClaimState::Offered);
        Some((seq, self.box_page.load(word_at(seq), Ordering::Acquire) != offered))
    }

    /// What a dead worker left: each outstanding offer in the order of seq, and whether it counts as claimed.
    /// Those that do not are taken back. Call it after the proof of death and a last [`Self::poll`].
    pub fn remains(&mut self) -> Vec<(Seq, bool)> {
        let mut left = Vec::with_capacity(self.outstanding);
        while let Some(seq) = self.first_outstanding() {
            let taken = self.entry(seq).state == ClaimState::Offered && self.try_take(seq);
            if !taken {
                self.end(seq, ClaimState::Done);
            }
            left.push((seq, !taken));
        }
        left
    }

    /// The moment at which the worker knew that it was about to die, as it says: CLOCK_MONOTONIC nanoseconds.
    pub fn last_breath_ns(&self) -> Option<u64> {
        match self.box_page.load(LAST_BREATH_AT, Ordering::Acquire) {
            0 => None,
            moment => Some(moment),
        }
    }

    /// Names a death by `signal`, which the kernel told of process `pid`, with what the box says of it. Call it
    /// once, after the proof.
    pub fn death_by(&self, signal: i32, core: bool, pid: u32) -> Death {
        death_cause::name(&self.box_page, signal, core, pid)
    }

    /// What the box of a dead worker says beside how it died. `signal`: the one that ended it, as the kernel says; the
    /// frames are believed to be of no other.
    pub fn evidence(&self, signal: Option<i32>) -> Evidence {
        evidence::read(&self.box_page, signal)
    }

    /// When the running task last made progress, as it says: CLOCK_MONOTONIC nanoseconds, but never after `now_ns`.
    pub fn progress_ns(&self, now_ns: u64) -> Option<u64> {
        match self.box_page.load(PROGRESS_NS_AT, Ordering::Acquire) {
            0 => None,
            moment => Some(moment.min(now_ns)),
        }
    }

    /// How far the task says it is that the worker has claimed; `None` if it has claimed none, or has not said. What an
    /// earlier task said was cleared before the claim.
    pub fn progress(&self) -> Option<Progress> {
        let (_, claimed) = self.head()?;
        if claimed { evidence::progress(&self.box_page) } else { None }
    }

    /// Loads the word of an outstanding offer and checks its step against the last state seen.
    fn observe(&mut self, seq: Seq) -> Result<ClaimState, Lie> {
        use ClaimState::{Claimed, Done, Offered};
        let word = ClaimWord::unpack(self.box_page.load(word_at(seq), Ordering::Acquire));
        let entry = &mut self.entries[boxes::index_of(seq)];
        let seen = word.filter(|word| word.seq == seq).map(|word| word.state);
        match (entry.state, seen) {
            (Offered, Some(Offered)) => Ok(Offered),
            (Offered | Claimed, Some(Done)) => Ok(Done),
            (Offered | Claimed, Some(Claimed)) => {
                entry.state = Claimed;
                Ok(Claimed)
            }
            _ => Err(self.record_violation(seq, Lie::ClaimWord)),
        }
    }

    /// The worker broke a rule with this entry, which counts as claimed from now on.
    fn record_violation(&mut self, seq: Seq, violation: Lie) -> Lie {
        self.entries[boxes::index_of(seq)].state = ClaimState::Claimed;
        *self.violation.get_or_insert(violation)
    }

    /// Whether the offer after this claimed one is claimed or done as well.
    fn is_overtaken(&self, seq: Seq) -> bool {
        let after = (seq.0 + 1..self.next).map(Seq).find(|&later| self.is_outstanding(later));
        after.is_some_and(|later| {
            let word = self.box_page.load(word_at(later), Ordering::Acquire);
            word == ClaimWord::pack(later, ClaimState::Claimed)
                || word == ClaimWord::pack(later, ClaimState::Done)
        })
    }

    fn entry(&self, seq: Seq) -> RingEntry {
        self.entries[boxes::index_of(seq)]
    }

    fn is_outstanding(&self, seq: Seq) -> bool {
        let entry = self.entry(seq);
        entry.seq == seq && matches!(entry.state, ClaimState::Offered | ClaimState::Claimed)
    }

    fn first_outstanding(&mut self) -> Option<Seq> {
        while self.first < self.next && !self.is_outstanding(Seq(self.first)) {
            self.first += 1;
        }
        (self.first < self.next).then_some(Seq(self.first))
    }

    /// An offer that was outstanding is not any more. The entry is not free before it is settled.
    fn end(&mut self, seq: Seq, state: ClaimState) {
        self.entries[boxes::index_of(seq)].state = state;
        self.outstanding -= 1;
    }
}

fn word_at(seq: Seq) -> usize {
    boxes::entry_at(boxes::index_of(seq)) + WORD_AT
}

#[cfg(test)]
mod races;
#[cfg(test)]
mod tests;

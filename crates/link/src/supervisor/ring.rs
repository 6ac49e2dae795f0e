//! The ring of one worker's offers, from the supervisor's side: its box and its orders.
//!
//! The claim word of an entry decides who has a task, see [`Ring`]. Words are loaded with Acquire, so that a result
//! seen as DONE is complete, and stored with Release, so that the orders are visible before their offer. The ring
//! keeps the last state seen of each entry, because a step back is a protocol violation. Driven by the supervisor's
//! `worker_table.rs` and `perform.rs`; the worker's side is `worker/ring.rs`, the layout
//! `proto/src/worker/boxes.rs`.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use bulkhead_proto::client::evidence::{Evidence, TaskProgress};
use bulkhead_proto::death::{Death, ProgramEnd, Violation};
use bulkhead_proto::ids::{Fence, JobId, Seq};
use bulkhead_proto::job::Payload;
use bulkhead_proto::limits::RING;
use bulkhead_proto::worker::boxes::{
    self, BOX_BYTES, ClaimState, ClaimWord, LAST_BREATH_AT, NAP_AT, ORDER_FENCE_AT, ORDER_JOB_AT,
    ORDER_SEQ_AT, ORDERS_BYTES, PROGRESS_NS_AT, STACK_ASKED_AT, UNWANTED_AT, WORD_AT,
};
use bulkhead_sys::shared_page::SharedPage;

use crate::words::Words;

mod death_cause;
mod evidence;
mod program_stop;
mod result;

pub use program_stop::ProgramChange;

/// A task that its worker has finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedTask {
    /// Which offer.
    pub seq: Seq,
    /// Its duration, as the worker reports it.
    pub elapsed_ns: u64,
    /// Its result.
    pub result: FinishedResult,
}

/// The output that a failed task had written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailureOutput {
    /// None, or none that is kept.
    Nothing,
    /// These bytes.
    Inline(Payload),
    /// These bytes are in the output file, as the worker reports.
    Descriptor {
        /// Their number.
        bytes: u64,
    },
}

/// The result of a task, as its worker reports it. Its form was checked, nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FinishedResult {
    /// Done, with these bytes.
    Inline(Payload),
    /// Done, with its output in the output file.
    Descriptor {
        /// Its size, as the worker reports it.
        bytes: u64,
    },
    /// Done, with its output in a block of the worker's arena. That there may be such a block was checked.
    Block {
        /// Where it begins.
        offset: u64,
        /// Its size.
        bytes: u64,
    },
    /// The task's own code failed.
    Failed {
        /// The output before the failure.
        output: FailureOutput,
        /// The message.
        message: String,
        /// How the program ended, if the task was one.
        program: Option<ProgramEnd>,
    },
}

/// The descriptors that the worker gets with its setup. To be closed once they are sent.
#[derive(Debug)]
pub struct RingDescriptors {
    /// The box, which the worker writes.
    pub box_page: OwnedFd,
    /// The orders, which only the supervisor's own mapping can write.
    pub orders_page: OwnedFd,
}

/// The last offer that used an entry, and the last state seen.
#[derive(Clone, Copy, Debug)]
struct RingEntry {
    seq: Seq,
    state: ClaimState,
}

/// The offers of one worker. Each offer needs a larger seq than the one before.
///
/// The box holds a ring of entries, each with a 64-bit claim word `seq << 3 | state`; entry = `seq mod ring`, and
/// `seq` counts the offers to this worker. The orders are sealed against any other writer (F_SEAL_FUTURE_WRITE)
/// before the worker gets them.
///
/// | from | to | by | how |
/// |---|---|---|---|
/// | settled | offered | supervisor | stores the orders, then the word (Release), sends the files (lane), then the task (ipc-channel) |
/// | offered | claimed | worker | compare-and-swap right before the task's first instruction, with no other claim; if it fails, the task is dropped unrun |
/// | offered | taken | supervisor | compare-and-swap; won: the task goes back to the queue uncharged; lost: only its result or a proven death ends it |
/// | claimed | done | worker | stores the result (entry, area or output file), then the word (Release) |
/// | done, taken | settled | supervisor | after the result was applied; then the entry may be used again |
///
/// Anything else (another seq, a second claim, a step back, a result of unknown form) is a protocol violation, and
/// the worker is killed. After the proof of death, in the order of seq: a done result is taken, an offered task is
/// taken back, the first claimed one is charged, further claimed ones go back uncharged; if none was claimed, no job
/// is charged. `P` is what its pages are made of: shared memory, and in a test the model of one.
pub struct Ring<P = SharedPage> {
    box_page: P,
    orders: P,
    entries: Vec<RingEntry>,
    /// All offers before this one have ended.
    first: u64,
    /// The lowest seq that was not offered yet.
    next: u64,
    outstanding: usize,
    nap: u64,
    /// The offer whose program is stopped, and the word of the box that says so, as last returned by
    /// [`Self::program_change`].
    stopped: Option<(Seq, u64)>,
    /// The first rule that the worker broke. After that no result is taken, whatever the box holds later.
    violation: Option<Violation>,
}

impl<P> fmt::Debug for Ring<P> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Ring")
            .field("outstanding", &self.outstanding)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl Ring {
    /// Creates the two pages of a worker.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM: retry later. EINVAL: a kernel before 5.1.
    pub fn create() -> io::Result<(Self, RingDescriptors)> {
        let (box_page, box_descriptor) = SharedPage::create("bulkhead-box", BOX_BYTES)?;
        let (orders, orders_descriptor) = SharedPage::create("bulkhead-orders", ORDERS_BYTES)?;
        SharedPage::seal_future_writes(orders_descriptor.as_fd())?;
        let descriptors = RingDescriptors { box_page: box_descriptor, orders_page: orders_descriptor };
        Ok((Self::over(box_page, orders), descriptors))
    }

    /// When the worker recorded its coming death, as it says: CLOCK_MONOTONIC nanoseconds.
    pub fn last_breath_ns(&self) -> Option<u64> {
        match self.box_page.load(LAST_BREATH_AT, Ordering::Acquire) {
            0 => None,
            moment => Some(moment),
        }
    }

    /// Names the death of process `pid` by `signal`, as the wait status says, with the crash record in the box. To be
    /// called once, after the proof.
    pub fn death_by(&self, signal: i32, core: bool, pid: u32) -> Death {
        death_cause::name(&self.box_page, signal, core, pid)
    }

    /// The evidence in the box of a dead worker. `signal` is the one that ended it, as the wait status says; frames
    /// of another one are ignored.
    pub fn evidence(&self, signal: Option<i32>) -> Evidence {
        evidence::read(&self.box_page, signal)
    }

    /// The processes of its last task that the worker could not end, as it says.
    pub fn survivors(&self) -> Vec<u32> {
        evidence::survivors(&self.box_page)
    }

    /// How many files of clients the worker has to close, as it says.
    pub fn unclosed(&self) -> u64 {
        self.box_page.load(boxes::UNCLOSED_AT, Ordering::Relaxed)
    }

    /// When the running task last reported progress: CLOCK_MONOTONIC nanoseconds, never after `now_ns`.
    pub fn progress_ns(&self, now_ns: u64) -> Option<u64> {
        match self.box_page.load(PROGRESS_NS_AT, Ordering::Acquire) {
            0 => None,
            moment => Some(moment.min(now_ns)),
        }
    }

    /// The progress of the claimed task, as it reports it; `None` if no task is claimed or it has not reported any.
    /// Progress of an earlier task was cleared before the claim.
    pub fn progress(&self) -> Option<TaskProgress> {
        let (_, claimed) = self.head()?;
        if claimed { evidence::progress(&self.box_page) } else { None }
    }
}

impl<P: Words> Ring<P> {
    /// A ring without offers over two zeroed pages.
    pub(crate) fn over(box_page: P, orders: P) -> Self {
        let free = RingEntry { seq: Seq(0), state: ClaimState::Settled };
        Self {
            box_page,
            orders,
            entries: vec![free; RING],
            first: 1,
            next: 1,
            outstanding: 0,
            nap: 0,
            stopped: None,
            violation: None,
        }
    }

    /// SETTLED -> OFFERED: stores the orders, then the word.
    ///
    /// # Panics
    /// If the seq does not grow, or its entry is not settled: a fault of the core.
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

    /// OFFERED -> TAKEN. `true`: the supervisor has the task back, the worker will not run it. `false`: the worker
    /// has claimed or finished it, and only its result or a proven death ends it.
    ///
    /// # Errors
    /// A claim word that no rule allows; the offer stays outstanding.
    pub fn take_back(&mut self, seq: Seq) -> Result<bool, Violation> {
        if !self.is_outstanding(seq) {
            return Ok(false);
        }
        if self.entry(seq).state == ClaimState::Offered && self.try_take(seq) {
            return Ok(true);
        }
        // Lost, or known to be claimed: the word must show a state beyond OFFERED.
        match self.observe(seq)? {
            ClaimState::Claimed | ClaimState::Done => Ok(false),
            ClaimState::Settled | ClaimState::Offered | ClaimState::Taken => {
                Err(self.record_violation(seq, Violation::ClaimWord))
            }
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

    /// DONE or TAKEN -> SETTLED: the entry can be used again.
    ///
    /// # Panics
    /// If the offer has not ended: a fault of the core.
    pub fn settle(&mut self, seq: Seq) {
        assert!(!self.is_outstanding(seq), "settled before its end: seq={seq}");
        let index = boxes::index_of(seq);
        if self.entries[index].seq == seq {
            self.entries[index].state = ClaimState::Settled;
            self.box_page.store(word_at(seq), ClaimWord::pack(seq, ClaimState::Settled), Ordering::Release);
        }
    }

    /// Announces the supervisor's sleep: `true` right before its last look at the boxes, `false` after it woke. Each
    /// `true` asks for one doorbell.
    ///
    /// No doorbell is lost. Before it sleeps, the supervisor stores a new odd value in NAP, fences, and reads the
    /// boxes once more. After each task the worker stores DONE, fences, loads NAP, and rings if it is odd and was not
    /// rung for yet. Both fences are SeqCst, so one of them comes first. If the worker's does, the supervisor's last
    /// look sees DONE, and it does not sleep. If the supervisor's does, the worker sees the odd value: it rings, or
    /// has rung for this nap already, and that doorbell wakes the supervisor, which reads all boxes before its next
    /// sleep. Waking makes NAP even, which only saves doorbells: each sleep begins with a new odd value. So a busy
    /// supervisor gets no doorbells, and a sleeping one at most one from each worker per nap; more of them are a
    /// violation.
    pub fn nap(&mut self, asleep: bool) {
        self.nap = match (self.nap % 2 == 1, asleep) {
            (odd, true) => self.nap + if odd { 2 } else { 1 },
            (true, false) => self.nap + 1,
            (false, false) => return,
        };
        self.orders.store(NAP_AT, self.nap, Ordering::SeqCst);
        P::fence();
    }

    /// Asks the worker to end this offer, which it has claimed, by storing its seq in the orders.
    /// `Task::is_cancelled` compares that with the claimed seq, so a request that comes too late concerns no task.
    /// Nothing else depends on it.
    pub fn request_cancel(&mut self, seq: Seq) {
        self.orders.store(UNWANTED_AT, seq.0, Ordering::Release);
    }

    /// Whether the worker has claimed this very offer, and not ended it.
    pub fn is_claimed(&self, seq: Seq) -> bool {
        let claimed = ClaimWord::pack(seq, ClaimState::Claimed);
        self.is_outstanding(seq) && self.box_page.load(word_at(seq), Ordering::Acquire) == claimed
    }

    /// Asks the worker for the stack of this offer, which it has claimed, by storing its seq in the orders; the signal
    /// follows. A request that comes too late concerns no task, as with [`Self::request_cancel`].
    pub fn request_stack(&mut self, seq: Seq) {
        self.orders.store(STACK_ASKED_AT, seq.0, Ordering::Release);
    }

    /// Whether there are offers that have neither a result nor were taken back.
    pub fn has_outstanding(&self) -> bool {
        self.outstanding > 0
    }

    /// Appends each offer that is newly DONE, in the order of seq, up to the first that is not. Costs one load if
    /// nothing has changed and the worker has claimed nothing, two if it has.
    ///
    /// # Errors
    /// The rule that the worker broke, now or before; the results appended before are valid. The entry in question
    /// and those after it have no result, and it counts as claimed, whatever it holds later.
    pub fn poll(&mut self, into: &mut Vec<FinishedTask>) -> Result<(), Violation> {
        self.violation.map_or(Ok(()), Err)?;
        while let Some(seq) = self.first_outstanding() {
            match self.observe(seq)? {
                ClaimState::Done => {
                    let found = result::copy(&self.box_page, seq);
                    into.push(found.map_err(|violation| self.record_violation(seq, violation))?);
                    self.end(seq, ClaimState::Done);
                }
                ClaimState::Claimed if self.is_overtaken(seq) => {
                    // An honest worker stores DONE before it claims the next one.
                    if self.observe(seq)? != ClaimState::Done {
                        return Err(self.record_violation(seq, Violation::ClaimWord));
                    }
                }
                ClaimState::Settled | ClaimState::Offered | ClaimState::Claimed | ClaimState::Taken => break,
            }
        }
        Ok(())
    }

    /// The first offer without a result, and whether the worker has claimed it.
    pub fn head(&self) -> Option<(Seq, bool)> {
        let seq = (self.first..self.next).map(Seq).find(|&seq| self.is_outstanding(seq))?;
        let offered = ClaimWord::pack(seq, ClaimState::Offered);
        Some((seq, self.box_page.load(word_at(seq), Ordering::Acquire) != offered))
    }

    /// The open offers of a dead worker in the order of seq, and whether each counts as claimed. The others are taken
    /// back. To be called after the proof of death and a last [`Self::poll`].
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

    /// Whether the worker has claimed an open offer, or its word for one is no proof that it has not.
    pub fn has_claimed(&self) -> bool {
        (self.first..self.next).map(Seq).filter(|&seq| self.is_outstanding(seq)).any(|seq| {
            let offered = ClaimWord::pack(seq, ClaimState::Offered);
            self.box_page.load(word_at(seq), Ordering::Acquire) != offered
        })
    }

    /// Loads the word of an open offer and checks the step from the last state seen.
    fn observe(&mut self, seq: Seq) -> Result<ClaimState, Violation> {
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
            _ => Err(self.record_violation(seq, Violation::ClaimWord)),
        }
    }

    /// Records that the worker broke a rule with this entry, which counts as claimed from now on.
    fn record_violation(&mut self, seq: Seq, violation: Violation) -> Violation {
        self.entries[boxes::index_of(seq)].state = ClaimState::Claimed;
        *self.violation.get_or_insert(violation)
    }

    /// Whether the offer after this claimed one is claimed or done too.
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

    /// Marks an open offer as ended. Its entry is in use until it is settled.
    fn end(&mut self, seq: Seq, state: ClaimState) {
        self.entries[boxes::index_of(seq)].state = state;
        self.outstanding -= 1;
    }
}

fn word_at(seq: Seq) -> usize {
    boxes::entry_at(boxes::index_of(seq)) + WORD_AT
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod races;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod told_tests;

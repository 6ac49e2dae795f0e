//! The two shared pages of a fake worker, with the claim word exactly as the real ones have it.
//!
//! The pages are the ground truth: the oracles read them, and never ask the core which worker runs a task. Each step of
//! the worker and of the supervisor is one method, so that the world can put a move between any two steps.

#![deny(clippy::wildcard_enum_match_arm)]

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_proto::death::Violation;
use bulkhead_proto::ids::Seq;
use bulkhead_proto::job::Payload;
use bulkhead_proto::limits::RING;
use bulkhead_proto::worker::boxes::{ClaimState, ClaimWord, ReportStatus, index_of};

use crate::task::TaskId;

/// The result that a worker wrote into an entry before it stored DONE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FakeResult {
    /// A packed [`ReportStatus`], or nonsense.
    pub status: u64,
    /// The result or the failure's text.
    pub bytes: Vec<u8>,
    /// Bytes in the output descriptor.
    pub output_bytes: u64,
    /// The parts of the plan in the output descriptor.
    pub parts: u32,
    /// How long the task took, on the worker's word.
    pub elapsed_ns: u64,
    /// The task has left a process that cannot be ended.
    pub has_left: bool,
}

impl FakeResult {
    /// An inline result.
    pub fn inline(bytes: Vec<u8>, elapsed_ns: u64) -> Self {
        Self {
            status: ReportStatus::Inline.pack(),
            bytes,
            output_bytes: 0,
            parts: 0,
            elapsed_ns,
            has_left: false,
        }
    }

    /// A result in the output descriptor.
    pub fn descriptor(output_bytes: u64, elapsed_ns: u64) -> Self {
        Self {
            status: ReportStatus::Descriptor.pack(),
            bytes: Vec::new(),
            output_bytes,
            parts: 0,
            elapsed_ns,
            has_left: false,
        }
    }

    /// A result in the worker's arena.
    pub fn block(bytes: u64, elapsed_ns: u64) -> Self {
        Self { status: ReportStatus::Block.pack(), ..Self::descriptor(bytes, elapsed_ns) }
    }

    /// A failure that left so many bytes in the output descriptor.
    pub fn failed(text: &str, output_bytes: u64, elapsed_ns: u64) -> Self {
        Self {
            status: ReportStatus::Failed { program: None }.pack(),
            bytes: text.as_bytes().to_vec(),
            output_bytes,
            parts: 0,
            elapsed_ns,
            has_left: false,
        }
    }

    /// The inline result.
    pub fn payload(&self) -> Payload {
        Payload::from(self.bytes.clone())
    }
}

/// Box and orders of one worker.
#[derive(Debug)]
pub struct Pages {
    words: Vec<u64>,
    written: BTreeMap<usize, FakeResult>,
    orders: BTreeMap<usize, (Seq, TaskId)>,
    /// Entries with a claim that the claim word allows.
    claims: BTreeMap<usize, TaskId>,
    /// Entries over which the worker wrote nonsense.
    scribbled: BTreeSet<usize>,
}

/// The offers that may be charged with a death, by the truth of a box.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guilt {
    /// The first CLAIMED entry.
    pub first: Option<(Seq, TaskId)>,
    /// Entries that break a rule: each may count as CLAIMED, if the violation was seen.
    pub disputed: Vec<(Seq, TaskId)>,
}

impl Pages {
    /// New pages, all zero, as the supervisor makes them.
    pub fn new() -> Self {
        Self {
            words: vec![0; RING],
            written: BTreeMap::new(),
            orders: BTreeMap::new(),
            claims: BTreeMap::new(),
            scribbled: BTreeSet::new(),
        }
    }

    /// The claim word of the entry that a seq uses, as it stands.
    pub fn word(&self, seq: Seq) -> u64 {
        self.words[index_of(seq)]
    }

    /// Whether the entry says that this very offer is in this state.
    pub fn is(&self, seq: Seq, state: ClaimState) -> bool {
        self.word(seq) == ClaimWord::pack(seq, state)
    }

    /// The task of an offer, as the orders say.
    pub fn task(&self, seq: Seq) -> Option<TaskId> {
        self.orders.get(&index_of(seq)).filter(|order| order.0 == seq).map(|order| order.1)
    }

    /// Offers that stand OFFERED, as a worker that reads its orders can see them.
    pub fn offered(&self) -> Vec<Seq> {
        let seqs = self.orders.values().map(|order| order.0);
        seqs.filter(|seq| self.is(*seq, ClaimState::Offered)).collect()
    }

    /// Rule 1, supervisor: the orders, then the word.
    pub fn offer(&mut self, seq: Seq, job: TaskId) {
        self.orders.insert(index_of(seq), (seq, job));
        self.store(seq, ClaimWord::pack(seq, ClaimState::Offered));
    }

    /// Rule 2, worker: the compare-and-swap of a claim.
    pub fn claim(&mut self, seq: Seq) -> bool {
        let won = self.swap(seq, ClaimState::Offered, ClaimState::Claimed);
        if let Some(job) = self.task(seq).filter(|_| won) {
            self.claims.insert(index_of(seq), job);
        }
        won
    }

    /// Rule 3, supervisor.
    ///
    /// # Errors
    /// A word that no rule allows.
    pub fn take_back(&mut self, seq: Seq) -> Result<bool, Violation> {
        if self.swap(seq, ClaimState::Offered, ClaimState::Taken) {
            return Ok(true);
        }
        match ClaimWord::unpack(self.word(seq)) {
            Some(word) if word.seq == seq && word.state != ClaimState::Settled => Ok(false),
            _ => Err(Violation::ClaimWord),
        }
    }

    /// Rule 4, worker, first half: the result.
    pub fn write(&mut self, seq: Seq, written: FakeResult) {
        self.written.insert(index_of(seq), written);
    }

    /// Rule 4, worker, second half: the word.
    pub fn done(&mut self, seq: Seq) {
        self.store(seq, ClaimWord::pack(seq, ClaimState::Done));
    }

    /// The result in an entry.
    pub fn written(&self, seq: Seq) -> Option<&FakeResult> {
        self.written.get(&index_of(seq))
    }

    /// Rule 5, supervisor: the entry is free.
    pub fn settle(&mut self, seq: Seq) {
        self.store(seq, ClaimWord::pack(seq, ClaimState::Settled));
        self.written.remove(&index_of(seq));
        self.orders.remove(&index_of(seq));
        self.scribbled.remove(&index_of(seq));
    }

    /// Rule 6: a worker may write any word into its box.
    pub fn scribble(&mut self, seq: Seq, word: u64) {
        self.store(seq, word);
        self.scribbled.insert(index_of(seq));
    }

    /// A nonsense result breaks the protocol as a nonsense word does.
    pub fn dispute(&mut self, seq: Seq) {
        self.scribbled.insert(index_of(seq));
    }

    /// Whether the worker runs this task by a claim that the claim word allows.
    pub fn runs(&self, job: TaskId) -> bool {
        self.claims.values().any(|claimed| *claimed == job)
    }

    /// The offers that may be charged if the worker dies now.
    pub fn guilt(&self) -> Guilt {
        let mut orders: Vec<_> = self.orders.iter().map(|(index, order)| (*order, *index)).collect();
        orders.sort_unstable();
        let mut guilt = Guilt::default();
        for ((seq, job), index) in orders {
            if self.scribbled.contains(&index) {
                guilt.disputed.push((seq, job));
            } else if guilt.first.is_none() && self.is(seq, ClaimState::Claimed) {
                guilt.first = Some((seq, job));
            }
        }
        guilt
    }

    fn store(&mut self, seq: Seq, word: u64) {
        self.words[index_of(seq)] = word;
        self.claims.remove(&index_of(seq));
    }

    fn swap(&mut self, seq: Seq, from: ClaimState, to: ClaimState) -> bool {
        let won = self.is(seq, from);
        if won {
            self.store(seq, ClaimWord::pack(seq, to));
        }
        won
    }
}

impl Default for Pages {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_proto::ids::JobId;

    use super::*;

    #[test]
    fn an_offer_is_won_once() {
        let mut pages = Pages::new();
        pages.offer(Seq(1), TaskId::own(JobId(7)));
        assert!(pages.claim(Seq(1)));
        assert!(!pages.claim(Seq(1)));
        assert_eq!(pages.take_back(Seq(1)), Ok(false));
        pages.offer(Seq(2), TaskId::own(JobId(8)));
        assert_eq!(pages.take_back(Seq(2)), Ok(true));
        assert!(!pages.claim(Seq(2)));
        assert_eq!(pages.task(Seq(2)), Some(TaskId::own(JobId(8))));
    }

    #[test]
    fn an_old_seq_names_nothing() {
        let mut pages = Pages::new();
        let late = Seq(1 + RING as u64);
        pages.offer(Seq(1), TaskId::own(JobId(1)));
        pages.settle(Seq(1));
        pages.offer(late, TaskId::own(JobId(2)));
        assert!(!pages.claim(Seq(1)));
        assert_eq!(pages.take_back(Seq(1)), Err(Violation::ClaimWord));
        assert_eq!(pages.task(Seq(1)), None);
        assert!(pages.claim(late));
    }
}

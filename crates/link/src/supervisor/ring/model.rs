//! The code of both rings in loom's model of memory: every order of their loads and stores that the memory model allows.
//!
//! A race on one machine shows what that machine does: on x86 no race can show that a fence is missing beside a SeqCst
//! store. Here each test fails for one such order. What is tested is the ring itself, generic over its words, so the
//! orderings stand in one place. A page has the words that the tests use and no others, because each costs time in every run.

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_proto::worker::boxes::{
    ENTRY_BYTES, LAST_WORDS_AT, ORDER_BYTES, PROGRAM_STOP_AT, PROGRESS_DONE_AT, PROGRESS_TOTAL_AT,
};
use bulkhead_sys::shared_page::EXCHANGE;
use loom::sync::atomic::{AtomicU64, fence};
use loom::thread;

use super::*;
use crate::worker::{Finish, WorkerRing};

/// Words of the box header that tasks without a program and without words of their own change.
const HEADER: [usize; 5] =
    [PROGRESS_NS_AT, PROGRESS_DONE_AT, PROGRESS_TOTAL_AT, LAST_WORDS_AT, PROGRAM_STOP_AT];

/// A zeroed page that both sides have.
#[derive(Clone)]
struct ModelPage(Arc<BTreeMap<usize, AtomicU64>>);

impl ModelPage {
    fn of(words: impl Iterator<Item = usize>) -> Self {
        Self(Arc::new(words.map(|at| (at, AtomicU64::new(0))).collect()))
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        self.0.get(&at).expect("the page has the words that a test uses")
    }
}

impl Words for ModelPage {
    fn load(&self, at: usize, order: Ordering) -> u64 {
        self.word(at).load(order)
    }

    fn store(&self, at: usize, value: u64, order: Ordering) {
        self.word(at).store(value, order);
    }

    fn compare_exchange(&self, at: usize, current: u64, new: u64) -> Result<u64, u64> {
        self.word(at).compare_exchange(current, new, EXCHANGE.0, EXCHANGE.1)
    }

    fn read_bytes(&self, at: usize, into: &mut [u8]) {
        for (index, chunk) in into.chunks_mut(8).enumerate() {
            let word = self.word(at + 8 * index).load(Ordering::Relaxed).to_ne_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }

    fn write_bytes(&self, at: usize, bytes: &[u8]) {
        for (index, chunk) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(at + 8 * index).store(u64::from_ne_bytes(word), Ordering::Relaxed);
        }
    }

    fn fence() {
        fence(Ordering::SeqCst);
    }
}

/// Both sides, the orders as the worker sees them, and this many offers.
fn rings(offers: u64) -> (Ring<ModelPage>, WorkerRing<ModelPage>, ModelPage) {
    let words_of = |start: usize, bytes: usize| (start..start + bytes).step_by(8);
    let entries = (1..=offers).map(|seq| boxes::index_of(Seq(seq)));
    let entry_words = entries.clone().flat_map(|index| words_of(boxes::entry_at(index), ENTRY_BYTES));
    let order_words = entries.flat_map(|index| words_of(boxes::order_at(index), ORDER_BYTES));
    let box_page = ModelPage::of(HEADER.into_iter().chain(entry_words));
    let orders = ModelPage::of([NAP_AT].into_iter().chain(order_words));
    let mut ring = Ring::over(box_page.clone(), orders.clone());
    (1..=offers).for_each(|seq| ring.offer(Seq(seq), JobId(seq), Fence(1)));
    (ring, WorkerRing::over(box_page, orders.clone()), orders)
}

fn finish(worker: &WorkerRing<ModelPage>, seq: u64) {
    worker.finish(Seq(seq), &Finish::Inline(&seq.to_le_bytes()));
}

/// The results that a look finds; each of them is whole.
fn look(ring: &mut Ring<ModelPage>) -> Vec<u64> {
    let mut found = Vec::new();
    ring.poll(&mut found).expect("an honest worker breaks no rule");
    let is_whole = |found: FinishedTask| {
        let whole = Payload::from(found.seq.0.to_le_bytes().to_vec());
        assert_eq!(found.result, FinishedResult::Inline(whole), "a result that is DONE is whole");
        found.seq.0
    };
    found.into_iter().map(is_whole).collect()
}

#[test]
fn no_order_of_stores_loses_the_doorbell_of_a_result() {
    loom::model(|| {
        let (mut ring, worker, _) = rings(1);
        assert!(worker.claim(Seq(1)));
        let theirs = thread::spawn(move || {
            finish(&worker, 1);
            worker.should_ring()
        });
        ring.nap(true);
        let seen = !look(&mut ring).is_empty();
        let rung = theirs.join().unwrap();
        assert!(seen || rung, "the supervisor sleeps on a result");
    });
}

#[test]
fn no_order_of_stores_loses_the_doorbell_of_a_stopped_program() {
    loom::model(|| {
        let (mut ring, worker, _) = rings(1);
        assert!(worker.claim(Seq(1)));
        let theirs = thread::spawn(move || {
            worker.set_program_stop(Some(boxes::ProgramStop { pid: 7, signal: 19 }));
            worker.should_ring()
        });
        ring.nap(true);
        let seen = ring.program_change().is_some();
        let rung = theirs.join().unwrap();
        assert!(seen || rung, "the supervisor sleeps on a stop");
    });
}

/// The second offer uses the entry of the first one again.
#[test]
fn no_order_of_stores_lets_a_claim_and_a_take_back_both_win() {
    loom::model(|| {
        let (mut ring, worker, orders) = rings(1);
        let again = 1 + RING as u64;
        let theirs = thread::spawn(move || {
            [1, again].map(|seq| {
                let won = worker.claim(Seq(seq));
                if won {
                    let job = boxes::order_at(boxes::index_of(Seq(seq))) + ORDER_JOB_AT;
                    assert_eq!(orders.load(job, Ordering::Relaxed), seq, "the orders of its offer");
                    finish(&worker, seq);
                }
                won
            })
        });
        let taken = ring.take_back(Seq(1)).expect("an honest worker breaks no rule");
        let ended = taken || look(&mut ring) == [1];
        if ended {
            ring.settle(Seq(1));
            ring.offer(Seq(again), JobId(again), Fence(1));
        }
        let claimed = theirs.join().unwrap();
        assert!(claimed[0] != taken, "exactly one of them wins");
        assert!(!claimed[1] || ended, "nothing is claimed that was not offered");
    });
}

#[test]
fn no_order_of_stores_makes_an_honest_worker_break_a_rule() {
    loom::model(|| {
        let (mut ring, worker, _) = rings(2);
        let theirs = thread::spawn(move || {
            assert!(worker.claim(Seq(1)));
            finish(&worker, 1);
            assert!(worker.claim(Seq(2)));
        });
        let seen = look(&mut ring);
        assert!(seen.is_empty() || seen == [1]);
        theirs.join().unwrap();
    });
}

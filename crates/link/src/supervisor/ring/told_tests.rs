//! Tests of what one half stores for the other beside results: orders, times, claims, last words, processes left behind.
//!
//! Each word is read at its own place, so that one that is stored elsewhere, or not at all, is noticed.

use bulkhead_proto::limits::SURVIVORS_TOLD;
use bulkhead_proto::worker::boxes::{
    CLAIMED_NS_AT, LAST_WORDS_AT, ORDERS_BYTES, SURVIVOR_COUNT_AT, unpack_words,
};
use bulkhead_sys::clock::monotonic_ns;

use super::tests::{offer, rings};
use super::*;
use crate::worker::{Finish, WorkerRing};

#[test]
fn an_offer_stores_its_orders_in_its_own_entry() {
    let (mut ring, descriptors) = Ring::create().unwrap();
    let orders = SharedPage::map_read_only(descriptors.orders_page.as_fd(), ORDERS_BYTES).unwrap();
    for seq in 1..=RING as u64 {
        ring.offer(Seq(seq), JobId(1000 + seq), Fence(7 + seq as u32));
    }
    for seq in 1..=RING as u64 {
        let at = boxes::order_at(boxes::index_of(Seq(seq)));
        let word = |offset: usize| orders.load(at + offset, Ordering::Relaxed);
        let stored = (word(ORDER_SEQ_AT), word(ORDER_JOB_AT), word(ORDER_FENCE_AT));
        assert_eq!(stored, (seq, 1000 + seq, 7 + seq));
    }
}

#[test]
fn the_moment_of_a_death_is_told_until_the_process_lives_on() {
    let (ring, worker, _) = rings();
    assert_eq!(ring.last_breath_ns(), None);
    let before_ns = monotonic_ns();
    worker.last_breath();
    assert!(ring.last_breath_ns().is_some_and(|at_ns| at_ns >= before_ns));
    worker.breathe_on();
    assert_eq!(ring.last_breath_ns(), None);
}

#[test]
fn processes_left_behind_are_told_and_no_more_than_there_is_room_for() {
    let (ring, worker, hostile) = rings();
    worker.leave_behind(&[]);
    assert!(!worker.has_left_processes() && ring.survivors().is_empty());
    worker.leave_behind(&[5, 7]);
    assert!(worker.has_left_processes());
    assert_eq!(ring.survivors(), [5, 7]);
    let many: Vec<u32> = (1..=SURVIVORS_TOLD as u32 + 3).collect();
    worker.leave_behind(&many);
    assert_eq!(ring.survivors(), many[..SURVIVORS_TOLD]);
    hostile.store(SURVIVOR_COUNT_AT, u64::MAX, Ordering::Release);
    assert_eq!(ring.survivors().len(), SURVIVORS_TOLD);
}

#[test]
fn the_moment_of_a_claim_is_in_its_own_entry_and_the_duration_counts_from_it() {
    let (mut ring, worker, hostile) = rings();
    offer(&mut ring, 1..=RING as u64);
    for seq in (1..=RING as u64).map(Seq) {
        let before_ns = monotonic_ns();
        assert!(worker.claim(seq));
        let claimed_ns = hostile.load(word_at(seq) + CLAIMED_NS_AT, Ordering::Acquire);
        assert!((before_ns..=monotonic_ns()).contains(&claimed_ns), "{seq}");
        while monotonic_ns() == claimed_ns {}
        let least_ns = monotonic_ns() - claimed_ns;
        worker.finish(seq, &Finish::Inline(&[]));
        let most_ns = monotonic_ns() - claimed_ns;
        let mut done = Vec::new();
        ring.poll(&mut done).unwrap();
        assert!((least_ns..=most_ns).contains(&done[0].elapsed_ns), "{seq}");
    }
}

#[test]
fn a_worker_has_claimed_something_from_a_claim_to_its_result() {
    let (mut ring, worker, hostile) = rings();
    assert!(!ring.has_claimed());
    offer(&mut ring, 1..=2);
    assert!(!ring.has_claimed());
    assert!(ring.take_back(Seq(1)).unwrap());
    assert!(worker.claim(Seq(2)));
    assert!(ring.has_claimed(), "it need not be the first that was offered");
    worker.finish(Seq(2), &Finish::Inline(&[]));
    ring.poll(&mut Vec::new()).unwrap();
    assert!(!ring.has_claimed());
    offer(&mut ring, 3..=3);
    hostile.store(word_at(Seq(3)), u64::MAX, Ordering::Release);
    assert!(ring.has_claimed(), "such a word is no proof that it has not");
}

#[test]
fn progress_is_that_of_a_claimed_task_which_has_reported_some() {
    let (mut ring, worker, _) = rings();
    assert_eq!(ring.progress(), None);
    offer(&mut ring, 1..=1);
    assert_eq!(ring.progress(), None);
    assert!(worker.claim(Seq(1)));
    assert_eq!(ring.progress(), None);
    worker.progress(1, 2);
    assert_eq!(ring.progress(), Some(TaskProgress { done: 1, total: 2 }));
}

#[test]
fn new_words_leave_the_bytes_of_the_ones_before_whole() {
    let (_ring, worker, hostile) = rings();
    let mut before: Option<(usize, &str)> = None;
    for words in ["first", "other", "third"] {
        worker.say(words);
        if let Some((at, earlier)) = before {
            let mut bytes = vec![0; earlier.len()];
            hostile.read_bytes(at, &mut bytes);
            assert_eq!(bytes, earlier.as_bytes(), "a death while {words:?} is written would leave neither");
        }
        let (_, at) = unpack_words(hostile.load(LAST_WORDS_AT, Ordering::Acquire)).unwrap();
        before = Some((at, words));
    }
}

#[test]
fn a_worker_without_its_two_pages_has_no_ring_and_no_crash_handler() {
    let invalid = io::ErrorKind::InvalidInput;
    assert_eq!(WorkerRing::map(&[]).unwrap_err().kind(), invalid);
    assert_eq!(WorkerRing::install_crash_handler(&[]).unwrap_err().kind(), invalid);
}

#[test]
#[should_panic(expected = "offer with an old seq")]
fn a_seq_is_offered_once() {
    let (mut ring, _worker, _) = rings();
    offer(&mut ring, 1..=1);
    assert!(ring.take_back(Seq(1)).unwrap());
    ring.settle(Seq(1));
    offer(&mut ring, 1..=1);
}

#[test]
#[should_panic(expected = "settled before its end")]
fn an_offer_that_has_not_ended_is_not_settled() {
    let (mut ring, _worker, _) = rings();
    offer(&mut ring, 1..=1);
    ring.settle(Seq(1));
}

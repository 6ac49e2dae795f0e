//! Tests of what one half stores for the other beside results: orders, the moment of a death, processes left behind.
//!
//! Each word is read at its own place, so that one that is stored elsewhere, or not at all, is noticed.

use bulkhead_proto::limits::SURVIVORS_TOLD;
use bulkhead_proto::worker::boxes::{ORDERS_BYTES, SURVIVOR_COUNT_AT};

use super::tests::rings;
use super::*;

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
    let before_ns = bulkhead_sys::clock::monotonic_ns();
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

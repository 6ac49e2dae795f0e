//! Tests of both halves of the ring, one step at a time: every result, every protocol violation.

use bulkhead_proto::limits::{
    ARENA_BYTES, BLOCK_MAX_BYTES, INLINE_MAX_BYTES, OUTPUT_MAX_BYTES, TEXT_MAX_BYTES,
};
use bulkhead_proto::worker::boxes::{LENGTH_AT, OUTPUT_BYTES_AT, ReportStatus, STATUS_AT};

use super::*;
use crate::worker::{Finish, PartialOutput, WorkerRing};

/// Both halves, and a mapping through which a hostile worker writes into the box.
pub(super) fn rings() -> (Ring, WorkerRing, SharedPage) {
    let (ring, descriptors) = Ring::create().unwrap();
    let hostile = SharedPage::map_shared(descriptors.box_page.as_fd(), BOX_BYTES).unwrap();
    (ring, WorkerRing::map(&[descriptors.box_page, descriptors.orders_page]).unwrap(), hostile)
}

pub(super) fn offer(ring: &mut Ring, seqs: std::ops::RangeInclusive<u64>) {
    seqs.for_each(|seq| ring.offer(Seq(seq), JobId(seq), Fence(1)));
}

fn polled(ring: &mut Ring) -> Result<Vec<(u64, FinishedResult)>, Violation> {
    let mut found = Vec::new();
    ring.poll(&mut found)?;
    Ok(found.into_iter().map(|found| (found.seq.0, found.result)).collect())
}

fn say(hostile: &SharedPage, entry: u64, seq: u64, state: ClaimState) {
    hostile.store(word_at(Seq(entry)), ClaimWord::pack(Seq(seq), state), Ordering::Release);
}

#[test]
fn results_of_every_form_and_length_arrive_in_order() {
    let (mut ring, worker, _) = rings();
    let mut expected = Vec::new();
    offer(&mut ring, 1..=8);
    for (seq, length) in (1..=6).zip([0, 1, 15, 16, 17, INLINE_MAX_BYTES]) {
        let bytes: Vec<u8> = (0..length).map(|at| (at * 7) as u8).collect();
        assert!(worker.claim(Seq(seq)));
        worker.finish(Seq(seq), &Finish::Inline(&bytes));
        expected.push((seq, FinishedResult::Inline(Payload::from(bytes))));
    }
    assert!(worker.claim(Seq(7)));
    worker.finish(Seq(7), &Finish::Descriptor { bytes: OUTPUT_MAX_BYTES });
    expected.push((7, FinishedResult::Descriptor { bytes: OUTPUT_MAX_BYTES }));
    assert!(worker.claim(Seq(8)));
    let program = Some(ProgramEnd::Signal { signal: 11, core: true });
    worker.finish(
        Seq(8),
        &Finish::Failed { text: &"ä".repeat(TEXT_MAX_BYTES), output: PartialOutput::Nothing, program },
    );
    expected.push((
        8,
        FinishedResult::Failed {
            message: "ä".repeat(TEXT_MAX_BYTES / 2),
            program,
            output: FailureOutput::Nothing,
        },
    ));
    assert_eq!(polled(&mut ring).unwrap(), expected);
    assert!(!ring.has_outstanding() && ring.head().is_none());
    assert!(!worker.should_ring());
}

#[test]
fn an_offer_is_claimed_from_its_claim_to_its_end_and_no_other_is() {
    let (mut ring, worker, hostile) = rings();
    offer(&mut ring, 1..=2);
    let claimed = |ring: &Ring| [0, 1, 2, 3, 1 + RING as u64].map(|seq| ring.is_claimed(Seq(seq)));
    assert_eq!(claimed(&ring), [false; 5]);
    assert!(worker.claim(Seq(1)));
    assert_eq!(claimed(&ring), [false, true, false, false, false]);
    worker.finish(Seq(1), &Finish::Inline(b"x"));
    assert_eq!(claimed(&ring), [false; 5]);
    polled(&mut ring).unwrap();
    say(&hostile, 1, 1, ClaimState::Claimed);
    assert!(!ring.is_claimed(Seq(1)), "it has ended, whatever its entry says");
    say(&hostile, 2, 3, ClaimState::Claimed);
    assert!(!ring.is_claimed(Seq(2)) && !ring.is_claimed(Seq(3)));
}

#[test]
fn what_a_failure_leaves_arrives_behind_its_text_or_by_descriptor() {
    let text = "x".repeat(1000);
    let room = INLINE_MAX_BYTES - text.len();
    for (seq, (length, text)) in
        (1..).zip([(0, "no"), (1, "no"), (5, ""), (14, "no"), (15, "no"), (room, &text)])
    {
        let (mut ring, worker, _) = rings();
        offer(&mut ring, seq..=seq);
        let bytes: Vec<u8> = (0..length).map(|at| (at * 7) as u8).collect();
        assert!(worker.claim(Seq(seq)) && PartialOutput::fits(text, length));
        worker
            .finish(Seq(seq), &Finish::Failed { text, output: PartialOutput::Inline(&bytes), program: None });
        let output =
            if length == 0 { FailureOutput::Nothing } else { FailureOutput::Inline(Payload::from(bytes)) };
        let failed = FinishedResult::Failed { message: text.to_owned(), program: None, output };
        assert_eq!(polled(&mut ring).unwrap(), [(seq, failed)]);
    }
    assert!(!PartialOutput::fits(&text, room + 1));
    for bytes in [room as u64 + 1, OUTPUT_MAX_BYTES] {
        let (mut ring, worker, _) = rings();
        offer(&mut ring, 1..=1);
        assert!(worker.claim(Seq(1)));
        worker.finish(
            Seq(1),
            &Finish::Failed { text: &text, output: PartialOutput::Descriptor { bytes }, program: None },
        );
        let output = FailureOutput::Descriptor { bytes };
        let failed = FinishedResult::Failed { message: text.clone(), program: None, output };
        assert_eq!(polled(&mut ring).unwrap(), [(1, failed)]);
    }
}

#[test]
fn the_head_and_what_a_death_leaves() {
    let (mut ring, worker, _) = rings();
    offer(&mut ring, 1..=4);
    assert!(ring.has_outstanding());
    assert_eq!(ring.head(), Some((Seq(1), false)));
    assert!(worker.claim(Seq(1)));
    assert_eq!(ring.head(), Some((Seq(1), true)));
    worker.finish(Seq(1), &Finish::Inline(&[]));
    assert!(ring.take_back(Seq(3)).unwrap());
    assert!(worker.claim(Seq(2)));
    assert!(!worker.claim(Seq(3)), "a task that was taken back was claimed");
    assert!(!ring.take_back(Seq(2)).unwrap() && !ring.take_back(Seq(1)).unwrap());
    assert_eq!(polled(&mut ring).unwrap().len(), 1);
    assert_eq!(ring.remains(), [(Seq(2), true), (Seq(4), false)]);
    assert!(!ring.has_outstanding());
    assert!(!worker.claim(Seq(4)), "an offer of a dead worker was claimed");
}

#[test]
fn entries_are_used_again_once_settled() {
    let (mut ring, worker, _) = rings();
    let rounds = 3 * RING as u64;
    for seq in 1..=rounds {
        ring.offer(Seq(seq), JobId(seq), Fence(1));
        if seq % 3 == 0 {
            assert!(ring.take_back(Seq(seq)).unwrap());
        } else {
            assert!(worker.claim(Seq(seq)));
            worker.finish(Seq(seq), &Finish::Inline(&seq.to_le_bytes()));
            let payload = FinishedResult::Inline(Payload::from(seq.to_le_bytes().to_vec()));
            assert_eq!(polled(&mut ring).unwrap(), [(seq, payload)]);
        }
        ring.settle(Seq(seq));
        assert!(!worker.claim(Seq(seq)), "a settled offer was claimed");
    }
}

#[test]
#[should_panic(expected = "entry in use")]
fn an_entry_that_is_not_settled_is_not_offered_again() {
    let (mut ring, _worker, _) = rings();
    offer(&mut ring, 1..=RING as u64 + 1);
}

#[test]
fn words_that_no_rule_allows_are_violations() {
    use ClaimState::{Claimed, Done, Offered, Settled, Taken};
    for (entry, seq, state) in
        [(1, 1, Taken), (1, 1, Settled), (1, 2, Claimed), (1, 257, Claimed), (1, 2, Done), (1, 0, Offered)]
    {
        let (mut ring, _worker, hostile) = rings();
        offer(&mut ring, 1..=2);
        say(&hostile, entry, seq, state);
        assert_eq!(polled(&mut ring), Err(Violation::ClaimWord), "seq={seq} {state:?}");
        assert_eq!(ring.take_back(Seq(1)), Err(Violation::ClaimWord), "seq={seq} {state:?}");
        assert_eq!(ring.remains(), [(Seq(1), true), (Seq(2), false)]);
    }
    let (mut ring, _worker, hostile) = rings();
    offer(&mut ring, 1..=1);
    hostile.store(word_at(Seq(1)), 1 << 3 | 7, Ordering::Release);
    assert_eq!(polled(&mut ring), Err(Violation::ClaimWord));
}

#[test]
fn a_step_back_is_a_violation() {
    let (mut ring, worker, hostile) = rings();
    offer(&mut ring, 1..=1);
    assert!(worker.claim(Seq(1)));
    assert_eq!(polled(&mut ring).unwrap(), []);
    say(&hostile, 1, 1, ClaimState::Offered);
    assert_eq!(ring.take_back(Seq(1)), Err(Violation::ClaimWord), "an offer that was claimed was taken back");
    assert_eq!(polled(&mut ring), Err(Violation::ClaimWord));
    assert_eq!(ring.remains(), [(Seq(1), true)]);
}

#[test]
fn a_second_claim_is_a_violation() {
    for second in [ClaimState::Claimed, ClaimState::Done] {
        let (mut ring, worker, hostile) = rings();
        offer(&mut ring, 1..=3);
        assert!(worker.claim(Seq(1)));
        assert!(ring.take_back(Seq(2)).unwrap());
        say(&hostile, 3, 3, second);
        assert_eq!(polled(&mut ring), Err(Violation::ClaimWord));
        assert_eq!(ring.remains(), [(Seq(1), true), (Seq(3), true)]);
    }
}

#[test]
fn results_of_no_known_form_are_violations() {
    let status = |status: ReportStatus| (STATUS_AT, status.pack());
    for fields in [
        vec![(STATUS_AT, 0)],
        vec![(STATUS_AT, 99)],
        vec![status(ReportStatus::Inline), (LENGTH_AT, INLINE_MAX_BYTES as u64 + 1)],
        vec![status(ReportStatus::Inline), (LENGTH_AT, u64::MAX)],
        vec![status(ReportStatus::Failed { program: None }), (LENGTH_AT, TEXT_MAX_BYTES as u64 + 1)],
        vec![status(ReportStatus::Failed { program: None }), (OUTPUT_BYTES_AT, OUTPUT_MAX_BYTES + 1)],
        vec![status(ReportStatus::Failed { program: None }), (OUTPUT_BYTES_AT, u64::MAX)],
        vec![status(ReportStatus::Descriptor), (OUTPUT_BYTES_AT, OUTPUT_MAX_BYTES + 1)],
        vec![status(ReportStatus::Block), (LENGTH_AT, 0)],
        vec![status(ReportStatus::Block), (LENGTH_AT, INLINE_MAX_BYTES as u64)],
        vec![status(ReportStatus::Block), (LENGTH_AT, BLOCK_MAX_BYTES as u64 + 1)],
        vec![status(ReportStatus::Block), (LENGTH_AT, 5000), (OUTPUT_BYTES_AT, ARENA_BYTES as u64 - 4096)],
        vec![status(ReportStatus::Block), (LENGTH_AT, 5000), (OUTPUT_BYTES_AT, 8)],
        vec![status(ReportStatus::Block), (LENGTH_AT, 5000), (OUTPUT_BYTES_AT, u64::MAX - 4095)],
    ] {
        let (mut ring, worker, hostile) = rings();
        offer(&mut ring, 1..=2);
        assert!(worker.claim(Seq(1)));
        worker.finish(Seq(1), &Finish::Inline(&[1]));
        for &(at, value) in &fields {
            hostile.store(boxes::entry_at(1) + at, value, Ordering::Release);
        }
        assert_eq!(polled(&mut ring), Err(Violation::Result), "{fields:?}");
        assert_eq!(ring.remains(), [(Seq(1), true), (Seq(2), false)]);
    }
    let (mut ring, worker, hostile) = rings();
    offer(&mut ring, 1..=1);
    assert!(worker.claim(Seq(1)));
    worker.finish(Seq(1), &Finish::Failed { text: "text", output: PartialOutput::Nothing, program: None });
    hostile.write_bytes(boxes::result_at(1, 4), b"\xff\xff\xff\xff");
    assert_eq!(polled(&mut ring), Err(Violation::Result));
}

#[test]
fn a_violation_that_is_put_right_stays_a_violation() {
    let (mut ring, worker, hostile) = rings();
    offer(&mut ring, 1..=3);
    assert!(worker.claim(Seq(1)));
    worker.finish(Seq(1), &Finish::Inline(b"good"));
    hostile.store(word_at(Seq(1)) + STATUS_AT, 9, Ordering::Release);
    assert_eq!(polled(&mut ring), Err(Violation::Result));
    hostile.store(word_at(Seq(1)) + STATUS_AT, ReportStatus::Inline.pack(), Ordering::Release);
    assert_eq!(polled(&mut ring), Err(Violation::Result), "its result is not taken any more");
    say(&hostile, 1, 1, ClaimState::Offered);
    assert_eq!(ring.remains(), [(Seq(1), true), (Seq(2), false), (Seq(3), false)], "nor is it taken back");
}

#[test]
fn what_came_before_a_violation_is_kept() {
    let (mut ring, worker, hostile) = rings();
    offer(&mut ring, 1..=2);
    assert!(worker.claim(Seq(1)));
    worker.finish(Seq(1), &Finish::Inline(&[]));
    say(&hostile, 2, 2, ClaimState::Taken);
    let mut found = Vec::new();
    assert_eq!(ring.poll(&mut found), Err(Violation::ClaimWord));
    assert_eq!(found.len(), 1);
}

#[test]
fn one_doorbell_for_each_nap() {
    let (mut ring, worker, _) = rings();
    let finish = |seq: u64, ring: &mut Ring| {
        ring.offer(Seq(seq), JobId(seq), Fence(1));
        assert!(worker.claim(Seq(seq)));
        worker.finish(Seq(seq), &Finish::Inline(&[]));
        worker.should_ring()
    };
    assert!(!finish(1, &mut ring), "rang for somebody who is awake");
    ring.nap(true);
    assert!(finish(2, &mut ring));
    assert!(!finish(3, &mut ring), "rang twice in one nap");
    ring.nap(false);
    assert!(!finish(4, &mut ring));
    ring.nap(true);
    assert!(finish(5, &mut ring));
    ring.nap(true);
    assert!(finish(6, &mut ring), "a nap after a nap asks for a doorbell of its own");
    ring.nap(true);
    ring.nap(false);
    assert!(!finish(7, &mut ring), "rang for somebody who woke by something else");
}

#[test]
fn an_order_to_end_is_for_one_offer_and_for_none_before_or_after_it() {
    let (mut ring, worker, _) = rings();
    offer(&mut ring, 1..=3);
    assert!(worker.claim(Seq(1)));
    ring.request_cancel(Seq(2));
    assert!(!worker.is_cancelled(), "it is for a later one");
    worker.finish(Seq(1), &Finish::Inline(&[]));
    assert!(worker.claim(Seq(2)));
    assert!(worker.is_cancelled());
    worker.finish(Seq(2), &Finish::Inline(&[]));
    assert!(worker.claim(Seq(3)));
    assert!(!worker.is_cancelled(), "it was for an earlier one");
}

//! Tests of both halves of the ring: every lie, and two threads that fight over each offer.

use std::sync::atomic::AtomicU64;
use std::sync::mpsc::sync_channel;

use bulkhead_proto::boxes::{LENGTH_AT, OUTPUT_BYTES_AT, ReportStatus, STATUS_AT};
use bulkhead_proto::limits::{INLINE_MAX_BYTES, OUTPUT_MAX_BYTES, TEXT_MAX_BYTES};

use super::*;
use crate::worker::{Finish, WorkerRing};

/// Both halves, and a page by which a liar writes into the box.
fn rings() -> (Ring, WorkerRing, Page) {
    let (ring, descriptors) = Ring::create().unwrap();
    let liar = Page::map_shared(descriptors.box_page.as_fd(), BOX_BYTES).unwrap();
    (ring, WorkerRing::map(&[descriptors.box_page, descriptors.orders_page]).unwrap(), liar)
}

fn offer(ring: &mut Ring, seqs: std::ops::RangeInclusive<u64>) {
    seqs.for_each(|seq| ring.offer(Seq(seq), JobId(seq), Fence(1)));
}

fn polled(ring: &mut Ring) -> Result<Vec<(u64, FoundResult)>, Lie> {
    let mut found = Vec::new();
    ring.poll(&mut found)?;
    Ok(found.into_iter().map(|found| (found.seq.0, found.result)).collect())
}

fn say(liar: &Page, entry: u64, seq: u64, state: ClaimState) {
    liar.store(word_at(Seq(entry)), ClaimWord::pack(Seq(seq), state), Ordering::Release);
}

#[test]
fn results_of_every_form_and_length_arrive_in_order() {
    let (mut ring, mut worker, _) = rings();
    let mut expected = Vec::new();
    offer(&mut ring, 1..=8);
    for (seq, length) in (1..=6).zip([0, 1, 15, 16, 17, INLINE_MAX_BYTES]) {
        let bytes: Vec<u8> = (0..length).map(|at| (at * 7) as u8).collect();
        assert!(worker.claim(Seq(seq)));
        worker.finish(Seq(seq), &Finish::Inline(&bytes));
        expected.push((seq, FoundResult::Inline(Payload::from(bytes))));
    }
    assert!(worker.claim(Seq(7)));
    worker.finish(Seq(7), &Finish::Descriptor { bytes: OUTPUT_MAX_BYTES });
    expected.push((7, FoundResult::Descriptor { bytes: OUTPUT_MAX_BYTES }));
    assert!(worker.claim(Seq(8)));
    worker.finish(Seq(8), &Finish::Failed(&"ä".repeat(TEXT_MAX_BYTES)));
    expected.push((8, FoundResult::Failed("ä".repeat(TEXT_MAX_BYTES / 2))));
    assert_eq!(polled(&mut ring).unwrap(), expected);
    assert!(!ring.has_outstanding() && ring.head().is_none());
    assert!(!worker.should_ring());
}

#[test]
fn the_head_and_what_a_death_leaves() {
    let (mut ring, worker, _) = rings();
    offer(&mut ring, 1..=4);
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
            let payload = FoundResult::Inline(Payload::from(seq.to_le_bytes().to_vec()));
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
fn words_that_no_rule_allows_are_lies() {
    use ClaimState::{Claimed, Done, Offered, Settled, Taken};
    for (entry, seq, state) in
        [(1, 1, Taken), (1, 1, Settled), (1, 2, Claimed), (1, 257, Claimed), (1, 2, Done), (1, 0, Offered)]
    {
        let (mut ring, _worker, liar) = rings();
        offer(&mut ring, 1..=2);
        say(&liar, entry, seq, state);
        assert_eq!(polled(&mut ring), Err(Lie::ClaimWord), "seq={seq} {state:?}");
        assert_eq!(ring.take_back(Seq(1)), Err(Lie::ClaimWord), "seq={seq} {state:?}");
        assert_eq!(ring.remains(), [(Seq(1), true), (Seq(2), false)]);
    }
    let (mut ring, _worker, liar) = rings();
    offer(&mut ring, 1..=1);
    liar.store(word_at(Seq(1)), 1 << 3 | 7, Ordering::Release);
    assert_eq!(polled(&mut ring), Err(Lie::ClaimWord));
}

#[test]
fn a_step_back_is_a_lie() {
    let (mut ring, worker, liar) = rings();
    offer(&mut ring, 1..=1);
    assert!(worker.claim(Seq(1)));
    assert_eq!(polled(&mut ring).unwrap(), []);
    say(&liar, 1, 1, ClaimState::Offered);
    assert_eq!(ring.take_back(Seq(1)), Err(Lie::ClaimWord), "an offer that was claimed was taken back");
    assert_eq!(polled(&mut ring), Err(Lie::ClaimWord));
    assert_eq!(ring.remains(), [(Seq(1), true)]);
}

#[test]
fn a_second_claim_is_a_lie() {
    for second in [ClaimState::Claimed, ClaimState::Done] {
        let (mut ring, worker, liar) = rings();
        offer(&mut ring, 1..=3);
        assert!(worker.claim(Seq(1)));
        assert!(ring.take_back(Seq(2)).unwrap());
        say(&liar, 3, 3, second);
        assert_eq!(polled(&mut ring), Err(Lie::ClaimWord));
        assert_eq!(ring.remains(), [(Seq(1), true), (Seq(3), true)]);
    }
}

#[test]
fn results_of_no_known_form_are_lies() {
    let status = |status: ReportStatus| (STATUS_AT, status.pack());
    for fields in [
        vec![(STATUS_AT, 0)],
        vec![(STATUS_AT, 99)],
        vec![status(ReportStatus::Inline), (LENGTH_AT, INLINE_MAX_BYTES as u64 + 1)],
        vec![status(ReportStatus::Inline), (LENGTH_AT, u64::MAX)],
        vec![status(ReportStatus::Failed), (LENGTH_AT, TEXT_MAX_BYTES as u64 + 1)],
        vec![status(ReportStatus::Descriptor), (OUTPUT_BYTES_AT, OUTPUT_MAX_BYTES + 1)],
    ] {
        let (mut ring, worker, liar) = rings();
        offer(&mut ring, 1..=2);
        assert!(worker.claim(Seq(1)));
        worker.finish(Seq(1), &Finish::Inline(&[1]));
        for &(at, value) in &fields {
            liar.store(boxes::entry_at(1) + at, value, Ordering::Release);
        }
        assert_eq!(polled(&mut ring), Err(Lie::Result), "{fields:?}");
        assert_eq!(ring.remains(), [(Seq(1), true), (Seq(2), false)]);
    }
    let (mut ring, worker, liar) = rings();
    offer(&mut ring, 1..=1);
    assert!(worker.claim(Seq(1)));
    worker.finish(Seq(1), &Finish::Failed("text"));
    liar.write_bytes(boxes::result_at(1, 4), b"\xff\xff\xff\xff");
    assert_eq!(polled(&mut ring), Err(Lie::Result));
}

#[test]
fn what_came_before_a_lie_is_kept() {
    let (mut ring, worker, liar) = rings();
    offer(&mut ring, 1..=2);
    assert!(worker.claim(Seq(1)));
    worker.finish(Seq(1), &Finish::Inline(&[]));
    say(&liar, 2, 2, ClaimState::Taken);
    let mut found = Vec::new();
    assert_eq!(ring.poll(&mut found), Err(Lie::ClaimWord));
    assert_eq!(found.len(), 1);
}

#[test]
fn one_doorbell_for_each_nap() {
    let (mut ring, mut worker, _) = rings();
    let mut finish = |seq: u64, ring: &mut Ring| {
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
}

/// Runs both sides of every round at once, as near to each other as threads can be, and hands each pair of
/// answers to `judge`.
fn race<R: Send>(
    rounds: u64,
    mut ours: impl FnMut(u64) -> bool,
    mut theirs: impl FnMut(u64) -> R + Send,
    mut judge: impl FnMut(u64, bool, R),
) {
    let begun = AtomicU64::new(0);
    let (answer, answers) = sync_channel(1);
    std::thread::scope(|scope| {
        let begun = &begun;
        scope.spawn(move || {
            for round in 1..=rounds {
                while begun.load(Ordering::Acquire) < round {
                    std::hint::spin_loop();
                }
                if answer.send(theirs(round)).is_err() {
                    return;
                }
            }
        });
        for round in 1..=rounds {
            begun.store(round, Ordering::Release);
            (0..round % 64).for_each(|_| std::hint::spin_loop());
            let our = ours(round);
            judge(round, our, answers.recv().unwrap());
        }
    });
}

/// One offer, one claim, one take-back at the same moment: exactly one of them wins.
#[test]
fn a_claim_and_a_take_back_never_both_win() {
    let (ring, worker, _) = rings();
    let ring = std::cell::RefCell::new(ring);
    offer(&mut ring.borrow_mut(), 1..=1);
    let mut won = [0_u64; 2];
    race(
        20_000,
        |round| ring.borrow_mut().take_back(Seq(round)).unwrap(),
        move |round| {
            let won = worker.claim(Seq(round));
            if won {
                worker.finish(Seq(round), &Finish::Inline(&[]));
            }
            won
        },
        |round, taken, claimed| {
            assert!(taken != claimed, "round={round} taken={taken} claimed={claimed}");
            won[usize::from(taken)] += 1;
            let mut ring = ring.borrow_mut();
            ring.poll(&mut Vec::new()).unwrap();
            ring.settle(Seq(round));
            ring.offer(Seq(round + 1), JobId(1), Fence(1));
        },
    );
    assert!(won.iter().all(|count| *count > 0), "no race: {won:?}");
}

/// The heart of the nap: whoever is first, one side sees the other.
#[test]
fn a_result_is_seen_or_rung_for() {
    let (ring, mut worker, _) = rings();
    let ring = std::cell::RefCell::new(ring);
    offer(&mut ring.borrow_mut(), 1..=1);
    race(
        20_000,
        |_| {
            let (mut ring, mut found) = (ring.borrow_mut(), Vec::new());
            ring.nap(true);
            ring.poll(&mut found).unwrap();
            !found.is_empty()
        },
        move |round| {
            assert!(worker.claim(Seq(round)));
            worker.finish(Seq(round), &Finish::Inline(&[]));
            worker.should_ring()
        },
        |round, seen, rung| {
            assert!(seen || rung, "round={round}: the supervisor sleeps on a result");
            let mut ring = ring.borrow_mut();
            ring.poll(&mut Vec::new()).unwrap();
            ring.settle(Seq(round));
            ring.nap(false);
            ring.offer(Seq(round + 1), JobId(1), Fence(1));
        },
    );
}

/// Every offer is run or taken, never both, never neither.
#[test]
fn each_offer_is_run_xor_taken() {
    const OFFERS: u64 = 200_000;
    let (mut ring, worker, _) = rings();
    let (to_worker, messages) = sync_channel::<u64>(RING);
    let (mut found, mut taken, mut reported) = (Vec::new(), 0, 0);
    let (ran, lost) = std::thread::scope(|scope| {
        let honest = scope.spawn(move || {
            let (mut ran, mut lost) = (0, 0);
            for seq in messages {
                let won = worker.claim(Seq(seq));
                if won {
                    worker.finish(Seq(seq), &Finish::Inline(&seq.to_le_bytes()));
                }
                *if won { &mut ran } else { &mut lost } += 1;
            }
            (ran, lost)
        });
        for seq in 1..=OFFERS {
            while ring.entry(Seq(seq)).state != ClaimState::Settled {
                reported += settle_done(&mut ring, &mut found);
            }
            ring.offer(Seq(seq), JobId(seq), Fence(1));
            to_worker.send(seq).unwrap();
            // Fight for an offer that the worker is about to reach.
            let rival = Seq(seq.saturating_sub(seq % 5).max(1));
            if ring.take_back(rival).unwrap() {
                taken += 1;
                ring.settle(rival);
            }
        }
        drop(to_worker);
        while ring.has_outstanding() {
            reported += settle_done(&mut ring, &mut found);
        }
        honest.join().unwrap()
    });
    assert_eq!((ran, lost), (reported, taken));
    assert_eq!(reported + taken, OFFERS);
    assert!(taken > 0 && reported > 0, "no fight: taken={taken} reported={reported}");
}

fn settle_done(ring: &mut Ring, found: &mut Vec<Found>) -> u64 {
    ring.poll(found).unwrap();
    let count = found.len() as u64;
    for Found { seq, result, .. } in found.drain(..) {
        assert_eq!(result, FoundResult::Inline(Payload::from(seq.0.to_le_bytes().to_vec())));
        ring.settle(seq);
    }
    if count == 0 {
        std::thread::yield_now();
    }
    count
}

/// The supervisor sleeps on a real lane after each last look; a lost doorbell would be a sleep without end.
#[test]
fn no_doorbell_is_lost() {
    use bulkhead_sys::lane::Lane;
    use bulkhead_sys::poll::wait_readable;
    const OFFERS: u64 = 20_000;
    let (mut ring, mut worker, _) = rings();
    let (lane, theirs) = Lane::pair().unwrap();
    let (to_worker, messages) = sync_channel::<u64>(RING);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for seq in messages {
                assert!(worker.claim(Seq(seq)));
                worker.finish(Seq(seq), &Finish::Inline(&[]));
                if worker.should_ring() {
                    bulkhead_sys::socket::send_with_fd(theirs.as_fd(), b"x", None).unwrap();
                }
            }
        });
        let (mut next, mut found, mut naps, mut rings) = (1, Vec::new(), 0, 0);
        while next <= OFFERS {
            for _ in 0..next % 3 + 1 {
                ring.offer(Seq(next), JobId(1), Fence(1));
                to_worker.send(next).unwrap();
                next += 1;
            }
            while ring.has_outstanding() {
                ring.nap(true);
                naps += 1;
                ring.poll(&mut found).unwrap();
                if found.is_empty() {
                    assert!(
                        wait_readable(lane.as_fd(), std::time::Duration::from_secs(60)).unwrap(),
                        "slept on a result"
                    );
                    while lane.recv(&mut [0; 8]).is_ok() {
                        rings += 1;
                    }
                }
                ring.nap(false);
                ring.poll(&mut found).unwrap();
                found.drain(..).for_each(|found| ring.settle(found.seq));
            }
        }
        assert!(rings <= naps, "rings={rings} naps={naps}");
        drop(to_worker);
    });
}

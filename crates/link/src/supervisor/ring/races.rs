//! Tests of both halves of the ring at once: two threads that fight over each offer, and over each nap.

use std::sync::atomic::AtomicU64;
use std::sync::mpsc::sync_channel;

use bulkhead_proto::worker::boxes::ProgramStop;

use super::tests::{offer, rings};
use super::*;
use crate::worker::Finish;

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
            // On a busy machine both may share one core: the other side has to have its turn there, too.
            if round % 64 == 63 {
                std::thread::yield_now();
            }
            let our = ours(round);
            judge(round, our, answers.recv().unwrap());
        }
    });
}

/// What both rings need of their fence, on the memory they really share: of two sides that each store a word, fence, and
/// load the other's, one at least sees the other. The model has a fence of its own.
#[test]
fn of_two_sides_with_a_fence_one_sees_the_other() {
    let (page, _) = SharedPage::create("words", BOX_BYTES).unwrap();
    let misses = |own: usize, other: usize, round: u64| {
        Words::store(&page, own, round, Ordering::Relaxed);
        SharedPage::fence();
        Words::load(&page, other, Ordering::Relaxed) < round
    };
    let mut neither = 0;
    race(
        200_000,
        |round| misses(0, 1024, round),
        |round| misses(1024, 0, round),
        |_, ours, theirs| neither += u64::from(ours && theirs),
    );
    assert_eq!(neither, 0, "rounds in which neither saw the other");
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

/// The core of the nap protocol: in either order, one side sees the other.
#[test]
fn a_result_is_seen_or_rung_for() {
    let (ring, worker, _) = rings();
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

fn settle_done(ring: &mut Ring, found: &mut Vec<FinishedTask>) -> u64 {
    ring.poll(found).unwrap();
    let count = found.len() as u64;
    for FinishedTask { seq, result, .. } in found.drain(..) {
        assert_eq!(result, FinishedResult::Inline(Payload::from(seq.0.to_le_bytes().to_vec())));
        ring.settle(seq);
    }
    if count == 0 {
        std::thread::yield_now();
    }
    count
}

#[test]
fn a_stopped_program_is_seen_or_rung_for() {
    let (ring, worker, _) = rings();
    let ring = std::cell::RefCell::new(ring);
    offer(&mut ring.borrow_mut(), 1..=1);
    assert!(worker.claim(Seq(1)));
    race(
        20_000,
        |_| {
            let mut ring = ring.borrow_mut();
            ring.nap(true);
            ring.program_change().is_some()
        },
        move |_| {
            worker.set_program_stop(Some(ProgramStop { pid: 7, signal: 19 }));
            worker.should_ring()
        },
        |round, seen, rung| {
            assert!(seen || rung, "round={round}: the supervisor sleeps on a stop");
            let mut ring = ring.borrow_mut();
            assert!(ring.program_change().is_some() != seen, "round={round}: once");
            ring.nap(false);
        },
    );
}

/// The supervisor sleeps until a real doorbell rings after each last look; a lost doorbell would be a sleep without end.
#[test]
fn no_doorbell_is_lost() {
    use bulkhead_sys::bell::Bell;
    use bulkhead_sys::poll::wait_readable;
    const OFFERS: u64 = 20_000;
    let (mut ring, worker, _) = rings();
    let doorbell = Bell::new().unwrap();
    let theirs = Bell::adopt(doorbell.as_fd().try_clone_to_owned().unwrap()).unwrap();
    let (to_worker, messages) = sync_channel::<u64>(RING);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for seq in messages {
                assert!(worker.claim(Seq(seq)));
                worker.finish(Seq(seq), &Finish::Inline(&[]));
                if worker.should_ring() {
                    theirs.try_ring().unwrap();
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
                        wait_readable(doorbell.as_fd(), std::time::Duration::from_secs(60)).unwrap(),
                        "slept on a result"
                    );
                    rings += doorbell.hear();
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

/// A worker that looks all the time: it sees each order to end a task while that runs, and none that is for the one
/// before, however late that comes.
#[test]
fn an_order_to_end_reaches_its_own_task_alone() {
    const OFFERS: u64 = 4_000;
    let (mut ring, worker, _) = rings();
    let (to_worker, messages) = sync_channel::<u64>(1);
    std::thread::scope(|scope| {
        let told = scope.spawn(move || {
            let mut seen = 0;
            for seq in messages {
                assert!(worker.claim(Seq(seq)));
                if seq % 2 == 1 {
                    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
                    while !worker.is_cancelled() {
                        assert!(std::time::Instant::now() < deadline, "the order for {seq} never came");
                        std::hint::spin_loop();
                    }
                    seen += 1;
                } else {
                    (0..seq % 64).for_each(|_| assert!(!worker.is_cancelled(), "{seq} is still wanted"));
                }
                worker.finish(Seq(seq), &Finish::Inline(&[]));
            }
            seen
        });
        let mut found = Vec::new();
        for seq in 1..=OFFERS {
            ring.offer(Seq(seq), JobId(1), Fence(1));
            to_worker.send(seq).unwrap();
            (0..seq % 128).for_each(|_| std::hint::spin_loop());
            // Each request for an odd one is stored once while it runs, and once more long after its end.
            ring.request_cancel(Seq(seq - 1 + seq % 2));
            while ring.has_outstanding() {
                ring.poll(&mut found).unwrap();
                std::thread::yield_now();
            }
            found.drain(..).for_each(|found| ring.settle(found.seq));
        }
        drop(to_worker);
        assert_eq!(told.join().unwrap(), OFFERS / 2);
    });
}

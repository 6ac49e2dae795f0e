//! Attacks on claim words: claims, steps and seqs that no rule allows, and whole boxes of garbage.
//!
//! A worker may write only about its own offers; any other write is a protocol violation, or is never read. Each attack
//! rings afterwards: one that stays silent looks like a task that goes on for ever, until another event wakes the
//! daemon. Driven by `hostile::main` when a worker gets its bait.

use std::fs::File;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bulkhead_link::worker::Finish;
use bulkhead_proto::ids::Seq;
use bulkhead_proto::limits::RING;
use bulkhead_proto::worker::boxes::{BOX_BYTES, ClaimState, ClaimWord, PROGRAM_STOP_AT, ProgramStop};
use bulkhead_proto::worker::message::TaskMessage;

use super::puppet::{After, Puppet};
use super::{Attack, BAIT, Deed, Orders};

pub(super) const ATTACKS: &[Attack] = &[
    ("claims-twice", Deed::Ring(claims_twice)),
    ("claims-the-second-first", Deed::Ring(claims_the_second_first)),
    ("done-without-claim", Deed::Offered(done_without_claim)),
    ("done-to-claimed", Deed::Offered(done_to_claimed)),
    ("claimed-to-offered", Deed::Claimed(|puppet, task, _| step(puppet, task, ClaimState::Offered))),
    ("claimed-to-settled", Deed::Claimed(|puppet, task, _| step(puppet, task, ClaimState::Settled))),
    ("claimed-to-taken", Deed::Claimed(|puppet, task, _| step(puppet, task, ClaimState::Taken))),
    (
        "offered-to-settled",
        Deed::Offered(|puppet, task| write(puppet, ClaimWord::pack(task.seq, ClaimState::Settled), task)),
    ),
    (
        "offered-to-taken",
        Deed::Offered(|puppet, task| write(puppet, ClaimWord::pack(task.seq, ClaimState::Taken), task)),
    ),
    ("state-5", Deed::Offered(|puppet, task| write(puppet, task.seq.0 << 3 | 5, task))),
    ("state-6", Deed::Offered(|puppet, task| write(puppet, task.seq.0 << 3 | 6, task))),
    ("state-7", Deed::Offered(|puppet, task| write(puppet, task.seq.0 << 3 | 7, task))),
    ("word-all-ones", Deed::Offered(|puppet, task| write(puppet, u64::MAX, task))),
    ("seq-of-before", Deed::Offered(|puppet, task| write(puppet, done(task.seq.0.wrapping_sub(1)), task))),
    (
        "seq-of-the-next-round",
        Deed::Offered(|puppet, task| write(puppet, done(task.seq.0 + RING as u64), task)),
    ),
    ("seq-of-a-neighbour", Deed::Offered(|puppet, task| write(puppet, done(1 << 40), task))),
    ("answers-ahead", Deed::Offered(answers_ahead)),
    ("box-of-zeros", Deed::Claimed(|puppet, _, _| fill(puppet, 0))),
    ("box-of-ones", Deed::Claimed(|puppet, _, _| fill(puppet, u64::MAX))),
    ("box-of-garbage", Deed::Claimed(scribble)),
    ("program-stops", Deed::Claimed(program_stops)),
];

/// Says of its task that a signal stopped its program, that it goes on, and nonsense, in turn: more than a daemon may log.
fn program_stops(puppet: &mut Puppet, task: &TaskMessage, _: Option<File>) -> After {
    let stop = ProgramStop { pid: 1, signal: 19 };
    for count in 1..200 {
        for word in [stop.pack(count), 0, stop.pack(count), u64::MAX, 1 << 40] {
            puppet.box_page.store(PROGRAM_STOP_AT, word, Ordering::SeqCst);
            puppet.ring_if_asleep();
            // Of a busy loop the daemon would see the last word alone.
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    puppet.finish(task);
    After::Serve
}

fn done(seq: u64) -> u64 {
    ClaimWord::pack(Seq(seq), ClaimState::Done)
}

/// Two at once. The second comes first: whether it was taken back shows before the rule is broken.
fn claims_twice(puppet: &mut Puppet, tasks: &[TaskMessage], orders: &Orders) -> Option<After> {
    let [first, second, ..] = tasks else { return None };
    if !puppet.ring.claim(second.seq) {
        return None;
    }
    if !orders.enlist() {
        puppet.finish(second);
        return None;
    }
    puppet.ring.claim(first.seq);
    puppet.ring_if_asleep();
    Some(After::Sit)
}

/// In the wrong order, but each of them once and well.
fn claims_the_second_first(puppet: &mut Puppet, tasks: &[TaskMessage], orders: &Orders) -> Option<After> {
    if !orders.enlist() {
        return None;
    }
    for task in tasks[1..].iter().chain(&tasks[..1]) {
        puppet.run(task);
    }
    Some(After::Serve)
}

fn done_without_claim(puppet: &mut Puppet, task: &TaskMessage) -> After {
    puppet.finish(task);
    After::Serve
}

/// Takes its answer back, again and again, before and after the daemon has taken it.
fn done_to_claimed(puppet: &mut Puppet, task: &TaskMessage) -> After {
    puppet.run(task);
    for _ in 0..1000 {
        puppet.put(task.seq, ClaimState::Claimed);
        puppet.put(task.seq, ClaimState::Done);
    }
    puppet.ring_if_asleep();
    After::Serve
}

/// Lets the daemon see its claim, and steps back.
fn step(puppet: &mut Puppet, task: &TaskMessage, back: ClaimState) -> After {
    puppet.await_looks();
    puppet.put(task.seq, back);
    puppet.ring_if_asleep();
    After::Sit
}

/// Writes a word where its claim should be.
fn write(puppet: &mut Puppet, word: u64, task: &TaskMessage) -> After {
    puppet.put_word(task.seq, word);
    puppet.ring_if_asleep();
    After::Sit
}

/// Fills entries that were not offered with answers to what will come there, then goes on. Those of the last hundred
/// or so may not be settled yet: the neighbour's.
fn answers_ahead(puppet: &mut Puppet, task: &TaskMessage) -> After {
    for ahead in 110..150 {
        puppet.ring.finish(Seq(task.seq.0 + ahead), &Finish::Inline(BAIT.as_bytes()));
    }
    puppet.run(task);
    After::Serve
}

fn fill(puppet: &mut Puppet, word: u64) -> After {
    puppet.await_taken();
    for at in (0..BOX_BYTES).step_by(8) {
        puppet.box_page.store(at, word, Ordering::SeqCst);
    }
    puppet.ring_if_asleep();
    After::Sit
}

/// Writes all over its box, for ever, small numbers and large ones.
fn scribble(puppet: &mut Puppet, task: &TaskMessage, _: Option<File>) -> After {
    puppet.await_taken();
    let mut state = task.seq.0 | 1;
    loop {
        for at in (0..BOX_BYTES).step_by(8) {
            // A plain xorshift: any garbage will do.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            puppet.box_page.store(at, state >> (state % 64), Ordering::SeqCst);
        }
        puppet.ring_if_asleep();
    }
}

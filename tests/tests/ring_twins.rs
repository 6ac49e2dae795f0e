//! The ring of the worker channel and its twin in the simulation pass one suite of cases: the table of the claim word in
//! ARCHITECTURE.md, row by row, then scripts made at random.
//!
//! A case is a list of steps of the supervisor, the worker and a hostile worker with the answer that each must have.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};

use bulkhead_proto::ids::Seq;
use bulkhead_proto::worker::boxes::ClaimWord;

use twins::cases::{ALL, Case, HONEST, STRICTER, Step, VIOLATIONS};
use twins::{Real, Simulated, Twin};

mod twins;

use Step::{
    Claim, End, EndBadly, Fail, Head, Offer, OfferInUse, Poll, PollLie, Remains, Say, Scribble, Settle,
    SettleOpen, TakeBack, TakeBackLie,
};

/// Takes a twin through a case; the first answer that is not the one expected.
fn play<T: Twin>((name, steps): &Case) -> Result<(), String> {
    let mut twin = T::new();
    for (at, step) in steps.iter().enumerate() {
        let is = answer(&mut twin, step);
        if !is.is_empty() {
            return Err(format!("{} in {name:?}, step {at}: {step:?}, but it was {is}", T::NAME));
        }
    }
    Ok(())
}

/// Carries out a step; empty if the answer is the expected one, else what it was.
fn answer<T: Twin>(twin: &mut T, step: &Step) -> String {
    let differs = |is: String, expected: String| if is == expected { String::new() } else { is };
    let said = |yes: bool, expected: bool| differs(yes.to_string(), expected.to_string());
    match *step {
        Offer(first, last) => said((first..=last).all(|seq| twin.offer(seq)), true),
        OfferInUse(seq) => said(mistake(|| twin.offer(seq)), false),
        TakeBack(seq, won) => {
            differs(format!("{:?}", twin.take_back(seq)), format!("{:?}", Ok::<_, ()>(won)))
        }
        TakeBackLie(seq) => said(twin.take_back(seq).is_ok(), false),
        Poll(seqs) => differs(format!("{:?}", twin.poll()), format!("{:?}", (seqs, false))),
        PollLie(seqs) => differs(format!("{:?}", twin.poll()), format!("{:?}", (seqs, true))),
        Head(head) => differs(format!("{:?}", twin.head()), format!("{head:?}")),
        Settle(seq) => said(twin.settle(seq), true),
        SettleOpen(seq) => said(mistake(|| twin.settle(seq)), false),
        Remains(left) => differs(format!("{:?}", twin.remains()), format!("{left:?}")),
        Claim(seq, won) => said(twin.claim(seq), won),
        End(seq) => nothing(|| twin.end(seq)),
        Fail(seq) => nothing(|| twin.fail(seq)),
        EndBadly(seq) => nothing(|| twin.end_badly(seq)),
        Say(entry, seq, state) => nothing(|| twin.scribble(entry, ClaimWord::pack(Seq(seq), state))),
        Scribble(entry) => nothing(|| twin.scribble(entry, 7)),
    }
}

fn nothing(act: impl FnOnce()) -> String {
    act();
    String::new()
}

/// A mistake of the supervisor's: one twin panics, the other says no.
fn mistake(act: impl FnOnce() -> bool) -> bool {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or(false)
}

/// Plays all cases with a twin, and tells of all that went wrong.
fn play_all<T: Twin>(cases: &[Case]) {
    let wrong: Vec<String> = cases.iter().filter_map(|case| play::<T>(case).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_real_ring_knows_every_step_of_the_claim_word() {
    play_all::<Real>(HONEST);
}

#[test]
fn the_simulated_ring_knows_every_step_of_the_claim_word() {
    play_all::<Simulated>(HONEST);
}

#[test]
fn the_real_ring_finds_every_violation() {
    play_all::<Real>(VIOLATIONS);
}

#[test]
fn the_simulated_ring_finds_every_violation() {
    play_all::<Simulated>(VIOLATIONS);
}

#[test]
fn where_the_simulated_ring_lets_more_through_is_known() {
    for (name, real, simulated) in STRICTER {
        play_all::<Real>(&[(name, real)]);
        play_all::<Simulated>(&[(name, simulated)]);
    }
}

/// Numbers from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn one_of(&mut self, seqs: &BTreeSet<u64>) -> Option<u64> {
        let place = self.below(seqs.len().max(1) as u64) as usize;
        seqs.iter().nth(place).copied()
    }
}

/// The life of an honest worker, lived by both twins.
struct Life {
    dice: Dice,
    real: Real,
    simulated: Simulated,
    next: u64,
    /// Offers on their way to the worker, and the one that it has claimed.
    inbox: VecDeque<u64>,
    claimed: Option<u64>,
    /// Offers whose entries are in use, and those of them that have ended.
    used: BTreeSet<u64>,
    ended: BTreeSet<u64>,
}

impl Life {
    fn new(seed: u64) -> Self {
        let (real, simulated) = (Real::new(), Simulated::new());
        let (used, ended) = (BTreeSet::new(), BTreeSet::new());
        Self {
            dice: Dice(seed),
            real,
            simulated,
            next: 1,
            inbox: VecDeque::new(),
            claimed: None,
            used,
            ended,
        }
    }

    /// Somebody does something, to both; both must answer the same.
    fn step(&mut self) {
        match self.dice.below(8) {
            0 | 1 => self.offer(),
            2 | 3 => self.work(),
            4 => {
                let Some(seq) = self.dice.one_of(&self.used) else { return };
                let won = self.real.take_back(seq);
                assert_eq!(won, self.simulated.take_back(seq), "take back {seq}");
                if won == Ok(true) {
                    self.ended.insert(seq);
                }
            }
            5 => self.poll(),
            6 => assert_eq!(self.real.head(), self.simulated.head()),
            _ => {
                let Some(seq) = self.dice.one_of(&self.ended) else { return };
                assert!(self.real.settle(seq) && self.simulated.settle(seq), "settle {seq}");
                self.ended.remove(&seq);
                self.used.remove(&seq);
            }
        }
    }

    fn offer(&mut self) {
        // Now and then a seq is left out, and now and then many come at once.
        for _ in 0..=self.dice.below(20) {
            self.next += u64::from(self.dice.below(50) == 0);
            if self.used.contains(&self.next.saturating_sub(ALL)) {
                return;
            }
            assert!(self.real.offer(self.next) && self.simulated.offer(self.next), "offer {}", self.next);
            self.used.insert(self.next);
            self.inbox.push_back(self.next);
            self.next += 1;
        }
    }

    fn work(&mut self) {
        if let Some(seq) = self.claimed.take() {
            match self.dice.below(4) {
                0 => (self.real.fail(seq), self.simulated.fail(seq)),
                _ => (self.real.end(seq), self.simulated.end(seq)),
            };
        } else if let Some(seq) = self.inbox.pop_front() {
            let won = self.real.claim(seq);
            assert_eq!(won, self.simulated.claim(seq), "claim {seq}");
            self.claimed = won.then_some(seq);
        }
    }

    fn poll(&mut self) {
        let found = self.real.poll();
        assert_eq!(found, self.simulated.poll());
        assert!(!found.1, "an honest worker was called a hostile worker");
        self.ended.extend(found.0);
    }

    /// The worker is dead.
    fn end(mut self) {
        self.poll();
        let remains = self.real.remains();
        assert_eq!(remains, self.simulated.remains());
        let (left, claimed): (BTreeSet<_>, Vec<_>) = (
            remains.iter().map(|left| left.0).collect(),
            remains.iter().filter(|left| left.1).map(|left| left.0).collect(),
        );
        assert_eq!(left, &self.used - &self.ended, "what has not ended is left, and nothing else");
        assert_eq!(claimed, Vec::from_iter(self.claimed), "what it ran is charged, and nothing else");
    }
}

#[test]
fn both_live_every_honest_life_alike() {
    for seed in 0..500 {
        let mut life = Life::new(seed);
        for _ in 0..=life.dice.below(1500) {
            life.step();
        }
        life.end();
    }
}

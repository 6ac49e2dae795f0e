//! The cases: what a supervisor, a worker and a hostile worker do to a ring, and what must come of each step.
//!
//! The table of the claim word in ARCHITECTURE.md, row by row, and then what no row allows.

use bulkhead_proto::limits::RING;
use bulkhead_proto::worker::boxes::ClaimState::{self, Claimed, Done, Offered, Settled, Taken};

/// As many offers as there are entries.
pub(crate) const ALL: u64 = RING as u64;

/// What somebody does, and what must come of it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// The supervisor offers the seqs from the first to the last.
    Offer(u64, u64),
    /// It offers one whose entry is in use, which is its own mistake. Nothing can follow.
    OfferInUse(u64),
    /// It takes one back: whether it won.
    TakeBack(u64, bool),
    /// It tries to, and finds a protocol violation.
    TakeBackLie(u64),
    /// It looks for results: the seqs that are newly done.
    Poll(&'static [u64]),
    /// It looks for results, and finds these and then a protocol violation.
    PollLie(&'static [u64]),
    /// The first offer that is not done, and whether it is claimed.
    Head(Option<(u64, bool)>),
    /// It settles one that has ended.
    Settle(u64),
    /// It settles one that has not, which is its own mistake. Nothing can follow.
    SettleOpen(u64),
    /// The worker is dead: what it left, and which of that counts as claimed.
    Remains(&'static [(u64, bool)]),
    /// The worker claims one: whether it won.
    Claim(u64, bool),
    /// The worker ends what it has claimed, well.
    End(u64),
    /// Its task says no.
    Fail(u64),
    /// It ends it with a result of no known form.
    EndBadly(u64),
    /// A hostile worker writes the word (seq, state) into the entry of a seq.
    Say(u64, u64, ClaimState),
    /// A hostile worker writes a word that is none.
    Scribble(u64),
}

use Step::{
    Claim, End, EndBadly, Fail, Head, Offer, OfferInUse, Poll, PollLie, Remains, Say, Scribble, Settle,
    SettleOpen, TakeBack, TakeBackLie,
};

/// A case: its name, its steps.
pub(crate) type Case = (&'static str, &'static [Step]);

/// Everybody is honest.
pub(crate) const HONEST: &[Case] = &[
    (
        "settled -> offered -> claimed -> done -> settled, and the next uses the entry again",
        &[
            Head(None),
            Poll(&[]),
            Offer(1, 1),
            Head(Some((1, false))),
            Poll(&[]),
            Claim(1, true),
            Head(Some((1, true))),
            Poll(&[]),
            End(1),
            Head(Some((1, true))),
            Poll(&[1]),
            Head(None),
            Settle(1),
            Offer(1 + ALL, 1 + ALL),
            Claim(1 + ALL, true),
            End(1 + ALL),
            Poll(&[1 + ALL]),
        ],
    ),
    ("a failure is a result", &[Offer(1, 1), Claim(1, true), Fail(1), Poll(&[1]), Remains(&[])]),
    (
        "an offer is claimed once",
        &[Offer(1, 1), Claim(1, true), Claim(1, false), End(1), Claim(1, false), Poll(&[1])],
    ),
    (
        "what was never offered is not claimed",
        &[Claim(1, false), Offer(1, 1), Claim(2, false), Claim(1 + ALL, false)],
    ),
    (
        "offered -> taken: it goes to nobody else",
        &[
            Offer(1, 2),
            TakeBack(1, true),
            Claim(1, false),
            Head(Some((2, false))),
            Poll(&[]),
            Claim(2, true),
            End(2),
            Poll(&[2]),
        ],
    ),
    (
        "a take-back is won once, and loses against a claim, a result and what was reported",
        &[
            Offer(1, 4),
            TakeBack(4, true),
            TakeBack(4, false),
            Claim(1, true),
            TakeBack(1, false),
            End(1),
            TakeBack(1, false),
            Poll(&[1]),
            TakeBack(1, false),
            Claim(2, true),
            Poll(&[]),
            TakeBack(2, false),
            Remains(&[(2, true), (3, false)]),
        ],
    ),
    (
        "a result is reported once, and in the order of seq",
        &[
            Offer(1, 3),
            Claim(1, true),
            End(1),
            Claim(2, true),
            End(2),
            Poll(&[1, 2]),
            Poll(&[]),
            Head(Some((3, false))),
        ],
    ),
    (
        "taken -> settled: the entry is free",
        &[
            Offer(1, 1),
            TakeBack(1, true),
            Settle(1),
            Claim(1, false),
            Offer(1 + ALL, 1 + ALL),
            Claim(1 + ALL, true),
        ],
    ),
    (
        "an old seq names nothing once its entry is another's",
        &[
            Offer(1, 1),
            TakeBack(1, true),
            Settle(1),
            Offer(1 + ALL, 1 + ALL),
            Claim(1, false),
            TakeBack(1, false),
            Head(Some((1 + ALL, false))),
        ],
    ),
    (
        "seqs may be left out",
        &[
            Offer(2, 2),
            Offer(7, 7),
            Claim(2, true),
            End(2),
            Claim(7, true),
            Poll(&[2]),
            Head(Some((7, true))),
        ],
    ),
    (
        "a full ring: every entry is offered, and the first that is settled makes room",
        &[
            Offer(1, ALL),
            Claim(1, true),
            End(1),
            Poll(&[1]),
            Settle(1),
            Offer(ALL + 1, ALL + 1),
            TakeBack(ALL + 1, true),
            Head(Some((2, false))),
        ],
    ),
    ("a full ring takes no more", &[Offer(1, ALL), OfferInUse(ALL + 1)]),
    (
        "an entry is in use until it is settled: done",
        &[Offer(1, 1), Claim(1, true), End(1), Poll(&[1]), OfferInUse(1 + ALL)],
    ),
    ("an entry is in use until it is settled: taken", &[Offer(1, 1), TakeBack(1, true), OfferInUse(1 + ALL)]),
    ("nothing is settled before its end: offered", &[Offer(1, 1), SettleOpen(1)]),
    ("nothing is settled before its end: claimed", &[Offer(1, 1), Claim(1, true), Poll(&[]), SettleOpen(1)]),
    ("nothing is settled before it was reported", &[Offer(1, 1), Claim(1, true), End(1), SettleOpen(1)]),
    (
        "a death leaves, in the order of seq: done, which is taken; claimed; offered, which is taken back; taken, nothing",
        &[
            Offer(1, 6),
            TakeBack(5, true),
            Claim(1, true),
            End(1),
            Claim(2, true),
            End(2),
            Claim(3, true),
            Poll(&[1, 2]),
            Remains(&[(3, true), (4, false), (6, false)]),
            Claim(4, false),
            Claim(6, false),
        ],
    ),
    (
        "a death between two tasks leaves nothing claimed",
        &[Offer(1, 3), Claim(1, true), End(1), Poll(&[1]), Remains(&[(2, false), (3, false)])],
    ),
    (
        "a death right after a claim that nobody saw",
        &[Offer(1, 2), Claim(1, true), Remains(&[(1, true), (2, false)])],
    ),
    ("a death without offers leaves nothing", &[Poll(&[]), Remains(&[])]),
];

/// The worker breaks a rule (6): it is found, what came before it is kept, and the entry counts as claimed.
pub(crate) const VIOLATIONS: &[Case] = &[
    (
        "a state that is the supervisor's: taken",
        &[Offer(1, 2), Say(1, 1, Taken), PollLie(&[]), Remains(&[(1, true), (2, false)])],
    ),
    (
        "a state that is the supervisor's: settled",
        &[Offer(1, 2), Say(1, 1, Settled), PollLie(&[]), Remains(&[(1, true), (2, false)])],
    ),
    (
        "another seq: claimed",
        &[Offer(1, 2), Say(1, 2, Claimed), PollLie(&[]), Remains(&[(1, true), (2, false)])],
    ),
    ("another seq: done", &[Offer(1, 2), Say(1, 2, Done), PollLie(&[]), Remains(&[(1, true), (2, false)])]),
    (
        "another seq of the same entry",
        &[Offer(1, 2), Say(1, 1 + ALL, Claimed), PollLie(&[]), Remains(&[(1, true), (2, false)])],
    ),
    ("the seq 0", &[Offer(1, 2), Say(1, 0, Offered), PollLie(&[]), Remains(&[(1, true), (2, false)])]),
    ("a word that is none", &[Offer(1, 2), Scribble(1), PollLie(&[]), Remains(&[(1, true), (2, false)])]),
    (
        "found by a take-back",
        &[Offer(1, 2), Say(1, 2, Claimed), TakeBackLie(1), Remains(&[(1, true), (2, false)])],
    ),
    (
        "found by a take-back: settled",
        &[Offer(1, 2), Say(1, 1, Settled), TakeBackLie(1), Remains(&[(1, true), (2, false)])],
    ),
    (
        "a step back: claimed -> offered",
        &[Offer(1, 1), Claim(1, true), Poll(&[]), Say(1, 1, Offered), PollLie(&[]), Remains(&[(1, true)])],
    ),
    (
        "a second claim",
        &[
            Offer(1, 3),
            Claim(1, true),
            TakeBack(2, true),
            Say(3, 3, Claimed),
            PollLie(&[]),
            Remains(&[(1, true), (3, true)]),
        ],
    ),
    (
        "a result of no known form",
        &[Offer(1, 2), Claim(1, true), EndBadly(1), PollLie(&[]), Remains(&[(1, true), (2, false)])],
    ),
    (
        "what came before a violation is kept",
        &[
            Offer(1, 3),
            Claim(1, true),
            End(1),
            Say(2, 2, Taken),
            PollLie(&[1]),
            Remains(&[(2, true), (3, false)]),
        ],
    ),
    (
        "a violation that is put right stays one",
        &[
            Offer(1, 2),
            Claim(1, true),
            Say(1, 2, Done),
            PollLie(&[]),
            Say(1, 1, Offered),
            Remains(&[(1, true), (2, false)]),
        ],
    ),
];

/// A hostile worker goes further than its turn, or on after its protocol violation: the name, what the real ring does, what its twin does. The
/// simulation's hostile workers may do more, so that the core is tried with more than the real ring lets through: results out of
/// turn, results after a protocol violation, and a protocol violation that wins a task back. Whoever changes one of the two has to look here.
pub(crate) const STRICTER: &[(&str, &[Step], &[Step])] = &[
    (
        "a result out of turn waits for those before it",
        &[Offer(1, 2), Claim(2, true), End(2), Poll(&[]), Remains(&[(1, false), (2, true)])],
        &[Offer(1, 2), Claim(2, true), End(2), Poll(&[2]), Remains(&[(1, false)])],
    ),
    (
        "a result while another offer is claimed is a second claim",
        &[
            Offer(1, 2),
            Claim(1, true),
            Claim(2, true),
            End(2),
            PollLie(&[]),
            Remains(&[(1, true), (2, true)]),
        ],
        &[Offer(1, 2), Claim(1, true), Claim(2, true), End(2), Poll(&[2]), Remains(&[(1, true)])],
    ),
    (
        "no result is taken after a violation",
        &[
            Offer(1, 2),
            Scribble(1),
            PollLie(&[]),
            Claim(2, true),
            End(2),
            PollLie(&[]),
            Remains(&[(1, true), (2, true)]),
        ],
        &[Offer(1, 2), Scribble(1), PollLie(&[]), Claim(2, true), End(2), Poll(&[2]), Remains(&[(1, true)])],
    ),
    (
        "an offer that was seen claimed is not won back by a step back",
        &[Offer(1, 1), Claim(1, true), Poll(&[]), Say(1, 1, Offered), TakeBackLie(1), Remains(&[(1, true)])],
        &[Offer(1, 1), Claim(1, true), Poll(&[]), Say(1, 1, Offered), TakeBack(1, true), Remains(&[])],
    ),
];

//! Turns: the numbers by which users, and clients of one level, stand in line, and the rounds of a search that is longer
//! than one take.
//!
//! The lowest number has the next turn. A take looks at a bounded number of heads; if none of them is wanted and more are
//! left, the round stays open, and the next take of the same purpose goes on with it:
//!
//! | in an open round | its number | looked at in this round |
//! |---|---|---|
//! | stood in line when the round began | below `since` | not yet |
//! | came later, or is to be looked at once more | below `since`, after all of those | not yet |
//! | was passed over | `since` or more | yes |
//!
//! A round ends when a job is taken, when everything was looked at, or when a search of another purpose begins. Whatever was passed
//! over has lost its turn: it stands at the end. Plain numbers; `queue.rs` and `backlog.rs` drive them.

/// A place in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TurnNumber {
    at: u64,
    /// Counts those that came to an open round.
    late: u64,
}

impl TurnNumber {
    /// Before every place in line.
    pub(super) const FIRST: Self = Self { at: 0, late: 0 };
}

/// Gives the numbers of one queue. None is given twice.
#[derive(Debug, Default)]
pub(crate) struct TurnCounter {
    last: u64,
}

impl TurnCounter {
    /// The end of the line.
    pub(super) fn last(&mut self) -> TurnNumber {
        self.last += 1;
        TurnNumber { at: self.last, late: 0 }
    }

    /// The place of one that joins the line while this round may be open.
    pub(super) fn joining(&mut self, round: &mut Option<Round>) -> TurnNumber {
        match round {
            Some(round) => round.again(),
            None => self.last(),
        }
    }
}

/// The purpose of a search: the same head may be wanted by one and not by the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Search {
    /// A task for an idle worker.
    Idle,
    /// A task to wait in the ring of a busy worker.
    Ahead,
}

/// One round of a search: it looks at each place in line once, over as many takes as that needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    search: Search,
    since: u64,
    late: u64,
}

impl Round {
    /// The open round of this purpose, or a new one.
    pub(super) fn of(open: Option<Self>, search: Search, counter: &mut TurnCounter) -> Self {
        let open = open.filter(|round| round.search == search);
        open.unwrap_or_else(|| Self { search, since: counter.last().at + 1, late: 0 })
    }

    /// What it searches for.
    pub(super) fn search(&self) -> Search {
        self.search
    }

    /// A place in this round, after all others that were not looked at.
    pub(super) fn again(&mut self) -> TurnNumber {
        self.late += 1;
        TurnNumber { at: self.since - 1, late: self.late }
    }

    /// Everything below is not looked at yet; what comes again in this take stands above.
    pub(super) fn limit(&self) -> TurnNumber {
        TurnNumber { at: self.since - 1, late: self.late + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_to_an_open_round_is_looked_at_in_it_and_who_was_passed_over_is_not() {
        let mut counter = TurnCounter::default();
        let waits = counter.last();
        let mut round = Some(Round::of(None, Search::Idle, &mut counter));
        let limit = round.unwrap().limit();
        let passed = counter.last();
        let joins = counter.joining(&mut round);
        assert!(waits < limit && passed > limit, "{waits:?} {passed:?}");
        assert!(limit <= joins, "not in the take that goes on");
        let next = round.unwrap().limit();
        assert!(waits < joins && joins < next && next < passed, "in the next one, as the last: {joins:?}");
        round = None;
        assert!(counter.joining(&mut round) > passed);
    }

    #[test]
    fn a_search_of_another_purpose_begins_anew() {
        let mut counter = TurnCounter::default();
        let open = Round::of(None, Search::Idle, &mut counter);
        let passed = counter.last();
        assert!(passed > Round::of(Some(open), Search::Idle, &mut counter).limit());
        assert!(passed < Round::of(Some(open), Search::Ahead, &mut counter).limit());
    }
}

//! Which users are told that their results or logs were dropped early, and by which bound.
//!
//! In a flood every end drops an older result, so not each is told. The first of a user and a bound is told at the end of
//! its turn and begins a pause; those that follow are counted and told together when the pause is over, which begins
//! another one.
//!
//! | pause | a user's first for this bound | a further one | the pause is over |
//! |---|---|---|---|
//! | none | told at the end of the turn, pause begins | - | - |
//! | lasts | told at the end of the turn | counted | counted ones are told; none: no pause |

use std::collections::BTreeMap;

use bulkhead_proto::client::record::What;

use crate::job::Jobs;
use crate::turn::{Owner, Turn};

/// Length of a pause, in milliseconds.
const PAUSE_MS: u64 = 10_000;

/// What was dropped of one user because of one bound.
#[derive(Clone, Copy, Debug, Default)]
struct Dropped {
    /// Dropped since the last record about it.
    untold: u32,
    /// Whether there was such a record in this pause.
    is_told: bool,
}

/// Things that were dropped early, by user and bound.
#[derive(Debug, Default)]
pub(crate) struct EvictionNotes {
    of: BTreeMap<(u32, &'static str), Dropped>,
    /// Those that are told at the end of this turn.
    fresh: Vec<(u32, &'static str)>,
    /// When the pause is over, nanoseconds on the clock of the turns.
    pause_ends_ns: Option<u64>,
    /// Whether something was counted that is told then.
    is_counted: bool,
}

impl EvictionNotes {
    /// The pause is over: what was counted is told, in the order of users and bounds.
    fn end_pause(&mut self) {
        self.pause_ends_ns = None;
        self.is_counted = false;
        self.of.retain(|_, dropped| dropped.untold > 0);
        self.of.values_mut().for_each(|dropped| dropped.is_told = false);
        self.fresh = self.of.keys().copied().collect();
    }
}

impl Jobs {
    /// Counts things of a user that were dropped early because of this bound.
    pub(crate) fn note_evicted(&mut self, uid: u32, bound: &'static str, count: u32) {
        let notes = &mut self.evictions;
        let dropped = notes.of.entry((uid, bound)).or_default();
        if dropped.is_told {
            notes.is_counted = true;
        } else if dropped.untold == 0 {
            notes.fresh.push((uid, bound));
        }
        dropped.untold = dropped.untold.saturating_add(count);
    }

    /// Records what was dropped early, as far as it is to be told now.
    pub(crate) fn tell_evicted(&mut self, turn: &mut Turn) {
        let notes = &mut self.evictions;
        if notes.pause_ends_ns.is_some_and(|at_ns| at_ns <= turn.now_ns()) {
            notes.end_pause();
        }
        for (uid, bound) in notes.fresh.drain(..) {
            let Some(dropped) = notes.of.get_mut(&(uid, bound)) else { continue };
            let count = std::mem::take(&mut dropped.untold);
            dropped.is_told = true;
            turn.record(What::Evicted { count, limit: bound.to_owned() }, Owner::User(uid));
            notes.pause_ends_ns.get_or_insert(turn.after_ms(PAUSE_MS));
        }
    }

    /// When [`Jobs::tell_evicted`] has something to tell that was counted.
    pub(super) fn next_told_ns(&self) -> Option<u64> {
        self.evictions.pause_ends_ns.filter(|_| self.evictions.is_counted)
    }
}

//! Shortage: while the shell cannot make an output, a log or a plan, jobs that need a descriptor wait; others go on.
//!
//! The shell notices it at an offer (`Event::OfferFailed`). For [`TRY_AFTER_MS`] no job that needs a descriptor is offered;
//! the next offer after that tries again. A record is made at most every [`SAY_EVERY_MS`]; `machine/notices.rs` tells
//! clients.

use bulkhead_proto::client::record::What;

use crate::turn::{Alarm, AlarmSlot, Owner, Turn};
use crate::worker::Workers;

/// How long nothing that needs a descriptor is offered after one could not be made, in milliseconds.
const TRY_AFTER_MS: u64 = 100;
/// Shortest time between two records that say that something is short.
const SAY_EVERY_MS: u64 = 10_000;

/// The shortage, if there is one.
#[derive(Debug, Default)]
pub(super) struct Shortage {
    /// The alarm for the next try, and what is short.
    on: Option<(AlarmSlot, String)>,
    say_from_ns: u64,
}

impl<T: Copy> Workers<T> {
    /// Whether nothing that needs a descriptor may be offered now.
    pub(crate) fn is_short(&self) -> bool {
        self.shortage.on.is_some()
    }

    /// When it is tried again, nanoseconds of the clock of the turns, if something is short.
    pub(crate) fn short_until_ns(&self) -> Option<u64> {
        self.shortage.on.as_ref()?.0.at_ns()
    }

    /// What is short, in words; empty when nothing is.
    pub(crate) fn what_is_short(&self) -> &str {
        self.shortage.on.as_ref().map_or("", |(_, what)| what)
    }

    /// The alarm went off: the next offer tries again.
    ///
    /// # Panics
    /// If nothing was short.
    pub(crate) fn shortage_over(&mut self) {
        assert!(self.is_short(), "the alarm of a shortage went off and nothing is short");
        self.shortage.on = None;
    }

    /// A descriptor could not be made; `what` says why. Gives whether this was recorded: then clients are to be told too.
    pub(crate) fn fall_short(&mut self, turn: &mut Turn, what: &str) -> bool {
        if self.is_short() {
            return false;
        }
        let mut slot = AlarmSlot::default();
        turn.set(&mut slot, Alarm::Shortage, turn.after_ms(TRY_AFTER_MS));
        self.shortage.on = Some((slot, what.to_owned()));
        if turn.now_ns() < self.shortage.say_from_ns {
            return false;
        }
        self.shortage.say_from_ns = turn.after_ms(SAY_EVERY_MS);
        turn.record(What::Short { what: what.to_owned() }, Owner::Service);
        true
    }
}

//! What to do while no output, log or plan can be made: jobs that need one wait, everything else goes on.
//!
//! The shell finds it out at an offer and says what is short; nothing that needs a descriptor is offered for a moment
//! then, and after it the next offer tries again. Said at most every so often, to the log and to who waits.

use bulkhead_proto::client::record::What;
use bulkhead_proto::ids::ClientId;

use crate::machine::Core;
use crate::turn::{Alarm, AlarmSlot, ms};

/// How long nothing that needs an output descriptor is offered after one could not be made, in milliseconds.
const TRY_AFTER_MS: u64 = 100;
/// Shortest time between two records that say that something is short.
const SAY_EVERY_MS: u64 = 10_000;

/// What is short, if something is.
#[derive(Debug, Default)]
pub(crate) struct Shortage {
    /// Until when nothing is tried, and what was missing.
    on: Option<(AlarmSlot, String)>,
    say_from_ns: u64,
}

impl Shortage {
    /// Whether nothing that needs a descriptor may be offered now.
    pub(crate) fn is_on(&self) -> bool {
        self.on.is_some()
    }

    /// Until when.
    pub(crate) fn until_ns(&self) -> Option<u64> {
        self.on.as_ref()?.0.at_ns()
    }

    /// What is short, in words; empty when nothing is.
    pub(crate) fn what(&self) -> &str {
        self.on.as_ref().map_or("", |(_, what)| what)
    }

    /// What was missing may be there again.
    pub(crate) fn try_again(&mut self) {
        self.on = None;
    }
}

impl Core {
    /// An output descriptor could not be made; `what` says why.
    pub(crate) fn fall_short(&mut self, what: String) {
        if self.shortage.is_on() {
            return;
        }
        let now_ns = self.turn.now_ns();
        let until_ns = now_ns + ms(TRY_AFTER_MS);
        let mut slot = AlarmSlot::default();
        self.turn.set(&mut slot, Alarm::Shortage, until_ns);
        if now_ns >= self.shortage.say_from_ns {
            self.shortage.say_from_ns = now_ns + ms(SAY_EVERY_MS);
            self.turn.record(What::Short { what: what.clone() }, None);
            self.notify_short(&what);
        }
        self.shortage.on = Some((slot, what));
    }

    /// Tells clients whose attached jobs need a descriptor.
    fn notify_short(&mut self, what: &str) {
        for id in self.clients.waiting() {
            if self.attached_needs_descriptor(id) {
                self.notify(id, format!("jobs with large results wait: {what}"));
            }
        }
    }

    fn attached_needs_descriptor(&self, id: ClientId) -> bool {
        self.clients.see(id).is_some_and(|client| client.attached().any(|batch| batch.needs_descriptor))
    }
}

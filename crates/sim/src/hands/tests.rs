//! The fake shell, with fake workers, keeps what action.rs promises: the script of the real one.

use bulkhead_core::action::Action;
use bulkhead_core::event::Event;
use bulkhead_proto::ids::KindId;
use bulkhead_proto::job::Payload;

use crate::scenario::{Faults, Scenario};
use crate::shells::{Shell, keep_every_promise};
use crate::trace::{Keep, Trace};
use crate::truth::Truth;
use crate::world::World;

/// A world without clients and without faults, in which the core is never asked.
struct Fake(World);

impl Fake {
    fn new(seed: u64) -> Self {
        let quiet = Scenario {
            faults: Faults::default(),
            down: None,
            clients: 0,
            shutdown: None,
            strays: false,
            spare_stops: false,
            ..Scenario::new(seed)
        };
        Self(World::new(quiet, None, Trace::new(Keep::Hash)))
    }
}

impl Shell for Fake {
    fn perform(&mut self, action: Action) -> (Vec<Event>, bool) {
        self.0.perform(&mut vec![action]).unwrap();
        (std::mem::take(&mut self.0.told_back), self.0.exited)
    }

    fn hear(&mut self) -> Vec<Event> {
        if let Some(next) = self.0.agenda.next_ns() {
            self.0.clock.advance_to(next);
            self.0.move_on().unwrap();
        }
        let mut batch = std::mem::take(&mut self.0.told_back);
        self.0.hear(&mut batch);
        batch
    }

    fn quick(&self) -> (KindId, Payload) {
        (KindId(0), Truth::Harmless(1).hide(0))
    }

    fn endless(&self) -> (KindId, Payload) {
        (KindId(0), Truth::Loops.hide(0))
    }
}

#[test]
fn the_fake_shell_keeps_every_promise() {
    (0..50).for_each(|seed| keep_every_promise(&mut Fake::new(seed)));
}

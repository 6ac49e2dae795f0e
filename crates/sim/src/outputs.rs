//! Scenarios in which there is little memory for outputs, and how long the fake shell holds what it was told to drop.
//!
//! Drawn apart from everything else, so that a seed without a small bound means what it always did. Every output there fits
//! the least room that a task is told, so that no task fails for it.

use bulkhead_core::config::Config;
use bulkhead_core::event::Event;
use bulkhead_proto::ids::{LogId, OutputId};

use crate::agenda::Move;
use crate::clock::MS;
use crate::rng::SimRng;
use crate::sabotage::Sabotage;
use crate::world::World;

/// What the draws of this file begin with.
const SALT: u64 = 0x0075_b07e;
/// Least bound: an output of 1,000,000 bytes and a few fits a 16th of it.
const LEAST_BYTES: u64 = 20 << 20;

/// Gives some seeds little memory for outputs, and their kinds a most for one.
pub(crate) fn bound(seed: u64, config: &mut Config) -> bool {
    let mut rng = SimRng::new(seed ^ SALT);
    if !rng.chance(400) {
        return false;
    }
    config.outputs_bytes_max = *rng.pick(&[LEAST_BYTES, 2 * LEAST_BYTES, 10 * LEAST_BYTES]);
    for kind in &mut config.kinds {
        kind.output_max_bytes = *rng.pick(&[None, Some(2 << 20), Some(9 << 20)]);
    }
    config.open_outputs_max = *rng.pick(&[24, 100, u64::MAX]);
    true
}

impl World {
    /// An output was dropped. Where memory is little, a reply that its client has not read holds some a while longer.
    pub(crate) fn output_dropped(&mut self, output: OutputId) {
        let (closed, freed) = (Event::OutputClosed { output }, Event::OutputFreed { output });
        self.dropped(output.0, (closed, freed), Move::FreeOutput(output));
    }

    /// A log was dropped.
    pub(crate) fn log_dropped(&mut self, log: LogId) {
        let (closed, freed) = (Event::LogClosed { log }, Event::LogFreed { log });
        self.dropped(log.0, (closed, freed), Move::FreeLog(log));
    }

    fn dropped(&mut self, number: u64, (closed, freed): (Event, Event), later: Move) {
        if self.sabotage == Some(Sabotage::NeverFree) {
            return;
        }
        if self.scenario.little_memory && number % 4 == 1 {
            // Some were sent, and lie unread.
            if number % 8 == 1 {
                self.told_back.push(closed);
            }
            let after = 1 + self.rng.span(50 * MS);
            self.plan(after, later);
        } else {
            self.told_back.push(freed);
        }
    }
}

//! `quiet`: turns at one and the same instant need a cause from outside; answers to the core's own questions
//! are none. A core that keeps asking for another turn would burn a CPU for ever.
//!
//! The world counts each turn here before the core has it; time that passes is a cause too.

use crate::report::{Verdict, broken};

/// Turns at one instant that may follow each other without a cause: rounds of taking back, looking and offering
/// again to every worker.
const TURNS_MAX: u32 = 100;

/// Steps in a row that may leave something for the next one at once.
const OVERDUE_MAX: u32 = 20;

/// Counts turns.
#[derive(Debug, Default)]
pub struct QuietOracle {
    at_ns: u64,
    turns: u32,
    /// Steps in a row after which the deadline was in the past.
    overdue: u32,
}

impl QuietOracle {
    /// A turn at this instant; `outside`: something happened that the core did not ask for.
    ///
    /// # Errors
    /// Too many turns without a cause.
    pub fn step(&mut self, now_ns: u64, outside: bool) -> Verdict {
        if outside || now_ns != self.at_ns {
            (self.at_ns, self.turns) = (now_ns, 0);
            return Ok(());
        }
        self.turns += 1;
        if self.turns > TURNS_MAX {
            return broken("quiet", format!("{} turns at one instant without a cause", self.turns));
        }
        Ok(())
    }

    /// Notes when the core wants to be woken after a step.
    ///
    /// # Errors
    /// It keeps wanting what is past.
    pub fn wants(&mut self, now_ns: u64, deadline: Option<u64>) -> Verdict {
        self.overdue = if deadline.is_some_and(|at| at <= now_ns) { self.overdue + 1 } else { 0 };
        if self.overdue > OVERDUE_MAX {
            return broken("quiet", format!("the deadline stays in the past: {deadline:?}"));
        }
        Ok(())
    }
}

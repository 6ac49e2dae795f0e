//! `pauses`: time in which nothing ran. A job that timed out has met its limit without it; `verdicts.rs` asks.
//!
//! A step that comes more than a second after the deadline that was asked for, and follows one that did not, ends a pause;
//! of late steps in a row only the first does. The world says when a step comes and what was asked for.

/// So late a step ends a pause.
const LATE_NS: u64 = 1_000_000_000;

/// All pauses so far.
#[derive(Debug, Default)]
pub struct PauseOracle {
    last_ns: Option<u64>,
    is_late: bool,
    /// When each began, and how long it was.
    pauses: Vec<(u64, u64)>,
}

impl PauseOracle {
    /// A step comes now; the core had asked for one at that time.
    pub fn step(&mut self, now_ns: u64, asked_ns: Option<u64>) {
        // Before the first step nothing was asked for in time.
        let Some(last_ns) = self.last_ns.replace(now_ns) else { return };
        let Some(asked_ns) = asked_ns.map(|asked_ns| asked_ns.max(last_ns)) else { return };
        if now_ns > asked_ns + LATE_NS {
            if !std::mem::replace(&mut self.is_late, true) {
                self.pauses.push((last_ns, now_ns - last_ns));
            }
        } else if now_ns >= asked_ns {
            self.is_late = false;
        }
    }

    /// The nanoseconds from then until now in which something ran. Of a pause in which `since_ns` lies, only what came after
    /// it is no such time.
    pub fn ran_ns(&self, since_ns: u64, now_ns: u64) -> u64 {
        let later = self.pauses.iter().rev().take_while(|(at_ns, span_ns)| at_ns + span_ns > since_ns);
        let paused_ns: u64 = later.map(|(at_ns, span_ns)| at_ns + span_ns - since_ns.max(*at_ns)).sum();
        now_ns.saturating_sub(since_ns).saturating_sub(paused_ns)
    }
}

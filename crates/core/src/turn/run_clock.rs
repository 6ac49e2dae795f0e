//! The clock of the core: CLOCK_MONOTONIC without the pauses in which nothing ran.
//!
//! A frozen control group, SIGSTOP, and a paused virtual machine stop the supervisor and the workers, and CLOCK_MONOTONIC
//! goes on. A turn that comes much later than the deadline that the core asked for shows it. The span since the turn
//! before is then no time of this clock: every alarm has as much left as it had at that turn, so no task, worker or
//! client is charged for it, and a limit is never shortened by a pause. What the workers finished meanwhile (the
//! supervisor alone was stopped) came as events of this turn, before any alarm. Driven by `machine/mod.rs`, which says
//! what deadline was asked for; reads no clock itself.

use crate::event::Now;
use crate::turn::ms;

/// How late a turn is "much later" than its deadline, and how far apart the turns are under an alarm that counts against
/// somebody ([`super::Alarm::is_charged`]).
///
/// It is above what a busy machine delays a runnable thread by (tens of milliseconds, rarely hundreds), so that load
/// alone is not taken for a pause, and it is the error of limits: a pause of more than twice this span is always noticed,
/// because the turns are asked for that close to each other; a shorter one may count against a task in full. Where no
/// such alarm is set, nothing is asked for, and an idle daemon sleeps.
const PAUSE_MS: u64 = 1000;
/// When the first turn after a pause is asked for.
const CHECK_MS: u64 = 100;

/// The clock.
///
/// | turn comes | after | taken as | counts |
/// |---|---|---|---|
/// | before its deadline (an event) | any turn | - | all |
/// | up to [`PAUSE_MS`] late | any turn | on time | all |
/// | later | a turn on time | pause | nothing since the last turn |
/// | later | a late turn | a slow loop | all |
///
/// The last row bounds what a slow loop can cost: if every turn is late, only the first counts as a pause, and limits
/// hold. After a pause a turn is asked for [`CHECK_MS`] later, so that a second pause is soon told from a slow loop.
///
/// | alarm | after a pause |
/// |---|---|
/// | time limit, no progress, cancel grace | what was left of it at the last turn before |
/// | hello deadline, leaving, proof of death, stopped worker, stopped program | the same |
/// | start of a spare, backoff, full channel, shortage, survival of a worker, progress shown | the same |
/// | expiry, retention, vanished client, grace of a drain | the same: none of them is wall time, which is only shown |
/// | processor time, memory | nothing: they do not grow in a pause |
/// | hello of a client to the supervisor (`client_table.rs`) | moved by as much as the loop woke up late |
/// | watchdog | there is none |
#[derive(Debug, Default)]
pub(super) struct RunClock {
    /// The sum of all pauses.
    paused_ns: u64,
    last: Option<LastPause>,
    /// No turn has met its deadline since the last late one.
    is_late: bool,
}

/// The last pause.
#[derive(Clone, Copy, Debug)]
struct LastPause {
    /// When it was, on this clock.
    at_ns: u64,
    /// When it ended, on CLOCK_MONOTONIC.
    ended_ns: u64,
    /// The sum of the pauses before it.
    before_ns: u64,
}

impl RunClock {
    /// CLOCK_MONOTONIC as this clock.
    pub(super) fn of(&self, mono_ns: u64) -> u64 {
        match self.last {
            Some(last) if mono_ns < last.ended_ns => mono_ns.saturating_sub(last.before_ns).min(last.at_ns),
            _ => mono_ns.saturating_sub(self.paused_ns),
        }
    }

    /// This clock as CLOCK_MONOTONIC, for a time to come.
    pub(super) fn to_mono(&self, run_ns: u64) -> u64 {
        run_ns.saturating_add(self.paused_ns)
    }

    /// Whether the deadline that was asked for is needed to judge a turn at this time. Nearly never, and to find it costs.
    pub(super) fn is_in_doubt(&self, now: Now, last_ns: u64) -> bool {
        self.is_late || self.of(now.mono_ns).saturating_sub(last_ns) > ms(PAUSE_MS)
    }

    /// A turn comes now; the one before was at `last_ns` and asked for `asked_ns`, both on this clock.
    pub(super) fn judge(&mut self, now: Now, last_ns: u64, asked_ns: Option<u64>) {
        let now_ns = self.of(now.mono_ns);
        let Some(asked_ns) = asked_ns.map(|asked_ns| asked_ns.max(last_ns)) else { return };
        if now_ns <= asked_ns.saturating_add(ms(PAUSE_MS)) {
            self.is_late &= now_ns < asked_ns;
        } else if !std::mem::replace(&mut self.is_late, true) {
            let before_ns = self.paused_ns;
            self.paused_ns = now.mono_ns.saturating_sub(last_ns);
            self.last = Some(LastPause { at_ns: last_ns, ended_ns: now.mono_ns, before_ns });
        }
    }

    /// When a turn is to be at the latest, so that pauses are noticed; `None`: nobody would be charged.
    pub(super) fn latest(&self, last_ns: u64, is_charged: bool) -> Option<u64> {
        let after_ms = if self.is_late { CHECK_MS } else { PAUSE_MS };
        is_charged.then(|| last_ns.saturating_add(ms(after_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn at(mono_ns: u64) -> Now {
        Now { mono_ns, wall_us: 0 }
    }

    #[test]
    fn a_pause_is_no_time_and_what_was_before_it_stays_before_it() {
        let mut clock = RunClock::default();
        clock.judge(at(100 * S), 5 * S, Some(6 * S));
        assert_eq!((clock.of(100 * S), clock.of(101 * S), clock.to_mono(6 * S)), (5 * S, 6 * S, 101 * S));
        assert_eq!((clock.of(3 * S), clock.of(5 * S + 1), clock.of(99 * S)), (3 * S, 5 * S, 5 * S));
        assert_eq!(clock.latest(5 * S, true), Some(5 * S + ms(CHECK_MS)));
    }

    #[test]
    fn a_turn_that_is_a_little_late_or_early_or_had_no_deadline_is_no_pause() {
        for (now_ns, asked_ns) in [(7 * S, Some(6 * S)), (90 * S, Some(95 * S)), (90 * S, None)] {
            let mut clock = RunClock::default();
            clock.judge(at(now_ns), 5 * S, asked_ns);
            assert_eq!((clock.of(now_ns), clock.latest(0, false)), (now_ns, None));
        }
    }

    #[test]
    fn of_late_turns_in_a_row_only_the_first_is_a_pause() {
        let mut clock = RunClock::default();
        clock.judge(at(10 * S), S, Some(2 * S));
        let mut last_ns = clock.of(10 * S);
        for turn in 2..20 {
            let now_ns = turn * 10 * S;
            clock.judge(at(now_ns), last_ns, Some(last_ns + ms(CHECK_MS)));
            assert_eq!(clock.of(now_ns), last_ns + 10 * S, "a slow loop");
            last_ns = clock.of(now_ns);
        }
        // An event before the deadline shows nothing; a turn at its deadline does.
        let mono_ns = clock.to_mono(last_ns);
        clock.judge(at(mono_ns + 1), last_ns, Some(last_ns + S));
        assert!(clock.is_late);
        clock.judge(at(mono_ns + S), last_ns, Some(last_ns + S));
        assert!(!clock.is_late);
        clock.judge(at(mono_ns + 60 * S), last_ns + S, Some(last_ns + 2 * S));
        assert_eq!(clock.of(mono_ns + 60 * S), last_ns + S, "a pause again");
    }
}

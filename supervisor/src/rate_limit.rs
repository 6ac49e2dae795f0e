//! Rate limits of log lines that clients and tasks can provoke.
//!
//! A [`RateLimit`] allows some lines in each period and counts the rest. [`may_log`] keeps one for each user, worker and
//! sort of line ([`LineAbout`]), so that the lines of one user take no room from those about others; once the period of
//! one is over, the loop has its count logged by [`log_counts`]. The events of a user are kept whatever is logged:
//! `bulkhead events` shows them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Lines that are allowed in one period about what clients of one user do wrong, and about one worker.
const LINES: u64 = 10;
/// Lines that are allowed in one period for events of one user: more than thirty crashes.
const EVENT_LINES: u64 = 200;
/// Length of a period, from its first line on.
const PERIOD_NS: u64 = 10_000_000_000;
/// Limits that are kept before those whose period is over are looked for.
const KEPT: usize = 64;

/// The limit for one kind of line.
#[derive(Debug)]
pub(crate) struct RateLimit {
    /// Lines that are allowed in one period.
    most: u64,
    /// When the current period ends.
    end_ns: u64,
    count: u64,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self::of(LINES)
    }
}

impl RateLimit {
    fn of(most: u64) -> Self {
        Self { most, end_ns: 0, count: 0 }
    }

    /// Whether a line may be logged now. Counts it in any case.
    pub(crate) fn allows(&mut self, now_ns: u64) -> bool {
        if self.count <= self.most && now_ns >= self.end_ns {
            self.count = 0;
        }
        if self.count == 0 {
            self.end_ns = now_ns.saturating_add(PERIOD_NS);
        }
        self.count += 1;
        self.count <= self.most
    }

    /// When [`Self::take_suppressed`] has a count to return, in nanoseconds of the monotonic clock.
    pub(crate) fn deadline(&self) -> Option<u64> {
        (self.count > self.most).then_some(self.end_ns)
    }

    /// How many lines were suppressed, once the period has ended.
    pub(crate) fn take_suppressed(&mut self, now_ns: u64) -> Option<u64> {
        self.deadline().filter(|end_ns| *end_ns <= now_ns)?;
        Some(std::mem::take(&mut self.count) - self.most)
    }

    /// Whether it has nothing to remember.
    fn is_over(&self, now_ns: u64) -> bool {
        self.deadline().is_none() && self.end_ns <= now_ns
    }
}

/// What a line is about: those about the same share a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LineAbout {
    /// What clients of this user did wrong, and what could not be done for them.
    Client(u32),
    /// Events of this user's jobs, and of workers that ran them.
    EventsOf(u32),
    /// Events of workers that come and go or that ran jobs of several users, and what dead workers left.
    Workers,
    /// One worker, by its number.
    Worker(u64),
    /// Connections that nobody is known of.
    Unknown,
    /// Outputs of tasks.
    Outputs,
    /// Memory of dead workers' arenas.
    Arenas,
}

impl LineAbout {
    fn limit(self) -> RateLimit {
        RateLimit::of(match self {
            Self::EventsOf(_) | Self::Workers => EVENT_LINES,
            Self::Client(_) | Self::Worker(_) | Self::Unknown | Self::Outputs | Self::Arenas => LINES,
        })
    }

    /// Logs how many lines were left out.
    fn log_count(self, count: u64) {
        match self {
            Self::Client(uid) => {
                log::warn!("more clients of a user misbehaved or were turned away uid={uid} count={count}");
            }
            Self::EventsOf(uid) => {
                log::warn!("more events of a user were not logged uid={uid} count={count}")
            }
            Self::Workers => log::warn!("more events of workers were not logged count={count}"),
            Self::Worker(worker) => {
                log::warn!("more lines about a worker were not logged worker={worker} count={count}");
            }
            Self::Unknown => log::warn!("more connections failed count={count}"),
            Self::Arenas => log::warn!("more memory of dead workers' arenas stays count={count}"),
            Self::Outputs => log::warn!("more outputs of failed tasks could not be kept count={count}"),
        }
    }
}

/// The limits that count at the moment.
#[derive(Debug, Default)]
struct LineLimits {
    of: BTreeMap<LineAbout, RateLimit>,
    /// When the first count is to be logged, in nanoseconds of the monotonic clock.
    next_ns: Option<u64>,
}

impl LineLimits {
    const fn new() -> Self {
        Self { of: BTreeMap::new(), next_ns: None }
    }

    fn allows(&mut self, about: LineAbout, now_ns: u64) -> bool {
        if self.of.len() >= KEPT && !self.of.contains_key(&about) {
            self.of.retain(|_, limit| !limit.is_over(now_ns));
        }
        let limit = self.of.entry(about).or_insert_with(|| about.limit());
        let may = limit.allows(now_ns);
        let due = [self.next_ns, limit.deadline()];
        self.next_ns = due.into_iter().flatten().min();
        may
    }

    /// The counts of periods that are over. Limits without one are forgotten.
    fn take_counts(&mut self, now_ns: u64) -> Vec<(LineAbout, u64)> {
        if self.next_ns.is_none_or(|at_ns| at_ns > now_ns) {
            return Vec::new();
        }
        let counts = self.of.iter_mut();
        let counts =
            counts.filter_map(|(about, limit)| Some((*about, limit.take_suppressed(now_ns)?))).collect();
        self.of.retain(|_, limit| !limit.is_over(now_ns));
        self.next_ns = self.of.values().filter_map(RateLimit::deadline).min();
        counts
    }
}

/// As the log itself, there is one for the process. Its holders do not wait for anything.
static LIMITS: Mutex<LineLimits> = Mutex::new(LineLimits::new());

fn limits() -> MutexGuard<'static, LineLimits> {
    LIMITS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a line about this may be logged now, in nanoseconds of the monotonic clock. Counts it in any case.
pub(crate) fn may_log(about: LineAbout, now_ns: u64) -> bool {
    limits().allows(about, now_ns)
}

/// When [`log_counts`] has something to log.
pub(crate) fn deadline() -> Option<u64> {
    limits().next_ns
}

/// Logs how many lines were left out in periods that are over.
pub(crate) fn log_counts(now_ns: u64) {
    let counts = limits().take_counts(now_ns);
    for (about, count) in counts {
        about.log_count(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_said_in_part_and_then_counted() {
        let mut limit = RateLimit::default();
        let said = (0..1000).filter(|_| limit.allows(5)).count() as u64;
        assert_eq!(said, LINES);
        assert_eq!(limit.deadline(), Some(5 + PERIOD_NS));
        assert_eq!(limit.take_suppressed(4 + PERIOD_NS), None);
        assert!(!limit.allows(5 + PERIOD_NS), "not before it was told");
        assert_eq!(limit.take_suppressed(5 + PERIOD_NS), Some(1001 - LINES));
        assert!(limit.allows(6 + PERIOD_NS));
        assert_eq!((limit.deadline(), limit.take_suppressed(u64::MAX)), (None, None));
    }

    #[test]
    fn what_comes_now_and_then_is_said() {
        let mut limit = RateLimit::default();
        assert!((0..100).all(|turn| limit.allows(turn * PERIOD_NS)));
        assert_eq!(limit.deadline(), None);
    }

    #[test]
    fn a_flood_of_one_user_silences_no_line_about_another() {
        let mut limits = LineLimits::default();
        let (alice, bob) = (LineAbout::EventsOf(1), LineAbout::EventsOf(2));
        assert_eq!((0..1000).filter(|_| limits.allows(alice, 0)).count() as u64, EVENT_LINES);
        assert!(limits.allows(bob, 1) && limits.allows(LineAbout::Client(1), 1));
        assert_eq!((limits.next_ns, limits.take_counts(1)), (Some(PERIOD_NS), vec![]));
        assert_eq!(limits.take_counts(PERIOD_NS), [(alice, 1000 - EVENT_LINES)]);
        assert_eq!((limits.next_ns, limits.of.len()), (None, 2), "hers is forgotten, the others still count");
        assert!(limits.allows(alice, PERIOD_NS));
    }

    #[test]
    fn limits_of_many_users_are_forgotten() {
        let mut limits = LineLimits::default();
        for uid in 0..10_000 {
            assert!(limits.allows(LineAbout::Client(uid), u64::from(uid) * PERIOD_NS / 10));
        }
        assert!(limits.of.len() <= KEPT, "{} are kept", limits.of.len());
    }
}

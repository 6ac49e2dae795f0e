//! One turn of the machine, as every room sees it: the clock, the configuration, and the decisions of the turn.
//!
//! The machine begins and ends a turn. Rooms append actions and records to it, set and cancel alarms, draw jitter and
//! count. [`Turn`] holds numbers of jobs, workers and clients and nothing else of them. It is the one module that
//! other rooms may import, so it imports no room.

mod alarms;
mod charges;
mod counted;
mod fact_line;
mod fair_ring;
mod random;
mod records;
mod run_clock;
#[cfg(test)]
mod tests;
mod user_turns;
mod values;

use std::sync::Arc;

use bulkhead_facts::fact::{Fact, FactNo};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::record::{Record, What};
use bulkhead_proto::client::view::Totals;
use bulkhead_proto::ids::KindId;
use bulkhead_proto::kind::Kind;

pub(crate) use alarms::{Alarm, AlarmSlot, WORKER_ALARMS, WorkerAlarm};
pub use charges::Charges;
pub(crate) use counted::count_down;
pub(crate) use fact_line::submit_bounds;
pub(crate) use fair_ring::FairRing;
pub(crate) use random::doubled;
pub(crate) use records::RecentRecords;
pub use user_turns::UserTurns;
pub use values::{AccountId, BoundOrigin, Resource};
pub(crate) use values::{Flavour, Owner, TaskLimits};

use crate::action::{Action, Output};
use crate::config::Config;
use crate::event::Now;
use crate::turn::alarms::Alarms;
use crate::turn::fact_line::FactLine;
use crate::turn::random::Rng;
use crate::turn::run_clock::RunClock;

/// Nanoseconds of these milliseconds.
pub(crate) fn ms(milliseconds: u64) -> u64 {
    milliseconds.saturating_mul(1_000_000)
}

/// Totals since the start, beside those of outcomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counter {
    /// Jobs that were admitted.
    Accepted,
    /// Jobs that were refused.
    Refused,
    /// Attempts that follow a lost one.
    Retries,
    /// Workers that died and were not killed or asked to leave.
    Deaths,
    /// Workers that were spawned.
    Spawned,
    /// Offers that were taken back.
    TakenBack,
    /// Answers that were dropped because their offer was not current.
    Stale,
    /// Violations of the protocol by workers.
    Violations,
    /// Kept results that were dropped early.
    Evicted,
}

/// The clock, the configuration, the alarms and the output of one turn. One object serves all turns.
#[derive(Debug)]
pub(crate) struct Turn {
    config: Config,
    /// The names of its kinds, for records.
    kind_names: Vec<Arc<str>>,
    clock: RunClock,
    /// The time of the turn: that of [`RunClock`], and wall time.
    now: Now,
    /// Whether a turn has begun and has not ended.
    is_open: bool,
    started_us: Option<u64>,
    out: Output,
    alarms: Alarms,
    records: RecentRecords,
    facts: FactLine,
    totals: Totals,
    charges: Charges,
    random: Rng,
}

impl Turn {
    /// A turn that has not begun.
    pub(crate) fn new(config: Config, now: Now) -> Self {
        Self {
            clock: RunClock::default(),
            now,
            is_open: false,
            started_us: None,
            out: Output::default(),
            alarms: Alarms::default(),
            records: RecentRecords::new(config.first.record),
            facts: FactLine::new(&config.journal),
            totals: Totals::default(),
            charges: Charges::default(),
            random: Rng::new(config.seed),
            kind_names: config.kinds.iter().map(|kind| Arc::from(kind.name.as_str())).collect(),
            config,
        }
    }

    /// Begins a turn that appends to the caller's buffers.
    ///
    /// The monotonic clock never goes back here, because spans are differences; wall time may, and is only shown.
    ///
    /// # Panics
    /// If the turn before has not ended.
    pub(crate) fn begin(&mut self, now: Now, out: &mut Output) {
        assert!(!self.is_open, "a turn begins when the one before has ended");
        self.is_open = true;
        self.now = Now { mono_ns: self.run_ns(now.mono_ns).max(self.now.mono_ns), wall_us: now.wall_us };
        self.started_us.get_or_insert(now.wall_us);
        std::mem::swap(&mut self.out, out);
    }

    /// Ends the turn and gives the caller's buffers back.
    ///
    /// # Panics
    /// If no turn has begun.
    pub(crate) fn end(&mut self, out: &mut Output) {
        assert!(self.is_open, "a turn ends that has begun");
        self.is_open = false;
        std::mem::swap(&mut self.out, out);
    }

    /// Whether no turn has begun, and no decision is left over from the last one.
    pub(crate) fn is_at_rest(&self) -> bool {
        let is_posted = self.charges.is_empty();
        !self.is_open
            && is_posted
            && self.out.actions.is_empty()
            && self.out.records.is_empty()
            && self.out.facts.is_empty()
    }

    /// Whether [`Self::judge_lateness`] has to be called before a turn at this time begins.
    pub(crate) fn is_lateness_in_doubt(&self, now: Now) -> bool {
        self.clock.is_in_doubt(now, self.now.mono_ns)
    }

    /// Judges whether nothing ran since the last turn, which asked for a turn at `asked_ns`.
    pub(crate) fn judge_lateness(&mut self, now: Now, asked_ns: Option<u64>) {
        self.clock.judge(now, self.now.mono_ns, asked_ns);
    }

    /// The latest time for the next turn, if a time that passes counts against somebody.
    pub(crate) fn latest_ns(&self) -> Option<u64> {
        self.clock.latest(self.now.mono_ns, self.alarms.is_charged())
    }

    /// CLOCK_MONOTONIC as the clock of the core.
    pub(crate) fn run_ns(&self, mono_ns: u64) -> u64 {
        self.clock.of(mono_ns)
    }

    /// A time to come, as CLOCK_MONOTONIC.
    pub(crate) fn to_mono_ns(&self, run_ns: u64) -> u64 {
        self.clock.to_mono(run_ns)
    }

    /// The time of the turn: CLOCK_MONOTONIC without pauses, nanoseconds.
    pub(crate) fn now_ns(&self) -> u64 {
        self.now.mono_ns
    }

    /// Wall time, microseconds since 1970.
    pub(crate) fn wall_us(&self) -> u64 {
        self.now.wall_us
    }

    /// The time in `milliseconds` from now, in nanoseconds of [`Self::now_ns`].
    pub(crate) fn after_ms(&self, milliseconds: u64) -> u64 {
        self.now.mono_ns.saturating_add(ms(milliseconds))
    }

    /// Wall time of the first turn; `None` before it.
    pub(crate) fn started_us(&self) -> Option<u64> {
        self.started_us
    }

    /// The configuration.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// The kind of this number.
    pub(crate) fn kind(&self, kind: KindId) -> Option<&Kind> {
        self.config.kinds.get(usize::from(kind.0))
    }

    /// The name of a kind; empty for a number that no kind has.
    pub(crate) fn kind_name(&self, kind: KindId) -> String {
        self.kind(kind).map(|kind| kind.name.clone()).unwrap_or_default()
    }

    /// The name of a kind, shared: a record of each submit is kept for long, and small blocks between those of the jobs would
    /// keep the memory of these from the kernel.
    ///
    /// # Panics
    /// If no kind has this number.
    pub(crate) fn shared_kind_name(&self, kind: KindId) -> Arc<str> {
        Arc::clone(&self.kind_names[usize::from(kind.0)])
    }

    /// Appends an action for the shell.
    ///
    /// # Panics
    /// Between two turns: the action would leave with the next turn.
    pub(crate) fn act(&mut self, action: Action) {
        assert!(self.is_open, "actions belong to a turn");
        self.out.actions.push(action);
    }

    /// Appends a fact; its number.
    ///
    /// # Panics
    /// Between two turns: it would be stored after what waits for it is done.
    pub(crate) fn fact(&mut self, fact: Fact) -> FactNo {
        assert!(self.is_open, "facts belong to a turn");
        let number = self.facts.add(&fact);
        self.out.facts.push(fact);
        number
    }

    /// Which facts are made and not stored.
    pub(crate) fn facts(&self) -> &FactLine {
        &self.facts
    }

    /// All facts up to this one are stored.
    pub(crate) fn facts_stored(&mut self, up_to: FactNo) {
        self.facts.stored(up_to);
    }

    /// This fact never will be stored: nothing waits for it.
    pub(crate) fn fact_refused(&mut self, fact: FactNo) {
        self.facts.refused(fact);
    }

    /// Appends a record; `owner` says who may see all of it.
    ///
    /// # Panics
    /// Between two turns: the record would have the time of the last one.
    pub(crate) fn record(&mut self, what: What, owner: Owner) {
        assert!(self.is_open, "records belong to a turn");
        let record = Record { index: self.records.next_index(), at_us: self.now.wall_us, what };
        self.records.push(record.clone(), owner);
        self.out.records.push(record);
    }

    /// The kept records.
    pub(crate) fn records(&self) -> &RecentRecords {
        &self.records
    }

    /// How many records were made since the last call, by the user of their account; `None`: by the service's.
    pub(crate) fn take_uncharged_records(&mut self) -> impl Iterator<Item = (Option<u32>, u64)> + '_ {
        self.records.take_uncharged()
    }

    /// Drops the oldest record of a user's account, or of the longest line of the service's.
    ///
    /// # Panics
    /// If the account has none.
    pub(crate) fn drop_oldest_record(&mut self, uid: Option<u32>) {
        self.records.drop_oldest(uid);
    }

    /// Nobody reads records: counts of users who have none are forgotten once there are many.
    pub(crate) fn forget_record_counts(&mut self) {
        self.records.forget_counts();
    }

    /// An account holds so much more of a resource.
    pub(crate) fn charge(&mut self, account: AccountId, resource: Resource, count: u64) {
        self.charges.charge(account, resource, count);
    }

    /// An account holds so much less of a resource.
    pub(crate) fn release(&mut self, account: AccountId, resource: Resource, count: u64) {
        self.charges.release(account, resource, count);
    }

    /// Posts what accounts took and gave back since the last call. A turn asks some ten times, and mostly nothing has changed.
    #[inline]
    pub(crate) fn post_charges(&mut self, post: impl FnOnce(&mut Charges)) {
        if !self.charges.is_empty() {
            post(&mut self.charges);
        }
    }

    /// Sets the alarm of a slot, in nanoseconds of [`Self::now_ns`], and cancels an earlier one of the slot.
    ///
    /// # Panics
    /// If another slot has set the same alarm for the same moment: one of the two could not be cancelled.
    pub(crate) fn set(&mut self, slot: &mut AlarmSlot, alarm: Alarm, at_ns: u64) {
        self.alarms.set(slot, alarm, at_ns);
    }

    /// Cancels the alarm of a slot, if one is set.
    pub(crate) fn cancel(&mut self, slot: &mut AlarmSlot, alarm: Alarm) {
        self.alarms.cancel(slot, alarm);
    }

    /// Removes and returns the first alarm whose time has come. Its owner clears the slot.
    pub(crate) fn due(&mut self) -> Option<Alarm> {
        self.alarms.due(self.now.mono_ns)
    }

    /// The time of the next alarm.
    pub(crate) fn next_alarm_ns(&self) -> Option<u64> {
        self.alarms.next_ns()
    }

    /// All set alarms, for the audit.
    pub(crate) fn alarms(&self) -> impl Iterator<Item = &(u64, Alarm)> {
        self.alarms.iter()
    }

    /// A random span between half of `span` and all of it.
    pub(crate) fn jitter(&mut self, span: u64) -> u64 {
        self.random.jitter(span)
    }

    /// Adds to a total.
    pub(crate) fn count(&mut self, what: Counter, count: u64) {
        let totals = &mut self.totals;
        let total = match what {
            Counter::Accepted => &mut totals.accepted,
            Counter::Refused => &mut totals.refused,
            Counter::Retries => &mut totals.retries,
            Counter::Deaths => &mut totals.deaths,
            Counter::Spawned => &mut totals.spawned,
            Counter::TakenBack => &mut totals.taken_back,
            Counter::Stale => &mut totals.stale,
            Counter::Violations => &mut totals.violations,
            Counter::Evicted => &mut totals.evicted,
        };
        *total += count;
    }

    /// Adds to the total of an outcome.
    pub(crate) fn count_end(&mut self, outcome: &Outcome, count: u64) {
        *total_of(&mut self.totals, outcome) += count;
    }

    /// Subtracts jobs that are asked to run again from the total of their outcome: each admitted job counts once, by
    /// its last outcome.
    ///
    /// # Panics
    /// If fewer ends were counted.
    pub(crate) fn uncount_end(&mut self, outcome: &Outcome, count: u64) {
        count_down(total_of(&mut self.totals, outcome), count, "ends of jobs that run again");
    }

    /// The totals since the start.
    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    /// An estimate in milliseconds until there is room for `over` more jobs: the mean rate of ends since the first
    /// turn, or one second while no job has ended.
    pub(crate) fn retry_after_ms(&self, over: u64) -> u64 {
        /// The least and the most of the estimate.
        const RETRY_AFTER_MS: (u64, u64) = (10, 10_000);
        let up_ms = self.now.wall_us.saturating_sub(self.started_us.unwrap_or(0)) / 1000;
        let estimate = match self.totals.done + self.totals.failed {
            0 => 1000,
            ended => over.saturating_mul(up_ms) / ended,
        };
        estimate.clamp(RETRY_AFTER_MS.0, RETRY_AFTER_MS.1)
    }
}

fn total_of<'a>(totals: &'a mut Totals, outcome: &Outcome) -> &'a mut u64 {
    match outcome {
        Outcome::Done => &mut totals.done,
        Outcome::Failed { .. } => &mut totals.failed,
        Outcome::Crashed { .. } => &mut totals.crashed,
        Outcome::TimedOut { .. } => &mut totals.timed_out,
        Outcome::Cancelled => &mut totals.cancelled,
        Outcome::Expired => &mut totals.expired,
        Outcome::Lost { .. } => &mut totals.lost,
    }
}

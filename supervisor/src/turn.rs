//! The event loop, one turn after the other:
//!
//! ```text
//! hear -> batch of events -> core.step(now, batch) -> records, actions -> perform -> flush -> sleep
//! ```
//!
//! Performing an action can produce events (an offer that was not sent, a take-back that was won). The core handles
//! those in the same turn, at most [`ROUNDS`] times. The loop has no ticks and polls nothing: it sleeps in epoll_wait
//! until a descriptor is ready or the nearest deadline has come. It is the only caller of `core.step`.

use std::io;
use std::time::Duration;

use anyhow::{Context, Result};
use bulkhead_core::Core;
use bulkhead_core::action::Output;
use bulkhead_core::event::{Event, Now};
use bulkhead_proto::client::record::{Record, What};
use bulkhead_proto::death::Death;
use bulkhead_sys::clock;
use bulkhead_sys::signals::{self, Signals};
use mio::{Events, Poll};

use crate::client_table::ClientTable;
use crate::heap_trimmer::HeapTrimmer;
use crate::perform::Performer;
use crate::poll_source::PollSource;
use crate::rate_limit::{self, LineAbout};
use crate::socket_watch::SocketReadiness;
use crate::spin_before_sleep::SpinBeforeSleep;

/// Steps of the core in one turn before descriptors are read again.
const ROUNDS: usize = 8;
/// Ready descriptors that one wake-up can report.
const EVENTS: usize = 1024;
/// How long the daemon waits at its end until clients have received their last replies.
const LAST_REPLIES_NS: u64 = 1_000_000_000;
/// How long the daemon waits at its end for the death of what it has killed.
const LAST_DEATHS_NS: u64 = 1_000_000_000;
/// A sleep that ends so much later than asked for shows that the machine or the daemon was stopped; as in the core's
/// `turn/run_clock.rs`.
const LATE_NS: u64 = 1_000_000_000;

/// The loop and all that it drives.
pub(crate) struct EventLoop {
    pub(crate) poll: Poll,
    pub(crate) core: Core,
    pub(crate) performer: Performer,
    pub(crate) signals: Signals,
    pub(crate) spin: SpinBeforeSleep,
    pub(crate) heap: HeapTrimmer,
    /// Flushes for which the core does not wait: it hears them with the next batch.
    pub(crate) late_flushes: Vec<Event>,
    /// The turn before has not polled.
    pub(crate) left_out_poll: bool,
    pub(crate) grace_ms: u64,
    /// When the sleep was to end at the latest, CLOCK_MONOTONIC nanoseconds.
    pub(crate) asked_ns: Option<u64>,
    pub(crate) draining: bool,
    /// The parent of a private daemon has ended.
    pub(crate) orphaned: bool,
}

/// What a loop leaves that has ended.
pub(crate) struct EndedLoop {
    /// Whether it ended because the parent has.
    pub(crate) orphaned: bool,
    /// Connections whose clients have all replies. A client that waits for the end of the daemon takes the end of its
    /// connection for that.
    pub(crate) clients: ClientTable,
}

impl EventLoop {
    /// Runs turns until the core decides to exit, and ends all but the clients' connections.
    pub(crate) fn run(mut self) -> Result<EndedLoop> {
        let mut batch = Vec::new();
        let mut out = Output::default();
        let mut ready = Events::with_capacity(EVENTS);
        while !self.decide(&mut batch, &mut out) {
            self.sleep(&mut ready, &mut batch)?;
            self.collect_events(&ready, &mut batch);
        }
        self.shut_down(&mut ready)
    }

    /// Runs the core and performs its actions. Returns `true` if the daemon shall exit.
    fn decide(&mut self, batch: &mut Vec<Event>, out: &mut Output) -> bool {
        for _ in 0..ROUNDS {
            let now = now();
            self.core.step(now, batch, out);
            batch.clear();
            let leave = self.performer.perform(&mut out.actions, now.mono_ns, batch);
            let expecting = self.spin.is_worth_it(&self.performer.workers, now.mono_ns);
            self.performer.clients.flush(expecting, batch);
            self.set_flushes_aside(batch);
            self.performer.outputs.tell_freed(batch);
            // Records are logged last: the retry of a job whose worker died has been sent by now.
            for record in out.records.drain(..) {
                log_record(&record, self.core.user_of_record(record.index), now.mono_ns);
            }
            self.performer.workers.log_ended_strays();
            if leave {
                return true;
            }
            if batch.is_empty() {
                break;
            }
        }
        false
    }

    /// A job's end is the last that its client waits for: a turn only for the credit would delay the next request.
    fn set_flushes_aside(&mut self, batch: &mut Vec<Event>) {
        let can_wait = |event: &mut Event| matches!(event, Event::ClientFlushed { client } if !self.core.awaits_flush(*client));
        self.late_flushes.extend(batch.extract_if(.., can_wait));
    }

    fn sleep(&mut self, ready: &mut Events, batch: &mut Vec<Event>) -> Result<()> {
        let busy = self.performer.clients.is_busy() || self.performer.workers.is_busy();
        if batch.is_empty() && !busy {
            self.spin.run(&mut self.performer.workers, &mut self.performer.outputs, batch);
            // The end of a short task is answered before descriptors are looked at, every second time at most.
            if !batch.is_empty() && !self.left_out_poll {
                self.left_out_poll = true;
                ready.clear();
                return Ok(());
            }
        }
        self.left_out_poll = false;
        if batch.is_empty() && self.performer.clients.has_delayed() {
            self.performer.clients.flush(false, batch);
        }
        // A connection may have ended, or have taken its last reply.
        self.performer.outputs.tell_freed(batch);
        let busy = busy || self.performer.clients.is_busy();
        let rests = batch.is_empty() && !busy;
        self.heap.turn_over();
        if rests {
            // Before the deadline is taken, which may be that of this.
            self.heap.about_to_sleep(clock::monotonic_ns());
        }
        let mut timeout = if rests { self.until_deadline() } else { Some(Duration::ZERO) };
        let naps = timeout != Some(Duration::ZERO);
        if naps {
            // Announces the sleep in the orders, then reads all boxes once more: a worker that finishes later rings
            // the doorbell.
            self.performer.workers.nap(true);
            self.performer.workers.read_boxes(&mut self.performer.outputs, batch);
            if !batch.is_empty() {
                timeout = Some(Duration::ZERO);
            }
        }
        let polled = self.poll.poll(ready, timeout);
        if naps {
            self.performer.workers.nap(false);
        }
        match polled {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error).context("the poll failed"),
            _ => Ok(()),
        }
    }

    /// Gives clients more time if the loop woke up much later than it had asked for. The core does so by itself.
    fn excuse_lateness(&mut self, now_ns: u64) {
        let late_ns = self.asked_ns.take().map_or(0, |asked_ns| now_ns.saturating_sub(asked_ns));
        if late_ns > LATE_NS {
            log::warn!("the daemon did not run: limits of time go on from where they were late_ns={late_ns}");
            self.performer.clients.postpone_timeouts(late_ns);
        }
    }

    fn until_deadline(&mut self) -> Option<Duration> {
        let of_log = rate_limit::deadline();
        let Performer { clients, workers, .. } = &mut self.performer;
        let heap = self.heap.deadline();
        let deadlines = [self.core.deadline(), clients.deadline(), workers.deadline(), of_log, heap];
        let next = deadlines.into_iter().flatten().min()?;
        self.asked_ns = Some(next);
        Some(Duration::from_nanos(next.saturating_sub(clock::monotonic_ns())))
    }

    /// Turns all that is ready into events: deaths and results first, then the requests of clients.
    fn collect_events(&mut self, ready: &Events, batch: &mut Vec<Event>) {
        batch.append(&mut self.late_flushes);
        let now_ns = clock::monotonic_ns();
        self.excuse_lateness(now_ns);
        rate_limit::log_counts(now_ns);
        let (mut signalled, mut parent_gone, mut outer_gone) = (false, false, false);
        for event in ready {
            match PollSource::of(event.token()) {
                Some(PollSource::Listener) => self.performer.clients.mark_acceptable(),
                Some(PollSource::Signals) => signalled = true,
                Some(PollSource::Bootstrap) | None => {}
                Some(PollSource::Parent) => parent_gone |= event.is_read_closed(),
                Some(PollSource::Outer) => outer_gone = true,
                Some(PollSource::Client(client)) => {
                    self.performer.clients.mark_ready(client, SocketReadiness::of(event))
                }
                Some(PollSource::Lane(worker)) => self.performer.workers.mark_lane_readable(worker),
                Some(PollSource::Death(worker)) => self.performer.workers.mark_dying(worker),
                Some(PollSource::Doorbell(worker)) => self.performer.workers.count_rings(worker),
            }
        }
        if signalled {
            self.handle_signals(batch);
        }
        if parent_gone {
            log::info!("the parent has ended: stopping");
            batch.push(Event::Stop);
            self.orphaned = true;
        }
        if outer_gone {
            log::warn!("the outer process, with which this daemon was started, has ended: stopping");
            batch.push(Event::Stop);
        }
        let Performer { clients, workers, outputs, .. } = &mut self.performer;
        workers.take_bootstrap_results(batch);
        workers.read_boxes(outputs, batch);
        workers.collect_stops(batch);
        // Deaths before lanes: a worker whose death is proven needs no hang-up event.
        workers.reap_dead(outputs, batch);
        workers.drop_dead_when_due(now_ns);
        workers.read_lanes(batch);
        clients.accept(now_ns);
        clients.read(now_ns, batch);
        clients.run_timers(now_ns);
    }

    fn handle_signals(&mut self, batch: &mut Vec<Event>) {
        for signal in self.signals.pending() {
            match signal {
                signals::TERM | signals::HUP if !self.draining => {
                    log::info!("asked to stop: draining grace_ms={}", self.grace_ms);
                    self.draining = true;
                    self.performer.notifier.stopping();
                    batch.push(Event::Drain { grace_ms: Some(self.grace_ms) });
                }
                signals::TERM | signals::HUP | signals::INT => {
                    log::info!("asked to stop at once signal={signal}");
                    batch.push(Event::Stop);
                }
                // Workers that end are found through their pidfds in this same turn.
                signals::CHLD => self.performer.workers.mark_child_changed(),
                _ => {}
            }
        }
    }

    /// Sends the clients their last replies, for at most [`LAST_REPLIES_NS`], and ends the processes that are left.
    fn shut_down(mut self, ready: &mut Events) -> Result<EndedLoop> {
        let end_ns = clock::monotonic_ns() + LAST_REPLIES_NS;
        while self.performer.clients.have_unsent() {
            let now_ns = clock::monotonic_ns();
            if now_ns >= end_ns {
                log::warn!("some clients did not take their last replies");
                break;
            }
            let most_ns = if self.performer.clients.is_sending() { 0 } else { end_ns - now_ns };
            if let Err(error) = self.poll.poll(ready, Some(Duration::from_nanos(most_ns)))
                && error.kind() != io::ErrorKind::Interrupted
            {
                log::warn!("cannot wait until the last replies are sent error={error}");
                break;
            }
            for event in &*ready {
                if let Some(PollSource::Client(client)) = PollSource::of(event.token()) {
                    self.performer.clients.mark_ready(client, SocketReadiness::of(event));
                }
            }
            self.performer.clients.flush(false, &mut Vec::new());
        }
        self.end_last_processes(ready);
        log::info!("stopped");
        let Self { performer: Performer { clients, .. }, orphaned, .. } = self;
        Ok(EndedLoop { orphaned, clients })
    }

    /// Kills what is left of all workers, waits for its death, for at most [`LAST_DEATHS_NS`], and names what outlives the
    /// daemon.
    fn end_last_processes(&mut self, ready: &mut Events) {
        let end_ns = clock::monotonic_ns() + LAST_DEATHS_NS;
        while self.performer.workers.end_all() {
            let left_ns = end_ns.saturating_sub(clock::monotonic_ns());
            let waited = self.poll.poll(ready, Some(Duration::from_nanos(left_ns)));
            self.signals.pending();
            if left_ns == 0 || waited.is_err_and(|error| error.kind() != io::ErrorKind::Interrupted) {
                break;
            }
        }
        self.performer.workers.log_ended_strays();
        self.performer.workers.name_the_rest();
    }
}

/// Reads both clocks.
pub(crate) fn now() -> Now {
    Now { mono_ns: clock::monotonic_ns(), wall_us: clock::wall_us() }
}

/// Which limit the line of a record has. `None`: it has none, because jobs do not provoke it, or it is not logged.
fn line_about(what: &What, user: Option<u32>) -> Option<LineAbout> {
    match (what, user) {
        (
            What::Accepted { .. }
            | What::Started { .. }
            | What::SpawnFailed { .. }
            | What::Degraded { .. }
            | What::Recovered { .. }
            | What::Short { .. }
            | What::Reloaded { .. }
            | What::JournalFailed { .. }
            | What::JournalRecovered
            | What::Draining { .. }
            | What::Stopped,
            _,
        ) => None,
        (_, Some(uid)) => Some(LineAbout::EventsOf(uid)),
        (
            What::Spawned { .. }
            | What::Ready { .. }
            | What::Placed { .. }
            | What::Lent { .. }
            | What::TakenIn { .. }
            | What::WorkerGone { .. }
            | What::Killing { .. }
            | What::Died { .. }
            | What::Stuck { .. }
            | What::LivesOn { .. }
            | What::Suspended { .. }
            | What::Resumed { .. }
            | What::SuspendedOften { .. }
            | What::ProgramStopped { .. }
            | What::ProgramContinued { .. }
            | What::Blamed { .. }
            | What::NobodyBlamed { .. }
            | What::Requeued { .. }
            | What::Retried { .. }
            | What::Backoff { .. }
            | What::Ended { .. }
            | What::EndedQueued { .. }
            | What::RetryAsked { .. }
            | What::Evicted { .. }
            | What::Kindless { .. }
            | What::Recycled { .. },
            None,
        ) => Some(LineAbout::Workers),
    }
}

/// Logs a record of this user, unless there are too many of them: they can be provoked.
fn log_record(record: &Record, user: Option<u32>, now_ns: u64) {
    if let Some(about) = line_about(&record.what, user)
        && !rate_limit::may_log(about, now_ns)
    {
        return;
    }
    match &record.what {
        What::Accepted { .. } => log::debug!("{}", record.what),
        What::Died { death: Death::Retired, .. } => log::info!("{}", record.what),
        What::Died { .. }
        | What::SpawnFailed { .. }
        | What::Stuck { .. }
        | What::LivesOn { .. }
        | What::JournalFailed { .. }
        | What::Kindless { .. }
        | What::Degraded { .. } => {
            log::warn!("{}", record.what);
        }
        What::Started { .. }
        | What::Spawned { .. }
        | What::Ready { .. }
        | What::Placed { .. }
        | What::Lent { .. }
        | What::TakenIn { .. }
        | What::WorkerGone { .. }
        | What::Killing { .. }
        | What::Suspended { .. }
        | What::Resumed { .. }
        | What::SuspendedOften { .. }
        | What::ProgramStopped { .. }
        | What::ProgramContinued { .. }
        | What::Blamed { .. }
        | What::NobodyBlamed { .. }
        | What::Requeued { .. }
        | What::Retried { .. }
        | What::Backoff { .. }
        | What::Ended { .. }
        | What::EndedQueued { .. }
        | What::RetryAsked { .. }
        | What::Recovered { .. }
        | What::Short { .. }
        | What::Reloaded { .. }
        | What::JournalRecovered
        | What::Evicted { .. }
        | What::Draining { .. }
        | What::Stopped
        | What::Recycled { .. } => log::info!("{}", record.what),
    }
}

#[cfg(test)]
mod tests;

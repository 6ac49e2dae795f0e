//! The machine: the rooms that it owns, and the order of one turn.
//!
//! `step` handles all events in their order, then the alarms whose time has come. Then it decides: tasks for workers,
//! results for clients, evictions, spawns, the end of a drain. Everything that concerns more than one room has a file here;
//! this file only calls them.

mod admission;
mod alarms;
mod audit;
mod cancel;
mod cancel_waiting;
mod clients;
mod death;
mod deliver;
mod dispatch;
mod drain;
mod durable;
mod end;
mod evict;
mod held_back;
mod lend;
mod limits;
mod look_up;
mod look_up_changes;
mod look_up_log;
mod notices;
mod on_demand;
mod outputs;
mod parked;
mod parts;
mod progress;
mod registrations;
mod reload;
mod requests;
mod settle;
mod spares;
mod submit;
mod survivors;
#[cfg(test)]
mod tests;
mod workers;

use bulkhead_proto::ids::JobId;
use bulkhead_proto::limits::{DEATHS_KEPT, LOOK_UPS_MAX, READERS_MAX, REGISTRATIONS_MAX, WAITS_MAX};

use crate::account::{Ledger, Resource};
use crate::action::Output;
use crate::client::Clients;
use crate::config::{Config, RunNumbers};
use crate::event::{Event, Now};
use crate::job::{Jobs, Ticket};
use crate::machine::cancel_waiting::WaitingCancels;
use crate::machine::drain::Drain;
use crate::machine::durable::JournalState;
use crate::machine::held_back::HeldLine;
use crate::machine::look_up_log::LookUpLog;
use crate::machine::parked::ParkedLine;
use crate::turn::{Owner, Turn, submit_bounds};
use crate::worker::Workers;

/// Offers and workers, with the ticket that jobs give.
type JobOffer = crate::worker::Offer<Ticket>;
type JobWorker = crate::worker::Worker<Ticket>;

/// A ledger with the bounds that the core decides by.
fn ledger_of(config: &Config) -> Ledger {
    let (submits, submit_bytes) = submit_bounds(&config.journal);
    let bounds = [
        (Resource::Queue, config.queue_max),
        (Resource::QueueBytes, config.queue_bytes_max),
        (Resource::Files, config.files_max),
        (Resource::FileBytes, config.files_bytes_max),
        (Resource::ArenaBytes, config.arena_bytes_max),
        (Resource::Registrations, REGISTRATIONS_MAX),
        (Resource::Waits, WAITS_MAX),
        (Resource::LookUps, LOOK_UPS_MAX),
        (Resource::Submits, submits),
        (Resource::SubmitBytes, submit_bytes),
        (Resource::Readers, READERS_MAX),
        (Resource::UnreadResults, config.keep_bytes_max),
        (Resource::Kept, config.keep_jobs_max),
        (Resource::KeptBytes, config.keep_bytes_max),
        (Resource::KeptOutputs, config.keep_outputs_max),
        (Resource::OutputBytes, config.outputs_bytes_max),
        (Resource::OpenOutputs, config.open_outputs_max),
        (Resource::Quarantined, config.quarantine_max),
        (Resource::Logs, config.keep_logs_max),
        (Resource::Records, config.records_max.max(1) as u64),
        (Resource::Deaths, DEATHS_KEPT as u64),
    ];
    Ledger::new(config.users, &bounds, config.lowered)
}

/// The state machine of the daemon.
#[derive(Debug)]
pub struct Core {
    turn: Turn,
    jobs: Jobs,
    workers: Workers<Ticket>,
    clients: Clients,
    ledger: Ledger,
    drain: Drain,
    parked: ParkedLine,
    waiting_cancels: WaitingCancels,
    look_ups: LookUpLog,
    journal: JournalState,
    held_back: HeldLine,
    /// A search for idle workers was longer than one take: the next turn begins at once.
    is_searching: bool,
}

impl Core {
    /// A machine with no jobs and no workers; its first turn spawns the pools. At least one slot of each
    /// is used, and one core, whatever the configuration says.
    pub fn new(mut config: Config, now: Now) -> Self {
        config.slots = config.slots.max(1);
        config.running_max = config.running_max.map(|most| most.max(1));
        config.ageing_ms = config.ageing_ms.max(1);
        config.cores = config.cores.max(1);
        for pool in &mut config.pools {
            pool.slots = pool.slots.max(1);
            pool.running_max = pool.running_max.map(|most| most.max(1));
        }
        let names: Vec<String> = config.all_pools().map(|pool| pool.name).collect();
        for at in 0..config.kinds.len() {
            let pool = config.pool_of(&config.kinds[at]);
            let usual = config.usual_output_max(pool);
            let kind = &mut config.kinds[at];
            kind.output_max_bytes.get_or_insert(usual);
            kind.pool.clone_from(&names[usize::from(pool.0)]);
            kind.limits = kind.limits.over(config.limits);
        }
        Self {
            jobs: Jobs::new(config.all_pools().count(), config.first_job(), config.first),
            clients: Clients::default(),
            workers: Workers::new(&config),
            ledger: ledger_of(&config),
            drain: Drain::default(),
            parked: ParkedLine::default(),
            waiting_cancels: WaitingCancels::default(),
            look_ups: LookUpLog::default(),
            journal: JournalState::new(&config.journal),
            held_back: HeldLine::default(),
            is_searching: false,
            turn: Turn::new(config, now),
        }
    }

    /// One turn: takes all events of `batch`, and appends records and actions to `out`.
    ///
    /// # Panics
    /// If the shell breaks a promise of `event.rs` (a client number used twice), or the machine has a fault.
    pub fn step(&mut self, now: Now, batch: &mut Vec<Event>, out: &mut Output) {
        if self.turn.is_lateness_in_doubt(now) {
            let asked_ns = self.asked_ns();
            self.turn.judge_lateness(now, asked_ns);
        }
        self.turn.begin(now, out);
        for event in batch.drain(..) {
            self.hear(event);
        }
        self.ring_due();
        self.end_due();
        self.jobs.nothing_leaves();
        // In this order: a spare that takes a slot can be given a task at once, and a spawn, which blocks for about a
        // millisecond, comes after tasks and results.
        // Before that a lent worker, which is warm too and ends a loan.
        self.workers.take_in(&mut self.turn);
        self.workers.place_spares(&mut self.turn);
        if !self.drain.is_leaving() {
            self.workers.recycle(&mut self.turn);
        }
        self.dispatch();
        self.deliver();
        self.evict_outputs();
        self.evict();
        self.unpark_read();
        // After the last offer of the turn, for each may bring a log.
        self.evict_logs();
        self.evict_deaths();
        self.jobs.tell_evicted(&mut self.turn);
        // After the last end of the turn, and before the record that the daemon stops.
        self.jobs.record_unbegun(&mut self.turn);
        self.tend_drain();
        self.need_spares();
        self.workers.tend(&mut self.turn, self.drain.is_leaving());
        self.evict_records();
        self.clients.follow_all(&mut self.turn);
        self.unname();
        self.post_charges();
        self.turn.end(out);
    }

    /// The user whose record this is; `None`: it is the service's or of several users, or was dropped. Asked for records of
    /// the last turn.
    pub fn user_of_record(&self, index: u64) -> Option<u32> {
        let (_, owner) =
            self.turn.records().from(index).next().filter(|(record, _)| record.index == index)?;
        match owner {
            Owner::User(uid) => Some(*uid),
            Owner::Service | Owner::Administrators => None,
        }
    }

    /// The number that the next job gets.
    pub fn next_job(&self) -> JobId {
        JobId(self.jobs.last_id().0 + 1)
    }

    /// The numbers that are given out next. Asked often: it costs a few loads.
    pub fn next_numbers(&self) -> RunNumbers {
        let (scratch, log) = self.jobs.next_files();
        RunNumbers {
            worker: self.workers.next_number(),
            record: self.turn.records().next_index(),
            scratch,
            log,
        }
    }

    /// When the machine wants to be woken, on CLOCK_MONOTONIC in nanoseconds, if it does.
    pub fn deadline(&self) -> Option<u64> {
        self.asked_ns().map(|at_ns| self.turn.to_mono_ns(at_ns))
    }

    /// The same on the clock of the turns.
    fn asked_ns(&self) -> Option<u64> {
        // Alarms of jobs and clients may still be set; after the exit they have no effect.
        if self.drain.is_over() {
            return None;
        }
        let next_spawns = self.workers.pool_ids();
        let next_spawns = next_spawns.map(|pool| self.workers.next_spawn_ns(pool, self.drain.is_leaving()));
        let alone = [
            self.letters_due_ns(),
            self.is_more_to_do().then_some(self.turn.now_ns()),
            self.turn.next_alarm_ns(),
            self.turn.latest_ns(),
            self.jobs.next_eviction_ns(&self.turn),
        ];
        alone.into_iter().chain(next_spawns).flatten().min()
    }

    /// Whether the last turn had no room for all: the next one begins at once.
    fn is_more_to_do(&self) -> bool {
        self.is_searching || self.jobs.has_due() || self.parked.has_due()
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::ClientConnected { client, peer } => self.client_connected(client, peer),
            Event::ClientSaid { client, tag, request, files } => self.asked(client, tag, request, files),
            Event::ClientFlushed { client } => self.client_flushed(client),
            Event::ClientGone { client } => self.client_gone(client),
            Event::WorkerSpawned { worker, pid } => self.workers.spawned(&mut self.turn, worker, pid),
            Event::SpawnFailed { worker, error } => self.spawn_failed(worker, error),
            Event::WorkerReady { worker, writes_stack } => {
                if writes_stack {
                    self.workers.note_writes_stack(worker);
                }
                self.workers.ready(&mut self.turn, worker);
            }
            Event::BootstrapFailed { worker, error } => self.bootstrap_failed(worker, error),
            Event::OfferFailed { worker, seq, taken, shortage } => {
                self.offer_failed(worker, seq, taken, shortage);
            }
            Event::OutputNeeded { worker, seq } => self.output_needed(worker, seq),
            Event::OutputShort { worker, seq, shortage } => self.output_short(worker, seq, &shortage),
            Event::TookBack { worker, seq, won } => self.took_back(worker, seq, won),
            Event::Looked { worker, head } => self.looked(worker, head),
            Event::Examined { worker, seen, progress_ns, progress } => {
                let progress_ns = progress_ns.map(|mono_ns| self.turn.run_ns(mono_ns));
                self.examined(worker, seen, progress_ns, progress);
            }
            Event::Suspended { worker, signal } => self.stopped(worker, signal),
            Event::Resumed { worker } => self.workers.continued(&mut self.turn, worker),
            Event::ProgramStopped { worker, seq, pid, signal } => {
                self.program_stopped(worker, seq, (pid, signal));
            }
            Event::ProgramContinued { worker, seq } => self.program_continued(worker, seq),
            Event::Unclosed { worker, files } => self.workers.note_unclosed(worker, files),
            Event::Finished { worker, seq, report } => self.finished(worker, seq, report),
            Event::LiveOn { left } => self.live_on(left),
            Event::Violated { worker, violation } => self.violated(worker, violation),
            Event::HungUp { worker } => self.workers.hung_up(&mut self.turn, worker),
            Event::Died { worker, end, evidence, noticed_after_us, remains } => {
                self.died(worker, end, noticed_after_us, &remains, evidence);
            }
            Event::OutputClosed { output } => self.jobs.output_closed(output),
            Event::LogClosed { log } => self.jobs.log_closed(log),
            Event::OutputFreed { output } => self.jobs.output_freed(output),
            Event::LogFreed { log } => self.jobs.log_freed(log),
            Event::Stored { up_to } => self.facts_stored(up_to),
            Event::NotStored { from, to, why } => self.submits_not_stored((from, to), &why),
            Event::KeyKnown { fact, first, count, is_same } => self.key_known(fact, (first, count), is_same),
            Event::JournalFailed { why } => self.journal_failed(why),
            Event::JournalRecovered => self.journal_recovered(),
            Event::JournalEvicted { jobs } => self.journal_evicted(&jobs),
            Event::Reloaded { jobs, is_all } => self.chunk_reloaded(jobs, is_all),
            Event::JobsReserved { end } => self.jobs_reserved(end),
            Event::LookedUp { number, client, found } => self.looked_up(number, client, found),
            Event::Drain { grace_ms } => self.begin_drain(grace_ms),
            Event::Stop => self.stop(),
        }
    }
}

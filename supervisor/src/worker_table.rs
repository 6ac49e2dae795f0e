//! All workers: spawns them, connects to them, reads their lanes and boxes, and reports their deaths (`reaping.rs`).
//!
//! It turns what it sees into events, in the order that the core needs: results before the death of their worker. It
//! decides nothing about jobs and never blocks. Driven by `turn.rs` and `perform.rs`.

mod output_answers;
mod reaping;
pub(crate) mod registrations;
mod stops;
mod survivors;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use anyhow::{Context, Result};
use bulkhead_core::event::{Event, Leftover, Report, TaskResult};
use bulkhead_link::supervisor::{FailureOutput, FinishedResult, FinishedTask};
use bulkhead_proto::death::Violation;
use bulkhead_proto::ids::{OutputId, PoolId, WorkerId};
use bulkhead_proto::worker::message::Tasks;
use bulkhead_sys::shortage;
use bulkhead_sys::tree::{EndedStrays, RemainingStrays};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Waker};

use crate::bootstrap::{Bootstrap, BootstrapResult};
use crate::deferred_close::DeferredClose;
use crate::offer_files::OfferFiles;
use crate::output_store::OutputStore;
use crate::poll_source::PollSource;
use crate::spawn::WorkerTemplate;
pub(crate) use output_answers::OutputAnswer;

use crate::worker_process::{LaneRead, WorkerProcess};
use crate::worker_stage::{WorkerPhase, WorkerStage};
use crate::worker_table::registrations::ToldUnclosed;

/// All workers.
pub(crate) struct WorkerTable {
    template: WorkerTemplate,
    registry: Registry,
    /// A worker has too many files of clients to close. It does not ring when it has closed them.
    waits_for_closes: bool,
    bootstrap: Bootstrap,
    workers: BTreeMap<WorkerId, WorkerProcess>,
    /// Workers whose lanes may have frames to read.
    readable_lanes: BTreeSet<WorkerId>,
    /// Workers whose pidfd has reported their end.
    dying: BTreeSet<WorkerId>,
    /// A child has ended since the last sweep for orphans and strays.
    child_ended: bool,
    /// A child may have been stopped or continued.
    may_have_stops: bool,
    /// Set while sweeps fail: when to retry.
    sweep_retry_ns: Option<u64>,
    /// The strays that were alive after the last sweep.
    remaining_strays: RemainingStrays,
    ended_strays: EndedStrays,
    /// The strays that the core was told it cannot end.
    told_survivors: Vec<u32>,
    /// Workers whose deaths were reported, and when to drop what is left of them.
    dead: Vec<WorkerProcess>,
    drop_dead_ns: Option<u64>,
    /// The arenas of workers that have died since they were last asked for.
    ended_arenas: Vec<u64>,
    found: Vec<FinishedTask>,
}

impl WorkerTable {
    /// A table without workers. They will be registered with the poll of `registry`.
    pub(crate) fn new(template: WorkerTemplate, registry: Registry, waker: Arc<Waker>) -> Self {
        let bootstrap = Bootstrap::new(waker);
        Self {
            template,
            registry,
            bootstrap,
            workers: BTreeMap::new(),
            readable_lanes: BTreeSet::new(),
            dying: BTreeSet::new(),
            child_ended: false,
            may_have_stops: false,
            sweep_retry_ns: None,
            remaining_strays: RemainingStrays::default(),
            ended_strays: EndedStrays::default(),
            told_survivors: Vec::new(),
            dead: Vec::new(),
            drop_dead_ns: None,
            ended_arenas: Vec::new(),
            found: Vec::new(),
            waits_for_closes: false,
        }
    }

    /// A worker, unless its death was reported.
    pub(crate) fn get(&mut self, worker: WorkerId) -> Option<&mut WorkerProcess> {
        self.workers.get_mut(&worker)
    }

    /// A lane became readable or hung up.
    pub(crate) fn mark_lane_readable(&mut self, worker: WorkerId) {
        self.readable_lanes.insert(worker);
    }

    /// Counts the rings of a worker, whose box is read in each turn anyway. One that rings too often is ended with its lane.
    pub(crate) fn count_rings(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.rings = worker.rings.saturating_add(worker.doorbell.hear());
        if worker.rings > worker.naps {
            self.readable_lanes.insert(id);
        }
    }

    /// Whether there is work left for the next turn, so that the loop must not sleep.
    pub(crate) fn is_busy(&self) -> bool {
        !self.readable_lanes.is_empty() || self.may_have_stops
    }

    /// The arenas of workers that have died since the last call.
    pub(crate) fn take_ended_arenas(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.ended_arenas)
    }

    /// Spawns a worker. Returns the event of its success or failure.
    pub(crate) fn spawn(&mut self, worker: WorkerId, pool: PoolId) -> Event {
        // Dead workers are dropped first, so that a replacement does not need descriptors beside theirs.
        self.drop_dead();
        match self.template.spawn(worker, pool).and_then(|made| self.watch(made)) {
            Ok(pid) => Event::WorkerSpawned { worker, pid },
            Err(error) => {
                let remedy = error.chain().find_map(|cause| cause.downcast_ref().and_then(shortage::remedy));
                let remedy = remedy.map(|remedy| format!("; {remedy}")).unwrap_or_default();
                Event::SpawnFailed { worker, error: format!("{error:#}{remedy}") }
            }
        }
    }

    fn watch(&mut self, made: WorkerProcess) -> Result<u32> {
        let sources = [PollSource::Lane(made.id), PollSource::Death(made.id), PollSource::Doorbell(made.id)];
        for (descriptor, source) in made.descriptors().into_iter().zip(sources) {
            let registered = self.registry.register(
                &mut SourceFd(&descriptor.as_raw_fd()),
                source.token(),
                Interest::READABLE,
            );
            if let Err(error) = registered {
                // Its death would go unnoticed, so it is killed and not counted as spawned. As an unknown child it is
                // reaped with the orphans.
                drop(made.tree.kill());
                return Err(error).context("cannot watch the new worker");
            }
        }
        let pid = made.tree.process().pid();
        self.workers.insert(made.id, made);
        Ok(pid)
    }

    /// Reads the lanes that may have frames.
    pub(crate) fn read_lanes(&mut self, events: &mut Vec<Event>) {
        for id in std::mem::take(&mut self.readable_lanes) {
            self.send_forgets(id, events);
            self.send_answer(id, events);
            let Some(worker) = self.workers.get_mut(&id) else { continue };
            match worker.read_lane() {
                LaneRead::Nothing => {}
                LaneRead::More => drop(self.readable_lanes.insert(id)),
                LaneRead::Ended(event) => events.push(*event),
                LaneRead::NeedsOutput(seq) => {
                    self.readable_lanes.insert(id);
                    events.push(Event::OutputNeeded { worker: id, seq });
                }
                LaneRead::MissingKinds(missing) => {
                    let error = self.template.describe_missing_kinds(worker.program.as_ref(), &missing);
                    events.push(Event::BootstrapFailed { worker: id, error });
                }
                LaneRead::Hello { path, stack_text } => {
                    worker.sampler.retry_open(worker.tree.process());
                    if let Err(error) = worker.give_stack_page(stack_text) {
                        let error =
                            format!("no page for the text of its stack: {}", shortage::explain(&error));
                        events.push(Event::BootstrapFailed { worker: id, error });
                        continue;
                    }
                    let pid = worker.tree.process().pid();
                    if let Err(error) = self.bootstrap.start(id, pid, path, worker.folder.path().to_owned()) {
                        let error = format!("no thread to connect to it: {}", shortage::explain(&error));
                        events.push(Event::BootstrapFailed { worker: id, error });
                    }
                    self.readable_lanes.insert(id);
                }
            }
        }
    }

    /// Handles the results of bootstrap threads.
    pub(crate) fn take_bootstrap_results(&mut self, events: &mut Vec<Event>) {
        for BootstrapResult { worker: id, sender } in self.bootstrap.results() {
            // The worker may have died or broken a rule meanwhile; then the drop of the channel asks it to exit.
            let sender = sender.map(|sender| DeferredClose::new(sender, self.template.closer.clone()));
            let Some(worker) = self.workers.get_mut(&id) else { continue };
            if worker.reached.stage().phase() != WorkerPhase::Connecting {
                continue;
            }
            match sender {
                Ok(sender) => {
                    worker.reached.enter(WorkerStage::Ready(sender));
                    events.push(Event::WorkerReady { worker: id, writes_stack: worker.writes_stack });
                }
                Err(error) => {
                    worker.reached.close();
                    events.push(if error.is_violation() {
                        log::warn!("a worker's hello breaks a rule worker={id} error=\"{error}\"");
                        Event::Violated { worker: id, violation: Violation::Hello }
                    } else {
                        Event::BootstrapFailed { worker: id, error: error.to_string() }
                    });
                }
            }
        }
    }

    /// Reads the boxes of all workers that hold offers, and of others whether they have files of clients to close.
    pub(crate) fn read_boxes(&mut self, outputs: &mut OutputStore, events: &mut Vec<Event>) {
        let mut waits_for_closes = false;
        for worker in self.workers.values_mut() {
            if worker.ring.has_outstanding() {
                read_box(worker, &mut self.found, outputs, events);
            } else if worker.has_forgotten {
                events.extend(worker.unclosed_event());
            }
            waits_for_closes |= worker.told_unclosed == ToldUnclosed::Many;
        }
        self.waits_for_closes = waits_for_closes;
    }

    /// Whether a worker whose last task took less than `limit_ns` is running one.
    pub(crate) fn expects_result_within(&self, limit_ns: u64) -> bool {
        let is_quick =
            |worker: &WorkerProcess| worker.last_elapsed_ns.is_some_and(|elapsed| elapsed < limit_ns);
        self.workers.values().any(|worker| worker.ring.has_outstanding() && is_quick(worker))
    }

    /// Reads the box of one worker.
    pub(crate) fn read_box(&mut self, id: WorkerId, outputs: &mut OutputStore, events: &mut Vec<Event>) {
        if let Some(worker) = self.workers.get_mut(&id) {
            read_box(worker, &mut self.found, outputs, events);
        }
    }

    /// Announces to all workers with offers whether the loop sleeps.
    pub(crate) fn nap(&mut self, asleep: bool) {
        for worker in self.workers.values_mut() {
            worker.nap(asleep);
        }
    }

    /// Sends tasks to a worker. Returns `false` if none was sent, because the channel is full or closed.
    pub(crate) fn send(&self, worker: WorkerId, tasks: &Tasks) -> bool {
        match self.workers.get(&worker).map(|worker| worker.reached.stage()) {
            Some(WorkerStage::Ready(sender)) => sender.send(tasks).is_ok(),
            _ => false,
        }
    }
}

fn read_box(
    worker: &mut WorkerProcess,
    found: &mut Vec<FinishedTask>,
    outputs: &mut OutputStore,
    events: &mut Vec<Event>,
) {
    let violation = worker.read_box(found);
    // The worker leaves after a task that has left processes, so they are those of the last one.
    let mut survivors = if found.is_empty() { Vec::new() } else { worker.survivors() };
    let last = found.last().map(|task| task.seq);
    for FinishedTask { seq, elapsed_ns, result } in found.drain(..) {
        worker.last_elapsed_ns = Some(elapsed_ns);
        // The files of the offer are dropped here, since its result is known.
        let files = worker.offer_files.remove(&seq);
        let result = match (result, files) {
            (FinishedResult::Inline(payload), _) => Ok(TaskResult::Inline(payload)),
            (FinishedResult::Failed { message, program, output }, files) => {
                failure_output(output, files, outputs).map(|output| TaskResult::Failed {
                    message,
                    program,
                    output,
                })
            }
            (FinishedResult::Block { offset, bytes }, _) => {
                match (worker.take_arena_offer(seq), &worker.arena) {
                    (true, Some(arena)) => {
                        let output = outputs.hold_block(arena, (offset, bytes));
                        Ok(TaskResult::InArena { output, bytes })
                    }
                    _ => Err(Violation::Result),
                }
            }
            (FinishedResult::Descriptor { bytes }, Some(files)) => files.take_output(bytes, outputs),
            (FinishedResult::Descriptor { .. }, None) => Err(Violation::Result),
        };
        match result {
            Ok(result) => {
                let survivors = if last == Some(seq) { std::mem::take(&mut survivors) } else { Vec::new() };
                let output_bytes = output_of(&result).map_or(0, |output| outputs.counted_bytes(output));
                let report = Report { result, elapsed_ns, output_bytes, survivors };
                events.push(Event::Finished { worker: worker.id, seq, report });
            }
            Err(violation) => {
                worker.disputed.push(seq);
                events.push(Event::Violated { worker: worker.id, violation });
            }
        }
    }
    events.extend(violation);
    // After the results: a change is about the first task that has none.
    events.extend(worker.program_event());
    events.extend(worker.unclosed_event());
}

/// The output that a result brings.
fn output_of(result: &TaskResult) -> Option<OutputId> {
    match result {
        TaskResult::Held { output, .. }
        | TaskResult::Planned { output, .. }
        | TaskResult::Failed { output: Leftover::Held { output, .. }, .. } => Some(*output),
        TaskResult::Inline(_) | TaskResult::InArena { .. } | TaskResult::Failed { .. } => None,
    }
}

/// The output that a failed task left, in the box or in its output file.
fn failure_output(
    left: FailureOutput,
    files: Option<OfferFiles>,
    outputs: &mut OutputStore,
) -> std::result::Result<Leftover, Violation> {
    match left {
        FailureOutput::Nothing => Ok(Leftover::Nothing),
        FailureOutput::Inline(payload) => Ok(Leftover::Inline(payload)),
        FailureOutput::Descriptor { bytes } => {
            files.ok_or(Violation::Result)?.take_failure_output(bytes, outputs)
        }
    }
}

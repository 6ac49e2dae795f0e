//! Performs the actions that the core returned, in their order, and never blocks.
//!
//! All offers of one turn to one worker are sent in as few messages as possible, because a message costs as much as
//! some hundred short tasks. An action that fails becomes an event, which the core handles in the same turn. Driven
//! by `turn.rs`.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};

use bulkhead_core::action::{Action, Task};
use bulkhead_core::event::Event;
use bulkhead_link::supervisor::encoded_size;
use bulkhead_proto::client::message::{Reply, ReplyFrame};
use bulkhead_proto::ids::{ClientId, LogId, OutputId, Seq, Tag, WorkerId};
use bulkhead_proto::job::OutputMode;
use bulkhead_proto::limits::TASK_MESSAGE_MAX_BYTES;
use bulkhead_proto::worker::message::{TaskMessage, Tasks};
use bulkhead_sys::{clock, shortage};

use crate::client_files::ClientFileStore;
use crate::client_table::ClientTable;
use crate::journal::{DaemonJournal, LookUpQuestion};
use crate::offer_files::OfferFiles;
use crate::output_store::OutputStore;
use crate::rate_limit::{self, LineAbout};
use crate::service_notifier::ServiceNotifier;
use crate::worker_process::WorkerProcess;
use crate::worker_table::{WorkerTable, registrations};

/// Tasks for one worker that will be sent in one message.
#[derive(Default)]
struct Bundle {
    bytes: usize,
    tasks: Tasks,
}

/// Everything that the actions of the core act on.
pub(crate) struct Performer {
    pub(crate) clients: ClientTable,
    pub(crate) workers: WorkerTable,
    pub(crate) outputs: OutputStore,
    pub(crate) notifier: ServiceNotifier,
    pub(crate) journal: DaemonJournal,
    bundles: BTreeMap<WorkerId, Bundle>,
}

impl Performer {
    /// A performer for these parts.
    pub(crate) fn new(
        clients: ClientTable,
        workers: WorkerTable,
        outputs: OutputStore,
        notifier: ServiceNotifier,
        journal: DaemonJournal,
    ) -> Self {
        Self { clients, workers, outputs, notifier, journal, bundles: BTreeMap::new() }
    }

    /// Performs all of `actions`. Returns `true` if the daemon shall exit.
    pub(crate) fn perform(
        &mut self,
        actions: &mut Vec<Action>,
        now_ns: u64,
        events: &mut Vec<Event>,
    ) -> bool {
        let mut leave = false;
        for arena in self.workers.take_ended_arenas() {
            self.clients.arena_over(arena);
        }
        for action in actions.drain(..) {
            if follows_offers(&action) {
                self.send_bundles(events);
            }
            leave |= self.perform_one(action, now_ns, events);
        }
        self.send_bundles(events);
        leave
    }

    /// Performs one action. Returns `true` if the daemon shall exit.
    fn perform_one(&mut self, action: Action, now_ns: u64, events: &mut Vec<Event>) -> bool {
        match action {
            Action::Offer { worker, seq, task } => self.offer(worker, seq, task, now_ns, events),
            Action::Reply { client, tag, reply, output } => self.reply(client, tag, reply, output),
            Action::Close { client, goodbye } => self.clients.close(client, goodbye, now_ns),
            Action::DropOutput { output } => self.outputs.drop_output(output),
            Action::DropFile { file } => self.clients.files.let_go(file),
            Action::Forget { worker, registration } => self.workers.forget(worker, registration, events),
            Action::ShowLog { client, tag, reply, log } => self.show_log(client, tag, reply, log),
            Action::DropLog { log } => self.outputs.drop_log(log),
            Action::DropScratch { scratch } => self.outputs.drop_scratch(scratch),
            Action::Ready { status } => self.notifier.ready(&status),
            Action::ReserveJobs { end } => self.journal.reserve_jobs(end),
            Action::LookUp { number, client, uid, jobs } => {
                events.extend(self.journal.look_up(LookUpQuestion { number, client, uid, jobs }));
            }
            Action::Exit => return true,
            Action::Spawn { worker, pool } => events.push(self.workers.spawn(worker, pool)),
            Action::GiveOutput { worker, seq, room_bytes } => {
                self.workers.give_output((worker, seq), room_bytes, &self.outputs, events);
            }
            Action::RefuseOutput { worker, seq, why } => self.workers.refuse_output(worker, seq, why, events),
            Action::TakeBack { worker, seq } => self.take_back(worker, seq, events),
            Action::Unwant { worker, seq } => self.request_cancel(worker, seq),
            Action::AskStack { worker, seq, why } => {
                if let Some(worker) = self.workers.get(worker) {
                    worker.ask_stack(seq, why);
                }
            }
            Action::Look { worker } => self.look(worker, events),
            Action::Examine { worker } => events.extend(self.workers.examine(worker)),
            Action::Settle { worker, seq } => self.settle(worker, seq),
            Action::Kill { worker, why } => {
                if let Some(worker) = self.workers.get(worker) {
                    worker.kill(why);
                }
            }
            Action::Retire { worker } => {
                if let Some(worker) = self.workers.get(worker) {
                    worker.reached.close();
                }
            }
        }
        false
    }

    fn reply(&mut self, client: ClientId, tag: Tag, mut reply: Reply, output: Option<OutputId>) {
        if let Reply::Status(status) = &mut reply {
            self.clients.add_accounts(client, status);
        }
        if let Some(block) = output.and_then(|output| self.outputs.block(output)) {
            return self.clients.reply_block(client, ReplyFrame { tag, reply }, block);
        }
        let descriptor = output.and_then(|output| self.outputs.get(output));
        self.clients.reply(client, &ReplyFrame { tag, reply }, descriptor);
    }

    fn request_cancel(&mut self, worker: WorkerId, seq: Seq) {
        if let Some(found) = self.workers.get(worker) {
            found.ring.request_cancel(seq);
            found.nudge();
        }
    }

    fn look(&mut self, worker: WorkerId, events: &mut Vec<Event>) {
        self.workers.read_box(worker, &mut self.outputs, events);
        if let Some(found) = self.workers.get(worker) {
            events.push(Event::Looked { worker, head: found.head() });
        }
    }

    fn settle(&mut self, worker: WorkerId, seq: Seq) {
        if let Some(worker) = self.workers.get(worker) {
            worker.offer_files.remove(&seq);
            worker.arena_offers.retain(|one| *one != seq);
            worker.ring.settle(seq);
        }
    }

    /// If the log was dropped meanwhile, or could not be created, the reply says so.
    fn show_log(&mut self, client: ClientId, tag: Tag, mut reply: Reply, log: LogId) {
        let file = self.outputs.log(log);
        if let Reply::Logs { is_there, .. } = &mut reply {
            *is_there = file.is_some();
        }
        self.clients.reply(client, &ReplyFrame { tag, reply }, file);
    }

    fn take_back(&mut self, worker: WorkerId, seq: Seq, events: &mut Vec<Event>) {
        let Some(found) = self.workers.get(worker) else { return };
        match found.ring.take_back(seq) {
            Ok(won) => events.push(Event::TookBack { worker, seq, won }),
            Err(violation) => {
                events.extend(found.violated(violation).event());
                events.push(Event::TookBack { worker, seq, won: false });
            }
        }
    }

    /// Writes orders and claim word and sends the descriptors at once; the task itself is sent with its bundle.
    fn offer(&mut self, worker: WorkerId, seq: Seq, task: Task, now_ns: u64, events: &mut Vec<Event>) {
        let Some(found) = self.workers.get(worker) else { return };
        if !found.ring.has_outstanding() {
            found.sampler.note_first_offer(now_ns);
        }
        found.ring.offer(seq, task.job, task.fence);
        // Most tasks have neither.
        let uses = if task.files.is_empty() { None } else { registrations::uses_of(&task) };
        let has_output = task.output == OutputMode::Descriptor || task.has_reserve();
        let has_files = has_output || registrations::has_own_files(&task);
        if has_files || uses.is_some() {
            let files = &self.clients.files;
            let sent = found.send_registrations(&task, files).and_then(|()| {
                if has_files { send_offer_files(found, seq, &task, &mut self.outputs, files) } else { Ok(()) }
            });
            match sent {
                Ok(()) => {}
                Err(error) if is_full_or_closed(&error) => {
                    return self.offer_failed(worker, seq, None, events);
                }
                Err(error) => {
                    let short = Some(format!("files of a task: {}", shortage::explain(&error)));
                    return self.offer_failed(worker, seq, short, events);
                }
            }
        }
        let mut output = task.output;
        if output == OutputMode::Arena {
            output = open_arena(found, seq, &self.outputs);
        }
        let bytes = encoded_size(&task.input) + uses.as_deref().map_or(0, registrations::encoded_uses);
        let mut bundle = self.bundles.entry(worker).or_default();
        if bundle.bytes + bytes > TASK_MESSAGE_MAX_BYTES {
            let full = std::mem::take(bundle);
            self.send(worker, &full.tasks, events);
            bundle = self.bundles.entry(worker).or_default();
        }
        bundle.bytes += bytes;
        bundle.tasks.tasks.push(TaskMessage {
            seq,
            job: task.job,
            fence: task.fence,
            kind: task.kind,
            stage: task.stage,
            has_files,
            memory_bytes: task.memory_bytes,
            grace_ms: task.grace_ms,
            output,
            room: task.room(),
            uses,
            input: task.input,
        });
    }

    fn send_bundles(&mut self, events: &mut Vec<Event>) {
        while let Some((worker, bundle)) = self.bundles.pop_first() {
            self.send(worker, &bundle.tasks, events);
        }
    }

    fn send(&mut self, worker: WorkerId, tasks: &Tasks, events: &mut Vec<Event>) {
        if !self.workers.send(worker, tasks) {
            for task in &tasks.tasks {
                self.offer_failed(worker, task.seq, None, events);
            }
        }
    }

    fn offer_failed(
        &mut self,
        worker: WorkerId,
        seq: Seq,
        shortage: Option<String>,
        events: &mut Vec<Event>,
    ) {
        let Some(found) = self.workers.get(worker) else { return };
        match found.ring.take_back(seq) {
            Ok(taken) => events.push(Event::OfferFailed { worker, seq, taken, shortage }),
            Err(violation) => events.extend(found.violated(violation).event()),
        }
    }
}

/// Whether the offers that the core decided before this action are sent before it, so that their order is kept.
fn follows_offers(action: &Action) -> bool {
    match action {
        Action::Spawn { .. }
        | Action::TakeBack { .. }
        | Action::Unwant { .. }
        | Action::AskStack { .. }
        | Action::Look { .. }
        | Action::Examine { .. }
        | Action::Settle { .. }
        | Action::Kill { .. }
        | Action::Retire { .. } => true,
        Action::Offer { .. }
        | Action::GiveOutput { .. }
        | Action::RefuseOutput { .. }
        | Action::Reply { .. }
        | Action::Close { .. }
        | Action::ShowLog { .. }
        | Action::DropLog { .. }
        | Action::DropOutput { .. }
        | Action::DropFile { .. }
        | Action::Forget { .. }
        | Action::DropScratch { .. }
        | Action::Ready { .. }
        | Action::ReserveJobs { .. }
        | Action::LookUp { .. }
        | Action::Exit => false,
    }
}

/// Sends the files of a task. The supervisor keeps them until the offer is settled, whether the send succeeded or
/// not.
fn send_offer_files(
    worker: &mut WorkerProcess,
    seq: Seq,
    task: &Task,
    outputs: &mut OutputStore,
    files: &ClientFileStore,
) -> io::Result<()> {
    let mut offer_files = OfferFiles::make(task, outputs)?;
    let sent = match offer_files.lane_files(task, outputs, files) {
        Some(lane_files) => worker.send_files(seq, lane_files),
        None => Err(io::Error::other(format!("a file of job {} no longer exists", task.job))),
    };
    offer_files.mark_sent();
    worker.offer_files.insert(seq, offer_files);
    sent
}

/// Has a worker use its arena for an offer; without one, the task asks for an output instead.
fn open_arena(worker: &mut WorkerProcess, seq: Seq, outputs: &OutputStore) -> OutputMode {
    match worker.give_arena(outputs) {
        Ok(()) => {
            worker.arena_offers.push(seq);
            OutputMode::Arena
        }
        Err(error) => {
            if rate_limit::may_log(LineAbout::Worker(worker.id.0), clock::monotonic_ns()) {
                log::warn!("a worker gets no arena now worker={} error={error}", worker.id);
            }
            OutputMode::Auto
        }
    }
}

/// Whether a send failed because of the worker: it does not read its lane, or has closed it.
fn is_full_or_closed(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

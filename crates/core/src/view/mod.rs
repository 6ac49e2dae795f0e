//! Replies that show the state of the daemon: jobs, workers, deaths, status, kinds.
//!
//! A view takes shared references and changes nothing. Every list stops well below the size of a frame. Only
//! administrators see what belongs to other users: the table is in `client/sight.rs`.

pub(crate) mod journal_job;
mod values;
mod why;

use bulkhead_proto::client::message::{Reply, Walk};
use bulkhead_proto::client::outcome::{Outcome, Survivor};
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::client::view::{
    DeathRow, JobDetail, JobRow, OutputMemory, PoolRow, Status, StoppedProgram, StoppedWorker, SurvivorRow,
    WorkerRow, WorkerState,
};
use bulkhead_proto::exec::Program;
use bulkhead_proto::ids::{JobId, PoolId, WorkerId};
use bulkhead_proto::job::{JobState, OutputMode};
use bulkhead_proto::kind::EXEC;
use bulkhead_proto::limits::{BATCH_MAX, FRAME_MAX_BYTES, ROWS_MAX};

pub(crate) use values::{DrainState, ViewReply};
use why::why_bytes;

use crate::account::Ledger;
use crate::client::Clients;
use crate::event::{Leftover, Peer};
use crate::job::{Doing, Jobs, TaskRun, Ticket};
use crate::turn::{Owner, Turn};
use crate::worker::{Worker, Workers};

/// The greatest size of a row beside its texts, in bytes.
const ROW_BYTES: u64 = 64;
/// The size of a death beside its texts and frames, in bytes, about.
const DEATH_BYTES: u64 = 128;
/// A list of deaths has all parts of each up to this size, in bytes, about.
const DEATHS_BYTES: u64 = FRAME_MAX_BYTES as u64 - (64 << 10);
/// Rows of lists stop here: well below a frame.
const LIST_BYTES: u64 = FRAME_MAX_BYTES as u64 / 2;
/// Jobs that one request for a list looks at, shown or not, so that a table of a million jobs is listed in many turns and
/// delays no other client.
const WALK_MAX: usize = 2048;
/// Characters of an input that are shown.
const INPUT_CHARS: usize = 200;

/// Stuck workers in a status.
const STUCK_SHOWN: usize = 100;
/// Workers in lent slots in a status.
const LENT_SHOWN: usize = 100;
/// The size of one of them, in bytes, about, at most: the kernel's function names are short.
const STUCK_BYTES: u64 = 192;

/// The size of what an account holds of one resource, in bytes, at most.
const HOLDING_BYTES: u64 = 112;

/// References to everything that replies show.
pub(crate) struct View<'a> {
    turn: &'a Turn,
    jobs: &'a Jobs,
    workers: &'a Workers<Ticket>,
    clients: &'a Clients,
    ledger: &'a Ledger,
    drain: DrainState,
}

impl<'a> View<'a> {
    /// A view of these.
    pub(crate) fn new(
        turn: &'a Turn,
        jobs: &'a Jobs,
        workers: &'a Workers<Ticket>,
        clients: &'a Clients,
        ledger: &'a Ledger,
        drain: DrainState,
    ) -> Self {
        Self { turn, jobs, workers, clients, ledger, drain }
    }

    /// Answers `ping`.
    pub(crate) fn pong(&self) -> ViewReply {
        ViewReply { reply: Reply::Pong { pid: self.turn.config().pid }, bytes: 16 }
    }

    /// One row of a list. Input, policy and deaths are only in the detail.
    fn row(&self, run: TaskRun) -> JobRow {
        let (job, batch) = (self.jobs.job(run), self.jobs.batch(run));
        JobRow {
            job: job.id(),
            kind: self.turn.kind_name(batch.kind()),
            state: job.shown(),
            outcome: job.end().map(|end| end.outcome().word().to_owned()),
            attempts: self.jobs.attempts_of(run),
            crashes: job.crashes(),
            uid: batch.uid(),
            accepted_us: batch.accepted_us(),
        }
    }

    /// Answers `jobs`: a page of those that the client may see.
    pub(crate) fn jobs(&self, peer: Peer, state: Option<JobState>, walk: Walk, limit: u32) -> ViewReply {
        let limit = (limit as usize).clamp(1, ROWS_MAX);
        let (mut rows, mut bytes, mut more) = (Vec::new(), 16, false);
        let (Walk::Up(mut last) | Walk::Down(mut last)) = walk;
        for looked in 0.. {
            let next = match walk {
                Walk::Up(_) => self.jobs.next_from(JobId(last.0.saturating_add(1))),
                Walk::Down(_) => last.0.checked_sub(1).and_then(|below| self.jobs.last_to(JobId(below))),
            };
            let Some(run) = next else { break };
            let job = run.first();
            if looked == WALK_MAX || rows.len() == limit || bytes >= LIST_BYTES {
                more = true;
                break;
            }
            last = job;
            let batch = self.jobs.batch(run);
            if !Owner::User(batch.uid()).may_be_seen_by(peer) {
                // The whole batch is another user's.
                let (first, count) = batch.numbers();
                last = match walk {
                    Walk::Up(_) => JobId(first.0 + u64::from(count) - 1).max(job),
                    Walk::Down(_) => first.min(job),
                };
                continue;
            }
            if state.is_none_or(|state| state == self.jobs.job(run).shown()) {
                let row = self.row(run);
                bytes += ROW_BYTES + row.kind.len() as u64;
                rows.push(row);
            }
        }
        ViewReply { reply: Reply::Jobs { rows, last, more }, bytes }
    }

    /// Answers `job`.
    pub(crate) fn job(&self, peer: Peer, job: JobId) -> Result<ViewReply, Refusal> {
        let detail = self.detail(self.jobs.visible(peer, job)?);
        let bytes = detail_bytes(&detail);
        Ok(ViewReply { reply: Reply::Job(Box::new(detail)), bytes })
    }

    /// All about one job. The input is cut to [`INPUT_CHARS`], because the detail is read by people.
    fn detail(&self, run: TaskRun) -> JobDetail {
        let (job, batch) = (self.jobs.job(run), self.jobs.batch(run));
        let end = job.end();
        JobDetail {
            row: self.row(run),
            policy: batch.policy().clone(),
            flavour: batch.flavour().number,
            attached: batch.is_attached(),
            has_files: job.has_files(),
            input: self.input_of(run).chars().take(INPUT_CHARS).collect(),
            worker: match job.doing() {
                Doing::Running { worker, .. } => Some(worker),
                Doing::Queued | Doing::Backoff { .. } | Doing::Alone | Doing::Parted | Doing::Ended => None,
            },
            parts: self.jobs.parts_of(run),
            outcome: end.map(|end| end.outcome().clone()),
            output_bytes: end.and_then(|end| match end.left() {
                Leftover::Nothing => None,
                // All of it is in its client's file.
                _ if *end.outcome() == Outcome::Done && batch.policy().output == OutputMode::File => None,
                Leftover::Inline(payload) => Some(payload.as_bytes().len() as u64),
                Leftover::Held { bytes, .. } => Some(*bytes),
            }),
            output_gone: end.and_then(|end| end.gone()),
            ended_us: end.map(|end| end.at_us()),
            deaths: self.jobs.with_stack_texts(self.row(run).job, job.deaths()),
            survivors: job.survivors().to_vec(),
        }
    }

    fn input_of(&self, run: TaskRun) -> String {
        let kind = self.turn.kind_name(self.jobs.batch(run).kind());
        text_of_input(&kind, self.jobs.job(run).input().as_bytes())
    }

    /// Answers `workers`. What a worker runs is shown to the user of its task and to administrators.
    pub(crate) fn workers(&self, peer: Peer) -> ViewReply {
        let rows: Vec<WorkerRow> = self
            .workers
            .iter()
            .take(BATCH_MAX)
            .map(|(id, worker)| self.worker_row(id, worker, peer))
            .collect();
        let bytes = 16 + rows.iter().map(|row| ROW_BYTES + row.pool.len() as u64).sum::<u64>();
        ViewReply { reply: Reply::Workers(rows), bytes }
    }

    fn worker_row(&self, id: WorkerId, worker: &Worker<Ticket>, peer: Peer) -> WorkerRow {
        // No user is shown the pid of a worker that was offered no task: later it is the pid of some user's task.
        let is_own = peer.admin || worker.owner() == Owner::User(peer.uid);
        let own_offers = worker.ring().iter().filter(|offer| Owner::User(offer.uid()).may_be_seen_by(peer));
        WorkerRow {
            worker: id,
            pool: self.workers.pool(worker.pool()).name().to_owned(),
            slot: worker.slot(),
            lent: self.workers.has_lent_slot(worker),
            lent_to: self.workers.lent_to(worker).filter(|uid| Owner::User(*uid).may_be_seen_by(peer)),
            pid: worker.pid().filter(|_| is_own),
            state: worker.shown(),
            job: worker.ring().head().filter(|_| is_own).map(|offer| offer.shown()),
            offers: u32::try_from(own_offers.count()).unwrap_or(u32::MAX),
            ended: worker.ended(),
            spawned_us: worker.spawned_us(),
            stopped: self.stopped_worker(worker).filter(|_| is_own),
            seen: worker.seen().filter(|_| is_own).cloned(),
            program: self.stopped_program(worker).filter(|_| is_own),
        }
    }

    /// A worker that lives, while a signal has stopped it.
    fn stopped_worker(&self, worker: &Worker<Ticket>) -> Option<StoppedWorker> {
        let until_ns = worker.stopped_until_ns().filter(|_| !worker.is_killed())?;
        let most_ms = self.turn.config().stopped_ms;
        // One that is to leave anyway is not killed for it, and its time may be over.
        let left_ns = if until_ns == u64::MAX { 0 } else { until_ns.saturating_sub(self.turn.now_ns()) };
        let left_ms = left_ns.div_ceil(1_000_000);
        Some(StoppedWorker { for_ms: most_ms.saturating_sub(left_ms), left_ms })
    }

    /// The program of a worker's task, while a signal has stopped it.
    fn stopped_program(&self, worker: &Worker<Ticket>) -> Option<StoppedProgram> {
        let stop = worker.stopped_task().filter(|_| !worker.is_killed())?;
        let (pid, signal) = stop.program();
        Some(StoppedProgram {
            pid,
            signal,
            since_us: stop.since_us(),
            for_ms: self.turn.now_ns().saturating_sub(stop.since_ns()) / 1_000_000,
            left_ms: worker
                .program_stop_ends_ns()
                .map(|at_ns| at_ns.saturating_sub(self.turn.now_ns()).div_ceil(1_000_000)),
        })
    }

    /// The first [`STUCK_SHOWN`] stuck workers.
    fn stuck_rows(&self, peer: Peer) -> Vec<WorkerRow> {
        let stuck = self.workers.iter().filter(|(_, worker)| worker.shown() == WorkerState::Stuck);
        stuck.take(STUCK_SHOWN).map(|(id, worker)| self.worker_row(id, worker, peer)).collect()
    }

    /// The first [`LENT_SHOWN`] workers in lent slots.
    fn lent_rows(&self, peer: Peer) -> Vec<WorkerRow> {
        let lent = self.workers.pool_ids().flat_map(|pool| self.workers.lent_workers(pool));
        lent.take(LENT_SHOWN).map(|(id, worker)| self.worker_row(id, worker, peer)).collect()
    }

    /// The processes that cannot be ended and that this client may see.
    fn survivor_rows(&self, peer: Peer) -> Vec<SurvivorRow> {
        let shown = self.workers.survivors().iter().filter(|(_, owner)| owner.may_be_seen_by(peer));
        shown.map(|(row, _)| row.clone()).collect()
    }

    fn pool_row(&self, id: PoolId) -> PoolRow {
        let pool = self.workers.pool(id);
        let count = |state| u16::try_from(pool.count(state)).unwrap_or(u16::MAX);
        let (health, health_reason) = pool.health();
        PoolRow {
            name: pool.name().to_owned(),
            health,
            health_reason,
            slots: u16::try_from(pool.size()).unwrap_or(u16::MAX),
            busy: count(WorkerState::Busy),
            spares: count(WorkerState::Spare),
            waiting: self.jobs.queued_in(id),
            lent: u16::try_from(self.workers.lent_workers(id).count()).unwrap_or(u16::MAX),
            lend_max: u16::try_from(self.workers.lend_max(id)).unwrap_or(u16::MAX),
            running_max: self.workers.running_max(id).map(|most| u16::try_from(most).unwrap_or(u16::MAX)),
        }
    }

    /// Answers `status`.
    pub(crate) fn status(&self, peer: Peer) -> ViewReply {
        let (health, health_reason) = self.workers.health();
        let jobs = self.jobs;
        let (accounts, accounts_left_out) = self.ledger.rows(peer);
        let outputs = jobs.all_outputs();
        let status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: self.turn.config().pid,
            started_us: self.turn.started_us().unwrap_or(0),
            durable: false,
            draining: !self.drain.is_open,
            health,
            health_reason,
            slots: u16::try_from(self.workers.slot_count()).unwrap_or(u16::MAX),
            spares: u16::try_from(self.workers.count(WorkerState::Spare)).unwrap_or(u16::MAX),
            pools: self.workers.pool_ids().map(|pool| self.pool_row(pool)).collect(),
            stuck: self.stuck_rows(peer),
            lent: self.lent_rows(peer),
            survivors: self.survivor_rows(peer),
            clients: u32::try_from(self.clients.count()).unwrap_or(u32::MAX),
            queued: jobs.queued(),
            retrying: jobs.retrying(),
            running: jobs.running(),
            kept: jobs.ended(),
            kept_bytes: jobs.kept_bytes(),
            outputs: OutputMemory {
                held: outputs.held,
                running: outputs.granted,
                unread: outputs.unread(),
                kept: outputs.kept,
                logs: outputs.logs,
                max: self.turn.config().outputs_bytes_max,
            },
            quarantined: jobs.quarantined(),
            queue_max: self.turn.config().queue_max,
            shortage: self.workers.what_is_short().to_owned(),
            totals: self.turn.totals(),
            accounts,
            accounts_left_out,
        };
        let texts = |pool: &PoolRow| (pool.name.len() + pool.health_reason.len()) as u64;
        let pools: u64 = status.pools.iter().map(|pool| ROW_BYTES + texts(pool)).sum();
        let survivors: u64 = status.survivors.iter().map(|row| 16 + row.survivor.wire_bytes()).sum();
        let workers = (status.stuck.len() + status.lent.len()) as u64;
        let held: u64 = status.accounts.iter().map(|row| 16 + HOLDING_BYTES * row.holds.len() as u64).sum();
        let bytes = 512 + STUCK_BYTES * workers + pools + survivors + held;
        ViewReply { reply: Reply::Status(Box::new(status)), bytes }
    }

    /// Answers `deaths`: those that the client may see, newest first.
    pub(crate) fn deaths(&self, peer: Peer, limit: u32) -> ViewReply {
        let visible = |row: &&DeathRow| Owner::User(row.uid).may_be_seen_by(peer);
        let rows = fit(self.jobs.deaths().filter(visible).take(limit as usize).cloned().collect());
        let bytes = 16 + rows.iter().map(death_bytes).sum::<u64>();
        ViewReply { reply: Reply::Deaths(rows), bytes }
    }

    /// Answers `kinds`.
    pub(crate) fn kinds(&self) -> ViewReply {
        let kinds = self.turn.config().kinds.clone();
        ViewReply { reply: Reply::Kinds(kinds), bytes: 1024 }
    }
}

/// An input as text: a program as its words, other input as UTF-8 with replacements.
fn text_of_input(kind: &str, input: &[u8]) -> String {
    let program = (kind == EXEC).then(|| Program::from_input(input).ok()).flatten();
    program.map_or_else(|| String::from_utf8_lossy(input).into_owned(), |program| program.to_string())
}

/// About the bytes of a reply with everything about one job.
fn detail_bytes(detail: &JobDetail) -> u64 {
    let survivors: u64 = detail.survivors.iter().map(Survivor::wire_bytes).sum();
    let deaths: u64 = detail.deaths.iter().map(|one| 64 + one.evidence.wire_bytes()).sum();
    512 + deaths + detail.input.len() as u64 + survivors
}

/// Leaves out the long parts of the older deaths if all of them do not fit a frame.
fn fit(rows: Vec<DeathRow>) -> Vec<DeathRow> {
    let long = |row: &DeathRow| row.death.evidence.long_bytes();
    let others: u64 = rows.iter().map(|row| death_bytes(row) - long(row)).sum();
    let mut room = DEATHS_BYTES.saturating_sub(others);
    let shortened = |mut row: DeathRow| {
        match room.checked_sub(long(&row)) {
            Some(left) => room = left,
            None => row.death.evidence.shorten(),
        }
        row
    };
    rows.into_iter().map(shortened).collect()
}

/// The size of a death, in bytes, about.
fn death_bytes(row: &DeathRow) -> u64 {
    DEATH_BYTES + row.kind.len() as u64 + row.death.evidence.wire_bytes()
}

//! A shell for tests: performs the core's actions with workers that do as the test says.
//!
//! Workers come up at once, claim nothing by themselves, and end tasks when a test says so. After every turn the core
//! audits itself.

use std::collections::BTreeMap;
use std::num::NonZeroU8;

use bulkhead_core::Core;
use bulkhead_core::action::{Action, Output, Task};
use bulkhead_core::config::Config;
use bulkhead_core::event::{Event, Head, Leftover, Now, Peer, ProcessEnd, Remains, Report, TaskResult};
use bulkhead_facts::durable_job::DurableJob;
use bulkhead_facts::fact::{Fact, FactNo};
use bulkhead_facts::fold::DurableState;
use bulkhead_proto::client::evidence::{Evidence, ProcessSeen, TaskProgress};
use bulkhead_proto::client::message::Reply;
use bulkhead_proto::client::record::What;
use bulkhead_proto::death::{Death, KillReason, ProgramEnd};
use bulkhead_proto::ids::{
    ClientId, Fence, FileId, JobId, LogId, OutputId, RegistrationId, ScratchId, Seq, Tag, WorkerId,
};
use bulkhead_proto::job::Payload;
use bulkhead_proto::kind::Kind;

pub(crate) const ALICE: ClientId = ClientId(1);
pub(crate) const BOB: ClientId = ClientId(2);
pub(crate) const ADMIN: ClientId = ClientId(3);
pub(crate) const SEGV: Death = Death::Signalled { signal: 11, core: false };

/// An offer that a worker holds.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) seq: Seq,
    pub(crate) task: Task,
    pub(crate) claimed: bool,
}

pub(crate) struct Rig {
    pub(crate) core: Core,
    pub(crate) now: Now,
    pub(crate) batch: Vec<Event>,
    /// What each living worker holds.
    pub(crate) workers: BTreeMap<WorkerId, Vec<Held>>,
    pub(crate) killed: BTreeMap<WorkerId, KillReason>,
    pub(crate) retired: Vec<WorkerId>,
    /// Offers that their workers were asked to end.
    pub(crate) asked: Vec<(WorkerId, Seq)>,
    /// Outputs that were given to tasks that asked, with their room.
    pub(crate) given: Vec<(WorkerId, Seq, u64)>,
    /// Tasks that were told that they get none, and why.
    pub(crate) refused: Vec<(WorkerId, Seq, String)>,
    /// Workers that come up say that they write their stack when they are asked.
    pub(crate) writes_stack: bool,
    pub(crate) stacks_asked: Vec<(WorkerId, Seq)>,
    pub(crate) replies: Vec<(ClientId, Tag, Reply, Option<OutputId>)>,
    pub(crate) dropped: Vec<OutputId>,
    /// Files that were let go, in the order of that.
    pub(crate) let_go: Vec<FileId>,
    /// What workers were told to forget.
    pub(crate) forgotten: Vec<(WorkerId, RegistrationId)>,
    pub(crate) logs_shown: Vec<(ClientId, Reply, LogId)>,
    pub(crate) logs_dropped: Vec<LogId>,
    pub(crate) files_made: u64,
    pub(crate) scratches_dropped: Vec<ScratchId>,
    pub(crate) records: Vec<What>,
    pub(crate) spawned: Vec<WorkerId>,
    pub(crate) ready: Vec<String>,
    pub(crate) looks: usize,
    pub(crate) examined: usize,
    /// What examining shows, of whomever.
    pub(crate) seen: Option<ProcessSeen>,
    pub(crate) progress_ns: Option<u64>,
    pub(crate) progress: Option<TaskProgress>,
    pub(crate) exited: bool,
    /// Whether spawned workers come up by themselves.
    pub(crate) come_up: bool,
    /// Whether take-backs and looks are answered by themselves.
    pub(crate) answer: bool,
    /// Whether what is dropped is freed at once: no reply holds it.
    pub(crate) free: bool,
    pub(crate) tag: u32,
    /// All facts, and what they add up to.
    pub(crate) facts: Vec<Fact>,
    pub(crate) durable: DurableState,
    /// Whether facts are stored at once.
    pub(crate) stores: bool,
    /// Numbers of jobs that the journal was asked to reserve.
    pub(crate) reserve: Vec<JobId>,
}

/// Kinds `quick` (may share a ring), `foreign` (a ring of one) and `fan` (done in parts).
pub(crate) fn kinds() -> Vec<Kind> {
    let kind = |name: &str, ring| Kind { name: name.to_owned(), ring, ..Kind::default() };
    vec![kind("quick", 256), kind("foreign", 1), Kind { plans: true, ..kind("fan", 256) }]
}

pub(crate) fn config(slots: u16) -> Config {
    Config { kinds: kinds(), slots, ..Config::default() }
}

/// A program that ended with this code, which is not 0.
pub(crate) fn exit_code(code: u8) -> Option<ProgramEnd> {
    NonZeroU8::new(code).map(ProgramEnd::Code)
}

impl Rig {
    /// A pool of so many slots that is up, with Alice (uid 1), Bob (uid 2) and an administrator connected.
    pub(crate) fn new(slots: u16) -> Self {
        Self::with(config(slots))
    }

    pub(crate) fn with(config: Config) -> Self {
        let mut rig = Self::cold(config);
        rig.start();
        rig
    }

    /// Brings the pool up, and connects the three.
    pub(crate) fn start(&mut self) {
        self.turn();
        for (client, uid, admin) in [(ALICE, 1, false), (BOB, 2, false), (ADMIN, 0, true)] {
            self.connect(client, uid, admin);
        }
        self.forget_past();
    }

    /// Nothing has happened yet.
    pub(crate) fn cold(config: Config) -> Self {
        let now = Now { mono_ns: 1_000_000_000, wall_us: 5_000_000 };
        Self {
            core: Core::new(config, now),
            now,
            batch: Vec::new(),
            workers: BTreeMap::new(),
            killed: BTreeMap::new(),
            retired: Vec::new(),
            asked: Vec::new(),
            writes_stack: false,
            stacks_asked: Vec::new(),
            replies: Vec::new(),
            dropped: Vec::new(),
            let_go: Vec::new(),
            forgotten: Vec::new(),
            logs_shown: Vec::new(),
            logs_dropped: Vec::new(),
            files_made: 0,
            scratches_dropped: Vec::new(),
            records: Vec::new(),
            spawned: Vec::new(),
            ready: Vec::new(),
            given: Vec::new(),
            refused: Vec::new(),
            looks: 0,
            examined: 0,
            seen: Some(ProcessSeen::default()),
            progress_ns: None,
            progress: None,
            exited: false,
            come_up: true,
            answer: true,
            free: true,
            tag: 100,
            facts: Vec::new(),
            durable: DurableState::default(),
            stores: true,
            reserve: Vec::new(),
        }
    }

    pub(crate) fn forget_past(&mut self) {
        self.replies.clear();
        self.records.clear();
        self.spawned.clear();
        self.dropped.clear();
    }

    pub(crate) fn connect(&mut self, client: ClientId, uid: u32, admin: bool) {
        self.tell(Event::ClientConnected { client, peer: Peer { uid, admin } });
    }

    pub(crate) fn tell(&mut self, event: Event) {
        self.batch.push(event);
        self.turn();
    }

    /// Steps until nothing comes back from performing, and the machine does not want to be woken at once.
    pub(crate) fn turn(&mut self) {
        for _ in 0..100 {
            self.step();
            if self.batch.is_empty() && !self.is_due() {
                return;
            }
        }
        panic!("the machine does not come to rest");
    }

    /// Whether the machine wants to be woken at once.
    pub(crate) fn is_due(&self) -> bool {
        self.core.deadline().is_some_and(|at_ns| at_ns <= self.now.mono_ns)
    }

    /// One step.
    pub(crate) fn step(&mut self) {
        let mut out = Output::default();
        let mut batch = std::mem::take(&mut self.batch);
        self.core.step(self.now, &mut batch, &mut out);
        self.core.audit();
        self.add_facts(out.facts);
        self.records.extend(out.records.into_iter().map(|record| record.what));
        for action in out.actions {
            self.perform(action);
        }
    }

    /// Each fact fits what is durable, and what the core knows of its jobs is what the facts add up to.
    fn add_facts(&mut self, facts: Vec<Fact>) {
        for fact in &facts {
            self.durable.add(fact).unwrap_or_else(|misfit| panic!("{fact:?}: {misfit}"));
        }
        for (job, counts, input, is_ended) in self.core.durable_states() {
            let stored = &self.durable.jobs[&job];
            let known = DurableJob { fence: Fence(0), is_open: false, lost_since: 0, ..stored.durable };
            let ended = stored.end.is_some();
            assert_eq!((known, ended), (counts, is_ended), "job {job}");
            assert_eq!(stored.input.as_ref().unwrap_or(&Payload::default()), input, "job {job}");
        }
        if !facts.is_empty() {
            self.facts.extend(facts);
            if self.stores {
                self.batch.push(self.stored());
            }
        }
    }

    /// All facts so far are stored.
    pub(crate) fn stored(&self) -> Event {
        Event::Stored { up_to: FactNo(self.facts.len() as u64) }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Reply { client, tag, reply, output } => self.replies.push((client, tag, reply, output)),
            Action::Spawn { worker, .. } => {
                self.spawned.push(worker);
                if self.come_up {
                    self.come_up_now(worker);
                }
            }
            Action::Offer { worker, seq, task } => {
                self.workers.get_mut(&worker).expect("the worker lives and holds it").push(Held {
                    seq,
                    task,
                    claimed: false,
                });
            }
            Action::TakeBack { worker, seq } if self.answer => self.take_back(worker, seq),
            Action::Look { worker } => {
                self.looks += 1;
                if self.answer {
                    self.look(worker);
                }
            }
            Action::Kill { worker, why } => drop(self.killed.insert(worker, why)),
            Action::Unwant { worker, seq } => self.asked.push((worker, seq)),
            Action::GiveOutput { worker, seq, room_bytes } => self.given.push((worker, seq, room_bytes)),
            Action::RefuseOutput { worker, seq, why } => self.refused.push((worker, seq, why)),
            Action::AskStack { worker, seq, .. } => self.stacks_asked.push((worker, seq)),
            Action::Retire { worker } => self.retired.push(worker),
            Action::DropOutput { output } => {
                self.dropped.push(output);
                if self.free {
                    self.batch.push(Event::OutputFreed { output });
                }
            }
            Action::Examine { worker } => {
                self.examined += 1;
                if self.answer && self.workers.contains_key(&worker) {
                    let (seen, progress_ns, progress) = (self.seen.clone(), self.progress_ns, self.progress);
                    self.batch.push(Event::Examined { worker, seen, progress_ns, progress });
                }
            }
            Action::DropFile { file } => self.let_go.push(file),
            Action::Forget { worker, registration } => self.forgotten.push((worker, registration)),
            Action::DropScratch { scratch } => self.scratches_dropped.push(scratch),
            Action::ShowLog { client, reply, log, .. } => self.logs_shown.push((client, reply, log)),
            Action::DropLog { log } => {
                self.logs_dropped.push(log);
                if self.free {
                    self.batch.push(Event::LogFreed { log });
                }
            }
            Action::Ready { status } => self.ready.push(status),
            Action::ReserveJobs { end } => self.reserve.push(end),
            Action::Exit => self.exited = true,
            Action::TakeBack { .. } | Action::Settle { .. } | Action::Close { .. } => {}
        }
    }

    pub(crate) fn come_up_now(&mut self, worker: WorkerId) {
        self.workers.insert(worker, Vec::new());
        let pid = 1000 + worker.0 as u32;
        self.batch.extend([
            Event::WorkerSpawned { worker, pid },
            Event::WorkerReady { worker, writes_stack: self.writes_stack },
        ]);
    }

    pub(crate) fn take_back(&mut self, worker: WorkerId, seq: Seq) {
        let Some(held) = self.workers.get_mut(&worker) else { return };
        let at = held.iter().position(|held| held.seq == seq && !held.claimed);
        if let Some(at) = at {
            held.remove(at);
        }
        self.batch.push(Event::TookBack { worker, seq, won: at.is_some() });
    }

    pub(crate) fn look(&mut self, worker: WorkerId) {
        let Some(held) = self.workers.get(&worker) else { return };
        let head = held.first().map(|held| Head { seq: held.seq, claimed: held.claimed });
        self.batch.push(Event::Looked { worker, head });
    }

    /// Time passes, without a turn.
    pub(crate) fn pass(&mut self, milliseconds: u64) {
        self.now.mono_ns += milliseconds * 1_000_000;
        self.now.wall_us += milliseconds * 1000;
    }

    /// Time passes as it does for the shell: a turn at each deadline on the way.
    pub(crate) fn sleep(&mut self, milliseconds: u64) {
        let end = self.now.mono_ns + milliseconds * 1_000_000;
        while let Some(at) = self.core.deadline().filter(|at| *at <= end) {
            let ns = at.saturating_sub(self.now.mono_ns);
            self.now.mono_ns += ns;
            self.now.wall_us += ns / 1000;
            self.turn();
        }
        self.now.wall_us += (end - self.now.mono_ns) / 1000;
        self.now.mono_ns = end;
        self.turn();
    }

    /// Who holds an offer of this job that is not settled.
    pub(crate) fn holder(&self, job: JobId) -> Option<(WorkerId, Seq)> {
        self.workers.iter().find_map(|(worker, held)| {
            held.iter().find(|held| held.task.job == job).map(|held| (*worker, held.seq))
        })
    }

    pub(crate) fn claim(&mut self, job: JobId) -> WorkerId {
        let (worker, seq) = self.holder(job).expect("the job is offered");
        let held = self.workers.get_mut(&worker).expect("the worker lives and holds it");
        held.iter_mut().find(|held| held.seq == seq).expect("the worker lives and holds it").claimed = true;
        worker
    }

    pub(crate) fn finish_with(&mut self, job: JobId, result: TaskResult, elapsed_ns: u64) {
        let (worker, seq) = self.holder(job).expect("the job is offered");
        self.finish_offer(worker, seq, result, elapsed_ns);
    }

    pub(crate) fn finish_offer(&mut self, worker: WorkerId, seq: Seq, result: TaskResult, elapsed_ns: u64) {
        self.workers.get_mut(&worker).expect("the worker lives and holds it").retain(|held| held.seq != seq);
        self.tell(Event::Finished {
            worker,
            seq,
            report: Report { result, elapsed_ns, output_bytes: 0, survivors: Vec::new() },
        });
    }

    pub(crate) fn finish(&mut self, job: JobId) {
        self.finish_with(job, TaskResult::Inline(Payload::from(vec![7])), 2_000_000);
    }

    pub(crate) fn fail(&mut self, job: JobId) {
        self.finish_with(
            job,
            TaskResult::Failed { message: "no".to_owned(), program: exit_code(3), output: Leftover::Nothing },
            1000,
        );
    }

    /// A worker dies; its box says what was claimed.
    pub(crate) fn die(&mut self, worker: WorkerId, death: Death) {
        self.die_with(worker, death, Evidence::default());
    }

    pub(crate) fn die_with(&mut self, worker: WorkerId, death: Death, evidence: Evidence) {
        let held = self.workers.remove(&worker).unwrap_or_default();
        let remains = held.iter().map(|held| Remains { seq: held.seq, claimed: held.claimed }).collect();
        // The shell says how the process ended, and no more.
        let end = match death {
            Death::Killed { .. } => ProcessEnd::ByUs,
            Death::Retired => ProcessEnd::Itself(Death::Exited { code: 0 }),
            own => ProcessEnd::Itself(own),
        };
        self.tell(Event::Died { worker, end, evidence, noticed_after_us: Some(1), remains });
    }

    /// The worker that was offered this job does not begin it in time, is killed for that, and has claimed it all the same.
    pub(crate) fn die_unresponsive(&mut self, job: JobId) {
        let (worker, _) = self.holder(job).expect("the job is offered");
        self.answer = false;
        self.sleep(10_000);
        self.look(worker);
        self.turn();
        assert_eq!(self.killed.get(&worker), Some(&KillReason::Unresponsive));
        self.claim(job);
        self.answer = true;
        self.die(worker, Death::Killed { why: KillReason::Unresponsive });
    }

    /// The job is claimed and kills its worker.
    pub(crate) fn crash(&mut self, job: JobId) -> WorkerId {
        let worker = self.claim(job);
        self.die(worker, SEGV);
        worker
    }
}

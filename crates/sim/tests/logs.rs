//! The oracle `logs` fed by hand: who may read a log, that none leaks, that each goes with its job.
//!
//! One job of a user, offered to one worker with a log; another user and an administrator are connected. Each test shows
//! one wrong decision, beside the right one.

#![allow(clippy::unwrap_used, reason = "a verdict that must be good, in a test")]

use std::collections::BTreeMap;

use bulkhead_core::action::{Action, Output, Task, TaskFile};
use bulkhead_core::event::{Event, Now, Peer, Report, TaskResult};
use bulkhead_proto::client::message::{Reply, Request, Submit};
use bulkhead_proto::client::record::{Record, What};
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::client::view::JobRow;
use bulkhead_proto::ids::{ClientId, Fence, JobId, KindId, LogId, PoolId, Seq, SlotId, Tag, WorkerId};
use bulkhead_proto::job::{JobState, OutputMode, Payload, Policy};
use bulkhead_proto::worker::stage::Stage;
use bulkhead_sim::oracle::Oracles;
use bulkhead_sim::report::Verdict;
use bulkhead_sim::scenario::Scenario;
use bulkhead_sim::worker::FakeWorker;

const OWNER: ClientId = ClientId(1);
const OTHER: ClientId = ClientId(2);
const ADMIN: ClientId = ClientId(3);
const WORKER: WorkerId = WorkerId(1);
const JOB: JobId = JobId(1);

/// Oracles beside a pool with one worker, whose first kind keeps logs.
struct Bench {
    oracles: Oracles,
    workers: BTreeMap<WorkerId, FakeWorker>,
    now: Now,
    tags: u32,
    seqs: u64,
}

impl Bench {
    /// Two jobs are accepted, one log may be kept.
    fn new() -> Self {
        let mut scenario = Scenario::new(0);
        scenario.config.kinds[0].logs = true;
        scenario.config.kinds[0].ring = 256;
        scenario.config.keep_logs_max = 1;
        scenario.config.outputs_bytes_max = 4 << 30;
        let mut bench = Self {
            oracles: Oracles::new(&scenario),
            workers: BTreeMap::from([(WORKER, FakeWorker::new(WORKER, 10, false))]),
            now: Now { mono_ns: 1_000_000_000, wall_us: 1 },
            tags: 0,
            seqs: 0,
        };
        bench.oracles.depth.takes_no_time(KindId(0));
        bench.decide(vec![Action::Spawn { worker: WORKER, pool: PoolId(0) }]).unwrap();
        bench.tell(Event::WorkerReady { worker: WORKER, writes_stack: false });
        let what = What::Placed { worker: WORKER, slot: SlotId(0), replaces: None, after_us: 0, warm: true };
        let records = vec![Record { index: 1, at_us: 0, what }];
        bench
            .oracles
            .decided(bench.now, &Output { records, actions: vec![], facts: vec![] }, &bench.workers)
            .unwrap();
        for (client, uid, admin) in [(OWNER, 1, false), (OTHER, 2, false), (ADMIN, 0, true)] {
            bench.tell(Event::ClientConnected { client, peer: Peer { uid, admin } });
        }
        let kind = scenario.config.kinds[0].name.clone();
        let inputs = vec![Payload::from(vec![1]), Payload::from(vec![1])];
        let submit = Submit { kind, policy: Policy::default(), inputs, ..Submit::default() };
        let tag = bench.ask(OWNER, Request::Submit(submit));
        let reply = Reply::Accepted { first: JOB, count: 2, refused: None };
        bench.decide(vec![Action::Reply { client: OWNER, tag, reply, output: None }]).unwrap();
        bench
    }

    /// The same, and the first job runs with log 1.
    fn with_log() -> Self {
        let mut bench = Self::new();
        let offer = bench.offer(JOB, 1, 1);
        bench.decide(vec![offer]).unwrap();
        bench
    }

    fn tell(&mut self, event: Event) {
        self.oracles.told(self.now, &event).unwrap();
    }

    fn decide(&mut self, actions: Vec<Action>) -> Verdict {
        let verdict = self.oracles.decided(
            self.now,
            &Output { records: vec![], actions, facts: vec![] },
            &self.workers,
        );
        self.now.mono_ns += 1;
        verdict
    }

    fn ask(&mut self, client: ClientId, request: Request) -> Tag {
        self.tags += 1;
        let tag = Tag(self.tags);
        self.tell(Event::ClientSaid { client, tag, request, files: Vec::new() });
        tag
    }

    /// A client asks for the log of the first job, and is shown this one.
    fn read(&mut self, client: ClientId, log: u64) -> Verdict {
        let tag = self.ask(client, Request::Logs { job: JOB, follow: false });
        self.decide(vec![show(client, tag, JOB, 1, log)])
    }

    /// A client asks for the log of the first job, and is refused.
    fn be_refused(&mut self, client: ClientId, refusal: Refusal) -> Verdict {
        let tag = self.ask(client, Request::Logs { job: JOB, follow: false });
        self.decide(vec![Action::Reply { client, tag, reply: Reply::Refused(refusal), output: None }])
    }

    fn offer(&mut self, job: JobId, fence: u32, log: u64) -> Action {
        self.seqs += 1;
        let task = Task {
            job,
            fence: Fence(fence),
            kind: KindId(0),
            memory_bytes: None,
            grace_ms: 0,
            output: OutputMode::Inline,
            room: None,
            stage: Stage::Whole,
            files: vec![TaskFile::Log { log: LogId(log) }].into(),
            input: Payload::from(vec![1]),
        };
        Action::Offer { worker: WORKER, seq: Seq(self.seqs), task }
    }

    /// The last offer was won back.
    fn take_back(&mut self) {
        self.tell(Event::TookBack { worker: WORKER, seq: Seq(self.seqs), won: true });
    }

    /// The jobs of these numbers are all that are listed.
    fn list(&mut self, jobs: &[JobId]) -> Verdict {
        let row = |job: &JobId| JobRow {
            job: *job,
            kind: String::new(),
            state: JobState::Running,
            outcome: None,
            attempts: 1,
            crashes: 0,
            uid: 1,
            accepted_us: 0,
        };
        self.oracles.logs.listed(&jobs.iter().map(row).collect::<Vec<_>>())
    }
}

fn show(client: ClientId, tag: Tag, job: JobId, attempt: u32, log: u64) -> Action {
    let reply = Reply::Logs { job, attempt, is_there: true };
    Action::ShowLog { client, tag, reply, log: LogId(log) }
}

fn drop_log(log: u64) -> Action {
    Action::DropLog { log: LogId(log) }
}

fn gone(others: bool) -> Refusal {
    Refusal::Gone { job: JOB, others }
}

fn no_log() -> Refusal {
    Refusal::NoLog { job: JOB, why: String::new() }
}

/// The oracle that sees it is the right one, and this is what it sees.
fn sees(verdict: Verdict, what: &str) {
    let broken = verdict.expect_err("the oracle sees it");
    assert_eq!(broken.oracle, "logs", "{broken:?}");
    assert!(broken.what.contains(what), "{broken:?}");
}

#[test]
fn a_log_is_for_its_owner_and_administrators() {
    let mut bench = Bench::with_log();
    bench.read(OWNER, 1).unwrap();
    bench.read(ADMIN, 1).unwrap();
    sees(bench.read(OTHER, 1), "is shown to client 2");
    let unasked = vec![show(OWNER, Tag(99), JOB, 1, 1)];
    sees(Bench::with_log().decide(unasked), "does not wait for it");
}

#[test]
fn a_refusal_says_nothing_of_the_job_of_another_user() {
    Bench::with_log().be_refused(OTHER, gone(true)).unwrap();
    sees(Bench::with_log().be_refused(OTHER, gone(false)), "is refused");
    sees(Bench::with_log().be_refused(OTHER, no_log()), "is refused");
    sees(Bench::with_log().be_refused(OWNER, gone(true)), "is refused");
    sees(Bench::with_log().be_refused(ADMIN, no_log()), "is refused");
    Bench::new().be_refused(OWNER, no_log()).unwrap();
}

#[test]
fn each_log_is_dropped_once_and_not_shown_afterwards() {
    let mut bench = Bench::with_log();
    sees(bench.oracles.logs.finish(0), "are held");
    bench.decide(vec![drop_log(1)]).unwrap();
    bench.oracles.logs.finish(0).unwrap();
    sees(bench.oracles.logs.finish(1), "1 in the shell");
    sees(bench.read(OWNER, 1), "is not held");
    sees(bench.decide(vec![drop_log(1)]), "is let go, and is not held");
    sees(Bench::with_log().decide(vec![drop_log(2)]), "is let go, and is not held");
}

#[test]
fn a_log_is_that_of_the_attempt_that_is_named() {
    let mut bench = Bench::with_log();
    sees(bench.read(OWNER, 2), "is not held");
    let tag = bench.ask(OWNER, Request::Logs { job: JOB, follow: false });
    sees(bench.decide(vec![show(OWNER, tag, JOB, 2, 1)]), "is shown as");
    let mut bench = Bench::with_log();
    let second = bench.offer(JobId(2), 1, 2);
    bench.decide(vec![second]).unwrap();
    sees(bench.read(OWNER, 2), "is shown as");
}

#[test]
fn an_offer_that_never_began_takes_its_log_along() {
    let mut bench = Bench::with_log();
    bench.take_back();
    bench.decide(vec![drop_log(1)]).unwrap();
    bench.list(&[JOB]).unwrap();
    let again = bench.offer(JOB, 2, 2);
    bench.decide(vec![again]).unwrap();
    bench.read(OWNER, 2).unwrap();
    let tag = bench.ask(OWNER, Request::Logs { job: JOB, follow: false });
    sees(bench.decide(vec![show(OWNER, tag, JOB, 2, 2)]), "is shown as");

    let mut bench = Bench::with_log();
    bench.take_back();
    let again = bench.offer(JOB, 2, 2);
    sees(bench.decide(vec![again]), "log 1 is held");
}

#[test]
fn a_follower_gets_each_log_once() {
    let mut bench = Bench::new();
    let tag = bench.ask(OWNER, Request::Logs { job: JOB, follow: true });
    bench.decide(vec![]).unwrap();
    let offer = bench.offer(JOB, 1, 1);
    bench.decide(vec![offer, show(OWNER, tag, JOB, 1, 1)]).unwrap();
    sees(bench.decide(vec![show(OWNER, tag, JOB, 1, 1)]), "does not wait for it");

    let mut bench = Bench::new();
    bench.ask(OWNER, Request::Logs { job: JOB, follow: true });
    bench.decide(vec![]).unwrap();
    let offer = bench.offer(JOB, 1, 1);
    sees(bench.decide(vec![offer]), "follows, and is not given log 1");
}

#[test]
fn a_log_goes_with_its_job() {
    let mut bench = Bench::with_log();
    bench.list(&[JOB]).unwrap();
    sees(bench.list(&[]), "its job is gone");

    let mut bench = Bench::with_log();
    bench.decide(vec![drop_log(1)]).unwrap();
    bench.decide(vec![]).unwrap();
    sees(bench.list(&[JOB]), "is let go, and its job is there");
}

#[test]
fn too_many_logs_are_those_of_jobs_that_do_not_run_the_oldest_first() {
    let mut bench = Bench::with_log();
    let second = bench.offer(JobId(2), 1, 2);
    bench.decide(vec![second]).unwrap();
    let report = Report {
        result: TaskResult::Inline(Payload::from(vec![7])),
        elapsed_ns: 1,
        output_bytes: 0,
        survivors: Vec::new(),
    };
    let finished = |seq| Event::Finished { worker: WORKER, seq: Seq(seq), report: report.clone() };
    bench.tell(finished(1));
    bench.decide(vec![]).expect("that of a running job does not count");
    bench.tell(finished(2));
    sees(bench.decide(vec![]), "2 logs of jobs that do not run are held");

    // Both have ended: the younger one is not the one to go.
    let mut bench = Bench::with_log();
    let second = bench.offer(JobId(2), 1, 2);
    bench.decide(vec![second]).unwrap();
    bench.tell(finished(1));
    bench.tell(finished(2));
    bench.decide(vec![drop_log(2)]).unwrap();
    bench.decide(vec![]).unwrap();
    sees(bench.list(&[JOB, JobId(2)]), "older: Some(LogId(1))");
}

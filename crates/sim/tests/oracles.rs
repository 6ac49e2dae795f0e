//! Oracles fed by hand: what no run of a sound core can show is shown to them directly.

#![allow(clippy::unwrap_used, reason = "a verdict that must be good, in a test")]

use std::collections::BTreeMap;

use bulkhead_core::action::{Action, Output, Task};
use bulkhead_core::event::{Event, Now, Peer, ProcessEnd, Remains, Report, TaskResult};
use bulkhead_proto::client::evidence::Evidence;
use bulkhead_proto::client::message::{RegisteredUse, Reply, Request, Submit};
use bulkhead_proto::client::outcome::{self, JobEnded, Outcome, TimeLimit};
use bulkhead_proto::client::record::{Record, What};
use bulkhead_proto::client::refusal::UnknownJobs;
use bulkhead_proto::death::{Death, KillReason};
use bulkhead_proto::ids::{ClientId, Fence, JobId, KindId, OutputId, PoolId, Seq, SlotId, Tag, WorkerId};
use bulkhead_proto::job::{OutputMode, Payload, Policy};
use bulkhead_proto::worker::stage::Stage;
use bulkhead_sim::boxes::Guilt;
use bulkhead_sim::oracle::Oracles;
use bulkhead_sim::oracle::registrations::RegistrationOracle;
use bulkhead_sim::report::Verdict;
use bulkhead_sim::scenario::Scenario;
use bulkhead_sim::task::TaskId;
use bulkhead_sim::worker::FakeWorker;

const CLIENT: ClientId = ClientId(1);
const WORKER: WorkerId = WorkerId(1);

/// Oracles beside a pool with one placed worker and one accepted job.
struct Bench {
    oracles: Oracles,
    workers: BTreeMap<WorkerId, FakeWorker>,
    records: u64,
    now: Now,
}

impl Bench {
    fn new() -> Self {
        Self::with(Policy { crashes_max: Some(2), ..Policy::default() })
    }

    fn with(policy: Policy) -> Self {
        let mut scenario = Scenario::new(0);
        scenario.config.kinds.iter_mut().for_each(|kind| kind.logs = false);
        let mut bench = Self {
            oracles: Oracles::new(&scenario),
            workers: BTreeMap::from([(WORKER, FakeWorker::new(WORKER, 10, false))]),
            records: 0,
            now: Now { mono_ns: 1_000_000_000, wall_us: 1 },
        };
        bench.oracles.depth.takes_no_time(KindId(0));
        bench.decide(vec![], vec![Action::Spawn { worker: WORKER, pool: PoolId(0) }]).unwrap();
        bench.tell(Event::WorkerReady { worker: WORKER, writes_stack: false }).unwrap();
        let placed =
            What::Placed { worker: WORKER, slot: SlotId(0), replaces: None, after_us: 0, warm: true };
        bench.decide(vec![placed], vec![]).unwrap();
        bench.tell(Event::ClientConnected { client: CLIENT, peer: Peer { uid: 1, admin: false } }).unwrap();
        bench.submit(policy);
        bench
    }

    fn submit(&mut self, policy: Policy) {
        let input = Payload::from(vec![1]);
        let submit = Submit {
            kind: "quick".to_owned(),
            policy,
            attached: true,
            inputs: vec![input],
            ..Submit::default()
        };
        let request = Request::Submit(submit);
        self.tell(Event::ClientSaid { client: CLIENT, tag: Tag(1), request, files: Vec::new() }).unwrap();
        let reply = Reply::Accepted { first: JobId(1), count: 1, refused: None };
        let action = Action::Reply { client: CLIENT, tag: Tag(1), reply: reply.clone(), output: None };
        self.decide(vec![], vec![action]).unwrap();
        self.get(reply, None).unwrap();
    }

    fn tell(&mut self, event: Event) -> Verdict {
        self.oracles.told(self.now, &event)
    }

    fn decide(&mut self, whats: Vec<What>, actions: Vec<Action>) -> Verdict {
        let mut records = Vec::new();
        for what in whats {
            self.records += 1;
            records.push(Record { index: self.records, at_us: 0, what });
        }
        self.oracles.decided(self.now, &Output { records, actions, facts: Vec::new() }, &self.workers)
    }

    fn get(&mut self, reply: Reply, output: Option<OutputId>) -> Verdict {
        self.oracles.got(self.now, CLIENT, Tag(1), &reply, output, 10)
    }

    fn offer(&mut self, worker: WorkerId, seq: u64, fence: u32) -> Verdict {
        let task = Task {
            job: JobId(1),
            fence: Fence(fence),
            kind: KindId(0),
            memory_bytes: None,
            grace_ms: 0,
            output: OutputMode::Inline,
            room: None,
            stage: Stage::Whole,
            files: Vec::new().into(),
            input: Payload::from(vec![1]),
        };
        self.decide(vec![], vec![Action::Offer { worker, seq: Seq(seq), task }])
    }

    fn finish(&mut self, seq: u64, result: TaskResult) {
        let report = Report { result, elapsed_ns: 1, output_bytes: 0, survivors: Vec::new() };
        self.tell(Event::Finished { worker: WORKER, seq: Seq(seq), report }).unwrap();
    }

    fn die(&mut self, death: Death, guilty: bool) {
        let first = guilty.then_some((Seq(1), TaskId::own(JobId(1))));
        self.oracles.ledger.proof(WORKER, Guilt { first, disputed: vec![] });
        let remains = vec![Remains { seq: Seq(1), claimed: guilty }];
        let end = match death {
            Death::Killed { why } => {
                self.oracles.ledger.killed(WORKER, why);
                ProcessEnd::ByUs
            }
            own => ProcessEnd::Itself(own),
        };
        self.tell(Event::Died {
            worker: WORKER,
            end,
            evidence: Evidence::default(),
            noticed_after_us: None,
            remains,
        })
        .unwrap();
    }
}

fn blamed(crashes: u8) -> What {
    What::Blamed { job: JobId(1), part: None, attempt: 1, worker: WORKER, crashes, crashes_max: 2 }
}

fn ended(outcome: Outcome, output: outcome::JobOutput) -> Reply {
    Reply::Ended(vec![JobEnded { job: JobId(1), outcome, output, attempts: 1, survivors: Vec::new() }])
}

fn segv() -> Death {
    Death::Signalled { signal: 11, core: false }
}

fn oracle(verdict: Verdict) -> &'static str {
    verdict.expect_err("the oracle sees it").oracle
}

#[test]
fn an_offer_goes_only_to_a_ready_worker_with_the_next_seq() {
    assert_eq!(oracle(Bench::new().offer(WORKER, 2, 1)), "pool");
    assert_eq!(oracle(Bench::new().offer(WorkerId(2), 1, 1)), "pool");
    let mut bench = Bench::new();
    bench.decide(vec![], vec![Action::Kill { worker: WORKER, why: KillReason::Stop }]).unwrap();
    assert_eq!(oracle(bench.offer(WORKER, 1, 1)), "pool");
    assert_eq!(Bench::new().offer(WORKER, 1, 1), Ok(()));
}

#[test]
fn a_slot_has_one_worker() {
    let mut bench = Bench::new();
    let second = WorkerId(2);
    let placed = What::Placed { worker: second, slot: SlotId(0), replaces: None, after_us: 0, warm: true };
    bench.decide(vec![], vec![Action::Spawn { worker: second, pool: PoolId(0) }]).unwrap();
    assert_eq!(oracle(bench.decide(vec![placed], vec![])), "pool");
}

#[test]
fn an_open_offer_is_not_made_again() {
    let mut bench = Bench::new();
    bench.offer(WORKER, 1, 1).unwrap();
    bench.tell(Event::TookBack { worker: WORKER, seq: Seq(1), won: false }).unwrap();
    assert_eq!(oracle(bench.offer(WORKER, 2, 2)), "exclusive");
    bench.tell(Event::TookBack { worker: WORKER, seq: Seq(1), won: true }).unwrap();
    assert_eq!(bench.offer(WORKER, 3, 2), Ok(()));
}

#[test]
fn the_fence_grows() {
    let mut bench = Bench::new();
    bench.offer(WORKER, 1, 1).unwrap();
    bench.tell(Event::TookBack { worker: WORKER, seq: Seq(1), won: true }).unwrap();
    assert_eq!(oracle(bench.offer(WORKER, 2, 1)), "outcome");
}

#[test]
fn the_guilty_is_charged_and_nobody_else() {
    let mut guilty = Bench::new();
    guilty.offer(WORKER, 1, 1).unwrap();
    guilty.die(segv(), true);
    assert_eq!(oracle(guilty.decide(vec![], vec![])), "blame");

    let mut innocent = Bench::new();
    innocent.offer(WORKER, 1, 1).unwrap();
    innocent.die(segv(), false);
    assert_eq!(oracle(innocent.decide(vec![blamed(1)], vec![])), "blame");

    let mut ours = Bench::new();
    ours.offer(WORKER, 1, 1).unwrap();
    ours.die(Death::Killed { why: KillReason::Cancel }, true);
    assert_eq!(oracle(ours.decide(vec![blamed(1)], vec![])), "blame");
}

#[test]
fn charges_are_counted() {
    let mut bench = Bench::new();
    bench.offer(WORKER, 1, 1).unwrap();
    bench.die(segv(), true);
    assert_eq!(oracle(bench.decide(vec![blamed(2)], vec![])), "budget");
}

#[test]
fn after_a_charge_the_worker_must_be_fresh() {
    let mut bench = Bench::new();
    bench.offer(WORKER, 1, 1).unwrap();
    bench.die(segv(), true);
    bench.decide(vec![blamed(1)], vec![Action::Spawn { worker: WorkerId(2), pool: PoolId(0) }]).unwrap();
    bench.tell(Event::WorkerReady { worker: WorkerId(2), writes_stack: false }).unwrap();
    let placed =
        What::Placed { worker: WorkerId(2), slot: SlotId(0), replaces: None, after_us: 0, warm: true };
    bench.decide(vec![placed], vec![]).unwrap();
    let mut worker = FakeWorker::new(WorkerId(2), 10, false);
    worker.begun = 1;
    bench.workers.insert(WorkerId(2), worker);
    assert_eq!(oracle(bench.offer(WorkerId(2), 1, 2)), "budget");
}

#[test]
fn an_end_needs_evidence_and_stays() {
    let output = outcome::JobOutput::Inline(Payload::from(vec![7]));
    let mut early = Bench::new();
    early.offer(WORKER, 1, 1).unwrap();
    assert_eq!(oracle(early.get(ended(Outcome::Done, output.clone()), None)), "outcome");

    let mut other = Bench::new();
    other.offer(WORKER, 1, 1).unwrap();
    other.finish(1, TaskResult::Inline(Payload::from(vec![8])));
    assert_eq!(oracle(other.get(ended(Outcome::Done, output.clone()), None)), "outcome");

    let mut twice = Bench::new();
    twice.offer(WORKER, 1, 1).unwrap();
    twice.finish(1, TaskResult::Inline(Payload::from(vec![7])));
    assert_eq!(twice.get(ended(Outcome::Done, output.clone()), None), Ok(()));
    assert_eq!(oracle(twice.get(ended(Outcome::Done, output), None)), "replies");
}

#[test]
fn nobody_is_cancelled_timed_out_or_lost_without_cause() {
    for outcome in [
        Outcome::Cancelled,
        Outcome::Expired,
        Outcome::TimedOut { limit: TimeLimit::Wall, limit_ms: 5, part: None },
        Outcome::Lost { reason: String::new() },
        Outcome::Failed { message: String::new(), code: None },
        Outcome::Crashed { crashes: 2, last: String::new() },
    ] {
        let what = What::Ended { job: JobId(1), outcome, attempts: 1, after_us: 0 };
        assert_eq!(oracle(Bench::new().decide(vec![what], vec![])), "outcome");
    }
}

#[test]
fn outputs_are_attached_while_held_and_dropped_once() {
    let mut bench = Bench::new();
    let drop = || vec![Action::DropOutput { output: OutputId(1) }];
    assert_eq!(oracle(bench.decide(vec![], drop())), "outputs");
    bench.finish(1, TaskResult::Held { output: OutputId(1), bytes: 3 });
    assert_eq!(oracle(bench.oracles.outputs.finish(0)), "outputs");
    assert_eq!(bench.decide(vec![], drop()), Ok(()));
    assert_eq!(oracle(bench.decide(vec![], drop())), "outputs");
    let pong = Reply::Pong { pid: 1 };
    assert_eq!(oracle(bench.oracles.outputs.attached(&pong, Some(OutputId(1)))), "outputs");
}

#[test]
fn unknown_jobs_are_told_in_one_reply() {
    let mut bench = Bench::new();
    let (tag, jobs) = (Tag(2), vec![JobId(8), JobId(9)]);
    let request = Request::Wait { jobs: jobs.clone() };
    bench.tell(Event::ClientSaid { client: CLIENT, tag, request, files: Vec::new() }).unwrap();
    let unknown = |jobs: &[JobId]| {
        Reply::Unknown(UnknownJobs {
            jobs: jobs.to_vec(),
            last: JobId(1),
            others: true,
            ..UnknownJobs::default()
        })
    };
    let mut get = |reply: Reply| bench.oracles.got(bench.now, CLIENT, tag, &reply, None, 10);
    get(unknown(&jobs[..1])).unwrap();
    assert_eq!(oracle(get(unknown(&jobs[1..]))), "replies");
}

#[test]
fn nobody_gets_what_was_not_asked_for() {
    let mut bench = Bench::new();
    assert_eq!(oracle(bench.get(Reply::Pong { pid: 1 }, None)), "replies");
    let verdict = bench.oracles.got(bench.now, CLIENT, Tag(2), &Reply::Pong { pid: 1 }, None, 10);
    assert_eq!(oracle(verdict), "replies");
    assert_eq!(oracle(bench.oracles.replies.finish(|_| true)), "replies");
}

#[test]
fn turns_need_a_cause() {
    let mut quiet = bulkhead_sim::oracle::quiet::QuietOracle::default();
    let verdict = (0..1000).try_for_each(|_| quiet.step(5, false));
    assert_eq!(oracle(verdict), "quiet");
    assert_eq!((0..1000).try_for_each(|_| quiet.step(5, true)), Ok(()));
    assert_eq!((0..1000).try_for_each(|now| quiet.step(now, false)), Ok(()));
}

#[test]
fn few_stops_of_a_program_are_recorded_and_only_those_that_were_told() {
    let job = JobId(1);
    let stopped = || What::ProgramStopped { worker: WORKER, job, program: 77, signal: 19 };
    let continued = || What::ProgramContinued { worker: WORKER, job, program: 77, after_us: 1 };
    let mut bench = Bench::new();
    bench.offer(WORKER, 1, 1).unwrap();
    assert_eq!(oracle(bench.decide(vec![stopped()], vec![])), "programs");
    assert_eq!(oracle(bench.decide(vec![continued()], vec![])), "programs");
    let tell_stop = |bench: &mut Bench, seq| {
        bench.tell(Event::ProgramStopped { worker: WORKER, seq: Seq(seq), pid: 77, signal: 19 }).unwrap();
    };
    tell_stop(&mut bench, 2);
    assert_eq!(oracle(bench.decide(vec![stopped()], vec![])), "programs");
    tell_stop(&mut bench, 1);
    bench.decide(vec![stopped(), continued()], vec![]).unwrap();
    assert_eq!(oracle(bench.decide(vec![continued()], vec![])), "programs");
    bench.now.mono_ns += 59_000_000_000;
    tell_stop(&mut bench, 1);
    assert_eq!(oracle(bench.decide(vec![stopped()], vec![])), "programs");
}

#[test]
fn a_block_is_said_to_be_free_once() {
    let arena = RegisteredUse { arena: Some(1), contexts: Vec::new() };
    let submit = Submit { registered: Some(Box::new(arena)), ..Submit::default() };
    let done = || ended(Outcome::Done, outcome::JobOutput::None);
    let failed = || {
        let failed = Outcome::Failed { message: String::new(), code: None };
        ended(failed, outcome::JobOutput::None)
    };
    let cancelled = || ended(Outcome::Cancelled, outcome::JobOutput::None);
    let freed = || Reply::Freed { jobs: vec![JobId(1)] };
    let run = |replies: Vec<(Tag, Reply)>| {
        let mut oracle = RegistrationOracle::default();
        oracle.accepted((CLIENT, Tag(1)), &submit, JobId(1), 1);
        let told = replies.into_iter().try_for_each(|(tag, reply)| {
            oracle.decided(&Action::Reply { client: CLIENT, tag, reply, output: None })
        });
        told.and_then(|()| oracle.finish(&[]))
    };
    for end in [done as fn() -> Reply, failed] {
        run(vec![(Tag(1), end())]).unwrap();
        // The answer to a wait says nothing of the block.
        run(vec![(Tag(2), end()), (Tag(0), freed())]).unwrap();
        assert_eq!(oracle(run(vec![(Tag(1), end()), (Tag(0), freed())])), "registrations");
        assert_eq!(oracle(run(vec![(Tag(0), freed()), (Tag(1), end())])), "registrations");
        assert_eq!(oracle(run(vec![(Tag(2), end())])), "registrations");
    }
    run(vec![(Tag(1), cancelled()), (Tag(0), freed())]).unwrap();
    assert_eq!(oracle(run(vec![(Tag(1), cancelled())])), "registrations");
    assert_eq!(oracle(run(vec![(Tag(0), freed()), (Tag(0), freed())])), "registrations");
}

#[test]
fn a_stop_of_a_killed_worker_is_no_matter() {
    let mut bench = Bench::new();
    let stopped = Event::Suspended { worker: WORKER, signal: 19 };
    bench.decide(vec![], vec![Action::Kill { worker: WORKER, why: KillReason::Stop }]).unwrap();
    bench.tell(stopped).unwrap();
    bench.now.mono_ns += 60_000_000_000;
    for _ in 0..10 {
        bench.decide(vec![], vec![]).unwrap();
    }
}

#[test]
fn what_a_task_does_in_its_grace_is_no_matter_for_the_limit_that_it_met() {
    for (told_to_end, is_sound) in [(true, true), (false, false)] {
        let mut bench = Bench::with(Policy { no_progress_ms: Some(100), ..Policy::default() });
        bench.offer(WORKER, 1, 1).unwrap();
        bench.now.mono_ns += 100_000_000;
        if told_to_end {
            bench.decide(vec![], vec![Action::Unwant { worker: WORKER, seq: Seq(1) }]).unwrap();
        }
        bench.now.mono_ns += 20_000_000;
        bench.workers.get_mut(&WORKER).unwrap().vitals.shown.progress_ns = bench.now.mono_ns;
        let kill = Action::Kill { worker: WORKER, why: KillReason::NoProgress };
        let verdict = bench.decide(vec![], vec![kill]);
        assert_eq!(verdict.is_ok(), is_sound, "{verdict:?}");
    }
}

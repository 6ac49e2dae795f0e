//! Plan, run and merge: which task is offered when, with which files, and how the end of a part changes its job.

use std::rc::Rc;

use bulkhead_core::action::{Task, TaskFile};
use bulkhead_core::event::{Leftover, TaskResult};
use bulkhead_proto::client::message::{Reply, Request, Submit, Walk};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::view::Parts;
use bulkhead_proto::client::why::WhyNow;
use bulkhead_proto::ids::{ClientId, JobId, OutputId, Seq, WorkerId};
use bulkhead_proto::job::{JobState, OutputMode, Payload, Policy};
use bulkhead_proto::worker::stage::Stage;

use crate::rig::{ADMIN, ALICE, Rig, SEGV, exit_code};

pub(crate) const PLAN: OutputId = OutputId(1000);

impl Rig {
    pub(crate) fn fan(&mut self, policy: Policy) -> JobId {
        self.submit_as(ALICE, "fan", 1, policy, false)
    }

    /// A job whose plan is done: so many parts.
    pub(crate) fn planned(&mut self, parts: u32, policy: Policy) -> JobId {
        let job = self.fan(policy);
        self.plan(job, parts);
        job
    }

    pub(crate) fn plan(&mut self, job: JobId, parts: u32) {
        let (worker, seq, _) = self.task(job, |stage| stage == Stage::Plan).expect("its plan is offered");
        let planned = TaskResult::Planned { output: OutputId(PLAN.0 + job.0), bytes: 16, parts };
        self.finish_offer(worker, seq, planned, 1000);
    }

    pub(crate) fn task(&self, job: JobId, wanted: impl Fn(Stage) -> bool) -> Option<(WorkerId, Seq, Task)> {
        let all = self.workers.iter().flat_map(|(worker, held)| held.iter().map(|held| (*worker, held)));
        let mut wanted = all.filter(|(_, held)| held.task.job == job && wanted(held.task.stage));
        wanted.next().map(|(worker, held)| (worker, held.seq, held.task.clone()))
    }

    /// Parts of a job that are offered.
    pub(crate) fn offered(&self, job: JobId) -> Vec<u32> {
        let all = self.workers.values().flatten().filter(|held| held.task.job == job);
        let mut parts: Vec<u32> = all.filter_map(|held| part_of(held.task.stage)).collect();
        parts.sort_unstable();
        parts
    }

    pub(crate) fn end_part(&mut self, job: JobId, part: u32, result: TaskResult) {
        let (worker, seq, _) = self.task(job, |stage| part_of(stage) == Some(part)).expect("it is offered");
        self.finish_offer(worker, seq, result, 1000);
    }

    /// A part kills its worker.
    pub(crate) fn crash_part(&mut self, job: JobId, part: u32) {
        let (worker, seq, _) = self.task(job, |stage| part_of(stage) == Some(part)).expect("it is offered");
        self.claim_offer(worker, seq);
        self.die(worker, SEGV);
    }

    pub(crate) fn claim_offer(&mut self, worker: WorkerId, seq: Seq) {
        let held = self.workers.get_mut(&worker).expect("it lives").iter_mut();
        held.filter(|held| held.seq == seq).for_each(|held| held.claimed = true);
    }
}

pub(crate) fn part_of(stage: Stage) -> Option<u32> {
    if let Stage::Run { part, .. } = stage { Some(part) } else { None }
}

pub(crate) fn left(bytes: &[u8]) -> TaskResult {
    TaskResult::Inline(Payload::from(bytes.to_vec()))
}

pub(crate) fn failed() -> TaskResult {
    TaskResult::Failed { output: Leftover::Nothing, message: "no".to_owned(), program: exit_code(3) }
}

/// The order in which so many tasks are offered to one worker, each done at once.
pub(crate) fn order(rig: &mut Rig, count: usize) -> Vec<JobId> {
    let mut seen = Vec::new();
    for _ in 0..count {
        let (worker, held) = rig
            .workers
            .iter()
            .find(|(_, held)| !held.is_empty())
            .map(|(id, held)| (*id, held[0].clone()))
            .expect("some");
        seen.push(held.task.job);
        rig.finish_offer(worker, held.seq, left(b""), 2_000_000);
    }
    seen
}

#[test]
fn a_job_is_planned_run_in_parts_and_merged() {
    let mut rig = Rig::new(2);
    let job = rig.fan(Policy::default());
    let (_, _, plan) = rig.task(job, |_| true).expect("it is offered");
    assert_eq!((plan.stage, plan.output, plan.files.len()), (Stage::Plan, OutputMode::Descriptor, 0));
    rig.plan(job, 3);
    assert_eq!(rig.offered(job), [0, 1]);
    let (_, _, part) = rig.task(job, |_| true).expect("it is offered");
    assert_eq!((part.output, part.input.as_bytes()), (OutputMode::Inline, &b"0"[..]));
    assert_eq!(part.files, [TaskFile::Plan { output: OutputId(1001) }]);
    rig.end_part(job, 1, left(b"b"));
    assert_eq!(rig.offered(job), [0, 2]);
    rig.end_part(job, 2, left(b"c"));
    assert_eq!(rig.workers.values().flatten().count(), 1, "the merge waits for every part");
    rig.end_part(job, 0, left(b""));
    let (_, _, merge) = rig.task(job, |_| true).expect("it is offered");
    assert_eq!((merge.stage, merge.output), (Stage::Merge { parts: 3 }, OutputMode::Inline));
    let results = Rc::new(["", "b", "c"].map(|text| Payload::from(text.as_bytes().to_vec())).to_vec());
    assert_eq!(merge.files, [TaskFile::Plan { output: OutputId(1001) }, TaskFile::Results { results }]);
    assert!(rig.dropped.is_empty());
    rig.finish(job);
    assert_eq!(rig.outcome(job), Some(Outcome::Done));
    assert_eq!(rig.dropped, [OutputId(1001)]);
    assert_eq!((rig.status().totals.accepted, rig.status().totals.done), (1, 1));
}

#[test]
fn a_plan_of_no_parts_is_merged_at_once() {
    let mut rig = Rig::new(1);
    let job = rig.planned(0, Policy::default());
    let (_, _, merge) = rig.task(job, |_| true).expect("it is offered");
    assert_eq!((merge.stage, merge.files.len()), (Stage::Merge { parts: 0 }, 1));
}

#[test]
fn the_shared_output_becomes_the_result() {
    let mut rig = Rig::new(1);
    let policy = Policy { output: OutputMode::Descriptor, ..Policy::default() };
    let job = rig.fan(policy.clone());
    let shared = |rig: &Rig| {
        let (_, _, task) = rig.task(job, |_| true).expect("it is offered");
        task.files.into_iter().find(|file| matches!(file, TaskFile::Shared { .. })).expect("it has it")
    };
    let first = shared(&rig);
    rig.plan(job, 1);
    assert_eq!(shared(&rig), first);
    rig.end_part(job, 0, left(b""));
    assert_eq!(shared(&rig), first);
    rig.finish_with(job, TaskResult::Held { output: OutputId(9), bytes: 70 }, 1000);
    assert_eq!(rig.outcome(job), Some(Outcome::Done));
    assert_eq!((rig.scratches_dropped.len(), rig.dropped.clone()), (0, vec![OutputId(1001)]));
    let second = rig.planned(1, policy);
    rig.change(ALICE, Request::Cancel { jobs: vec![second] });
    assert_eq!(rig.scratches_dropped.len(), 1, "one that is not the result is let go");
}

#[test]
fn parts_are_no_jobs() {
    let mut rig = Rig::new(2);
    let job = rig.planned(100, Policy::default());
    let Reply::Jobs { rows, more: false, .. } =
        rig.answer(ADMIN, Request::Jobs { state: None, walk: Walk::Up(JobId(0)), limit: 1000 })
    else {
        panic!("no list")
    };
    assert_eq!(rows.iter().map(|row| (row.job, row.state)).collect::<Vec<_>>(), [(job, JobState::Running)]);
    let status = rig.status();
    assert_eq!((status.queued, status.running, status.retrying), (0, 1, 0));
    assert!(rig.rows().iter().all(|row| row.job.is_none_or(|shown| shown == job)));
    for number in [1 << 63, (1 << 63) | (1 << 16), (1 << 63) | (1 << 16) | 1, u64::MAX] {
        let part = JobId(number);
        for request in [Request::Job { job: part }, Request::Result { job: part }, Request::Why { job: part }]
        {
            let answer = rig.answer(ADMIN, request);
            assert!(matches!(answer, Reply::Refused(_)), "{answer:?}");
        }
        let (count, _) = rig.change(ADMIN, Request::Cancel { jobs: vec![part] });
        assert_eq!(count, 0);
        let waits = rig.answer(ADMIN, Request::Wait { jobs: vec![part] });
        assert!(matches!(&waits, Reply::Unknown(unknown) if unknown.jobs == [part]), "{waits:?}");
    }
    assert_eq!(rig.submit(1), JobId(job.0 + 1), "parts use up no numbers");
}

#[test]
fn how_far_the_parts_are_is_shown() {
    let mut rig = Rig::new(2);
    let job = rig.planned(5, Policy::default());
    rig.end_part(job, 0, left(b""));
    let parts = Parts { done: 1, running: 2, total: 5 };
    assert_eq!(rig.detail(job).parts, Some(parts));
    let why = rig.why(ALICE, job);
    assert!(matches!(why.now, WhyNow::Parted { parts: shown, .. } if shown == parts), "{why:?}");
    assert!(why.to_string().contains("done in 5 parts: 1 are done, 2 run."), "{why}");
}

#[test]
fn files_of_the_client_go_with_every_task() {
    let mut rig = Rig::new(1);
    let submit = Submit {
        kind: "fan".to_owned(),
        files: vec![bulkhead_proto::file::FileUse::new("in", bulkhead_proto::file::Way::In)],
        inputs: vec![Payload::default()],
        ..Submit::default()
    };
    let (files, job) = rig.with_files(ClientId(1), submit);
    let has_it = |rig: &Rig| {
        let (_, _, task) = rig.task(job, |_| true).expect("it is offered");
        task.files.iter().any(|file| matches!(file, TaskFile::Client { file, .. } if *file == files[0]))
    };
    assert!(has_it(&rig));
    rig.plan(job, 1);
    assert!(has_it(&rig));
    rig.end_part(job, 0, left(b""));
    assert!(has_it(&rig) && rig.let_go.is_empty());
    rig.finish(job);
    assert_eq!(rig.let_go, files);
}

//! Memory for outputs and logs: what a task is told, who waits, what goes and whose it is.

use bulkhead_core::config::Config;
use bulkhead_core::event::{Event, TaskResult};
use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::outcome::{JobOutput, OutputBound, OutputGone};
use bulkhead_proto::client::why::{OutputWait, WhyNow};
use bulkhead_proto::ids::{ClientId, JobId, OutputId};
use bulkhead_proto::job::{OutputMode, Policy};

use crate::parts::left;
use crate::rig::{ALICE, BOB, Rig, config};

const MIB: u64 = 1 << 20;
/// A bound of which Alice has 192 MiB.
const BOUND: u64 = 256 * MIB;

fn rig(change: impl FnOnce(&mut Config)) -> Rig {
    let mut config = Config { outputs_bytes_max: BOUND, ..config(3) };
    for kind in &mut config.kinds {
        kind.output_max_bytes = Some(64 * MIB);
    }
    change(&mut config);
    Rig::with(config)
}

fn large() -> Policy {
    Policy { output: OutputMode::Descriptor, ..Policy::default() }
}

/// One detached job with an output in memory.
fn submit(rig: &mut Rig, client: ClientId) -> JobId {
    rig.submit_as(client, "quick", 1, large(), false)
}

/// The room for the output of a job that was offered.
fn room(rig: &Rig, job: JobId) -> u64 {
    let mut held = rig.workers.values().flatten();
    held.find(|held| held.task.job == job).expect("the job is offered").task.room().own_bytes
}

fn finish(rig: &mut Rig, job: JobId, output: u64, bytes: u64) {
    rig.finish_with(job, TaskResult::Held { output: OutputId(output), bytes }, 2_000_000);
}

/// What `result` says of the output of a job, and what is attached.
fn result(rig: &mut Rig, client: ClientId, job: JobId) -> (JobOutput, Option<OutputId>) {
    let tag = rig.ask(client, Request::Result { job });
    let found = rig.replies.iter().find(|reply| reply.1 == tag).expect("an answer");
    let Reply::Ended(ended) = &found.2 else { panic!("{found:?}") };
    (ended[0].output.clone(), found.3)
}

fn wait_of(rig: &mut Rig, client: ClientId, job: JobId) -> Option<OutputWait> {
    match rig.why(client, job).now {
        WhyNow::Queued { outputs, .. } => outputs,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_output_counts_what_it_may_become_and_then_what_it_is() {
    let mut rig = rig(|_| ());
    let job = submit(&mut rig, ALICE);
    assert_eq!(room(&rig, job), 64 * MIB);
    let shown = rig.status().outputs;
    assert_eq!((shown.held, shown.running, shown.max), (64 * MIB, 64 * MIB, BOUND));
    finish(&mut rig, job, 1, 5000);
    let shown = rig.status().outputs;
    assert_eq!((shown.held, shown.running, shown.kept), (5000, 0, 5000));
    assert!(rig.status().kept_bytes >= 5000, "status counts it among what is kept");
    rig.change(ALICE, Request::Forget { jobs: vec![job] });
    assert_eq!(rig.status().outputs.held, 0);
    let inline = rig.submit(1);
    assert_eq!((room(&rig, inline), rig.status().outputs.held), (0, 0));
}

#[test]
fn a_job_without_room_waits_for_the_last_close_of_another_and_why_says_so() {
    let mut rig = rig(|_| ());
    rig.free = false;
    let jobs: Vec<_> = (0..4).map(|_| submit(&mut rig, ALICE)).collect();
    for job in &jobs[..3] {
        assert_eq!(room(&rig, *job), 64 * MIB, "three of them fit the share");
    }
    assert_eq!(rig.holder(jobs[3]), None);
    let neighbours = submit(&mut rig, BOB);
    finish(&mut rig, jobs[0], 1, 64 * MIB);
    assert!(rig.holder(neighbours).is_some(), "the neighbour has a share too");
    assert_eq!(rig.holder(jobs[3]), None, "what is kept goes for a user's first output alone");
    let wait = wait_of(&mut rig, ALICE, jobs[3]).expect("it waits for memory");
    assert_eq!((wait.held, wait.running, wait.share), (192 * MIB, 128 * MIB, 192 * MIB));
    rig.change(ALICE, Request::Forget { jobs: vec![jobs[0]] });
    assert_eq!(rig.dropped, [OutputId(1)]);
    assert_eq!(rig.holder(jobs[3]), None, "a reply still holds it");
    finish(&mut rig, jobs[1], 2, MIB);
    assert_eq!(rig.holder(jobs[3]), None, "63 MiB are left");
    rig.tell(Event::OutputFreed { output: OutputId(1) });
    assert!(rig.holder(jobs[3]).is_some());
    finish(&mut rig, neighbours, 3, MIB);
    finish(&mut rig, jobs[2], 4, MIB);
    finish(&mut rig, jobs[3], 5, MIB);
}

/// Else a user's tasks would run one after the other where memory is short.
#[test]
fn a_kind_that_does_not_say_leaves_room_for_all_workers_of_its_pool() {
    let mut rig = rig(|config| config.kinds[0].output_max_bytes = None);
    let jobs = [0; 3].map(|_| submit(&mut rig, ALICE));
    assert!(jobs.iter().all(|job| rig.holder(*job).is_some()));
    assert_eq!(room(&rig, jobs[0]), 64 * MIB);
}

#[test]
fn with_less_left_a_task_is_told_what_there_is_or_waits() {
    let mut rig = rig(|config| config.kinds[0].output_max_bytes = Some(1 << 30));
    let attached = rig.submit_as(ALICE, "quick", 1, large(), true);
    assert_eq!(room(&rig, attached), 192 * MIB, "all of the share");
    let next = submit(&mut rig, ALICE);
    assert_eq!(rig.holder(next), None, "nothing is left while it runs");
    // Alice reads nothing: no credit, so that the end is not told.
    rig.free = false;
    finish(&mut rig, attached, 1, 100 * MIB);
    assert_eq!(room(&rig, next), 92 * MIB, "an output that is not read stays");
    finish(&mut rig, next, 2, 10);
    let neighbours = submit(&mut rig, BOB);
    assert_eq!(room(&rig, neighbours), 156 * MIB, "what others hold is no room");
    finish(&mut rig, neighbours, 3, 1);
}

#[test]
fn the_oldest_kept_outputs_of_the_one_who_has_most_go_alone() {
    for (change, bound, limit) in [
        ((|config| config.keep_outputs_max = 3) as fn(&mut Config), OutputBound::KeptOutputs, 3),
        (|config| config.keep_bytes_max = 4 * MIB, OutputBound::KeptBytes, 4 * MIB),
    ] {
        let mut rig = rig(change);
        let neighbours = submit(&mut rig, BOB);
        finish(&mut rig, neighbours, 100, MIB);
        let jobs: Vec<_> = (1..=30)
            .map(|number| {
                let job = submit(&mut rig, ALICE);
                finish(&mut rig, job, number, MIB + 1000);
                job
            })
            .collect();
        assert_eq!(rig.dropped, (1..=28).map(OutputId).collect::<Vec<_>>(), "{bound:?}");
        let told = JobOutput::Gone(OutputGone { bytes: MIB + 1000, bound, limit });
        assert_eq!(result(&mut rig, ALICE, jobs[27]), (told, None));
        assert_eq!(rig.detail(jobs[27]).output_gone.map(|gone| gone.bound), Some(bound));
        let there = JobOutput::Descriptor { bytes: MIB + 1000 };
        assert_eq!(result(&mut rig, ALICE, jobs[28]), (there, Some(OutputId(29))));
        assert_eq!(result(&mut rig, BOB, neighbours).1, Some(OutputId(100)), "the neighbour's stays");
        assert_eq!(rig.status().kept, 31, "every job is kept");
        assert_eq!(rig.status().totals.evicted, 28);
    }
}

#[test]
fn a_share_that_is_full_of_kept_outputs_gives_room_for_one_more() {
    let mut rig = rig(|config| config.keep_bytes_max = u64::MAX);
    for number in 1..=3 {
        let job = submit(&mut rig, ALICE);
        finish(&mut rig, job, number, 60 * MIB);
    }
    let job = submit(&mut rig, ALICE);
    assert_eq!((room(&rig, job), rig.dropped.as_slice()), (64 * MIB, &[OutputId(1)][..]));
    finish(&mut rig, job, 4, 64 * MIB);
    assert_eq!(rig.status().outputs.held, 184 * MIB);
    let oldest =
        JobOutput::Gone(OutputGone { bytes: 60 * MIB, bound: OutputBound::AllBytes, limit: 192 * MIB });
    assert_eq!(result(&mut rig, ALICE, JobId(1)), (oldest, None));
}

#[test]
fn logs_count_as_outputs_do() {
    let mut rig = rig(|config| config.kinds[0].logs = true);
    let job = rig.submit(1);
    let shown = rig.status().outputs;
    assert_eq!((shown.logs, shown.held), (MIB, MIB + 4096), "with the worker's copy");
    rig.finish(job);
    assert_eq!(rig.status().outputs.held, MIB);
    rig.free = false;
    rig.change(ALICE, Request::Forget { jobs: vec![job] });
    let log = rig.logs_dropped[0];
    assert_eq!(rig.status().outputs.held, MIB, "a reader has it");
    rig.tell(Event::LogFreed { log });
    assert_eq!(rig.status().outputs.held, 0);
}

#[test]
fn a_worker_that_dies_gives_the_room_of_its_offers_back() {
    let mut rig = rig(|_| ());
    let job = submit(&mut rig, ALICE);
    let worker = rig.claim(job);
    rig.die(worker, crate::rig::SEGV);
    rig.sleep(10);
    assert_eq!(rig.status().outputs.held, 64 * MIB, "it is offered again");
    let again = rig.holder(job).expect("it runs alone now");
    assert_ne!(again.0, worker);
    rig.fail(job);
    assert_eq!(rig.status().outputs.held, 0);
}

#[test]
fn outputs_of_one_user_that_nobody_reads_leave_files_for_others() {
    let mut rig = rig(|config| config.open_outputs_max = 16);
    rig.free = false;
    let jobs: Vec<_> = (1..=14).map(|_| rig.submit_as(ALICE, "quick", 1, large(), true)).collect();
    for (number, job) in jobs[..12].iter().enumerate() {
        finish(&mut rig, *job, 1 + number as u64, 10);
    }
    assert_eq!(rig.holder(jobs[12]), None, "twelve of sixteen are the share of one user");
    // What was dropped in a turn counts as free to the end of it.
    rig.status();
    let wait = wait_of(&mut rig, ALICE, jobs[12]).and_then(|wait| wait.files).expect("it waits for a file");
    assert_eq!((wait.held, wait.held_by_all, wait.share, wait.bound), (12, 12, 12, 16));
    let neighbours = submit(&mut rig, BOB);
    assert!(rig.holder(neighbours).is_some(), "the neighbour has a share too");
    rig.tell(Event::OutputClosed { output: OutputId(1) });
    assert!(rig.holder(jobs[12]).is_some(), "what was sent takes no file");
    rig.tell(Event::OutputFreed { output: OutputId(1) });
    assert_eq!(rig.holder(jobs[13]), None, "and is not closed twice");
    finish(&mut rig, neighbours, 100, 10);
    assert_eq!(result(&mut rig, BOB, neighbours).1, Some(OutputId(100)), "and keeps what it had");
}

#[test]
fn a_share_of_files_that_is_full_of_kept_outputs_gives_room_for_one_more() {
    let mut rig = rig(|config| config.open_outputs_max = 4);
    for number in 1..=4 {
        let job = submit(&mut rig, ALICE);
        finish(&mut rig, job, number, 10);
    }
    assert_eq!(rig.dropped, [OutputId(1)], "three of four are the share of one user");
    let oldest = JobOutput::Gone(OutputGone { bytes: 10, bound: OutputBound::OpenOutputs, limit: 3 });
    assert_eq!(result(&mut rig, ALICE, JobId(1)), (oldest, None));
}

#[test]
fn a_job_done_in_parts_counts_its_files_until_it_ends() {
    let mut rig = rig(|_| ());
    let files = |rig: &mut Rig| {
        let accounts = rig.status().accounts;
        let holds = accounts.iter().flat_map(|account| &account.holds);
        holds.filter(|row| row.resource == "open outputs and logs").map(|row| row.held).sum::<u64>()
    };
    let job = rig.planned(3, large());
    assert_eq!(files(&mut rig), 4, "those of the job, and its plan beside them");
    for part in 0..3 {
        rig.end_part(job, part, left(b"x"));
    }
    assert_eq!(files(&mut rig), 4);
    finish(&mut rig, job, 5, 10);
    assert_eq!(files(&mut rig), 1, "its output");
    rig.change(ALICE, Request::Forget { jobs: vec![job] });
    assert_eq!(files(&mut rig), 0);
}

//! Who sees what of another user's: records, deaths, workers, processes that live on, answers to `why`.
//!
//! In each test Alice's job has something that Bob may not see; what Alice and an administrator see is compared with it.

use bulkhead_core::config::Config;
use bulkhead_core::event::{Event, LeftProcess, Leftover, Report, TaskResult};
use bulkhead_proto::client::evidence::{Evidence, ProcessSeen, TaskProgress};
use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::outcome::Survivor;
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::view::{Status, WorkerRow, WorkerState};
use bulkhead_proto::client::why::{Holder, WhyNow};
use bulkhead_proto::death::{Death, Violation};
use bulkhead_proto::ids::{ClientId, JobId, SlotId, WorkerId};
use bulkhead_proto::job::{Payload, Policy};

use crate::rig::{ADMIN, ALICE, BOB, Rig, SEGV, config, exit_code};

/// What Alice's task said; no text that Bob is sent may have it.
const SECRET: &str = "row 7 of payroll";

fn evidence() -> Evidence {
    Evidence {
        progress: Some(TaskProgress { done: 4711, total: 9000 }),
        last_words: SECRET.to_owned(),
        seen: Some(Box::new(ProcessSeen { pid: 4242, resident_bytes: 77_777, ..ProcessSeen::default() })),
        ..Evidence::default()
    }
}

/// The kept records, as a client is shown them.
fn records(rig: &mut Rig, client: ClientId) -> Vec<What> {
    let reply = rig.answer(client, Request::Events { after: 0, follow: false });
    let Reply::Events { records, caught_up: true, .. } = reply else { panic!("{reply:?}") };
    records.into_iter().map(|record| record.what).collect()
}

/// How many records of these a client is shown.
fn count(rig: &mut Rig, client: ClientId, wanted: impl Fn(&What) -> bool) -> usize {
    records(rig, client).iter().filter(|what| wanted(what)).count()
}

fn row(rig: &mut Rig, client: ClientId, worker: WorkerId) -> WorkerRow {
    let reply = rig.answer(client, Request::Workers);
    let Reply::Workers(rows) = reply else { panic!("{reply:?}") };
    rows.into_iter().find(|row| row.worker == worker).expect("the worker is in the table")
}

fn status(rig: &mut Rig, client: ClientId) -> Status {
    let reply = rig.answer(client, Request::Status);
    let Reply::Status(status) = reply else { panic!("{reply:?}") };
    *status
}

fn deaths(rig: &mut Rig, client: ClientId) -> usize {
    let reply = rig.answer(client, Request::Deaths { limit: 100 });
    let Reply::Deaths(rows) = reply else { panic!("{reply:?}") };
    rows.len()
}

/// A job of this client that runs alone in its worker.
fn running(rig: &mut Rig, client: ClientId) -> (JobId, WorkerId) {
    let job = rig.submit_as(client, "foreign", 1, Policy::default(), false);
    (job, rig.claim(job))
}

/// A job of Alice runs, and one of Bob waits in the ring of the same worker.
fn behind_another(rig: &mut Rig) -> (JobId, WorkerId, JobId) {
    // Only short tasks are offered ahead, once they are known as such.
    for _ in 0..60 {
        let taught = rig.submit_as(ALICE, "quick", 1, Policy::default(), false);
        rig.finish_with(taught, TaskResult::Inline(Payload::default()), 1000);
    }
    let own = rig.submit_as(ALICE, "quick", 1, Policy::default(), false);
    let worker = rig.claim(own);
    let behind = rig.submit_as(BOB, "quick", 1, Policy::default(), false);
    assert_eq!(rig.holder(behind).map(|(holder, _)| holder), Some(worker), "it waits in the same ring");
    (own, worker, behind)
}

fn is_whole(what: &What) -> bool {
    matches!(what, What::Died { evidence, .. } if evidence.last_words == SECRET)
}

fn is_cut(what: &What) -> bool {
    matches!(what, What::WorkerGone { slot: Some(SlotId(_)), .. })
}

#[test]
fn of_a_death_another_user_is_told_that_a_worker_died() {
    let mut rig = Rig::new(1);
    let (_, worker) = running(&mut rig, ALICE);
    rig.die_with(worker, Death::Exited { code: 33 }, evidence());
    for (client, whole, cut, rows) in [(ALICE, 1, 0, 1), (ADMIN, 1, 0, 1), (BOB, 0, 1, 0)] {
        assert_eq!((count(&mut rig, client, is_whole), count(&mut rig, client, is_cut)), (whole, cut));
        assert_eq!(deaths(&mut rig, client), rows);
    }
    let shown = format!("{:?}", records(&mut rig, BOB));
    for secret in [SECRET, "4711", "4242", "77777", "1001", "33", "blamed", "Blamed"] {
        assert!(!shown.contains(secret), "{secret}: {shown}");
    }
    // What replaces it has no owner.
    assert_eq!(count(&mut rig, BOB, |what| matches!(what, What::Placed { replaces: Some(_), .. })), 1);
}

#[test]
fn a_death_without_a_task_is_shown_to_the_only_user_of_the_worker_or_to_none() {
    for (second, alice) in [(ALICE, 1), (BOB, 0)] {
        let mut rig = Rig::new(1);
        let (first, worker) = running(&mut rig, ALICE);
        rig.finish(first);
        let (next, same) = running(&mut rig, second);
        rig.finish(next);
        assert_eq!(worker, same);
        rig.die_with(worker, SEGV, evidence());
        assert_eq!((count(&mut rig, ALICE, is_whole), count(&mut rig, BOB, is_whole)), (alice, 0));
        assert_eq!(count(&mut rig, ADMIN, is_whole), 1);
        assert_eq!(count(&mut rig, BOB, is_cut), 1);
        let unblamed = |what: &What| matches!(what, What::NobodyBlamed { .. });
        assert_eq!((count(&mut rig, ADMIN, unblamed), count(&mut rig, BOB, unblamed)), (1, 0));
    }
}

#[test]
fn the_death_of_a_worker_that_was_offered_nothing_is_shown_to_all() {
    let mut rig = Rig::new(1);
    let worker = rig.rows().iter().find(|row| row.state == WorkerState::Spare).expect("a spare").worker;
    rig.die(worker, SEGV);
    for client in [ALICE, BOB, ADMIN] {
        assert_eq!(count(&mut rig, client, |what| matches!(what, What::Died { .. })), 1);
    }
}

/// The last words are those of the first claimed task, whoever has the first offer.
#[test]
fn a_death_is_of_the_task_that_ran_and_not_of_those_behind_it() {
    let mut rig = Rig::new(1);
    let (_, worker, _) = behind_another(&mut rig);
    rig.die_with(worker, SEGV, evidence());
    assert_eq!((count(&mut rig, ALICE, is_whole), count(&mut rig, BOB, is_whole)), (1, 0));
    assert_eq!(count(&mut rig, BOB, is_cut), 1);
}

#[test]
fn records_of_a_worker_are_of_the_user_of_its_task_even_once_the_job_is_forgotten() {
    let mut rig = Rig::new(1);
    let (job, worker) = running(&mut rig, ALICE);
    rig.tell(Event::Suspended { worker, signal: 19 });
    rig.change(ALICE, Request::Cancel { jobs: vec![job] });
    assert_eq!(rig.change(ALICE, Request::Forget { jobs: vec![job] }).0, 1);
    rig.tell(Event::Resumed { worker });
    rig.tell(Event::Suspended { worker, signal: 19 });
    rig.sleep(600_000);
    let of_worker = |what: &What| {
        matches!(
            what,
            What::Killing { .. } | What::Suspended { .. } | What::Resumed { .. } | What::Stuck { .. }
        )
    };
    let all = count(&mut rig, ADMIN, of_worker);
    assert!(all >= 4, "it was stopped, continued, killed, and is stuck: {:?}", records(&mut rig, ADMIN));
    assert_eq!((count(&mut rig, ALICE, of_worker), count(&mut rig, BOB, of_worker)), (all, 0));
}

#[test]
fn pids_of_workers_are_not_in_the_records_of_users() {
    let mut rig = Rig::new(1);
    let with_pid = |what: &What| matches!(what, What::Spawned { .. } | What::Ready { .. });
    assert!(count(&mut rig, ADMIN, with_pid) > 0);
    assert_eq!((count(&mut rig, ALICE, with_pid), count(&mut rig, BOB, with_pid)), (0, 0));
}

#[test]
fn a_worker_is_recycled_before_the_eyes_of_its_only_user() {
    let mut rig = Rig::with(Config { recycle_tasks: Some(1), ..config(1) });
    let (job, _) = running(&mut rig, ALICE);
    rig.finish(job);
    rig.sleep(100);
    let recycled = |what: &What| matches!(what, What::Recycled { .. });
    let shown = [ALICE, BOB, ADMIN].map(|client| count(&mut rig, client, recycled));
    assert_eq!(shown, [1, 0, 1]);
}

#[test]
fn a_row_of_a_worker_tells_others_that_it_is_busy_and_no_more() {
    let mut rig = Rig::new(1);
    let (job, worker) = running(&mut rig, ALICE);
    let whole = row(&mut rig, ADMIN, worker);
    assert_eq!((whole.pid, whole.job, whole.offers), (Some(1000 + worker.0 as u32), Some(job), 1));
    assert_eq!(row(&mut rig, ALICE, worker), whole);
    let cut = WorkerRow { pid: None, job: None, offers: 0, ..whole };
    assert_eq!((row(&mut rig, BOB, worker), cut.state), (cut, WorkerState::Busy));
    // Between two tasks too: its pid is that of the next one.
    rig.finish(job);
    let pids = [ALICE, BOB, ADMIN].map(|client| row(&mut rig, client, worker).pid);
    assert_eq!(pids, [Some(1000 + worker.0 as u32), None, Some(1000 + worker.0 as u32)]);
}

#[test]
fn what_the_kernel_shows_of_a_stuck_worker_is_for_the_user_of_its_task() {
    let mut rig = Rig::new(1);
    rig.seen = evidence().seen.map(|seen| *seen);
    let (job, worker) = running(&mut rig, ALICE);
    rig.change(ALICE, Request::Cancel { jobs: vec![job] });
    rig.sleep(60_000);
    for (client, is_shown) in [(ALICE, true), (ADMIN, true), (BOB, false)] {
        let rows = status(&mut rig, client).stuck;
        assert_eq!((rows.len(), rows[0].worker, rows[0].state), (1, worker, WorkerState::Stuck));
        assert_eq!((rows[0].seen.is_some(), rows[0].pid.is_some()), (is_shown, is_shown));
        assert_eq!(row(&mut rig, client, worker).seen.is_some(), is_shown);
    }
}

#[test]
fn a_process_that_lives_on_is_shown_to_the_user_whose_job_left_it() {
    let mut rig = Rig::new(1);
    let (job, worker) = running(&mut rig, ALICE);
    let (_, seq) = rig.holder(job).expect("it was claimed");
    let survivor = |pid| Survivor { pid, uid: Some(0), name: "sudo".to_owned() };
    rig.workers.get_mut(&worker).expect("it lives").clear();
    let result =
        TaskResult::Failed { message: "no".to_owned(), program: exit_code(3), output: Leftover::Nothing };
    let report = Report { result, elapsed_ns: 1000, output_bytes: 0, survivors: vec![survivor(7)] };
    rig.tell(Event::Finished { worker, seq, report });
    // Before the daemon names it, so that its owner cannot be asked of the job.
    assert_eq!(rig.change(ALICE, Request::Forget { jobs: vec![job] }).0, 1);
    let known = LeftProcess { survivor: survivor(7), worker: Some(worker) };
    let unknown = LeftProcess { survivor: survivor(9), worker: None };
    rig.tell(Event::LiveOn { left: vec![known, unknown] });
    let shown = [ALICE, BOB, ADMIN].map(|client| {
        let rows = status(&mut rig, client).survivors.len();
        (rows, count(&mut rig, client, |what| matches!(what, What::LivesOn { .. })))
    });
    assert_eq!(shown, [(1, 1), (0, 0), (2, 2)]);
}

/// Bob's task waits behind Alice's in the ring of a worker that is killed for what Alice's did.
#[test]
fn why_does_not_tell_what_another_user_s_task_was_killed_for() {
    let mut rig = Rig::new(1);
    let (_, worker, behind) = behind_another(&mut rig);
    let holder = |rig: &mut Rig, client| -> Holder {
        match rig.why(client, behind).now {
            WhyNow::Running(running) => running.holder,
            now => panic!("no worker has it: {now:?}"),
        }
    };
    assert_eq!((holder(&mut rig, BOB).pid, holder(&mut rig, ADMIN).pid.is_some()), (None, true));
    rig.answer = false;
    rig.tell(Event::Violated { worker, violation: Violation::Output });
    assert_eq!(holder(&mut rig, BOB).killed.as_deref(), Some("it ran a job of another user"));
    assert_eq!(
        holder(&mut rig, ADMIN).killed.as_deref(),
        Some("protocol violation (output descriptor is not what it said)")
    );
}

#[test]
fn the_reason_of_a_degraded_pool_has_no_details_of_a_death() {
    let mut rig = Rig::with(Config { restart_intensity: 0, ..config(1) });
    let (job, worker) = running(&mut rig, ALICE);
    rig.finish(job);
    rig.die(worker, Death::AllocationFailed { signal: 6, core: false, bytes: 987_654_321 });
    let reason = status(&mut rig, BOB).health_reason;
    assert!(reason.ends_with("the last one: SIGABRT"), "{reason}");
    assert_eq!(count(&mut rig, BOB, |what| matches!(what, What::Degraded { .. })), 1);
    assert!(!format!("{:?}", records(&mut rig, BOB)).contains("987654321"));
}

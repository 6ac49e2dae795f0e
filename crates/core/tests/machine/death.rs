//! Deaths: who is charged, who is not, and that nothing runs again before the death is proven.
//!
//! Workers die here with boxes that say what they had claimed. The table of deaths stands in `src/machine/death.rs`.

use crate::rig::{ADMIN, ALICE, BOB, Rig, SEGV, config};
use bulkhead_core::event::{Event, Leftover};
use bulkhead_proto::client::evidence::{Evidence, OtherFrame};
use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::view::{DeathRow, WorkerState};
use bulkhead_proto::codec;
use bulkhead_proto::death::{Death, KillReason, Violation};
use bulkhead_proto::ids::{JobId, WorkerId};
use bulkhead_proto::job::{JobState, Policy};
use bulkhead_proto::limits::{DEATHS_KEPT, FRAME_MAX_BYTES, IMAGE_NAME_MAX_BYTES, OTHER_FRAMES_MAX};
use bulkhead_proto::worker::message::LEFT_AFTER_PANIC;

/// A rig of one slot whose worker holds several short jobs, the first of them claimed.
fn with_ring_of(count: usize) -> (Rig, JobId) {
    let mut rig = Rig::new(1);
    for _ in 0..40 {
        let job = rig.submit(1);
        rig.finish_with(
            job,
            bulkhead_core::event::TaskResult::Failed {
                message: String::new(),
                program: None,
                output: Leftover::Nothing,
            },
            1000,
        );
    }
    let first = rig.submit(count);
    assert_eq!(rig.workers.values().map(Vec::len).max(), Some(count));
    rig.claim(first);
    rig.forget_past();
    (rig, first)
}

#[test]
fn the_first_claimed_is_charged_and_the_rest_are_innocent() {
    let (mut rig, first) = with_ring_of(4);
    let worker = rig.holder(first).unwrap().0;
    rig.die(worker, SEGV);
    assert_eq!(rig.detail(first).row.crashes, 1);
    for innocent in 1..4 {
        let detail = rig.detail(JobId(first.0 + innocent));
        assert_eq!((detail.row.crashes, detail.deaths.len()), (0, 0));
    }
    assert_eq!(rig.recorded(|what| matches!(what, What::Blamed { .. })), 1);
    assert_eq!(rig.recorded(|what| matches!(what, What::Requeued { count: 3, .. })), 1);
    assert_eq!(rig.recorded(|what| matches!(what, What::Placed { warm: true, replaces: Some(_), .. })), 1);
}

#[test]
fn charged_deaths_are_listed_newest_first_to_those_who_may_see_them() {
    let mut rig = Rig::new(1);
    let job = rig.submit(1);
    for _ in 0..3 {
        rig.sleep(10);
        rig.crash(job);
    }
    let mut seen = |client, limit| match rig.answer(client, Request::Deaths { limit }) {
        Reply::Deaths(rows) => rows.iter().map(|row| (row.job, row.death.attempt)).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(seen(ALICE, 9), [(job, 3), (job, 2), (job, 1)]);
    assert_eq!(seen(ADMIN, 1), [(job, 3)]);
    assert!(seen(BOB, 9).is_empty() && seen(ALICE, 0).is_empty());
}

#[test]
fn old_deaths_make_room_for_new_ones() {
    let policy = Policy { crashes_max: Some(255), ..Policy::default() };
    let mut rig = Rig::new(1);
    for _ in 0..DEATHS_KEPT / 255 + 1 {
        let job = rig.submit_as(ALICE, "quick", 1, policy.clone(), false);
        while rig.outcome(job).is_none() {
            rig.sleep(10);
            rig.crash(job);
        }
    }
    let Reply::Deaths(rows) = rig.answer(ALICE, Request::Deaths { limit: u32::MAX }) else {
        panic!("deaths")
    };
    assert_eq!(rows.len(), DEATHS_KEPT);
    assert_eq!((rows[0].death.attempt, rows[0].job > rows[DEATHS_KEPT - 1].job), (255, true));
}

/// A thousand deaths with long evidence do not fit a frame: the older ones are shown without their longest parts.
#[test]
fn a_long_list_of_deaths_fits_its_frame() {
    let frame = OtherFrame { image: "x".repeat(IMAGE_NAME_MAX_BYTES), offset: u64::MAX, after: 0 };
    let evidence = Evidence { other_frames: vec![frame; OTHER_FRAMES_MAX], ..Evidence::default() };
    let policy = Policy { crashes_max: Some(255), ..Policy::default() };
    let mut rig = Rig::new(1);
    for _ in 0..DEATHS_KEPT / 255 + 1 {
        let job = rig.submit_as(ALICE, "quick", 1, policy.clone(), false);
        while rig.outcome(job).is_none() {
            rig.sleep(10);
            rig.claim(job);
            let (worker, _) = rig.holder(job).unwrap();
            rig.die_with(worker, SEGV, evidence.clone());
        }
    }
    let reply = rig.answer(ALICE, Request::Deaths { limit: u32::MAX });
    assert!(codec::encode(&reply).len() < FRAME_MAX_BYTES);
    let Reply::Deaths(rows) = reply else { panic!("deaths") };
    let is_whole = |row: &DeathRow| row.death.evidence == evidence;
    let whole = rows.iter().take_while(|row| is_whole(row)).count();
    assert!((100..DEATHS_KEPT).contains(&whole), "{whole}");
    assert!(rows[whole..].iter().all(|row| row.death.evidence.shortened));
    let Reply::Deaths(one) = rig.answer(ALICE, Request::Deaths { limit: 1 }) else { panic!("deaths") };
    assert!(is_whole(&one[0]));
}

/// A leave after a panic costs a job that failed each time; without one it is a death like any other.
#[test]
fn a_worker_that_leaves_after_a_panic_is_believed_once_for_each_failure() {
    let left = Death::Exited { code: LEFT_AFTER_PANIC.into() };
    let named =
        |rig: &Rig| rig.recorded(|what| matches!(what, What::Died { death: Death::LeftAfterPanic, .. }));
    let nobody = |rig: &Rig| rig.recorded(|what| matches!(what, What::NobodyBlamed { .. }));
    let (mut rig, first) = with_ring_of(3);
    let worker = rig.holder(first).unwrap().0;
    rig.fail(first);
    rig.die(worker, left.clone());
    assert_eq!((named(&rig), nobody(&rig)), (1, 0));
    assert_eq!(rig.recorded(|what| matches!(what, What::Requeued { count: 2, .. })), 1);
    // The next one has failed nothing, and one that holds a claim is charged whatever it says.
    let next = JobId(first.0 + 1);
    let worker = rig.holder(next).unwrap().0;
    rig.finish(next);
    rig.die(worker, left.clone());
    assert_eq!((named(&rig), nobody(&rig)), (1, 1));
    let (mut rig, first) = with_ring_of(2);
    let worker = rig.holder(first).unwrap().0;
    rig.fail(first);
    let claimed = JobId(first.0 + 1);
    rig.claim(claimed);
    rig.die(worker, left);
    assert_eq!((named(&rig), rig.detail(claimed).row.crashes), (0, 1));
}

#[test]
fn a_charged_job_runs_alone_in_a_worker_that_has_run_nothing() {
    let mut rig = Rig::new(2);
    let guilty = rig.submit(1);
    let other = rig.submit(1);
    rig.claim(other);
    rig.crash(guilty);
    let (worker, _) = rig.holder(guilty).expect("a warm spare takes it at once");
    assert_eq!(rig.workers[&worker].len(), 1);
    assert_eq!(rig.recorded(|what| matches!(what, What::Retried { alone: true, attempt: 2, .. })), 1);
    // Many more short jobs come: none of them shares its worker.
    rig.submit(50);
    assert_eq!(rig.workers[&worker].len(), 1);
    rig.claim(guilty);
    rig.finish(guilty);
    assert_eq!(rig.outcome(guilty), Some(Outcome::Done));
    assert_eq!(rig.recorded(|what| matches!(what, What::Ended { outcome: Outcome::Done, .. })), 1);
}

#[test]
fn a_used_idle_worker_makes_room_for_a_fresh_one() {
    let mut rig = Rig::new(1);
    let guilty = rig.submit(1);
    rig.come_up = false;
    rig.crash(guilty);
    // The spare that took the slot has run nothing: it takes the job. It crashes again, with no spare ready.
    rig.crash(guilty);
    assert_eq!(rig.holder(guilty), None, "nothing fresh is left");
    rig.come_up = true;
    let spawned = rig.spawned.clone();
    spawned.into_iter().for_each(|worker| rig.come_up_now(worker));
    rig.turn();
    rig.sleep(10);
    let (worker, seq) = rig.holder(guilty).expect("a fresh worker came");
    assert_eq!(seq.0, 1, "the worker {worker} has run nothing");
}

#[test]
fn busy_slots_do_not_starve_a_job_that_waits_to_run_alone() {
    let mut rig = Rig::new(2);
    let guilty = rig.submit(1);
    let used = rig.submit(1);
    rig.finish(used);
    let long = rig.submit(1);
    rig.claim(long);
    rig.crash(guilty);
    rig.crash(guilty);
    // Its third attempt waits for a fresh worker; the slot that becomes idle is given to one.
    rig.finish(long);
    rig.sleep(10);
    let (worker, _) = rig.holder(guilty).expect("offered");
    assert!(!rig.retired.contains(&worker));
    assert_eq!(rig.workers[&worker].len(), 1);
}

#[test]
fn crashes_up_to_the_budget_quarantine_with_evidence() {
    let mut rig = Rig::new(2);
    let guilty =
        rig.submit_as(ALICE, "quick", 1, Policy { crashes_max: Some(2), ..Policy::default() }, false);
    rig.crash(guilty);
    rig.sleep(5);
    rig.crash(guilty);
    let detail = rig.detail(guilty);
    assert!(matches!(detail.outcome, Some(Outcome::Crashed { crashes: 2, ref last }) if last == "SIGSEGV"));
    assert_eq!((detail.deaths.len(), detail.row.attempts, detail.input.as_str()), (2, 2, "0"));
    assert_eq!(rig.status().quarantined, 1);
    rig.sleep(10 * 3_600_000);
    assert!(rig.outcome(guilty).is_some(), "age does not end a quarantine");
}

#[test]
fn a_quarantined_job_can_be_retried_with_fresh_budgets_or_forgotten() {
    let mut rig = Rig::new(2);
    let guilty =
        rig.submit_as(ALICE, "quick", 1, Policy { crashes_max: Some(1), ..Policy::default() }, false);
    rig.crash(guilty);
    assert_eq!(rig.change(BOB, Request::Retry { jobs: vec![guilty] }).0, 0, "not his");
    rig.sleep(5);
    assert_eq!(rig.status().totals.crashed, 1);
    assert_eq!(rig.change(ALICE, Request::Retry { jobs: vec![guilty] }).0, 1);
    assert_eq!(rig.status().totals.crashed, 0, "it has no outcome any more");
    let detail = rig.detail(guilty);
    assert_eq!((detail.row.crashes, detail.row.state), (0, JobState::Running));
    rig.crash(guilty);
    assert_eq!(rig.change(ALICE, Request::Forget { jobs: vec![guilty] }).0, 1);
    assert_eq!((rig.status().kept, rig.status().totals.crashed), (0, 1), "what is forgotten was counted");
}

#[test]
fn a_death_with_nothing_claimed_is_charged_to_nobody() {
    let mut rig = Rig::new(1);
    let job = rig.submit(1);
    let worker = rig.holder(job).unwrap().0;
    rig.die(worker, SEGV);
    assert_eq!(rig.recorded(|what| matches!(what, What::NobodyBlamed { .. })), 1);
    let detail = rig.detail(job);
    assert_eq!(
        (detail.row.crashes, detail.row.attempts),
        (0, 1),
        "the offer that was not begun is no attempt"
    );
    rig.claim(job);
    rig.finish(job);
}

#[test]
fn a_hint_of_death_charges_and_retries_nobody() {
    let mut rig = Rig::new(2);
    let job = rig.submit(1);
    let worker = rig.claim(job);
    rig.tell(Event::HungUp { worker });
    assert_eq!(rig.detail(job).row.state, JobState::Running);
    assert_eq!(rig.detail(job).row.crashes, 0);
    assert!(rig.killed.is_empty(), "killing it now would hide what it died of");
    rig.sleep(1000);
    assert_eq!(rig.killed.get(&worker), Some(&KillReason::Unresponsive));
    rig.die(worker, Death::Killed { why: KillReason::Unresponsive });
    assert_eq!(rig.detail(job).row.crashes, 1, "its worker hung up while it ran");
}

#[test]
fn no_proof_no_retry_but_the_slot_is_replaced() {
    let mut rig = Rig::new(1);
    let job = rig.submit(1);
    let worker = rig.claim(job);
    rig.tell(Event::Violated { worker, violation: Violation::ClaimWord });
    rig.sleep(60_000);
    assert_eq!(rig.detail(job).row.state, JobState::Running, "the proof is not there");
    assert!(rig.rows().iter().any(|row| row.worker == worker && row.state == WorkerState::Stuck));
    assert!(rig.rows().iter().any(|row| row.slot.is_some() && row.state == WorkerState::Idle));
    rig.die(worker, Death::Killed { why: KillReason::Violation { violation: Violation::ClaimWord } });
    assert_eq!(rig.detail(job).row.crashes, 1);
}

#[test]
fn at_most_as_many_stuck_workers_as_slots_are_replaced() {
    let mut rig = Rig::new(1);
    for _ in 0..3 {
        let idle = rig.rows().into_iter().find(|row| row.state == WorkerState::Idle);
        let Some(idle) = idle else { break };
        rig.tell(Event::Violated { worker: idle.worker, violation: Violation::Lane });
        rig.sleep(20_000);
    }
    let rows = rig.rows();
    assert_eq!(rows.iter().filter(|row| row.state == WorkerState::Stuck).count(), 2);
    assert!(rows.iter().all(|row| row.state != WorkerState::Idle), "the slot stays empty beyond the cap");
    let stuck: Vec<WorkerId> =
        rows.iter().filter(|row| row.state == WorkerState::Stuck).map(|row| row.worker).collect();
    // One of them dies at last, and makes room for the replacement of the other.
    rig.die(stuck[0], Death::Killed { why: KillReason::Violation { violation: Violation::Lane } });
    rig.sleep(1000);
    assert!(rig.rows().iter().any(|row| row.state == WorkerState::Idle), "the other is not replaced");
    for worker in stuck.into_iter().skip(1) {
        rig.die(worker, Death::Killed { why: KillReason::Violation { violation: Violation::Lane } });
    }
    rig.sleep(1000);
    assert!(rig.rows().iter().any(|row| row.state == WorkerState::Idle));
}

#[test]
fn answers_of_the_dead_and_of_strangers_are_counted_and_dropped() {
    let mut rig = Rig::with(config(1));
    let job = rig.submit(1);
    let (worker, seq) = rig.holder(job).unwrap();
    let report = || bulkhead_core::event::Report {
        result: bulkhead_core::event::TaskResult::Held { output: bulkhead_proto::ids::OutputId(9), bytes: 1 },
        elapsed_ns: 1,
        output_bytes: 0,
        survivors: Vec::new(),
    };
    rig.tell(Event::Finished { worker: WorkerId(999), seq, report: report() });
    rig.tell(Event::Finished { worker, seq: bulkhead_proto::ids::Seq(77), report: report() });
    assert_eq!(rig.status().totals.stale, 2);
    assert_eq!(rig.dropped.len(), 2);
    assert_eq!(rig.detail(job).row.state, JobState::Running);
}

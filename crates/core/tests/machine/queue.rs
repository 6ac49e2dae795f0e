//! The queue: the order of jobs, ageing, bounds, and refusals.
//!
//! With one slot and tasks that are not short, jobs end in the order in which they were offered.

use bulkhead_core::config::{Config, Users};
use bulkhead_proto::client::message::{Reply, Request, Submit, Walk};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::refusal::{BoundPart, Refusal};
use bulkhead_proto::ids::{ClientId, JobId};
use bulkhead_proto::job::{JobState, Payload, Policy};
use bulkhead_proto::limits::{BATCH_MAX, INLINE_MAX_BYTES};

use crate::rig::{ADMIN, ALICE, BOB, Rig, config};

const CAROL: ClientId = ClientId(7);

fn policy(priority: u8) -> Policy {
    Policy { priority, ..Policy::default() }
}

/// Ends what runs, one after the other, and gives the order.
fn order(rig: &mut Rig, count: usize) -> Vec<JobId> {
    (0..count)
        .map(|_| {
            let held = rig.workers.values().flatten().next().expect("something runs");
            let job = held.task.job;
            rig.finish(job);
            job
        })
        .collect()
}

#[test]
fn users_take_turns_whatever_they_queue() {
    let mut rig = Rig::new(1);
    let alice = rig.submit_as(ALICE, "quick", 50, policy(9), false);
    let bob = rig.submit_as(BOB, "quick", 3, policy(0), false);
    let seen = order(&mut rig, 7);
    let bobs = seen.iter().filter(|job| **job >= bob).count();
    assert_eq!((seen[0], bobs), (alice, 3), "{seen:?}");
}

#[test]
fn clients_of_one_user_take_turns() {
    let mut rig = Rig::new(1);
    let second = ClientId(40);
    rig.connect(second, 1, false);
    rig.submit(50);
    let late = rig.submit_as(second, "quick", 2, Policy::default(), false);
    let seen = order(&mut rig, 5);
    assert_eq!(seen.iter().filter(|job| **job >= late).count(), 2, "{seen:?}");
}

#[test]
fn priority_goes_first_until_waiting_outweighs_it() {
    let mut rig = Rig::with(Config { ageing_ms: 1000, ..config(1) });
    let running = rig.submit(1);
    let low = rig.submit_as(ALICE, "quick", 1, policy(1), false);
    rig.sleep(2500);
    let middle = rig.submit_as(ALICE, "quick", 1, policy(3), false);
    let high = rig.submit_as(ALICE, "quick", 1, policy(9), false);
    // The low one has waited for two and a half steps and was two below the middle one.
    assert_eq!(order(&mut rig, 4), [running, high, low, middle]);
}

#[test]
fn a_full_queue_takes_a_prefix_and_says_busy() {
    let mut rig = Rig::with(Config { queue_max: 10, users: Users::One, ..config(1) });
    rig.submit(1);
    let inputs = vec![Payload::default(); 15];
    let submit = Submit {
        kind: "quick".into(),
        policy: Policy::default(),
        attached: false,
        inputs,
        ..Submit::default()
    };
    let reply = rig.answer(ALICE, Request::Submit(submit.clone()));
    let Reply::Accepted { count, refused: Some(Refusal::Busy { limit, retry_after_ms, .. }), .. } = reply
    else {
        panic!("{reply:?}");
    };
    assert_eq!((count, limit), (10, 10));
    assert!(retry_after_ms > 0);
    let reply = rig.answer(ALICE, Request::Submit(submit));
    assert!(matches!(reply, Reply::Refused(Refusal::Busy { .. })), "{reply:?}");
    assert_eq!(rig.status().totals.refused, 20);
}

/// The jobs that a submit of so many puts into the queue, and the bound that the rest meets.
fn admitted(rig: &mut Rig, client: ClientId, count: usize) -> (u64, Option<(u64, BoundPart)>) {
    let submit =
        Submit { kind: "quick".into(), inputs: vec![Payload::default(); count], ..Submit::default() };
    let (count, refused) = match rig.answer(client, Request::Submit(submit)) {
        Reply::Accepted { count, refused, .. } => (u64::from(count), refused),
        Reply::Refused(refusal) => (0, Some(refusal)),
        reply => panic!("{reply:?}"),
    };
    let bound = refused.map(|refusal| match refusal {
        Refusal::Busy { what, limit, part, key, .. } => {
            assert_eq!((what.as_str(), key.as_deref()), ("queued jobs", Some("queue_max")));
            (limit, part)
        }
        refusal => panic!("{refusal:?}"),
    });
    (count, bound)
}

#[test]
fn one_user_gets_three_quarters_of_the_queue_and_a_small_one_a_64th_beyond_it() {
    let mut rig = Rig::with(Config { queue_max: 640, ..config(1) });
    // Carol's worker is busy, so that nothing of the others is offered.
    rig.connect(CAROL, 3, false);
    rig.submit_as(CAROL, "quick", 1, Policy::default(), false);
    let share = Some((480, BoundPart::Share { of: 640 }));
    assert_eq!(admitted(&mut rig, ALICE, 500), (480, share));
    assert_eq!(admitted(&mut rig, ALICE, 1), (0, share));
    let all = Some((640, BoundPart::All));
    assert_eq!(admitted(&mut rig, BOB, 9), (9, None), "less than a 64th");
    assert_eq!(admitted(&mut rig, BOB, 160), (151, all), "beyond the bound there is a 64th, and he has more");
    assert_eq!(admitted(&mut rig, BOB, 1), (0, all));
    let little = Some((10, BoundPart::Little { of: 640 }));
    assert_eq!(admitted(&mut rig, CAROL, 100), (10, little), "a 64th");
    assert_eq!(admitted(&mut rig, CAROL, 1), (0, little));
}

#[test]
fn bytes_are_bounded_too() {
    let mut rig = Rig::with(Config { queue_bytes_max: 12_000, ..config(1) });
    let inputs = vec![Payload::from(vec![0; 4000]); 4];
    let submit = Submit {
        kind: "quick".into(),
        policy: Policy::default(),
        attached: false,
        inputs,
        ..Submit::default()
    };
    let reply = rig.answer(ALICE, Request::Submit(submit));
    assert!(
        matches!(reply, Reply::Accepted { count: 2, refused: Some(Refusal::Busy { .. }), .. }),
        "{reply:?}"
    );
}

/// A retry needs room in the queue as a submit does: what was cancelled does not come back beyond the bound.
#[test]
fn a_retry_is_refused_when_the_queue_is_full() {
    let mut rig = Rig::with(Config { queue_max: 100, ..config(1) });
    rig.submit_as(BOB, "foreign", 1, Policy::default(), false);
    let mut cancelled = Vec::new();
    for _ in 0..2 {
        let first = rig.submit(75);
        let jobs: Vec<JobId> = (first.0..first.0 + 75).map(JobId).collect();
        rig.change(ALICE, Request::Cancel { jobs: jobs.clone() });
        cancelled.extend(jobs);
    }
    let (count, refused) = rig.change(ALICE, Request::Retry { jobs: cancelled.clone() });
    assert_eq!((count, refused.len()), (75, 75), "her share, and no more");
    let busy = |refusal: &Refusal| matches!(refusal, Refusal::Busy { limit: 75, .. });
    assert!(refused.iter().all(busy), "{refused:?}");
    assert_eq!(rig.detail(cancelled[140]).row.state, JobState::Ended, "it stays as it was");
    // An administrator takes the place of the job's user, and no other.
    assert_eq!(rig.change(ADMIN, Request::Retry { jobs: vec![cancelled[140]] }).0, 0);
    let job = rig.submit_as(BOB, "quick", 1, Policy::default(), false);
    rig.change(BOB, Request::Cancel { jobs: vec![job] });
    assert_eq!(rig.change(BOB, Request::Retry { jobs: vec![job] }).0, 1, "there is room for others");
}

#[test]
fn hostile_submits_are_refused_with_the_reason() {
    let mut rig = Rig::new(1);
    let good = || Submit {
        kind: "quick".into(),
        policy: Policy::default(),
        attached: false,
        inputs: vec![Payload::default()],
        ..Submit::default()
    };
    let mut refused = |submit: Submit, part: &str| match rig.answer(ALICE, Request::Submit(submit)) {
        Reply::Refused(refusal) => assert!(refusal.to_string().contains(part), "{refusal}"),
        other => panic!("{other:?}"),
    };
    refused(Submit { kind: "x".repeat(500), ..good() }, "quick, foreign");
    refused(Submit { inputs: Vec::new(), ..good() }, "no inputs");
    refused(Submit { inputs: vec![Payload::default(); BATCH_MAX + 1], ..good() }, "4096");
    refused(Submit { inputs: vec![Payload::from(vec![0; INLINE_MAX_BYTES + 1])], ..good() }, "4097 bytes");
    refused(Submit { policy: policy(10), ..good() }, "priority 10");
    refused(Submit { policy: Policy { crashes_max: Some(0), ..Policy::default() }, ..good() }, "crashes_max");
    assert!(rig.workers.values().all(Vec::is_empty));
}

#[test]
fn a_queued_job_is_cancelled_at_once_by_its_owner_alone() {
    let mut rig = Rig::new(1);
    let first = rig.submit(3);
    let middle = JobId(first.0 + 1);
    let (count, refused) = rig.change(BOB, Request::Cancel { jobs: vec![middle] });
    assert_eq!((count, refused), (0, vec![Refusal::Gone { job: middle, others: true }]));
    let (count, refused) = rig.change(ALICE, Request::Cancel { jobs: vec![middle, middle, JobId(u64::MAX)] });
    assert_eq!((count, refused.len()), (1, 2));
    assert!(matches!(refused[0], Refusal::WrongState { .. }));
    assert_eq!(rig.outcome(middle), Some(Outcome::Cancelled));
    assert_eq!(rig.status().queued, 1);
    assert_eq!(rig.change(ADMIN, Request::Cancel { jobs: vec![JobId(first.0 + 2)] }).0, 1);
    rig.finish(first);
    assert_eq!(rig.status().queued, 0);
}

#[test]
fn an_unbegun_offer_is_cancelled_without_a_kill() {
    let mut rig = Rig::new(1);
    let job = rig.submit(1);
    rig.change(ALICE, Request::Cancel { jobs: vec![job] });
    assert_eq!(rig.outcome(job), Some(Outcome::Cancelled));
    assert!(rig.killed.is_empty() && rig.holder(job).is_none());
    let next = rig.submit(1);
    rig.finish(next);
}

#[test]
fn a_running_job_is_cancelled_at_once_and_its_worker_killed() {
    let mut rig = Rig::new(1);
    let job = rig.submit(1);
    let worker = rig.claim(job);
    rig.change(ALICE, Request::Cancel { jobs: vec![job] });
    assert_eq!(rig.outcome(job), Some(Outcome::Cancelled));
    assert_eq!(rig.killed.len(), 1);
    let (count, refused) = rig.change(ALICE, Request::Retry { jobs: vec![job] });
    assert_eq!((count, refused.len()), (0, 1), "its last attempt may still run");
    let why = rig.killed[&worker];
    rig.die(worker, bulkhead_proto::death::Death::Killed { why });
    assert_eq!(rig.status().totals.deaths, 0);
    assert_eq!(rig.change(ALICE, Request::Retry { jobs: vec![job] }).0, 1);
    assert_eq!(rig.detail(job).row.state, JobState::Running);
}

#[test]
fn jobs_are_listed_in_pages_and_to_their_owners() {
    let mut rig = Rig::new(1);
    rig.submit(5);
    rig.submit_as(BOB, "quick", 2, Policy::default(), false);
    let page = |rig: &mut Rig, client, state, after, limit| {
        let request = Request::Jobs { state, walk: Walk::Up(JobId(after)), limit };
        match rig.answer(client, request) {
            Reply::Jobs { rows, more, .. } => (rows.iter().map(|row| row.job.0).collect::<Vec<_>>(), more),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(page(&mut rig, ALICE, None, 0, 3), (vec![1, 2, 3], true));
    assert_eq!(page(&mut rig, ALICE, None, 3, 3), (vec![4, 5], false));
    assert_eq!(page(&mut rig, BOB, None, 0, 100), (vec![6, 7], false));
    assert_eq!(page(&mut rig, ADMIN, Some(JobState::Running), 0, 0).0, [1]);
    assert_eq!(page(&mut rig, ADMIN, None, u64::MAX, u32::MAX).0, []);
    let down = |rig: &mut Rig, client, before, limit| {
        let request = Request::Jobs { state: None, walk: Walk::Down(JobId(before)), limit };
        match rig.answer(client, request) {
            Reply::Jobs { rows, more, .. } => (rows.iter().map(|row| row.job.0).collect::<Vec<_>>(), more),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(down(&mut rig, ALICE, u64::MAX, 3), (vec![5, 4, 3], true));
    assert_eq!(down(&mut rig, ALICE, 3, 3), (vec![2, 1], false));
    assert_eq!(down(&mut rig, BOB, u64::MAX, 100), (vec![7, 6], false));
    assert_eq!(down(&mut rig, ADMIN, 1, 100).0, []);
    assert_eq!(down(&mut rig, ADMIN, 0, 100).0, []);
}

/// One request looks at a bounded part of the table, and says where the next one is to go on.
#[test]
fn a_long_list_takes_several_requests_even_if_few_are_wanted() {
    let mut rig = Rig::new(1);
    for _ in 0..5 {
        rig.submit(4000);
    }
    let (mut found, mut after, mut requests) = (Vec::new(), JobId(0), 0);
    loop {
        let request = Request::Jobs { state: Some(JobState::Running), walk: Walk::Up(after), limit: 100 };
        let Reply::Jobs { rows, last, more } = rig.answer(ALICE, request) else { panic!("jobs are listed") };
        found.extend(rows.iter().map(|row| row.job.0));
        requests += 1;
        if !more {
            break;
        }
        assert!(last > after, "it gets on");
        after = last;
    }
    assert_eq!((found, requests), (vec![1], 10), "each looks at 2048");
    // The newest of them come first, whichever way is long.
    let request = Request::Jobs { state: None, walk: Walk::Down(JobId(u64::MAX)), limit: 2 };
    let Reply::Jobs { rows, last, more: true } = rig.answer(ALICE, request) else {
        panic!("jobs are listed")
    };
    assert_eq!(
        (rows.iter().map(|row| row.job.0).collect::<Vec<_>>(), last),
        (vec![20_000, 19_999], JobId(19_999))
    );
    // Nor does one reply have thousands of rows, whatever is asked for.
    let request = Request::Jobs { state: None, walk: Walk::Up(JobId(1)), limit: u32::MAX };
    let Reply::Jobs { rows, more: true, .. } = rig.answer(ALICE, request) else { panic!("jobs are listed") };
    assert_eq!(rows.len(), 512);
    // Whatever the other's jobs are, they are passed by whole.
    let request = Request::Jobs { state: None, walk: Walk::Up(JobId(0)), limit: 100 };
    assert!(matches!(rig.answer(BOB, request), Reply::Jobs { rows, more: false, .. } if rows.is_empty()));
}

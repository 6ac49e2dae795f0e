//! Two users of one service: what one keeps is not pushed out by a flood of the other's, whatever the flood is of.
//!
//! Alice floods. Bob has one result, one crash with its events, and one death. A retry of hers goes
//! by the share that a submit of hers has.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use bulkhead_proto::client::message::{Reply, Request, Submit};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::record::{Record, What};
use bulkhead_proto::client::refusal::{Refusal, RefusedJobs};
use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::Policy;
use bulkhead_proto::limits::{BATCH_MAX, DEATHS_KEPT};
use bulkhead_tests::daemon::{Daemon, eventually};
use bulkhead_tests::or_skip;
use bulkhead_tests::other_users::{ALICE, BOB, connect_as, system_daemon};
use bulkhead_tests::raid::may_become_others;
use bulkhead_tests::wire::{Wire, submit};

fn administrator(daemon: &Daemon) -> Wire {
    Wire::connect(&daemon.socket())
}

/// Waits for the end of every job of a batch.
fn await_ends(wire: &mut Wire, first: JobId, count: usize) {
    let jobs: Vec<JobId> = (first.0..first.0 + count as u64).map(JobId).collect();
    wire.ask(Request::Wait { jobs });
    let mut ended = 0;
    while ended < count {
        match wire.next_reply().expect("the daemon answers").reply {
            Reply::Ended(some) => ended += some.len(),
            // Dropped before it was told.
            Reply::Unknown(unknown) => ended += unknown.jobs.len(),
            other => panic!("unexpected reply: {other:?}"),
        }
    }
}

/// A job that kills its only attempt's worker.
fn crash(wire: &mut Wire) -> JobId {
    let policy = Policy { crashes_max: Some(1), ..Policy::default() };
    let crash = Submit { policy, ..submit("chaos", &["segv"], false) };
    let Reply::Accepted { first, .. } = wire.call(Request::Submit(crash)) else { panic!("not accepted") };
    await_ends(wire, first, 1);
    first
}

fn is_about(record: &Record, job: JobId) -> bool {
    match &record.what {
        What::Blamed { job: of, .. } | What::Ended { job: of, .. } => *of == job,
        _ => false,
    }
}

#[test]
fn a_flood_of_results_leaves_those_of_others() {
    or_skip!(may_become_others());
    let daemon = system_daemon("keep_jobs_max = 1000\n");
    let (mut alice, mut bob) = (connect_as(&daemon, ALICE).welcome(), connect_as(&daemon, BOB).welcome());
    let his = bob.submit("noop", &["his"]);
    await_ends(&mut bob, his, 1);
    let hers = alice.submit("noop", &vec!["hers"; BATCH_MAX]);
    await_ends(&mut alice, hers, BATCH_MAX);
    let result = bob.call(Request::Result { job: his });
    assert!(matches!(&result, Reply::Ended(ended) if ended[0].outcome == Outcome::Done), "{result:?}");
    let gone = alice.call(Request::Result { job: hers });
    assert!(matches!(gone, Reply::Refused(Refusal::Gone { .. })), "her oldest: {gone:?}");
    let last = alice.call(Request::Result { job: JobId(hers.0 + BATCH_MAX as u64 - 1) });
    assert!(matches!(last, Reply::Ended(_)), "her newest: {last:?}");
    let is_told =
        |record: &Record| matches!(&record.what, What::Evicted { limit, .. } if limit == "kept jobs");
    assert!(alice.records().iter().any(is_told), "the bound is named to her");
    assert!(!bob.records().iter().any(is_told), "he has lost nothing");
    assert!(administrator(&daemon).records().iter().any(is_told));
}

/// More submits than events are kept: what is said of a crash stays, for its user and for administrators.
#[test]
fn a_flood_of_submits_leaves_the_events_of_a_crash() {
    or_skip!(may_become_others());
    let daemon = system_daemon("");
    let (mut alice, mut bob) = (connect_as(&daemon, ALICE).welcome(), connect_as(&daemon, BOB).welcome());
    let crashed = crash(&mut bob);
    let floods = 10_100;
    for at in 0..floods {
        alice.ask(Request::Submit(submit("noop", &["x"], false)));
        // Few enough replies for a socket.
        if at % 50 == 49 {
            (0..50).for_each(|_| drop(alice.next_reply().expect("the daemon answers")));
        }
    }
    for wire in [&mut administrator(&daemon), &mut bob] {
        let records = wire.records();
        assert!(records.iter().any(|record| matches!(record.what, What::Died { .. })), "the death");
        assert_eq!(records.iter().filter(|record| is_about(record, crashed)).count(), 2, "blame and end");
        assert!(records.iter().any(|record| matches!(record.what, What::Started { .. })), "the start");
    }
    let hers = alice.records();
    let of_hers =
        hers.iter().filter(|record| matches!(record.what, What::Accepted { uid: ALICE, .. })).count();
    assert!((9000..floods).contains(&of_hers), "{of_hers} are kept");
}

/// Each of her jobs kills as many workers as it may.
#[test]
fn a_flood_of_deaths_leaves_those_of_others() {
    or_skip!(may_become_others());
    let daemon = system_daemon("");
    let (mut alice, mut bob) = (connect_as(&daemon, ALICE).welcome(), connect_as(&daemon, BOB).welcome());
    let crashed = crash(&mut bob);
    let policy = Policy { crashes_max: Some(u8::MAX), ..Policy::default() };
    let count = DEATHS_KEPT / usize::from(u8::MAX) + 1;
    let flood = Submit { policy, ..submit("chaos", &vec!["exit:3"; count], false) };
    let Reply::Accepted { first, .. } = alice.call(Request::Submit(flood)) else { panic!("not accepted") };
    await_ends(&mut alice, first, count);
    let reply = administrator(&daemon).call(Request::Deaths { limit: u32::MAX });
    let Reply::Deaths(rows) = reply else { panic!("{reply:?}") };
    assert_eq!(rows.len(), DEATHS_KEPT);
    assert_eq!(rows.last().map(|row| (row.job, row.uid)), Some((crashed, BOB)), "the oldest of all");
    let reply = bob.call(Request::Deaths { limit: 10 });
    assert!(matches!(&reply, Reply::Deaths(his) if his.len() == 1), "{reply:?}");
}

/// What was cancelled comes back by retry up to the share of its user, and the queue stays open for others.
#[test]
fn retries_leave_the_queue_open_for_others() {
    or_skip!(may_become_others());
    let daemon = system_daemon("queue_max = 1000\n");
    let (mut alice, mut bob) = (connect_as(&daemon, ALICE).welcome(), connect_as(&daemon, BOB).welcome());
    // Nothing of what follows begins.
    for _ in 0..2 {
        alice.submit("sleep", &["600000"]);
    }
    eventually("both workers run", || (alice.status().running == 2).then_some(()));
    let mut cancelled = Vec::new();
    for _ in 0..4 {
        let first = alice.submit("noop", &vec!["x"; 750]);
        let jobs: Vec<JobId> = (first.0..first.0 + 750).map(JobId).collect();
        let reply = alice.call(Request::Cancel { jobs: jobs.clone() });
        assert!(matches!(reply, Reply::Changed { count: 750, .. }), "{reply:?}");
        cancelled.extend(jobs);
    }
    let reply = alice.call(Request::Retry { jobs: cancelled });
    let Reply::Changed { count, refused } = reply else { panic!("{reply:?}") };
    assert_eq!(count, 750, "her share");
    let mut refusals = refused.iter().flat_map(RefusedJobs::refusals);
    let busy = refusals.find(|refusal| matches!(refusal, Refusal::Busy { limit: 750, .. }));
    assert!(busy.is_some_and(|busy| busy.to_string().contains("queued jobs")), "{:?}", refused.first());
    bob.submit("noop", &["y"]);
    assert_eq!(bob.status().queued, 751);
}

/// Events of one user's jobs take no room in the log from those of others, and the rest is counted.
#[test]
fn a_flood_of_events_is_summed_up_in_the_log() {
    or_skip!(may_become_others());
    let daemon = system_daemon("");
    let (mut alice, mut bob) = (connect_as(&daemon, ALICE).welcome(), connect_as(&daemon, BOB).welcome());
    // A failed job is an event with a line in the log.
    let hers = alice.submit("factorial", &vec!["no number"; 2000]);
    await_ends(&mut alice, hers, 2000);
    let his = crash(&mut bob);
    let blamed = format!("job blamed job={his} ");
    eventually("his crash is in the log", || daemon.log().contains(&blamed).then_some(()));
    let count = eventually("the lines of hers are counted", || {
        let said = format!("more events of a user were not logged uid={ALICE} count=");
        let log = daemon.log();
        let rest = log.split_once(&said)?.1.lines().next()?;
        rest.trim().parse::<u64>().ok()
    });
    let ended =
        (0..2000).filter(|at| daemon.log().contains(&format!("job ended job={} ", hers.0 + at))).count();
    assert!((1..=200).contains(&ended) && count >= 1800, "{ended} are logged, {count} are not");
    let kept = alice.records().iter().filter(|record| matches!(record.what, What::Ended { .. })).count();
    assert_eq!(kept, 2000, "events has them all");
}

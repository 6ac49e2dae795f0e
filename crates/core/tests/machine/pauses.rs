//! Time in which nothing ran: limits go on from where they were, however long it was; and a loop that is only slow still
//! enforces them.

use bulkhead_core::event::Event;
use bulkhead_proto::client::outcome::{Outcome, TimeLimit};
use bulkhead_proto::job::Policy;

use crate::rig::{ALICE, Rig};

const HOUR_MS: u64 = 3_600_000;

fn timed_out(limit: TimeLimit, limit_ms: u64) -> Option<Outcome> {
    Some(Outcome::TimedOut { limit, limit_ms, part: None })
}

/// A claimed job with a limit of five seconds, of which one is over.
fn running(policy: Policy) -> (Rig, bulkhead_proto::ids::JobId) {
    let mut rig = Rig::new(1);
    let job = rig.submit_as(ALICE, "quick", 1, policy, false);
    rig.claim(job);
    rig.sleep(1000);
    (rig, job)
}

#[test]
fn a_task_has_what_was_left_of_its_limit_before_the_pause() {
    let limits = [
        (Policy { timeout_ms: Some(5000), ..Policy::default() }, TimeLimit::Wall),
        (Policy { no_progress_ms: Some(5000), ..Policy::default() }, TimeLimit::NoProgress),
    ];
    for (policy, limit) in limits {
        let (mut rig, job) = running(policy);
        for _ in 0..3 {
            rig.pass(HOUR_MS);
            rig.turn();
            assert_eq!((rig.outcome(job), rig.killed.len()), (None, 0), "{limit:?}");
            rig.sleep(1000);
        }
        assert_eq!(rig.outcome(job), None, "{limit:?}: four of five seconds are over");
        rig.sleep(1200);
        assert_eq!(rig.outcome(job), timed_out(limit, 5000));
    }
}

#[test]
fn progress_before_a_pause_counts_after_it() {
    let (mut rig, job) = running(Policy { no_progress_ms: Some(5000), ..Policy::default() });
    let worker = rig.holder(job).unwrap().0;
    // It reports progress half a second before all is stopped.
    rig.pass(500);
    let progress_ns = Some(rig.now.mono_ns);
    rig.pass(HOUR_MS);
    rig.batch.push(Event::Examined { worker, seen: None, progress_ns, progress: None });
    rig.turn();
    rig.sleep(4900);
    assert_eq!(rig.outcome(job), None);
}

#[test]
fn a_loop_that_is_only_slow_enforces_limits() {
    let (mut rig, job) = running(Policy { timeout_ms: Some(5000), ..Policy::default() });
    let late_turns = (1..10).find(|_| {
        rig.pass(4000);
        rig.turn();
        rig.outcome(job).is_some()
    });
    assert_eq!(rig.outcome(job), timed_out(TimeLimit::Wall, 5000));
    assert!(late_turns <= Some(4), "the first counts as a pause, and the rest as time: {late_turns:?}");
}

#[test]
fn an_idle_daemon_asks_for_no_turn_after_a_pause() {
    let (mut rig, job) = running(Policy { timeout_ms: Some(5000), ..Policy::default() });
    rig.pass(HOUR_MS);
    rig.finish(job);
    rig.sleep(1000);
    assert!(rig.core.deadline().is_none_or(|at_ns| at_ns > rig.now.mono_ns + 60_000_000_000));
}

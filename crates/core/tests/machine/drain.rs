//! The drain: which jobs still end, which are lost, and when the daemon exits.
//!
//! The table of stages stands in `src/machine/drain.rs`; each way through it is walked here.

use bulkhead_core::event::Event;
use bulkhead_proto::client::message::{Reply, Request, Submit};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::death::{Death, KillReason};
use bulkhead_proto::ids::{JobId, WorkerId};
use bulkhead_proto::job::{Payload, Policy};

use crate::rig::{ADMIN, ALICE, Rig};

/// Retired workers leave, killed ones die.
fn bury(rig: &mut Rig) {
    for worker in std::mem::take(&mut rig.retired) {
        rig.die(worker, Death::Retired);
    }
    for (worker, why) in std::mem::take(&mut rig.killed) {
        rig.die(worker, Death::Killed { why });
    }
}

#[test]
fn a_drain_ends_what_was_accepted_and_takes_nothing_new() {
    let mut rig = Rig::new(2);
    let policy = Policy { retries_max: Some(1), ..Policy::default() };
    let first = rig.submit_as(ALICE, "quick", 3, policy, false);
    assert!(matches!(
        rig.answer(ALICE, Request::Drain { grace_ms: None }),
        Reply::Refused(Refusal::Denied { .. })
    ));
    assert_eq!(rig.answer(ADMIN, Request::Drain { grace_ms: None }), Reply::Draining { left: 3 });
    let inputs = vec![Payload::default()];
    let submit = Submit {
        kind: "quick".into(),
        policy: Policy::default(),
        attached: false,
        inputs,
        ..Submit::default()
    };
    assert_eq!(rig.answer(ALICE, Request::Submit(submit)), Reply::Refused(Refusal::Draining));
    rig.fail(first);
    rig.finish(JobId(first.0 + 1));
    rig.finish(JobId(first.0 + 2));
    assert!(rig.retired.is_empty(), "a backoff is waited for");
    rig.sleep(200);
    rig.finish(first);
    assert_eq!(rig.retired.len(), 3);
    assert!(!rig.exited);
    bury(&mut rig);
    assert!(rig.exited);
    assert_eq!(rig.recorded(|what| matches!(what, What::Stopped)), 1);
    assert_eq!(rig.core.deadline(), None);
}

#[test]
fn when_the_grace_is_over_the_rest_is_lost() {
    let mut rig = Rig::new(1);
    let first = rig.submit_as(ALICE, "quick", 2, Policy::default(), true);
    rig.claim(first);
    rig.tell(Event::Drain { grace_ms: Some(5000) });
    rig.tell(Event::Drain { grace_ms: Some(1000) });
    rig.tell(Event::Drain { grace_ms: Some(60_000) });
    rig.sleep(999);
    assert!(rig.told(ALICE, None).is_empty());
    rig.sleep(2);
    let told = rig.told(ALICE, None);
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|ended| matches!(ended.outcome, Outcome::Lost { .. })));
    assert!(rig.killed.values().all(|why| *why == KillReason::Stop));
    bury(&mut rig);
    assert!(rig.exited);
    assert_eq!(rig.recorded(|what| matches!(what, What::Blamed { .. } | What::NobodyBlamed { .. })), 0);
}

#[test]
fn who_asked_for_the_drain_is_told_what_it_cost() {
    for (grace_ms, lost) in [(None, 0), (Some(100), 2)] {
        let mut rig = Rig::new(1);
        let first = rig.submit(2);
        rig.answer(ADMIN, Request::Drain { grace_ms: None });
        rig.replies.clear();
        rig.tell(Event::Drain { grace_ms });
        if grace_ms.is_none() {
            rig.finish(first);
            rig.finish(JobId(first.0 + 1));
        }
        rig.sleep(101);
        let told = |rig: &Rig| {
            let replies =
                rig.replies.iter().filter(|(_, _, reply, _)| matches!(reply, Reply::Drained { .. }));
            replies.map(|(client, _, reply, _)| (*client, reply.clone())).collect::<Vec<_>>()
        };
        assert!(told(&rig).is_empty(), "it is not over");
        bury(&mut rig);
        assert!(rig.exited);
        assert_eq!(told(&rig), [(ADMIN, Reply::Drained { lost })]);
    }
}

#[test]
fn a_stop_is_at_once_and_stuck_workers_do_not_hold_it() {
    let mut rig = Rig::new(1);
    let job = rig.submit(1);
    rig.claim(job);
    rig.tell(Event::Stop);
    assert!(matches!(rig.outcome(job), Some(Outcome::Lost { .. })));
    let spare = *rig.killed.keys().next_back().unwrap();
    rig.die(spare, Death::Killed { why: KillReason::Stop });
    assert!(!rig.exited);
    rig.sleep(11_000);
    assert!(rig.exited, "no proof, but the daemon leaves");
    rig.forget_past();
    rig.tell(Event::Stop);
    assert!(rig.spawned.is_empty());
}

#[test]
fn an_idle_daemon_that_is_still_starting_can_be_stopped() {
    let mut rig = Rig::cold(crate::rig::config(2));
    rig.come_up = false;
    rig.turn();
    rig.tell(Event::Drain { grace_ms: None });
    assert_eq!(rig.killed.len(), 3);
    for number in 1..=3 {
        rig.die(WorkerId(number), Death::Killed { why: KillReason::Stop });
    }
    assert!(rig.exited);
}

#[test]
fn a_client_that_does_not_read_holds_the_end_for_a_moment_only() {
    let mut rig = Rig::new(1);
    let job = rig.submit_as(ALICE, "quick", 1, Policy::default(), true);
    // Its credit is used up by what it asks.
    while rig.told(ALICE, None).is_empty() && rig.replies.len() < 20_000 {
        rig.batch.push(Event::ClientSaid {
            client: ALICE,
            tag: bulkhead_proto::ids::Tag(1),
            request: Request::Kinds,
            files: Vec::new(),
        });
        if rig.batch.len() == 2000 {
            rig.turn();
        }
        if rig.replies.len() > 4000 {
            break;
        }
    }
    rig.finish(job);
    assert!(rig.told(ALICE, None).is_empty());
    rig.tell(Event::Drain { grace_ms: None });
    bury(&mut rig);
    assert!(!rig.exited);
    rig.sleep(3000);
    assert!(rig.exited);
}

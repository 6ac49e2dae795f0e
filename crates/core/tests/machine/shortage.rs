//! Shortages: workers do not come up, or outputs cannot be made. Clients whose jobs wait are told why, once, and when it
//! is over; the pool is degraded, and spawns again with growing pauses.

use bulkhead_core::config::Config;
use bulkhead_core::event::Event;
use bulkhead_proto::client::message::Reply;
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::view::PoolHealth;
use bulkhead_proto::ids::{ClientId, JobId};
use bulkhead_proto::job::{OutputMode, Policy};

use crate::rig::{ALICE, BOB, Rig, SEGV, config};

/// The notices that a client got so far.
pub(crate) fn notices(rig: &Rig, client: ClientId) -> Vec<String> {
    let of = |(to, _, reply, _): &(ClientId, _, Reply, _)| match reply {
        Reply::Notice(text) if *to == client => Some(text.clone()),
        _ => None,
    };
    rig.replies.iter().filter_map(of).collect()
}

/// A pool of one slot, all of whose workers died and whose successors cannot be spawned.
fn without_workers() -> Rig {
    let mut rig = Rig::new(1);
    rig.come_up = false;
    let living: Vec<_> = rig.workers.keys().copied().collect();
    living.into_iter().for_each(|worker| rig.die(worker, SEGV));
    rig.forget_past();
    rig
}

/// The next spawn is tried, and fails.
fn fail_spawn(rig: &mut Rig, error: &str) {
    let tried = rig.spawned.len();
    while rig.spawned.len() == tried {
        rig.sleep(50);
    }
    let worker = rig.spawned[tried];
    rig.tell(Event::SpawnFailed { worker, error: error.to_owned() });
}

#[test]
fn who_waits_is_told_once_why_nothing_runs_and_that_it_is_over() {
    let mut rig = without_workers();
    let first = rig.submit_as(ALICE, "quick", 1, Policy::default(), true);
    fail_spawn(&mut rig, "no processes left");
    assert_eq!(notices(&rig, ALICE), [""; 0], "one failure says nothing yet");
    fail_spawn(&mut rig, "no processes left");
    let told = notices(&rig, ALICE);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("nothing runs") && told[0].contains("no processes left"), "{told:?}");
    assert_eq!(notices(&rig, BOB), [""; 0], "he waits for nothing");
    // Whoever comes later is told at once, and nobody twice.
    rig.submit_as(BOB, "quick", 1, Policy::default(), true);
    rig.submit_as(BOB, "quick", 1, Policy::default(), true);
    fail_spawn(&mut rig, "no processes left");
    assert_eq!((notices(&rig, ALICE).len(), notices(&rig, BOB).len()), (1, 1));
    rig.come_up = true;
    rig.sleep(6000);
    rig.finish(first);
    for client in [ALICE, BOB] {
        let told = notices(&rig, client);
        assert!(told.len() == 2 && told[1].contains("again"), "{told:?}");
    }
}

#[test]
fn who_waits_for_a_job_of_earlier_is_told_too() {
    let mut rig = without_workers();
    let job = rig.submit(1);
    fail_spawn(&mut rig, "gone");
    fail_spawn(&mut rig, "gone");
    assert_eq!(notices(&rig, ALICE), [""; 0], "it was handed over, nobody waits");
    rig.ask(ALICE, bulkhead_proto::client::message::Request::Wait { jobs: vec![job] });
    assert_eq!(notices(&rig, ALICE).len(), 1);
}

/// A client that reads nothing can make the daemon hold no notice for it, however often the pool degrades.
#[test]
fn who_has_no_credit_is_told_when_it_has_read() {
    let mut rig = Rig::with(Config { client_credit_bytes: 100, ..config(1) });
    let job = rig.submit_as(ALICE, "quick", 1, Policy::default(), true);
    rig.ask(ALICE, bulkhead_proto::client::message::Request::Job { job });
    rig.come_up = false;
    let living: Vec<_> = rig.workers.keys().copied().collect();
    living.into_iter().for_each(|worker| rig.die(worker, SEGV));
    rig.forget_past();
    fail_spawn(&mut rig, "gone");
    fail_spawn(&mut rig, "gone");
    assert_eq!(rig.status().health, PoolHealth::Degraded);
    assert_eq!(notices(&rig, ALICE), [""; 0], "it has no credit");
    rig.tell(Event::ClientFlushed { client: ALICE });
    assert_eq!(notices(&rig, ALICE).len(), 1);
    rig.tell(Event::ClientFlushed { client: ALICE });
    assert_eq!(notices(&rig, ALICE).len(), 1, "once");
}

/// Failures that take their whole time never exceed the intensity, and neither does one spare's.
#[test]
fn as_many_failures_in_a_row_as_the_pool_has_places_degrade_it() {
    let mut rig = Rig::with(Config { bootstrap_ms: 60_000, ..config(2) });
    rig.come_up = false;
    rig.die(rig.workers.keys().next_back().copied().unwrap(), SEGV);
    for count in 1..=3 {
        assert_eq!(rig.status().health, PoolHealth::Healthy, "{count}");
        let worker = loop {
            match rig.spawned.get(count - 1) {
                Some(worker) => break *worker,
                None => rig.sleep(100),
            }
        };
        rig.tell(Event::BootstrapFailed { worker, error: "it hangs".to_owned() });
        rig.die(worker, SEGV);
        rig.sleep(11_000);
    }
    let status = rig.status();
    assert_eq!(status.health, PoolHealth::Degraded);
    assert!(status.health_reason.contains("3 workers in a row"), "{}", status.health_reason);
    assert!(status.health_reason.contains("it hangs"), "{}", status.health_reason);
}

/// The reason is that of the last failure, not that of the first.
#[test]
fn the_reason_keeps_up_with_what_is_seen() {
    let mut rig = without_workers();
    fail_spawn(&mut rig, "no descriptors");
    fail_spawn(&mut rig, "no descriptors");
    fail_spawn(&mut rig, "the program is gone");
    let reason = rig.status().health_reason;
    assert!(reason.contains("the program is gone") && reason.contains("1 more since"), "{reason}");
    assert!(!reason.contains("no descriptors"), "{reason}");
}

/// No output can be made for `job`: the shell says so at each offer.
fn fall_short(rig: &mut Rig, job: JobId) {
    let (worker, seq) = rig.holder(job).expect("it is offered");
    rig.workers.get_mut(&worker).expect("it lives").clear();
    let shortage = Some("no output descriptor: 64 are open".to_owned());
    rig.tell(Event::OfferFailed { worker, seq, taken: true, shortage });
}

#[test]
fn a_shortage_of_outputs_is_said_now_and_then_and_ends_by_itself() {
    let mut rig = Rig::new(1);
    let large = Policy { output: OutputMode::Descriptor, ..Policy::default() };
    let job = rig.submit_as(ALICE, "quick", 1, large, true);
    fall_short(&mut rig, job);
    assert!(rig.status().shortage.contains("64 are open"));
    let told = notices(&rig, ALICE);
    assert!(told.len() == 1 && told[0].contains("64 are open"), "{told:?}");
    for _ in 0..20 {
        rig.sleep(150);
        fall_short(&mut rig, job);
    }
    let said = |rig: &Rig| rig.recorded(|what| matches!(what, What::Short { .. }));
    assert_eq!((said(&rig), notices(&rig, ALICE).len()), (1, 1), "twenty tries within 10 s are said once");
    rig.sleep(10_000);
    fall_short(&mut rig, job);
    assert_eq!(said(&rig), 2);
    rig.sleep(150);
    rig.claim(job);
    rig.finish(job);
    assert_eq!(rig.status().shortage, "");
}

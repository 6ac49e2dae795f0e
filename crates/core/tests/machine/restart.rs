//! Workers that keep dying: warm replacements, restart intensity, backoff, and recovery of the pool.
//!
//! Workers die here with nothing claimed, so that no job is charged.

use bulkhead_core::config::Config;
use bulkhead_core::event::Event;
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::view::{PoolHealth, WorkerState};
use bulkhead_proto::death::KillReason;
use bulkhead_proto::ids::WorkerId;

use crate::rig::{ADMIN, Rig, SEGV, config};

fn living(rig: &Rig) -> WorkerId {
    *rig.workers.keys().next_back().expect("somebody lives")
}

#[test]
fn the_first_turn_spawns_slots_and_spares_and_says_ready_once() {
    let mut rig = Rig::cold(Config { spares: 2, ..config(3) });
    rig.turn();
    assert_eq!((rig.spawned.len(), rig.ready.len()), (5, 1));
    assert_eq!(rig.ready[0], "taking jobs, 1 of 3 workers up so far");
    let rows = rig.core.deadline();
    assert_eq!(rows, None, "all are up: nothing to wait for");
    assert_eq!(rig.recorded(|what| matches!(what, What::Placed { warm: false, replaces: None, .. })), 3);
    assert!(matches!(rig.records[0], What::Started { slots: 3, .. }));
}

#[test]
fn with_one_first_the_others_are_spawned_once_it_is_ready() {
    let mut rig = Rig::cold(Config { one_first: true, ..config(2) });
    rig.come_up = false;
    rig.turn();
    assert_eq!(rig.spawned, [WorkerId(1)]);
    rig.pass(900);
    rig.turn();
    assert_eq!(rig.spawned.len(), 1);
    rig.come_up = true;
    rig.come_up_now(WorkerId(1));
    rig.turn();
    assert_eq!(rig.workers.len(), 1, "its first task has the cores for a moment");
    rig.sleep(10);
    assert_eq!(rig.workers.len(), 2);
    rig.sleep(10);
    assert_eq!(rig.workers.len(), 3);
}

#[test]
fn with_one_first_the_others_do_not_wait_long_for_it() {
    for dies in [false, true] {
        let mut rig = Rig::cold(Config { one_first: true, ..config(2) });
        rig.come_up = false;
        rig.turn();
        if dies {
            rig.tell(Event::SpawnFailed { worker: WorkerId(1), error: "no".to_owned() });
        }
        rig.come_up = true;
        rig.sleep(1100);
        assert_eq!(rig.workers.len(), if dies { 3 } else { 2 }, "{dies}");
    }
}

#[test]
fn a_dead_workers_slot_takes_the_spare_at_once_and_the_spawn_comes_later() {
    let mut rig = Rig::new(2);
    let dead = *rig.workers.keys().next().unwrap();
    rig.die(dead, SEGV);
    assert_eq!(
        rig.recorded(
            |what| matches!(what, What::Placed { replaces: Some(old), warm: true, .. } if *old == dead)
        ),
        1
    );
    assert!(rig.spawned.is_empty(), "answers go first");
    assert_eq!(rig.core.deadline(), Some(rig.now.mono_ns + 2_000_000));
    rig.sleep(2);
    assert_eq!(rig.spawned.len(), 1);
}

#[test]
fn several_deaths_are_replaced_one_a_turn() {
    let mut rig = Rig::new(4);
    for number in 1..=3 {
        rig.die(WorkerId(number), SEGV);
    }
    rig.pass(100);
    rig.turn();
    assert_eq!(rig.spawned.len(), 1);
    rig.sleep(100);
    assert_eq!(rig.spawned.len(), 3);
}

#[test]
fn deaths_beyond_the_intensity_degrade_and_survival_heals() {
    let mut rig = Rig::with(Config { restart_intensity: 3, ..config(1) });
    for _ in 0..4 {
        rig.sleep(200);
        let worker = living(&rig);
        rig.die(worker, SEGV);
    }
    let status = rig.status();
    assert_eq!(status.health, PoolHealth::Degraded);
    assert!(status.health_reason.contains("SIGSEGV"), "{}", status.health_reason);
    assert_eq!(rig.recorded(|what| matches!(what, What::Degraded { .. })), 1);
    let before = rig.spawned.len();
    rig.sleep(40);
    assert_eq!(rig.spawned.len(), before, "the backoff is at least half of 100 ms");
    rig.sleep(30_000);
    assert_eq!(rig.status().health, PoolHealth::Healthy);
    assert_eq!(rig.recorded(|what| matches!(what, What::Recovered { .. })), 1);
}

#[test]
fn a_worker_that_ends_a_task_heals_at_once() {
    let mut rig = Rig::with(Config { restart_intensity: 0, ..config(1) });
    // Both die: whoever ends a task afterwards came up in the degraded pool.
    rig.die(WorkerId(1), SEGV);
    rig.die(WorkerId(2), SEGV);
    assert_eq!(rig.status().health, PoolHealth::Degraded);
    let job = rig.submit(1);
    rig.sleep(3000);
    rig.finish(job);
    assert_eq!(rig.status().health, PoolHealth::Healthy);
}

#[test]
fn spawns_that_fail_back_off_further_and_further_and_never_give_up() {
    let mut rig = Rig::cold(Config { restart_intensity: 2, ..config(1) });
    rig.come_up = false;
    rig.turn();
    rig.connect(ADMIN, 0, true);
    let mut tried = 0;
    let mut gaps = Vec::new();
    let mut last = rig.now.mono_ns;
    while tried < 14 {
        let worker = rig.spawned[tried];
        tried += 1;
        rig.tell(Event::SpawnFailed { worker, error: "no processes left".to_owned() });
        while rig.spawned.len() == tried {
            rig.sleep(50);
        }
        gaps.push((rig.now.mono_ns - last) / 1_000_000);
        last = rig.now.mono_ns;
    }
    assert!(gaps[4..].iter().any(|gap| *gap > 10_000), "{gaps:?}");
    assert!(gaps.iter().all(|gap| *gap <= 30_200), "{gaps:?}");
    assert_eq!(rig.ready.len(), 1, "whoever waits for the start is told");
    assert!(rig.ready[0].contains("degraded"));
    assert_eq!(rig.status().health, PoolHealth::Degraded);
}

#[test]
fn a_worker_that_does_not_come_up_is_killed_and_counted_once() {
    let mut rig = Rig::cold(Config { bootstrap_ms: 1000, ..config(1) });
    rig.come_up = false;
    rig.turn();
    rig.connect(ADMIN, 0, true);
    rig.sleep(1001);
    assert_eq!(rig.killed.len(), 2);
    assert_eq!(rig.recorded(|what| matches!(what, What::SpawnFailed { .. })), 2);
    for number in 1..=2 {
        rig.die(WorkerId(number), bulkhead_proto::death::Death::Killed { why: KillReason::Unresponsive });
    }
    assert_eq!(rig.recorded(|what| matches!(what, What::NobodyBlamed { .. })), 0);
    rig.come_up = true;
    rig.sleep(1000);
    assert!(rig.rows().iter().any(|row| row.state == WorkerState::Idle));
}

/// Workers that take their whole time fail too slowly to exceed the intensity.
#[test]
fn a_pool_of_which_nobody_came_up_says_so_and_heals() {
    let mut rig = Rig::cold(Config { bootstrap_ms: 10_000, ..config(2) });
    rig.come_up = false;
    rig.turn();
    rig.connect(ADMIN, 0, true);
    assert!(rig.ready.is_empty());
    rig.sleep(10_001);
    assert_eq!(rig.ready.len(), 1, "whoever waits for the start is told");
    assert!(rig.ready[0].contains("did not come up"), "{:?}", rig.ready);
    assert_eq!(rig.status().health, PoolHealth::Degraded);
    for number in 1..=3 {
        rig.die(WorkerId(number), bulkhead_proto::death::Death::Killed { why: KillReason::Unresponsive });
    }
    rig.come_up = true;
    rig.sleep(60_000);
    assert_eq!(rig.status().health, PoolHealth::Healthy);
    assert_eq!(rig.ready.len(), 1);
}

#[test]
fn a_late_hello_of_a_killed_worker_changes_nothing() {
    let mut rig = Rig::cold(Config { bootstrap_ms: 1000, ..config(1) });
    rig.come_up = false;
    rig.turn();
    rig.connect(ADMIN, 0, true);
    rig.sleep(1001);
    rig.tell(Event::WorkerReady { worker: WorkerId(1), writes_stack: false });
    rig.tell(Event::BootstrapFailed { worker: WorkerId(1), error: String::new() });
    assert!(rig.rows().iter().all(|row| row.state != WorkerState::Idle));
}

//! The oracles `unclosed` and `first` fed by hand: what no run of a sound core can show is shown to them directly.

#![allow(clippy::unwrap_used, reason = "a verdict that must be good, in a test")]

use bulkhead_core::action::{Action, Output};
use bulkhead_core::config::Config;
use bulkhead_core::event::{Event, Now};
use bulkhead_proto::client::record::{Record, What};
use bulkhead_proto::ids::{PoolId, SlotId, WorkerId};
use bulkhead_proto::limits::UNCLOSED_MAX;
use bulkhead_sim::oracle::first::FirstOracle;
use bulkhead_sim::oracle::pauses::PauseOracle;
use bulkhead_sim::oracle::pool::PoolOracle;
use bulkhead_sim::oracle::unclosed::UnclosedOracle;
use bulkhead_sim::report::Verdict;

const WORKER: WorkerId = WorkerId(1);

fn oracle(verdict: Verdict) -> &'static str {
    verdict.expect_err("the oracle sees it").oracle
}

/// One pool of these slots, whose workers are spawned and ready; those with a slot stand in it.
fn pool_of(config: &Config, workers: &[(u64, Option<u16>)]) -> PoolOracle {
    let mut pool = PoolOracle::new(config);
    for (worker, slot) in workers.iter().map(|(worker, slot)| (WorkerId(*worker), *slot)) {
        pool.decided(&Action::Spawn { worker, pool: PoolId(0) }).unwrap();
        pool.told(&Event::WorkerReady { worker, writes_stack: false });
        if let Some(slot) = slot {
            let what = What::Placed { worker, slot: SlotId(slot), replaces: None, after_us: 0, warm: true };
            pool.recorded(&Record { index: 1, at_us: 0, what }).unwrap();
        }
    }
    pool
}

#[test]
fn a_worker_with_too_many_files_stands_beside_no_spare_unless_as_many_are_leaving() {
    let config = Config { slots: 1, ..Config::default() };
    let judge = |files, pool: &PoolOracle| {
        let mut oracle = UnclosedOracle::default();
        oracle.told(&Event::Unclosed { worker: WORKER, files });
        oracle.decided(&Output::default(), pool)
    };
    let alone = pool_of(&config, &[(1, Some(0))]);
    let beside = pool_of(&config, &[(1, Some(0)), (2, None)]);
    judge(UNCLOSED_MAX + 1, &alone).unwrap();
    judge(UNCLOSED_MAX, &beside).unwrap();
    assert_eq!(oracle(judge(UNCLOSED_MAX + 1, &beside)), "unclosed");
    let mut leaving = pool_of(&config, &[(1, Some(0)), (2, None), (3, None)]);
    leaving.decided(&Action::Retire { worker: WorkerId(3) }).unwrap();
    judge(UNCLOSED_MAX + 1, &leaving).unwrap();
}

#[test]
fn others_wait_for_the_first_worker_and_no_longer_than_a_second() {
    const SECOND: u64 = 1_000_000_000;
    let config = Config { slots: 2, one_first: true, ..Config::default() };
    let spawn = |worker| Action::Spawn { worker: WorkerId(worker), pool: PoolId(0) };
    let decide = |oracle: &mut FirstOracle, mono_ns, actions| {
        let out = Output { actions, ..Output::default() };
        oracle.decided(Now { mono_ns, wall_us: 1 }, &out, &PauseOracle::default())
    };
    let begun = || {
        let mut oracle = FirstOracle::new(&config);
        decide(&mut oracle, 0, vec![spawn(1)]).unwrap();
        oracle
    };
    assert_eq!(oracle(decide(&mut begun(), SECOND - 1, vec![spawn(2)])), "first");
    decide(&mut begun(), SECOND, vec![spawn(2)]).unwrap();
    let mut up = begun();
    up.told(&Event::WorkerReady { worker: WORKER, writes_stack: false });
    decide(&mut up, 5, vec![spawn(2)]).unwrap();
    decide(&mut begun(), 2 * SECOND - 1, vec![]).unwrap();
    assert_eq!(oracle(decide(&mut begun(), 2 * SECOND, vec![])), "first");
}

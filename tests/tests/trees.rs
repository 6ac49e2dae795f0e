//! A kill means the tree: whatever a job forked is gone before anything is said to have ended for good.
//!
//! Jobs grow trees of every shape and are ended in every way, beside a neighbour whose jobs run on. "Gone" is the end
//! of a connection that every member of the tree holds.

use bulkhead_proto::client::message::{Reply, Request, Submit};
use bulkhead_proto::client::outcome::{Outcome, TimeLimit};
use bulkhead_proto::client::record::What;
use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::Policy;
use bulkhead_tests::daemon::{Daemon, eventually, send_signal};
use bulkhead_tests::grove::{Grove, Tree};
use bulkhead_tests::hostile::BAIT;
use bulkhead_tests::hostile::grove::{DIE, END, SHAPES};
use bulkhead_tests::siege::{Armoury, Siege};
use bulkhead_tests::wire::{Wire, submit};

/// Workers for one tree of each shape, and one more.
const WORKERS_FOR_ALL: u16 = 12;
const _: () = assert!(WORKERS_FOR_ALL as usize > SHAPES.len());
/// How long the trees of a test may take to grow.
const LIMIT_MS: u64 = 6000;

fn shapes() -> impl Iterator<Item = &'static str> {
    SHAPES.iter().map(|(name, _, _)| *name)
}

/// A job that grows a tree.
fn plant(wire: &mut Wire, grove: &Grove, shape: &str, policy: Policy) -> JobId {
    let job = Submit { policy, ..submit("chaos", &[&grove.input(shape)], false) };
    match wire.call(Request::Submit(job)) {
        Reply::Accepted { first, count: 1, refused: None } => first,
        other => panic!("not accepted: {other:?}"),
    }
}

/// One tree of each shape, in a worker of its own.
fn plant_all(wire: &mut Wire, grove: &Grove, policy: &Policy) -> Vec<(&'static str, JobId, Tree)> {
    let grown = |shape| {
        let job = plant(wire, grove, shape, policy.clone());
        (shape, job, grove.next_grown(shape))
    };
    shapes().map(grown).collect()
}

fn outcome_of(wire: &mut Wire, job: JobId) -> Outcome {
    match wire.call(Request::Wait { jobs: vec![job] }) {
        Reply::Ended(ended) => ended[0].outcome.clone(),
        other => panic!("no end: {other:?}"),
    }
}

/// Waits for the proof of the death of this process.
fn await_death(daemon: &Daemon, pid: u32) {
    eventually("the worker's death is proven", || {
        daemon.events_named("died").into_iter().find(|event| event["pid"] == pid)
    });
}

/// Waits for the proof of the death of a tree's worker; then nobody of the tree may be there.
fn see_it_fall(siege: &mut Siege, tree: &Tree, shape: &str) {
    siege.await_record("the worker's death is proven", |what| match what {
        What::Died { pid, .. } if *pid == tree.worker => Some(()),
        _ => None,
    });
    assert!(!tree.lives(), "{shape}: the death is proven and somebody lives");
}

#[test]
fn a_cancel_ends_the_tree() {
    let mut siege = Siege::begin(&[], 0);
    let grove = Grove::new(siege.armoury.folder());
    siege.beside_a_neighbour(|siege| {
        let mut wire = Wire::connect(&siege.daemon.socket());
        for shape in shapes() {
            let job = plant(&mut wire, &grove, shape, Policy::default());
            let tree = grove.next_grown(shape);
            let reply = wire.call(Request::Cancel { jobs: vec![job] });
            assert!(matches!(reply, Reply::Changed { .. }), "{reply:?}");
            assert_eq!(outcome_of(&mut wire, job), Outcome::Cancelled, "{shape}");
            see_it_fall(siege, &tree, shape);
        }
    });
    siege.assert_nothing_left();
}

/// All at the same time, so that the limit may be long enough for the slowest machine to grow every tree first.
fn a_limit_ends_every_tree(policy: &Policy, limit: TimeLimit) {
    let armoury = Armoury::new(&[], 0);
    let daemon = Daemon::start_with(&armoury.setup(WORKERS_FOR_ALL, ""));
    let grove = Grove::new(armoury.folder());
    let mut wire = Wire::connect(&daemon.socket());
    let trees = plant_all(&mut wire, &grove, policy);
    for (shape, job, tree) in &trees {
        let outcome = outcome_of(&mut wire, *job);
        assert_eq!(outcome, Outcome::TimedOut { limit, limit_ms: LIMIT_MS, part: None }, "{shape}");
        await_death(&daemon, tree.worker);
        assert!(!tree.lives(), "{shape}: the death is proven and somebody lives");
    }
    let done = wire.run("noop", &["on"]);
    assert_eq!(done[0].outcome, Outcome::Done);
}

#[test]
fn a_limit_ends_the_tree() {
    let policy = Policy { timeout_ms: Some(LIMIT_MS), ..Policy::default() };
    a_limit_ends_every_tree(&policy, TimeLimit::Wall);
}

/// Whoever grows a tree and waits makes no progress.
#[test]
fn the_lack_of_progress_ends_the_tree() {
    let policy = Policy { no_progress_ms: Some(LIMIT_MS), ..Policy::default() };
    a_limit_ends_every_tree(&policy, TimeLimit::NoProgress);
}

/// The worker dies, by its own hand and by another's: the job is tried again, but not before the last of the first
/// attempt's tree is gone.
#[test]
fn a_retry_waits_for_the_end_of_the_tree() {
    let mut siege = Siege::begin(&[], 0);
    let grove = Grove::new(siege.armoury.folder());
    let policy = Policy { crashes_max: Some(3), ..Policy::default() };
    siege.beside_a_neighbour(|siege| {
        let mut wire = Wire::connect(&siege.daemon.socket());
        for shape in shapes() {
            let job = plant(&mut wire, &grove, shape, policy.clone());
            let mut first = grove.next_grown(shape);
            first.order(DIE);
            let mut second = grove.next();
            assert!(!first.lives(), "{shape}: retried while somebody of the first attempt lives");
            second.await_growth(shape);
            send_signal(second.worker, "KILL");
            let mut third = grove.next();
            assert!(!second.lives(), "{shape}: retried while somebody of the second attempt lives");
            third.await_growth(shape);
            third.order(DIE);
            let outcome = outcome_of(&mut wire, job);
            assert!(matches!(outcome, Outcome::Crashed { crashes: 3, .. }), "{shape}: {outcome:?}");
            assert!(!third.lives(), "{shape}: quarantined while somebody lives");
            assert_eq!(siege.attempts_of(job), 3, "{shape}");
        }
    });
    siege.assert_nothing_left();
}

/// A grandchild that holds lane and box could be taken for its worker: the retry waits for it as for any other.
#[test]
fn a_retry_waits_for_a_grandchild_that_holds_lane_and_box() {
    let mut siege = Siege::begin(&["grandchild-holds-lane-and-box"], 2);
    let grove = Grove::new(siege.armoury.folder());
    let bait = Policy { crashes_max: Some(2), ..Policy::default() };
    siege.beside_a_neighbour(|siege| {
        let mut wire = siege.connect();
        let Reply::Accepted { first: job, .. } =
            wire.call(Request::Submit(Submit { policy: bait, ..submit("noop", &[BAIT], false) }))
        else {
            panic!("not accepted")
        };
        let mut first = grove.next_grown("setsid");
        first.order(DIE);
        let mut second = grove.next();
        assert!(!first.lives(), "retried while the grandchild of the first attempt lives");
        second.await_growth("setsid");
        second.order(DIE);
        let outcome = outcome_of(&mut wire, job);
        assert!(matches!(outcome, Outcome::Crashed { crashes: 2, .. }), "{outcome:?}");
        assert!(!second.lives(), "quarantined while the grandchild lives");
    });
    siege.assert_nothing_left();
}

/// The daemon stops, with the grace used up or at once: nobody outlives it.
#[test]
fn a_daemon_that_stops_takes_every_tree_with_it() {
    for (signal, config) in [("TERM", "grace_seconds = 1"), ("INT", "")] {
        let armoury = Armoury::new(&[], 0);
        let mut daemon = Daemon::start_with(&armoury.setup(WORKERS_FOR_ALL, config));
        let grove = Grove::new(armoury.folder());
        let mut wire = Wire::connect(&daemon.socket());
        let trees = plant_all(&mut wire, &grove, &Policy::default());
        assert!(daemon.end(signal).success(), "{signal}");
        for (shape, _, tree) in &trees {
            assert!(!tree.lives(), "{signal}: somebody of {shape} outlives the daemon: {:?}", tree.members);
        }
        assert_eq!(daemon.leftovers(), Vec::<String>::new());
    }
}

/// A job that is done may leave something behind; it goes with its worker, and with no other.
#[test]
fn what_a_living_worker_left_behind_is_its_own() {
    let mut siege = Siege::begin(&[], 0);
    let grove = Grove::new(siege.armoury.folder());
    let mut wire = Wire::connect(&siege.daemon.socket());
    for shape in ["double-forked", "double-forked-setsid", "clean-environment", "chain"] {
        let job = plant(&mut wire, &grove, shape, Policy::default());
        let mut left = grove.next_grown(shape);
        left.order(END);
        assert_eq!(outcome_of(&mut wire, job), Outcome::Done, "{shape}");
        // Another one dies, and not before the two are known to be different.
        let mut other = grow_elsewhere(&mut wire, &grove, shape, left.worker);
        other.order(DIE);
        see_it_fall(&mut siege, &other, shape);
        assert!(left.lives(), "{shape}: it was taken for another worker's");
        send_signal(left.worker, "KILL");
        see_it_fall(&mut siege, &left, shape);
    }
    drop(wire);
    siege.assert_nothing_left();
}

/// A tree of another worker than this one.
fn grow_elsewhere(wire: &mut Wire, grove: &Grove, shape: &str, worker: u32) -> Tree {
    let once = Policy { crashes_max: Some(1), ..Policy::default() };
    let mut here = Vec::new();
    loop {
        plant(wire, grove, shape, once.clone());
        let tree = grove.next_grown(shape);
        if tree.worker != worker {
            here.iter_mut().for_each(|tree: &mut Tree| tree.order(END));
            return tree;
        }
        here.push(tree);
    }
}

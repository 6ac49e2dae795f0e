//! Workers that break the protocol: each attack by its name, against a real daemon, beside a neighbour who must not notice.
//!
//! A row of a table is an attack (its code stands in `src/hostile/`), the end that the attacker must meet, whether a
//! job is charged with it, and how the job that made it attack must end.

use std::sync::atomic::{AtomicUsize, Ordering};

use bulkhead_proto::client::outcome::{Outcome, TimeLimit};
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::view::WorkerState;
use bulkhead_proto::death::{Death, KillReason, Violation};
use bulkhead_proto::ids::WorkerId;
use bulkhead_proto::job::{OutputMode, Policy};
use bulkhead_tests::hostile::{Deed, attacks};
use bulkhead_tests::siege::{Siege, large};

/// The end that an attacker must meet.
#[derive(Clone, Copy, Debug)]
enum End {
    /// Killed for this protocol violation.
    Violated(Violation),
    /// Said not to have come up, in words that hold these, and killed.
    NeverUp(&'static str),
    /// Killed because its job met its limit.
    Timeout,
    /// It left by itself.
    Exited(i32),
    /// It left with code 0 while it had a task.
    Left,
    /// A signal that is not the daemon's ended it.
    Signalled(i32),
    /// Lost its life while the daemon was still connecting: by itself, or by the daemon's hand.
    Gone,
    /// As a spare it harms nobody; in a slot it is killed, for its silence or for the stop that it met.
    Dormant,
    /// A signal stopped it, that was seen, and in the end it was killed for it.
    Halted,
    /// Nothing: what it did is its own affair.
    Lives,
}

use End::{Dormant, Exited, Gone, Halted, Left, Lives, NeverUp, Signalled, Timeout, Violated};

/// An attack, its end, and whether a job is charged with that.
type Row = (&'static str, End, bool);

const HELLOS: &[Row] = &[
    ("hello-twice", Violated(Violation::Lane), false),
    ("hello-missing-kinds", NeverUp("does not offer the kind factorial"), false),
    ("hello-outside", Violated(Violation::Hello), false),
    ("hello-dot-dot", Violated(Violation::Hello), false),
    ("hello-relative", Violated(Violation::Hello), false),
    ("hello-empty", Violated(Violation::Hello), false),
    ("hello-symlink", Violated(Violation::Hello), false),
    ("hello-linked-folder", Violated(Violation::Hello), false),
    ("hello-file", Violated(Violation::Hello), false),
    ("hello-nothing-there", Violated(Violation::Hello), false),
    ("hello-nul", Violated(Violation::Hello), false),
    ("hello-long", Violated(Violation::Hello), false),
    ("hello-10-kilobytes", Violated(Violation::Lane), false),
    ("hello-dead-socket", NeverUp("connect"), false),
    ("hello-stream-socket", NeverUp("connect"), false),
    ("hello-of-another-process", Violated(Violation::Hello), false),
];

const LANES: &[Row] = &[
    ("lane-garbage", Violated(Violation::Lane), false),
    ("lane-empty", Violated(Violation::Lane), false),
    ("lane-oversized", Violated(Violation::Lane), false),
    ("lane-cut", Violated(Violation::Lane), false),
    ("lane-more-than-a-frame", Violated(Violation::Lane), false),
    ("lane-hello-when-up", Violated(Violation::Lane), false),
    ("lane-garbage-before-hello", Violated(Violation::Lane), false),
    ("lane-flood-of-garbage", Violated(Violation::Lane), false),
    ("doorbell-before-hello", Violated(Violation::Doorbell), false),
    ("doorbell-unasked", Violated(Violation::Doorbell), false),
    ("doorbell-flood", Violated(Violation::Doorbell), false),
    ("doorbell-flood-in-a-task", Violated(Violation::Doorbell), true),
    ("descriptor", Violated(Violation::Descriptor), false),
    ("descriptors-3", Violated(Violation::Descriptor), false),
    ("descriptors-200", Violated(Violation::Descriptor), false),
    ("descriptor-before-hello", Violated(Violation::Descriptor), false),
    ("lane-closed", Signalled(9), false),
    ("lane-closed-before-hello", NeverUp("hung up"), false),
    ("channel-closed", Dormant, false),
];

const LINGERING: &[Row] = &[
    ("linger-before-setup", Violated(Violation::Descriptor), false),
    ("linger-before-hello", Violated(Violation::Descriptor), false),
    ("linger-with-hello", Violated(Violation::Descriptor), false),
    ("linger-while-connecting", Violated(Violation::Descriptor), false),
    ("linger-on-channel-while-connecting", Violated(Violation::Lane), false),
    ("linger-when-up", Violated(Violation::Descriptor), false),
    ("linger-759-when-up", Violated(Violation::Descriptor), false),
    ("linger-urgent", Violated(Violation::Descriptor), false),
    ("linger-behind-garbage", Violated(Violation::Lane), false),
    ("linger-behind-empty-frames", Violated(Violation::Lane), false),
    ("linger-on-channel", Violated(Violation::Lane), false),
    ("linger-and-be-killed", Gone, false),
    ("linger-in-a-task", Violated(Violation::Descriptor), true),
    ("linger-on-channel-in-a-task", Violated(Violation::Lane), true),
];

const CLAIMS: &[Row] = &[
    ("claims-twice", Violated(Violation::ClaimWord), true),
    ("claims-the-second-first", Lives, false),
    ("program-stops", Lives, false),
    ("done-without-claim", Lives, false),
    ("done-to-claimed", Lives, false),
    ("claimed-to-offered", Violated(Violation::ClaimWord), true),
    ("claimed-to-settled", Violated(Violation::ClaimWord), true),
    ("claimed-to-taken", Violated(Violation::ClaimWord), true),
    ("offered-to-settled", Violated(Violation::ClaimWord), true),
    ("offered-to-taken", Violated(Violation::ClaimWord), true),
    ("state-5", Violated(Violation::ClaimWord), true),
    ("state-6", Violated(Violation::ClaimWord), true),
    ("state-7", Violated(Violation::ClaimWord), true),
    ("word-all-ones", Violated(Violation::ClaimWord), true),
    ("seq-of-before", Violated(Violation::ClaimWord), true),
    ("seq-of-the-next-round", Violated(Violation::ClaimWord), true),
    ("seq-of-a-neighbour", Violated(Violation::ClaimWord), true),
    ("answers-ahead", Lives, false),
    ("box-of-zeros", Violated(Violation::ClaimWord), true),
    ("box-of-ones", Violated(Violation::ClaimWord), true),
    ("box-of-garbage", Violated(Violation::ClaimWord), true),
];

const RESULTS: &[Row] = &[
    ("status-0", Violated(Violation::Result), true),
    ("status-5", Violated(Violation::Result), true),
    ("block-without-an-arena", Violated(Violation::Result), true),
    ("arena-block-beyond-the-end", Violated(Violation::Result), true),
    ("arena-block-between-units", Violated(Violation::Result), true),
    ("arena-block-too-long", Violated(Violation::Result), true),
    ("arena-block-of-nothing", Violated(Violation::Result), true),
    ("arena-block-that-wraps", Violated(Violation::Result), true),
    ("status-all-ones", Violated(Violation::Result), true),
    ("length-over-the-limit", Violated(Violation::Result), true),
    ("length-all-ones", Violated(Violation::Result), true),
    ("length-of-a-box", Violated(Violation::Result), true),
    ("text-over-the-limit", Violated(Violation::Result), true),
    ("text-that-is-none", Violated(Violation::Result), true),
    ("descriptor-without-one", Violated(Violation::Result), true),
    ("output-over-the-limit", Violated(Violation::Result), true),
    ("evidence-of-garbage", Signalled(11), true),
    ("takes-for-ever-it-says", Lives, false),
    ("takes-no-time-it-says", Lives, false),
    ("output-shorter-than-it-says", Violated(Violation::Output), true),
    ("output-longer-than-it-says", Violated(Violation::Output), true),
    ("output-still-mapped", Violated(Violation::Output), true),
    ("output-never-sealed", Violated(Violation::Output), true),
    ("output-cut-after-the-answer", Violated(Violation::Output), true),
];

const DEMANDS: &[Row] = &[
    ("demand-twice", Violated(Violation::NeedOutput), true),
    ("demand-of-the-next", Violated(Violation::NeedOutput), true),
    ("demand-of-the-last", Violated(Violation::NeedOutput), true),
    ("demand-of-nobody", Violated(Violation::NeedOutput), true),
    ("demand-before-the-claim", Violated(Violation::NeedOutput), false),
    ("demand-after-the-end", Violated(Violation::NeedOutput), false),
    ("demand-of-another-length", Violated(Violation::Output), true),
    ("demand-never-made", Violated(Violation::Result), true),
    ("output-and-another-one", Violated(Violation::NeedOutput), true),
    ("inline-and-a-demand", Violated(Violation::NeedOutput), true),
];

const PAGES: &[Row] = &[
    ("box-cut", Lives, false),
    ("orders-mapped", Lives, false),
    ("orders-written", Lives, false),
    ("box-sealed", Lives, false),
];

const ENDS: &[Row] = &[
    ("exit-0-at-once", Exited(0), false),
    ("exit-1-at-once", Exited(1), false),
    ("kill-at-once", Signalled(9), false),
    ("exit-0-after-setup", Exited(0), false),
    ("exit-1-after-setup", Exited(1), false),
    ("kill-after-setup", Signalled(9), false),
    ("exit-0-after-hello", Gone, false),
    ("exit-1-after-hello", Gone, false),
    ("kill-after-hello", Gone, false),
    ("exit-0-when-up", Exited(0), false),
    ("exit-1-when-up", Exited(1), false),
    ("kill-when-up", Signalled(9), false),
    ("exit-0-before-the-claim", Exited(0), false),
    ("exit-0-in-a-task", Left, true),
    ("kill-in-a-task", Signalled(9), true),
    ("fault-in-a-task", Signalled(11), true),
    ("kill-after-the-answer", Signalled(9), false),
    ("stop-in-a-task", Timeout, false),
];

const FAMILIES: &[Row] = &[
    ("child-holds-everything", Signalled(9), true),
    ("child-in-a-group-of-its-own", Signalled(9), true),
    ("grandchild-in-a-session-of-its-own", Signalled(9), true),
    ("twenty-children", Signalled(9), true),
    ("child-of-the-unborn", Exited(1), false),
    ("stray-while-it-lives", Signalled(9), false),
    ("heap-of-orphans", Lives, false),
];

const FOLDERS: &[Row] = &[
    ("folder-too-deep", Signalled(9), true),
    ("folder-too-wide", Signalled(9), true),
    ("folder-that-nobody-may-read", Signalled(9), true),
    ("folder-of-links", Signalled(9), true),
];

/// What workers do that were asked to leave, and what the log says of their deaths.
const RETIRED: &[(&str, &str)] = &[
    ("answers-after-its-time", "not responding"),
    ("stays-after-its-time", "not responding"),
    ("exit-7-after-its-time", "exit code 7"),
];

/// Those that only a deadline of ten seconds ends.
const PATIENT: &[Row] = &[
    ("silent", NeverUp("did not come up within 10000 ms"), false),
    ("hello-full-queue", NeverUp("did not come up within 10000 ms"), false),
    ("stop-at-once", NeverUp("did not come up within 10000 ms"), false),
    ("stop-after-setup", NeverUp("did not come up within 10000 ms"), false),
    ("hello-without-accept", Dormant, false),
    ("stop-after-hello", Dormant, false),
    ("stop-when-up", Halted, false),
    ("stop-before-the-claim", Halted, false),
];

const TABLES: [&[Row]; 11] =
    [HELLOS, LANES, LINGERING, CLAIMS, RESULTS, DEMANDS, PAGES, ENDS, FAMILIES, FOLDERS, PATIENT];

#[test]
fn hellos() {
    withstand(HELLOS, 2);
}

#[test]
fn lanes() {
    withstand(LANES, 2);
}

/// The last close of what is passed up waits for an hour, wherever it happens: here it must hold up nobody.
#[test]
fn lingering() {
    withstand(LINGERING, 2);
}

#[test]
fn claims() {
    withstand(CLAIMS, 2);
}

#[test]
fn results() {
    withstand(RESULTS, 2);
}

#[test]
fn demands() {
    withstand(DEMANDS, 2);
}

#[test]
fn pages() {
    withstand(PAGES, 2);
}

#[test]
fn ends() {
    withstand(ENDS, 2);
}

#[test]
fn families() {
    withstand(FAMILIES, 2);
}

#[test]
fn folders() {
    withstand(FOLDERS, 2);
}

/// A drain asks all idle workers to leave; here each does something else, and the daemon ends all the same.
#[test]
fn retired() {
    for (name, words) in RETIRED {
        let mut siege = Siege::begin(&[name], 3);
        siege.await_peace();
        assert!(siege.daemon.end("TERM").success(), "{name}");
        let log = siege.daemon.log();
        let deaths = log.lines().filter(|line| line.contains("worker died") && line.contains(words));
        assert_eq!(deaths.count(), 3, "{name}:\n{log}");
        assert_eq!(siege.daemon.leftovers(), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn patient() {
    withstand(PATIENT, 8);
}

#[test]
fn no_attack_is_left_out() {
    let rows = TABLES.concat().into_iter().map(|row| row.0);
    let told: Vec<&str> = rows.chain(RETIRED.iter().map(|row| row.0)).collect();
    for (name, _) in attacks() {
        assert_eq!(told.iter().filter(|told| *told == name).count(), 1, "{name}");
    }
    assert_eq!(told.len(), attacks().count());
}

/// Carries out every attack of a table, `at_once` at the same time, and names those that were not withstood.
fn withstand(table: &[Row], at_once: usize) {
    let next = AtomicUsize::new(0);
    let mut failed = Vec::new();
    std::thread::scope(|scope| {
        let attack = || {
            let mut failed = Vec::new();
            while let Some(row) = table.get(next.fetch_add(1, Ordering::Relaxed)) {
                let one =
                    std::thread::Builder::new().name(row.0.to_owned()).spawn_scoped(scope, || besiege(row));
                if one.expect("a thread").join().is_err() {
                    failed.push(row.0);
                }
            }
            failed
        };
        let all: Vec<_> = (0..at_once).map(|_| scope.spawn(attack)).collect();
        failed.extend(all.into_iter().flat_map(|one| one.join().expect("its failures are caught")));
    });
    assert!(failed.is_empty(), "not withstood: {failed:?}");
}

/// One attack.
fn besiege((name, end, blamed): &Row) {
    let (_, deed) = attacks().find(|(known, _)| known == name).expect("an attack of the hostile worker");
    let mut siege = Siege::begin(&[name], 1);
    siege.beside_a_neighbour(|siege| {
        provoke(siege, name, *deed, *end);
        meet(siege, *end);
    });
    siege.await_peace();
    let blames = siege.records().iter().filter(|record| matches!(record.what, What::Blamed { .. })).count();
    assert_eq!(blames, usize::from(*blamed), "charged jobs");
    let is_stop = |what: &What| matches!(what, What::ProgramStopped { .. } | What::ProgramContinued { .. });
    let stops = siege.records().iter().filter(|record| is_stop(&record.what)).count();
    assert!(stops <= 2, "no worker fills the records: {stops} stops of programs");
    assert!(*name != "program-stops" || stops > 0, "its stops were seen");
    siege.assert_left_beside(usize::from(name.starts_with("arena-")));
}

/// Gives the attacker what it waits for; the jobs that did so must all be done, by whomever.
fn provoke(siege: &mut Siege, name: &str, deed: Deed, end: End) {
    match deed {
        Deed::Boot(_) | Deed::Retired(_) => {}
        Deed::Ring(_) => {
            while siege.armoury.attacker(0).is_none() {
                assert_done(siege, 100, Policy::default());
            }
        }
        Deed::Offered(_) | Deed::Claimed(_)
            if name.starts_with("output-") && name != "output-over-the-limit" =>
        {
            assert_done(siege, 1, large());
        }
        Deed::Offered(_) | Deed::Claimed(_) if name.starts_with("demand-") => {
            assert_done(siege, 1, Policy { output: OutputMode::Auto, ..Policy::default() });
        }
        Deed::Offered(_) | Deed::Claimed(_) if name.starts_with("arena-") => {
            assert_done(siege, 1, Policy { output: OutputMode::Arena, ..Policy::default() });
        }
        Deed::Offered(_) | Deed::Claimed(_) if matches!(end, Timeout) => {
            let ended = siege.run_bait(1, Policy { timeout_ms: Some(300), ..Policy::default() });
            assert_eq!(
                ended[0].outcome,
                Outcome::TimedOut { limit: TimeLimit::Wall, limit_ms: 300, part: None }
            );
        }
        Deed::Offered(_) | Deed::Claimed(_) => assert_done(siege, 1, Policy::default()),
    }
    siege.attacker(0);
}

fn assert_done(siege: &Siege, count: usize, policy: Policy) {
    for end in siege.run_bait(count, policy) {
        assert_eq!(end.outcome, Outcome::Done, "{end:?}");
    }
}

/// The attacker meets its end, and the event says which.
fn meet(siege: &mut Siege, end: End) {
    let pid = siege.attacker(0);
    let worker = siege.await_record("the attacker was spawned", |what| match what {
        What::Spawned { worker, pid: spawned } if *spawned == pid => Some(*worker),
        _ => None,
    });
    if matches!(end, Lives) {
        let rows = siege.workers();
        assert!(rows.iter().any(|row| row.worker == worker), "it does not live: {rows:?}");
        return;
    }
    if matches!(end, Dormant) {
        let rows = siege.workers();
        let state = rows.iter().find(|row| row.worker == worker).map(|row| row.state);
        if state == Some(WorkerState::Spare) {
            return;
        }
    }
    let death = siege.await_record("the attacker dies", |what| match what {
        What::Died { worker: dead, death, .. } if *dead == worker => Some(death.clone()),
        _ => None,
    });
    let killed = |why: KillReason| death == Death::Killed { why };
    let right = match end {
        Violated(violation) => killed(KillReason::Violation { violation }),
        NeverUp(words) => never_up(siege, worker, words),
        Dormant => killed(KillReason::Unresponsive) || killed(KillReason::Stopped),
        Halted => killed(KillReason::Stopped),
        Timeout => killed(KillReason::Timeout),
        Exited(code) => death == Death::Exited { code },
        Left => death == Death::LeftInMidJob,
        Signalled(number) => matches!(death, Death::Signalled { signal, .. } if signal == number),
        Gone => !matches!(death, Death::Retired),
        Lives => unreachable!("looked at above"),
    };
    assert!(right, "it died of {death:?}; its log:\n{}", siege.daemon.log());
}

fn never_up(siege: &mut Siege, worker: WorkerId, words: &str) -> bool {
    let error = siege.await_record("its failure is told", |what| match what {
        What::SpawnFailed { worker: failed, error, .. } if *failed == worker => Some(error.clone()),
        _ => None,
    });
    assert!(error.contains(words), "{error:?} does not say {words:?}");
    true
}

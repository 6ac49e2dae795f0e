//! The README's promises that are counts: no accepted job is lost, none runs twice at once or beyond its budget, and
//! crashes leave nothing behind. Workers are killed from outside all the while; nothing here measures time.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Instant;

use bulkhead_proto::client::exit;
use bulkhead_proto::client::message::{Reply, Request, Submit, Walk};
use bulkhead_proto::client::outcome::{JobEnded, Outcome};
use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::{OutputMode, Policy};
use bulkhead_tests::daemon::{DEADLINE, Daemon, Setup, send_signal};
use bulkhead_tests::inventory::{Inventory, await_peace};
use bulkhead_tests::reaper::{Dice, Reaper, soon};
use bulkhead_tests::wire::{Wire, submit};

const WORKERS: u16 = 3;
const SPARES: u16 = 2;
/// Deaths charged to jobs, after which they may end in peace.
const CHARGED: usize = 100;
const ALL_WORKERS: usize = (WORKERS + SPARES) as usize;

/// A daemon that no number of deaths degrades.
fn daemon() -> Daemon {
    let config =
        format!("spares = {SPARES}\nrestart_intensity = 1000000\nbackoff_min_ms = 1\nbackoff_max_ms = 1\n");
    let daemon = Daemon::start_with(&Setup { workers: WORKERS, config, ..Setup::default() });
    await_peace(&daemon, ALL_WORKERS);
    daemon
}

/// No number of deaths quarantines the job.
fn undying() -> Policy {
    Policy { crashes_max: Some(u8::MAX), ..Policy::default() }
}

/// How often the end of each job was told to a client.
type Told = BTreeMap<JobId, Vec<JobEnded>>;

/// Submits these attached, and gives their ids and all that is told of them until each has ended.
fn run(socket: &Path, asked: Submit) -> (BTreeSet<JobId>, Told) {
    let mut wire = Wire::connect(socket);
    let mut told = Told::new();
    let tag = wire.ask(Request::Submit(Submit { attached: true, ..asked }));
    let mut accepted = BTreeSet::new();
    while accepted.is_empty() || accepted.iter().any(|job| !told.contains_key(job)) {
        let frame = wire.next_reply().expect("the daemon answers");
        assert_eq!(frame.tag, tag);
        match frame.reply {
            Reply::Accepted { first, count, refused: None } => {
                accepted = (first.0..first.0 + u64::from(count)).map(JobId).collect();
            }
            Reply::Ended(some) => note(&mut told, some),
            other => panic!("unexpected reply: {other:?}"),
        }
    }
    // Nothing more is told: the answer to this comes next.
    let pong = wire.call(Request::Ping);
    assert!(matches!(pong, Reply::Pong { .. }), "{pong:?}");
    (accepted, told)
}

/// Submits these for later and waits for them; cancels some before they have ended.
fn leave(socket: &Path, asked: Submit, cancelled: usize) -> (BTreeSet<JobId>, Told) {
    let mut wire = Wire::connect(socket);
    let mut told = Told::new();
    let Reply::Accepted { first, count, refused: None } = wire.call(Request::Submit(asked)) else {
        panic!("the submit was not accepted");
    };
    let accepted: BTreeSet<JobId> = (first.0..first.0 + u64::from(count)).map(JobId).collect();
    wire.ask(Request::Wait { jobs: accepted.iter().copied().collect() });
    let unwanted = accepted.iter().rev().take(cancelled).copied().collect();
    wire.ask(Request::Cancel { jobs: unwanted });
    while told.len() < accepted.len() {
        match wire.next_reply().expect("the daemon answers").reply {
            Reply::Ended(some) => note(&mut told, some),
            Reply::Changed { .. } => {}
            other => panic!("unexpected reply: {other:?}"),
        }
    }
    (accepted, told)
}

fn note(told: &mut Told, some: Vec<JobEnded>) {
    some.into_iter().for_each(|end| told.entry(end.job).or_default().push(end));
}

/// What a client does beside the others.
type Client = JoinHandle<(BTreeSet<JobId>, Told)>;

/// Clients with jobs that end in every way.
fn clients(socket: &Path) -> Vec<Client> {
    let numbers: Vec<String> = (0..150).map(|number| number.to_string()).collect();
    let all = |asked: Submit, policy: Policy| {
        let socket = socket.to_owned();
        std::thread::spawn(move || run(&socket, Submit { policy, ..asked }))
    };
    let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
    let limited = Policy { timeout_ms: Some(100), ..undying() };
    let later = submit("sleep", &["20"; 60], false);
    let place = socket.to_owned();
    vec![
        all(submit("noop", &numbers, true), undying()),
        all(submit("sleep", &["2"; 200], true), undying()),
        all(submit("sleep", &["600000"; 6], true), limited),
        all(
            submit("chaos", &["abort", "kill", "panic", "exit:3", "segv", "nonsense"], true),
            Policy::default(),
        ),
        std::thread::spawn(move || leave(&place, Submit { policy: undying(), ..later }, 20)),
    ]
}

/// Kills random workers that have a slot, until this is so.
fn kill_until(reaper: &mut Reaper, dice: &mut Dice, is_enough: impl Fn(&Reaper) -> bool) {
    let end = Instant::now() + DEADLINE;
    while !is_enough(reaper) {
        assert!(Instant::now() < end, "only {} were killed", reaper.killed.len());
        reaper.hear_until(soon(dice, 8000), |_| false);
        let living = reaper.placed.iter().filter(|(worker, _)| !reaper.killed.contains(worker));
        let living: Vec<_> = living.map(|(worker, pid)| (*worker, *pid)).collect();
        if let Some((worker, pid)) = living.get(dice.below(living.len().max(1) as u64) as usize) {
            reaper.kill(*worker, *pid);
        }
    }
}

/// Every job that was accepted has exactly one outcome, told once to its client and once in the events, whatever happens
/// to the workers.
#[test]
fn nothing_is_lost() {
    let mut dice = Dice::new("nothing is lost");
    let daemon = daemon();
    let mut reaper = Reaper::new(&daemon);
    let clients = clients(&daemon.socket());
    kill_until(&mut reaper, &mut dice, |reaper| {
        reaper.charged.len() >= CHARGED || clients.iter().all(Client::is_finished)
    });
    let (mut accepted, mut all) = (BTreeSet::new(), Vec::new());
    for client in clients {
        let (jobs, told) = client.join().expect("every job of a client ends");
        assert_eq!(jobs, told.keys().copied().collect(), "an end was told of a job that is another's");
        assert!(told.values().all(|ends| ends.len() == 1), "a job has more than one outcome: {told:?}");
        accepted.extend(jobs);
        all.extend(told.into_values().flatten());
    }
    assert_eq!(accepted.len(), all.len(), "a job was given to two clients");
    assert_counted(&daemon, &all);
    // An ordinary end is no event; that of a job that lost an attempt is.
    let troubled: BTreeSet<JobId> = all.iter().filter(|end| end.attempts > 1).map(|end| end.job).collect();
    reaper.await_that("the end of each job in trouble is an event", |reaper| {
        troubled.iter().all(|job| reaper.ends.contains_key(job))
    });
    assert!(reaper.ends.values().all(|count| *count == 1), "ended twice: {:?}", reaper.ends);
    assert!(reaper.ends.keys().all(|job| accepted.contains(job)), "{:?}", reaper.ends);
    println!("jobs={} killed={} charged={}", accepted.len(), reaper.killed.len(), reaper.charged.len());
    assert!(!reaper.charged.is_empty(), "this shows nothing: no job was hit");
}

/// The daemon has counted what its clients were told: each job once, by its outcome.
fn assert_counted(daemon: &Daemon, told: &[JobEnded]) {
    let totals = Wire::connect(&daemon.socket()).status().totals;
    let count = |is: fn(&Outcome) -> bool| told.iter().filter(|end| is(&end.outcome)).count() as u64;
    let (done, failed) =
        (count(|end| *end == Outcome::Done), count(|end| matches!(end, Outcome::Failed { .. })));
    let (crashed, timed_out, cancelled) = (
        count(|end| matches!(end, Outcome::Crashed { .. })),
        count(|end| matches!(end, Outcome::TimedOut { .. })),
        count(|end| matches!(end, Outcome::Cancelled)),
    );
    assert_eq!(
        (totals.done, totals.failed, totals.crashed, totals.timed_out, totals.cancelled),
        (done, failed, crashed, timed_out, cancelled)
    );
    assert_eq!((totals.accepted, totals.expired, totals.lost), (told.len() as u64, 0, 0));
    assert_eq!(done + failed + crashed + timed_out + cancelled, totals.accepted, "an end of another kind");
}

/// Programs that write down each of their runs, and whether another run of the same job is still there: it holds a lock
/// that the kernel releases when the last of its processes is gone.
struct Ledger(PathBuf);

impl Ledger {
    /// The program of one job. `then` is what it does for the time of its run.
    fn script(&self, name: &str, then: &str) -> String {
        let place = self.0.join(name);
        let place = place.display();
        format!("exec 9>>{place}.lock; flock -n 9 || echo twice >>{place}; echo run >>{place}; {then}")
    }

    /// Runs of a job so far.
    fn runs(&self, name: &str) -> usize {
        let text = std::fs::read_to_string(self.0.join(name)).unwrap_or_default();
        assert!(!text.contains("twice"), "job {name} ran twice at once:\n{text}");
        text.lines().count()
    }
}

/// A job that is watched: its name in the ledger, how often it is to be killed, how often it was.
struct Watched {
    name: String,
    job: JobId,
    kills: usize,
    killed: usize,
}

/// Submits a program that waits to be killed in each of its first `kills` runs, and then ends.
fn watched(daemon: &Daemon, ledger: &Ledger, name: String, kills: usize) -> Watched {
    let place = ledger.0.join(&name);
    // The second process of the tree must be gone too before the next run.
    let wait = format!("[ $(wc -l <{}) -gt {kills} ] || {{ sleep 600 & sleep 600; }}", place.display());
    let script = ledger.script(&name, &wait);
    let id = daemon.ok(&["submit", "exec", "--crashes-max", "3", "--", "sh", "-c", &script]);
    Watched { name, job: JobId(id.trim().parse().unwrap()), kills, killed: 0 }
}

/// No two runs of a job overlap, no job runs more often than its budget of three deaths allows, and the innocent run once.
#[test]
fn nothing_runs_twice_at_once_or_beyond_its_budget() {
    let daemon = daemon();
    let ledger = Ledger(daemon.folder().join("ledger"));
    std::fs::create_dir(&ledger.0).unwrap();
    // Every third is innocent; one of five is killed as often as it runs.
    let kills = |number: usize| match number {
        _ if number.is_multiple_of(3) => 0,
        _ if number.is_multiple_of(5) => 3,
        _ => 1 + number % 2,
    };
    let mut jobs: Vec<Watched> =
        (0..30).map(|number| watched(&daemon, &ledger, format!("j{number}"), kills(number))).collect();
    let mut wire = Wire::connect(&daemon.socket());
    let (socket, ids) = (daemon.socket(), jobs.iter().map(|watched| watched.job).collect());
    let ends = std::thread::spawn(move || wait_for(&socket, ids));
    while !ends.is_finished() {
        // Such a run waits to be killed, so the workers that are asked for after it began show who runs it.
        let is_due =
            |watched: &Watched| watched.killed < watched.kills && ledger.runs(&watched.name) > watched.killed;
        let mut due: Vec<&mut Watched> = jobs.iter_mut().filter(|watched| is_due(watched)).collect();
        for row in wire.workers() {
            let found = due.iter_mut().find(|watched| row.job == Some(watched.job));
            if let (Some(watched), Some(pid)) = (found, row.pid) {
                watched.killed += 1;
                send_signal(pid, "KILL");
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let ends = ends.join().expect("every job ends");
    for Watched { name, job, kills, .. } in &jobs {
        let end = &ends[job];
        let (runs, attempts) = (ledger.runs(name), end.attempts as usize);
        let allowed = (kills + 1).min(3);
        assert_eq!((runs, attempts), (allowed, allowed), "{name} is to be killed {kills} times: {end:?}");
        match &end.outcome {
            Outcome::Done => assert!(*kills < 3, "{name}: {end:?}"),
            Outcome::Crashed { crashes: 3, .. } => assert_eq!(*kills, 3, "{name}: {end:?}"),
            _ => panic!("{name} has neither ended well nor used up its budget: {end:?}"),
        }
    }
}

/// Waits for these; the end of each.
fn wait_for(socket: &Path, jobs: Vec<JobId>) -> BTreeMap<JobId, JobEnded> {
    let (mut wire, count) = (Wire::connect(socket), jobs.len());
    wire.socket.set_read_timeout(Some(2 * DEADLINE)).unwrap();
    wire.ask(Request::Wait { jobs });
    let mut ends = BTreeMap::new();
    while ends.len() < count {
        let Reply::Ended(some) = wire.next_reply().expect("the daemon answers").reply else { continue };
        ends.extend(some.into_iter().map(|end| (end.job, end)));
    }
    ends
}

/// After a hundred crashes of every kind the daemon has what it had: descriptors, threads, children, files, shared pages.
/// When it has ended, nothing of it is left.
#[test]
fn nothing_is_left_behind() {
    let mut daemon = daemon();
    let mut wire = Wire::connect(&daemon.socket());
    let before = Inventory::at_rest(&daemon, &mut wire);
    let inputs: Vec<&str> =
        ["segv", "abort", "kill", "exit:3", "alloc", "panic"].into_iter().cycle().take(90).collect();
    for output in [OutputMode::Inline, OutputMode::Descriptor] {
        let policy = Policy { crashes_max: Some(1), output, ..Policy::default() };
        let ended = wire.run_submit(Submit { policy, ..submit("chaos", &inputs, true) });
        let crashed = ended.iter().filter(|end| matches!(end.outcome, Outcome::Crashed { .. })).count();
        assert_eq!(crashed, 75, "all but the panics crash: {ended:?}");
    }
    // A program that is killed with its worker leaves a process, a folder and a log.
    let script = "touch here; sleep 600 & kill -9 $PPID; sleep 600";
    let crashed = daemon.cli(&["run", "exec", "--crashes-max", "2", "--", "sh", "-c", script]);
    assert_eq!(crashed.status.code(), Some(i32::from(exit::CRASHED)));
    // Input, deaths and log of what crashed are kept until somebody forgets it.
    let all = Request::Jobs { state: None, walk: Walk::Up(JobId(0)), limit: 1000 };
    let Reply::Jobs { rows, .. } = wire.call(all) else { panic!("jobs are listed") };
    wire.call(Request::Forget { jobs: rows.iter().map(|row| row.job).collect() });
    await_peace(&daemon, ALL_WORKERS);
    before.await_again(&daemon);
    assert!(daemon.end("TERM").success());
    assert_eq!(daemon.leftovers(), Vec::<String>::new());
}

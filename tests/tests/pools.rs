//! Pools of workers in a real daemon: two programs side by side, a slow kind with one worker to itself, and a pool whose
//! workers never come up beside one that goes on.
//!
//! What a pool in trouble must leave alone is watched from outside: jobs of other pools end, events name none but it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use bulkhead_proto::client::view::{PoolHealth, Status, WorkerRow, WorkerState};
use bulkhead_tests::daemon::{Daemon, Setup, binary, eventually, new_folder, processes_under};
use bulkhead_tests::program_file::write_program;

fn config_of(workers: u16, config: String) -> Setup {
    Setup { workers, chaos: false, config, ..Setup::default() }
}

/// A pool of one worker, which runs a program that has the kind `square`.
fn with_squares(program: &Path) -> String {
    format!("[pools.own]\nworker_program = {program:?}\n[kinds.square]\nusage = \"N\"\npool = \"own\"\n")
}

fn status(daemon: &Daemon) -> Status {
    serde_json::from_str(&daemon.ok(&["status", "--json"])).expect("a status")
}

fn of_pool(daemon: &Daemon, name: &str) -> Vec<WorkerRow> {
    daemon.workers().into_iter().filter(|row| row.pool == name).collect()
}

fn health(daemon: &Daemon, name: &str) -> (PoolHealth, String) {
    let pools = status(daemon).pools;
    let pool = pools.into_iter().find(|pool| pool.name == name).expect("the pool is listed");
    (pool.health, pool.health_reason)
}

#[test]
fn two_worker_programs_stand_side_by_side() {
    let daemon = Daemon::start_with(&config_of(2, with_squares(&binary("examples/square"))));
    assert_eq!(daemon.ok(&["run", "square", "--each", "0", "1", "2", "3", "4"]), "0\n1\n4\n9\n16\n");
    assert_eq!(daemon.ok(&["run", "factorial", "5"]), "120\n");
    let ended = |pool| of_pool(&daemon, pool).iter().map(|row| row.ended).sum::<u64>();
    assert_eq!((ended("own"), ended("default")), (5, 1));
    eventually("both pools are whole", || {
        let sizes = [of_pool(&daemon, "default").len(), of_pool(&daemon, "own").len()];
        let idle = daemon.workers().iter().filter(|row| row.state == WorkerState::Idle).count();
        (sizes == [3, 2] && idle == 3).then_some(())
    });
    let lines = daemon.ok(&["status"]);
    assert!(lines.contains("pool      default: healthy, 2 slots, 0 busy, 1 spare, 0 waiting"), "{lines}");
    assert!(lines.contains("pool      own: healthy, 1 slot, 0 busy, 1 spare, 0 waiting"), "{lines}");
    assert!(daemon.ok(&["kinds"]).contains("pool own"));
    assert!(daemon.ok(&["workers"]).contains("POOL"));
}

#[test]
fn a_slow_kind_with_one_worker_starves_nobody_and_takes_no_other() {
    let config = "[pools.slow]\nworkers = 1\n[kinds.sleep]\npool = \"slow\"\n".to_owned();
    let daemon = Daemon::start_with(&config_of(2, config));
    let slow = daemon.ok(&["submit", "sleep", "--each", "3600000", "3600000", "3600000"]);
    let slow: Vec<&str> = slow.split_whitespace().collect();
    eventually("one of them runs", || {
        of_pool(&daemon, "slow").into_iter().find(|row| row.state == WorkerState::Busy)
    });
    // Two of them wait, and with them nobody else: these end while the default pool alone works.
    let numbers: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    let mut words = vec!["run", "noop", "--each"];
    words.extend(numbers.iter().map(String::as_str));
    assert_eq!(daemon.ok(&words).lines().count(), 200);
    let pools = status(&daemon).pools;
    let seen: Vec<_> = pools.iter().map(|pool| (pool.name.as_str(), pool.busy, pool.waiting)).collect();
    assert_eq!(seen, [("default", 0, 0), ("slow", 1, 2)], "idle workers of the default pool are not theirs");
    let why = daemon.ok(&["why", slow[2]]);
    assert!(why.contains("Its kind has workers of its own, pool slow."), "{why}");
    assert!(why.contains("The only worker is busy: worker"), "{why}");
    assert!(why.contains(&format!("has run job {} for", slow[0])), "{why}");
    // The end of the first makes room for the second, in the same pool.
    daemon.ok(&["cancel", slow[0]]);
    eventually("the second one runs", || {
        let busy = of_pool(&daemon, "slow").into_iter().find(|row| row.state == WorkerState::Busy)?;
        (busy.job.map(|job| job.to_string()).as_deref() == Some(slow[1])).then_some(())
    });
}

/// The program of one pool ends at once, again and again, until it is exchanged.
#[test]
fn a_pool_that_never_comes_up_is_degraded_by_itself() {
    let folder = new_folder();
    let program = folder.path().join("own-worker");
    write_program(&program, "#!/bin/sh\nexit 3\n", 0o755);
    let config = format!("backoff_max_ms = 200\n{}", with_squares(&program));
    let daemon = Daemon::start_in(folder, &config_of(2, config));
    let job = daemon.ok(&["submit", "square", "12"]);
    let reason = eventually("its pool is degraded", || {
        let (health, reason) = health(&daemon, "own");
        (health == PoolHealth::Degraded).then_some(reason)
    });
    assert!(reason.contains("exit code 3"), "{reason}");
    assert_eq!(daemon.ok(&["run", "factorial", "--each", "3", "4", "5"]), "6\n24\n120\n");
    assert_eq!(health(&daemon, "default"), (PoolHealth::Healthy, String::new()));
    let whole = status(&daemon);
    assert_eq!(whole.health, PoolHealth::Degraded);
    assert!(whole.health_reason.starts_with("pool own: "), "{}", whole.health_reason);
    let degraded = daemon.events_named("degraded");
    assert!(!degraded.is_empty() && degraded.iter().all(|event| event["pool"] == "own"), "{degraded:?}");
    let why = daemon.ok(&["why", job.trim()]);
    assert!(why.contains("pool own.") && why.contains("No worker is up"), "{why}");
    let good = daemon.folder().join("good-worker");
    symlink(binary("examples/square"), &good).expect("a link");
    fs::rename(&good, &program).expect("the program is exchanged in one step");
    assert_eq!(daemon.ok(&["wait", job.trim()]).lines().count(), 1);
    assert_eq!(daemon.ok(&["result", job.trim()]), "144");
    eventually("its pool is healthy again", || {
        (health(&daemon, "own").0 == PoolHealth::Healthy).then_some(())
    });
}

#[test]
fn workers_that_are_killed_again_and_again_in_one_pool_leave_the_other_untouched() {
    let config =
        format!("restart_intensity = 2\nbackoff_max_ms = 200\n{}", with_squares(&binary("examples/square")));
    let daemon = Daemon::start_with(&config_of(2, config));
    let before: Vec<_> = eventually("the default pool is whole", || {
        let rows = of_pool(&daemon, "default");
        let is_up = |row: &WorkerRow| matches!(row.state, WorkerState::Idle | WorkerState::Spare);
        (rows.len() == 3 && rows.iter().all(is_up)).then(|| rows.iter().map(|row| row.worker).collect())
    });
    // Each once: a killed worker is listed until its death is noticed, and may be reaped before a second signal.
    let mut killed = BTreeSet::new();
    eventually("its pool is degraded", || {
        for pid in of_pool(&daemon, "own").iter().filter_map(|row| row.pid).filter(|pid| killed.insert(*pid))
        {
            bulkhead_tests::daemon::send_signal(pid, "KILL");
        }
        (health(&daemon, "own").0 == PoolHealth::Degraded).then_some(())
    });
    assert_eq!(daemon.ok(&["run", "factorial", "5"]), "120\n");
    let after: Vec<_> = of_pool(&daemon, "default").iter().map(|row| row.worker).collect();
    assert_eq!(after, before, "the same workers as before");
    assert_eq!(daemon.ok(&["run", "square", "5"]), "25\n", "it comes up again");
}

/// `kill -9` of the daemon while each of its pools works: no worker of any is left, and the next daemon has all of them.
#[test]
fn a_killed_daemon_leaves_no_worker_of_any_pool() {
    let slow = "[pools.slow]\n[kinds.sleep]\npool = \"slow\"\n";
    let setup =
        Setup { chaos: true, ..config_of(1, format!("{}{slow}", with_squares(&binary("examples/square")))) };
    let mut daemon = Daemon::start_with(&setup);
    daemon.ok(&["submit", "chaos", "loop"]);
    daemon.ok(&["submit", "sleep", "3600000"]);
    let pids: Vec<u32> = eventually("two pools work, the third stands ready", || {
        let rows = daemon.workers();
        let busy: BTreeSet<_> =
            rows.iter().filter(|row| row.state == WorkerState::Busy).map(|row| row.pool.as_str()).collect();
        (rows.len() == 6 && busy == BTreeSet::from(["default", "slow"]))
            .then(|| rows.iter().filter_map(|row| row.pid).collect())
    });
    assert_eq!(pids.len(), 6);
    daemon.end("KILL");
    eventually("all of them are gone", || {
        // A zombie that nobody has buried yet has no command line.
        let lives = |pid: &u32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty());
        (!pids.iter().any(lives) && processes_under(daemon.folder()).is_empty()).then_some(())
    });
    daemon.start_again(&setup);
    assert_eq!(daemon.ok(&["run", "square", "7"]), "49\n");
    assert_eq!(daemon.ok(&["run", "sleep", "0"]), "\n");
    assert_eq!(daemon.ok(&["run", "factorial", "5"]), "120\n");
    assert!(daemon.end("TERM").success());
    assert_eq!(daemon.leftovers(), Vec::<String>::new());
}

/// A crash costs a cold start, and the job's next attempt runs alone in the worker that takes the slot.
#[test]
fn a_pool_without_a_spare_starts_a_worker_when_one_has_died() {
    let daemon = Daemon::start_with(&Setup { chaos: true, ..config_of(1, "spares = 0\n".to_owned()) });
    assert_eq!(daemon.ok(&["run", "factorial", "5"]), "120\n");
    assert_eq!(daemon.workers().len(), 1, "no worker stands by");
    let output = daemon.cli(&["run", "chaos", "segv"]);
    assert!(!output.status.success());
    assert_eq!(daemon.ok(&["run", "factorial", "4"]), "24\n");
    let placed = daemon.events_named("placed");
    assert!(placed.iter().skip(1).all(|event| event["warm"] == false), "{placed:?}");
    eventually("one worker is idle, and none beside it", || {
        let rows = daemon.workers();
        (rows.len() == 1 && rows[0].state == WorkerState::Idle).then_some(())
    });
    let lines = daemon.ok(&["status"]);
    assert!(lines.contains("1 slot, 0 spares"), "{lines}");
}

#[test]
fn a_pool_without_its_program_is_named_before_anything_starts() {
    let folder = new_folder();
    let config = folder.path().join("bulkhead.toml");
    fs::write(&config, with_squares(Path::new("/nowhere/worker"))).expect("a config file");
    let output = std::process::Command::new(binary("bulkhead-supervisor"))
        .arg("--check-config")
        .arg(&config)
        .output()
        .expect("it says what is wrong");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("no worker program at /nowhere/worker") && said.contains("pools.own.worker_program"),
        "{said}"
    );
}

//! Descriptors and processes run out under a running daemon: what runs goes on, what is new waits or is refused by name,
//! and all is well when there are some again.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::chown;

use bulkhead_proto::client::frame::Hello;
use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::places;
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::view::WorkerState;
use bulkhead_proto::job::OutputMode;
use bulkhead_tests::daemon::{Daemon, Setup, binary, eventually, new_folder, send_signal};
use bulkhead_tests::or_skip;
use bulkhead_tests::program_file::copy_program;
use bulkhead_tests::shortage::{Witness, limit, possible, restore};
use bulkhead_tests::wire::{Wire, submit};

/// A user whom nothing else on the machine runs as, most likely.
const STRANGER: u32 = 61_807;

/// Not one descriptor more: no client, no worker, no output, not even a look for what the dead left behind.
#[test]
fn without_descriptors_what_runs_goes_on_and_the_rest_waits() {
    let daemon = Daemon::start();
    or_skip!(possible(&["prlimit", "--version"]));
    let mut witness = Witness::begin(&daemon);
    let mut runner = Wire::connect(&daemon.socket());
    limit(&daemon, "nofile", "3");
    let mut late = Wire::silent(&daemon.socket());
    late.send(&Hello::new(0).to_bytes());
    let mut large = submit("factorial", &["3000"], true);
    large.policy.output = OutputMode::Descriptor;
    let tag = runner.ask(Request::Submit(large));
    let shortage = eventually("it says what is short", || {
        let shortage = witness.wire.status().shortage;
        (!shortage.is_empty()).then_some(shortage)
    });
    assert!(shortage.contains("the limit of open files is 3: raise it"), "{shortage}");
    assert_eq!(witness.wire.run("noop", &["small ones run"])[0].outcome, Outcome::Done);
    witness.kill_the_others();
    eventually("it says that no death can be proven", || {
        daemon.log().contains("no death is proven").then_some(())
    });
    witness.assert_job_runs();
    limit(&daemon, "nofile", "1000");
    assert_eq!(late.hello().verdict, Hello::WELCOME, "who waited at the door is let in");
    loop {
        let frame = runner.next_reply().expect("the daemon answers");
        match frame.reply {
            Reply::Ended(ended) if frame.tag == tag => break assert_eq!(ended[0].outcome, Outcome::Done),
            _ => {}
        }
    }
    assert!(
        runner.notices.iter().any(|text| text.contains("jobs with large results wait")),
        "{:?}",
        runner.notices
    );
    assert!(witness.wire.records().iter().any(|record| matches!(record.what, What::Short { .. })));
    witness.await_recovery();
    for text in ["cannot accept connections for now", "no death is proven"] {
        assert_eq!(daemon.log().matches(text).count(), 1, "{text} is said once");
    }
}

/// A worker dies under its job while no death can be proven: the job is retried once it can be, and charged once.
#[test]
fn a_death_without_descriptors_is_proven_when_there_are_some() {
    let daemon = Daemon::start();
    or_skip!(possible(&["prlimit", "--version"]));
    let mut witness = Witness::begin(&daemon);
    let job = witness.wire.submit("sleep", &["600000"]);
    let victim =
        eventually("it runs", || witness.wire.workers().into_iter().find(|row| row.job == Some(job)));
    limit(&daemon, "nofile", "3");
    send_signal(victim.pid.expect("it runs"), "KILL");
    eventually("it says that no death can be proven", || {
        daemon.log().contains("no death is proven").then_some(())
    });
    assert_eq!(witness.wire.job(job).deaths.len(), 0, "nothing is charged before the proof");
    limit(&daemon, "nofile", "1000");
    let detail = eventually("it is retried", || {
        let detail = witness.wire.job(job);
        (detail.row.attempts == 2).then_some(detail)
    });
    assert_eq!((detail.row.crashes, detail.deaths.len()), (1, 1));
    witness.wire.call(Request::Cancel { jobs: vec![job] });
    witness.await_recovery();
}

/// Descriptors for one step of a bootstrap, but not for the next: wherever it fails, nothing of it is left. Workers are
/// kept from being tried by a program that is not there until the limit is set.
#[test]
fn no_step_of_a_bootstrap_leaves_anything_behind_without_descriptors() {
    or_skip!(possible(&["prlimit", "--version"]));
    let folder = new_folder();
    let program = folder.path().join("worker");
    restore(&program);
    let config = format!("worker_program = {program:?}\nbackoff_max_ms = 200\n");
    let daemon = Daemon::start_in(folder, &Setup { config, ..Setup::default() });
    let mut witness = Witness::begin(&daemon);
    let open = || -> BTreeSet<u32> {
        let folder = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("root may look");
        folder.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
    };
    let before = open().len();
    for free in 0..12 {
        std::fs::remove_file(&program).expect("it is there");
        witness.kill_the_others();
        let tries = witness.failed_spawns().len();
        eventually("it was tried in vain", || (witness.failed_spawns().len() > tries + 1).then_some(()));
        // The limit is one on numbers: below this one so many are free.
        let numbers = open();
        let soft = (3..).filter(|number| !numbers.contains(number)).nth(free).expect("numbers go on");
        limit(&daemon, "nofile", &soft.to_string());
        restore(&program);
        let tries = witness.failed_spawns().len();
        eventually("it is tried again", || {
            (witness.failed_spawns().len() > tries + 1 || witness.is_whole(0)).then_some(())
        });
        limit(&daemon, "nofile", "1000");
        eventually("all are up", || witness.is_whole(0).then_some(()));
        assert_eq!(witness.wire.run("noop", &["on"])[0].outcome, Outcome::Done);
    }
    let failures: BTreeSet<String> = witness.failed_spawns().into_iter().collect();
    println!("failures seen: {failures:#?}");
    // Which of the steps is met at which limit depends on how many workers come up together.
    let is_met = |text: &&String| text.contains("Too many open files");
    assert!(failures.iter().filter(is_met).count() > 1, "the limits were too high: {failures:#?}");
    witness.await_recovery();
    eventually("as many descriptors are open as before", || (open().len() == before).then_some(()));
    // A folder that could not be opened for want of a descriptor is removed with the next spawn, in a thread.
    eventually("only the living have folders", || {
        let boot = std::fs::read_dir(places::boot_folder(&daemon.socket())).expect("it is there");
        (boot.count() == 3).then_some(())
    });
}

/// A daemon that runs as [`STRANGER`], with programs where that user can reach them.
fn strangers_daemon() -> Daemon {
    let folder = new_folder();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("permissions");
    for name in ["bulkhead-supervisor", "bulkhead-worker"] {
        copy_program(&binary(name), &folder.path().join(name));
    }
    chown(folder.path(), Some(STRANGER), Some(STRANGER)).expect("root gives it away");
    let user = [format!("--reuid={STRANGER}"), format!("--regid={STRANGER}")];
    let through = ["setpriv".to_owned(), "--clear-groups".to_owned()].into_iter().chain(user).collect();
    let programs = folder.path().to_owned();
    Daemon::start_in(folder, &Setup { through, programs, ..Setup::default() })
}

#[test]
fn without_processes_what_runs_goes_on_and_workers_are_tried_with_pauses() {
    or_skip!(possible(&["setpriv", "--reuid=61807", "--regid=61807", "--clear-groups", "true"]));
    let daemon = strangers_daemon();
    let mut witness = Witness::begin(&daemon);
    limit(&daemon, "nproc", "1");
    witness.kill_the_others();
    witness.await_degraded(&["a limit of processes is met, 1 for this user"]);
    witness.assert_job_runs();
    witness.assert_no_storm();
    limit(&daemon, "nproc", "1000");
    witness.await_recovery();
}

/// Enough for a worker, but not for the thread that connects to it.
#[test]
fn without_threads_no_worker_comes_up_and_nothing_is_left_of_those_that_tried() {
    or_skip!(possible(&["setpriv", "--reuid=61807", "--regid=61807", "--clear-groups", "true"]));
    let daemon = strangers_daemon();
    let mut witness = Witness::begin(&daemon);
    // Loop, spawner, log writer, and all three workers: none is left for a thread beside them.
    limit(&daemon, "nproc", "6");
    let spare = daemon.await_worker(WorkerState::Spare);
    send_signal(spare.pid.expect("it is up"), "KILL");
    witness.await_degraded(&["no thread to connect to it", "a limit of processes is met, 6"]);
    witness.assert_job_runs();
    witness.assert_no_storm();
    limit(&daemon, "nproc", "1000");
    witness.await_recovery();
    let boot = places::boot_folder(&daemon.socket());
    let folders = || std::fs::read_dir(&boot).expect("it is there").count();
    send_signal(daemon.await_worker(WorkerState::Spare).pid.expect("it is up"), "KILL");
    eventually("only the living have folders", || (folders() == 3).then_some(()));
}

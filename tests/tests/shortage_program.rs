//! A worker program that vanished, cannot be run, ends at once or hangs: what runs goes on, the pool says what is wrong
//! with which file, whoever waits is told, and all is well when the program is there again.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::view::PoolHealth;
use bulkhead_tests::daemon::{Daemon, Setup, eventually, new_folder};
use bulkhead_tests::program_file::write_program;
use bulkhead_tests::shortage::{Witness, restore};
use bulkhead_tests::wire::Wire;
use tempfile::TempDir;

/// Puts another file in the place of the worker program, at once.
fn exchange(program: &Path, text: &str, mode: u32) {
    let other = program.with_extension("new");
    write_program(&other, text, mode);
    std::fs::rename(&other, program).expect("it is put in place");
}

/// A daemon of two workers whose program stands where the test can exchange it.
fn daemon(folder: TempDir) -> Daemon {
    let config = format!("worker_program = {:?}\n", folder.path().join("worker"));
    Daemon::start_in(folder, &Setup { config, ..Setup::default() })
}

/// A `bulkhead run` that waits, and what it has said by then.
fn waiting_run(daemon: &Daemon, parts: &[&str]) -> (Child, String) {
    let mut command = daemon.command(&["run", "noop", "patience"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut line = String::new();
    BufReader::new(child.stderr.take().expect("a pipe")).read_line(&mut line).expect("it says something");
    assert!(parts.iter().all(|part| line.contains(part)), "{parts:?} are not in {line:?}");
    (child, line)
}

/// Each fault, and what is said of it beside the path.
const FAULTS: [(&str, &str, u32, &str); 4] = [
    ("vanished", "", 0, "No such file"),
    ("is not executable", "#!/bin/sh\n", 0o644, "Permission denied"),
    ("is no program", "nonsense", 0o755, "Exec format error"),
    ("ends at once", "#!/bin/sh\nexit 3\n", 0o755, "exit code 3"),
];

#[test]
fn a_bad_program_stops_no_running_job_and_is_named_until_it_is_good_again() {
    for (fault, text, mode, said) in FAULTS {
        println!("the program {fault}");
        let folder = new_folder();
        let program = folder.path().join("worker");
        restore(&program);
        let daemon = daemon(folder);
        let mut witness = Witness::begin(&daemon);
        match mode {
            0 => std::fs::remove_file(&program).expect("it is there"),
            _ => exchange(&program, text, mode),
        }
        witness.kill_the_others();
        let reason = witness.await_degraded(&[said]);
        assert!(mode == 0o755 || reason.contains(&program.display().to_string()), "{reason}");
        let (mut run, line) = waiting_run(&daemon, &[said]);
        assert!(line.contains("1 of 2 workers"), "{line}");
        witness.assert_job_runs();
        witness.assert_no_storm();
        restore(&program);
        assert!(run.wait().expect("it ends").success(), "the waiting job was run");
        witness.await_recovery();
    }
}

/// From the start: the daemon comes up, says that nothing runs, and heals without a restart.
#[test]
fn a_daemon_whose_program_is_bad_from_the_start_says_so_and_heals() {
    let folder = new_folder();
    let program = folder.path().join("worker");
    exchange(&program, "#!/bin/sh\nexit 3\n", 0o755);
    let daemon = daemon(folder);
    let (mut run, _) = waiting_run(&daemon, &["nothing runs", "exit code 3"]);
    let mut wire = Wire::connect(&daemon.socket());
    assert_eq!(wire.status().health, PoolHealth::Degraded);
    restore(&program);
    assert!(run.wait().expect("it ends").success());
    eventually("it is healthy", || (wire.status().health == PoolHealth::Healthy).then_some(()));
    assert_eq!(wire.run("noop", &["on"])[0].outcome, Outcome::Done);
}

/// A program that hangs is given its time, and too few of them in that time to exceed the restart intensity.
#[test]
fn a_program_that_hangs_is_killed_and_named() {
    let folder = new_folder();
    let program = folder.path().join("worker");
    restore(&program);
    let daemon = daemon(folder);
    let mut witness = Witness::begin(&daemon);
    exchange(&program, "#!/bin/sh\nexec sleep 86400\n", 0o755);
    witness.kill_the_others();
    witness.await_degraded(&["did not come up within 10000 ms"]);
    witness.assert_job_runs();
    witness.assert_no_storm();
    restore(&program);
    witness.await_recovery();
}

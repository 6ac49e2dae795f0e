//! Where standard output and standard error of worker programs go, in real daemons: /dev/null, the daemon's standard error, or
//! a descriptor that the private parent passed.
//!
//! The worker program is a shell that says something and then becomes a worker. The daemon is started through a shell, which
//! opens the descriptors that it passes. Nobody reads the pipes that are to be full.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;

use bulkhead_tests::daemon::{Daemon, Setup, binary, eventually, new_folder};

/// A daemon of one worker whose program says this first, started through a shell that redirects and adds flags.
fn setup(script: &str, keys: &str, tail: &str) -> Setup {
    let script = format!("{script}; exec {}", binary("examples/square").display());
    let config = format!(
        "builtin_kinds = false\nspares = 1\nworker_program = \"/bin/sh\"\nworker_args = [\"-c\", {script:?}]\n{keys}\n\
         [kinds.square]\n"
    );
    let through = ["sh".to_owned(), "-c".to_owned(), format!("exec \"$0\" \"$@\" {tail}")].to_vec();
    Setup { workers: 1, chaos: false, config, through, ..Setup::default() }
}

const SAYS: &str = "echo to-out; echo to-err >&2";

#[test]
fn output_is_lost_and_errors_go_to_the_daemons_unless_the_config_says_otherwise() {
    for (keys, has_out, has_err) in [
        ("", false, true),
        ("worker_stdout = \"stderr\"", true, true),
        ("worker_stderr = \"null\"", false, false),
        ("worker_stdout = \"null\"\nworker_stderr = \"stderr\"", false, true),
    ] {
        let daemon = Daemon::start_with(&setup(SAYS, keys, ""));
        assert_eq!(daemon.ok(&["run", "square", "3"]), "9\n");
        let log = daemon.log();
        let said = (log.contains("to-out\n"), log.contains("to-err\n"));
        assert_eq!(said, (has_out, has_err), "{keys}: {log}");
    }
}

#[test]
fn a_descriptor_of_the_parent_is_the_workers_own() {
    let folder = new_folder();
    let [out, err] = ["out", "err"].map(|name| folder.path().join(name));
    let tail = format!("--worker-stdout-fd 7 --worker-stderr-fd 8 7>{} 8>{}", out.display(), err.display());
    // The options go before the keys.
    let daemon = Daemon::start_in(folder, &setup(SAYS, "worker_stdout = \"stderr\"", &tail));
    assert_eq!(daemon.ok(&["run", "square", "3"]), "9\n");
    eventually("worker and spare have said it, one behind the other", || {
        let read = |path: &Path| fs::read_to_string(path).expect("a file");
        (read(&out) == "to-out\n".repeat(2) && read(&err).matches("to-err\n").count() == 2).then_some(())
    });
    assert!(!daemon.log().contains("to-out") && !daemon.log().contains("to-err"), "{}", daemon.log());
}

/// A FIFO that this test holds open.
fn fifo(path: &Path) -> File {
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo runs").success());
    // Open for both, so that the open waits for nobody and the pipe has a reader that does not read.
    let nonblocking = 0o4000;
    File::options().read(true).write(true).custom_flags(nonblocking).open(path).expect("a fifo")
}

/// The worker writes more than the pipe holds before it comes up, and one byte is read at a time.
#[test]
fn a_worker_waits_for_the_reader_of_its_output_and_the_daemon_does_not() {
    let folder = new_folder();
    let path = folder.path().join("pipe");
    let mut pipe = fifo(&path);
    let floods = "if test -e \"$FLOOD\"; then head -c 3000000 /dev/zero; fi";
    let flag = folder.path().join("flood");
    let keys = format!("worker_env = {{ FLOOD = {flag:?} }}\nrestart_intensity = 1000");
    let tail = format!("--worker-stdout-fd 7 7<>{}", path.display());
    let daemon = Daemon::start_in(folder, &setup(floods, &keys, &tail));
    assert_eq!(daemon.ok(&["run", "square", "3"]), "9\n");
    fs::write(&flag, "").expect("a flag");
    let before: Vec<_> = eventually("worker and spare are up", || {
        let rows = daemon.workers();
        (rows.len() == 2 && rows.iter().all(|row| row.pid.is_some())).then_some(rows)
    });
    before.iter().for_each(|row| bulkhead_tests::daemon::send_signal(row.pid.expect("a pid"), "KILL"));
    let job = daemon.ok(&["submit", "square", "12"]);
    let why = eventually("new workers are starting", || {
        let why = daemon.ok(&["why", job.trim()]);
        why.contains("starting").then_some(why)
    });
    assert!(why.contains("No worker is up"), "{why}");
    // Somebody reads.
    let mut read = 0;
    eventually("its output is read and the job has ended", || {
        let mut bytes = [0; 65536];
        while let Ok(count @ 1..) = pipe.read(&mut bytes) {
            read += count;
        }
        let output = daemon.cli(&["result", job.trim()]);
        (read >= 3_000_000 && output.status.success()).then_some(())
    });
    assert_eq!(daemon.ok(&["result", job.trim()]), "144");
}

/// Workers and the daemon share its standard error, which nobody reads: the log stands still, and nothing else does.
#[test]
fn a_standard_error_that_nobody_reads_holds_up_no_daemon() {
    let folder = new_folder();
    let path = folder.path().join("pipe");
    let _pipe = fifo(&path);
    let floods = "(yes flood >&2 &)";
    let tail = format!("2<>{}", path.display());
    let daemon = Daemon::start_in(folder, &setup(floods, "worker_stdout = \"stderr\"", &tail));
    let resident = || {
        let status = fs::read_to_string(format!("/proc/{}/statm", daemon.pid())).expect("it runs");
        status.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("pages")
    };
    assert_eq!(daemon.ok(&["run", "square", "1"]), "1\n");
    let before = resident();
    for number in 2..100_u64 {
        assert_eq!(daemon.ok(&["run", "square", &number.to_string()]), format!("{}\n", number * number));
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 2048, "{grown} pages more after a flood that nobody read");
}

#[test]
fn a_descriptor_that_is_not_fit_is_named() {
    let folder = new_folder();
    let config = folder.path().join("own.toml");
    fs::write(&config, "workers = 1\n").expect("a config file");
    let check = |flags: &str, redirect: &str| {
        let line = format!("exec \"$0\" --check-config \"$1\" {flags} {redirect}");
        let mut shell = Command::new("sh");
        shell.args(["-c", &line]).arg(binary("bulkhead-supervisor")).arg(&config);
        let output = shell.output().expect("it says so");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(check("--private --worker-stdout-fd 7", "7>/dev/null").0, Some(0));
    for (flags, redirect, parts) in [
        ("--private --worker-stdout-fd 77", "", ["--worker-stdout-fd 77", "Bad file descriptor"]),
        ("--private --worker-stderr-fd 7", "7</dev/null", ["--worker-stderr-fd 7", "not open for writing"]),
        ("--private --worker-stdout-fd 1", "", ["--worker-stdout-fd 1", "a standard stream"]),
    ] {
        let (code, said) = check(flags, redirect);
        assert!(code == Some(1) && parts.iter().all(|part| said.contains(part)), "{flags}: {code:?} {said}");
    }
    let (code, said) = check("--worker-stdout-fd 7", "7>/dev/null");
    assert!(code == Some(2) && said.contains("--private"), "{code:?} {said}");
}

//! What a daemon, its workers and the command make of the signals that their parent blocked or ignored, and of a limit of
//! file size.

use std::process::{Command, Stdio};

use bulkhead_tests::daemon::{Daemon, Setup, binary, send_signal};
use bulkhead_tests::skip;

// Linux signal numbers (signal(7), x86 and ARM).
const HUP: u32 = 1;
const INT: u32 = 2;
const QUIT: u32 = 3;
/// Signals that every worker ignores: PIPE, by the Rust runtime, and 32 and 33, which the C library keeps for itself.
const NOT_INHERITED: u64 = 1 << 12 | 0b11 << 31;

/// A daemon that env(1) starts with these options; `None` if this env has no such options (coreutils before 8.31).
fn started_through(options: &[&str]) -> Option<Daemon> {
    let through: Vec<String> = [&["env"], options].concat().into_iter().map(str::to_owned).collect();
    let known =
        Command::new("env").args(options).arg("true").output().is_ok_and(|done| done.status.success());
    known.then(|| Daemon::start_with(&Setup { through, ..Setup::default() }))
}

/// A line of /proc/PID/status that is a set of signals.
fn signal_set(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel shows it");
    u64::from_str_radix(line.trim_start_matches(':').trim(), 16).expect("a set of signals")
}

/// The processes of the daemon's workers.
fn workers(daemon: &Daemon) -> Vec<u32> {
    daemon.workers().into_iter().filter_map(|worker| worker.pid).collect()
}

fn bit(signal: u32) -> u64 {
    1 << (signal - 1)
}

/// All that can be blocked, and CHLD ignored, without which the kernel keeps no exit status of a worker.
#[test]
fn a_daemon_that_was_started_with_all_signals_blocked_hears_them() {
    let Some(mut daemon) = started_through(&["--block-signal", "--ignore-signal=CHLD"]) else {
        skip!("env cannot block signals");
    };
    for worker in workers(&daemon) {
        assert_eq!((signal_set(worker, "SigBlk"), signal_set(worker, "SigIgn") & !NOT_INHERITED), (0, 0));
    }
    let crashed = daemon.cli(&["run", "chaos", "segv"]);
    assert_eq!(crashed.status.code(), Some(125), "{}", String::from_utf8_lossy(&crashed.stderr));
    // timeout(1) ends its command by TERM and leaves with 124. If TERM were blocked in both, sleep's own code came, 0.
    let limited = daemon.cli(&["run", "exec", "--", "timeout", "1", "sleep", "8"]);
    assert_eq!(limited.status.code(), Some(124), "{}", String::from_utf8_lossy(&limited.stderr));
    assert_eq!(signal_set(daemon.pid(), "SigBlk"), 0);
    assert!(daemon.end("TERM").success());
}

#[test]
fn a_signal_that_was_ignored_for_the_daemon_stays_so_and_its_workers_do_not_inherit_that() {
    let Some(daemon) = started_through(&["--ignore-signal=HUP,INT,QUIT"]) else {
        skip!("env cannot ignore signals");
    };
    let all = bit(HUP) | bit(INT) | bit(QUIT);
    assert_eq!(signal_set(daemon.pid(), "SigIgn") & all, all);
    for worker in workers(&daemon) {
        assert_eq!(signal_set(worker, "SigIgn") & all, 0, "worker {}", worker);
    }
    let told = "stay so, SIGTERM and `bulkhead drain` stop the daemon signals=SIGINT,SIGHUP\n";
    assert_eq!(daemon.log().matches(told).count(), 1, "{}", daemon.log());
    assert!(!Daemon::start().log().contains("signals="), "of one that ignores none nothing is said");
    for signal in ["HUP", "INT", "QUIT"] {
        send_signal(daemon.pid(), signal);
    }
    assert!(daemon.ok(&["run", "noop", "on"]).contains("on"));
}

/// As a shell's `&` starts it, and `nohup`. It is stopped by TERM.
#[test]
fn a_command_in_the_background_ignores_ctrl_c() {
    let Some(daemon) = started_through(&["--ignore-signal=INT"]) else {
        skip!("env cannot ignore signals");
    };
    let mut command = Command::new("env");
    command.arg("--ignore-signal=INT,HUP").arg("--block-signal").arg(binary("bulkhead"));
    command.arg("--socket").arg(daemon.socket()).args(["run", "sleep", "600000"]);
    let mut run = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("it starts");
    daemon.await_worker(bulkhead_proto::client::view::WorkerState::Busy);
    let (ignored, blocked) = (signal_set(run.id(), "SigIgn"), signal_set(run.id(), "SigBlk"));
    let kept = bit(INT) | bit(HUP);
    if (ignored & kept, blocked) != (kept, 0) {
        run.kill().expect("it is ours");
        panic!("ignored {ignored:x}, blocked {blocked:x}");
    }
    send_signal(run.id(), "TERM");
    assert_eq!(run.wait().expect("it ends").code(), Some(130));
}

/// XFSZ would end both by default, without a word.
#[test]
fn the_limit_of_file_size_is_named() {
    let daemon = Daemon::start();
    let folder = tempfile::tempdir().expect("a folder");
    let limited = |program: &str, arguments: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -f 8; exec \"$0\" \"$@\""]).arg(binary(program)).args(arguments);
        command.stdin(Stdio::null());
        command
    };
    let socket = daemon.socket();
    let run =
        ["--socket", socket.to_str().expect("text"), "run", "exec", "--", "head", "-c", "20000", "/dev/zero"];
    let out = std::fs::File::create(folder.path().join("out")).expect("a file");
    let output = limited("bulkhead", &run).stdout(out).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the limit of file size is ") && said.contains("ulimit -f"), "{said}");

    // A daemon that cannot make a worker's pages lives on and says why.
    let own = folder.path().join("s");
    let own = own.to_str().expect("text");
    let state = folder.path().join("state");
    let arguments =
        ["--private", "--workers", "1", "--socket", own, "--state", state.to_str().expect("text")];
    let log = std::fs::File::create(folder.path().join("log")).expect("a file");
    let mut small = limited("bulkhead-supervisor", &arguments);
    let mut small = small.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).spawn().expect("it starts");
    let status =
        || Command::new(binary("bulkhead")).args(["--socket", own, "status"]).output().expect("it runs");
    bulkhead_tests::daemon::eventually("the daemon names the limit", || {
        String::from_utf8_lossy(&status().stdout).contains("the limit of file size is ").then_some(())
    });
    drop(small.stdin.take());
    assert!(small.wait().expect("it ends").success());
}

//! What the daemon does with the system: nothing while it is idle, and a known number of calls for a job.

use std::process::{Command, Stdio};
use std::time::Duration;

use bulkhead_proto::client::view::WorkerState;
use bulkhead_tests::daemon::{Daemon, Setup, eventually, new_folder, send_signal};
use bulkhead_tests::wire::Wire;

/// Traces all threads of `pids` while `during` runs; a line for each system call, whole or begun.
fn trace(daemon: &Daemon, pids: &[u32], during: impl FnOnce()) -> Vec<String> {
    let log = daemon.folder().join("strace");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(&log);
    for pid in pids {
        command.arg("-p").arg(pid.to_string());
    }
    let mut tracer = command.stdin(Stdio::null()).spawn().expect("strace is installed by the set-up");
    let traced = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
    };
    eventually("all are traced", || pids.iter().all(traced).then_some(()));
    during();
    let seen = std::fs::read_to_string(&log).unwrap_or_default();
    send_signal(tracer.id(), "INT");
    tracer.wait().expect("strace ends");
    seen.lines().map(str::to_owned).collect()
}

/// A thread that sleeps in a call when the trace begins shows that one call as begun, and never its end.
fn is_ended(line: &str) -> bool {
    line.contains(" = ")
}

/// The name of the call: `pid name(arguments) = result`, or `pid <... name resumed> = result`.
fn call_of(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace().skip(1);
    match words.next()? {
        "<..." => words.next(),
        call => call.split_once('(').map(|(name, _)| name),
    }
}

/// The supervisor's process and those of its workers, once all are up.
fn all_pids(daemon: &Daemon) -> Vec<u32> {
    daemon.await_worker(WorkerState::Spare);
    let mut pids: Vec<u32> = daemon.workers().iter().filter_map(|row| row.pid).collect();
    pids.push(daemon.pid());
    assert_eq!(pids.len(), 4, "two workers, a spare and the supervisor");
    pids
}

/// The calls that end within this span.
fn calls_within(daemon: &Daemon, pids: &[u32], span: Duration) -> Vec<String> {
    let calls = trace(daemon, pids, || std::thread::sleep(span));
    calls.into_iter().filter(|line| is_ended(line)).collect()
}

#[test]
fn an_idle_daemon_makes_no_system_call() {
    let daemon = Daemon::start();
    let mut wire = Wire::connect(&daemon.socket());
    assert_eq!(wire.run("noop", &["warm"]).len(), 1);
    let pids = all_pids(&daemon);
    // This is the span that is promised to be quiet, not a wait for anything.
    let ended = calls_within(&daemon, &pids, Duration::from_secs(10));
    assert!(ended.is_empty(), "{} system calls:\n{}", ended.len(), ended.join("\n"));
    assert_eq!(wire.run("noop", &["awake"]).len(), 1, "and it still works");
}

/// Its writer looks for what is too old a second after a commit, and then not before the first job is.
#[test]
fn an_idle_daemon_with_ended_jobs_in_its_journal_makes_no_system_call() {
    let folder = new_folder();
    let config = format!("journal_folder = {:?}\n", folder.path().join("journal"));
    let daemon = Daemon::start_in(folder, &Setup { config, ..Setup::default() });
    let mut wire = Wire::connect(&daemon.socket());
    assert_eq!(wire.run_durable("noop", &["warm"]).len(), 1);
    let pids = all_pids(&daemon);
    eventually("it comes to rest", || {
        calls_within(&daemon, &pids, Duration::from_secs(2)).is_empty().then_some(())
    });
    let ended = calls_within(&daemon, &pids, Duration::from_secs(10));
    assert!(ended.is_empty(), "{} system calls:\n{}", ended.len(), ended.join("\n"));
    assert_eq!(wire.run_durable("noop", &["on"]).len(), 1, "and it still works");
}

/// The same trace sees the calls of a daemon that is asked something: the check above can fail.
#[test]
fn a_daemon_that_is_asked_something_is_seen_to_answer() {
    let daemon = Daemon::start();
    let socket = daemon.socket();
    let asking = std::thread::spawn(move || {
        let mut wire = Wire::connect(&socket);
        for _ in 0..20 {
            wire.run("sleep", &["100"]);
        }
    });
    let calls = trace(&daemon, &[daemon.pid()], || std::thread::sleep(Duration::from_secs(1)));
    assert!(calls.iter().any(|line| is_ended(line)), "nothing was seen of a busy daemon");
    asking.join().expect("it was answered");
}

/// For each job the loop wakes twice (request, doorbell), receives the request, reads the doorbell, and sends three messages (task,
/// `Accepted`, `Ended`). For some jobs it reads the worker's processor clock, and for some it spins instead of one sleep: then it yields, on a fast
/// machine twice, and a yield that is traced takes so long that it spins for no further job for 5 ms. `OTHERS` leaves room for calls about memory.
#[test]
fn a_single_job_costs_the_supervisor_seven_system_calls_and_a_clock() {
    const JOBS: usize = 200;
    const OTHERS: usize = 40;
    const OF_A_JOB: [(&str, usize); 6] = [
        ("epoll_wait", 2),
        ("recvmsg", 1),
        ("preadv2", 1),
        ("sendmsg", 3),
        ("clock_gettime", 1),
        ("sched_yield", 2),
    ];
    let daemon = Daemon::start();
    let mut wire = Wire::connect(&daemon.socket());
    assert_eq!(wire.run("noop", &["warm"]).len(), 1);
    daemon.await_worker(WorkerState::Spare);
    let calls = trace(&daemon, &[daemon.pid()], || {
        for _ in 0..JOBS {
            assert_eq!(wire.run("noop", &["one"]).len(), 1);
        }
    });
    let ended: Vec<_> = calls.iter().filter(|line| is_ended(line)).collect();
    assert!(ended.len() >= 4 * JOBS, "{} calls were seen of {JOBS} jobs", ended.len());
    let mut rest = ended.len();
    for (name, of_a_job) in OF_A_JOB {
        let count = ended.iter().filter(|line| call_of(line) == Some(name)).count();
        let shown = ended[..24].iter().map(|line| line.as_str()).collect::<Vec<_>>().join("\n");
        assert!(count <= of_a_job * JOBS + OTHERS, "{count} of {name} for {JOBS} jobs:\n{shown}");
        rest -= count;
    }
    assert!(rest <= OTHERS, "{rest} other calls for {JOBS} jobs");
}

//! Recovery: from `kill()` to the answer of the job that was hit, run again by a worker that had run nothing.
//!
//! The job tells its process on a socket and waits to be killed; its second attempt answers at once. A warm spare
//! stands ready before each kill, as it does in service. Beside it, the kernel's part: kill to pidfd of a bare child
//! of the same size. Not pinned.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bulkhead_client::{DaemonClient, JobInput, ReceivedOutput, RunOptions, Spec};
use bulkhead_proto::client::view::WorkerState;
use bulkhead_sys::pidfd::Process;
use bulkhead_tests::daemon::{Daemon, Setup, binary};

use crate::figures::{Aim, Figures, quantile_us};
use crate::layout;

const KILLS: usize = 1000;
const LARGE_KILLS: usize = 40;
const LARGE_MIB: usize = 512;

pub(crate) fn run(figures: &mut Figures) {
    let config = format!(
        "worker_program = {:?}\nrestart_intensity = 100000\n",
        binary("bench-worker").display().to_string()
    );
    let daemon = layout::daemon(&Setup { config, ..Setup::default() });
    let mut spans = kills(&daemon, KILLS, 0);
    figures.add("recovery_p50_ms", quantile_us(&mut spans, 500) / 1000.0, Aim::AtMost(0.6));
    figures.add("recovery_p99_ms", quantile_us(&mut spans, 990) / 1000.0, Aim::AtMost(2.0));
    let mut bare = bare_kills(KILLS);
    figures.add("recovery_bare_pidfd_p50_ms", quantile_us(&mut bare, 500) / 1000.0, Aim::None);
    let mut large = kills(&daemon, LARGE_KILLS, LARGE_MIB);
    figures.add("recovery_512mib_p50_ms", quantile_us(&mut large, 500) / 1000.0, Aim::None);
    figures.add("recovery_512mib_p99_ms", quantile_us(&mut large, 990) / 1000.0, Aim::None);
}

/// Kills the worker of so many jobs; the span of each.
fn kills(daemon: &Daemon, count: usize, mebibytes: usize) -> Vec<Duration> {
    let mut client = bulkhead_client::discovery::find(Some(&daemon.socket())).expect("the daemon listens");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("s");
    let listener = UnixDatagram::bind(&socket).expect("a socket");
    listener.set_read_timeout(Some(bulkhead_tests::daemon::DEADLINE)).expect("a deadline");
    (0..count)
        .map(|number| {
            await_spare(&mut client);
            kill_one(&mut client, &listener, &socket, &format!("{number} {mebibytes}"))
        })
        .collect()
}

fn kill_one(client: &mut DaemonClient, listener: &UnixDatagram, socket: &Path, words: &str) -> Duration {
    let input = format!("{} {words}", socket.display());
    let killer = listener.try_clone().expect("a second descriptor");
    let killing = std::thread::spawn(move || {
        let mut pid = [0; 16];
        let count = killer.recv(&mut pid).expect("the job tells its process");
        let pid: u32 = std::str::from_utf8(&pid[..count]).expect("digits").parse().expect("a process");
        let process = Process::open(pid).expect("it waits to be killed");
        let begun = Instant::now();
        process.kill(9).expect("it may be killed");
        begun
    });
    let mut run = client.run(Spec::new("noop"), [JobInput::from(input.into_bytes())], RunOptions::default());
    let end = run.next().expect("one job, one end").expect("the daemon answers").end;
    let answered = Instant::now();
    let begun = killing.join().expect("the killer ends");
    assert!(matches!(&end.output, ReceivedOutput::Inline(_)) && end.attempts == 2, "{end:?}");
    answered - begun
}

/// Asks until a warm worker stands ready; not a part of what is measured.
fn await_spare(client: &mut DaemonClient) {
    let end = Instant::now() + bulkhead_tests::daemon::DEADLINE;
    loop {
        let workers = client.workers().expect("the daemon answers");
        let ready = |state: WorkerState| workers.iter().filter(|row| row.state == state).count();
        if ready(WorkerState::Spare) == 1 && ready(WorkerState::Idle) == 2 {
            return;
        }
        assert!(Instant::now() < end, "no spare comes up");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// From `kill()` to the pidfd of a child that does nothing.
fn bare_kills(count: usize) -> Vec<Duration> {
    (0..count)
        .map(|_| {
            let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().expect("cat is there");
            let process = Process::open(child.id()).expect("it lives");
            std::thread::sleep(Duration::from_millis(1));
            let begun = Instant::now();
            process.kill(9).expect("it may be killed");
            let seen = bulkhead_sys::poll::wait_readable(
                std::os::fd::AsFd::as_fd(&process),
                bulkhead_tests::daemon::DEADLINE,
            );
            let span = begun.elapsed();
            assert!(seen.expect("a pidfd can be watched"), "it does not die");
            drop(child.wait());
            span
        })
        .collect()
}

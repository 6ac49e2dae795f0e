//! Time in which nothing ran: everything stopped by SIGSTOP or a frozen control group, the supervisor stopped alone. No
//! job is charged for it, and limits hold afterwards.
//!
//! The tests wait for longer than a limit while all is stopped: that span is what they are about.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use std::time::Duration;

use bulkhead_tests::daemon::{Daemon, Setup, eventually, send_signal};
use bulkhead_tests::freezer::Freezer;
use bulkhead_tests::or_skip;

/// The limit of each job, and for how long all is stopped.
const LIMIT: &str = "6s";
const STOPPED: Duration = Duration::from_secs(10);

/// Running jobs under a limit of time, of progress, and one that waits and may expire.
struct Jobs {
    daemon: Daemon,
    ids: Vec<String>,
}

impl Jobs {
    fn start() -> Self {
        let daemon = Daemon::start_with(&Setup { workers: 2, ..Setup::default() });
        let go = daemon.folder().join("go");
        let script = format!("until test -e {}; do sleep 0.02; done; echo went", go.display());
        let submit = |flag: &str| {
            let id = daemon.ok(&["submit", "exec", flag, LIMIT, "--", "sh", "-c", &script]);
            id.trim().to_owned()
        };
        let mut ids = vec![submit("--timeout"), submit("--no-progress")];
        eventually("both run", || {
            (daemon.workers().iter().filter(|row| row.job.is_some()).count() == 2).then_some(())
        });
        ids.push(submit("--expires"));
        Self { daemon, ids }
    }

    /// The supervisor, and then all workers.
    fn pids(&self) -> Vec<u32> {
        let workers = self.daemon.workers().into_iter().filter_map(|row| row.pid);
        std::iter::once(self.daemon.pid()).chain(workers).collect()
    }

    /// All jobs end as if nothing had happened, and a limit is a limit.
    fn assert_done(&self) {
        std::fs::write(self.daemon.folder().join("go"), "").unwrap();
        for id in &self.ids {
            let waited = self.daemon.cli(&["wait", id]);
            assert_eq!(waited.status.code(), Some(0), "job {id}: {}", self.daemon.ok(&["job", id]));
            assert_eq!(self.daemon.ok(&["result", id]), "went\n");
        }
        let late = self.daemon.cli(&["run", "exec", "--timeout", "1s", "--", "sleep", "3000"]);
        assert_eq!(late.status.code(), Some(124));
        assert_eq!(self.daemon.log().matches("the daemon did not run").count(), 1);
    }
}

/// Waits until these processes are stopped by a signal.
fn await_stopped(pids: &[u32]) {
    let is_stopped = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("State:\tT"))
    };
    eventually("all are stopped", || pids.iter().all(is_stopped).then_some(()));
}

fn stop_for_a_while(pids: &[u32]) {
    for pid in pids {
        send_signal(*pid, "STOP");
    }
    await_stopped(pids);
    std::thread::sleep(STOPPED);
    for pid in pids {
        send_signal(*pid, "CONT");
    }
}

#[test]
fn no_job_is_charged_for_time_in_which_all_was_stopped() {
    let jobs = Jobs::start();
    stop_for_a_while(&jobs.pids());
    jobs.assert_done();
}

#[test]
fn no_job_is_charged_for_time_in_which_the_supervisor_was_stopped() {
    let jobs = Jobs::start();
    stop_for_a_while(&[jobs.daemon.pid()]);
    jobs.assert_done();
}

#[test]
fn no_job_is_charged_for_time_in_which_its_control_group_was_frozen() {
    let freezer = or_skip!(Freezer::new());
    let jobs = Jobs::start();
    freezer.freeze(&jobs.pids());
    std::thread::sleep(STOPPED);
    freezer.thaw();
    jobs.assert_done();
}

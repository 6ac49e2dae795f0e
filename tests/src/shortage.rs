//! Takes a resource away from a running daemon, gives it back, and checks what the daemon does meanwhile.
//!
//! During every shortage a running job goes on, the daemon answers, the pool says why no worker starts, and new workers
//! are tried only with pauses. All is well when the resource is back. Driven by the tests.

use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use bulkhead_proto::client::message::Request;
use bulkhead_proto::client::record::{Record, What};
use bulkhead_proto::client::view::{PoolHealth, WorkerRow, WorkerState};
use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::JobState;

use crate::daemon::{Daemon, binary, eventually, send_signal};
use crate::wire::Wire;

/// The longest sleep: only a cancel ends this job.
const FOR_EVER_MS: &str = "86400000";
/// The least and the longest pause of the documented backoff, halved by its jitter, in microseconds.
const PAUSE_US: (u64, u64) = (50_000, 15_000_000);

/// Sets a soft limit of the daemon by its name for `prlimit`; the hard limit stays. It runs as the daemon's own user,
/// who has the permission.
pub fn limit(daemon: &Daemon, name: &str, soft: &str) {
    let owner = std::fs::metadata(daemon.folder()).expect("its folder is there").uid();
    let arguments = [format!("--pid={}", daemon.pid()), format!("--{name}={soft}:")];
    let status =
        Command::new("prlimit").args(&arguments).uid(owner).gid(owner).status().expect("prlimit runs");
    assert!(status.success(), "prlimit {arguments:?} failed");
}

/// Puts the true worker program in this place, at once.
pub fn restore(program: &Path) {
    let other = program.with_extension("new");
    symlink(binary("bulkhead-worker"), &other).expect("a link");
    std::fs::rename(&other, program).expect("it is put in place");
}

/// Tries whether a test can be run here: it must be root, and this command must work.
///
/// # Errors
/// Why it cannot.
pub fn possible(command: &[&str]) -> Result<(), String> {
    if bulkhead_sys::socket::own_uid() != 0 {
        return Err("only root may do this".to_owned());
    }
    let [program, arguments @ ..] = command else { return Ok(()) };
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("{program}: {error}")),
    }
}

/// A job that runs throughout, and the connection that watches it.
#[derive(Debug)]
pub struct Witness {
    /// The connection.
    pub wire: Wire,
    job: JobId,
}

impl Witness {
    /// Submits the job and waits until it runs and all workers are up.
    pub fn begin(daemon: &Daemon) -> Self {
        let mut wire = Wire::connect(&daemon.socket());
        let job = wire.submit("sleep", &[FOR_EVER_MS]);
        eventually("the job runs and a spare is there", || {
            let rows = wire.workers();
            let is = |state| rows.iter().any(|row| row.state == state);
            (is(WorkerState::Busy) && is(WorkerState::Spare) && !is(WorkerState::Starting)).then_some(())
        });
        Self { wire, job }
    }

    /// Kills every worker but the one that runs the job.
    pub fn kill_the_others(&mut self) {
        for row in self.wire.workers().iter().filter(|row| row.job != Some(self.job)) {
            send_signal(row.pid.expect("all are up"), "KILL");
        }
    }

    /// The job runs on, in its first attempt.
    pub fn assert_job_runs(&mut self) {
        let row = self.wire.job(self.job).row;
        assert_eq!((row.state, row.attempts), (JobState::Running, 1), "{row:?}");
    }

    /// Ends the job.
    pub fn end_job(&mut self) {
        self.wire.call(Request::Cancel { jobs: vec![self.job] });
    }

    /// Waits until the pool is degraded for a reason that says all of `parts`; the reason.
    pub fn await_degraded(&mut self, parts: &[&str]) -> String {
        let wire = &mut self.wire;
        let reason = eventually(&format!("the pool is degraded because of {parts:?}"), || {
            let status = wire.status();
            let says_all = parts.iter().all(|part| status.health_reason.contains(part));
            (status.health == PoolHealth::Degraded && says_all).then_some(status.health_reason)
        });
        let is_degraded = |record: &Record| matches!(record.what, What::Degraded { .. });
        assert!(self.wire.records().iter().any(is_degraded), "the events do not say so");
        reason
    }

    /// Waits until the pool is healthy again, has all its workers, and has run a job since.
    pub fn await_recovery(&mut self) {
        let wire = &mut self.wire;
        eventually("the pool is whole again", || {
            let status = wire.status();
            let rows = wire.workers();
            let up = rows.iter().filter(|row| matches!(row.state, WorkerState::Idle | WorkerState::Busy));
            (up.count() == usize::from(status.slots) && status.spares == 1).then_some(())
        });
        assert_eq!(self.wire.run("noop", &["again"]).len(), 1);
        eventually("it says that it is healthy", || {
            (self.wire.status().health == PoolHealth::Healthy).then_some(())
        });
        self.assert_job_runs();
    }

    /// The reason that was reported for each worker that did not start.
    pub fn failed_spawns(&mut self) -> Vec<String> {
        let records = self.wire.records().into_iter();
        let error = |record: Record| match record.what {
            What::SpawnFailed { error, .. } => Some(error),
            _ => None,
        };
        records.filter_map(error).collect()
    }

    /// Whether `deaths` are proven and all places are taken again.
    pub fn is_whole(&mut self, deaths: u64) -> bool {
        let status = self.wire.status();
        let is_up = |row: &&WorkerRow| {
            matches!(row.state, WorkerState::Idle | WorkerState::Busy | WorkerState::Spare)
        };
        let up = self.wire.workers().iter().filter(is_up).count();
        status.totals.deaths >= deaths && up == usize::from(status.slots) + 1
    }

    /// Checks that no more workers were tried than the backoff allows in the elapsed time.
    pub fn assert_no_storm(&mut self) {
        let status = self.wire.status();
        let places = u64::from(status.slots) + 1;
        let records = self.wire.records();
        let failed = |record: &&Record| matches!(record.what, What::SpawnFailed { .. });
        let moments: Vec<u64> = records.iter().filter(failed).map(|record| record.at_us).collect();
        let (Some(first), Some(last)) = (moments.first(), moments.last()) else { panic!("none failed") };
        // A whole pool may fail before it is degraded, another may be on its way by then.
        let (mut allowed, mut left_us, mut pause_us) =
            (2 * places + 1, last.saturating_sub(*first), PAUSE_US.0);
        while left_us >= pause_us {
            (allowed, left_us) = (allowed + 1, left_us - pause_us);
            pause_us = (2 * pause_us).min(PAUSE_US.1);
        }
        assert!(
            moments.len() as u64 <= allowed,
            "{} tries, {allowed} are allowed: {moments:?}",
            moments.len()
        );
    }
}

//! Messages on stderr about jobs that did not end `done`, and the daemon's notices.
//!
//! A job gets one line when it ends. At the end of the command, the deaths that were charged to crashed jobs are
//! printed, and the next step for the user. Used by `run`, `wait`, `result`, `logs`, `job`.

use bulkhead_client::{DaemonClient, JobEnd};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::view::JobDeath;
use bulkhead_proto::ids::JobId;
use bulkhead_proto::plain::Plain;

use crate::plural;
use crate::stdio::say;

/// Most crashed jobs whose deaths are printed; the others are only counted.
const DETAILS_MAX: usize = 10;

/// The line about one job; `what` is its kind and input, or empty if they are not known.
pub(crate) fn line(end: &JobEnd, what: &str) -> String {
    let what = if what.is_empty() { String::new() } else { format!(" ({})", shorten(what)) };
    let attempts = plural::count(u64::from(end.attempts), "attempt");
    // The job's own message stands last, so that no text of this command can be taken for a part of it.
    let outcome = end.outcome.to_string();
    match outcome.split_once(": ") {
        Some((word, why)) => format!("bulkhead: job {}{what} {word} after {attempts}: {why}", end.job),
        None => format!("bulkhead: job {}{what} {outcome} after {attempts}", end.job),
    }
}

/// The lines about the processes that the daemon could not end.
pub(crate) fn survivor_lines(end: &JobEnd) -> impl Iterator<Item = String> {
    end.survivors.iter().map(|survivor| {
        let pid = survivor.pid;
        format!(
            "bulkhead: {survivor} of job {} lives on: the daemon may not end it; as that user or as root, `kill {pid}`",
            end.job
        )
    })
}

/// Prints a notice of the daemon on stderr as one line.
pub(crate) fn notice(text: &str) {
    say(format_args!("bulkhead: {}", Plain(text)));
}

fn shorten(text: &str) -> String {
    const LETTERS: usize = 60;
    let mut short: String = text.chars().take(LETTERS).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    short.escape_debug().to_string()
}

/// The crashed jobs, whose deaths are printed when all jobs have ended.
#[derive(Debug, Default)]
pub(crate) struct CrashedJobs {
    jobs: Vec<JobId>,
    count: u64,
}

/// The commands for a quarantined job.
pub(crate) fn next_step(job: JobId, has_files: bool) -> String {
    if has_files {
        return format!(
            "submit it again to run it once more, because its files were closed; `bulkhead forget {job}` drops it"
        );
    }
    format!("`bulkhead retry {job}` runs it again, `bulkhead forget {job}` drops it")
}

impl CrashedJobs {
    /// Adds a job if it crashed.
    pub(crate) fn note(&mut self, end: &JobEnd) {
        if matches!(end.outcome, Outcome::Crashed { .. }) {
            self.count += 1;
            if self.jobs.len() < DETAILS_MAX {
                self.jobs.push(end.job);
            }
        }
    }

    /// Prints the deaths, and the next step unless the daemon ends with this command.
    pub(crate) fn tell(&self, client: &mut DaemonClient, daemon_stays: bool) {
        let mut had_files = None;
        for job in &self.jobs {
            match client.job(*job) {
                Ok(detail) => {
                    had_files.get_or_insert(detail.has_files);
                    for death in &detail.deaths {
                        say(format_args!("  job {job} {}", death_line(death)));
                    }
                }
                Err(error) => log::warn!("no evidence of a crashed job job={job} error={error}"),
            }
        }
        if self.count > self.jobs.len() as u64 {
            say(format_args!("  {} more jobs crashed", self.count - self.jobs.len() as u64));
        }
        if let (Some(job), true) = (self.jobs.first(), daemon_stays) {
            say(format_args!("  quarantined: {}", next_step(*job, had_files.unwrap_or(false))));
        }
    }
}

/// A death that ended an attempt, and whether the job was charged with it.
pub(crate) fn death_line(death: &JobDeath) -> String {
    let JobDeath { part, attempt, worker, pid, death, charged, .. } = death;
    let part = part.map(|part| format!(" of {part}")).unwrap_or_default();
    let charged = if *charged { "" } else { "; not charged" };
    format!("attempt {attempt}{part}: worker {worker} (pid {pid}) {}{charged}", death.predicate())
}

#[cfg(test)]
mod tests {
    use bulkhead_client::ReceivedOutput;
    use bulkhead_proto::client::evidence::Evidence;
    use bulkhead_proto::death::{Death, KillReason};
    use bulkhead_proto::ids::WorkerId;

    use super::*;

    #[test]
    fn the_line_names_job_input_outcome_and_attempts() {
        let outcome = Outcome::Crashed { crashes: 3, last: "SIGSEGV".to_owned() };
        let end = JobEnd {
            job: JobId(17),
            outcome,
            output: ReceivedOutput::None,
            attempts: 3,
            survivors: Vec::new(),
        };
        let expected = "bulkhead: job 17 (chaos segv) crashed after 3 attempts: killed 3 workers, last one by \
                        SIGSEGV; quarantined";
        assert_eq!(line(&end, "chaos segv"), expected);
        let end = JobEnd {
            job: JobId(1),
            outcome: Outcome::Cancelled,
            output: ReceivedOutput::None,
            attempts: 1,
            survivors: Vec::new(),
        };
        assert_eq!(line(&end, ""), "bulkhead: job 1 cancelled after 1 attempt");
        let outcome = Outcome::Failed { message: "no: never".to_owned(), code: None };
        let end = JobEnd {
            job: JobId(2),
            outcome,
            output: ReceivedOutput::None,
            attempts: 2,
            survivors: Vec::new(),
        };
        assert_eq!(line(&end, ""), "bulkhead: job 2 failed after 2 attempts: no: never");
        assert!(line(&end, &"x\n".repeat(60)).len() < 160);
        let outcome = Outcome::Failed { message: "no\u{1b}[2J\nbulkhead: job 3 done".to_owned(), code: None };
        let end = JobEnd {
            job: JobId(2),
            outcome,
            output: ReceivedOutput::None,
            attempts: 1,
            survivors: Vec::new(),
        };
        let harmless = "bulkhead: job 2 failed after 1 attempt: no\\u{1b}[2J\\nbulkhead: job 3 done";
        assert_eq!(line(&end, ""), harmless);
    }

    #[test]
    fn a_death_names_attempt_worker_and_cause() {
        let death = Death::Signalled { signal: 11, core: false };
        let mut death = JobDeath {
            at_us: 0,
            part: None,
            attempt: 2,
            worker: WorkerId(5),
            pid: 812,
            death,
            charged: true,
            evidence: Evidence::default(),
        };
        assert_eq!(death_line(&death), "attempt 2: worker 5 (pid 812) died of SIGSEGV");
        (death.death, death.charged) = (Death::Killed { why: KillReason::Cancel }, false);
        assert_eq!(
            death_line(&death),
            "attempt 2: worker 5 (pid 812) was killed by the supervisor: cancel; not charged"
        );
    }
}

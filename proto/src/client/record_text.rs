//! The line for each record, the same in `bulkhead events` and in the daemon's log.
//!
//! The command line and the supervisor print it: a constant sentence for each sort of record, then `key=value` fields in a
//! fixed order. Spans have their unit; texts that may contain blanks are quoted. Scripts read these lines, so a field must
//! never change its name or its meaning.

use std::fmt;

use crate::client::record::{Enough, JobRange, What};
use crate::client::why::Part;
use crate::death::Signal;

/// A span of time, shown with two decimals and the unit that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Microseconds.
    pub us: u64,
}

impl Span {
    /// From microseconds.
    pub fn us(us: u64) -> Self {
        Self { us }
    }

    /// From milliseconds.
    pub fn ms(ms: u64) -> Self {
        Self { us: ms.saturating_mul(1000) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = self.us;
        match us {
            0..1_000 => write!(out, "{us}us"),
            1_000..1_000_000 => write!(out, "{}.{:02}ms", us / 1_000, us % 1_000 / 10),
            _ => write!(out, "{}.{:02}s", us / 1_000_000, us % 1_000_000 / 10_000),
        }
    }
}

/// A span between two decisions of the core, in microseconds; 0 if it took both in one turn.
struct Turns(u64);

impl fmt::Display for Turns {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => out.write_str("same-turn"),
            us => Span::us(us).fmt(out),
        }
    }
}

/// A value, or the word for its absence.
struct Maybe<T>(Option<T>, &'static str);

impl<T: fmt::Display> fmt::Display for Maybe<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(out),
            None => out.write_str(self.1),
        }
    }
}

impl fmt::Display for Enough {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tasks { ended } => write!(out, "tasks={ended}"),
            Self::Age { ms } => write!(out, "age={}", Span::ms(*ms)),
            Self::Resident { bytes } => write!(out, "resident_bytes={bytes}"),
            Self::Unclosed { files } => write!(out, "unclosed_files={files}"),
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { .. }
            | Self::Degraded { .. }
            | Self::Recovered { .. }
            | Self::Short { .. }
            | Self::Reloaded { .. }
            | Self::JournalFailed { .. }
            | Self::JournalRecovered
            | Self::Evicted { .. }
            | Self::Draining { .. }
            | Self::Stopped => service_line(self, out),
            Self::Spawned { .. }
            | Self::Ready { .. }
            | Self::SpawnFailed { .. }
            | Self::Placed { .. }
            | Self::Lent { .. }
            | Self::TakenIn { .. }
            | Self::Killing { .. }
            | Self::Died { .. }
            | Self::WorkerGone { .. }
            | Self::Stuck { .. }
            | Self::Recycled { .. }
            | Self::NobodyBlamed { .. }
            | Self::Requeued { .. } => worker_line(self, out),
            Self::Suspended { .. }
            | Self::Resumed { .. }
            | Self::SuspendedOften { .. }
            | Self::ProgramStopped { .. }
            | Self::ProgramContinued { .. }
            | Self::LivesOn { .. } => stop_line(self, out),
            Self::Accepted { .. }
            | Self::Kindless { .. }
            | Self::Blamed { .. }
            | Self::Retried { .. }
            | Self::Backoff { .. }
            | Self::Ended { .. }
            | Self::EndedQueued { .. }
            | Self::RetryAsked { .. } => job_line(self, out),
        }
    }
}

fn service_line(what: &What, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    match what {
        What::Started { pid, slots } => write!(out, "daemon started pid={pid} slots={slots}"),
        What::Degraded { pool, reason } => write!(out, "pool degraded pool={pool} reason={reason:?}"),
        What::Recovered { pool } => write!(out, "pool healthy again pool={pool}"),
        What::Short { what } => write!(out, "jobs with large results wait what={what:?}"),
        What::Reloaded { jobs, kindless } => {
            write!(out, "unfinished jobs are queued again count={jobs} without_a_kind={kindless}")
        }
        What::JournalFailed { why } => write!(out, "journal stores nothing for now why={why:?}"),
        What::JournalRecovered => out.write_str("journal stores again"),
        What::Evicted { count, limit } => write!(out, "results dropped early count={count} limit={limit:?}"),
        What::Draining { left, grace_ms } => {
            let grace = Maybe(grace_ms.map(Span::ms), "unlimited");
            write!(out, "daemon draining left={left} grace={grace}")
        }
        _ => out.write_str("daemon stopped"),
    }
}

fn worker_line(what: &What, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    match what {
        What::Spawned { worker, pid } => write!(out, "worker spawned worker={worker} pid={pid}"),
        What::Ready { worker, pid, after_us } => {
            write!(out, "worker ready worker={worker} pid={pid} after={}", Span::us(*after_us))
        }
        What::SpawnFailed { worker, error, retry_after_ms } => {
            let again = Span::ms(*retry_after_ms);
            write!(out, "worker did not start worker={worker} error={error:?} retry_after={again}")
        }
        What::Placed { worker, slot, replaces: None, .. } => {
            write!(out, "worker placed worker={worker} slot={slot}")
        }
        What::Placed { worker, slot, replaces: Some(old), after_us, warm } => {
            let (after, how) = (Turns(*after_us), if *warm { "warm" } else { "cold" });
            write!(
                out,
                "worker replaced worker={worker} slot={slot} replaces={old} after={after} spare={how}"
            )
        }
        What::Lent { worker, slot, uid } => {
            write!(out, "slot lent worker={worker} slot={slot} uid={uid}")
        }
        What::TakenIn { worker, slot, replaces } => {
            let replaces = Maybe(replaces.as_ref(), "none");
            write!(out, "lent worker taken in worker={worker} slot={slot} replaces={replaces}")
        }
        What::Killing { worker, job, why } => {
            let job = Maybe(job.as_ref(), "none");
            write!(out, "killing worker worker={worker} job={job} why=\"{why}\"")
        }
        What::Died { worker, pid, slot, death, evidence, noticed_after_us, ended } => {
            let slot = Maybe(slot.as_ref(), "none");
            let noticed = Maybe(noticed_after_us.map(Span::us), "unknown");
            write!(
                out,
                "worker died worker={worker} pid={pid} slot={slot} of=\"{death}\" noticed_after={noticed} ended={ended}{evidence}"
            )
        }
        What::WorkerGone { worker, slot } => {
            let slot = Maybe(slot.as_ref(), "none");
            write!(out, "worker died, it ran jobs of other users worker={worker} slot={slot}")
        }
        What::Stuck { worker, pid, seen } => {
            write!(out, "worker stuck: killed, no proof of death worker={worker} pid={pid}")?;
            match seen {
                Some(seen) if seen.pid != *pid => {
                    let uid = Maybe(seen.uid, "unknown");
                    write!(out, " left_behind={} uid={uid}{seen}", seen.pid)
                }
                Some(seen) => write!(out, "{seen}"),
                None => Ok(()),
            }
        }
        What::Recycled { worker, why } => write!(out, "worker recycled worker={worker} {why}"),
        What::NobodyBlamed { worker } => write!(out, "no job blamed worker={worker}"),
        What::Requeued { worker, count } => {
            write!(out, "uncharged jobs requeued worker={worker} count={count}")
        }
        _ => Ok(()),
    }
}

/// The lines for stops by signals, and for processes that cannot be ended.
fn stop_line(what: &What, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    match what {
        What::Suspended { worker, pid, job, signal } => {
            let job = Maybe(job.as_ref(), "none");
            let signal = Signal(*signal);
            write!(out, "worker stopped by a signal worker={worker} pid={pid} job={job} signal={signal}")
        }
        What::Resumed { worker } => write!(out, "worker continued worker={worker}"),
        What::SuspendedOften { worker, count } => {
            write!(out, "worker stopped and continued again and again worker={worker} count={count}")
        }
        What::ProgramStopped { worker, job, program, signal } => {
            let signal = Signal(*signal);
            write!(
                out,
                "program stopped by a signal worker={worker} job={job} program={program} signal={signal}"
            )
        }
        What::ProgramContinued { worker, job, program, after_us } => {
            let after = Span::us(*after_us);
            write!(out, "program continued worker={worker} job={job} program={program} after={after}")
        }
        What::LivesOn { survivor, worker, job } => {
            let uid = Maybe(survivor.uid, "unknown");
            let (worker, job) = (Maybe(worker.as_ref(), "unknown"), Maybe(job.as_ref(), "unknown"));
            write!(
                out,
                "a process lives on, it runs as another user pid={} name={:?} uid={uid} worker={worker} job={job}",
                survivor.pid, survivor.name
            )
        }
        _ => Ok(()),
    }
}

/// Ranges of jobs: `17..19,25`, and `,..` behind them if they are not all of so many jobs.
struct Ranges<'a>(&'a [JobRange], u64);

impl fmt::Display for Ranges<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, JobRange { first, last }) in self.0.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            match first == last {
                true => write!(out, "{comma}{first}")?,
                false => write!(out, "{comma}{first}..{last}")?,
            }
        }
        let told: u64 = self.0.iter().map(|range| range.count()).sum();
        if told < self.1 { out.write_str(",..") } else { Ok(()) }
    }
}

/// The field for a part; empty without one.
fn of(part: Option<Part>) -> String {
    part.map(|Part { number, parts }| format!(" part={number}/{parts}")).unwrap_or_default()
}

fn job_line(what: &What, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    match what {
        What::Accepted { first, count, kind, uid } => {
            write!(out, "jobs accepted first={first} count={count} kind={kind} uid={uid}")
        }
        What::Kindless { first, count, kind } => {
            write!(out, "jobs wait for a kind first={first} count={count} kind={kind:?}")
        }
        What::Blamed { job, part, attempt, worker, crashes, crashes_max } => {
            write!(
                out,
                "job blamed job={job}{} attempt={attempt} worker={worker} crashes={crashes}/{crashes_max}",
                of(*part)
            )
        }
        What::Retried { job, part, attempt, worker, after_us, alone } => {
            let (after, alone) = (Turns(*after_us), if *alone { "yes" } else { "no" });
            let of = of(*part);
            write!(
                out,
                "job retried job={job}{of} attempt={attempt} worker={worker} after={after} alone={alone}"
            )
        }
        What::Backoff { job, part, attempt, message, retry_after_ms } => {
            let again = Span::ms(*retry_after_ms);
            write!(
                out,
                "job failed, will be retried job={job}{} attempt={attempt} retry_after={again} message={message:?}",
                of(*part)
            )
        }
        What::Ended { job, outcome, attempts, after_us } => {
            let after = Span::us(*after_us);
            write!(out, "job ended job={job} outcome=\"{outcome}\" attempts={attempts} after={after}")
        }
        What::EndedQueued { outcome, gone_ms, count, jobs } => {
            write!(
                out,
                "queued jobs ended outcome=\"{outcome}\" count={count} jobs={}",
                Ranges(jobs, *count)
            )?;
            gone_ms.map_or(Ok(()), |ms| write!(out, " client_gone={}", Span::ms(ms)))
        }
        What::RetryAsked { job } => write!(out, "job is run again on request job={job}"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::evidence::Evidence;
    use crate::client::outcome::Outcome;
    use crate::death::Death;
    use crate::ids::{JobId, SlotId, WorkerId};

    #[test]
    fn a_crash_reads_as_what_died_of_what_and_what_was_done() {
        let died = What::Died {
            worker: WorkerId(3),
            pid: 812,
            slot: Some(SlotId(1)),
            death: Death::Signalled { signal: 9, core: false },
            evidence: Evidence { last_words: "row 7".to_owned(), ..Evidence::default() },
            noticed_after_us: None,
            ended: 41,
        };
        assert_eq!(
            died.to_string(),
            "worker died worker=3 pid=812 slot=1 of=\"SIGKILL\" noticed_after=unknown ended=41 last_words=\"row 7\""
        );
        let retried = What::Retried {
            job: JobId(17),
            part: None,
            attempt: 2,
            worker: WorkerId(5),
            after_us: 412,
            alone: true,
        };
        assert_eq!(retried.to_string(), "job retried job=17 attempt=2 worker=5 after=412us alone=yes");
    }

    #[test]
    fn jobs_that_ended_in_the_queue_are_counted_and_named_by_ranges() {
        let range = |first, last| JobRange { first: JobId(first), last: JobId(last) };
        let ended = |outcome, gone_ms, count| What::EndedQueued {
            outcome,
            gone_ms,
            count,
            jobs: vec![range(17, 19), range(25, 25)],
        };
        assert_eq!(
            ended(Outcome::Expired, None, 4).to_string(),
            "queued jobs ended outcome=\"expired\" count=4 jobs=17..19,25"
        );
        assert_eq!(
            ended(Outcome::Cancelled, Some(5000), 9).to_string(),
            "queued jobs ended outcome=\"cancelled\" count=9 jobs=17..19,25,.. client_gone=5.00s"
        );
    }

    #[test]
    fn spans_carry_their_unit() {
        assert_eq!(Span::us(7).to_string(), "7us");
        assert_eq!(Span::us(1_240).to_string(), "1.24ms");
        assert_eq!(Span::ms(3_050).to_string(), "3.05s");
    }
}

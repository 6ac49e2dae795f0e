//! The sentences of `bulkhead why`, one for each line: first the state of the job, then its earlier attempts.
//!
//! The command line prints them. Each is a complete sentence and must say no more than the fields of [`Why`] do. Spans
//! have their unit. `why_text/waiting.rs` has the sentences on what a job waits for.

mod waiting;

#[cfg(test)]
mod share_tests;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::client::outcome::{Outcome, OutputGone, TimeLimit};
use crate::client::record_text::Span;
use crate::client::view::{JobDeath, Parts, StoppedProgram};
use crate::client::why::{
    Canceller, EndingTask, Holder, Past, Running, RunningLimits, Why, WhyEnded, WhyNow,
};
use crate::death::{Death, Signal};
use crate::limits::WHY_COUNT_MAX;
use waiting::{drain_text, outputs_text, say_before, say_pool, shortage, unread_text};

impl fmt::Display for Why {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.sentences().join("\n"))
    }
}

impl Why {
    /// The sentences, in their order.
    pub fn sentences(&self) -> Vec<String> {
        let mut said = Vec::new();
        match &self.now {
            WhyNow::Queued { .. } => self.say_queued(&mut said),
            WhyNow::Backoff { left_ms, alone } => {
                let then = if *alone { "; then it waits for a worker of its own" } else { "" };
                let left = span(*left_ms);
                said.push(format!("{} failed and is tried again in {left}{then}.", self.name()));
            }
            WhyNow::Alone { before, shortage_ms, outputs, pool } => {
                said.push(format!(
                    "{} waits for a worker that has run nothing: a death was charged to it, so it runs alone.",
                    self.name()
                ));
                if *before > 0 {
                    said.push(format!("{} for one before it.", counted(*before, "job waits", "jobs wait")));
                }
                said.extend(shortage_ms.map(shortage));
                said.extend(outputs.as_ref().map(outputs_text));
                say_pool(pool, true, &mut said);
            }
            WhyNow::Parted { parts, unread, shortage_ms, pool } => {
                let Parts { done, running, total } = parts;
                let all = many(u64::from(*total), "part", "parts");
                said.push(match done < total {
                    true => format!("{} is done in {all}: {done} are done, {running} run.", self.name()),
                    false => {
                        format!("{} had {all}, all are done: their results wait to be merged.", self.name())
                    }
                });
                said.extend(unread.as_ref().map(unread_text));
                said.extend(shortage_ms.map(shortage));
                match running {
                    0 => say_pool(pool, false, &mut said),
                    _ => said.extend(pool.drain.map(drain_text)),
                }
            }
            WhyNow::Running(running) => say_running(&self.name(), self.attempts, running, &mut said),
            WhyNow::Ended(end) => self.say_ended(end, &mut said),
        }
        said.extend(self.vanished_ms.map(|left| {
            format!(
                "The client that it was attached to has disconnected: the job is cancelled in {}.",
                span(left)
            )
        }));
        self.say_past(&mut said);
        said
    }

    fn name(&self) -> String {
        format!("Job {}", self.job)
    }

    fn say_queued(&self, said: &mut Vec<String>) {
        let WhyNow::Queued {
            waited_ms,
            before,
            priority,
            raised,
            unread,
            shortage_ms,
            outputs,
            expires_in_ms,
            pool,
        } = &self.now
        else {
            return;
        };
        let waited = span(*waited_ms);
        said.push(format!("{} has been queued for {waited}, with priority {priority}.", self.name()));
        said.extend(unread.as_ref().map(unread_text));
        said.extend(shortage_ms.map(shortage));
        said.extend(outputs.as_ref().map(outputs_text));
        say_before(before, said);
        if *raised > 0 {
            said.push(format!("Waiting has raised its priority by {raised} against jobs of its user."));
        }
        say_pool(pool, false, said);
        said.extend(expires_in_ms.map(|ms| format!("It expires in {} unless it begins.", span(ms))));
    }

    fn say_ended(&self, end: &WhyEnded, said: &mut Vec<String>) {
        let (name, attempt) = (self.name(), self.attempts);
        let Past { crashes_max, retries_max, .. } = self.past;
        said.push(match &end.how {
            Outcome::Done => format!("{name} is done: attempt {attempt} gave its result."),
            Outcome::Failed { message, .. } => {
                let budget = many(u64::from(retries_max), "retry", "retries");
                format!("{name} failed: its own code said {message:?} in attempt {attempt}, and {budget} were allowed.")
            }
            Outcome::Crashed { crashes, .. } => {
                let killed = many(u64::from(*crashes), "worker", "workers");
                format!("{name} is quarantined: it killed {killed}, and crashes_max is {crashes_max}.")
            }
            Outcome::TimedOut { limit, limit_ms, .. } => {
                format!("{name} timed out: attempt {attempt} {limit} {}.", span(*limit_ms))
            }
            Outcome::Cancelled => format!("{name} was cancelled {}.", cancelled(end.by)),
            Outcome::Expired => match end.expires_ms {
                Some(ms) => format!("{name} expired: no attempt of it began within {}.", span(ms)),
                None => format!("{name} expired before an attempt of it began."),
            },
            Outcome::Lost { reason } => format!("{name} is lost: {reason}."),
        });
        if let (Outcome::TimedOut { .. }, Some(part)) = (&end.how, end.part) {
            said.push(format!("That was {part}."));
        }
        said.extend(end.gone.map(|OutputGone { bytes, bound, limit }| {
            format!("Its output of {bytes} bytes went to make room: {} is {limit}.", bound.key())
        }));
        said.extend(
            end.holder
                .as_ref()
                .map(|holder| format!("Its last attempt is still being ended: {}.", of_holder(holder))),
        );
        let job = self.job;
        said.extend(match end.how {
            Outcome::Done => None,
            _ if end.had_files => {
                Some(
                    "The daemon closed the files that came with it at its end: submit it again to run it again."
                        .to_owned(),
                )
            }
            Outcome::Crashed { .. } => Some(format!(
                "Its input and the evidence are kept: `bulkhead retry {job}` runs it again, alone in a worker that \
                 has run nothing, and `bulkhead forget {job}` drops it."
            )),
            _ => Some(format!("`bulkhead retry {job}` runs it again, while the daemon takes jobs.")),
        });
    }

    fn say_past(&self, said: &mut Vec<String>) {
        let past = &self.past;
        said.extend(past.deaths.iter().map(death));
        if past.crashes > 0 && !matches!(self.now, WhyNow::Ended(_)) {
            said.push(format!(
                "Deaths charged to it: {}; at {} it is quarantined.",
                past.crashes, past.crashes_max
            ));
        }
        if past.failures > 0 {
            let times = many(u64::from(past.failures), "time", "times");
            let last = past.last_failure.as_ref().map_or_else(String::new, |failure| {
                format!(": attempt {} said {:?}", failure.attempt, failure.message)
            });
            said.push(format!(
                "Its own code failed {times} and was tried again, of {} allowed{last}.",
                past.retries_max
            ));
        }
        if past.lost > 0 {
            let attempts = many(u64::from(past.lost), "attempt was", "attempts were");
            said.push(format!("{attempts} lost with a worker whose death was not charged to this job."));
        }
        if past.asked > 0 {
            let times = many(u64::from(past.asked), "time", "times");
            said.push(format!(
                "It was run again on request {times} after its end, each time with its full number of crashes and \
                 retries."
            ));
        }
    }
}

fn say_running(name: &str, attempt: u32, running: &Running, said: &mut Vec<String>) {
    let Running { holder, for_ms, behind, alone, lent, stopped_ms, program, drain, limits } = running;
    let (since, who) = (span(*for_ms), worker(holder));
    said.push(match behind {
        0 => format!("{name} has been running for {since}, attempt {attempt}, in {who}."),
        behind => {
            let first = many(u64::from(*behind), "shorter task", "shorter tasks");
            format!("{name} was handed to {who} {since} ago, attempt {attempt}; {first} there go first.")
        }
    });
    if *alone {
        said.push("It runs alone, in a worker that had run nothing: a death was charged to it.".to_owned());
    }
    said.extend(lent.map(|slot| {
        format!("It runs in slot {slot}, which the pool lends to its user: others held all workers of the pool's own.")
    }));
    if let Some(ending) = &holder.ending {
        said.extend(ending.met.map(|limit| met(limit, limits)));
        said.push(format!("It {}.", told_to_end(ending)));
        return said.extend(drain.map(drain_text));
    }
    if holder.killed.is_some() {
        said.push(format!("The job is decided when this worker is proven dead: {}.", of_holder(holder)));
    }
    said.extend(stopped_ms.map(|left| {
        format!("A signal stopped that worker: it is killed in {} unless SIGCONT continues it.", span(left))
    }));
    said.extend(program.as_ref().map(stopped_program));
    said.extend(drain.map(drain_text));
    let is_ended_for_it = program.is_some_and(|program| program.left_ms.is_some());
    say_limits(limits, is_ended_for_it, said);
}

fn told_to_end(ending: &EndingTask) -> String {
    let EndingTask { told_ms, left_ms, .. } = ending;
    format!(
        "was told to end {} ago, and is killed in {} unless it ends before",
        span(*told_ms),
        span(*left_ms)
    )
}

/// The limit that decided the outcome of a job whose task has not ended yet.
fn met(limit: TimeLimit, limits: &RunningLimits) -> String {
    let value = match limit {
        TimeLimit::Wall => limits.timeout_ms,
        TimeLimit::NoProgress => limits.no_progress_ms,
        TimeLimit::Cpu => limits.cpu_ms,
        // The configuration has it, not the job.
        TimeLimit::ProgramStopped => {
            return format!(
                "It {limit} longer than `program_stopped_seconds`: it has timed out once it has ended."
            );
        }
    };
    format!("It {limit} {}: it has timed out once it has ended.", span(value.unwrap_or(0)))
}

/// A program that waits for a SIGCONT, and what ends it if none comes.
fn stopped_program(program: &StoppedProgram) -> String {
    let StoppedProgram { pid, signal, for_ms, left_ms, .. } = *program;
    let then = match left_ms {
        Some(left) => format!("it is ended in {} unless SIGCONT continues it", span(left)),
        None => format!("no limit ends it for that, and `kill -CONT {pid}` continues it"),
    };
    let (signal, since) = (Signal(signal), span(for_ms));
    format!("Its program (pid {pid}) has been stopped by {signal} for {since} and makes no progress: {then}.")
}

/// `is_limited`: a limit that is said elsewhere ends it.
fn say_limits(limits: &RunningLimits, is_limited: bool, said: &mut Vec<String>) {
    if let (Some(all), Some(left)) = (limits.timeout_ms, limits.timeout_left_ms) {
        said.push(format!("It may run for another {} of its {}.", span(left), span(all)));
    }
    let others = [
        limits.no_progress_ms.map(|ms| format!("{} without progress", span(ms))),
        limits.cpu_ms.map(|ms| format!("{} of processor time", span(ms))),
        limits.memory_bytes.map(|bytes| format!("{bytes} bytes of memory")),
    ];
    let others: Vec<String> = others.into_iter().flatten().collect();
    if !others.is_empty() {
        said.push(format!("An attempt may take at most {}.", others.join(", ")));
    } else if limits.timeout_ms.is_none() && !is_limited {
        said.push(
            "It has no limit: it runs until it ends by itself or `bulkhead cancel` stops it.".to_owned(),
        );
    }
}

fn cancelled(by: Option<Canceller>) -> String {
    match by {
        Some(Canceller::Owner { uid }) => format!("by its owner, user {uid}"),
        Some(Canceller::Administrator { uid }) => format!("by an administrator, user {uid}"),
        Some(Canceller::Vanished { after_ms }) => {
            format!("because the client that it was attached to had disconnected {} before", span(after_ms))
        }
        None => "on request".to_owned(),
    }
}

fn worker(holder: &Holder) -> String {
    match holder.pid {
        Some(pid) => format!("worker {} (pid {pid})", holder.worker),
        None => format!("worker {}", holder.worker),
    }
}

fn of_holder(holder: &Holder) -> String {
    let who = worker(holder);
    match (&holder.killed, holder.stuck) {
        (Some(why), false) => format!("{who} was killed ({why}) and has not ended yet"),
        (Some(why), true) => format!("{who} was killed ({why}) and is stuck: it should have ended long ago"),
        (None, _) => match &holder.ending {
            Some(ending) => format!("{who} still has it; it {}", told_to_end(ending)),
            None => format!("{who} still has it and was told to stop it"),
        },
    }
}

fn death(death: &JobDeath) -> String {
    let JobDeath { part, attempt, worker, pid, death, charged, evidence, .. } = death;
    let part = part.map(|part| format!(" of {part}")).unwrap_or_default();
    if let Death::OfProgram { .. } = death {
        let who = format!("worker {worker} (pid {pid})");
        return format!("Attempt {attempt}{part} failed in {who}, which {}.", death.predicate());
    }
    let how = death.predicate();
    let known = evidence.to_string();
    let known = if known.is_empty() { known } else { format!(" ({})", known.trim_start()) };
    let charged = if *charged { "charged to this job" } else { "not charged" };
    format!("Attempt {attempt}{part} ended when worker {worker} (pid {pid}) {how}{known}: {charged}.")
}

/// A number that was counted up to [`WHY_COUNT_MAX`], with the word for it.
fn counted(number: u64, one: &str, more: &str) -> String {
    if number < WHY_COUNT_MAX { many(number, one, more) } else { format!("{number} or more {more}") }
}

/// A number with the singular or plural of its word.
fn many(number: u64, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

/// Milliseconds as a text for people: with two decimals below a minute, in the two largest units above.
fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..60 => Span::ms(ms).to_string(),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

//! `bulkhead job`: everything that the daemon knows about one job, in words.
//!
//! For a crashed job it shows the evidence of each death: worker, process, cause, process state, progress, last words,
//! and the backtrace.

use anyhow::Result;
use bulkhead_proto::client::exit;
use bulkhead_proto::client::outcome::{Outcome, Survivor};
use bulkhead_proto::client::record_text::Span;
use bulkhead_proto::client::view::{JobDetail, Parts};
use bulkhead_proto::ids::JobId;
use bulkhead_views::death as views;
use bulkhead_views::time::utc;

use crate::args::GlobalArgs;
use crate::bytes;
use crate::evidence;
use crate::failure_report::{death_line, next_step};
use crate::job_ids;
use crate::state_names::job_state;
use crate::stdio::StdoutWriter;
use crate::symbols::SymbolCache;

const EXAMPLES: &str = "\
Examples:
  bulkhead job 17
  bulkhead job 17 --json | jq .deaths";

/// Shows everything about one job: input, policy, outcome, and the deaths that ended its attempts
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The job's number
    #[arg(value_name = "JOB", value_parser = job_ids::one)]
    job: JobId,
}

impl Args {
    pub(crate) fn perform(&self, global: &GlobalArgs) -> Result<u8> {
        let detail = global.connect()?.job(self.job)?;
        let (mut out, mut symbol_cache) = (StdoutWriter::new(), SymbolCache::default());
        if global.json {
            out.json(&views::job(&detail, |evidence| symbol_cache.backtrace(evidence))?)?;
        } else {
            describe(&detail, &mut symbol_cache).iter().try_for_each(|line| out.line(line))?;
        }
        out.flush()?;
        Ok(exit::DONE)
    }
}

fn describe(detail: &JobDetail, symbol_cache: &mut SymbolCache) -> Vec<String> {
    let row = &detail.row;
    let mut lines = vec![
        format!("job       {} of user {}, {}", row.job, row.uid, attachment(detail)),
        format!("kind      {}{}", row.kind, flavour(detail.flavour)),
    ];
    // The daemon does not keep the input of a job that is done.
    let input = detail.input.escape_debug();
    lines.extend((!detail.input.is_empty()).then(|| format!("input     {input}")));
    lines.push(format!("state     {}", state(detail)));
    lines.push(format!("accepted  {}", utc(row.accepted_us)));
    lines.extend(detail.ended_us.map(|ended| {
        let after = Span::us(ended.saturating_sub(row.accepted_us));
        format!("ended     {}, {after} after it was accepted", utc(ended))
    }));
    lines.extend(detail.parts.map(|Parts { done, running, total }| {
        format!("parts     {done} done, {running} running, of {total}")
    }));
    lines.extend(detail.output_bytes.map(|bytes| format!("output    {bytes} bytes")));
    lines.extend(detail.output_gone.map(|gone| format!("output    {gone}")));
    lines.push(format!("attempts  {}, {} crashes charged", row.attempts, row.crashes));
    lines.push(format!("policy    {}", policy(detail)));
    for one in &detail.deaths {
        lines.push(format!("death     {} {}", utc(one.at_us), death_line(one)));
        let details = evidence::details(&one.evidence, symbol_cache);
        lines.extend(details.iter().map(|(heading, text)| format!("  {heading:<8}  {text}")));
    }
    let lives_on = |survivor: &Survivor| format!("left      {survivor}: it could not be ended");
    lines.extend(detail.survivors.iter().map(lives_on));
    if matches!(detail.outcome, Some(Outcome::Crashed { .. })) {
        lines.push(format!("next      {}", next_step(row.job, detail.has_files)));
    }
    lines
}

fn flavour(flavour: u32) -> String {
    if flavour == 0 { String::new() } else { format!(", flavour {flavour}") }
}

fn attachment(detail: &JobDetail) -> &'static str {
    if detail.attached { "attached to the client that submitted it" } else { "kept for wait and result" }
}

fn state(detail: &JobDetail) -> String {
    match (&detail.outcome, detail.worker) {
        (Some(outcome), _) => outcome.to_string(),
        (None, Some(worker)) => {
            format!("{} in worker {worker}", job_state(detail.row.state))
        }
        (None, None) => job_state(detail.row.state).to_owned(),
    }
}

fn policy(detail: &JobDetail) -> String {
    let limit = |ms: Option<u64>| ms.map_or_else(|| "none".to_owned(), |ms| Span::ms(ms).to_string());
    let policy = &detail.policy;
    format!(
        "priority {}, timeout {}, no progress {}, cpu time {}, memory {}, grace {}, expires {}, crashes_max {}, retries_max {}",
        policy.priority,
        limit(policy.timeout_ms),
        limit(policy.no_progress_ms),
        limit(policy.cpu_ms),
        policy.memory_bytes.map_or_else(|| "none".to_owned(), bytes::exact),
        limit(policy.grace_ms.filter(|ms| *ms > 0).map(u64::from)),
        limit(policy.expires_ms),
        policy.crash_budget(),
        policy.retry_budget()
    )
}

#[cfg(test)]
mod tests {
    use bulkhead_proto::client::evidence::Evidence;
    use bulkhead_proto::client::view::{JobDeath, JobRow};
    use bulkhead_proto::death::Death;
    use bulkhead_proto::ids::WorkerId;
    use bulkhead_proto::job::{JobState, Policy};

    use super::*;

    #[test]
    fn a_crashed_job_shows_its_evidence_and_what_to_do() {
        let row = JobRow {
            job: JobId(17),
            kind: "chaos".to_owned(),
            state: JobState::Ended,
            outcome: Some("crashed".to_owned()),
            attempts: 1,
            crashes: 1,
            uid: 1000,
            accepted_us: 1_000_000,
        };
        let death = Death::Signalled { signal: 9, core: false };
        let detail = JobDetail {
            row,
            policy: Policy { timeout_ms: Some(5000), memory_bytes: Some(512 << 20), ..Policy::default() },
            flavour: 7,
            attached: false,
            has_files: false,
            input: "kill".to_owned(),
            worker: None,
            parts: Some(Parts { done: 12, running: 2, total: 100 }),
            outcome: Some(Outcome::Crashed { crashes: 1, last: "SIGKILL".to_owned() }),
            output_bytes: None,
            output_gone: None,
            ended_us: Some(1_000_412),
            deaths: vec![JobDeath {
                at_us: 1_000_400,
                part: None,
                attempt: 1,
                worker: WorkerId(3),
                pid: 812,
                death,
                charged: true,
                evidence: Evidence { last_words: "row 7".to_owned(), ..Evidence::default() },
            }],
            survivors: vec![Survivor { pid: 813, uid: Some(0), name: "sud\u{1b}o".to_owned() }],
        };
        let text = describe(&detail, &mut SymbolCache::default()).join("\n");
        for part in [
            "job       17 of user 1000, kept for wait and result",
            "kind      chaos, flavour 7\n",
            "state     crashed: killed 1 worker, by SIGKILL; quarantined",
            "412us after it was accepted",
            "parts     12 done, 2 running, of 100",
            "timeout 5.00s, no progress none, cpu time none, memory 512M, grace none, expires none",
            "attempt 1: worker 3 (pid 812) died of SIGKILL",
            "\n  said      \"row 7\"\n",
            "left      process 813 (sud\\u{1b}o, user 0): it could not be ended\n",
            "`bulkhead retry 17`",
        ] {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
    }
}

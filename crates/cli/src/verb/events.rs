//! `bulkhead events`: the daemon's events, one line each; with `--follow`, also new ones as they happen.
//!
//! A line has the time (UTC, to the microsecond) and the event in the words of the daemon's own log. After a crash it
//! shows the cause of death, the job that was charged, the replacement worker, and when the next attempt began.

use anyhow::Result;
use bulkhead_proto::client::exit;
use bulkhead_proto::client::record::Record;
use bulkhead_views::answer;
use bulkhead_views::time::utc;

use crate::args::GlobalArgs;
use crate::stdio::StdoutWriter;

const EXAMPLES: &str = "\
Examples:
  bulkhead events
  bulkhead events --follow
  bulkhead events --json | jq 'select(.event == \"died\")'

Moments are UTC. Spans carry their unit: 412us, 1.24ms, 3.05s.";

/// Shows the daemon's events: deaths, blame, replacements, retries
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Go on with new events as they happen
    #[arg(short, long)]
    follow: bool,
    /// Only events after the one with this index
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    after: u64,
}

impl Args {
    pub(crate) fn perform(&self, global: &GlobalArgs) -> Result<u8> {
        let mut client = global.connect()?;
        let mut out = StdoutWriter::new();
        for batch in client.events(self.after, self.follow)? {
            let batch = batch?;
            if batch.missed > 0 && global.json {
                out.json(&answer::missed(batch.missed))?;
            } else if batch.missed > 0 {
                out.line(format_args!(
                    "missed {} events: this command read too slowly and the daemon dropped them",
                    batch.missed
                ))?;
            }
            for record in &batch.records {
                if global.json { out.json(record)? } else { out.line(line(record))? }
            }
            out.flush()?;
        }
        Ok(exit::DONE)
    }
}

/// A record as one line.
fn line(record: &Record) -> String {
    format!("{} {}", utc(record.at_us), record.what)
}

#[cfg(test)]
mod tests {
    use bulkhead_proto::client::evidence::Evidence;
    use bulkhead_proto::client::outcome::{Outcome, Survivor};
    use bulkhead_proto::client::record::{Enough, JobRange, What};
    use bulkhead_proto::death::{Death, KillReason, Violation};
    use bulkhead_proto::ids::{JobId, SlotId, WorkerId};

    use super::*;

    const W: WorkerId = WorkerId(3);
    const J: JobId = JobId(17);

    /// Records about the journal, in the same way.
    fn of_journal() -> Vec<(What, &'static str)> {
        let text = || "two\nlines".to_owned();
        vec![
            (What::Reloaded { jobs: 7, kindless: 2 }, "count=7 without_a_kind=2"),
            (What::Kindless { first: J, count: 3, kind: text() }, "first=17 count=3"),
            (What::JournalFailed { why: text() }, "stores nothing"),
            (What::JournalRecovered, "stores again"),
        ]
    }

    /// Every kind of record but those about the journal, and words that its line must have.
    fn all() -> Vec<(What, &'static str)> {
        let (text, death) = (|| "two\nlines".to_owned(), Death::Signalled { signal: 9, core: false });
        let (slot, survivor) = (Some(SlotId(1)), Survivor { pid: 8, uid: Some(0), name: text() });
        let jobs = vec![JobRange { first: J, last: JobId(19) }];
        let violation = KillReason::Violation { violation: Violation::ClaimWord };
        vec![
            (What::Started { pid: 8, slots: 2 }, "pid=8 slots=2"),
            (What::Spawned { worker: W, pid: 8 }, "worker=3 pid=8"),
            (What::Ready { worker: W, pid: 8, after_us: 1240 }, "after=1.24ms"),
            (What::SpawnFailed { worker: W, error: text(), retry_after_ms: 100 }, "100.00ms"),
            (
                What::Placed {
                    worker: W,
                    slot: SlotId(1),
                    replaces: Some(WorkerId(2)),
                    after_us: 312,
                    warm: true,
                },
                "replaces=2 after=312us",
            ),
            (
                What::Placed { worker: W, slot: SlotId(1), replaces: None, after_us: 0, warm: false },
                "worker=3 slot=1",
            ),
            (What::Killing { worker: W, job: Some(J), why: violation }, "job=17"),
            (
                What::Died {
                    worker: W,
                    pid: 8,
                    slot,
                    death,
                    evidence: Evidence::default(),
                    noticed_after_us: None,
                    ended: 41,
                },
                "SIGKILL",
            ),
            (What::WorkerGone { worker: W, slot: None }, "worker=3 slot=none"),
            (What::Stuck { worker: W, pid: 8, seen: None }, "worker=3 pid=8"),
            (
                What::LivesOn { survivor, worker: Some(W), job: Some(J) },
                "pid=8 name=\"two\\nlines\" uid=0 worker=3 job=17",
            ),
            (What::Accepted { first: J, count: 5, kind: "noop".into(), uid: 7 }, "first=17 count=5"),
            (
                What::Blamed { job: J, part: None, attempt: 1, worker: W, crashes: 1, crashes_max: 3 },
                "crashes=1/3",
            ),
            (What::NobodyBlamed { worker: W }, "worker=3"),
            (What::Requeued { worker: W, count: 9 }, "count=9"),
            (
                What::Retried { job: J, part: None, attempt: 2, worker: W, after_us: 410, alone: true },
                "after=410us",
            ),
            (What::Backoff { job: J, part: None, attempt: 1, message: text(), retry_after_ms: 5 }, "5.00ms"),
            (What::Ended { job: J, outcome: Outcome::Cancelled, attempts: 2, after_us: 7 }, "cancelled"),
            (What::EndedQueued { outcome: Outcome::Expired, gone_ms: None, count: 3, jobs }, "jobs=17..19"),
            (What::RetryAsked { job: J }, "job=17"),
            (What::Degraded { pool: "heavy".to_owned(), reason: text() }, "degraded pool=heavy"),
            (What::Recovered { pool: "heavy".to_owned() }, "pool=heavy"),
            (What::Short { what: text() }, "wait"),
            (What::SuspendedOften { worker: W, count: 9999 }, "count=9999"),
            (What::Evicted { count: 4, limit: text() }, "count=4"),
            (What::Draining { left: 6, grace_ms: Some(30_000) }, "left=6 grace=30.00s"),
            (What::Stopped, "stopped"),
            (What::Recycled { worker: W, why: Enough::Tasks { ended: 500 } }, "worker=3 tasks=500"),
            (What::Recycled { worker: W, why: Enough::Age { ms: 1240 } }, "worker=3 age=1.24s"),
            (What::Recycled { worker: W, why: Enough::Resident { bytes: 4096 } }, "resident_bytes=4096"),
        ]
    }

    #[test]
    fn every_record_is_one_line_with_its_moment_and_its_fields() {
        for (what, part) in all().into_iter().chain(of_journal()) {
            let text = line(&Record { index: 1, at_us: 1_795_356_187_123_456, what });
            assert!(text.starts_with("2026-11-22T14:03:07.123456Z "), "{text}");
            assert!(text.contains(part), "{part:?} is not in {text:?}");
            assert!(!text.contains('\n'), "{text:?}");
        }
    }

    #[test]
    fn every_record_is_one_json_object_with_its_event() {
        for (what, _) in all().into_iter().chain(of_journal()) {
            let value = serde_json::to_value(Record { index: 1, at_us: 2, what }).unwrap();
            assert!(value["event"].is_string() && value["index"] == 1 && value["at_us"] == 2, "{value}");
        }
    }
}

//! Admission: how many jobs of a submit the queue has room for, and [`Jobs::admit`], which queues them.
//!
//! The queue is bounded in jobs and in bytes of input. When it is full, a user with less than 1/64 of it may still
//! add jobs, up to 1/8 beyond the bound for all such users together: one user's flood does not shut the others out.
//! The request itself is checked by `machine/submit.rs`, which drives this file.

use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::job::Payload;

use crate::job::batch::Batch;
use crate::job::run::TaskRun;
use crate::job::state::TaskKind;
use crate::job::{Admission, Jobs};
use crate::turn::{Alarm, AlarmSlot, Counter, Turn};

/// A user with less than this part of the queue may go beyond its bound...
const SMALL_PART: u64 = 64;
/// ...by at most this part of it, all such users together.
const BEYOND_PART: u64 = 8;

impl Jobs {
    /// How many of these inputs fit into the queue, and the refusal of the rest.
    pub(crate) fn room(&self, turn: &Turn, uid: u32, inputs: &[Payload]) -> (u64, Option<Refusal>) {
        let (config, count) = (turn.config(), inputs.len() as u64);
        let small = self.queues.length_of(uid) < config.queue_max / SMALL_PART;
        let bound = |max: u64| if small { max.saturating_add(max / BEYOND_PART) } else { max };
        // Jobs that wait for a backoff or a fresh worker return to the queue, so they keep their places in it.
        let waiting = self.queued() + self.retrying();
        let jobs_left = bound(config.queue_max).saturating_sub(waiting);
        let mut bytes_left = bound(config.queue_bytes_max).saturating_sub(self.queues.bytes());
        // Inputs are admitted in order up to the first that does not fit: the numbers of a batch have no gap.
        let mut fitting = 0;
        for input in inputs {
            let bytes = input.as_bytes().len() as u64;
            if bytes > bytes_left {
                break;
            }
            bytes_left -= bytes;
            fitting += 1;
        }
        let busy = |what: &str, limit: u64, over: u64| {
            let retry_after_ms = turn.retry_after_ms(over);
            Some(Refusal::Busy { what: what.to_owned(), limit, retry_after_ms })
        };
        if count <= jobs_left.min(fitting) {
            (count, None)
        } else if jobs_left <= fitting {
            (jobs_left, busy("the queue", config.queue_max, count - jobs_left))
        } else {
            (fitting, busy("the room for inputs in the queue", config.queue_bytes_max, count - fitting))
        }
    }

    /// Queues the first `count` jobs of a checked submit and returns the run of the first.
    ///
    /// # Panics
    /// If there is no job to take in, fewer inputs than jobs, or files for more than one job.
    pub(crate) fn admit(&mut self, turn: &mut Turn, admission: Admission) -> TaskRun {
        let Admission { client, tag, uid, kind, pool, submit, files, count } = admission;
        assert!(count > 0 && submit.inputs.len() >= count as usize, "jobs are taken in with their inputs");
        assert!(files.is_empty() || count == 1, "files are taken in with one job");
        let first = self.table.next_id();
        let mut expiry = AlarmSlot::default();
        if let Some(limit_ms) = submit.policy.expires_ms {
            turn.set(&mut expiry, Alarm::Expiry(first, count), turn.after_ms(limit_ms));
        }
        let (plans, logs) = turn.kind(kind).map_or((false, false), |kind| (kind.plans, kind.logs));
        let batch = self.table.open_batch(Batch {
            first,
            count,
            refs: 0,
            kind,
            logs,
            pool,
            policy: submit.policy,
            uid,
            client,
            tag,
            attached: submit.attached,
            held: submit.held,
            progress: submit.progress,
            watched: submit.attached,
            accepted_us: turn.wall_us(),
            since_ns: turn.now_ns(),
            expiry,
        });
        let attachments = self.attachments.hold(uid, submit.files, files);
        let task_kind = if plans { TaskKind::Plan } else { TaskKind::Whole };
        let mut run = None;
        for input in submit.inputs.into_iter().take(count as usize) {
            let key = self.table.insert(batch, input, task_kind);
            if let Some(attachments) = attachments {
                let rare = self.table[key].rare_mut();
                (rare.attachments, rare.has_files) = (Some(attachments), true);
            }
            self.queues.push_back(&mut self.table, key);
            run.get_or_insert(self.table.run(key));
        }
        turn.count(Counter::Accepted, u64::from(count));
        TaskRun { count, ..run.expect("at least one was taken in") }
    }
}

//! Admission: which jobs are taken, and what those are told that are not.
//!
//! The queue is bounded in jobs and bytes. When it is full, users who have next to nothing in it may still add a
//! little, so that one user's flood does not shut the others out.

use bulkhead_proto::client::message::{Reply, Submit};
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::ids::{ClientId, KindId, Tag};
use bulkhead_proto::job::Payload;
use bulkhead_proto::limits::{BATCH_MAX, INLINE_MAX_BYTES};

use crate::event::{Attached, Peer};
use crate::job::batch::Batch;
use crate::job::entry::{Phase, Step};
use crate::job::grant;
use crate::machine::Core;
use crate::turn::{Alarm, AlarmSlot, Tally};

/// A user with less than this part of the queue may go beyond its bound...
const SMALL_PART: u64 = 64;
/// ...by at most this part of it, all such users together.
const BEYOND_PART: u64 = 8;

impl Core {
    /// A client submits jobs.
    pub(crate) fn submit(&mut self, id: ClientId, tag: Tag, mut submit: Submit, files: Vec<Attached>) {
        let Some(Peer { uid, admin }) = self.clients.connected(id).map(|client| client.peer) else { return };
        let count = submit.inputs.len() as u64;
        let kind = self.check(&submit);
        let kind = kind.and_then(|kind| {
            grant::grant(&self.turn.config().kinds[usize::from(kind.0)], &mut submit.policy, admin)?;
            self.check_files(uid, &submit, &files)?;
            Ok(kind)
        });
        let kind = match kind {
            Ok(kind) => kind,
            Err(refusal) => {
                self.turn.count(Tally::Refused, count);
                self.turn_away(files);
                return self.refuse(id, tag, refusal);
            }
        };
        let (room, refusal) = self.room(uid, &submit.inputs);
        self.turn.count(Tally::Refused, count - room);
        match refusal {
            Some(refusal) if room == 0 => {
                self.turn_away(files);
                self.refuse(id, tag, refusal);
            }
            refused => {
                let first = self.jobs.next_id();
                let name = submit.kind.clone();
                let attached = submit.attached;
                self.take_in(id, tag, uid, kind, (submit, files), room);
                let count = u32::try_from(room).expect("a batch is bounded far below 2^32");
                self.turn.record(What::Accepted { first, count, kind: name, uid }, Some(uid));
                self.reply(id, tag, Reply::Accepted { first, count, refused }, 48);
                if attached {
                    self.notify_waiter(id);
                }
            }
        }
    }

    /// Whether the request may be looked at at all. Everything in it is hostile: texts are cut before they are repeated.
    fn check(&self, submit: &Submit) -> Result<KindId, Refusal> {
        let invalid = |why: String| Err(Refusal::Invalid { why });
        if !self.drain.is_open() {
            return Err(Refusal::Draining);
        }
        let Some(place) = self.turn.config().kinds.iter().position(|kind| kind.name == submit.kind) else {
            let kind = submit.kind.chars().take(80).collect();
            let known = self.turn.config().kinds.iter().map(|kind| kind.name.clone()).collect();
            return Err(Refusal::UnknownKind { kind, known });
        };
        if let Some(missing) = grant::missing_file(&self.turn.config().kinds[place], &submit.files) {
            return invalid(missing);
        }
        if submit.progress && !submit.attached {
            return invalid("progress is told to whom the jobs are attached, and these are not".to_owned());
        }
        if submit.inputs.is_empty() {
            return invalid("the submit has no inputs".to_owned());
        }
        if submit.inputs.len() > BATCH_MAX {
            return invalid(format!("{} inputs in one submit, at most {BATCH_MAX} fit", submit.inputs.len()));
        }
        if let Some(fault) = submit.policy.fault() {
            return invalid(fault);
        }
        if let Some((at, input)) = submit.inputs.iter().enumerate().find(|(_, input)| !input.fits()) {
            let bytes = input.as_bytes().len();
            return invalid(format!(
                "input {at} has {bytes} bytes, at most {INLINE_MAX_BYTES} travel inline"
            ));
        }
        Ok(KindId(u16::try_from(place).expect("the table of kinds is short")))
    }

    /// How many of these inputs there is room for, and why not for more.
    fn room(&self, uid: u32, inputs: &[Payload]) -> (u64, Option<Refusal>) {
        let (config, count) = (self.turn.config(), inputs.len() as u64);
        let small = self.queues.length_of(uid) < config.queue_max / SMALL_PART;
        let bound = |max: u64| if small { max.saturating_add(max / BEYOND_PART) } else { max };
        // Whoever waits for a backoff or a fresh worker will come back to the queue, so they hold their places.
        let held = [Phase::Queued, Phase::Waiting, Phase::Solo];
        let waiting: u64 = held.into_iter().map(|phase| self.jobs.count(phase)).sum();
        let jobs_left = bound(config.queue_max).saturating_sub(waiting);
        let mut bytes_left = bound(config.queue_bytes_max).saturating_sub(self.queues.bytes());
        // The first ones that fit, in order, and none behind one that does not: ids follow each other without a gap.
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
            let retry_after_ms = self.turn.retry_after_ms(over);
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

    /// Queues the first `count` jobs of a submit that was checked.
    fn take_in(
        &mut self,
        id: ClientId,
        tag: Tag,
        uid: u32,
        kind: KindId,
        (submit, files): (Submit, Vec<Attached>),
        count: u64,
    ) {
        let count = u32::try_from(count).expect("a batch is bounded far below 2^32");
        let now_ns = self.turn.now_ns();
        let first = self.jobs.next_id();
        let mut expiry = AlarmSlot::default();
        if let Some(limit_ms) = submit.policy.expires_ms {
            self.turn.set(&mut expiry, Alarm::Expiry(first, count), self.turn.after_ms(limit_ms));
        }
        let (plans, logs) = self.turn.kind(kind).map_or((false, false), |kind| (kind.plans, kind.logs));
        let batch = self.jobs.open_batch(Batch {
            first,
            count,
            refs: 0,
            kind,
            logs,
            pool: self.pools.of_kind(kind),
            policy: submit.policy,
            uid,
            client: id,
            tag,
            attached: submit.attached,
            progress: submit.progress,
            watched: submit.attached,
            accepted_us: self.turn.wall_us(),
            since_ns: now_ns,
            expiry,
        });
        let freight = self.load(uid, submit.files, files);
        let step = if plans { Step::Plan } else { Step::Whole };
        for input in submit.inputs.into_iter().take(count as usize) {
            let key = self.jobs.insert(batch, input, step);
            if let Some(freight) = freight {
                let aside = self.jobs[key].aside_mut();
                (aside.freight, aside.has_files) = (Some(freight), true);
            }
            self.queues.push_back(&mut self.jobs, key);
        }
        if submit.attached {
            self.attach(id, first, batch);
        }
        self.turn.count(Tally::Accepted, u64::from(count));
    }
}

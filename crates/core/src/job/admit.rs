//! [`Jobs::admit`] queues the jobs of a submit that was checked and for which there is room.
//!
//! `machine/submit.rs` checks the request and drives this file; `machine/admission.rs` knows for how many jobs there is
//! room.

use std::rc::Rc;

use bulkhead_proto::ids::JobId;

use crate::job::batch::Batch;
use crate::job::level::Entering;
use crate::job::list::IntrusiveList;
use crate::job::run::TaskRun;
use crate::job::state::TaskKind;
use crate::job::{Admission, Jobs, UnnamedJob};
use crate::turn::{Alarm, AlarmSlot, Counter, Turn};

impl Jobs {
    /// Reserves numbers for so many jobs; the first of them.
    pub(crate) fn reserve(&mut self, count: u32) -> JobId {
        self.table.reserve(count)
    }

    /// Queues the first `count` jobs of a checked submit and returns the run of the first.
    ///
    /// # Panics
    /// If there is no job to take in, fewer inputs than jobs, or files for more than one job.
    pub(crate) fn admit(&mut self, turn: &mut Turn, admission: Admission) -> TaskRun {
        let Admission { client, tag, uid, account, kind, pool, submit, files, count, first, named } =
            admission;
        assert!(count > 0 && submit.inputs.len() >= count as usize, "jobs are taken in with their inputs");
        assert!(files.is_empty() || count == 1, "files are taken in with one job");
        let first = first.unwrap_or_else(|| self.table.reserve(count));
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
            account,
            client,
            tag,
            attached: submit.attached,
            held: submit.held,
            durable: submit.durable.is_some(),
            flavour: submit.flavour,
            progress: submit.progress,
            watched: submit.attached,
            accepted_us: turn.wall_us(),
            since_ns: turn.now_ns(),
            expiry,
        });
        let attachments = self.attachments.hold(turn, account, submit.files, files);
        let task_kind = if plans { TaskKind::Plan } else { TaskKind::Whole };
        let mut list = IntrusiveList::default();
        for (number, input) in (first.0..).zip(submit.inputs).take(count as usize) {
            let key = self.table.insert(batch, JobId(number), input, task_kind);
            if let Some(attachments) = attachments {
                let rare = self.table[key].rare_mut();
                (rare.attachments, rare.has_files) = (Some(attachments), true);
            }
            if let Some(named) = &named {
                let named = Rc::clone(named);
                let job = UnnamedJob { job: self.table[key].id, client, named, is_told: false };
                let held = self.attachments.hold_named(attachments, account, job);
                let rare = self.table[key].rare_mut();
                (rare.attachments, rare.has_registered) = (Some(held), true);
            }
            list.push_back(&mut self.table.slab, key);
        }
        let first = list.head().expect("at least one was taken in");
        self.queues.append(&mut self.table, Entering { list, count: u64::from(count) });
        turn.count(Counter::Accepted, u64::from(count));
        TaskRun { count, ..self.table.run(first) }
    }
}

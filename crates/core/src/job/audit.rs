//! The invariants of this room between two turns, as assertions: counts, lists, parts, attachments, logs, kept jobs.
//!
//! [`Jobs::audit`] walks everything: the simulation and the tests call it after each turn, the daemon never does.
//! Invariants between jobs and workers are in `machine/audit.rs`.

use std::collections::BTreeMap;

use bulkhead_proto::ids::{Fence, JobId, PoolId, Seq, WorkerId};

use crate::job::held_outputs::{FILES_OF_PARTS, files_of_offer};
use crate::job::part_set::{FIRST_PART, part_of};
use crate::job::run::Ticket;
use crate::job::state::{EntryState, PHASES, Phase, Retention, TaskKind};
use crate::job::{Jobs, OfferRef};
use crate::turn::{AccountId, Alarm, Resource, Turn};

impl Jobs {
    /// Checks every invariant of this room; `tickets` are the tickets of all offers that workers hold, `held` the workers of
    /// each pool by the user who holds them.
    ///
    /// # Panics
    /// If one is broken: the machine is wrong.
    pub(crate) fn audit(
        &self,
        turn: &Turn,
        tickets: impl Iterator<Item = Ticket>,
        held: &[Option<&BTreeMap<u32, Option<u32>>>],
    ) {
        self.audit_table();
        self.audit_entries(turn);
        self.audit_parts();
        let tickets: Vec<Ticket> = tickets.collect();
        self.audit_outputs(&tickets);
        self.audit_attachments(tickets.into_iter());
        self.logs.audit(&self.table);
        self.kept.audit(&self.table);
        self.deaths.audit();
        self.due.audit();
        assert!(self.unbegun.is_empty(), "jobs that ended before they began are recorded in the same turn");
        let count_all = |phase| self.table.count(phase) + self.table.count_parts(phase);
        assert_eq!(
            self.queues.audit(&self.table, held),
            count_all(Phase::Queued),
            "queued jobs are in the queue"
        );
        assert_eq!(self.queues.audit_solo(&self.table), count_all(Phase::Solo));
    }

    /// Every task that runs: its number, fence, worker, sequence number and pool.
    pub(crate) fn all_running(&self) -> impl Iterator<Item = (JobId, Fence, WorkerId, Seq, PoolId)> + '_ {
        self.table.slab.iter().filter_map(|(_, job)| match job.state {
            EntryState::Running { worker, seq, .. } => {
                Some((job.id, job.fence, worker, seq, self.table.batches[job.batch as usize].pool))
            }
            EntryState::Queued
            | EntryState::Waiting { .. }
            | EntryState::Solo
            | EntryState::Parted
            | EntryState::Ended(_) => None,
        })
    }

    /// The account and the user of each job.
    pub(crate) fn accounts(&self) -> impl Iterator<Item = (AccountId, u32)> + '_ {
        self.table.slab.iter().map(|(key, _)| {
            let batch = self.table.batch(key as u32);
            (batch.account, batch.uid)
        })
    }

    /// What accounts hold here, in any number of rows.
    pub(crate) fn holdings(&self) -> impl Iterator<Item = (AccountId, Resource, u64)> + '_ {
        let jobs = self.table.slab.iter().filter(|(_, job)| !job.is_part()).flat_map(|(key, job)| {
            let account = self.table.batch(key as u32).account;
            let waiting = u64::from(job.state.phase().waits());
            let untold = job.end().is_some_and(|end| end.retention == Retention::Untold);
            [
                (account, Resource::Jobs, 1),
                (account, Resource::Queue, waiting),
                (account, Resource::QueueBytes, waiting * job.input.as_bytes().len() as u64),
                (
                    account,
                    Resource::UnreadResults,
                    u64::from(untold) * (job.kept_bytes() + self.output_bytes_of(key as u32)),
                ),
            ]
        });
        let deaths = self.deaths.counts().map(|(account, held)| (account, Resource::Deaths, held));
        jobs.chain(self.attachments.held())
            .chain(self.kept_by_account())
            .chain(self.idle_logs())
            .chain(self.outputs.blocks().map(|(account, bytes)| (account, Resource::ArenaBytes, bytes)))
            .chain(deaths)
    }

    /// Whether the task of a current offer runs alone; `None` if the offer is not current.
    pub(crate) fn current_alone(&self, offer: &OfferRef) -> Option<bool> {
        self.current(offer).map(|run| self.job(run).alone)
    }

    /// When a progress subscription is looked at next.
    pub(crate) fn subscription_ns(&self, job: JobId) -> Option<u64> {
        self.progress_alarm_ns(job)
    }

    /// Counts the table afresh and compares that with the counters.
    fn audit_table(&self) {
        let mut counts = [[0; PHASES]; 2];
        let mut refs = 0;
        for (_, job) in self.table.slab.iter() {
            counts[usize::from(job.is_part())][job.state.phase() as usize] += 1;
        }
        use Phase::{Ended, Parted, Queued, Running, Solo, Waiting};
        for phase in [Queued, Waiting, Solo, Running, Parted, Ended] {
            let [jobs, parts] = counts.map(|counts| counts[phase as usize]);
            assert_eq!(jobs, self.table.count(phase), "jobs are counted by phase {phase:?}");
            assert_eq!(parts, self.table.count_parts(phase), "parts are counted by phase {phase:?}");
        }
        for (_, batch) in self.table.batches.iter() {
            assert!(batch.refs > 0, "a batch goes with its last job");
            refs += u64::from(batch.refs);
        }
        let part_sets = self.part_sets.iter().count() as u64;
        assert_eq!(
            refs,
            self.table.slab.len() as u64 + part_sets,
            "every job has a batch, and so have its parts"
        );
    }

    fn audit_entries(&self, turn: &Turn) {
        for (at, job) in self.table.slab.iter() {
            assert_eq!(self.table.find(job.id), u32::try_from(at).ok(), "a job is found by its number");
            assert!(job.end().is_some() || job.attempts <= job.fence.0, "an attempt is an offer");
            assert_eq!(job.is_part(), job.id >= FIRST_PART, "parts have numbers of their own");
            let has_parts = matches!(job.state, EntryState::Parted)
                || job.end().is_none() && job.task_kind == TaskKind::Merge;
            assert_eq!(job.part_set().is_some(), has_parts, "a job has parts from its plan to its end");
            match &job.state {
                EntryState::Solo => assert!(job.alone, "only charged jobs wait to run alone"),
                EntryState::Queued => assert!(!job.alone, "a charged job never shares a worker again"),
                EntryState::Waiting { alarm } => {
                    let wanted = alarm.at_ns().map(|at_ns| (at_ns, Alarm::Backoff(job.id)));
                    assert!(turn.alarms().any(|alarm| Some(*alarm) == wanted), "a backoff ends");
                }
                EntryState::Running { .. } | EntryState::Parted | EntryState::Ended(_) => {}
            }
        }
    }

    /// Every part has a job, and every job with parts has them all.
    fn audit_parts(&self) {
        let mut live = 0;
        for (id, part_set) in self.part_sets.iter() {
            let job = &self.table[part_set.job];
            assert_eq!((job.id, job.part_set()), (part_set.id, Some(id)), "parts have a job");
            assert_eq!(
                part_set.next,
                part_set.done + part_set.live.len() as u32,
                "a part that was made is done, or is there"
            );
            assert!(part_set.next <= part_set.parts, "no more parts than were planned");
            assert_eq!(
                part_set.done == part_set.parts,
                job.task_kind == TaskKind::Merge,
                "when all are done, they are merged"
            );
            for part in &part_set.live {
                let found = part_of(self.table[*part].id);
                assert!(
                    found.is_some_and(|(of, part)| of == id && part < part_set.next),
                    "a part knows its job"
                );
            }
            live += part_set.live.len() as u64;
        }
        let there = self.table.slab.iter().filter(|(_, job)| job.is_part()).count() as u64;
        assert_eq!(there, live, "every part has a job that waits for it");
    }

    /// What is promised to outputs is promised to an offer or a job.
    fn audit_outputs(&self, tickets: &[Ticket]) {
        let of_offer = |ticket: &Ticket| (ticket.account, ticket.granted, files_of_offer(ticket.granted));
        let of_jobs = self.attachments.promised().map(|(account, bytes)| (account, bytes, FILES_OF_PARTS));
        let mut promised = BTreeMap::<AccountId, (u64, u64)>::new();
        for (account, bytes, files) in
            tickets.iter().map(of_offer).chain(of_jobs).filter(|(_, bytes, _)| *bytes > 0)
        {
            let sums = promised.entry(account).or_default();
            *sums = (sums.0 + bytes, sums.1 + files);
        }
        self.outputs.audit(&promised);
    }

    /// How many files of outputs and logs each account holds.
    pub(crate) fn open_outputs(&self) -> impl Iterator<Item = (AccountId, u64)> + '_ {
        self.outputs.open_files()
    }

    /// What each account holds of memory in outputs and logs.
    pub(crate) fn output_bytes_by_account(&self) -> BTreeMap<AccountId, u64> {
        self.outputs.charged()
    }

    /// Attachments are held by jobs that have not ended and by offers, and by nothing else.
    fn audit_attachments(&self, tickets: impl Iterator<Item = Ticket>) {
        let mut users = BTreeMap::new();
        let jobs = self.table.slab.iter().map(|(_, job)| job).filter(|job| job.end().is_none());
        let of_jobs = jobs.filter_map(|job| job.attachments());
        for attachments in of_jobs.chain(tickets.filter_map(|ticket| ticket.attachments)) {
            *users.entry(attachments).or_default() += 1;
        }
        self.attachments.audit(&users);
    }
}

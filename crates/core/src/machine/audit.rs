//! The invariants between any two turns, as assertions: those of each room, and those between rooms.
//!
//! It walks everything, so it is for the simulation and the tests, which call it after each turn; the daemon
//! never does.

use std::collections::BTreeMap;

use bulkhead_facts::durable_job::DurableJob;
use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::Payload;

use crate::machine::Core;
use crate::machine::settle::held_by;
use crate::turn::{Alarm, Resource};

/// What rooms tell of what they hold (`holdings`), and charge.
const AUDITED: [Resource; 19] = [
    Resource::Connections,
    Resource::Jobs,
    Resource::Queue,
    Resource::QueueBytes,
    Resource::Files,
    Resource::FileBytes,
    Resource::ArenaBytes,
    Resource::Registrations,
    Resource::Waits,
    Resource::LookUps,
    Resource::Submits,
    Resource::SubmitBytes,
    Resource::Readers,
    Resource::UnreadResults,
    Resource::Kept,
    Resource::KeptBytes,
    Resource::Quarantined,
    Resource::Logs,
    Resource::Deaths,
];

impl Core {
    /// The durable state of each durable job in the table: its counts, without the attempt that runs and without `fence` and
    /// `lost_since`; its input, and whether it has ended.
    pub fn durable_states(&self) -> impl Iterator<Item = (JobId, DurableJob, &Payload, bool)> + '_ {
        self.jobs.durable_states()
    }

    /// How many facts are not stored.
    pub fn unstored(&self) -> u64 {
        self.turn.facts().count()
    }

    /// Checks every invariant of the machine.
    ///
    /// # Panics
    /// If one is broken: the machine is wrong.
    pub fn audit(&self) {
        assert!(self.turn.is_at_rest(), "a turn keeps nothing back");
        let offers = self.workers.iter().flat_map(|(_, worker)| worker.ring().iter());
        let held: Vec<_> = self.workers.pool_ids().map(|pool| self.workers.all_held(pool)).collect();
        let held: Vec<_> = held.iter().map(Option::as_ref).collect();
        self.jobs.audit(&self.turn, offers.map(|offer| offer.ticket()), &held);
        self.workers.audit();
        self.audit_ledger();
        self.audit_parked();
        self.clients.audit_sent(|job| self.jobs.is_held(job));
        self.audit_offers();
        self.audit_registrations();
        self.audit_waiting_cancels();
        self.audit_alarms();
    }

    /// The ledger has what the rooms hold.
    fn audit_ledger(&self) {
        self.ledger.audit();
        let waiting = self.held_back.holdings().filter(|(_, resource, _)| *resource == Resource::Queue);
        let waiting: u64 = waiting.map(|(_, _, count)| count).sum();
        let queued = self.jobs.queued() + self.jobs.retrying() + waiting;
        assert_eq!(self.ledger.held_by_all(Resource::Queue), queued, "queued jobs are in the ledger");
        let charged = self.jobs.output_bytes_by_account();
        let held = self.ledger.held_by_all(Resource::OutputBytes);
        assert_eq!(held, charged.values().sum::<u64>(), "outputs and logs are in the ledger");
        for (account, bytes) in charged {
            assert_eq!(
                self.ledger.held(account, Resource::OutputBytes),
                bytes,
                "each in the account of its user"
            );
        }
        let mut files = 0;
        for (account, open) in self.jobs.open_outputs() {
            assert_eq!(self.ledger.held(account, Resource::OpenOutputs), open, "and they are files");
            files += open;
        }
        assert_eq!(self.ledger.held_by_all(Resource::OpenOutputs), files, "all files are in the ledger");
        let records = self.turn.records().count();
        assert_eq!(self.ledger.held_by_all(Resource::Records), records, "records are in the ledger");
        self.turn.records().audit();
        for resource in
            [Resource::Kept, Resource::KeptBytes, Resource::Quarantined, Resource::Records, Resource::Deaths]
        {
            assert_eq!(self.ledger.largest_of_too_much(resource), None, "{} are bounded", resource.name());
        }
        for (account, uid) in self.jobs.accounts() {
            assert_eq!(self.ledger.find(uid), Some(account), "a batch has the account of its user");
        }
        let mut rooms = BTreeMap::<_, u64>::new();
        for (account, resource, count) in
            self.jobs.holdings().chain(self.clients.holdings()).chain(self.held_back.holdings())
        {
            *rooms.entry((account, resource)).or_default() += count;
        }
        for (account, holder) in self.ledger.accounts() {
            for resource in AUDITED {
                let held = rooms.remove(&(account, resource)).unwrap_or_default();
                let name = resource.name();
                assert_eq!(
                    self.ledger.held(account, resource),
                    held,
                    "{name} of {holder:?} are in the ledger"
                );
            }
        }
        rooms.retain(|_, held| *held > 0);
        assert_eq!(rooms, BTreeMap::new(), "who holds something has an account");
    }

    /// Each running job is the current one of exactly one offer.
    fn audit_offers(&self) {
        // An offer of a job that has ended, or was offered again, is not current, though its worker holds it.
        let mut current = 0;
        for (id, worker) in self.workers.iter() {
            let mut lonely = false;
            for offer in worker.ring().iter() {
                let Some(alone) = self.jobs.current_alone(&held_by(id, offer)) else { continue };
                current += 1;
                lonely |= alone;
            }
            assert!(!lonely || worker.ring().len() == 1, "a charged job shares its worker with nobody");
            assert!(!lonely || worker.ended() == 0, "a charged job runs in a fresh worker");
        }
        let mut running = 0;
        for (job, fence, id, seq, pool) in self.jobs.all_running() {
            running += 1;
            let is_its = self
                .workers
                .offer(id, seq)
                .is_some_and(|offer| offer.number() == job && offer.fence() == fence);
            assert!(is_its, "a running job is offered");
            let works_in = self.workers.get(id).map(|worker| worker.pool());
            assert_eq!(works_in, Some(pool), "a job runs in the pool of its kind");
        }
        assert_eq!(current, running, "no job is with two workers");
    }

    /// Every alarm that is set is in a slot of its owner, with the same time.
    fn audit_alarms(&self) {
        for (at_ns, alarm) in self.turn.alarms() {
            let remembered = match alarm {
                Alarm::Worker(which, id) => self.workers.alarm_ns(*id, *which),
                Alarm::Progress(job) => self.jobs.subscription_ns(*job),
                Alarm::Lend(pool, uid) => self.workers.lend_alarm_ns(*pool, *uid),
                Alarm::Shortage => self.workers.short_until_ns(),
                Alarm::Backoff(_) | Alarm::Expiry(..) | Alarm::Vanished(_) | Alarm::Grace => Some(*at_ns),
            };
            assert_eq!(remembered, Some(*at_ns), "{alarm:?} is remembered");
        }
    }
}

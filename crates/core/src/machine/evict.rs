//! What makes room at the end of a turn: kept jobs, logs, deaths and records beyond their bounds.
//!
//! A bound is for all users together. What is too much goes from the account that holds most of it, its oldest first, so
//! a flood of one user drops what that user has. The ledger knows who holds most; the rooms drop and give back. The user
//! whose things were dropped is told in a record, which names the bound.

use crate::account::AccountHolder;
use crate::job::TaskRun;
use crate::machine::Core;
use crate::turn::{AccountId, Counter, Resource};

/// Jobs dropped for their age in one turn.
const AGED_PER_TURN: usize = 4096;
/// One of so many records, of the bound, is dropped ahead of the records to come.
const RECORDS_AHEAD_PART: u64 = 256;

impl Core {
    /// Forgets kept jobs that are too old or too many.
    pub(super) fn evict(&mut self) {
        // At most [`AGED_PER_TURN`]: a million results may become too old at once. The deadline brings the next turn.
        for _ in 0..AGED_PER_TURN {
            let Some(run) = self.jobs.too_old(&self.turn) else { break };
            self.forget(run);
        }
        for resource in [Resource::Quarantined, Resource::Kept, Resource::KeptBytes] {
            self.post_charges();
            while let Some(account) = self.ledger.largest_of_too_much(resource) {
                let run = self.jobs.oldest_kept(account, resource);
                self.evict_job(run, resource);
                self.post_charges();
            }
        }
    }

    fn evict_job(&mut self, run: TaskRun, bound: Resource) {
        let uid = self.jobs.batch(run).uid();
        self.forget(run);
        self.turn.count(Counter::Evicted, 1);
        self.jobs.note_evicted(uid, bound.name(), 1);
    }

    /// Drops logs beyond their bound.
    pub(super) fn evict_logs(&mut self) {
        self.post_charges();
        while let Some(account) = self.ledger.largest_of_too_much(Resource::Logs) {
            let uid = self.jobs.evict_log(&mut self.turn, account);
            self.jobs.note_evicted(uid, Resource::Logs.name(), 1);
            self.post_charges();
        }
    }

    /// Drops deaths beyond their bound.
    pub(super) fn evict_deaths(&mut self) {
        self.post_charges();
        while let Some(account) = self.ledger.largest_of_too_much(Resource::Deaths) {
            self.jobs.drop_oldest_death(account);
            self.post_charges();
        }
    }

    /// Charges the records of the turn, and drops records beyond their bound.
    pub(super) fn evict_records(&mut self) {
        self.post_charges();
        let ledger = &mut self.ledger;
        for (uid, count) in self.turn.take_uncharged_records() {
            let account = uid.map_or(AccountId::SERVICE, |uid| ledger.open(uid));
            ledger.charge(account, Resource::Records, count);
        }
        while let Some(account) = self.ledger.largest_of_too_much(Resource::Records) {
            let uid = match self.ledger.holder(account) {
                AccountHolder::Service => None,
                AccountHolder::User(uid) => Some(uid),
            };
            // Where there are many, some more go at once: the oldest ones are in no cache, and nearly every turn brings one.
            let more = self.ledger.bound(Resource::Records) / RECORDS_AHEAD_PART;
            let count = self.ledger.held(account, Resource::Records).min(1 + more);
            (0..count).for_each(|_| self.turn.drop_oldest_record(uid));
            self.ledger.release(account, Resource::Records, count);
        }
    }
}

//! Registrations: what connections registered, which jobs name it, and which workers have it.
//!
//! | a registration is | who holds it | until |
//! |---|---|---|
//! | open | its connection, and the jobs that name it | its client drops it, or its connection ends |
//! | dropped | the jobs that name it | the last has ended and no offer of it is left: its files are dropped, its workers forget it |
//! | in use in a worker | offers in its ring that name it | the last of these is settled, or the worker is dead |
//! | idle in a worker | the worker | an offer names it; it is dropped; or more than `WORKER_REGISTRATIONS_MAX` were used after it |
//!
//! A job names its registrations from its admission until it has ended and no offer of it is left (`job/attachments.rs`). A worker
//! has one from the first offer to it that names it, and never forgets what a task names that it may still claim. The shell knows
//! what it has sent; here a registration is a number. `machine/registrations.rs` checks requests and drives this file.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bulkhead_proto::ids::{ClientId, RegistrationId, WorkerId};
use bulkhead_proto::limits::WORKER_REGISTRATIONS_MAX;
use bulkhead_proto::registration::RegistrationKind;

use crate::action::{Action, RegisteredContent};
use crate::client::Clients;
use crate::turn::{AccountId, Resource, Turn, count_down};

/// What a connection registered.
#[derive(Debug)]
struct Registration {
    owner: (ClientId, u32),
    account: AccountId,
    content: Rc<RegisteredContent>,
    /// Bytes of memory that its files pin.
    bytes: u64,
    /// Jobs that name it.
    jobs: u64,
    /// Whether its client dropped it, or is gone.
    is_dropped: bool,
    /// Workers that have it.
    workers: BTreeSet<WorkerId>,
}

impl Registration {
    /// What it counts for.
    fn holdings(&self) -> [(Resource, u64); 3] {
        let of_bytes = match self.content.kind {
            RegistrationKind::Arena => Resource::ArenaBytes,
            RegistrationKind::Files | RegistrationKind::Context => Resource::FileBytes,
        };
        let files = self.content.files.len() as u64;
        [(Resource::Registrations, 1), (Resource::Files, files), (of_bytes, self.bytes)]
    }
}

/// A registration in one worker.
#[derive(Clone, Copy, Debug, Default)]
struct Lent {
    /// Offers in the ring of the worker that name it.
    offers: u32,
    /// When it was last lent, counted over all loans.
    at: u64,
}

/// All registrations.
#[derive(Debug, Default)]
pub(super) struct RegistrationTable {
    all: BTreeMap<RegistrationId, Registration>,
    /// Those that are open, by their client and its number.
    open: BTreeMap<(ClientId, u32), RegistrationId>,
    lent: BTreeMap<WorkerId, BTreeMap<RegistrationId, Lent>>,
    last: u64,
    loans: u64,
}

impl RegistrationTable {
    /// What accounts hold here.
    pub(super) fn holdings(&self) -> impl Iterator<Item = (AccountId, Resource, u64)> + '_ {
        self.all.values().flat_map(|registration| {
            registration.holdings().map(|(resource, held)| (registration.account, resource, held))
        })
    }

    fn get_mut(&mut self, id: RegistrationId) -> &mut Registration {
        self.all.get_mut(&id).expect("a registration that a job names is there")
    }

    /// Drops a registration that nobody holds any more.
    fn remove_unheld(&mut self, turn: &mut Turn, id: RegistrationId) {
        if !self.all.get(&id).is_some_and(|found| found.is_dropped && found.jobs == 0) {
            return;
        }
        let Some(gone) = self.all.remove(&id) else { return };
        for worker in &gone.workers {
            let lent = self.lent.get_mut(worker).and_then(|lent| lent.remove(&id));
            assert!(
                lent.is_some_and(|lent| lent.offers == 0),
                "worker {worker} has no offer that names registration {id} when it goes"
            );
            turn.act(Action::Forget { worker: *worker, registration: id });
        }
        for (resource, held) in gone.holdings() {
            turn.release(gone.account, resource, held);
        }
        for (file, _) in &gone.content.files {
            turn.act(Action::DropFile { file: *file });
        }
    }

    /// Makes a worker forget what was used longest ago, if it has too many that no offer names.
    fn bound_worker(&mut self, turn: &mut Turn, worker: WorkerId) {
        let Some(lent) = self.lent.get_mut(&worker) else { return };
        let idle = |lent: &BTreeMap<RegistrationId, Lent>| {
            let idle = lent.iter().filter(|(_, lent)| lent.offers == 0);
            let oldest = idle.clone().min_by_key(|(_, lent)| lent.at).map(|(id, _)| *id);
            (idle.count(), oldest)
        };
        while lent.len() > WORKER_REGISTRATIONS_MAX
            && let (count, Some(oldest)) = idle(lent)
            && count > WORKER_REGISTRATIONS_MAX
        {
            lent.remove(&oldest);
            if let Some(registration) = self.all.get_mut(&oldest) {
                registration.workers.remove(&worker);
            }
            turn.act(Action::Forget { worker, registration: oldest });
        }
    }
}

impl Clients {
    /// A connection registers something: its content, and the bytes of memory that its files pin. The machine has checked it.
    ///
    /// # Panics
    /// If the connection has an open registration of this number.
    pub(crate) fn register(
        &mut self,
        turn: &mut Turn,
        (owner, account): ((ClientId, u32), AccountId),
        content: RegisteredContent,
        bytes: u64,
    ) {
        let table = &mut self.registrations;
        table.last += 1;
        let id = RegistrationId(table.last);
        let registration = Registration {
            owner,
            account,
            content: Rc::new(content),
            bytes,
            jobs: 0,
            is_dropped: false,
            workers: BTreeSet::new(),
        };
        for (resource, held) in registration.holdings() {
            turn.charge(account, resource, held);
        }
        table.all.insert(id, registration);
        let old = table.open.insert(owner, id);
        assert!(old.is_none(), "client {} has one registration of number {}", owner.0, owner.1);
    }

    /// The open registration that a client has under this number.
    pub(crate) fn registration(
        &self,
        client: ClientId,
        number: u32,
    ) -> Option<(RegistrationId, &Rc<RegisteredContent>)> {
        let id = *self.registrations.open.get(&(client, number))?;
        self.registrations.all.get(&id).map(|found| (id, &found.content))
    }

    /// So many jobs name each of these.
    pub(crate) fn name_registrations(&mut self, ids: impl Iterator<Item = RegistrationId>, jobs: u64) {
        for id in ids {
            self.registrations.get_mut(id).jobs += jobs;
        }
    }

    /// A job names these no more.
    pub(crate) fn unname_registrations(
        &mut self,
        turn: &mut Turn,
        ids: impl Iterator<Item = RegistrationId>,
    ) {
        for id in ids {
            count_down(&mut self.registrations.get_mut(id).jobs, 1, "jobs that name a registration");
            self.registrations.remove_unheld(turn, id);
        }
    }

    /// A client drops a registration. `false`: it has none of this number.
    pub(crate) fn drop_registration(&mut self, turn: &mut Turn, client: ClientId, number: u32) -> bool {
        let Some(id) = self.registrations.open.remove(&(client, number)) else { return false };
        self.registrations.get_mut(id).is_dropped = true;
        self.registrations.remove_unheld(turn, id);
        true
    }

    /// The connection of a client is over: all that it registered is dropped.
    pub(super) fn drop_all_registrations(&mut self, turn: &mut Turn, client: ClientId) {
        let range = (client, 0)..=(client, u32::MAX);
        let numbers: Vec<u32> =
            self.registrations.open.range(range).map(|((_, number), _)| *number).collect();
        for number in numbers {
            self.drop_registration(turn, client, number);
        }
    }

    /// Whether a worker was sent all of these.
    pub(crate) fn has_lent(&self, worker: WorkerId, mut ids: impl Iterator<Item = RegistrationId>) -> bool {
        let lent = self.registrations.lent.get(&worker);
        ids.all(|id| lent.is_some_and(|lent| lent.contains_key(&id)))
    }

    /// A worker is offered a task that names these.
    pub(crate) fn lend_registrations(&mut self, worker: WorkerId, ids: impl Iterator<Item = RegistrationId>) {
        let table = &mut self.registrations;
        let lent = table.lent.entry(worker).or_default();
        table.loans += 1;
        for id in ids {
            let one = lent.entry(id).or_default();
            one.offers += 1;
            one.at = table.loans;
            if one.offers == 1 {
                table.all.get_mut(&id).expect("a registration that is lent is there").workers.insert(worker);
            }
        }
    }

    /// An offer that names these has left the ring of its worker.
    pub(crate) fn offer_over(
        &mut self,
        turn: &mut Turn,
        worker: WorkerId,
        ids: impl Iterator<Item = RegistrationId>,
    ) {
        let table = &mut self.registrations;
        let Some(lent) = table.lent.get_mut(&worker) else { return };
        for id in ids {
            if let Some(one) = lent.get_mut(&id) {
                one.offers =
                    one.offers.checked_sub(1).expect("an offer that names a registration was counted");
            }
        }
        table.bound_worker(turn, worker);
    }

    /// A worker is dead, and has nothing.
    pub(crate) fn forget_worker(&mut self, worker: WorkerId) {
        for (id, _) in self.registrations.lent.remove(&worker).unwrap_or_default() {
            if let Some(registration) = self.registrations.all.get_mut(&id) {
                registration.workers.remove(&worker);
            }
        }
    }

    /// Checks what must always hold. `jobs` counts the jobs that name each, `offers` the offers of each worker that do.
    ///
    /// # Panics
    /// If it does not.
    pub(crate) fn audit_registrations(
        &self,
        jobs: &BTreeMap<RegistrationId, u64>,
        offers: &BTreeMap<(WorkerId, RegistrationId), u32>,
    ) {
        let table = &self.registrations;
        for (id, found) in &table.all {
            let named = jobs.get(id).copied().unwrap_or_default();
            assert_eq!(found.jobs, named, "the jobs that name registration {id} are counted");
            assert!(!found.is_dropped || named > 0, "registration {id} goes with the last that holds it");
            let is_open = table.open.get(&found.owner) == Some(id);
            assert_eq!(is_open, !found.is_dropped, "registration {id} is found until it is dropped");
            assert!(
                found.is_dropped || self.is_connected(found.owner.0),
                "its connection has registration {id}"
            );
            for worker in &found.workers {
                assert!(table.lent.get(worker).is_some_and(|lent| lent.contains_key(id)), "it is lent");
            }
        }
        assert!(jobs.keys().all(|id| table.all.contains_key(id)), "what a job names is there");
        for (worker, lent) in &table.lent {
            for (id, one) in lent {
                assert!(table.all.get(id).is_some_and(|found| found.workers.contains(worker)), "it knows it");
                let named = offers.get(&(*worker, *id)).copied().unwrap_or_default();
                assert_eq!(
                    one.offers, named,
                    "offers of worker {worker} that name registration {id} are counted"
                );
            }
            let idle = lent.values().filter(|one| one.offers == 0).count();
            assert!(idle <= WORKER_REGISTRATIONS_MAX, "worker {worker} keeps no more idle registrations");
        }
        let is_lent = |(worker, id): &(WorkerId, RegistrationId)| {
            table.lent.get(worker).is_some_and(|lent| lent.contains_key(id))
        };
        assert!(offers.keys().all(is_lent), "what an offer names is lent to its worker");
    }
}

//! Accounts: what each user holds of every bounded resource, and how much more one user may take.
//!
//! The core has one [`Ledger`] for what it decides; the shell has another for what it must decide before the core
//! hears of it. A bound is for all users together. What can be evicted goes from the account that holds most. Of
//! what cannot:
//!
//! | who | may hold of a bound B |
//! |---|---|
//! | one user, others there or not | B - B/4 |
//! | root; the one user of a daemon that has one | B |
//! | a user who holds less than B/64 | B/64, also beyond the bound, while all such users together hold less than B/8 |
//!
//! So a flood of one user never shuts out another, and no number of users shuts out one who holds little. The machine
//! posts what the rooms return as [`Charges`]; nothing here knows a job.

mod rows;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_proto::client::refusal::{BoundPart, MetBound, Refusal};
use slab::Slab;

pub use crate::config::{LoweredBounds, Users};
use crate::turn::count_down;
pub use crate::turn::{AccountId, BoundOrigin, Charges, Resource};

/// One user may hold all but this part of a bound.
const KEPT_FROM_ONE: u64 = 4;
/// A user may have this part of a bound also beyond it...
const SMALL_PART: u64 = 64;
/// ...while all who hold no more than that hold less than this part of it together.
const BEYOND_PART: u64 = 8;

/// Who holds what is in an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountHolder {
    /// The service itself.
    Service,
    /// The user with this uid.
    User(u32),
}

/// What one user holds.
#[derive(Debug)]
struct Account {
    holder: AccountHolder,
    held: [u64; Resource::COUNT],
}

/// How much more an account may take of a resource, and the bound that it meets then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    left: u64,
    limit: u64,
    part: BoundPart,
    origin: BoundOrigin,
}

impl Room {
    /// How much more it may take.
    pub fn left(self) -> u64 {
        self.left
    }

    /// The refusal of more of this resource.
    pub fn refusal(self, resource: Resource, retry_after_ms: u64) -> Refusal {
        self.met(resource).busy(retry_after_ms)
    }

    /// The bound of this resource that is met beyond what is left.
    pub fn met(self, resource: Resource) -> MetBound {
        MetBound {
            what: resource.name().to_owned(),
            limit: self.limit,
            part: self.part,
            key: self.origin.key().map(str::to_owned),
        }
    }
}

/// The accounts of all users, and the bounds.
#[derive(Debug)]
pub struct Ledger {
    users: Users,
    bounds: [u64; Resource::COUNT],
    origins: [BoundOrigin; Resource::COUNT],
    held: [u64; Resource::COUNT],
    /// What accounts hold together that hold no more than a small part of the bound each.
    of_small: [u64; Resource::COUNT],
    accounts: Slab<Account>,
    of: BTreeMap<u32, AccountId>,
    /// Of each resource that is evicted, who holds how much of it.
    order: [BTreeSet<(u64, AccountId)>; Resource::COUNT],
}

impl Ledger {
    /// A ledger with these bounds; a resource that is not among them has none. Those that are `lowered` are not set by the
    /// usual [`Resource::origin`].
    pub fn new(users: Users, bounds: &[(Resource, u64)], lowered: LoweredBounds) -> Self {
        let mut ledger = Self {
            users,
            bounds: [u64::MAX; Resource::COUNT],
            origins: Resource::ALL.map(Resource::origin),
            held: [0; Resource::COUNT],
            of_small: [0; Resource::COUNT],
            accounts: Slab::new(),
            of: BTreeMap::new(),
            order: std::array::from_fn(|_| BTreeSet::new()),
        };
        for (resource, bound) in bounds {
            ledger.bounds[*resource as usize] = *bound;
        }
        let logs_by =
            if lowered.keep_outputs { BoundOrigin::OPEN_FILES } else { Resource::KeptOutputs.origin() };
        for (is_lowered, resource, origin) in [
            (lowered.clients, Resource::Connections, BoundOrigin::OPEN_FILES),
            (lowered.files, Resource::Files, BoundOrigin::OPEN_FILES),
            (lowered.keep_outputs, Resource::KeptOutputs, BoundOrigin::OPEN_FILES),
            (lowered.keep_logs, Resource::Logs, logs_by),
        ] {
            if is_lowered {
                ledger.origins[resource as usize] = origin;
            }
        }
        let service =
            ledger.accounts.insert(Account { holder: AccountHolder::Service, held: [0; Resource::COUNT] });
        assert_eq!(service, AccountId::SERVICE.0 as usize, "the service's account is the first");
        ledger
    }

    /// The account of a user. A new one is closed when it holds nothing after it held something, so the caller
    /// charges it.
    pub fn open(&mut self, uid: u32) -> AccountId {
        let accounts = &mut self.accounts;
        *self.of.entry(uid).or_insert_with(|| {
            let place =
                accounts.insert(Account { holder: AccountHolder::User(uid), held: [0; Resource::COUNT] });
            AccountId(u32::try_from(place).expect("there are fewer accounts than uids"))
        })
    }

    /// The account of a user, if it is open.
    pub fn find(&self, uid: u32) -> Option<AccountId> {
        self.of.get(&uid).copied()
    }

    /// An account holds so much more.
    ///
    /// # Panics
    /// If it is not open.
    pub fn charge(&mut self, account: AccountId, resource: Resource, count: u64) {
        self.change(account, resource, i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// An account holds so much less; it is closed if it holds nothing now.
    ///
    /// # Panics
    /// If it holds less than that.
    pub fn release(&mut self, account: AccountId, resource: Resource, count: u64) {
        self.change(account, resource, -i64::try_from(count).unwrap_or(i64::MAX));
        self.close_if_empty(account);
    }

    /// Posts what rooms returned. Accounts that hold nothing then are closed.
    ///
    /// # Panics
    /// If more is given back than an account held.
    pub fn post(&mut self, charges: &mut Charges) {
        for sum in charges.sums() {
            self.change(sum.account(), sum.resource(), sum.change());
        }
        for sum in charges.sums().iter().filter(|sum| sum.change() <= 0) {
            self.close_if_empty(sum.account());
        }
        charges.clear();
    }

    fn change(&mut self, account: AccountId, resource: Resource, change: i64) {
        let found = self.accounts.get_mut(account.0 as usize).expect("an account that is charged is open");
        let (at, held) = (resource as usize, &mut found.held[resource as usize]);
        let before = *held;
        for sum in [&mut *held, &mut self.held[at]] {
            if change > 0 {
                *sum = sum.saturating_add(change.unsigned_abs());
            } else {
                count_down(sum, change.unsigned_abs(), resource.name());
            }
        }
        let small = self.bounds[at] / SMALL_PART;
        let of_small = |held: u64| if held <= small { held } else { 0 };
        self.of_small[at] = self.of_small[at].saturating_add(of_small(*held)) - of_small(before);
        if resource.is_evicted() && *held != before {
            // First the new place: an order that is empty in between is an allocation.
            if *held > 0 {
                self.order[at].insert((*held, account));
            }
            self.order[at].remove(&(before, account));
        }
    }

    fn close_if_empty(&mut self, account: AccountId) {
        let Some(found) = self.accounts.get(account.0 as usize) else { return };
        let AccountHolder::User(uid) = found.holder else { return };
        if found.held.iter().all(|held| *held == 0) {
            self.accounts.remove(account.0 as usize);
            self.of.remove(&uid);
        }
    }

    /// Who holds what is in an account.
    ///
    /// # Panics
    /// If it is not open.
    pub fn holder(&self, account: AccountId) -> AccountHolder {
        self.accounts[account.0 as usize].holder
    }

    /// The account that holds most of a resource of which all together hold more than its bound.
    ///
    /// # Panics
    /// If it cannot be evicted: nobody keeps the order.
    pub fn largest_of_too_much(&self, resource: Resource) -> Option<AccountId> {
        let is_too_much = self.held_by_all(resource) > self.bound(resource);
        self.largest(resource).filter(|_| is_too_much)
    }

    /// What an account holds.
    ///
    /// # Panics
    /// If it is not open.
    pub fn held(&self, account: AccountId, resource: Resource) -> u64 {
        self.accounts[account.0 as usize].held[resource as usize]
    }

    /// What all accounts hold together.
    pub fn held_by_all(&self, resource: Resource) -> u64 {
        self.held[resource as usize]
    }

    /// The bound of all users together.
    pub fn bound(&self, resource: Resource) -> u64 {
        self.bounds[resource as usize]
    }

    /// What sets that bound.
    pub fn origin(&self, resource: Resource) -> BoundOrigin {
        match self.bound(resource) {
            u64::MAX => BoundOrigin::Unbounded,
            _ => self.origins[resource as usize],
        }
    }

    /// The most that one account may hold.
    ///
    /// # Panics
    /// If it is not open.
    pub fn share(&self, account: AccountId, resource: Resource) -> u64 {
        let bound = self.bound(resource);
        match (self.accounts[account.0 as usize].holder, self.users) {
            (AccountHolder::User(0) | AccountHolder::Service, _) | (_, Users::One) => bound,
            (AccountHolder::User(_), Users::Several) => bound - bound / KEPT_FROM_ONE,
        }
    }

    /// How much more an account may take.
    ///
    /// # Panics
    /// If it is not open.
    pub fn room(&self, account: AccountId, resource: Resource) -> Room {
        let (own, share, bound) =
            (self.held(account, resource), self.share(account, resource), self.bound(resource));
        let of_bound = bound.saturating_sub(self.held_by_all(resource));
        let [of_one, of_few] = self.beyond(own, resource);
        let little = bound / SMALL_PART;
        let is_beyond = little > 0 && own <= little && of_one.min(of_few) >= of_bound;
        let (left, limit, part) = match (is_beyond, of_one <= of_few) {
            (false, _) => (of_bound, bound, BoundPart::All),
            (true, true) => (of_one, little, BoundPart::Little { of: bound }),
            (true, false) => (of_few, bound / BEYOND_PART, BoundPart::AllLittle { of: bound }),
        };
        let origin = self.origin(resource);
        match share.saturating_sub(own) {
            of_share if of_share > left => Room { left, limit, part, origin },
            left if share < bound => {
                Room { left, limit: share, part: BoundPart::Share { of: bound }, origin }
            }
            left => Room { left, limit: bound, part: BoundPart::All, origin },
        }
    }

    /// How much more an account that holds `own` may take, whatever the others hold, by what one such account may have,
    /// and by what all of them may have together.
    fn beyond(&self, own: u64, resource: Resource) -> [u64; 2] {
        let bound = self.bound(resource);
        // Only those who hold as little use up what small accounts have.
        let of_few = (bound / BEYOND_PART).saturating_sub(self.of_small[resource as usize]);
        [(bound / SMALL_PART).saturating_sub(own), of_few]
    }

    /// How much all together may still take if this account takes it, once `back` of what they hold is given back.
    ///
    /// # Panics
    /// If it is not open.
    pub fn left_of_all(&self, account: AccountId, resource: Resource, back: u64) -> u64 {
        let (own, bound) = (self.held(account, resource), self.bound(resource));
        let all = self.held_by_all(resource).saturating_sub(back);
        let [of_one, of_few] = self.beyond(own, resource);
        bound.saturating_sub(all).max(of_one.min(of_few))
    }

    /// The account that holds most of what can be evicted; of equal ones the last.
    ///
    /// # Panics
    /// If it cannot be evicted: nobody keeps the order.
    pub fn largest(&self, resource: Resource) -> Option<AccountId> {
        assert!(resource.is_evicted(), "{} are never evicted", resource.name());
        self.order[resource as usize].last().map(|(_, account)| *account)
    }

    /// Every open account, and who holds it.
    pub fn accounts(&self) -> impl Iterator<Item = (AccountId, AccountHolder)> + '_ {
        self.accounts.iter().map(|(place, account)| (AccountId(place as u32), account.holder))
    }

    /// Checks what must always hold.
    ///
    /// # Panics
    /// If it does not: the ledger is wrong.
    pub fn audit(&self) {
        let (mut sums, mut of_small) = ([0_u64; Resource::COUNT], [0_u64; Resource::COUNT]);
        for (place, account) in &self.accounts {
            let id = AccountId(place as u32);
            if let AccountHolder::User(uid) = account.holder {
                assert_eq!(self.of.get(&uid), Some(&id), "an account is found by its user");
                assert!(account.held.iter().any(|held| *held > 0), "an account that holds nothing is closed");
            }
            for resource in Resource::ALL {
                let held = account.held[resource as usize];
                sums[resource as usize] += held;
                if held <= self.bound(resource) / SMALL_PART {
                    of_small[resource as usize] += held;
                }
                let ordered = self.order[resource as usize].contains(&(held, id));
                assert_eq!(ordered, resource.is_evicted() && held > 0, "accounts are in order");
            }
        }
        assert_eq!(sums, self.held, "what all hold is the sum of what each holds");
        assert_eq!(of_small, self.of_small, "what small accounts hold is counted");
    }
}

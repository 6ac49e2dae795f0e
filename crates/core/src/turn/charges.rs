//! Charges: what accounts took of bounded resources and gave back, as the rooms say it.
//!
//! A room that changes how much an account holds adds that to its [`Charges`], beside the change itself. The machine
//! takes them and posts them to its ledger (`account/`) before it asks the ledger anything. The rooms never see the
//! ledger. A turn has few different changes, so a change finds its sum by the last one of its resource, or by a look at the
//! last ones.

use crate::turn::values::{AccountId, Resource};

/// Sums that a change looks back at. With fewer, one that is further back gets a second sum, which is as right.
const LOOK_BACK: usize = 8;

/// Changes that were not posted yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Charges {
    sums: Vec<ChargeSum>,
    /// For each resource, where its last change was added, if that is a place in `sums`.
    last: [usize; Resource::COUNT],
}

/// By how much one account holds more of one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChargeSum {
    account: AccountId,
    resource: Resource,
    change: i64,
}

impl ChargeSum {
    /// Whose it is.
    pub(crate) fn account(&self) -> AccountId {
        self.account
    }

    /// Of what.
    pub(crate) fn resource(&self) -> Resource {
        self.resource
    }

    /// By how much the account holds more of it.
    pub(crate) fn change(&self) -> i64 {
        self.change
    }
}

impl Charges {
    /// An account holds so much more of a resource.
    pub fn charge(&mut self, account: AccountId, resource: Resource, count: u64) {
        self.change(account, resource, i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// An account holds so much less of a resource.
    pub fn release(&mut self, account: AccountId, resource: Resource, count: u64) {
        self.change(account, resource, -i64::try_from(count).unwrap_or(i64::MAX));
    }

    fn change(&mut self, account: AccountId, resource: Resource, change: i64) {
        // An account that holds nothing may be closed by now.
        if change == 0 {
            return;
        }
        let is_same = |sum: &ChargeSum| sum.account == account && sum.resource == resource;
        let last = &mut self.last[resource as usize];
        if !self.sums.get(*last).is_some_and(is_same) {
            let looked = self.sums.len().saturating_sub(LOOK_BACK);
            let found = self.sums[looked..].iter().position(is_same);
            *last = found.map_or(self.sums.len(), |at| looked + at);
        }
        match self.sums.get_mut(*last) {
            Some(sum) => sum.change += change,
            None => self.sums.push(ChargeSum { account, resource, change }),
        }
    }

    /// Whether there is nothing to be posted.
    pub(crate) fn is_empty(&self) -> bool {
        self.sums.is_empty()
    }

    /// The sums, in the order in which they began.
    pub(crate) fn sums(&self) -> &[ChargeSum] {
        &self.sums
    }

    /// All of them were posted.
    pub(crate) fn clear(&mut self) {
        self.sums.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_one_resource_of_an_account_are_one_sum() {
        let (a, b) = (AccountId(1), AccountId(2));
        let mut charges = Charges::default();
        for _ in 0..1000 {
            charges.charge(a, Resource::Queue, 3);
            charges.release(a, Resource::Queue, 1);
            charges.charge(b, Resource::Queue, 1);
            charges.charge(a, Resource::Jobs, 3);
            charges.release(b, Resource::Files, 0);
        }
        let sum = |account, resource, change| ChargeSum { account, resource, change };
        let sums =
            [sum(a, Resource::Queue, 2000), sum(b, Resource::Queue, 1000), sum(a, Resource::Jobs, 3000)];
        assert_eq!(charges.sums(), sums, "nothing is no change");
        charges.clear();
        assert!(charges.is_empty());
    }
}

//! Charges: what accounts took of bounded resources and gave back, as the rooms say it.
//!
//! A room that changes how much an account holds adds that to its [`Charges`], beside the change itself. The machine
//! takes them and posts them to its ledger (`account/`) before it asks the ledger anything. The rooms never see the
//! ledger. One row is one account; most turns have one, so a job costs an index and no search.

use crate::turn::values::{AccountId, Resource};

/// Changes that were not posted yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Charges {
    rows: Vec<(AccountId, [i64; Resource::COUNT])>,
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
        if let Some((last, changes)) = self.rows.last_mut()
            && *last == account
        {
            changes[resource as usize] += change;
            return;
        }
        let mut changes = [0; Resource::COUNT];
        changes[resource as usize] = change;
        self.rows.push((account, changes));
    }

    /// Whether there is nothing to be posted.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows, in the order in which they were added. An account may have several.
    pub(crate) fn rows(&self) -> &[(AccountId, [i64; Resource::COUNT])] {
        &self.rows
    }

    /// Takes the rows, in the order in which they were added. An account may have several.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = (AccountId, [i64; Resource::COUNT])> + '_ {
        self.rows.drain(..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_one_account_in_a_row_are_one_row() {
        let (a, b) = (AccountId(1), AccountId(2));
        let mut charges = Charges::default();
        charges.charge(a, Resource::Queue, 3);
        charges.release(a, Resource::Queue, 1);
        charges.charge(a, Resource::Jobs, 3);
        charges.charge(b, Resource::Jobs, 1);
        charges.release(a, Resource::Jobs, 3);
        let rows: Vec<_> = charges.drain().collect();
        assert_eq!(rows.iter().map(|(account, _)| *account).collect::<Vec<_>>(), [a, b, a]);
        assert_eq!((rows[0].1[Resource::Queue as usize], rows[0].1[Resource::Jobs as usize]), (2, 3));
        assert_eq!(rows[2].1[Resource::Jobs as usize], -3);
        assert!(charges.is_empty());
        charges.release(a, Resource::Files, 0);
        assert!(charges.is_empty(), "nothing is no change");
    }
}

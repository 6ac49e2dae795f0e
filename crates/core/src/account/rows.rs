//! Rows of accounts for `status`: what users hold, their shares, the bounds, and what sets them.
//!
//! An administrator sees the accounts of all users, others their own. Reads, and changes nothing. Called by `view/` for
//! the ledger of the core, and by the shell for its own.

use std::cmp::Reverse;

use bulkhead_proto::client::view::{AccountRow, HoldingRow};
use bulkhead_proto::limits::ACCOUNTS_SHOWN;

use crate::account::{AccountHolder, AccountId, BoundOrigin, Ledger, Resource};
use crate::event::Peer;

impl Ledger {
    /// The accounts that a client may see, its user's first, and how many more there are.
    pub fn rows(&self, peer: Peer) -> (Vec<AccountRow>, u64) {
        let own = self.find(peer.uid);
        let others = self.accounts().map(|(id, _)| id).filter(|id| peer.admin && Some(*id) != own);
        let mut others: Vec<_> = others.map(|id| (Reverse(self.fullness(id)), id)).collect();
        others.sort_unstable();
        let left_out = others.len().saturating_sub(ACCOUNTS_SHOWN);
        others.truncate(ACCOUNTS_SHOWN);
        let others = others.into_iter().map(|(_, id)| self.row(id, false));
        (own.map(|id| self.row(id, true)).into_iter().chain(others).collect(), left_out as u64)
    }

    /// How much an account holds of the bound of which it holds most, in thousandths.
    fn fullness(&self, account: AccountId) -> u64 {
        let bounded = Resource::ALL.into_iter().filter(|resource| self.bound(*resource) < u64::MAX);
        let parts = bounded
            .map(|resource| self.held(account, resource).saturating_mul(1000) / self.bound(resource).max(1));
        parts.max().unwrap_or(0)
    }

    /// What an account holds; with `whole`, also the bounds of what it does not hold.
    fn row(&self, account: AccountId, whole: bool) -> AccountRow {
        let uid = match self.holder(account) {
            AccountHolder::User(uid) => Some(uid),
            AccountHolder::Service => None,
        };
        let holdings = Resource::ALL.into_iter().filter_map(|resource| {
            let (held, bound) = (self.held(account, resource), self.bound(resource));
            let bound = (bound < u64::MAX).then_some(bound);
            let shared = bound.filter(|_| !resource.is_evicted());
            (held > 0 || whole && bound.is_some()).then(|| HoldingRow {
                resource: resource.name().to_owned(),
                held,
                share: shared.map(|_| self.share(account, resource)),
                left: shared.map(|_| self.room(account, resource).left()),
                bound,
                key: self.origin(resource).key().map(str::to_owned),
                fixed: self.origin(resource) == BoundOrigin::Fixed,
            })
        });
        AccountRow { uid, holds: holdings.collect() }
    }
}

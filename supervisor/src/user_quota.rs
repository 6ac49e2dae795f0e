//! A quota for a limited resource: one limit for all users together and one for each user.
//!
//! A permit is taken with each connection, and with each descriptor that arrives on one. It is returned when the
//! connection or descriptor is closed, in whatever thread. No user but root can take all permits. Used by
//! `access_control.rs` and `client_files.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The quota, and the permits that are taken.
#[derive(Debug)]
pub(crate) struct UserQuota {
    all_max: usize,
    each_max: usize,
    all: Arc<()>,
    of: BTreeMap<u32, Arc<()>>,
}

/// The permit for one connection or descriptor. Dropping it returns it.
#[derive(Debug)]
pub(crate) struct QuotaPermit {
    _all: Arc<()>,
    _own: Arc<()>,
}

impl UserQuota {
    /// A quota of `all_max` permits; if there are `several` users, one user gets at most three quarters of them.
    pub(crate) fn new(all_max: usize, several: bool) -> Self {
        let each_max = if several { (all_max - all_max / 4).max(1) } else { all_max };
        Self { all_max, each_max, all: Arc::new(()), of: BTreeMap::new() }
    }

    /// Takes a permit, and says whether it is one too many: then it serves only to send the refusal.
    pub(crate) fn acquire(&mut self, uid: u32) -> (QuotaPermit, bool) {
        self.of.retain(|_, own| taken(own) > 0);
        let full = self.is_full(uid);
        let own = self.of.entry(uid).or_default();
        (QuotaPermit { _all: Arc::clone(&self.all), _own: Arc::clone(own) }, full)
    }

    /// Whether this user can get no more permits.
    pub(crate) fn is_full(&self, uid: u32) -> bool {
        let own = self.of.get(&uid).map_or(0, taken);
        taken(&self.all) >= self.all_max || (uid != 0 && own >= self.each_max)
    }
}

fn taken(count: &Arc<()>) -> usize {
    Arc::strong_count(count) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_gets_three_quarters_root_gets_all_and_seats_come_back() {
        let mut quota = UserQuota::new(8, true);
        let own: Vec<_> = (0..6).map(|_| quota.acquire(7)).collect();
        assert!(own.iter().all(|(_, full)| !full));
        assert!(quota.acquire(7).1, "the seventh of eight is not for the same user");
        let (_other, full) = quota.acquire(8);
        assert!(!full);
        let (root, full) = quota.acquire(0);
        assert!(!full);
        assert!(quota.acquire(0).1 && quota.acquire(9).1, "all eight are taken");
        std::thread::spawn(move || drop(root)).join().unwrap();
        assert!(!quota.acquire(9).1);
        drop(own);
        assert_eq!(taken(&quota.all), 1);
        assert!(!quota.acquire(7).1);
        assert_eq!(quota.of.len(), 2, "who has none is forgotten");
    }

    #[test]
    fn where_there_is_one_user_all_seats_are_theirs() {
        let mut quota = UserQuota::new(2, false);
        let own: Vec<_> = (0..3).map(|_| quota.acquire(7)).collect();
        assert_eq!(own.iter().map(|(_, full)| *full).collect::<Vec<_>>(), [false, false, true]);
    }
}

//! The ledger of the shell: what each user holds of what is decided before the core hears of it.
//!
//! That is connections, descriptors of clients, bytes of unfinished frames, and what lies unread. The rule is the
//! core's (`bulkhead_core::account`). `daemon.rs` makes one ledger; its clones are handles to the same one, for the
//! parts of the loop's thread that ask it.
//!
//! A [`HeldShare`] is what something holds: it is kept beside the thing and gives back what it has when it is dropped,
//! in whatever thread (`background_closer.rs` closes sockets and files in threads of its own). A drop only puts the
//! account into a queue, and the ledger posts that queue before it answers anything. So no other thread touches the
//! ledger, and the loop never waits for one.

use std::cell::{RefCell, RefMut};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulkhead_core::account::{AccountId, Charges, Ledger, Resource, Room};
use bulkhead_proto::limits::{UNFINISHED_MAX_BYTES, UNREAD_MAX_BYTES};

use crate::descriptor_budget::DescriptorBudget;
use crate::settings::Settings;

/// What was given back since the ledger was last asked.
#[derive(Debug, Default)]
struct Returned {
    charges: Mutex<Charges>,
    /// Whether there is something in it: set after that was put there. Most questions find nothing.
    is_any: AtomicBool,
}

impl Returned {
    /// No code panics while it holds this lock but for a fault of the ledger, at which the daemon ends.
    fn lock(&self) -> MutexGuard<'_, Charges> {
        self.charges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle to the ledger. Clones are handles to the same one.
#[derive(Clone, Debug)]
pub(crate) struct ShellLedger {
    ledger: Rc<RefCell<Ledger>>,
    returned: Arc<Returned>,
}

/// So much of a resource, held by the account of one user. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct HeldShare {
    account: AccountId,
    resource: Resource,
    count: u64,
    returned: Arc<Returned>,
}

impl ShellLedger {
    /// The ledger of a daemon with these settings and descriptors.
    pub(crate) fn of(settings: &Settings, budget: &DescriptorBudget) -> Self {
        Self::new(Ledger::new(
            settings.core.users,
            &[
                (Resource::Connections, budget.clients as u64),
                (Resource::Descriptors, budget.files as u64),
                (Resource::PartialBytes, UNFINISHED_MAX_BYTES as u64),
                (Resource::UnreadDescriptors, budget.unread),
                (Resource::UnreadBytes, UNREAD_MAX_BYTES as u64),
            ],
            settings.core.lowered,
        ))
    }

    /// Handles to this ledger.
    pub(crate) fn new(ledger: Ledger) -> Self {
        Self { ledger: Rc::new(RefCell::new(ledger)), returned: Arc::default() }
    }

    /// The ledger once all is posted that was given back.
    fn posted(&self) -> RefMut<'_, Ledger> {
        let mut ledger = self.ledger.borrow_mut();
        if self.returned.is_any.swap(false, Ordering::Acquire) {
            ledger.post(&mut self.returned.lock());
        }
        ledger
    }

    /// The account of a user. It is closed when it holds nothing after it held something, so the caller holds a
    /// share of it at once; a connection does, as long as it lives.
    #[cfg(test)]
    pub(crate) fn open(&self, uid: u32) -> AccountId {
        self.posted().open(uid)
    }

    /// Holds so much of a resource for a user who may hold nothing yet, and gives the room that there was. One step: the
    /// account could be closed between two, when another thread gives back the last that it held.
    pub(crate) fn hold_first(&self, uid: u32, resource: Resource, count: u64) -> (HeldShare, Room) {
        let mut ledger = self.posted();
        let account = ledger.open(uid);
        let room = ledger.room(account, resource);
        ledger.charge(account, resource, count);
        (HeldShare { account, resource, count, returned: Arc::clone(&self.returned) }, room)
    }

    /// How much more of a resource an account may hold. Something of it is held, so that it is open.
    pub(crate) fn room(&self, account: AccountId, resource: Resource) -> Room {
        self.posted().room(account, resource)
    }

    /// Holds so much of a resource for an account, whether there is room or not: the caller has asked.
    pub(crate) fn hold(&self, account: AccountId, resource: Resource, count: u64) -> HeldShare {
        let mut held = HeldShare { account, resource, count: 0, returned: Arc::clone(&self.returned) };
        held.set(self, count);
        held
    }

    /// What all users hold of a resource beyond its bound, and who holds most of it.
    pub(crate) fn excess(&self, resource: Resource) -> Option<AccountId> {
        let ledger = self.posted();
        (ledger.held_by_all(resource) > ledger.bound(resource)).then(|| ledger.largest(resource)).flatten()
    }

    /// Whether an account holds more than half of what one may hold of a resource.
    pub(crate) fn is_half_full(&self, account: AccountId, resource: Resource) -> bool {
        let ledger = self.posted();
        ledger.held(account, resource) > ledger.share(account, resource) / 2
    }

    /// Lets `look` read the ledger.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&self.posted())
    }
}

impl HeldShare {
    /// Whose it is.
    pub(crate) fn account(&self) -> AccountId {
        self.account
    }

    /// How much is held.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// From now on so much is held, whether there is room or not. While it is nothing, another share of the account, such
    /// as that of a connection, keeps the account open.
    pub(crate) fn set(&mut self, ledger: &ShellLedger, count: u64) {
        let before = std::mem::replace(&mut self.count, count);
        if count > before {
            ledger.ledger.borrow_mut().charge(self.account, self.resource, count - before);
        } else if count < before {
            ledger.ledger.borrow_mut().release(self.account, self.resource, before - count);
        }
    }
}

impl Drop for HeldShare {
    fn drop(&mut self) {
        if self.count > 0 {
            self.returned.lock().release(self.account, self.resource, self.count);
            self.returned.is_any.store(true, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_core::account::{LoweredBounds, Users};

    use super::*;

    fn ledger(bound: u64) -> ShellLedger {
        ShellLedger::new(Ledger::new(
            Users::Several,
            &[(Resource::Connections, bound)],
            LoweredBounds::default(),
        ))
    }

    fn left(ledger: &ShellLedger, account: AccountId) -> u64 {
        ledger.room(account, Resource::Connections).left()
    }

    #[test]
    fn what_another_thread_drops_is_given_back() {
        let ledger = ledger(8);
        let alice = ledger.open(7);
        let held: Vec<_> = (0..6).map(|_| ledger.hold(alice, Resource::Connections, 1)).collect();
        assert_eq!(left(&ledger, alice), 0, "six of eight are the share of one user");
        let bob = ledger.open(8);
        let his = ledger.hold(bob, Resource::Connections, 1);
        assert_eq!(left(&ledger, bob), 1);
        std::thread::spawn(move || drop(held)).join().unwrap();
        assert_eq!(left(&ledger, bob), 5);
        assert_eq!(ledger.read(|ledger| ledger.find(7)), None, "who holds nothing has no account");
        drop(his);
        ledger.read(Ledger::audit);
    }

    /// Each drop in the other thread may close the account, also while the next share is taken.
    #[test]
    fn an_account_stays_open_while_its_first_share_is_taken() {
        let ledger = ledger(8);
        let (give, taken) = std::sync::mpsc::channel();
        let other = std::thread::spawn(move || taken.iter().for_each(drop::<HeldShare>));
        for _ in 0..20_000 {
            let (held, _) = ledger.hold_first(7, Resource::Connections, 1);
            give.send(held).unwrap();
        }
        drop(give);
        other.join().unwrap();
        assert_eq!(
            ledger.read(|ledger| (ledger.find(7), ledger.held_by_all(Resource::Connections))),
            (None, 0)
        );
    }

    #[test]
    fn what_is_held_changes_in_place() {
        let ledger = ledger(100);
        let alice = ledger.open(7);
        let mut held = ledger.hold(alice, Resource::Connections, 5);
        held.set(&ledger, 70);
        assert_eq!((left(&ledger, alice), held.count()), (5, 70));
        held.set(&ledger, 1);
        assert_eq!(left(&ledger, held.account()), 74);
        drop(held);
        assert_eq!(ledger.read(|ledger| ledger.held_by_all(Resource::Connections)), 0);
    }
}

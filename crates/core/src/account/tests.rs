//! Tests of the ledger: shares, the room of small accounts, evictions, and accounts that close.

use bulkhead_proto::client::view::HoldingRow;

use super::*;
use crate::event::Peer;

const ROOT: u32 = 0;

fn several(bound: u64) -> Ledger {
    Ledger::new(
        Users::Several,
        &[(Resource::Queue, bound), (Resource::Kept, bound)],
        LoweredBounds::default(),
    )
}

fn queue_room(left: u64, limit: u64, of: u64) -> Room {
    let part = if limit < of { BoundPart::Share { of } } else { BoundPart::All };
    Room { left, limit, part, origin: BoundOrigin::Key("queue_max") }
}

/// The bound that one more queued job of this account meets.
fn met(ledger: &Ledger, account: AccountId) -> (u64, BoundPart) {
    let room = ledger.room(account, Resource::Queue);
    assert_eq!(room.left(), 0);
    let met = room.met(Resource::Queue);
    (met.limit, met.part)
}

#[test]
fn one_user_gets_three_quarters_and_root_gets_all() {
    let mut ledger = several(6400);
    let (alice, root) = (ledger.open(7), ledger.open(ROOT));
    assert_eq!(ledger.room(alice, Resource::Queue), queue_room(4800, 4800, 6400));
    ledger.charge(alice, Resource::Queue, 4800);
    assert_eq!(ledger.room(alice, Resource::Queue).left(), 0);
    assert_eq!(ledger.room(root, Resource::Queue).left(), 6400 - 4800);
    ledger.charge(root, Resource::Queue, 1600);
    assert_eq!(ledger.room(root, Resource::Queue), queue_room(0, 6400, 6400));
    ledger.audit();
}

#[test]
fn where_there_is_one_user_the_share_is_the_bound() {
    let mut ledger = Ledger::new(Users::One, &[(Resource::Queue, 100)], LoweredBounds::default());
    let alice = ledger.open(7);
    ledger.charge(alice, Resource::Queue, 99);
    assert_eq!(ledger.room(alice, Resource::Queue), queue_room(1, 100, 100));
}

#[test]
fn who_holds_little_has_a_64th_whatever_others_hold() {
    let mut ledger = several(6400);
    let (alice, bob, carol) = (ledger.open(1), ledger.open(2), ledger.open(3));
    ledger.charge(alice, Resource::Queue, 4800);
    ledger.charge(bob, Resource::Queue, 1600);
    assert_eq!(met(&ledger, bob), (6400, BoundPart::All), "he holds more than a little");
    assert_eq!(ledger.room(carol, Resource::Queue).left(), 100, "a 64th, however much an eighth is");
    ledger.charge(carol, Resource::Queue, 99);
    assert_eq!(ledger.room(carol, Resource::Queue).left(), 1, "99 is less than a 64th");
    ledger.charge(carol, Resource::Queue, 1);
    assert_eq!(met(&ledger, carol), (100, BoundPart::Little { of: 6400 }), "100 is a 64th");
    // So there is room for seven more like her.
    let small: Vec<_> = (10..18).map(|uid| ledger.open(uid)).collect();
    for account in &small[..7] {
        assert_eq!(ledger.room(*account, Resource::Queue).left(), 100);
        ledger.charge(*account, Resource::Queue, 100);
    }
    assert_eq!(met(&ledger, small[7]), (800, BoundPart::AllLittle { of: 6400 }), "an eighth");
    assert_eq!(met(&ledger, carol), (100, BoundPart::Little { of: 6400 }));
    // What large accounts come to hold beyond the bound, as jobs return to the queue, is not theirs.
    ledger.release(carol, Resource::Queue, 100);
    ledger.charge(alice, Resource::Queue, 5000);
    assert_eq!(ledger.room(small[7], Resource::Queue).left(), 100);
    ledger.release(alice, Resource::Queue, 5000 + 1800);
    assert_eq!(ledger.room(small[7], Resource::Queue).left(), 1100, "below the bound there is no 64th");
    ledger.charge(small[7], Resource::Queue, 1);
    ledger.audit();
}

#[test]
fn what_has_no_bound_has_room() {
    let mut ledger = several(10);
    let alice = ledger.open(1);
    ledger.charge(alice, Resource::Jobs, 1 << 40);
    assert!(ledger.room(alice, Resource::Jobs).left() > 1 << 50);
}

#[test]
fn the_largest_is_evicted_first() {
    let mut ledger = several(10);
    let (alice, bob) = (ledger.open(1), ledger.open(2));
    assert_eq!(ledger.largest(Resource::Kept), None);
    ledger.charge(alice, Resource::Kept, 5);
    ledger.charge(bob, Resource::Kept, 6);
    assert_eq!(ledger.largest(Resource::Kept), Some(bob));
    ledger.release(bob, Resource::Kept, 2);
    assert_eq!(ledger.largest(Resource::Kept), Some(alice));
    ledger.charge(AccountId::SERVICE, Resource::Kept, 7);
    assert_eq!(ledger.largest(Resource::Kept), Some(AccountId::SERVICE));
    ledger.audit();
}

#[test]
fn an_account_that_holds_nothing_is_closed() {
    let mut ledger = several(10);
    let alice = ledger.open(1);
    ledger.charge(alice, Resource::Connections, 1);
    let mut charges = Charges::default();
    charges.release(alice, Resource::Connections, 1);
    charges.charge(AccountId::SERVICE, Resource::Records, 1);
    charges.charge(alice, Resource::Jobs, 1);
    ledger.post(&mut charges);
    assert_eq!(ledger.open(1), alice, "it gave back and took in one turn");
    charges.release(alice, Resource::Jobs, 1);
    ledger.post(&mut charges);
    assert_eq!((ledger.find(1), ledger.accounts().count()), (None, 1), "the service's stays");
    ledger.audit();
}

#[test]
#[should_panic(expected = "queued jobs are counted before they go")]
fn nothing_is_given_back_that_was_not_taken() {
    let mut ledger = several(10);
    let alice = ledger.open(1);
    ledger.charge(alice, Resource::Jobs, 1);
    ledger.release(alice, Resource::Queue, 1);
}

#[test]
fn a_user_sees_its_account_and_an_administrator_the_fullest_ones() {
    let mut ledger = several(100);
    let accounts: Vec<_> = (1..=70).map(|uid| ledger.open(uid)).collect();
    for (at, account) in accounts.iter().enumerate() {
        ledger.charge(*account, Resource::Queue, 1 + at as u64);
    }
    ledger.charge(AccountId::SERVICE, Resource::Records, 1);
    let (rows, left_out) = ledger.rows(Peer { uid: 3, admin: false });
    let queue = HoldingRow {
        resource: "queued jobs".to_owned(),
        held: 3,
        share: Some(75),
        left: Some(0),
        bound: Some(100),
        key: Some("queue_max".to_owned()),
        fixed: false,
    };
    assert_eq!((rows.len(), rows[0].uid, left_out), (1, Some(3), 0));
    assert_eq!(rows[0].holds[0], queue);
    assert!(rows[0].holds.iter().all(|row| row.bound.is_some()), "{rows:?}");
    let (rows, left_out) = ledger.rows(Peer { uid: 3, admin: true });
    let uids: Vec<_> = rows.iter().map(|row| row.uid).collect();
    assert_eq!((uids.len(), &uids[..3], left_out), (65, &[Some(3), Some(70), Some(69)][..], 6));
    assert_eq!(rows[1].holds.len(), 1, "of others only what they hold");
    assert!(ledger.rows(Peer { uid: 99, admin: false }).0.is_empty());
}

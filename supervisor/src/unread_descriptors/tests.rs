//! Tests of the count, over real sockets and a real poll.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bulkhead_core::account::{Ledger, LoweredBounds, Users};
use bulkhead_proto::ids::WorkerId;
use bulkhead_sys::socket::send_with_fd;
use mio::{Events, Poll};

use super::*;
use crate::background_closer::BackgroundCloser;
use crate::output_store::OutputStore;

const PATIENCE: Duration = Duration::from_secs(60);
const ALICE: u32 = 1;
const BOB: u32 = 2;

/// A table for several users with this bound, whose poll nobody asks.
pub(crate) fn for_tests(bound: u64) -> UnreadDescriptors {
    over(&Poll::new().unwrap(), bound)
}

fn over(poll: &Poll, bound: u64) -> UnreadDescriptors {
    let bounds = [(Resource::UnreadDescriptors, bound), (Resource::Connections, 1000)];
    let ledger = ShellLedger::new(Ledger::new(Users::Several, &bounds, LoweredBounds::default()));
    UnreadDescriptors::new(poll.registry().try_clone().unwrap(), ledger)
}

/// A connection: its number, its user's account, its share of that, and both ends.
struct Pair {
    client: ClientId,
    account: AccountId,
    seat: Option<HeldShare>,
    ours: UnixStream,
    theirs: UnixStream,
}

impl Pair {
    fn new(unread: &UnreadDescriptors, client: u64, uid: u32) -> Self {
        let account = unread.ledger.open(uid);
        let seat = Some(unread.ledger.hold(account, Resource::Connections, 1));
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        Self { client: ClientId(client), account, seat, ours, theirs }
    }

    /// Sends one byte with a descriptor, if the gate is open.
    fn send(&self, unread: &mut UnreadDescriptors) -> bool {
        let mut gate = unread.gate(self.client, self.account);
        let is_open = gate.is_open(self.ours.as_fd());
        if is_open {
            let null = File::open("/dev/null").unwrap();
            send_with_fd(self.ours.as_fd(), b"x", Some(null.as_fd())).unwrap();
            gate.count(None);
        }
        is_open
    }

    /// Sends until the gate closes, and tells how many descriptors passed.
    fn fill(&self, unread: &mut UnreadDescriptors) -> usize {
        (0..100).take_while(|_| self.send(unread)).count()
    }

    fn read(&mut self, count: usize) {
        self.theirs.read_exact(&mut vec![0; count]).unwrap();
    }
}

#[test]
fn a_connection_has_sixteen_until_it_has_read_all() {
    let mut unread = for_tests(1000);
    let mut pair = Pair::new(&unread, 1, ALICE);
    for _ in 0..3 {
        assert_eq!(pair.fill(&mut unread), 16);
        pair.read(15);
        assert!(!unread.recheck(pair.client, pair.ours.as_fd()) && !pair.send(&mut unread), "one is left");
        pair.read(1);
    }
    // The gate has looked by itself; a look at the poll's word does the same.
    assert!(pair.send(&mut unread) && unread.is_unread(pair.client));
    pair.read(1);
    assert!(unread.recheck(pair.client, pair.ours.as_fd()));
    assert!(!unread.is_unread(pair.client), "nothing is left to wait for");
    assert!(!unread.recheck(pair.client, pair.ours.as_fd()));
    assert_eq!(unread.next_waiting(), None, "it had room all the time");
}

#[test]
fn a_user_has_a_share_and_others_go_on() {
    let mut unread = for_tests(40);
    let mut alice: Vec<_> = (1..=4).map(|client| Pair::new(&unread, client, ALICE)).collect();
    let filled: Vec<_> = alice.iter().map(|pair| pair.fill(&mut unread)).collect();
    assert_eq!(filled, [16, 14, 0, 0], "three quarters of 40");
    let mut bob = Pair::new(&unread, 5, BOB);
    assert_eq!(bob.fill(&mut unread), 10, "what is left");
    assert_eq!(unread.next_waiting(), None, "nobody has read anything");
    bob.read(10);
    assert!(unread.recheck(bob.client, bob.ours.as_fd()));
    assert_eq!(unread.next_waiting(), Some(bob.client), "the others' user has its share");
    assert_eq!(unread.next_waiting(), None);
    // Hers wait in turn; the one that has its sixteen waits for its own client.
    alice[0].read(16);
    assert!(unread.recheck(alice[0].client, alice[0].ours.as_fd()));
    for turn in [2, 3, 4, 2, 3, 4] {
        assert_eq!(unread.next_waiting(), Some(ClientId(turn)));
        let pair = &alice[usize::try_from(turn).unwrap() - 1];
        assert!(pair.send(&mut unread));
        // More of it waits: it stands behind the others again.
        unread.lines.join(pair.client, pair.account);
    }
}

#[test]
fn users_take_turns_and_who_has_left_is_passed_over() {
    let mut unread = for_tests(8);
    let pairs: Vec<_> = [(1, ALICE), (2, ALICE), (3, BOB), (4, BOB), (5, 3), (6, ALICE), (7, BOB)]
        .map(|(client, uid)| Pair::new(&unread, client, uid))
        .into();
    assert_eq!((pairs[0].fill(&mut unread), pairs[2].fill(&mut unread)), (6, 2));
    assert!(!pairs[1].send(&mut unread) && !pairs[3].send(&mut unread) && !pairs[4].send(&mut unread));
    assert!(!pairs[5].send(&mut unread) && !pairs[6].send(&mut unread));
    unread.uncount(ClientId(1));
    unread.lines.leave(ClientId(1), pairs[0].account);
    unread.lines.leave(ClientId(4), pairs[3].account);
    let turns: Vec<_> = std::iter::from_fn(|| unread.next_waiting()).collect();
    assert_eq!(turns, [2, 3, 5, 6, 7].map(ClientId));
}

/// Ends a connection, as the table of clients does.
fn ended(pair: &mut Pair, unread: &mut UnreadDescriptors) -> Option<ClientSocket> {
    ended_after(pair, unread, ToldBlocks::default())
}

/// The same of a connection whose client was told of blocks.
fn ended_after(pair: &mut Pair, unread: &mut UnreadDescriptors, told: ToldBlocks) -> Option<ClientSocket> {
    let mut ours = mio::net::UnixStream::from_std(pair.ours.try_clone().unwrap());
    let token = PollSource::Client(pair.client).token();
    unread.registry.register(&mut ours, token, Interest::READABLE).unwrap();
    let socket = ClientSocket::new(ours, pair.seat.take().unwrap(), 1, BackgroundCloser::default());
    unread.end(pair.client, (socket, told))
}

/// Connections of all users.
fn seats(unread: &UnreadDescriptors) -> u64 {
    unread.ledger.read(|ledger| ledger.held_by_all(Resource::Connections))
}

/// Waits until the poll has said something of this connection, and it could be closed.
fn await_close(unread: &mut UnreadDescriptors, poll: &mut Poll, client: ClientId) {
    let mut events = Events::with_capacity(8);
    while !unread.close_if_read(client) {
        poll.poll(&mut events, Some(PATIENCE)).unwrap();
        assert!(!events.is_empty(), "the poll says nothing of a connection that was read");
    }
}

#[test]
fn what_has_ended_unread_is_kept_and_counted_until_it_is_read_or_hung_up() {
    for is_read in [true, false] {
        let mut poll = Poll::new().unwrap();
        let mut unread = over(&poll, 1000);
        let mut pair = Pair::new(&unread, 1, ALICE);
        assert_eq!(pair.fill(&mut unread), 16);
        assert!(ended(&mut pair, &mut unread).is_none());
        // Only the table's own end is left.
        pair.ours = UnixStream::pair().unwrap().0;
        assert!(!unread.close_if_read(pair.client) && seats(&unread) == 1, "it is a connection still");
        let mut events = Events::with_capacity(8);
        poll.poll(&mut events, Some(PATIENCE)).unwrap();
        assert!(!unread.close_if_read(pair.client) && unread.is_unread(pair.client));
        poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
        assert!(events.is_empty(), "the poll is silent while nobody reads");
        if is_read {
            pair.read(16);
            assert_eq!(pair.theirs.read(&mut [0]).unwrap(), 0, "and then the end");
        } else {
            drop(pair.theirs);
        }
        await_close(&mut unread, &mut poll, pair.client);
        assert!(!unread.is_unread(pair.client) && seats(&unread) == 0);
    }
}

#[test]
fn what_has_ended_and_was_read_is_not_kept() {
    let mut unread = for_tests(1000);
    let mut pair = Pair::new(&unread, 1, ALICE);
    assert_eq!(pair.fill(&mut unread), 16);
    pair.read(16);
    assert!(ended(&mut pair, &mut unread).is_some());
    assert!(!unread.is_unread(pair.client));
}

/// A connection was told of one block, which nobody else holds.
fn told_of_one(store: &mut OutputStore) -> ToldBlocks {
    let (arena, _) = store.make_arena(WorkerId(7)).unwrap();
    let output = store.hold_block(&arena, (0, 5000));
    let mut told = ToldBlocks::default();
    told.tell(store.block(output).unwrap());
    store.drop_output(output);
    told
}

#[test]
fn a_block_is_held_until_the_reply_that_names_it_was_read_and_a_while_longer() {
    let mut poll = Poll::new().unwrap();
    let mut unread = over(&poll, 1000);
    let mut store = OutputStore::new(8, BackgroundCloser::default());
    let told = told_of_one(&mut store);
    let mut pair = Pair::new(&unread, 1, ALICE);
    (&pair.ours).write_all(b"reply").unwrap();
    assert!(ended_after(&mut pair, &mut unread, told).is_none());
    let mut freed = Vec::new();
    store.tell_freed(&mut freed);
    assert!(freed.is_empty(), "its client may read the reply, and then the block");
    pair.theirs.read_exact(&mut [0; 5]).unwrap();
    await_close(&mut unread, &mut poll, pair.client);
    assert_eq!(seats(&unread), 0, "it is no connection any more");
    let end = unread.next_lease_end().unwrap();
    unread.end_leases(end - 1);
    store.tell_freed(&mut freed);
    assert!(freed.is_empty(), "its client may be about to copy the block");
    unread.end_leases(end);
    store.tell_freed(&mut freed);
    assert_eq!((freed.len(), unread.next_lease_end()), (1, None));
}

/// The daemon ends a connection of which its client has read everything, and one whose other end is closed: shutdown(2) in one
/// thread of the client looks like that, and another may be about to copy the block.
#[test]
fn a_block_is_held_a_while_longer_also_if_its_client_has_closed_the_connection() {
    for is_closed in [false, true] {
        let mut unread = for_tests(1000);
        let mut store = OutputStore::new(8, BackgroundCloser::default());
        let told = told_of_one(&mut store);
        let mut pair = Pair::new(&unread, 1, ALICE);
        if is_closed {
            pair.theirs = UnixStream::pair().unwrap().0;
        }
        assert!(ended_after(&mut pair, &mut unread, told).is_some());
        let mut freed = Vec::new();
        store.tell_freed(&mut freed);
        assert_eq!((freed.len(), unread.next_lease_end().is_some()), (0, true), "closed: {is_closed}");
        unread.end_leases(u64::MAX);
        store.tell_freed(&mut freed);
        assert_eq!(freed.len(), 1);
    }
}

/// A client's own end may lie in the queue of ours: while it does, no close of the client's frees what it was sent.
#[test]
fn a_client_that_has_sent_its_own_end_and_left_is_not_kept_for_ever() {
    let mut poll = Poll::new().unwrap();
    let mut unread = over(&poll, 1000);
    let mut pair = Pair::new(&unread, 1, ALICE);
    assert_eq!(pair.fill(&mut unread), 16);
    send_with_fd(pair.theirs.as_fd(), b"x", Some(pair.theirs.as_fd())).unwrap();
    assert!(ended(&mut pair, &mut unread).is_none());
    let client = pair.client;
    drop(pair);
    await_close(&mut unread, &mut poll, client);
    assert!(!unread.is_unread(client));
}

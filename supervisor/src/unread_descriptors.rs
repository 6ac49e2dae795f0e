//! Descriptors that lie unread in the sockets of clients: counted by user, and bounded.
//!
//! The kernel counts each descriptor that was sent and not received against the sender's user, the daemon's. At
//! RLIMIT_NOFILE of them every further one fails with ETOOMANYREFS, whoever it is for: outputs of other clients, files of
//! tasks, the lanes of new workers. So at most [`EACH_MAX`] lie unread on one connection, and all users together have half
//! of that limit, by the shares of the ledger; the other half stays for the lanes, and for what jobs send.
//!
//! A descriptor counts from its send until the send queue of its connection was empty once (`sys/send_queue.rs`). The
//! poll reports the read that empties it as an edge for writing, so nothing is asked again and again.
//!
//! A close of our end takes nothing out of a client's queue. So a connection that ends with descriptors unread is shut down
//! and kept here, counted as a connection of its user, until they are read or its client has closed its end.
//!
//! The same holds for blocks of arenas that were told there. A client that has received a reply copies the block a moment later, which
//! nothing reports, also in one thread while another shuts the connection down: the connection is closed, and its blocks are held for [`BLOCK_LEASE_MS`] more. Driven by `client_table.rs`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::time::Duration;

use bulkhead_core::account::{AccountId, Resource};
use bulkhead_proto::ids::ClientId;
use bulkhead_proto::limits::BLOCK_LEASE_MS;
use bulkhead_sys::poll::{self, PollTarget};
use bulkhead_sys::{clock, send_queue};
use mio::unix::SourceFd;
use mio::{Interest, Registry};

use crate::client_socket::{ClientSocket, KeptSocket};
use crate::output_store::MemoryHold;
use crate::poll_source::PollSource;
use crate::result_arena::ToldBlocks;
use crate::shell_ledger::{HeldShare, ShellLedger};

/// Most descriptors that lie unread on one connection.
const EACH_MAX: u64 = 16;

/// All that lies unread, the connections that wait until less does, and the connections that ended before.
///
/// | a reply with a descriptor finds | it goes |
/// |---|---|
/// | room on its connection and for its user | at once |
/// | [`EACH_MAX`] unread on its connection | when its client has read all that was sent, and what is behind it goes then |
/// | no room for its user | when something of a user was read, in the turn of its user, and in that of its connection |
/// | a connection that ends | never |
#[derive(Debug)]
pub(crate) struct UnreadDescriptors {
    registry: Registry,
    ledger: ShellLedger,
    /// What each connection was sent and has not read, kept ones included.
    counts: BTreeMap<ClientId, HeldShare>,
    /// The memory behind these descriptors, which counts until then too.
    memory: BTreeMap<ClientId, Vec<Rc<MemoryHold>>>,
    /// Connections with a reply for which their user has no room.
    lines: WaitingLines,
    /// Something was read since [`Self::next_waiting`] last found nobody.
    has_freed: bool,
    /// Connections that have ended with descriptors unread.
    kept: BTreeMap<ClientId, KeptConnection>,
    /// Blocks of connections that have ended and were read, each with the time at which they are let go.
    lent: VecDeque<(u64, ToldBlocks)>,
}

impl UnreadDescriptors {
    /// Counts nothing yet.
    pub(crate) fn new(registry: Registry, ledger: ShellLedger) -> Self {
        Self {
            registry,
            ledger,
            counts: BTreeMap::new(),
            memory: BTreeMap::new(),
            lines: WaitingLines::default(),
            has_freed: false,
            kept: BTreeMap::new(),
            lent: VecDeque::new(),
        }
    }

    /// Holds blocks whose client may be about to copy them.
    fn lend(&mut self, told: ToldBlocks) {
        if !told.is_empty() {
            self.lent.push_back((clock::monotonic_ns() + BLOCK_LEASE_MS * 1_000_000, told));
        }
    }

    /// When [`Self::end_leases`] has something to do.
    pub(crate) fn next_lease_end(&self) -> Option<u64> {
        self.lent.front().map(|(when, _)| *when)
    }

    /// Lets go the blocks whose time is over.
    pub(crate) fn end_leases(&mut self, now_ns: u64) {
        while self.next_lease_end().is_some_and(|when| when <= now_ns) {
            self.lent.pop_front();
        }
    }

    /// The gate through which the descriptors of one connection pass.
    pub(crate) fn gate(&mut self, client: ClientId, account: AccountId) -> DescriptorGate<'_> {
        DescriptorGate { table: self, client, account }
    }

    /// Whether descriptors lie unread on a connection, so that its writable events are of interest.
    pub(crate) fn is_unread(&self, client: ClientId) -> bool {
        self.counts.contains_key(&client)
    }

    /// Uncounts the descriptors of a connection if all that was sent on it was received. Returns `true` if so.
    pub(crate) fn recheck(&mut self, client: ClientId, socket: BorrowedFd<'_>) -> bool {
        // The call fails on no connected socket; if it did, this descriptor could never be uncounted.
        if !self.is_unread(client) || !send_queue::is_empty(socket).unwrap_or(true) {
            return false;
        }
        self.uncount(client);
        true
    }

    fn uncount(&mut self, client: ClientId) {
        self.has_freed |= self.counts.remove(&client).is_some();
        self.memory.remove(&client);
    }

    /// Whether one more may lie unread at this user.
    fn has_room(&self, account: AccountId) -> bool {
        self.ledger.room(account, Resource::UnreadDescriptors).left() > 0
    }

    /// Whether something was read while connections waited, so that one of them may go now.
    pub(crate) fn may_have_next(&self) -> bool {
        self.has_freed && !self.lines.lines.is_empty()
    }

    /// The next connection whose reply may go now, by turns of the users and of the connections of each. It goes to the
    /// end of its line if it is sent not all of its replies.
    pub(crate) fn next_waiting(&mut self) -> Option<ClientId> {
        if !self.has_freed {
            return None;
        }
        let Self { lines, ledger, .. } = self;
        let next = lines.take_next(|account| ledger.room(account, Resource::UnreadDescriptors).left() > 0);
        self.has_freed = next.is_some();
        next
    }

    /// A connection has ended. Gives its socket back if no descriptor lies unread there, and nothing at all if its client was told
    /// of blocks of arenas; else keeps it, shut down.
    pub(crate) fn end(
        &mut self,
        client: ClientId,
        (socket, told): (ClientSocket, ToldBlocks),
    ) -> Option<ClientSocket> {
        self.lines.leave(client, socket.account());
        let has_none = !self.is_unread(client) || self.recheck(client, socket.as_fd());
        // A client that has shut down its end receives nothing any more, and may be about to copy what it has received.
        let receives = || !is_closed(socket.as_fd()) && !send_queue::is_empty(socket.as_fd()).unwrap_or(true);
        if has_none && (told.is_empty() || !receives()) {
            self.lend(told);
            return Some(socket);
        }
        let kept = socket.keep();
        // A change of interest reports once what is the case already, so no edge is lost before it.
        let interest = Interest::READABLE | Interest::WRITABLE;
        let token = PollSource::Client(client).token();
        match self.registry.reregister(&mut SourceFd(&kept.as_fd().as_raw_fd()), token, interest) {
            Ok(()) => drop(self.kept.insert(client, KeptConnection { socket: kept, told })),
            Err(error) => {
                log::error!(
                    "cannot wait until a client has read its descriptors client={client} error={error}"
                );
                self.uncount(client);
                self.lend(told);
            }
        }
        None
    }

    /// Closes the connection of a client that has ended, once nothing lies unread there. Returns `true` if so.
    pub(crate) fn close_if_read(&mut self, client: ClientId) -> bool {
        let Some(kept) = self.kept.remove(&client) else { return false };
        let socket = kept.socket.as_fd();
        if send_queue::is_empty(socket).unwrap_or(true) {
            self.uncount(client);
            // The background closer may hold the socket still, and the poll with it.
            drop(self.registry.deregister(&mut SourceFd(&socket.as_raw_fd())));
            self.lend(kept.told);
            return true;
        }
        self.kept.insert(client, kept);
        false
    }
}

/// A connection that has ended and was not read.
#[derive(Debug)]
struct KeptConnection {
    socket: KeptSocket,
    /// A reply that lies there may name them: their places are not used again before.
    told: ToldBlocks,
}

/// Whether the other end of a connection that we have not shut down is closed.
fn is_closed(socket: BorrowedFd<'_>) -> bool {
    poll::wait([PollTarget::end(socket)], Some(Duration::ZERO)).is_ok_and(|[seen]| seen.hung_up)
}

/// Lets the descriptors of one connection pass, one by one.
#[derive(Debug)]
pub(crate) struct DescriptorGate<'a> {
    table: &'a mut UnreadDescriptors,
    client: ClientId,
    account: AccountId,
}

impl DescriptorGate<'_> {
    /// Whether a descriptor may be sent on this socket now. If not, [`UnreadDescriptors::next_waiting`] names the
    /// connection when it may, or the poll reports that its client has read all.
    pub(crate) fn is_open(&mut self, socket: BorrowedFd<'_>) -> bool {
        let Self { table, client, account } = self;
        let is_full = table.counts.get(client).is_some_and(|own| own.count() >= EACH_MAX);
        if is_full && !table.recheck(*client, socket) {
            return false;
        }
        // The poll may not have reported yet that its own are read.
        let is_open = table.has_room(*account) || table.recheck(*client, socket) && table.has_room(*account);
        if !is_open {
            table.lines.join(*client, *account);
        }
        is_open
    }

    /// A descriptor was sent.
    pub(crate) fn count(&mut self, memory: Option<Rc<MemoryHold>>) {
        let UnreadDescriptors { ledger, counts, memory: held_memory, .. } = &mut *self.table;
        if let Some(memory) = memory {
            held_memory.entry(self.client).or_default().push(memory);
        }
        let none = || ledger.hold(self.account, Resource::UnreadDescriptors, 0);
        let held = counts.entry(self.client).or_insert_with(none);
        held.set(ledger, held.count() + 1);
    }
}

/// Connections that wait, a line for each user.
#[derive(Debug, Default)]
struct WaitingLines {
    lines: BTreeMap<AccountId, WaitingLine>,
    /// Whose turn it was last.
    last: Option<AccountId>,
}

#[derive(Debug)]
struct WaitingLine {
    clients: BTreeSet<ClientId>,
    /// Whose turn it was last.
    last: ClientId,
}

impl WaitingLines {
    fn join(&mut self, client: ClientId, account: AccountId) {
        let line =
            self.lines.entry(account).or_insert(WaitingLine { clients: BTreeSet::new(), last: ClientId(0) });
        line.clients.insert(client);
    }

    fn leave(&mut self, client: ClientId, account: AccountId) {
        if let Some(line) = self.lines.get_mut(&account) {
            line.clients.remove(&client);
            if line.clients.is_empty() {
                self.lines.remove(&account);
            }
        }
    }

    /// Takes the next connection out, of the next user for whom `has_room` is true.
    fn take_next(&mut self, has_room: impl Fn(AccountId) -> bool) -> Option<ClientId> {
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let mut users = self.lines.range((after, Bound::Unbounded)).chain(&self.lines);
        let (account, line) = users.find(|(account, _)| has_room(**account))?;
        let after = (Bound::Excluded(line.last), Bound::Unbounded);
        let (account, client) = (*account, *line.clients.range(after).chain(&line.clients).next()?);
        self.last = Some(account);
        if let Some(line) = self.lines.get_mut(&account) {
            line.last = client;
        }
        self.leave(client, account);
        Some(client)
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::for_tests;

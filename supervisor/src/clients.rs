//! All clients: accepts them, reads them in turn, writes to them, and forgets them.
//!
//! Reads are shared out: each turn every client that has something gets one bounded read, so a flood from one
//! costs its neighbours no more than its share. A client that says no hello, or does not take its goodbye, is
//! dropped after [`PATIENCE_NS`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use bulkhead_core::event::{Event, Peer};
use bulkhead_proto::frame::Hello;
use bulkhead_proto::ids::ClientId;
use bulkhead_sys::socket;
use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry};

use crate::connection::Connection;
use crate::settings::{Mode, Settings};
use crate::tokens::Source;

/// How long a client may take for its hello, and for its goodbye.
const PATIENCE_NS: u64 = 10_000_000_000;
/// When to try again after no connection could be accepted: what is short may come back without a word.
const RETRY_NS: u64 = 100_000_000;
/// Connections accepted in one turn.
const ACCEPTS_PER_TURN: usize = 64;
/// Bytes of the buffer that all reads share.
const READ_BYTES: usize = 64 << 10;

/// Who may connect, and as what.
#[derive(Debug)]
struct Door {
    mode: Mode,
    own_uid: u32,
    admin_group: Option<u32>,
}

impl Door {
    /// Who it is, and whether it is let in.
    fn admit(&self, stream: &UnixStream) -> io::Result<(Peer, bool)> {
        let uid = socket::peer_cred(stream.as_fd())?.uid;
        let own = uid == self.own_uid;
        let (admin, let_in) = match self.mode {
            Mode::User => (true, own || uid == 0),
            Mode::System => (uid == 0 || self.is_admin(stream)?, !own || uid == 0),
        };
        Ok((Peer { uid, admin: admin && let_in }, let_in))
    }

    fn is_admin(&self, stream: &UnixStream) -> io::Result<bool> {
        let Some(group) = self.admin_group else { return Ok(false) };
        let own = socket::peer_cred(stream.as_fd())?.gid;
        Ok(own == group || socket::peer_groups(stream.as_fd())?.contains(&group))
    }
}

/// All clients.
#[derive(Debug)]
pub(crate) struct Clients {
    listener: UnixListener,
    registry: Registry,
    door: Door,
    clients_max: usize,
    connections: BTreeMap<ClientId, Connection>,
    last: u64,
    /// Connections may wait in the listener's queue.
    acceptable: bool,
    /// Set while none can be accepted: when to try again.
    retry_ns: Option<u64>,
    /// Those whose sockets may have bytes for us.
    hungry: BTreeSet<ClientId>,
    /// Those that got replies since they were last flushed.
    addressed: BTreeSet<ClientId>,
    /// When to look whether a client has said hello, or taken its goodbye.
    patience: VecDeque<(u64, ClientId)>,
    buffer: Vec<u8>,
}

impl Clients {
    /// Takes connections from `listener`.
    pub(crate) fn new(
        listener: std::os::unix::net::UnixListener,
        registry: Registry,
        settings: &Settings,
    ) -> Result<Self> {
        let mut listener = UnixListener::from_std(listener);
        registry
            .register(&mut listener, Source::Listener.token(), Interest::READABLE)
            .context("cannot watch the listening socket")?;
        let admin_group = socket::group_id(&settings.admin_group)
            .with_context(|| format!("cannot look up group {}", settings.admin_group))?;
        Ok(Self {
            listener,
            registry,
            door: Door { mode: settings.mode, own_uid: socket::own_uid(), admin_group },
            clients_max: settings.clients_max,
            connections: BTreeMap::new(),
            last: 0,
            acceptable: true,
            retry_ns: None,
            hungry: BTreeSet::new(),
            addressed: BTreeSet::new(),
            patience: VecDeque::new(),
            buffer: vec![0; READ_BYTES],
        })
    }

    /// Connections may wait.
    pub(crate) fn mark_acceptable(&mut self) {
        self.acceptable = true;
    }

    /// A client's socket became readable or writable.
    pub(crate) fn mark_ready(&mut self, client: ClientId) {
        if let Some(connection) = self.connections.get_mut(&client) {
            connection.mark_readable();
            self.hungry.insert(client);
            if connection.has_mail() {
                self.addressed.insert(client);
            }
        }
    }

    /// Whether there is something to do before the next sleep.
    pub(crate) fn is_busy(&self) -> bool {
        self.acceptable || !self.hungry.is_empty()
    }

    /// When [`Self::accept`] or [`Self::lose_patience`] has something to do, in nanoseconds of the monotonic clock.
    pub(crate) fn deadline(&mut self) -> Option<u64> {
        [self.retry_ns, self.next_patience()].into_iter().flatten().min()
    }

    fn next_patience(&mut self) -> Option<u64> {
        while let Some((when, client)) = self.patience.front() {
            if self.connections.get(client).is_some_and(Connection::is_awaited) {
                return Some(*when);
            }
            self.patience.pop_front();
        }
        None
    }

    /// The connection of a client, to be sent something.
    pub(crate) fn address(&mut self, client: ClientId) -> Option<&mut Connection> {
        let connection = self.connections.get_mut(&client)?;
        self.addressed.insert(client);
        Some(connection)
    }

    /// Takes the connections that wait, some at a time.
    pub(crate) fn accept(&mut self, now_ns: u64) {
        self.acceptable |= self.retry_ns.is_some_and(|when| when <= now_ns);
        for _ in 0..ACCEPTS_PER_TURN {
            if !self.acceptable {
                return;
            }
            match self.listener.accept() {
                Ok((stream, _)) => self.greet(stream, now_ns),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.acceptable = false;
                    if self.retry_ns.take().is_some() {
                        log::info!("connections are accepted again clients={}", self.connections.len());
                    }
                }
                Err(error) => self.pause(now_ns, &error),
            }
        }
    }

    /// Out of descriptors or memory: the queue keeps connections until a client leaves, or for a while. Said once.
    fn pause(&mut self, now_ns: u64, error: &io::Error) {
        self.acceptable = false;
        if self.retry_ns.replace(now_ns + RETRY_NS).is_none() {
            log::error!("cannot accept connections for now clients={} error={error}", self.connections.len());
        }
    }

    fn greet(&mut self, mut stream: UnixStream, now_ns: u64) {
        self.last += 1;
        let client = ClientId(self.last);
        let (peer, verdict) = match self.door.admit(&stream) {
            Ok((peer, false)) => (peer, Some(Hello::DENIED)),
            Ok((peer, true)) if self.connections.len() < self.clients_max => (peer, None),
            Ok((peer, true)) => (peer, Some(Hello::BUSY)),
            Err(error) => {
                log::warn!("cannot tell who a client is error={error}");
                return;
            }
        };
        let both = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.registry.register(&mut stream, Source::Client(client).token(), both) {
            log::error!("cannot watch a client client={client} error={error}");
            return;
        }
        let mut connection = Connection::new(client, peer, stream);
        if let Some(verdict) = verdict {
            let word = if verdict == Hello::BUSY { "busy" } else { "denied" };
            log::warn!("client turned away client={client} uid={} verdict={word}", peer.uid);
            connection.turn_away(verdict);
        }
        self.connections.insert(client, connection);
        self.hungry.insert(client);
        self.addressed.insert(client);
        self.patience.push_back((now_ns + PATIENCE_NS, client));
    }

    /// Reads each client that has something, one share each.
    pub(crate) fn read(&mut self, now_ns: u64, events: &mut Vec<Event>) {
        let mut gone = Vec::new();
        let mut full = BTreeSet::new();
        for client in std::mem::take(&mut self.hungry) {
            let Some(connection) = self.connections.get_mut(&client) else { continue };
            if !connection.read(&mut self.buffer, events) {
                gone.push(client);
            } else if connection.is_hungry() {
                full.insert(client);
            }
            if connection.is_closing() {
                self.patience.push_back((now_ns + PATIENCE_NS, client));
            }
            if connection.has_mail() {
                self.addressed.insert(client);
            }
        }
        self.hungry = full;
        self.forget(&gone);
    }

    /// Sends what is queued, as far as the sockets take it.
    pub(crate) fn flush(&mut self, events: &mut Vec<Event>) {
        let mut gone = Vec::new();
        for client in std::mem::take(&mut self.addressed) {
            let Some(connection) = self.connections.get_mut(&client) else { continue };
            if !connection.flush(events) {
                gone.push(client);
            } else if connection.is_hungry() {
                self.hungry.insert(client);
            }
        }
        self.forget(&gone);
    }

    /// Drops those who took too long for their hello or their goodbye.
    pub(crate) fn lose_patience(&mut self, now_ns: u64) {
        let mut gone = Vec::new();
        while let Some((when, client)) = self.patience.front().copied().filter(|(when, _)| *when <= now_ns) {
            self.patience.pop_front();
            if self.connections.get(&client).is_some_and(Connection::is_awaited) {
                log::info!(
                    "client dropped: it took too long client={client} since_ns={}",
                    now_ns - when + PATIENCE_NS
                );
                gone.push(client);
            }
        }
        self.forget(&gone);
    }

    /// Gives a closing connection its time; called when the core ended it.
    pub(crate) fn close(&mut self, client: ClientId, why: bulkhead_proto::refusal::Refusal, now_ns: u64) {
        if let Some(connection) = self.address(client) {
            connection.say_goodbye(why);
            self.patience.push_back((now_ns + PATIENCE_NS, client));
        }
    }

    /// Whether anybody still has something to get.
    pub(crate) fn have_mail(&self) -> bool {
        self.connections.values().any(Connection::has_mail)
    }

    fn forget(&mut self, gone: &[ClientId]) {
        for client in gone {
            if let Some(mut connection) = self.connections.remove(client) {
                // Closing the socket takes it out of the poll as well; this only does it sooner.
                drop(self.registry.deregister(connection.socket()));
                // A descriptor is free again: whoever waits in the listener's queue may come in.
                self.acceptable = true;
            }
        }
    }
}

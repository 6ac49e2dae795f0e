//! All clients: accepts connections, reads them in turn, sends replies, and drops connections that have ended.
//!
//! Users take turns, then each user's clients, and a turn of the loop reads and sends a bounded amount of all together
//! (`reading_turns.rs`): a flood delays its sender's own clients, and those of others by no more than one turn. A client that does not send its hello, or does not read its goodbye, within
//! [`HANDSHAKE_TIMEOUT_NS`] is disconnected. Nothing here waits for a client. Driven by `turn.rs` and `perform.rs`.

mod blocks;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;

use anyhow::{Context, Result};
use bulkhead_core::UserTurns;
use bulkhead_core::{account::Resource, event::Event};
use bulkhead_proto::client::message::ReplyFrame;
use bulkhead_proto::client::refusal::{BoundPart, Refusal};
use bulkhead_proto::client::view::Status;
use bulkhead_proto::ids::ClientId;
use bulkhead_proto::limits::UNFINISHED_MAX_BYTES;
use bulkhead_sys::{clock, untrusted};
use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry};

use crate::access_control::AccessControl;
use crate::background_closer::BackgroundCloser;
use crate::client_bytes::ClientBytes;
use crate::client_files::ClientFileStore;
use crate::client_socket::ClientSocket;
use crate::connection::Connection;
use crate::output_store::OutputFile;
use crate::poll_source::PollSource;
use crate::rate_limit::{self, LineAbout, RateLimit};
use crate::reading_turns::{ReadingTurn, SendingTurn};
use crate::request_share::RequestShare;
use crate::settings::Settings;
use crate::shell_ledger::ShellLedger;
use crate::socket_watch::{SocketReadiness, watch};
use crate::unread_descriptors::UnreadDescriptors;

/// How long a client may take to send its hello, and to read its goodbye.
const HANDSHAKE_TIMEOUT_NS: u64 = 10_000_000_000;
/// When to retry after a shortage of descriptors or memory, whose end the kernel does not report.
const RETRY_NS: u64 = 100_000_000;
/// Connections accepted in one turn.
const ACCEPTS_PER_TURN: usize = 64;
/// Connections dropped in one turn because their time is over.
const DROPS_PER_TURN: usize = 64;
/// Size of the buffer that all reads share.
const READ_BYTES: usize = 16 << 10;
const _: () = assert!(READ_BYTES * 4096 <= UNFINISHED_MAX_BYTES, "requests that wait for their turn fit");

/// All clients.
#[derive(Debug)]
pub(crate) struct ClientTable {
    listener: UnixListener,
    registry: Registry,
    access: AccessControl,
    /// What is counted by user here and in the parts below.
    ledger: ShellLedger,
    closer: BackgroundCloser,
    /// The descriptors attached to their submits.
    pub(crate) files: ClientFileStore,
    connections: BTreeMap<ClientId, Connection>,
    last: u64,
    /// There may be connections in the listener's queue.
    acceptable: bool,
    /// Set while accept4(2) fails for lack of resources: when to retry.
    retry_ns: Option<u64>,
    /// Whether the shortage was logged, so that its end is logged too.
    shortage_logged: bool,
    shortages: RateLimit,
    partial_frames: ClientBytes,
    unread: ClientBytes,
    unread_descriptors: UnreadDescriptors,
    /// Clients whose sockets may have bytes to read.
    readable: UserTurns,
    /// Clients with queued replies that their sockets may take.
    unflushed: UserTurns,
    /// Clients whose only reply may wait for the end of its job.
    delayed: Vec<ClientId>,
    /// Deadlines for hello and goodbye, the earliest first.
    timeouts: VecDeque<(u64, ClientId)>,
    /// Clients whose replies wait for kernel resources, and when to retry, also for the background closer.
    starved: BTreeSet<ClientId>,
    resend_ns: Option<u64>,
    buffer: Vec<u8>,
}

impl ClientTable {
    /// Accepts connections from `listener`. Each user has a share of them, as `ledger` says.
    pub(crate) fn new(
        listener: std::os::unix::net::UnixListener,
        registry: Registry,
        settings: &Settings,
        ledger: &ShellLedger,
    ) -> Result<Self> {
        let closer = BackgroundCloser::default();
        let mut listener = UnixListener::from_std(listener);
        let unread_registry = registry.try_clone().context("cannot share the loop's poll")?;
        registry
            .register(&mut listener, PollSource::Listener.token(), Interest::READABLE)
            .context("cannot watch the listening socket")?;
        let access = AccessControl::new(settings, ledger.clone())
            .with_context(|| format!("cannot look up group {}", settings.admin_group))?;
        Ok(Self {
            listener,
            registry,
            access,
            ledger: ledger.clone(),
            files: ClientFileStore::new(ledger.clone(), closer.clone()),
            closer,
            connections: BTreeMap::new(),
            last: 0,
            acceptable: true,
            retry_ns: None,
            shortage_logged: false,
            shortages: RateLimit::default(),
            partial_frames: ClientBytes::new(ledger.clone(), Resource::PartialBytes),
            unread: ClientBytes::new(ledger.clone(), Resource::UnreadBytes),
            unread_descriptors: UnreadDescriptors::new(unread_registry, ledger.clone()),
            readable: UserTurns::default(),
            unflushed: UserTurns::default(),
            delayed: Vec::new(),
            timeouts: VecDeque::new(),
            starved: BTreeSet::new(),
            resend_ns: None,
            buffer: vec![0; READ_BYTES],
        })
    }

    /// The listener became readable.
    pub(crate) fn mark_acceptable(&mut self) {
        self.acceptable = true;
    }

    /// A client's socket became readable or writable.
    pub(crate) fn mark_ready(&mut self, client: ClientId, ready: SocketReadiness) {
        if let Some(connection) = self.connections.get_mut(&client) {
            if ready.readable || ready.ending {
                connection.mark_readable(ready);
                // What a client that has left did not read is freed.
                self.unread.note(client, connection.account(), connection.unread_bytes());
                self.readable.add(connection.uid(), client);
                watch(&self.registry, client, connection, self.unread_descriptors.is_unread(client));
            }
            let is_read = self.unread_descriptors.recheck(client, connection.socket().as_fd());
            if connection.has_unsent() || connection.is_closing() || is_read {
                self.unflushed.add(connection.uid(), client);
            }
        } else if self.unread_descriptors.close_if_read(client) {
            self.acceptable = true;
        }
    }

    /// Whether the last flush held a reply back, which the next one sends.
    pub(crate) fn has_delayed(&self) -> bool {
        !self.delayed.is_empty()
    }

    /// Whether a flush would send something now.
    pub(crate) fn is_sending(&self) -> bool {
        !self.unflushed.is_empty() || self.unread_descriptors.may_have_next()
    }

    /// Whether there is work left for the next turn, so that the loop must not sleep.
    pub(crate) fn is_busy(&self) -> bool {
        self.acceptable || !self.readable.is_empty() || self.is_sending()
    }

    /// When [`Self::accept`] or [`Self::run_timers`] has work to do, in nanoseconds of the monotonic clock.
    pub(crate) fn deadline(&mut self) -> Option<u64> {
        let of_parts = self.shortages.deadline().into_iter().chain(self.unread_descriptors.next_lease_end());
        of_parts.chain(self.next_timeout()).chain(self.retry_ns).chain(self.resend_ns).min()
    }

    fn next_timeout(&mut self) -> Option<u64> {
        while let Some((when, client)) = self.timeouts.front() {
            if self.connections.get(client).is_some_and(Connection::has_timeout) {
                return Some(*when);
            }
            self.timeouts.pop_front();
        }
        None
    }

    /// Queues a reply, and the descriptor that goes with it.
    pub(crate) fn reply(&mut self, client: ClientId, frame: &ReplyFrame, descriptor: Option<Rc<OutputFile>>) {
        let Some(connection) = self.connections.get_mut(&client) else { return };
        connection.reply(frame, descriptor);
        self.unread.note(client, connection.account(), connection.unread_bytes());
        self.unflushed.add(connection.uid(), client);
    }

    /// The connection of a client to which a flush will send something.
    fn recipient(&mut self, client: ClientId) -> Option<&mut Connection> {
        let connection = self.connections.get_mut(&client)?;
        self.unflushed.add(connection.uid(), client);
        Some(connection)
    }

    /// Adds what the shell's ledger has of the accounts that a client may see.
    pub(crate) fn add_accounts(&self, client: ClientId, status: &mut Status) {
        if let Some(connection) = self.connections.get(&client) {
            let (rows, left_out) = self.ledger.read(|ledger| ledger.rows(connection.peer()));
            status.add_accounts(rows, left_out);
        }
    }

    /// Accepts the connections in the queue, [`ACCEPTS_PER_TURN`] at most.
    pub(crate) fn accept(&mut self, now_ns: u64) {
        self.acceptable |= self.retry_ns.is_some_and(|when| when <= now_ns);
        for _ in 0..ACCEPTS_PER_TURN {
            if !self.acceptable {
                return;
            }
            match self.listener.accept() {
                Ok((stream, _)) => self.admit(stream, now_ns),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.acceptable = false;
                    if self.retry_ns.take().is_some() && std::mem::take(&mut self.shortage_logged) {
                        log::info!("connections are accepted again clients={}", self.connections.len());
                    }
                }
                Err(error) => self.pause_accepting(now_ns, &error),
            }
        }
    }

    /// Descriptors or memory are short: connections stay in the queue until a client leaves or [`RETRY_NS`] has
    /// passed. Logged once.
    fn pause_accepting(&mut self, now_ns: u64, error: &io::Error) {
        self.acceptable = false;
        if self.retry_ns.replace(now_ns + RETRY_NS).is_none() && self.shortages.allows(now_ns) {
            log::error!("cannot accept connections for now clients={} error={error}", self.connections.len());
            self.shortage_logged = true;
        }
    }

    fn admit(&mut self, stream: UnixStream, now_ns: u64) {
        self.last += 1;
        let client = ClientId(self.last);
        let admitted = untrusted::set_inline_oob(stream.as_fd()).and_then(|()| self.access.check(&stream));
        let (peer, held, away) = match admitted {
            Ok(admitted) => admitted,
            Err(error) => {
                if rate_limit::may_log(LineAbout::Unknown, now_ns) {
                    log::warn!("cannot read a client's credentials error={error}");
                }
                return;
            }
        };
        let mut socket = ClientSocket::new(stream, held, peer.uid, self.closer.clone());
        // Writable events are of interest only now and then, see `watch`.
        let token = PollSource::Client(client).token();
        if let Err(error) = self.registry.register(socket.stream(), token, Interest::READABLE) {
            if rate_limit::may_log(LineAbout::Client(peer.uid), now_ns) {
                log::error!("cannot register a client's socket with the poll client={client} error={error}");
            }
            return;
        }
        let mut connection = Connection::new(client, peer, socket);
        if let Some(away) = away {
            if rate_limit::may_log(LineAbout::Client(peer.uid), now_ns) {
                log::warn!("client turned away client={client} uid={} verdict={away}", peer.uid);
            }
            connection.turn_away(away);
        }
        self.connections.insert(client, connection);
        self.readable.add(peer.uid, client);
        self.unflushed.add(peer.uid, client);
        self.timeouts.push_back((now_ns + HANDSHAKE_TIMEOUT_NS, client));
    }

    /// Reads one share from each readable client, in turn, until that of the turn is used up; the others stay readable.
    pub(crate) fn read(&mut self, now_ns: u64, events: &mut Vec<Event>) {
        let mut turn = ReadingTurn::whole();
        let (mut gone, mut full) = (Vec::new(), Vec::new());
        while !turn.is_used()
            && let Some(client) = self.readable.take_next()
        {
            let Some(connection) = self.connections.get_mut(&client) else { continue };
            // The flush that sends some of it brings the connection back here.
            if connection.is_unread() && self.unread.is_half_full(connection.account()) {
                turn.take(&RequestShare::whole());
                continue;
            }
            let (mut share, was_closing) = (RequestShare::whole(), connection.is_closing());
            let is_open = connection.read(&mut self.buffer, &mut share, &mut self.files, events);
            let unread = self.unread_descriptors.is_unread(client);
            if !is_open || !(watch(&self.registry, client, connection, unread) || connection.end(events)) {
                gone.push(client);
            } else if connection.wants_read() {
                full.push((connection.uid(), client));
            }
            turn.take(&share);
            if connection.is_closing() && !was_closing {
                self.timeouts.push_back((now_ns + HANDSHAKE_TIMEOUT_NS, client));
            }
            if connection.has_unsent() || connection.is_closing() {
                self.unflushed.add(connection.uid(), client);
            }
            self.partial_frames.note(client, connection.account(), connection.partial_frame_bytes());
            log_misbehaviour(now_ns, client, connection);
        }
        full.into_iter().for_each(|(uid, client)| self.readable.add(uid, client));
        self.remove(&gone);
        self.enforce_partial_frame_limit(now_ns);
    }

    /// Ends connections until the memory for partial frames is within its limit.
    fn enforce_partial_frame_limit(&mut self, now_ns: u64) {
        while let Some(client) = self.partial_frames.client_to_drop() {
            let Some(connection) = self.connections.get_mut(&client) else { return };
            self.partial_frames.note(client, connection.account(), 0);
            connection.fail(Refusal::Busy {
                what: Resource::PartialBytes.name().to_owned(),
                limit: UNFINISHED_MAX_BYTES as u64,
                part: BoundPart::All,
                key: None,
                retry_after_ms: RETRY_NS / 1_000_000,
            });
            log_misbehaviour(now_ns, client, connection);
            self.readable.add(connection.uid(), client);
        }
    }

    /// Sends queued replies, as far as the sockets take them and the share of one turn goes; the others stay in line.
    ///
    /// With `expecting`, the acceptance of a single job is held back once, so that it can be sent together with the
    /// job's end and the client wakes once instead of twice. The loop then spins (`spin_before_sleep.rs`), and the
    /// next flush sends it in any case.
    pub(crate) fn flush(&mut self, expecting: bool, events: &mut Vec<Event>) {
        self.end_delays();
        let mut turn = SendingTurn::whole();
        let (mut gone, mut full) = (Vec::new(), Vec::new());
        let unread = &mut self.unread_descriptors;
        while !turn.is_used()
            && let Some(client) = unread.next_waiting().or_else(|| self.unflushed.take_next())
        {
            let Some(connection) = self.connections.get_mut(&client) else { continue };
            if expecting && connection.take_may_delay() {
                self.delayed.push(client);
                continue;
            }
            let mut left = turn.share();
            let mut gate = unread.gate(client, connection.account());
            let is_open = connection.flush(&mut left, &mut gate, events);
            let is_there = is_open
                && (watch(&self.registry, client, connection, unread.is_unread(client))
                    || connection.end(events));
            turn.take(left);
            self.unread.note(client, connection.account(), connection.unread_bytes());
            if !is_there {
                gone.push(client);
            } else if connection.is_short() {
                self.starved.insert(client);
            } else if left == 0 && connection.has_unsent() {
                full.push((connection.uid(), client));
            }
            if is_there && connection.wants_read() {
                self.readable.add(connection.uid(), client);
            }
        }
        full.into_iter().for_each(|(uid, client)| self.unflushed.add(uid, client));
        self.note_starved();
        self.remove(&gone);
        self.enforce_unread_limit(events);
    }

    /// Ends connections until the memory for unread replies is within its limit.
    fn enforce_unread_limit(&mut self, events: &mut Vec<Event>) {
        while let Some(client) = self.unread.client_to_drop() {
            let Some(connection) = self.connections.get_mut(&client) else { return };
            connection.cut_off(events);
            log_misbehaviour(clock::monotonic_ns(), client, connection);
            self.remove(&[client]);
        }
    }

    /// Replies that were held back are sent by the flush that follows.
    fn end_delays(&mut self) {
        for client in std::mem::take(&mut self.delayed) {
            self.recipient(client);
        }
    }

    /// Sets when to retry what the kernel had no resources for.
    fn note_starved(&mut self) {
        if (!self.starved.is_empty() || self.closer.needs_retry()) && self.resend_ns.is_none() {
            let now_ns = clock::monotonic_ns();
            self.resend_ns = Some(now_ns + RETRY_NS);
            if !self.starved.is_empty() && self.shortages.allows(now_ns) {
                log::warn!(
                    "replies wait: the kernel lacks memory or too many descriptors are in flight clients={}",
                    self.starved.len()
                );
            }
        }
    }

    /// Does what is due: retries after shortages, logs counts of suppressed lines, drops clients whose time is over.
    pub(crate) fn run_timers(&mut self, now_ns: u64) {
        if self.resend_ns.is_some_and(|when| when <= now_ns) {
            self.resend_ns = None;
            for client in std::mem::take(&mut self.starved) {
                self.recipient(client);
            }
            self.closer.retry();
        }
        if let Some(count) = self.shortages.take_suppressed(now_ns) {
            log::warn!("further shortages were not logged count={count}");
        }
        self.unread_descriptors.end_leases(now_ns);
        self.drop_overdue(now_ns);
    }

    /// The loop woke up so much later than it had asked for: clients of a machine that was paused get as much more time.
    pub(crate) fn postpone_timeouts(&mut self, late_ns: u64) {
        for (when, _) in &mut self.timeouts {
            *when += late_ns;
        }
    }

    /// Drops clients that exceeded the time for hello or goodbye, [`DROPS_PER_TURN`] at most: the next deadline is
    /// past while some are left.
    fn drop_overdue(&mut self, now_ns: u64) {
        let mut gone = Vec::new();
        while gone.len() < DROPS_PER_TURN
            && let Some((when, client)) = self.timeouts.front().copied().filter(|(when, _)| *when <= now_ns)
        {
            self.timeouts.pop_front();
            if let Some(connection) = self.connections.get(&client).filter(|found| found.has_timeout()) {
                let uid = connection.uid();
                if rate_limit::may_log(LineAbout::Client(uid), now_ns) {
                    let since_ns = now_ns - when + HANDSHAKE_TIMEOUT_NS;
                    log::info!(
                        "client disconnected: it did not send its hello or read its goodbye in time client={client} uid={uid} since_ns={since_ns}"
                    );
                }
                gone.push(client);
            }
        }
        self.remove(&gone);
    }

    /// The background closer of the daemon. This table restarts its threads if one could not be started.
    pub(crate) fn closer(&self) -> BackgroundCloser {
        self.closer.clone()
    }

    /// Sends a goodbye and starts its timeout. Called when the core ends a connection.
    pub(crate) fn close(&mut self, client: ClientId, why: Refusal, now_ns: u64) {
        if let Some(connection) = self.recipient(client) {
            connection.say_goodbye(why);
            self.timeouts.push_back((now_ns + HANDSHAKE_TIMEOUT_NS, client));
        }
    }

    /// Whether any client has unsent replies.
    pub(crate) fn have_unsent(&self) -> bool {
        self.connections.values().any(Connection::has_unsent)
    }

    fn remove(&mut self, gone: &[ClientId]) {
        for client in gone {
            if let Some(connection) = self.connections.remove(client) {
                self.partial_frames.note(*client, connection.account(), 0);
                self.unread.note(*client, connection.account(), 0);
                if let Some(mut socket) = self.unread_descriptors.end(*client, connection.into_parts()) {
                    // Closing the socket would do the same, but maybe later.
                    drop(self.registry.deregister(socket.stream()));
                    // A descriptor is free again, so accepting may succeed.
                    self.acceptable = true;
                }
            }
        }
    }
}

/// Logs what a client did wrong, unless the rate limit suppresses it.
fn log_misbehaviour(now_ns: u64, client: ClientId, connection: &mut Connection) {
    if let Some(why) = connection.take_complaint()
        && rate_limit::may_log(LineAbout::Client(connection.uid()), now_ns)
    {
        log::info!("client misbehaved client={client} uid={} why={why:?}", connection.uid());
    }
}

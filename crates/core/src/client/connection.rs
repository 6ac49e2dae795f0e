//! One client, from its connection until it is forgotten.
//!
//! | a client is | meaning |
//! |---|---|
//! | connected | it may send requests, and is sent replies while it has credit |
//! | vanished | its connection is over; its attached jobs are cancelled at its alarm, unless they end before |
//!
//! A client without attached jobs is forgotten when its connection ends. Its number is never used again.

use std::collections::{BTreeMap, VecDeque};

use bulkhead_proto::ids::{ClientId, JobId, PoolId, Tag};

use crate::client::credit::whole_credit;
use crate::client::followers::RecordReader;
use crate::client::look_ups::LookUpLine;
use crate::client::mail::Letter;
use crate::client::receipts::SentEnds;
use crate::client::{Clients, HungUp};
use crate::event::Peer;
use crate::turn::{AccountId, Alarm, AlarmSlot, Resource, Turn};

/// A batch that its client submitted attached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttachedBatch {
    count: u32,
    pool: PoolId,
    needs_descriptor: bool,
}

impl AttachedBatch {
    /// A batch of `count` jobs at admission that run in this pool; `needs_descriptor`: their tasks need descriptors
    /// of the daemon's own.
    pub(crate) fn new(count: u32, pool: PoolId, needs_descriptor: bool) -> Self {
        Self { count, pool, needs_descriptor }
    }

    /// The pool that runs its jobs.
    pub(crate) fn pool(&self) -> PoolId {
        self.pool
    }

    /// Whether its tasks need descriptors of the daemon's own.
    pub(crate) fn needs_descriptor(&self) -> bool {
        self.needs_descriptor
    }
}

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(super) peer: Peer,
    pub(super) account: AccountId,
    /// Bytes that may still be sent. At 0 or below nothing that can wait is sent until all replies have left.
    pub(super) credit: i64,
    pub(super) letters: VecDeque<Letter>,
    /// Jobs whose ends it waits for by request, unread letters included, each with the request that is answered.
    pub(super) waits: BTreeMap<JobId, Tag>,
    /// Requests about jobs that only the journal may have.
    pub(super) look_ups: LookUpLine,
    /// Ends of its attached jobs that it has not read: their bytes, and how many have held outputs.
    pub(super) untold_bytes: u64,
    pub(super) untold_outputs: u64,
    /// Its attached batches, by the number of their first job.
    pub(super) batches: BTreeMap<JobId, AttachedBatch>,
    pub(super) readers: Vec<RecordReader>,
    /// Jobs whose logs it follows, each with the request that is answered.
    pub(super) logs: BTreeMap<JobId, Tag>,
    /// Ends that it was sent and has not reported as received.
    pub(super) sent: SentEnds,
    /// The pools of which it was told that they are degraded, and whether also that they stand empty.
    pub(super) told_degraded: Vec<(PoolId, bool)>,
    presence: Presence,
}

/// Whether a client is connected.
#[derive(Debug)]
enum Presence {
    Connected,
    /// Its connection is over; its attached jobs are cancelled at this alarm.
    Vanished(AlarmSlot),
}

impl Client {
    fn new(peer: Peer, account: AccountId, turn: &Turn) -> Self {
        Self {
            peer,
            account,
            credit: whole_credit(turn),
            letters: VecDeque::new(),
            waits: BTreeMap::new(),
            look_ups: LookUpLine::default(),
            untold_bytes: 0,
            untold_outputs: 0,
            batches: BTreeMap::new(),
            readers: Vec::new(),
            logs: BTreeMap::new(),
            sent: SentEnds::default(),
            told_degraded: Vec::new(),
            presence: Presence::Connected,
        }
    }

    /// The user and rights of the client.
    pub(crate) fn peer(&self) -> Peer {
        self.peer
    }

    /// The account of its user.
    pub(crate) fn account(&self) -> AccountId {
        self.account
    }

    /// Whether it is connected.
    pub(super) fn is_connected(&self) -> bool {
        matches!(self.presence, Presence::Connected)
    }

    /// When its attached jobs are cancelled, if it vanished.
    pub(super) fn vanishes_ns(&self) -> Option<u64> {
        match &self.presence {
            Presence::Connected => None,
            Presence::Vanished(alarm) => alarm.at_ns(),
        }
    }

    /// Its attached batches.
    pub(crate) fn attached(&self) -> impl Iterator<Item = &AttachedBatch> {
        self.batches.values()
    }

    /// Ends that it waits for by request, unread letters included.
    pub(crate) fn asked_waits(&self) -> u64 {
        self.waits.len() as u64
    }

    /// Whether it waits for the end of this job by request.
    pub(crate) fn waits_for(&self, job: JobId) -> bool {
        self.waits.contains_key(&job)
    }

    /// Whether it waits for the end of any job.
    pub(crate) fn waits(&self) -> bool {
        !self.waits.is_empty() || !self.batches.is_empty()
    }

    /// Whether it was told that this pool is degraded, and if so that it stands empty.
    pub(crate) fn was_told_degraded(&self, pool: PoolId, stands_empty: bool) -> bool {
        self.told_degraded.contains(&(pool, true))
            || (!stands_empty && self.told_degraded.contains(&(pool, false)))
    }

    fn batches(&self) -> impl Iterator<Item = (JobId, u32)> + '_ {
        self.batches.iter().map(|(first, batch)| (*first, batch.count))
    }
}

impl Clients {
    /// Adds a client that connected.
    ///
    /// # Panics
    /// If the shell has used its number before.
    pub(crate) fn connect(&mut self, turn: &mut Turn, id: ClientId, peer: Peer, account: AccountId) {
        turn.charge(account, Resource::Connections, 1);
        let old = self.map.insert(id, Client::new(peer, account, turn));
        assert!(old.is_none(), "client {id} connected twice");
    }

    /// Adds an attached batch that was admitted.
    ///
    /// # Panics
    /// If the client is not connected, the batch has no jobs, or it was added before.
    pub(crate) fn attach(&mut self, id: ClientId, first: JobId, batch: AttachedBatch) {
        assert!(batch.count > 0, "the batch of job {first} has jobs");
        let client = self.connected(id).expect("a client is connected when its batch is accepted");
        let old = client.batches.insert(first, batch);
        assert!(old.is_none(), "the batch of job {first} is attached once");
    }

    /// Takes the letters and batches of a client whose connection is over. [`Clients::vanish`] must follow.
    pub(crate) fn hang_up(&mut self, turn: &mut Turn, id: ClientId) -> Option<HungUp> {
        let client = self.connected(id)?;
        let letters = std::mem::take(&mut client.letters);
        let readers =
            (std::mem::take(&mut client.readers).len() + std::mem::take(&mut client.logs).len()) as u64;
        turn.release(client.account, Resource::Readers, readers);
        // Results without a receipt stay kept, and nobody can report them any more.
        client.sent = SentEnds::default();
        let hung_up = HungUp { uid: client.peer.uid, letters, batches: client.batches().collect() };
        self.readers.remove(&id);
        self.drop_all_registrations(turn, id);
        self.drop_all_look_ups(turn, id);
        Some(hung_up)
    }

    /// Forgets a client that hung up, or remembers it for `vanished_ms` if it has attached jobs.
    ///
    /// # Panics
    /// If it is not connected, or [`Clients::hang_up`] was not called.
    pub(crate) fn vanish(&mut self, turn: &mut Turn, id: ClientId) {
        let client = self.connected(id).expect("a client vanishes once");
        let has_hung_up = client.letters.is_empty() && client.readers.is_empty();
        assert!(has_hung_up, "client {id} hung up before it vanishes");
        let waits = std::mem::take(&mut client.waits).len() as u64;
        turn.release(client.account, Resource::Waits, waits);
        if client.batches.is_empty() {
            self.remove(turn, id);
            return;
        }
        let mut alarm = AlarmSlot::default();
        turn.set(&mut alarm, Alarm::Vanished(id), turn.after_ms(turn.config().vanished_ms));
        client.presence = Presence::Vanished(alarm);
    }

    /// Removes a batch whose last job is gone. A vanished client is forgotten with its last batch.
    ///
    /// # Panics
    /// If the client has no such batch.
    pub(crate) fn batch_gone(&mut self, turn: &mut Turn, id: ClientId, first: JobId) {
        let Some(client) = self.map.get_mut(&id) else { return };
        let batch = client.batches.remove(&first);
        assert!(batch.is_some(), "the batch of job {first} is attached to client {id}");
        let is_last = client.batches.is_empty();
        if let Presence::Vanished(alarm) = &mut client.presence
            && is_last
        {
            turn.cancel(alarm, Alarm::Vanished(id));
            self.remove(turn, id);
        }
    }

    /// Forgets a client that has vanished for `vanished_ms`; returns its user and its batches: the first job of each, and the
    /// count.
    ///
    /// # Panics
    /// If it has not vanished, or was forgotten before: its alarm is cancelled then.
    pub(crate) fn remove_vanished(&mut self, turn: &mut Turn, id: ClientId) -> (u32, Vec<(JobId, u32)>) {
        let client = self.remove(turn, id).expect("a client that vanished is forgotten once");
        assert!(!client.is_connected(), "client {id} vanished before it is forgotten");
        (client.peer.uid, client.batches().collect())
    }

    /// Forgets a client, and gives its place among its user's back.
    fn remove(&mut self, turn: &mut Turn, id: ClientId) -> Option<Client> {
        let client = self.map.remove(&id)?;
        turn.release(client.account, Resource::Connections, 1);
        Some(client)
    }
}

//! Clients as the core knows them: who they are, how much more may be sent to them, what waits for them.
//!
//! A client that vanished is remembered while it has attached jobs: after a while these are cancelled.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bulkhead_proto::client::message::Reply;
use bulkhead_proto::ids::{ClientId, JobId, LogId, PoolId, Tag};

use crate::action::Action;
use crate::client::followers::Reader;
use crate::event::Peer;
use crate::machine::Core;
use crate::turn::{Alarm, AlarmSlot, Turn, ms};

/// What a reply with a log takes of a client's credit beside its descriptor, in bytes.
const LOG_BYTES: u64 = 48;

/// The end of a job that a client is to be told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Letter {
    pub(crate) tag: Tag,
    /// Whether the client submitted the job attached; else it waits for it.
    pub(crate) own: bool,
    /// The first job...
    pub(crate) job: JobId,
    /// ...and how many whose numbers follow it.
    pub(crate) count: u32,
}

/// A batch that a client submitted attached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttachedBatch {
    /// How many jobs it had at first; their numbers follow each other.
    pub(crate) count: u32,
    pub(crate) pool: PoolId,
    /// Whether a descriptor of the daemon's own goes with its tasks.
    pub(crate) needs_descriptor: bool,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) peer: Peer,
    /// Bytes that may still be sent; at 0 or below it is choked until all has left.
    pub(crate) credit: i64,
    pub(crate) letters: VecDeque<Letter>,
    /// Ends it has asked for and was not told, letters included.
    pub(crate) waits: u64,
    /// Ends of attached jobs that it was not told, in bytes, and how many of them hold outputs.
    pub(crate) untold_bytes: u64,
    pub(crate) untold_outputs: u64,
    /// Its attached batches, by the number of their first job.
    batches: BTreeMap<JobId, AttachedBatch>,
    pub(crate) readers: Vec<Reader>,
    /// Whether it is on the list of those to be looked at.
    pub(crate) listed: bool,
    /// The pools of which it was told that they are degraded.
    pub(crate) noticed: Vec<PoolId>,
    /// Set when it vanished: when its jobs are cancelled.
    vanished: Option<AlarmSlot>,
}

impl Client {
    /// Its attached batches.
    pub(crate) fn attached(&self) -> impl Iterator<Item = &AttachedBatch> {
        self.batches.values()
    }

    /// Whether it waits for the end of some job.
    pub(crate) fn waits(&self) -> bool {
        self.waits > 0 || !self.batches.is_empty()
    }
}

/// All clients.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    map: BTreeMap<ClientId, Client>,
    /// Those with new letters or new credit.
    pub(crate) ready: Vec<ClientId>,
    /// Those that read records.
    pub(crate) readers: BTreeSet<ClientId>,
}

impl Clients {
    /// A client that is connected.
    pub(crate) fn connected(&mut self, id: ClientId) -> Option<&mut Client> {
        self.map.get_mut(&id).filter(|client| client.vanished.is_none())
    }

    /// A client that is connected, to be looked at.
    pub(crate) fn see(&self, id: ClientId) -> Option<&Client> {
        self.map.get(&id).filter(|client| client.vanished.is_none())
    }

    /// When the jobs of a client that is gone are cancelled; `None` if it is there.
    pub(crate) fn vanishes_ns(&self, id: ClientId) -> Option<u64> {
        self.map.get(&id)?.vanished.as_ref()?.at_ns()
    }

    /// Clients that are connected.
    pub(crate) fn count(&self) -> usize {
        self.map.values().filter(|client| client.vanished.is_none()).count()
    }

    /// Whether a connected client is still to be told of an end.
    pub(crate) fn have_letters(&self) -> bool {
        self.map.values().any(|client| !client.letters.is_empty())
    }

    /// Writes a letter. `false`: nobody is there to read it.
    pub(crate) fn post(&mut self, id: ClientId, letter: Letter) -> bool {
        let Some(client) = self.connected(id) else { return false };
        client.letters.push_back(letter);
        self.mark(id);
        true
    }

    /// Connected clients that wait for the end of some job.
    pub(crate) fn waiting(&self) -> Vec<ClientId> {
        let connected = self.map.iter().filter(|(_, client)| client.vanished.is_none());
        connected.filter(|(_, client)| client.waits()).map(|(id, _)| *id).collect()
    }

    /// Those that were told that a pool is degraded; from now on they were not.
    pub(crate) fn unnotice(&mut self, pool: PoolId) -> Vec<ClientId> {
        let noticed = self.map.iter_mut().filter(|(_, client)| client.noticed.contains(&pool));
        noticed
            .map(|(id, client)| {
                client.noticed.retain(|told| *told != pool);
                *id
            })
            .collect()
    }

    /// A client waits for one more end.
    pub(crate) fn add_wait(&mut self, id: ClientId) {
        if let Some(client) = self.connected(id) {
            client.waits += 1;
        }
    }

    /// A letter was read, or nobody is there to read it: one end less is waited for, if it was not an attached one.
    pub(crate) fn letter_read(&mut self, id: ClientId, letter: Letter) {
        if let Some(client) = self.connected(id).filter(|_| !letter.own) {
            client.waits -= u64::from(letter.count);
        }
    }

    /// Whether a connected client may be sent more.
    pub(crate) fn has_credit(&self, id: ClientId) -> bool {
        self.see(id).is_some_and(|client| client.credit > 0)
    }

    /// Sends a reply with a log, charged like one with a descriptor.
    pub(crate) fn show_log(&mut self, turn: &mut Turn, id: ClientId, tag: Tag, reply: Reply, log: LogId) {
        let whole = turn.config().client_credit_bytes;
        let Some(client) = self.connected(id) else { return };
        client.credit = client.credit.saturating_sub_unsigned(LOG_BYTES + whole / 64);
        turn.act(Action::ShowLog { client: id, tag, reply, log });
    }

    /// An attached end waits for its client, if that is there still.
    pub(crate) fn add_untold(&mut self, id: ClientId, bytes: u64, outputs: u64) {
        if let Some(client) = self.map.get_mut(&id) {
            client.untold_bytes += bytes;
            client.untold_outputs += outputs;
        }
    }

    /// An attached end waits for its client no more.
    pub(crate) fn remove_untold(&mut self, id: ClientId, bytes: u64, outputs: u64) {
        if let Some(client) = self.map.get_mut(&id) {
            client.untold_bytes -= bytes;
            client.untold_outputs -= outputs;
        }
    }

    /// A client's attached batch was accepted.
    pub(crate) fn attach(&mut self, id: ClientId, first: JobId, batch: AttachedBatch) {
        if let Some(client) = self.connected(id) {
            client.batches.insert(first, batch);
        }
    }

    /// The last job of a client's batch is gone, or left it. A client that vanished is remembered for its batches alone.
    pub(crate) fn batch_gone(&mut self, turn: &mut Turn, id: ClientId, first: JobId) {
        let Some(client) = self.map.get_mut(&id) else { return };
        client.batches.remove(&first);
        if let Some(vanished) = client.vanished.as_mut().filter(|_| client.batches.is_empty()) {
            turn.cancel(vanished, Alarm::Vanished(id));
            self.map.remove(&id);
        }
    }

    /// A client that vanished does not come back: gives its batches, each by its first job and the count of its jobs.
    pub(crate) fn remove_vanished(&mut self, id: ClientId) -> Vec<(JobId, u32)> {
        let batches = self.map.remove(&id).map(|client| client.batches).unwrap_or_default();
        batches.into_iter().map(|(first, batch)| (first, batch.count)).collect()
    }

    /// Has a client looked at in this turn.
    pub(crate) fn mark(&mut self, id: ClientId) {
        let Some(client) = self.map.get_mut(&id) else { return };
        if !std::mem::replace(&mut client.listed, true) {
            self.ready.push(id);
        }
    }
}

impl Core {
    /// A client is there.
    pub(crate) fn client_connected(&mut self, id: ClientId, peer: Peer) {
        let client = Client {
            peer,
            credit: self.whole_credit(),
            letters: VecDeque::new(),
            waits: 0,
            untold_bytes: 0,
            untold_outputs: 0,
            batches: BTreeMap::new(),
            readers: Vec::new(),
            listed: false,
            noticed: Vec::new(),
            vanished: None,
        };
        let old = self.clients.map.insert(id, client);
        assert!(old.is_none(), "client {id} connected twice");
    }

    /// What a client may be sent before it has to take some of it.
    pub(crate) fn whole_credit(&self) -> i64 {
        i64::try_from(self.turn.config().client_credit_bytes).unwrap_or(i64::MAX).max(1)
    }

    /// A client took all that was sent.
    pub(crate) fn client_flushed(&mut self, id: ClientId) {
        let credit = self.whole_credit();
        if let Some(client) = self.clients.connected(id) {
            client.credit = credit;
            self.clients.mark(id);
        }
        self.notify_flushed(id);
    }

    /// A connection is over: its jobs live on for a while, as if they were not attached.
    pub(crate) fn client_gone(&mut self, id: ClientId) {
        let vanished_ns = self.turn.now_ns().saturating_add(ms(self.turn.config().vanished_ms));
        let Some(client) = self.clients.connected(id) else { return };
        let uid = client.peer.uid;
        // Nobody will read these, so what they tell of is told: results that waited for this client alone are shelved now.
        let letters = std::mem::take(&mut client.letters);
        client.readers.clear();
        let batches: Vec<(JobId, u32)> =
            client.batches.iter().map(|(first, batch)| (*first, batch.count)).collect();
        for (first, count) in batches {
            self.jobs.detach(first, count);
        }
        for letter in letters {
            self.told(id, letter);
        }
        self.clients.readers.remove(&id);
        // It was held back for what it had not read; nothing waits for it any more.
        self.jobs.park(uid, id, false);
        let Some(client) = self.clients.connected(id) else { return };
        if client.batches.is_empty() {
            self.clients.map.remove(&id);
        } else {
            let slot = client.vanished.insert(AlarmSlot::default());
            self.turn.set(slot, Alarm::Vanished(id), vanished_ns);
        }
    }
}

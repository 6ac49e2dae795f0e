//! Clients as the core knows them: who they are, how much more may be sent to them, what waits for them.
//!
//! A client that vanished is remembered while it has attached jobs: after a while these are cancelled.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::why::Canceller;
use bulkhead_proto::ids::{ClientId, JobId, PoolId, Tag};

use crate::client::followers::Reader;
use crate::event::Peer;
use crate::job::batch::Batch;
use crate::job::entry::{Left, Shelf};
use crate::job::list::Key;
use crate::machine::Core;
use crate::turn::{Alarm, AlarmSlot, ms};

/// The end of a job that a client is to be told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Letter {
    pub(crate) tag: Tag,
    /// Whether the client submitted the job attached; else it waits for it.
    pub(crate) own: bool,
    pub(crate) job: JobId,
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
    /// Its attached batches: number of the first job, place in the slab.
    batches: BTreeMap<JobId, u32>,
    pub(crate) readers: Vec<Reader>,
    /// Whether it is on the list of those to be looked at.
    pub(crate) listed: bool,
    /// The pools of which it was told that they are degraded.
    pub(crate) noticed: Vec<PoolId>,
    /// Set when it vanished: when its jobs are cancelled.
    vanished: Option<AlarmSlot>,
}

impl Client {
    /// Its attached batches, by their places in the slab.
    pub(crate) fn attached(&self) -> impl Iterator<Item = u32> + '_ {
        self.batches.values().copied()
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

    /// A client's attached batch was accepted.
    pub(crate) fn attach(&mut self, id: ClientId, first: JobId, batch: u32) {
        if let Some(client) = self.clients.connected(id) {
            client.batches.insert(first, batch);
        }
    }

    /// A connection is over: its jobs live on for a while, as if they were not attached.
    pub(crate) fn client_gone(&mut self, id: ClientId) {
        let vanished_ns = self.turn.now_ns().saturating_add(ms(self.turn.config().vanished_ms));
        let Some(client) = self.clients.connected(id) else { return };
        let uid = client.peer.uid;
        // Nobody will read these, so what they tell of is told: results that waited for this client alone are shelved now.
        let letters = std::mem::take(&mut client.letters);
        client.readers.clear();
        let batches: Vec<u32> = client.batches.values().copied().collect();
        for batch in batches {
            self.jobs.batches[batch as usize].attached = false;
        }
        for letter in letters {
            self.told(id, letter);
        }
        self.clients.readers.remove(&id);
        // It was held back for what it had not read; nothing waits for it any more.
        self.queues.park(uid, id, false);
        let Some(client) = self.clients.connected(id) else { return };
        if client.batches.is_empty() {
            self.clients.map.remove(&id);
        } else {
            let slot = client.vanished.insert(AlarmSlot::default());
            self.turn.set(slot, Alarm::Vanished(id), vanished_ns);
        }
    }

    /// A client did not come back: what it wanted for itself is wanted by nobody.
    pub(crate) fn vanish(&mut self, id: ClientId) {
        let Some(client) = self.clients.map.remove(&id) else { return };
        for (first, place) in client.batches {
            let count = self.jobs.batches[place as usize].count;
            for number in first.0..first.0 + u64::from(count) {
                let Some(key) = self.jobs.find(JobId(number)) else { continue };
                // One that somebody asked to run again since is not this client's any more: it has a batch of its own.
                if self.jobs[key].batch == place && self.jobs[key].end().is_none() {
                    self.cancel_job(key, Canceller::Vanished { after_ms: self.turn.config().vanished_ms });
                }
            }
        }
    }

    /// The last job of a batch is gone, or left it.
    pub(crate) fn batch_gone(&mut self, gone: Option<Batch>) {
        let Some(mut batch) = gone else { return };
        self.turn.cancel(&mut batch.expiry, Alarm::Expiry(batch.first, batch.count));
        if !batch.watched {
            return;
        }
        let Some(client) = self.clients.map.get_mut(&batch.client) else { return };
        client.batches.remove(&batch.first);
        if let Some(vanished) = client.vanished.as_mut().filter(|_| client.batches.is_empty()) {
            self.turn.cancel(vanished, Alarm::Vanished(batch.client));
            self.clients.map.remove(&batch.client);
        }
    }

    /// Counts an attached job's end among those its client was not told, or out of them.
    pub(crate) fn count_untold(&mut self, key: Key, untold: bool) {
        let job = &self.jobs[key];
        let bytes = job.kept_bytes();
        let held = job.end().is_some_and(|end| matches!(end.left, Left::Held { .. }));
        let sign = |count: &mut u64, by: u64| if untold { *count += by } else { *count -= by };
        sign(&mut self.kept.untold_bytes, bytes);
        let client = self.jobs.batch(key).client;
        if let Some(client) = self.clients.map.get_mut(&client) {
            sign(&mut client.untold_bytes, bytes);
            sign(&mut client.untold_outputs, u64::from(held));
        }
    }

    /// A letter was read, or nobody is there to read it.
    pub(crate) fn told(&mut self, id: ClientId, letter: Letter) {
        if let Some(client) = self.clients.connected(id).filter(|_| !letter.own) {
            client.waits -= 1;
        }
        let Some(key) = self.jobs.find(letter.job) else { return };
        let Some(end) = self.jobs[key].end_mut() else { return };
        end.untold = end.untold.saturating_sub(1);
        if end.untold == 0 && end.shelf == Shelf::Untold {
            self.leave_untold(key);
        }
    }

    /// All who were to be told of an attached job's end were told, or are gone.
    fn leave_untold(&mut self, key: Key) {
        let done = self.jobs[key].end().is_some_and(|end| end.outcome == Outcome::Done);
        if done && self.jobs.batch(key).attached {
            self.forget(key);
        } else {
            self.count_untold(key, false);
            self.shelve(key);
        }
    }
}

//! `replies`: every request gets the replies that it was promised, in order, within its client's credit, and no others.
//!
//! It judges the replies that reach a client, not the actions, so that a shell that loses or doubles a reply is found too.
//! `promise.rs` has the promise of each kind of request.

use std::collections::BTreeMap;

use bulkhead_core::event::{Event, Peer};
use bulkhead_proto::client::message::{Reply, Request, Submit};
use bulkhead_proto::ids::{ClientId, JobId, Tag};

use crate::oracle::credit::Credit;
use crate::oracle::ledger::JobOracle;
use crate::oracle::promise::Promise;
use crate::oracle::receipts::ReceiptOracle;
use crate::report::{Verdict, broken};

/// One connection.
#[derive(Debug)]
struct KnownClient {
    peer: Peer,
    credit: Credit,
    promises: BTreeMap<Tag, Promise>,
    receipts: ReceiptOracle,
    /// The core was told that it is gone.
    gone: bool,
    /// The core closed it.
    closed: bool,
}

/// All connections.
#[derive(Debug)]
pub struct ReplyOracle {
    clients: BTreeMap<ClientId, KnownClient>,
    credit_bytes: u64,
    /// Those that left in the step that is being judged: the core may have answered before it heard so.
    leaving: Vec<ClientId>,
    /// Jobs whose done results were received since the ledger asked.
    received: Vec<JobId>,
}

impl ReplyOracle {
    /// An oracle that knows no client.
    pub fn new(credit_bytes: u64) -> Self {
        Self { clients: BTreeMap::new(), credit_bytes, leaving: Vec::new(), received: Vec::new() }
    }

    /// Follows an event.
    ///
    /// # Errors
    /// Never for a shell that works.
    pub fn told(&mut self, event: &Event) -> Verdict {
        match event {
            Event::ClientConnected { client, peer } => {
                let (credit, promises, receipts) = Default::default();
                let known =
                    KnownClient { peer: *peer, credit, promises, receipts, gone: false, closed: false };
                self.clients.insert(*client, known);
            }
            Event::ClientSaid { client, tag, request, .. } => {
                let Some(known) = self.clients.get_mut(client) else {
                    return broken("replies", format!("client {client} asks before it is connected"));
                };
                if let Some(receipt) = known.receipts.hear(request).filter(|_| !known.closed) {
                    self.received.extend(receipt);
                    return Ok(());
                }
                if let Request::Wait { jobs } = request {
                    known.promises.values_mut().for_each(|earlier| earlier.is_replaced(jobs));
                }
                known.promises.insert(*tag, Promise::new(known.peer, request.clone()));
            }
            Event::ClientGone { client } => self.leaving.push(*client),
            _ => {}
        }
        Ok(())
    }

    /// Jobs whose done results clients have received since the last call.
    pub fn take_received(&mut self) -> Vec<JobId> {
        std::mem::take(&mut self.received)
    }

    /// The submit that a tag stands for, and its user.
    pub fn submit(&self, client: ClientId, tag: Tag) -> Option<(u32, &Submit)> {
        let known = self.clients.get(&client)?;
        Some((known.peer.uid, known.promises.get(&tag)?.submit()?))
    }

    /// The user of a client.
    pub fn peer(&self, client: ClientId) -> Option<Peer> {
        self.clients.get(&client).map(|known| known.peer)
    }

    /// The request that a tag stands for.
    pub fn request(&self, client: ClientId, tag: Tag) -> Option<&Request> {
        Some(&self.clients.get(&client)?.promises.get(&tag)?.request)
    }

    /// The core closes a connection.
    ///
    /// # Errors
    /// It is closed already, or never was.
    pub fn closed(&mut self, client: ClientId) -> Verdict {
        match self.clients.get_mut(&client) {
            Some(known) if !known.closed && !known.gone => {
                known.closed = true;
                let owed = known.promises.iter().find(|(_, promise)| !promise.is_kept(|_| true));
                match owed.filter(|_| known.credit.is_plenty(self.credit_bytes)) {
                    Some((tag, promise)) => broken(
                        "replies",
                        format!("client {client} is closed, and was not told all of {tag}: {promise:?}"),
                    ),
                    None => Ok(()),
                }
            }
            _ => broken("replies", format!("client {client} is closed, but is not there")),
        }
    }

    /// A client has read everything.
    pub fn flushed(&mut self, client: ClientId) {
        if let Some(known) = self.clients.get_mut(&client) {
            known.credit.flushed();
        }
    }

    /// A client gets a reply.
    ///
    /// # Errors
    /// It was not promised, not now, or too much.
    pub fn got(
        &mut self,
        client: ClientId,
        tag: Tag,
        reply: &Reply,
        bytes: u64,
        ledger: &JobOracle,
    ) -> Verdict {
        let credit_bytes = self.credit_bytes;
        let Some(known) = self.clients.get_mut(&client) else {
            return broken("replies", format!("client {client} is not there, and gets {reply:?}"));
        };
        if known.closed || known.gone {
            return broken("replies", format!("client {client} is gone, and gets {reply:?}"));
        }
        if let (Tag(0), Reply::Notice(text)) = (tag, reply) {
            return match text.is_empty() || !known.credit.sent(bytes, false, credit_bytes) {
                true => broken("replies", format!("client {client} gets a notice {text:?} too much")),
                false => Ok(()),
            };
        }
        if let (Tag(0), Reply::Freed { jobs }) = (tag, reply) {
            return match jobs.is_empty() || !known.credit.sent(bytes, false, credit_bytes) {
                true => broken("replies", format!("client {client} is told of {jobs:?} too much")),
                false => Ok(()),
            };
        }
        let Some(promise) = known.promises.get_mut(&tag) else {
            return broken(
                "replies",
                format!("client {client} did not ask with tag {tag}, and gets {reply:?}"),
            );
        };
        if let Err(why) = promise.take(reply, |job| ledger.lives(job)) {
            let request = &promise.request;
            return broken(
                "replies",
                format!("client {client} asked {request:?} ({tag}), gets {reply:?}: {why}"),
            );
        }
        known.receipts.got(reply).or_else(|why| broken("receipts", format!("client {client}: {why}")))?;
        let streamed = reply.ends().is_some()
            || matches!(reply, Reply::Events { .. } | Reply::Progress { .. } | Reply::Unknown(_));
        let streamed = streamed && promise.replies > 1;
        if !known.credit.sent(bytes, streamed, credit_bytes) {
            return broken("replies", format!("client {client} does not read, and gets {bytes} bytes more"));
        }
        Ok(())
    }

    /// Every oracle has judged a reply: forgets the request if no more replies can follow.
    pub fn answered(&mut self, client: ClientId, tag: Tag, reply: &Reply) {
        use Reply::{Accepted, Draining, Ended, Events, Held, Logs, Progress};
        let more =
            matches!(reply, Accepted { .. } | Draining { .. } | Ended(_) | Held { .. } | Events { .. });
        let single = !more && !matches!(reply, Logs { .. } | Progress { .. });
        let Some(known) = self.clients.get_mut(&client) else { return };
        let waits = known.promises.get(&tag).is_some_and(|promise| !promise.left.is_empty());
        if single && !waits {
            known.promises.remove(&tag);
        }
    }

    /// The step is over: clients that left in it get nothing more.
    pub fn over(&mut self) {
        for client in self.leaving.drain(..) {
            if let Some(known) = self.clients.get_mut(&client) {
                known.gone = true;
                known.promises.clear();
            }
        }
    }

    /// The run is over: every client that stayed has got all that it was promised.
    ///
    /// # Errors
    /// A promise was not kept.
    pub fn finish(&self, ended: impl Fn(JobId) -> bool) -> Verdict {
        for (client, known) in self.clients.iter().filter(|(_, known)| !known.gone && !known.closed) {
            for (tag, promise) in &known.promises {
                if !promise.is_kept(&ended) {
                    let (request, left) = (&promise.request, &promise.left);
                    return broken(
                        "replies",
                        format!("client {client} still waits for {request:?} ({tag}): {left:?}"),
                    );
                }
            }
        }
        Ok(())
    }
}

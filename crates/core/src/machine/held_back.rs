//! Answers that wait until the journal has stored a fact, so that no client hears what a crash could undo.
//!
//! | what | waits for |
//! |---|---|
//! | a durable submit: it enters the table and is answered | its own fact |
//! | a letter about the end of a durable job | the fact of the end |
//! | the result of a durable job that was asked for, and the answer to a command about one | all facts so far |
//!
//! The line is in the order of the facts, because each entry waits for the last fact that there is when it enters. What concerns
//! volatile jobs alone never enters it, and overtakes. Only `durable.rs` takes from it.

use std::collections::VecDeque;

use bulkhead_facts::fact::FactNo;
use bulkhead_proto::client::message::Reply;
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::ids::{ClientId, Tag};

use crate::client::{Client, Letter};
use crate::job::Admission;
use crate::machine::Core;
use crate::machine::requests::WAIT_RETRY_MS;
use crate::turn::{AccountId, Resource};

/// One thing that waits.
#[derive(Debug)]
pub(super) enum HeldBack {
    /// The jobs of a durable submit, with their numbers. They count as queued.
    Submit(Box<Admission>),
    /// A letter, and to whom.
    Letter(ClientId, Letter),
    /// A reply.
    Reply(Box<HeldReply>),
}

/// A reply that waits. It counts against its user, because its client pays for it only when it is sent.
#[derive(Debug)]
pub(super) struct HeldReply {
    pub(super) to: (ClientId, Tag),
    pub(super) reply: Reply,
    /// About so many.
    pub(super) bytes: u64,
    account: AccountId,
}

impl HeldReply {
    /// What it counts for: as a wait, and one more for each 64 bytes.
    pub(super) fn charge(&self) -> (AccountId, Resource, u64) {
        (self.account, Resource::Waits, 1 + self.bytes / 64)
    }
}

/// All of it, oldest first.
#[derive(Debug, Default)]
pub(super) struct HeldLine {
    line: VecDeque<(FactNo, HeldBack)>,
}

impl HeldLine {
    /// Adds what waits for this fact.
    ///
    /// # Panics
    /// If something waits for a later fact.
    pub(super) fn push(&mut self, after: FactNo, held: HeldBack) {
        assert!(self.line.back().is_none_or(|(last, _)| *last <= after), "what waits is in order");
        self.line.push_back((after, held));
    }

    /// Takes the next that waits for no later fact.
    pub(super) fn take(&mut self, stored: FactNo) -> Option<HeldBack> {
        let (after, _) = self.line.front()?;
        if *after > stored {
            return None;
        }
        self.line.pop_front().map(|(_, held)| held)
    }

    /// Takes the submit with this fact.
    pub(super) fn take_submit(&mut self, fact: FactNo) -> Option<Box<Admission>> {
        let from = self.line.partition_point(|(after, _)| *after < fact);
        let is_it =
            |(after, held): &(FactNo, HeldBack)| *after == fact && matches!(held, HeldBack::Submit(_));
        let at =
            from + self.line.iter().skip(from).take_while(|(after, _)| *after == fact).position(is_it)?;
        match self.line.remove(at) {
            Some((_, HeldBack::Submit(admission))) => Some(admission),
            _ => None,
        }
    }

    /// Takes the letters and replies to a client, oldest first.
    fn take_of(&mut self, id: ClientId) -> Vec<HeldBack> {
        let is_its = |held: &HeldBack| match held {
            HeldBack::Letter(client, _) => *client == id,
            HeldBack::Reply(held) => held.to.0 == id,
            HeldBack::Submit(_) => false,
        };
        let (its, rest): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.line).into_iter().partition(|(_, held)| is_its(held));
        self.line = rest;
        its.into_iter().map(|(_, held)| held).collect()
    }

    /// The facts of the submits among these facts.
    pub(super) fn submits_in(&self, from: FactNo, to: FactNo) -> Vec<FactNo> {
        let begin = self.line.partition_point(|(after, _)| *after < from);
        let range = self.line.iter().skip(begin).take_while(|(after, _)| *after <= to);
        range.filter(|(_, held)| matches!(held, HeldBack::Submit(_))).map(|(after, _)| *after).collect()
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// What accounts hold here.
    pub(super) fn holdings(&self) -> impl Iterator<Item = (AccountId, Resource, u64)> + '_ {
        self.line.iter().flat_map(|(_, held)| match held {
            HeldBack::Submit(admission) => charges_of(admission).to_vec(),
            HeldBack::Reply(held) => vec![held.charge()],
            HeldBack::Letter(..) => Vec::new(),
        })
    }
}

/// What a submit that waits counts for.
pub(super) fn charges_of(admission: &Admission) -> [(AccountId, Resource, u64); 4] {
    let bytes = admission.submit.inputs.iter().map(|input| input.as_bytes().len() as u64).sum();
    let of = |resource, count| (admission.account, resource, count);
    [
        of(Resource::Queue, u64::from(admission.count)),
        of(Resource::QueueBytes, bytes),
        of(Resource::Submits, 1),
        of(Resource::SubmitBytes, bytes),
    ]
}

impl Core {
    /// Tells a client of the end of a durable job once that is stored.
    pub(super) fn post_stored(&mut self, client: ClientId, letter: Letter) -> bool {
        match self.turn.facts().awaited() {
            None => self.clients.post(client, letter),
            Some(after) => {
                let is_there = self.clients.is_connected(client);
                if is_there {
                    self.held_back.push(after, HeldBack::Letter(client, letter));
                }
                is_there
            }
        }
    }

    /// Sends a reply that speaks of a durable job, of about so many bytes, once all facts so far are stored.
    pub(super) fn reply_stored(&mut self, id: ClientId, tag: Tag, reply: Reply, bytes: u64) {
        let Some(after) = self.turn.facts().awaited() else { return self.reply(id, tag, reply, bytes) };
        if let Some(account) = self.clients.see(id).map(Client::account) {
            let held = Box::new(HeldReply { to: (id, tag), reply, bytes, account });
            let (account, resource, count) = held.charge();
            self.turn.charge(account, resource, count);
            self.held_back.push(after, HeldBack::Reply(held));
        }
    }

    /// A client is gone: nothing waits to be told to it.
    pub(super) fn drop_held(&mut self, id: ClientId) {
        for held in self.held_back.take_of(id) {
            match held {
                HeldBack::Letter(client, letter) => self.told(client, letter),
                HeldBack::Reply(held) => {
                    let (account, resource, count) = held.charge();
                    self.turn.release(account, resource, count);
                }
                HeldBack::Submit(_) => {}
            }
        }
    }

    /// Why a client's further replies may not wait: those of its user that do are too many.
    pub(super) fn no_room_to_hold(&mut self, id: ClientId) -> Option<Refusal> {
        self.turn.facts().awaited()?;
        let account = self.clients.see(id)?.account();
        let room = self.room(account, Resource::Waits);
        (room.left() == 0).then(|| room.refusal(Resource::Waits, WAIT_RETRY_MS))
    }
}

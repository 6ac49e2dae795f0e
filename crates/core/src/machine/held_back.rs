//! What waits until a fact is stored: nothing that a crash could take back is told before.
//!
//! | what | waits for |
//! |---|---|
//! | a durable submit: it enters the table and is answered | its own fact |
//! | a letter about the end of a durable job | the fact of the end |
//! | a reply that speaks of a durable job | all facts so far |
//!
//! The line is in the order of the facts, because each entry waits for the last fact that there is when it enters. What concerns
//! volatile jobs alone never enters it, and overtakes. Only `durable.rs` takes from it.

use std::collections::VecDeque;

use bulkhead_facts::fact::FactNo;
use bulkhead_proto::client::message::Reply;
use bulkhead_proto::ids::{ClientId, Tag};

use crate::client::Letter;
use crate::job::Admission;
use crate::machine::Core;
use crate::turn::{AccountId, Resource};

/// One thing that waits.
#[derive(Debug)]
pub(super) enum HeldBack {
    /// The jobs of a durable submit, with their numbers. They count as queued.
    Submit(Box<Admission>),
    /// A letter, and to whom.
    Letter(ClientId, Letter),
    /// A reply, and about its bytes.
    Reply(ClientId, Tag, Box<Reply>, u64),
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
        self.line.pop_front_if(|(after, _)| *after <= stored).map(|(_, held)| held)
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

    /// What the accounts of submits that wait hold.
    pub(super) fn holdings(&self) -> impl Iterator<Item = (AccountId, Resource, u64)> + '_ {
        let submits = self.line.iter().filter_map(|(_, held)| match held {
            HeldBack::Submit(admission) => Some(admission),
            HeldBack::Letter(..) | HeldBack::Reply(..) => None,
        });
        submits.flat_map(|admission| charges_of(admission))
    }
}

/// What a submit that waits counts for.
pub(super) fn charges_of(admission: &Admission) -> [(AccountId, Resource, u64); 2] {
    let bytes = admission.submit.inputs.iter().map(|input| input.as_bytes().len() as u64).sum();
    let account = admission.account;
    [(account, Resource::Queue, u64::from(admission.count)), (account, Resource::QueueBytes, bytes)]
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
        match self.turn.facts().awaited() {
            None => self.reply(id, tag, reply, bytes),
            Some(after) => self.held_back.push(after, HeldBack::Reply(id, tag, Box::new(reply), bytes)),
        }
    }
}

//! Durable submits: who sent them, and with what. Their acceptance may come when their client is gone, and is then told by a record alone.
//!
//! It judges nothing: the oracles that follow jobs ask it.

use std::collections::BTreeMap;

use bulkhead_core::event::Event;
use bulkhead_facts::fact::{Fact, FactNo};
use bulkhead_proto::client::message::{Request, Submit};
use bulkhead_proto::ids::{ClientId, JobId};

/// A submit whose fact was made.
#[derive(Debug)]
pub struct MadeSubmit {
    /// Who sent it.
    pub client: ClientId,
    /// Whose jobs they are.
    pub uid: u32,
    /// As nobody is told of it: not attached.
    pub submit: Submit,
    fact: FactNo,
}

/// All of them.
#[derive(Debug, Default)]
pub struct DurableSubmits {
    /// By their first input: no two submits have the same one.
    asked: BTreeMap<Vec<u8>, ClientId>,
    made: BTreeMap<JobId, MadeSubmit>,
    facts: u64,
}

impl DurableSubmits {
    /// Follows an event.
    pub fn told(&mut self, event: &Event) {
        if let Event::ClientSaid { client, request: Request::Submit(submit), .. } = event
            && let Some(input) = submit.inputs.first().filter(|_| submit.durable.is_some())
        {
            self.asked.insert(input.as_bytes().to_vec(), *client);
        }
        match event {
            Event::NotStored { from, to, .. } => {
                self.made.retain(|_, made| !(*from..=*to).contains(&made.fact));
            }
            Event::KeyKnown { fact, .. } => self.made.retain(|_, made| made.fact != *fact),
            _ => {}
        }
    }

    /// Follows the facts.
    pub fn made(&mut self, fact: &Fact) {
        self.facts += 1;
        let number = FactNo(self.facts);
        if let Fact::Accepted(accepted) = fact
            && let Some(client) = self.asked.get(accepted.inputs[0].as_bytes())
        {
            let submit = Submit {
                kind: accepted.kind.clone(),
                policy: accepted.policy.clone(),
                flavour: accepted.flavour,
                inputs: accepted.inputs.clone(),
                durable: Some(Box::default()),
                ..Submit::default()
            };
            self.made.insert(
                accepted.first,
                MadeSubmit { client: *client, uid: accepted.uid, submit, fact: number },
            );
        }
    }

    /// The jobs that count as queued and are not accepted, of whom, and their bytes.
    pub fn pending(&self) -> impl Iterator<Item = (u32, (u64, u64))> + '_ {
        self.made.values().map(|made| {
            let bytes = made.submit.inputs.iter().map(|input| input.as_bytes().len() as u64).sum();
            (made.uid, (made.submit.inputs.len() as u64, bytes))
        })
    }

    /// Takes the submit whose first job has this number.
    pub fn take(&mut self, first: JobId) -> Option<MadeSubmit> {
        self.made.remove(&first)
    }
}

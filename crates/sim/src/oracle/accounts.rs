//! `accounts`: nobody who holds less than a 64th of a bound is refused for somebody who holds more, and no user gets more
//! than a share.
//!
//! Resources are those of admission: jobs that wait, bytes of their inputs, files, bytes that those pin. The oracle knows
//! only what it sees, so it counts at most and at least: a job waits at most until its end is known, and at least until it
//! is offered. A refusal is wrong if its user holds at most less than a 64th with the next job, and all who hold no more
//! than a 64th hold at most less than an eighth together. It never asks the core.

use std::collections::BTreeMap;

use bulkhead_core::action::Action;
use bulkhead_core::config::{Config, Users};
use bulkhead_core::event::{Attached, Event};
use bulkhead_proto::client::message::{Reply, Submit};
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::ids::{ClientId, FileId, Tag};

use crate::oracle::durable::DurableSubmits;
use crate::oracle::job::KnownJob;
use crate::oracle::ledger::JobOracle;
use crate::report::{Verdict, broken};

/// A resource of admission, as refusals name it.
const JOBS: &str = "queued jobs";
const JOB_BYTES: &str = "bytes of queued inputs";
const FILES: &str = "files that come with jobs";
const FILE_BYTES: &str = "bytes of memory in files that come with jobs";

/// A file that the core was told of and has not dropped.
#[derive(Clone, Copy, Debug)]
struct ChargedFile {
    uid: u32,
    client: ClientId,
    tag: Tag,
    bytes: u64,
}

/// The bounds, and the files of each user.
#[derive(Debug)]
pub struct AccountOracle {
    bounds: [(&'static str, u64); 4],
    /// Whether one user gets all.
    one: bool,
    files: BTreeMap<FileId, ChargedFile>,
    /// Files that were dropped in the turn that was decided last: a refused submit's are dropped before it is answered.
    dropped: Vec<FileId>,
    uids: BTreeMap<ClientId, u32>,
}

impl AccountOracle {
    /// With the bounds of this configuration.
    pub fn new(config: &Config) -> Self {
        Self {
            bounds: [
                (JOBS, config.queue_max),
                (JOB_BYTES, config.queue_bytes_max),
                (FILES, config.files_max),
                (FILE_BYTES, config.files_bytes_max),
            ],
            one: config.users == Users::One,
            files: BTreeMap::new(),
            dropped: Vec::new(),
            uids: BTreeMap::new(),
        }
    }

    /// Follows an event.
    pub fn told(&mut self, event: &Event) {
        for file in self.dropped.drain(..) {
            self.files.remove(&file);
        }
        match event {
            Event::ClientConnected { client, peer } => drop(self.uids.insert(*client, peer.uid)),
            Event::ClientSaid { client, tag, files, .. } => {
                let uid = self.uids.get(client).copied().unwrap_or_default();
                for Attached { file, pinned_bytes } in files {
                    let held = ChargedFile { uid, client: *client, tag: *tag, bytes: *pinned_bytes };
                    self.files.insert(*file, held);
                }
            }
            _ => {}
        }
    }

    /// The core has decided this. `ledger` knows the jobs that were accepted in this turn.
    ///
    /// # Errors
    /// A user who holds little is refused for others, or one gets more than a share.
    pub fn decided(
        &mut self,
        action: &Action,
        submit: impl Fn(ClientId, Tag) -> Option<(u32, Submit)>,
        (ledger, durable): (&JobOracle, &DurableSubmits),
    ) -> Verdict {
        match action {
            Action::DropFile { file } => self.dropped.push(*file),
            Action::Reply { client, tag, reply, .. } => {
                let (count, refused) = match reply {
                    Reply::Accepted { count, refused, .. } => (*count as usize, refused.as_ref()),
                    Reply::Refused(refusal) => (0, Some(refusal)),
                    _ => return Ok(()),
                };
                let Some((uid, submit)) = submit(*client, *tag) else { return Ok(()) };
                if count > 0 {
                    self.accepted(uid, ledger)?;
                }
                if let Some(Refusal::Busy { what, .. }) = refused {
                    self.refused(what, uid, (*client, *tag), &submit, count, (ledger, durable))?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn accepted(&self, uid: u32, ledger: &JobOracle) -> Verdict {
        for (what, bound) in self.bounds {
            let share = if self.one || uid == 0 { bound } else { bound - bound / 4 };
            let held: u64 = match weight(what) {
                Some(weight) => {
                    let own = ledger.jobs.values().filter(|job| job.uid == uid && waits(job, ledger));
                    own.map(weight).sum()
                }
                None => continue,
            };
            if held > share {
                return broken(
                    "accounts",
                    format!("user {uid} holds {held} {what}, and {share} are a share"),
                );
            }
        }
        Ok(())
    }

    fn refused(
        &self,
        what: &str,
        uid: u32,
        of: (ClientId, Tag),
        submit: &Submit,
        accepted: usize,
        (ledger, durable): (&JobOracle, &DurableSubmits),
    ) -> Verdict {
        let Some((what, bound)) = self.bounds.into_iter().find(|(name, _)| *name == what) else {
            return Ok(());
        };
        let small = bound / 64;
        let mut held = BTreeMap::<u32, u64>::new();
        let wanted = match weight(what) {
            Some(weight) => {
                for job in ledger.jobs.values().filter(|job| job.end.is_none()) {
                    *held.entry(job.uid).or_default() += weight(job);
                }
                for (uid, pending) in durable.pending() {
                    *held.entry(uid).or_default() += if what == JOBS { pending.0 } else { pending.1 };
                }
                let bytes = submit.inputs.iter().map(|input| input.as_bytes().len() as u64);
                let next = submit.inputs.get(accepted).map_or(0, |input| input.as_bytes().len() as u64);
                // A durable submit is accepted as a whole.
                match (submit.durable.is_some(), what == JOBS) {
                    (true, true) => submit.inputs.len() as u64,
                    (true, false) => bytes.sum(),
                    (false, true) => 1,
                    (false, false) => next,
                }
            }
            None => {
                let of_file = |file: &ChargedFile| if what == FILES { 1 } else { file.bytes };
                for file in self.files.values() {
                    *held.entry(file.uid).or_default() += of_file(file);
                }
                let own = self.files.values().filter(|file| (file.client, file.tag) == of).map(of_file).sum();
                *held.entry(uid).or_default() -= own;
                own
            }
        };
        let own = held.get(&uid).copied().unwrap_or_default();
        let of_small: u64 = held.values().map(|held| (*held).min(small)).sum();
        if own + wanted <= small && of_small + wanted <= bound / 8 {
            let why = format!(
                "user {uid} holds {own} {what} at most and wants {wanted}, a 64th of the bound is {small}, and is refused: \
                 those who hold as little have {of_small} at most"
            );
            return broken("accounts", why);
        }
        Ok(())
    }
}

/// How much a job counts; `None`: the resource is of files.
fn weight(what: &str) -> Option<fn(&KnownJob) -> u64> {
    match what {
        JOBS => Some(|_| 1),
        JOB_BYTES => Some(|job| job.input.as_bytes().len() as u64),
        _ => None,
    }
}

/// Whether a job waits for certain.
fn waits(job: &KnownJob, ledger: &JobOracle) -> bool {
    let left = ledger.gone.contains_key(&job.client);
    job.offers == 0 && !job.may_be_over(false, left) && job.life == 1
}

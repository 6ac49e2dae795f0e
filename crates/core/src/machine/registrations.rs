//! Requests about registrations, what a submit names of them, and when they are let go.
//!
//! What a daemon takes:
//!
//! | kind | one user (private, or mode `user`) | several users (mode `system`) |
//! |---|---|---|
//! | arena | yes | refused: its client can change it while a worker of another user reads |
//! | context: bytes and descriptors that the worker program loads | yes | refused: they may be code, which would run as the service beside jobs of other users |
//! | files: descriptors, for which no code of the worker is called | yes | for kinds of pools whose workers serve one user each (`one_user`); elsewhere a submit that names them is refused, because the worker keeps them |
//!
//! The room of clients has the table of states (`client/registrations.rs`). Called by `requests.rs`, `submit.rs` and at the end of
//! each turn.

use std::collections::BTreeMap;
use std::rc::Rc;

use bulkhead_proto::client::message::{Register, RegisteredUse, Reply, Submit};
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::file::{self, Way};
use bulkhead_proto::ids::{ClientId, JobId, KindId, Tag};
use bulkhead_proto::limits::{BATCH_MAX, CONTEXT_BYTES_MAX, REGISTERED_MAX};
use bulkhead_proto::registration::{ArenaBlock, RegistrationKind};

use crate::action::RegisteredContent;
use crate::client::Client;
use crate::config::Users;
use crate::event::Attached;
use crate::job::{NamedRegistrations, pinned_bytes};
use crate::machine::Core;
use crate::machine::requests::UNKNOWN_BYTES;
use crate::turn::{AccountId, Resource};

/// When a client that may register no more should try again.
const RETRY_MS: u64 = 1000;

impl Core {
    /// A client registers something.
    pub(super) fn register(&mut self, id: ClientId, tag: Tag, register: Register, came: Vec<Attached>) {
        let Some(account) = self.clients.see(id).map(Client::account) else { return self.turn_away(came) };
        let number = register.number;
        let checked = self
            .check_register(id, &register, &came)
            .and_then(|()| self.room_for_registration(account, register.kind, &came));
        if let Err(refusal) = checked {
            self.turn_away(came);
            return self.refuse(id, tag, refusal);
        }
        let bytes = pinned_bytes(&came);
        let files = came.iter().map(|file| file.file).zip(register.files).collect();
        let content = RegisteredContent { kind: register.kind, bytes: register.bytes, files };
        self.clients.register(&mut self.turn, ((id, number), account), content, bytes);
        self.reply(id, tag, Reply::Registered { number }, 16);
    }

    /// A client drops what it registered.
    pub(super) fn drop_registration(&mut self, id: ClientId, tag: Tag, number: u32) {
        if !self.clients.drop_registration(&mut self.turn, id, number) {
            self.refuse(id, tag, unknown(number));
        }
    }

    fn check_register(&self, id: ClientId, register: &Register, came: &[Attached]) -> Result<(), Refusal> {
        let Register { number, kind, bytes, files } = register;
        let invalid = |why: String| Err(Refusal::Invalid { why });
        let several = self.turn.config().users == Users::Several;
        match kind {
            RegistrationKind::Arena if several => {
                return denied(
                    "an arena",
                    "its client can change it while the worker of another user reads it",
                );
            }
            RegistrationKind::Context if several => {
                let why =
                    "what it holds may be code, and would run as the service beside jobs of other users";
                return denied("a context with code", why);
            }
            RegistrationKind::Arena | RegistrationKind::Context | RegistrationKind::Files => {}
        }
        if let Some(fault) = file::fault(files) {
            return invalid(fault);
        }
        if let Some(folder) = files.iter().find(|file| file.way == Way::Folder) {
            return invalid(format!("{:?} is a folder: register files", folder.name));
        }
        if files.len() != came.len() {
            let (named, came) = (files.len(), came.len());
            return invalid(format!("the registration names {named} files and {came} came with it"));
        }
        let length = bytes.as_bytes().len();
        match kind {
            RegistrationKind::Arena if files.len() != 1 || length > 0 => {
                return invalid(format!(
                    "an arena is one memfd, and {} files and {length} bytes came",
                    files.len()
                ));
            }
            RegistrationKind::Arena if pinned_bytes(came) == 0 => {
                return invalid("an arena is a memfd of at least one byte, and this has none".to_owned());
            }
            RegistrationKind::Arena if !pinned_bytes(came).is_multiple_of(ArenaBlock::ALIGNMENT) => {
                let (bytes, alignment) = (pinned_bytes(came), ArenaBlock::ALIGNMENT);
                return invalid(format!("the arena has {bytes} bytes, no multiple of {alignment}"));
            }
            RegistrationKind::Files if length > 0 => {
                return invalid(format!("{length} bytes came with files: register bytes as a context"));
            }
            RegistrationKind::Context if length > CONTEXT_BYTES_MAX => {
                return invalid(format!(
                    "the context has {length} bytes, at most {CONTEXT_BYTES_MAX} fit: put the rest into a descriptor"
                ));
            }
            RegistrationKind::Arena | RegistrationKind::Files | RegistrationKind::Context => {}
        }
        if self.clients.registration(id, *number).is_some() {
            return invalid(format!(
                "registration {number} is there already: drop it first, or use another number"
            ));
        }
        Ok(())
    }

    fn room_for_registration(
        &mut self,
        account: AccountId,
        kind: RegistrationKind,
        came: &[Attached],
    ) -> Result<(), Refusal> {
        let room = self.room(account, Resource::Registrations);
        if room.left() == 0 {
            return Err(room.refusal(Resource::Registrations, RETRY_MS));
        }
        let bytes = pinned_bytes(came);
        match kind {
            RegistrationKind::Files | RegistrationKind::Context => self.room_for_files(account, came),
            RegistrationKind::Arena => {
                let files = self.room(account, Resource::Files);
                if files.left() == 0 {
                    return Err(files.refusal(Resource::Files, RETRY_MS));
                }
                let room = self.room(account, Resource::ArenaBytes);
                let is_short = bytes > room.left();
                if is_short { Err(room.refusal(Resource::ArenaBytes, RETRY_MS)) } else { Ok(()) }
            }
        }
    }

    /// What a submit names of the registrations of its connection.
    ///
    /// # Errors
    /// There is no such registration, it is of another kind, or it may not be used here.
    pub(super) fn named_by(
        &self,
        id: ClientId,
        kind: KindId,
        submit: &Submit,
    ) -> Result<Option<Rc<NamedRegistrations>>, Refusal> {
        let Some(used) = submit.registered.as_deref() else { return Ok(None) };
        let RegisteredUse { arena, contexts } = used;
        let (invalid, count) = (|why: String| Err(Refusal::Invalid { why }), contexts.len());
        if count + usize::from(arena.is_some()) > REGISTERED_MAX {
            return invalid(format!(
                "the jobs name {count} contexts, at most {REGISTERED_MAX} with an arena may"
            ));
        }
        if arena.is_some() && !submit.attached {
            let why = "the client of attached jobs alone is told when a block of its arena is free, and these are not";
            return invalid(why.to_owned());
        }
        let name = &submit.kind;
        if arena.is_some() && self.turn.config().kinds[usize::from(kind.0)].plans {
            return invalid(format!(
                "jobs of kind {name:?} are done in parts: their input cannot be in an arena"
            ));
        }
        if self.turn.config().users == Users::Several
            && !self.workers.serves_one(self.workers.pool_of_kind(kind))
        {
            return invalid(format!(
                "workers of kind {name:?} serve several users, and would keep what one has registered: send files with each \
                 job, or use a kind of a pool with one_user = true"
            ));
        }
        let mut all = Vec::with_capacity(count + 1);
        for (number, is_arena) in
            arena.iter().map(|one| (one, true)).chain(contexts.iter().map(|one| (one, false)))
        {
            let Some((registration, content)) = self.clients.registration(id, *number) else {
                return Err(unknown(*number));
            };
            if is_arena != (content.kind == RegistrationKind::Arena) {
                let (is, wanted) = if is_arena { ("no", "as the arena") } else { ("an", "as a context") };
                return invalid(format!(
                    "registration {number} is {is} arena, and the jobs name it {wanted}"
                ));
            }
            if all.iter().any(|(other, _)| *other == registration) {
                return invalid(format!("the jobs name registration {number} twice"));
            }
            all.push((registration, Rc::clone(content)));
        }
        Ok((!all.is_empty()).then(|| Rc::new(NamedRegistrations { all, has_arena: arena.is_some() })))
    }

    /// Lets go what jobs named that no worker uses any more, and tells clients whose blocks are free that no end tells it of.
    pub(super) fn unname(&mut self) {
        let mut freed = BTreeMap::<ClientId, Vec<JobId>>::new();
        for over in self.jobs.take_unnamed() {
            let ids = over.named.all.iter().map(|(registration, _)| *registration);
            self.clients.unname_registrations(&mut self.turn, ids);
            if over.named.has_arena && !over.is_told {
                freed.entry(over.client).or_default().push(over.job);
            }
        }
        for (client, job) in self.jobs.take_reported_untold() {
            freed.entry(client).or_default().push(job);
        }
        freed.retain(|client, _| self.clients.is_connected(*client));
        for (client, jobs) in freed {
            for jobs in jobs.chunks(BATCH_MAX) {
                let bytes = UNKNOWN_BYTES * (1 + jobs.len() as u64);
                self.reply(client, Tag(0), Reply::Freed { jobs: jobs.to_vec() }, bytes);
            }
        }
    }

    /// Registrations are held by those who name them, for the audit.
    pub(super) fn audit_registrations(&self) {
        let (mut jobs, mut offers) = (BTreeMap::new(), BTreeMap::new());
        for (registration, _) in self.jobs.all_named().flat_map(|named| &named.all) {
            *jobs.entry(*registration).or_default() += 1;
        }
        for (worker, found) in self.workers.iter() {
            for offer in found.ring().iter() {
                let named = self.jobs.named_by(offer.ticket());
                for (registration, _) in named.iter().flat_map(|named| &named.all) {
                    *offers.entry((worker, *registration)).or_default() += 1;
                }
            }
        }
        self.clients.audit_registrations(&jobs, &offers);
    }
}

fn denied(what: &str, why: &str) -> Result<(), Refusal> {
    let needed =
        format!("a daemon of one user: {what} is not taken by one that serves several, because {why}");
    Err(Refusal::Denied { needed })
}

fn unknown(number: u32) -> Refusal {
    Refusal::Invalid { why: format!("this connection has no registration {number}: register it first") }
}

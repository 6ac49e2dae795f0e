//! What clients registered, in this worker: arenas for inputs, and contexts.
//!
//! | a registration | when |
//! |---|---|
//! | arrives | in the lane before the first task that names it; a second time changes nothing |
//! | is checked (arena), mapped (item store), loaded (context) | after the claim of the first task that names it, as a part of that task |
//! | is forgotten | when the supervisor says so: no task that can still be claimed names it |
//!
//! Nothing of a client is trusted: the seals of an arena are checked before it is read, each place in it before that is read, and its
//! bytes are copied once, because the client can change them. An arena is read with pread(2) and never mapped: pages of a mapping
//! that were read count as resident memory of this process, so an input would count twice against the limit of its task. From a mapping
//! whose pages stay (64 MiB in each worker, for the usual arena) a copy takes a third: 0.2 us instead of 0.6 at 4 KiB, 1.3 instead of 4.2
//! at 64 KiB, 10 instead of 24 at 256 KiB. With its pages given back after each input it takes 0.4 us at 4 KiB, as long as pread up to 256 KiB,
//! and half of that at 1 MiB. A fault in it fails the task that names it. A context whose loader hangs or crashes does so within the task. Driven by `early_files.rs` and
//! `runtime.rs`.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use bulkhead_proto::file::FileUse;
use bulkhead_proto::ids::RegistrationId;
use bulkhead_proto::registration::{ArenaBlock, RegistrationKind};
use bulkhead_proto::worker::message::TaskUses;
use bulkhead_sys::memfd;
use bulkhead_task::{RegisteredContext, TaskFailure};

use crate::closer::Closer;
use crate::item_store::store_of;

/// The buffer for inputs keeps no more than this between tasks.
pub(crate) const KEPT_BYTES: usize = 4 << 20;

/// One registration.
#[derive(Debug)]
enum Held {
    /// An arena that no task has read yet.
    Unchecked(Vec<OwnedFd>),
    /// An arena, and its length in bytes.
    Arena(OwnedFd, u64),
    /// A context, and whether code of this program may load it.
    Context(Arc<RegisteredContext>, RegistrationKind),
}

impl Held {
    /// How many descriptors it keeps open.
    fn descriptors(&self) -> usize {
        match self {
            Self::Unchecked(files) => files.len(),
            Self::Arena(..) => 1,
            Self::Context(context, _) => context.files().count(),
        }
    }
}

/// All registrations of this worker.
#[derive(Debug, Default)]
pub(crate) struct WorkerRegistrations {
    held: BTreeMap<RegistrationId, Held>,
}

impl WorkerRegistrations {
    /// Keeps what arrived; one that is here stays as it is.
    pub(crate) fn add(
        &mut self,
        id: RegistrationId,
        kind: RegistrationKind,
        bytes: Vec<u8>,
        files: Vec<(FileUse, OwnedFd)>,
    ) {
        self.held.entry(id).or_insert_with(|| match kind {
            RegistrationKind::Arena => {
                Held::Unchecked(files.into_iter().map(|(_, descriptor)| descriptor).collect())
            }
            RegistrationKind::Files | RegistrationKind::Context => {
                Held::Context(Arc::new(RegisteredContext::new(bytes, files)), kind)
            }
        });
    }

    /// Hands one to the closer, because the close of a client's file may hang, and what was loaded is code of others.
    pub(crate) fn forget(&mut self, id: RegistrationId, closer: &Closer) {
        if let Some(held) = self.held.remove(&id) {
            let descriptors = held.descriptors();
            closer.close(held, descriptors);
        }
    }

    /// Whether all that a task names is here.
    pub(crate) fn has_all(&self, uses: &TaskUses) -> bool {
        uses.arena.iter().chain(&uses.contexts).all(|id| self.held.contains_key(id))
    }

    /// Maps the item store that a task uses, if that was not done and is possible.
    pub(crate) fn map_stores(&self, uses: &TaskUses) {
        for id in &uses.contexts {
            // No code of this program loads files, and no store is loaded as a context.
            if let Some(Held::Context(context, RegistrationKind::Files)) = self.held.get(id) {
                drop(store_of(context));
            }
        }
    }

    /// Checks an arena, if that was not done.
    ///
    /// # Errors
    /// [`TaskFailure`]: it lacks a seal, or its size cannot be had.
    pub(crate) fn check(&mut self, id: RegistrationId) -> Result<(), TaskFailure> {
        let Some(held) = self.held.get_mut(&id) else { return Ok(()) };
        let Held::Unchecked(files) = held else { return Ok(()) };
        let file = files
            .first()
            .ok_or_else(|| TaskFailure::new("the arena of the job came without a descriptor"))?;
        let bytes = memfd::arena_bytes(file.as_fd())
            .map_err(|error| TaskFailure::new(format!("the arena of the job cannot be used: {error}")))?;
        let file = files.swap_remove(0);
        *held = Held::Arena(file, bytes);
        Ok(())
    }

    /// Copies the input that `place` gives out of an arena that was checked. What was in `into` is gone.
    ///
    /// # Errors
    /// [`TaskFailure`]: the place is not inside, or there is no memory for the input.
    pub(crate) fn read(
        &self,
        id: RegistrationId,
        place: &[u8],
        into: &mut Vec<u8>,
    ) -> Result<(), TaskFailure> {
        let Some(Held::Arena(file, bytes)) = self.held.get(&id) else {
            return Err(TaskFailure::new("the job names an arena that is none"));
        };
        let block = ArenaBlock::read(place, *bytes).map_err(TaskFailure::new)?;
        let length = usize::try_from(block.length).map_err(|_| does_not_fit(block.length))?;
        // The task has its memory limit already: a refused allocation fails it, and the worker lives.
        into.try_reserve_exact(length.saturating_sub(into.len())).map_err(|_| does_not_fit(block.length))?;
        into.resize(length, 0);
        match memfd::read_at(file.as_fd(), into, block.offset) {
            Ok(count) if count == length => Ok(()),
            Ok(count) => Err(TaskFailure::new(format!(
                "the input of the job is {length} bytes in its arena, and {count} could be read"
            ))),
            Err(error) => {
                Err(TaskFailure::new(format!("the input of the job cannot be read from its arena: {error}")))
            }
        }
    }

    /// A context, and whether code of this program may load it and has not.
    ///
    /// # Errors
    /// [`TaskFailure`]: it is an arena.
    pub(crate) fn context(&self, id: RegistrationId) -> Result<(Arc<RegisteredContext>, bool), TaskFailure> {
        match self.held.get(&id) {
            Some(Held::Context(context, kind)) => {
                let is_due = *kind == RegistrationKind::Context && !context.is_loaded();
                Ok((Arc::clone(context), is_due))
            }
            _ => Err(TaskFailure::new("the job names a context that is none")),
        }
    }
}

fn does_not_fit(bytes: u64) -> TaskFailure {
    TaskFailure::new(format!(
        "the input of the job, {bytes} bytes in its arena, does not fit the memory of its worker: raise the memory limit of the \
         job (--memory)"
    ))
}

#[cfg(test)]
mod tests {
    use bulkhead_sys::shared_page::SharedPage;

    use super::*;

    const ID: RegistrationId = RegistrationId(7);

    fn with(descriptor: OwnedFd) -> WorkerRegistrations {
        let mut all = WorkerRegistrations::default();
        all.add(ID, RegistrationKind::Arena, Vec::new(), vec![(FileUse::default(), descriptor)]);
        all
    }

    #[test]
    fn an_input_is_copied_from_its_place_and_what_the_client_writes_later_is_not_seen() {
        let (client, descriptor) = SharedPage::create_arena("arena", 8192).unwrap();
        client.write_bytes(128, b"an input");
        let (mut all, mut input) = (with(descriptor), Vec::new());
        all.check(ID).unwrap();
        let place = |offset, length| ArenaBlock { offset, length }.to_bytes();
        all.read(ID, &place(128, 8), &mut input).unwrap();
        client.write_bytes(128, b"changed!");
        assert_eq!(input, b"an input");
        all.read(ID, &place(192, 0), &mut input).unwrap();
        assert!(input.is_empty());
        for lie in [place(8192, 1), place(u64::MAX - 63, 64), place(0, u64::MAX), place(4, 4)] {
            assert!(all.read(ID, &lie, &mut input).is_err(), "{lie:?}");
        }
        assert!(all.read(ID, b"no place", &mut input).is_err());
    }

    #[test]
    fn what_lacks_a_seal_is_not_read() {
        let open = memfd::output_file("open").unwrap();
        let fixed = memfd::output_file("fixed").unwrap();
        memfd::fix_size(fixed.as_fd()).unwrap();
        for descriptor in [open, fixed, std::fs::File::open("/dev/zero").unwrap().into()] {
            let failure = with(descriptor).check(ID).unwrap_err().to_string();
            assert!(failure.contains("cannot be used"), "{failure}");
        }
    }

    #[test]
    fn a_second_arrival_changes_nothing_and_what_is_forgotten_is_gone() {
        let mut all = WorkerRegistrations::default();
        all.add(ID, RegistrationKind::Context, b"first".to_vec(), Vec::new());
        all.context(ID).unwrap().0.keep(Arc::new(5_u32));
        all.add(ID, RegistrationKind::Context, b"second".to_vec(), Vec::new());
        let (context, is_due) = all.context(ID).unwrap();
        assert!(!is_due && context.bytes() == b"first" && context.loaded::<u32>().as_deref() == Some(&5));
        let uses = TaskUses { arena: None, contexts: vec![ID] };
        assert!(all.has_all(&uses));
        all.forget(ID, &Closer::default());
        assert!(!all.has_all(&uses) && all.context(ID).is_err());
    }
}

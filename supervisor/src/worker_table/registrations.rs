//! What clients registered, on its way to workers: each is sent down the lane once, before the first task that names it, and
//! forgotten when the core says so.
//!
//! | a worker | of a registration | until |
//! |---|---|---|
//! | was not sent it | knows nothing | an offer that names it: it is sent before the task; if the lane is full, the offer has failed |
//! | was sent it | reads it when a task names it, or when it is idle | the core tells it to forget |
//! | is to forget it, and its lane is full | has it | the lane has room: until then nothing else of this kind is sent |
//!
//! The core decides which worker needs what (`crates/core/src/client/registrations.rs`). Descriptors are passed on and never mapped or
//! read. Driven by `perform.rs`, and by `read_lanes` when the lane is ready.

use std::io;
use std::os::fd::AsFd;

use bulkhead_core::action::{RegisteredContent, Task, TaskFile};
use bulkhead_core::event::Event;
use bulkhead_proto::codec;
use bulkhead_proto::ids::{RegistrationId, WorkerId};
use bulkhead_proto::limits::UNCLOSED_MAX;
use bulkhead_proto::registration::RegistrationKind;
use bulkhead_proto::worker::message::{LaneDown, TaskUses};
use mio::Interest;

use crate::client_files::ClientFileStore;
use crate::worker_process::WorkerProcess;
use crate::worker_table::WorkerTable;
use crate::worker_table::output_answers::is_closed;

/// What a task uses that its client registered; `None`: nothing.
pub(crate) fn uses_of(task: &Task) -> Option<Box<TaskUses>> {
    let mut uses = TaskUses::default();
    for (registration, content) in registered(task) {
        match content.kind {
            RegistrationKind::Arena => uses.arena = Some(registration),
            RegistrationKind::Files | RegistrationKind::Context => uses.contexts.push(registration),
        }
    }
    (uses != TaskUses::default()).then(|| Box::new(uses))
}

/// Whether files go with this offer alone.
pub(crate) fn has_own_files(task: &Task) -> bool {
    task.files.iter().any(|file| !matches!(file, TaskFile::Registered { .. }))
}

/// An upper bound of the encoded uses of a task, in bytes.
pub(crate) fn encoded_uses(uses: &TaskUses) -> usize {
    const NUMBER_BYTES: usize = 9;
    4 + NUMBER_BYTES * (1 + uses.contexts.len())
}

fn registered(task: &Task) -> impl Iterator<Item = (RegistrationId, &RegisteredContent)> {
    task.files.iter().filter_map(|file| match file {
        TaskFile::Registered { registration, content } => Some((*registration, &**content)),
        TaskFile::Client { .. }
        | TaskFile::Shared { .. }
        | TaskFile::Log { .. }
        | TaskFile::Plan { .. }
        | TaskFile::Results { .. } => None,
    })
}

impl WorkerProcess {
    /// Sends what a task uses and this worker was not sent.
    ///
    /// # Errors
    /// The lane is full or closed, or too many of our descriptors are in flight. What was sent stays with the worker.
    pub(crate) fn send_registrations(&mut self, task: &Task, files: &ClientFileStore) -> io::Result<()> {
        for (registration, content) in registered(task) {
            if self.registered.contains(&registration) {
                continue;
            }
            if !self.unsent_forgets.is_empty() {
                // The order of these frames is kept: the lane is full.
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let mut descriptors = Vec::with_capacity(content.files.len());
            for (file, _) in &content.files {
                let gone =
                    || io::Error::other(format!("a file of registration {registration} no longer exists"));
                descriptors.push(files.get(*file).ok_or_else(gone)?.as_fd());
            }
            let frame = LaneDown::Registered {
                registration,
                kind: content.kind,
                bytes: content.bytes.clone(),
                files: content.files.iter().map(|(_, name)| name.clone()).collect(),
            };
            self.lane.send(&codec::encode(&frame), &descriptors)?;
            self.registered.insert(registration);
        }
        Ok(())
    }
}

/// How many files of clients a worker has to close, as far as the core wants to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ToldUnclosed {
    None,
    /// At most [`UNCLOSED_MAX`].
    Some,
    Many,
}

impl WorkerProcess {
    /// The event if it has files of clients to close, too many of them, or no longer, since the last call.
    pub(super) fn unclosed_event(&mut self) -> Option<Event> {
        let files = self.ring.unclosed();
        let told = match files {
            0 => ToldUnclosed::None,
            1..=UNCLOSED_MAX => ToldUnclosed::Some,
            _ => ToldUnclosed::Many,
        };
        let is_new = std::mem::replace(&mut self.told_unclosed, told) != told;
        is_new.then_some(Event::Unclosed { worker: self.id, files })
    }
}

impl WorkerTable {
    /// Tells a worker to forget a registration, if it was sent it.
    pub(crate) fn forget(&mut self, id: WorkerId, registration: RegistrationId, events: &mut Vec<Event>) {
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| !worker.reached.is_closed()) else {
            return;
        };
        if worker.registered.remove(&registration) {
            worker.has_forgotten = true;
            worker.unsent_forgets.push_back(registration);
            self.send_forgets(id, events);
        }
    }

    /// Sends what a worker is to forget, as far as its lane has room.
    pub(super) fn send_forgets(&mut self, id: WorkerId, events: &mut Vec<Event>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        while let Some(registration) = worker.unsent_forgets.front().copied() {
            match worker.lane.send(&codec::encode(&LaneDown::Forget { registration }), &[]) {
                Ok(()) => drop(worker.unsent_forgets.pop_front()),
                Err(error) if is_closed(&error) => worker.unsent_forgets.clear(),
                Err(_) => {
                    if !worker.waits_for_lane {
                        self.watch_lane(id, Interest::READABLE | Interest::WRITABLE, events);
                    }
                    return;
                }
            }
        }
        self.unwatch_lane(id, events);
    }
}

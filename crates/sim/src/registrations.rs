//! Scenarios whose clients register arenas, contexts and files and name them: which do, what they ask, and what workers keep.
//!
//! Such a daemon has one user, because another takes files alone. Chosen by the seed alone, so that a seed without them means what
//! it always did; no seed of `tests/regressions.rs` is one. A worker of this world does nothing with what it gets.

use std::collections::BTreeSet;

use bulkhead_core::action::{Action, Task, TaskFile};
use bulkhead_core::config::{Config, Users};
use bulkhead_core::event::Event;
use bulkhead_proto::client::message::{Register, RegisteredUse, Reply, Request};
use bulkhead_proto::file::{FileUse, Way};
use bulkhead_proto::ids::{ClientId, RegistrationId, Tag, WorkerId};
use bulkhead_proto::job::Payload;
use bulkhead_proto::registration::RegistrationKind;

use crate::client::ClientLife;
use crate::report::Verdict;
use crate::sabotage::{Sabotage, double};
use crate::scenario::Profile;
use crate::world::World;

/// Numbers that a client uses. What it is for goes by the number.
const NUMBERS: u64 = 7;

/// Whether clients of this seed register something.
pub(crate) fn register(seed: u64, profile: Profile, has_crowd: bool, config: &mut Config) -> bool {
    let is_one =
        matches!(seed % 32, 1 | 2 | 5 | 11 | 14 | 20 | 26 | 28) && profile != Profile::Flood && !has_crowd;
    if is_one {
        config.users = Users::One;
        config.arena_bytes_max = if profile == Profile::Starved { 5000 } else { 1 << 20 };
    }
    is_one
}

fn kind_of(number: u32) -> RegistrationKind {
    match number % 3 {
        0 => RegistrationKind::Arena,
        1 => RegistrationKind::Context,
        _ => RegistrationKind::Files,
    }
}

impl World {
    /// A client registers something, or drops it. Some of it is there already, or is not.
    pub(crate) fn register_something(&mut self, place: usize) -> Request {
        let number = self.rng.below(NUMBERS) as u32;
        let is_there = self.clients[place].registered.contains(&number);
        if is_there && self.rng.chance(700) || self.rng.chance(30) {
            self.clients[place].registered.remove(&number);
            return Request::DropRegistration { number };
        }
        self.clients[place].registered.insert(number);
        let kind = kind_of(number);
        let count = if kind == RegistrationKind::Arena { 1 } else { self.rng.below(3) };
        let files = (0..count).map(|file| FileUse::new(&format!("f{file}"), Way::In)).collect();
        Request::Register(Register { number, kind, bytes: Payload::default(), files })
    }

    /// What the jobs of a submit use.
    pub(crate) fn use_something(&mut self, place: usize, has_arena: bool) -> Option<Box<RegisteredUse>> {
        if !self.scenario.registers || !self.rng.chance(600) {
            return None;
        }
        let known: BTreeSet<u32> = self.clients[place].registered.clone();
        let mut used = RegisteredUse::default();
        for number in known {
            match kind_of(number) {
                RegistrationKind::Arena if has_arena && used.arena.is_none() => used.arena = Some(number),
                RegistrationKind::Arena => {}
                RegistrationKind::Context | RegistrationKind::Files if self.rng.chance(600) => {
                    used.contexts.push(number);
                }
                RegistrationKind::Context | RegistrationKind::Files => {}
            }
        }
        Some(Box::new(used))
    }

    /// The descriptors that come with a request, and the memory that each pins.
    pub(crate) fn pinned_bytes(&mut self, request: &Request) -> u64 {
        match request {
            Request::Register(Register { kind: RegistrationKind::Arena, .. }) => {
                *self.rng.pick(&[64, 640, 4096])
            }
            _ => *self.rng.pick(&[0, 0, 10, 700]),
        }
    }

    /// A worker is sent what a task names and it does not have.
    pub(crate) fn send_registrations(&mut self, worker: WorkerId, task: &Task) {
        let Some(worker) = self.workers.get_mut(&worker) else { return };
        worker.registered.extend(task.files.iter().filter_map(|file| match file {
            TaskFile::Registered { registration, .. } => Some(*registration),
            _ => None,
        }));
    }

    /// A worker forgets a registration.
    pub(crate) fn forget(&mut self, worker: WorkerId, registration: RegistrationId) {
        self.report.forgotten += 1;
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.registered.remove(&registration);
        }
    }

    /// Every client drops all that it registered: nothing is left anywhere.
    ///
    /// # Errors
    /// Something is.
    pub(crate) fn drop_registrations(&mut self) -> Verdict {
        if !self.scenario.registers {
            return Ok(());
        }
        let mut batch = std::mem::take(&mut self.told_back);
        for client in self.clients.iter_mut().filter(|client| client.connection == ClientLife::On) {
            for number in 0..NUMBERS as u32 {
                client.tag += 1;
                let (tag, request) = (Tag(client.tag), Request::DropRegistration { number });
                batch.push(Event::ClientSaid { client: client.id, tag, request, files: Vec::new() });
            }
        }
        self.step(batch)?;
        let of_workers = self.workers.iter().filter(|(_, worker)| worker.lives());
        let left: Vec<_> =
            of_workers.filter(|(_, worker)| !worker.registered.is_empty()).map(|(id, _)| *id).collect();
        self.oracles.registrations.finish(&left)
    }
}

impl Sabotage {
    /// Breaks what workers are told of registrations, and clients of their blocks.
    pub(crate) fn spoil_registrations(self, actions: &mut Vec<Action>) {
        match self {
            Self::ForgetEarly => double(actions, |action| {
                let Action::Offer { worker, task, .. } = action else { return None };
                task.files.iter().find_map(|file| match file {
                    TaskFile::Registered { registration, .. } => {
                        Some(Action::Forget { worker: *worker, registration: *registration })
                    }
                    _ => None,
                })
            }),
            Self::ForgetNothing => actions.retain(|action| !matches!(action, Action::Forget { .. })),
            Self::FreeEarly => double(actions, |action| {
                let Action::Offer { task, .. } = action else { return None };
                let has_registered = |file: &TaskFile| matches!(file, TaskFile::Registered { .. });
                let reply = Reply::Freed { jobs: vec![task.job] };
                let freed = Action::Reply { client: ClientId(1), tag: Tag(0), reply, output: None };
                task.files.iter().any(has_registered).then_some(freed)
            }),
            Self::FreeNothing => {
                actions.retain(|action| !matches!(action, Action::Reply { reply: Reply::Freed { .. }, .. }))
            }
            // The others break something else.
            _ => {}
        }
    }
}

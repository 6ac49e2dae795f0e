//! `files`: files of requests, and shared outputs of jobs, are held while they may be used, offered only while held, and
//! dropped exactly once; no user holds more than the budgets allow.
//!
//! It follows requests, offers and their ends, and never asks the core which job a file belongs to.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_core::action::{Action, Task, TaskFile};
use bulkhead_core::config::{Config, Users};
use bulkhead_core::event::{Attached, Event, TaskResult};
use bulkhead_proto::client::message::Request;
use bulkhead_proto::ids::{ClientId, FileId, OutputId, ScratchId, Seq, WorkerId};

use bulkhead_proto::registration::RegistrationKind;

use crate::report::{Verdict, broken};

/// One thing that offers carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Carried {
    File(FileId),
    Plan(OutputId),
    Scratch(ScratchId),
}

/// Everything that is held, and the offers that use it.
#[derive(Debug, Default)]
pub struct FileOracle {
    most: (u64, u64),
    /// Most bytes in arenas.
    most_in_arenas: u64,
    /// Whether one user gets all.
    one: bool,
    /// The bytes of files that are arenas.
    arenas: BTreeMap<FileId, u64>,
    users: BTreeMap<ClientId, u32>,
    /// Files with their users and the bytes that they pin.
    held: BTreeMap<FileId, (u32, u64)>,
    scratches: BTreeSet<ScratchId>,
    /// Scratches that became results, or were dropped.
    over: BTreeSet<ScratchId>,
    carried: BTreeMap<(WorkerId, Seq), Vec<Carried>>,
}

impl FileOracle {
    /// An oracle that holds nothing.
    pub fn new(config: &Config) -> Self {
        let most = (config.files_max, config.files_bytes_max);
        let (most_in_arenas, one) = (config.arena_bytes_max, config.users == Users::One);
        Self { most, most_in_arenas, one, ..Self::default() }
    }

    /// Follows an event.
    pub fn told(&mut self, event: &Event) {
        match event {
            Event::ClientConnected { client, peer } => drop(self.users.insert(*client, peer.uid)),
            Event::ClientSaid { client, files, request: Request::Register(register), .. }
                if register.kind == RegistrationKind::Arena =>
            {
                let uid = self.users.get(client).copied().unwrap_or(0);
                self.held.extend(files.iter().map(|file| (file.file, (uid, 0))));
                self.arenas.extend(files.iter().map(|file| (file.file, file.pinned_bytes)));
            }
            Event::ClientSaid { client, files, .. } => {
                let uid = self.users.get(client).copied().unwrap_or(0);
                self.held.extend(
                    files.iter().map(|Attached { file, pinned_bytes }| (*file, (uid, *pinned_bytes))),
                );
            }
            Event::TookBack { worker, seq, won: true }
            | Event::OfferFailed { worker, seq, taken: true, .. } => {
                drop(self.carried.remove(&(*worker, *seq)))
            }
            Event::Finished { worker, seq, report } => {
                let carried = self.carried.remove(&(*worker, *seq)).unwrap_or_default();
                if let TaskResult::Held { .. } = report.result {
                    for carried in carried {
                        if let Carried::Scratch(scratch) = carried {
                            self.scratches.remove(&scratch);
                            self.over.insert(scratch);
                        }
                    }
                }
            }
            Event::Died { worker, .. } => self.carried.retain(|(of, _), _| of != worker),
            _ => {}
        }
    }

    /// Follows an action.
    ///
    /// # Errors
    /// Something is offered that is not held, or dropped twice or too early.
    pub fn decided(&mut self, action: &Action) -> Verdict {
        match action {
            Action::Offer { worker, seq, task } => self.offered(*worker, *seq, task),
            Action::DropFile { file } => {
                self.unused(Carried::File(*file))?;
                self.arenas.remove(file);
                match self.held.remove(file) {
                    Some(_) => Ok(()),
                    None => broken("files", format!("file {file} is let go, but not held")),
                }
            }
            Action::DropScratch { scratch } => {
                self.unused(Carried::Scratch(*scratch))?;
                self.over.insert(*scratch);
                match self.scratches.remove(scratch) {
                    true => Ok(()),
                    false => broken("files", format!("scratch {scratch} is let go, but not held")),
                }
            }
            Action::DropOutput { output } => self.unused(Carried::Plan(*output)),
            _ => Ok(()),
        }
    }

    fn unused(&self, what: Carried) -> Verdict {
        match self.carried.iter().find(|(_, carried)| carried.contains(&what)) {
            Some(((worker, seq), _)) => {
                broken("files", format!("{what:?} is let go, and worker {worker} has it with offer {seq}"))
            }
            None => Ok(()),
        }
    }

    fn offered(&mut self, worker: WorkerId, seq: Seq, task: &Task) -> Verdict {
        let mut all = Vec::new();
        for file in &task.files {
            all.push(match file {
                TaskFile::Client { file, .. } if self.held.contains_key(file) => Carried::File(*file),
                TaskFile::Shared { scratch } if !self.over.contains(scratch) => {
                    self.scratches.insert(*scratch);
                    Carried::Scratch(*scratch)
                }
                TaskFile::Plan { output } => Carried::Plan(*output),
                TaskFile::Registered { content, .. }
                    if content.files.iter().all(|(file, _)| self.held.contains_key(file)) =>
                {
                    all.extend(content.files.iter().map(|(file, _)| Carried::File(*file)));
                    continue;
                }
                TaskFile::Results { .. } | TaskFile::Log { .. } => continue,
                gone => return broken("files", format!("{gone:?} goes to worker {worker}, and is not held")),
            });
        }
        if !all.is_empty() {
            self.carried.insert((worker, seq), all);
        }
        Ok(())
    }

    /// After each step.
    ///
    /// # Errors
    /// More is held than may be, in all or of one user.
    pub fn check(&self) -> Verdict {
        let mut of = BTreeMap::<u32, (u64, u64)>::new();
        let mut all = (0, 0);
        for (uid, pinned) in self.held.values() {
            for sum in [&mut all, of.entry(*uid).or_default()] {
                *sum = (sum.0 + 1, sum.1 + pinned);
            }
        }
        let (files, bytes) = self.most;
        let in_arenas: u64 = self.arenas.values().sum();
        if in_arenas > self.most_in_arenas {
            return broken("files", format!("{in_arenas} bytes are in arenas, of {}", self.most_in_arenas));
        }
        let most = |uid: u32, limit: u64| if self.one || uid == 0 { limit } else { limit - limit / 4 };
        let greedy = of.iter().find(|(uid, sum)| sum.0 > most(**uid, files) || sum.1 > most(**uid, bytes));
        if all.0 > files || all.1 > bytes || greedy.is_some() {
            return broken(
                "files",
                format!("{all:?} files and bytes are held, {greedy:?}, of {:?}", self.most),
            );
        }
        Ok(())
    }

    /// All jobs are forgotten: nothing may be held any more.
    ///
    /// # Errors
    /// Something is.
    pub fn finish(&self, in_shell: usize) -> Verdict {
        if self.held.len() + self.scratches.len() + in_shell > 0 {
            let (files, scratches) = (&self.held, &self.scratches);
            return broken("files", format!("{files:?} and {scratches:?} are held, {in_shell} in the shell"));
        }
        Ok(())
    }
}

//! Files that clients sent with their jobs: how many may be held, whom they go to, and when they are let go.
//!
//! What goes with the tasks of one job is its *freight*. It is held by the job until its end and by every offer that
//! carries it until that is settled or its worker's death proven; whoever leaves last lets the files go, each once. A
//! descriptor can pin memory and is one of a few, so both have budgets: in all, and three quarters of that for one
//! user who is not root.
//!
//! Nothing is opened, read or closed here: a file is a number.

use std::collections::BTreeMap;

use bulkhead_proto::client::Submit;
use bulkhead_proto::file::{self, FileUse, Way};
use bulkhead_proto::ids::{FileId, WorkerId};
use bulkhead_proto::job::OutputMode;
use bulkhead_proto::refusal::Refusal;

use crate::action::{Action, TaskFile};
use crate::event::Attached;
use crate::list::Key;
use crate::machine::Core;

/// Names the freight of one job; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FreightId(u64);

/// What goes with the tasks of one job.
#[derive(Debug)]
struct Freight {
    uid: u32,
    files: Vec<(FileId, FileUse)>,
    pinned_bytes: u64,
    /// The job itself until its end, and each offer that carries it.
    users: u32,
}

/// What is held, of all or of one user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    files: u64,
    bytes: u64,
}

/// Everything that is held for jobs.
#[derive(Debug, Default)]
pub(crate) struct Files {
    freights: BTreeMap<FreightId, Freight>,
    last: u64,
    all: Used,
    of: BTreeMap<u32, Used>,
}

impl Files {
    /// Counts files in, or out again.
    fn count(&mut self, uid: u32, change: impl Fn(&mut Used)) {
        change(&mut self.all);
        let used = self.of.entry(uid).or_default();
        change(used);
        if *used == Used::default() {
            self.of.remove(&uid);
        }
    }

    /// Checks what must always hold; `users` tells who has which freight.
    pub(crate) fn audit(&self, users: &BTreeMap<FreightId, u32>) {
        let (mut all, mut of) = (Used::default(), BTreeMap::<u32, Used>::new());
        for (id, freight) in &self.freights {
            assert_eq!(users.get(id), Some(&freight.users), "freight {id:?} is held by those who have it");
            for used in [&mut all, of.entry(freight.uid).or_default()] {
                used.files += freight.files.len() as u64;
                used.bytes += freight.pinned_bytes;
            }
        }
        of.retain(|_, used| *used != Used::default());
        assert!(users.keys().all(|id| self.freights.contains_key(id)), "what somebody has is held");
        assert_eq!((all, of), (self.all, self.of.clone()), "files are counted");
    }
}

impl Core {
    /// Whether the files of a submit may be taken. How many may be held is asked last: who is told to try again must
    /// not be refused for good then.
    pub(crate) fn check_files(&self, uid: u32, submit: &Submit, came: &[Attached]) -> Result<(), Refusal> {
        let invalid = |why: String| Err(Refusal::Invalid { why });
        let files = &submit.files;
        if let Some(fault) = file::fault(files) {
            return invalid(fault);
        }
        if files.len() != came.len() {
            let (named, came) = (files.len(), came.len());
            return invalid(format!("the submit names {named} files and {came} came with it"));
        }
        let to_out = files.iter().any(|file| file.name == file::OUT && file.way == Way::Out);
        if submit.policy.output == OutputMode::File && !to_out {
            return invalid(format!(
                "the output is to go into a file, and no {:?} to be written came",
                file::OUT
            ));
        }
        if files.is_empty() {
            return Ok(());
        }
        if submit.inputs.len() != 1 {
            let inputs = submit.inputs.len();
            return invalid(format!(
                "files belong to one job, and the submit has {inputs} inputs: submit each by itself"
            ));
        }
        self.room_for_files(uid, came)
    }

    fn room_for_files(&self, uid: u32, came: &[Attached]) -> Result<(), Refusal> {
        let (used, of) = (self.files.all, self.files.of.get(&uid).copied().unwrap_or_default());
        let (files, bytes) = (came.len() as u64, pinned(came));
        let sorts = [
            ("files that come with jobs", files, used.files, of.files, self.config.files_max),
            (
                "bytes of memory in files that come with jobs",
                bytes,
                used.bytes,
                of.bytes,
                self.config.files_bytes_max,
            ),
        ];
        for (what, wanted, all, own, most) in sorts {
            let share = if uid == 0 { most } else { most - most / 4 };
            if wanted > share {
                let why = format!("{wanted} {what}, at most {share} fit: leave large files on a disk");
                return Err(Refusal::Invalid { why });
            }
            let retry_after_ms = self.retry_after_ms(1);
            if own.saturating_add(wanted) > share {
                let what = format!("your share of the {what}");
                return Err(Refusal::Busy { what, limit: share, retry_after_ms });
            }
            if all.saturating_add(wanted) > most {
                let what = format!("the table of {what}");
                return Err(Refusal::Busy { what, limit: most, retry_after_ms });
            }
        }
        Ok(())
    }

    /// Files that no job takes.
    pub(crate) fn turn_away(&mut self, files: Vec<Attached>) {
        for Attached { file, .. } in files {
            self.act(Action::DropFile { file });
        }
    }

    /// Holds the files of a job that was accepted, if any came with it.
    pub(crate) fn load(&mut self, uid: u32, names: Vec<FileUse>, came: Vec<Attached>) -> Option<FreightId> {
        if came.is_empty() {
            return None;
        }
        let pinned_bytes = pinned(&came);
        let files: Vec<_> = came.iter().map(|file| file.file).zip(names).collect();
        let count = files.len() as u64;
        self.files.count(uid, |used| {
            used.files += count;
            used.bytes += pinned_bytes;
        });
        self.files.last += 1;
        let id = FreightId(self.files.last);
        self.files.freights.insert(id, Freight { uid, files, pinned_bytes, users: 1 });
        Some(id)
    }

    /// The files that go with an offer that was just made: it has them from now on.
    pub(crate) fn send_along(&mut self, worker: WorkerId, key: Key) -> Vec<TaskFile> {
        let Some(id) = self.jobs[key].freight() else { return Vec::new() };
        let Some(freight) = self.files.freights.get_mut(&id) else { return Vec::new() };
        if let Some(worker) = self.pool.workers.get_mut(&worker) {
            worker.claims.carry(id);
            freight.users += 1;
        }
        let client = |(file, name): &(FileId, FileUse)| TaskFile::Client { file: *file, name: name.clone() };
        freight.files.iter().map(client).collect()
    }

    /// An offer is settled, or a job has ended: whoever is the last lets the files go.
    pub(crate) fn unload(&mut self, freight: Option<FreightId>) {
        let Some(id) = freight else { return };
        let Some(freight) = self.files.freights.get_mut(&id) else { return };
        freight.users -= 1;
        if freight.users > 0 {
            return;
        }
        let Some(freight) = self.files.freights.remove(&id) else { return };
        let count = freight.files.len() as u64;
        self.files.count(freight.uid, |used| {
            used.files -= count;
            used.bytes -= freight.pinned_bytes;
        });
        for (file, _) in freight.files {
            self.act(Action::DropFile { file });
        }
    }
}

/// Memory that these hold in all; a file's size is whatever its maker says.
fn pinned(came: &[Attached]) -> u64 {
    came.iter().fold(0, |sum: u64, file| sum.saturating_add(file.pinned_bytes))
}

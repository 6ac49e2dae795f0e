//! Files that clients sent with their jobs: how many may be held, whom they go to, and when they are let go.
//!
//! What goes with the tasks of one job is its *freight*. It is held by the job until its end and by every offer that
//! carries it until that is settled or its worker's death proven; whoever leaves last lets the files go, each once. A
//! descriptor can pin memory and is one of a few, so both have budgets: in all, and three quarters of that for one
//! user who is not root.
//!
//! Nothing is opened, read or closed here: a file is a number.

use std::collections::BTreeMap;
use std::rc::Rc;

use bulkhead_proto::client::message::Submit;
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::file::{self, FileUse, Way};
use bulkhead_proto::ids::{FileId, JobId, OutputId, ScratchId, Seq, WorkerId};
use bulkhead_proto::job::OutputMode;
use bulkhead_proto::worker::stage::Stage;

use crate::action::{Action, TaskFile};
use crate::event::Attached;
use crate::job::list::Key;
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
    /// The output that all its tasks share, once one was told of it.
    scratch: Option<ScratchId>,
    plan: Option<OutputId>,
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
    scratches: u64,
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

    /// Whether somebody still has this.
    pub(crate) fn holds(&self, freight: FreightId) -> bool {
        self.freights.contains_key(&freight)
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
            ("files that come with jobs", files, used.files, of.files, self.turn.config().files_max),
            (
                "bytes of memory in files that come with jobs",
                bytes,
                used.bytes,
                of.bytes,
                self.turn.config().files_bytes_max,
            ),
        ];
        for (what, wanted, all, own, most) in sorts {
            let share = if uid == 0 { most } else { most - most / 4 };
            if wanted > share {
                let why = format!("{wanted} {what}, at most {share} fit: leave large files on a disk");
                return Err(Refusal::Invalid { why });
            }
            let retry_after_ms = self.turn.retry_after_ms(1);
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
            self.turn.act(Action::DropFile { file });
        }
    }

    /// Holds the files of a job that was accepted, if any came with it.
    pub(crate) fn load(&mut self, uid: u32, names: Vec<FileUse>, came: Vec<Attached>) -> Option<FreightId> {
        if came.is_empty() {
            return None;
        }
        let files: Vec<_> = came.iter().map(|file| file.file).zip(names).collect();
        Some(self.open_freight(uid, files, pinned(&came)))
    }

    fn open_freight(&mut self, uid: u32, files: Vec<(FileId, FileUse)>, pinned_bytes: u64) -> FreightId {
        let count = files.len() as u64;
        self.files.count(uid, |used| {
            used.files += count;
            used.bytes += pinned_bytes;
        });
        self.files.last += 1;
        let id = FreightId(self.files.last);
        let freight = Freight { uid, files, pinned_bytes, scratch: None, plan: None, users: 1 };
        self.files.freights.insert(id, freight);
        id
    }

    /// The files that go with an offer of a job's task that was just made: it has them from now on.
    pub(crate) fn send_along(
        &mut self,
        worker: WorkerId,
        job: Key,
        shown: JobId,
        stage: Stage,
    ) -> Vec<TaskFile> {
        let (uid, output) = (self.jobs.batch(job).uid, self.jobs.batch(job).policy.output);
        let id = match self.jobs[job].freight() {
            Some(id) => id,
            None if stage == Stage::Whole => return Vec::new(),
            // A job that is done in parts has a plan, even if no file came with it.
            None => {
                let id = self.open_freight(uid, Vec::new(), 0);
                *self.jobs[job].aside_mut().freight.insert(id)
            }
        };
        let results = self.jobs[job].fan().and_then(|fan| self.fans.get(fan));
        let results = results.filter(|fan| fan.bytes > 0).map(|fan| Rc::clone(&fan.results));
        let Some(freight) = self.files.freights.get_mut(&id) else { return Vec::new() };
        let offer = self.pools.workers.get_mut(&worker).and_then(|worker| worker.claims.last_mut());
        if let Some(offer) = offer {
            (offer.freight, offer.shown) = (Some(id), shown);
            freight.users += 1;
        }
        let client = |(file, name): &(FileId, FileUse)| TaskFile::Client { file: *file, name: name.clone() };
        let mut files: Vec<TaskFile> = freight.files.iter().map(client).collect();
        if stage == Stage::Whole {
            return files;
        }
        files.extend(freight.plan.map(|output| TaskFile::Plan { output }));
        if output == OutputMode::Descriptor {
            let next = ScratchId(self.files.scratches + 1);
            let scratch = *freight.scratch.get_or_insert(next);
            self.files.scratches = self.files.scratches.max(scratch.0);
            files.push(TaskFile::Shared { scratch });
        }
        if let (Stage::Merge { .. }, Some(results)) = (stage, results) {
            files.push(TaskFile::Results { results });
        }
        files
    }

    /// Keeps the plan of a job for its parts and its merge.
    pub(crate) fn keep_plan(&mut self, job: Key, plan: OutputId) {
        let freight = self.jobs[job].freight().and_then(|id| self.files.freights.get_mut(&id));
        if let Some(old) = freight.and_then(|freight| freight.plan.replace(plan)) {
            self.turn.act(Action::DropOutput { output: old });
        }
    }

    /// An offer ended with a held output. If that was the one that the tasks of its job share, it is no scratch any
    /// more.
    pub(crate) fn take_scratch(&mut self, worker: WorkerId, seq: Seq) {
        let offer = self.pools.workers.get(&worker).and_then(|worker| worker.claims.get(seq));
        let freight = offer.and_then(|offer| self.files.freights.get_mut(&offer.freight?));
        if let Some(freight) = freight {
            freight.scratch = None;
        }
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
            self.turn.act(Action::DropFile { file });
        }
        if let Some(output) = freight.plan {
            self.turn.act(Action::DropOutput { output });
        }
        if let Some(scratch) = freight.scratch {
            self.turn.act(Action::DropScratch { scratch });
        }
    }
}

/// Memory that these hold in all; a file's size is whatever its maker says.
fn pinned(came: &[Attached]) -> u64 {
    came.iter().fold(0, |sum: u64, file| sum.saturating_add(file.pinned_bytes))
}

//! The files of one task: what came with its offer, by what each is for.
//!
//! A client's file may be anything, and may hang whoever touches it: it is looked at when the task asks for it, not
//! before, by its own worker and by nobody else. All of them are closed before the task is told as done, so that a close
//! that hangs is the task's own time.

use std::cell::Cell;
use std::fs::File;
use std::sync::Arc;

use bulkhead_jobs::{PositionedFile, TaskFailure};
use bulkhead_proto::file::{OUT, Way};
use bulkhead_proto::limits::OUTPUT_MAX_BYTES;
use bulkhead_proto::worker::message::FileRole;
use bulkhead_proto::worker::stage::{Seen, Stage};

use crate::early_files::RoleFiles;

pub(crate) use checked_file::CheckedFile;

mod checked_file;

/// What a task was given.
#[derive(Debug, Default)]
pub(crate) struct TaskFiles {
    /// A file of the supervisor's for the output of this task alone.
    pub(crate) output: Option<Arc<CheckedFile>>,
    /// A file of the supervisor's for the output of all tasks of the job.
    pub(crate) shared: Option<Arc<CheckedFile>>,
    pub(crate) plan: Option<Arc<CheckedFile>>,
    pub(crate) results: Option<Arc<CheckedFile>>,
    /// Where what it writes is kept for whoever looks.
    pub(crate) log: Option<File>,
    named: Vec<Arc<CheckedFile>>,
    /// The task has asked for the output that is written in place.
    asked_for_shared: Cell<bool>,
}

impl TaskFiles {
    /// Sorts them by their roles.
    pub(crate) fn new(files: RoleFiles) -> Self {
        let mut sorted = Self::default();
        for (role, descriptor) in files {
            let file = File::from(descriptor);
            let ours = |name, way, file| {
                Some(Arc::new(CheckedFile::new(name, way, file).with_room(OUTPUT_MAX_BYTES)))
            };
            match role {
                FileRole::Output => sorted.output = ours("output", Way::Out, file),
                FileRole::Shared => sorted.shared = ours("output", Way::Out, file),
                FileRole::Plan => sorted.plan = ours("plan", Way::In, file),
                FileRole::Results => sorted.results = ours("results", Way::In, file),
                FileRole::Log => sorted.log = Some(file),
                FileRole::Named(wanted) => {
                    sorted.named.push(Arc::new(CheckedFile::new(&wanted.name, wanted.way, file)));
                }
            }
        }
        sorted
    }

    /// The client's file of this name, looked at.
    pub(crate) fn named(&self, name: &str) -> Result<Arc<CheckedFile>, TaskFailure> {
        let Some(file) = self.named.iter().find(|file| file.name() == name) else {
            let all: Vec<_> = self.named.iter().map(|file| format!("{:?}", file.name())).collect();
            let others = if all.is_empty() { String::new() } else { format!(", only {}", all.join(", ")) };
            return Err(TaskFailure::new(format!(
                "the job comes without a file {name:?}{others}: give it one"
            )));
        };
        file.look()?;
        Ok(Arc::clone(file))
    }

    /// All of the client's files, not looked at.
    pub(crate) fn all(&self) -> Vec<Arc<dyn PositionedFile>> {
        self.named.iter().map(|file| Arc::clone(file) as Arc<dyn PositionedFile>).collect()
    }

    /// Whether the task writes a file of the client's, which may be as long as its disk allows.
    pub(crate) fn writes_a_clients(&self) -> bool {
        self.named.iter().any(|file| file.way() == Way::Out)
    }

    /// The client's file for the output of the job, looked at.
    pub(crate) fn out(&self) -> Result<Arc<CheckedFile>, TaskFailure> {
        let out = self.named(OUT)?;
        match out.way() {
            Way::Out => Ok(out),
            Way::In => Err(TaskFailure::new(format!(
                "file {OUT:?} is one that the job reads: it cannot be its output"
            ))),
        }
    }

    /// The output that is written in place.
    pub(crate) fn in_place(&self, stage: Stage) -> Result<Arc<CheckedFile>, TaskFailure> {
        self.asked_for_shared.set(true);
        let own = self.output.as_ref().filter(|_| stage == Stage::Whole);
        if let Some(file) = self.shared.as_ref().or(own) {
            file.look()?;
            return Ok(Arc::clone(file));
        }
        if self.named.iter().any(|file| file.name() == OUT && file.way() == Way::Out) {
            return self.out();
        }
        Err(TaskFailure::new(
            "the job has no place for an output that is written in place: ask for a file (-o)",
        ))
    }

    /// As if [`Self::in_place`] had not been asked for.
    pub(crate) fn forget_in_place(&self) {
        self.asked_for_shared.set(false);
    }

    /// Whether [`Self::in_place`] was asked for.
    pub(crate) fn is_in_place(&self) -> bool {
        self.asked_for_shared.get()
    }

    /// What the files that the job reads look like to this task; those that nobody can read are left out.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        let read = self.named.iter().filter(|file| file.way() == Way::In);
        read.filter_map(|file| file.look().ok()).cloned().collect()
    }

    /// Holds them to what an earlier task of the job saw.
    ///
    /// # Errors
    /// [`TaskFailure`] that names the one that has changed.
    pub(crate) fn expect(&self, seen: &[Seen]) -> Result<(), TaskFailure> {
        for before in seen {
            if let Some(file) = self.named.iter().find(|file| file.name() == before.name) {
                file.expect(before)?;
            }
        }
        Ok(())
    }

    /// What became of them while the task ran: the first write that failed, the first one read that has changed.
    pub(crate) fn fault(&self) -> Option<TaskFailure> {
        let ours = [&self.output, &self.shared].into_iter().flatten();
        self.named.iter().chain(ours).find_map(|file| file.fault())
    }
}

#[cfg(test)]
mod tests;

//! The files of one task, which arrived with its offer in one frame of the lane, sorted by their roles (`FileRole`).
//!
//! The roles: the output of this task, the output that all tasks of the job share, the plan, the results of the parts,
//! the log, and the client's files. A call on a client's file may hang, for example on a dead file server. So the
//! worker calls `fstat` on it only when the task first asks for it, and no other process does. All files are closed
//! before the task is reported as done, so a call that hangs costs the job's own time, which its limits end.
//!
//! Length and modification time of the first `fstat` are compared again when the handler has ended. The plan task
//! stores them in the plan, and every part and the merge compare their files with them.

use std::cell::Cell;
use std::fs::File;
use std::sync::Arc;

use bulkhead_proto::file::{OUT, Way};
use bulkhead_proto::worker::message::{FileRole, OutputRoom};
use bulkhead_proto::worker::stage::{PlannedFile, Stage};
use bulkhead_task::{PositionedFile, TaskFailure};

use crate::early_files::RoleFiles;

pub(crate) use checked_file::CheckedFile;

mod checked_file;

/// The files of a task.
#[derive(Debug, Default)]
pub(crate) struct TaskFiles {
    /// A file of the supervisor for the output of this task alone.
    pub(crate) output: Option<Arc<CheckedFile>>,
    /// A file of the supervisor for the output of all tasks of the job.
    pub(crate) shared: Option<Arc<CheckedFile>>,
    pub(crate) plan: Option<Arc<CheckedFile>>,
    pub(crate) results: Option<Arc<CheckedFile>>,
    /// The log of the attempt.
    pub(crate) log: Option<File>,
    named: Vec<Arc<CheckedFile>>,
    /// Whether the task has asked for the output that is written in place.
    asked_for_shared: Cell<bool>,
}

impl TaskFiles {
    /// Sorts the files by their roles. Those in memory that the task writes have so much room.
    pub(crate) fn new(files: RoleFiles, room: OutputRoom) -> Self {
        let mut sorted = Self::default();
        for (role, descriptor) in files {
            let file = File::from(descriptor);
            let written =
                |file, bytes| Some(Arc::new(CheckedFile::new("output", Way::Out, file).with_room(bytes)));
            let read = |name, file| Some(Arc::new(CheckedFile::new(name, Way::In, file)));
            match role {
                FileRole::Output => sorted.output = written(file, room.own_bytes),
                FileRole::Shared => sorted.shared = written(file, room.shared_bytes),
                FileRole::Plan => sorted.plan = read("plan", file),
                FileRole::Results => sorted.results = read("results", file),
                FileRole::Log => sorted.log = Some(file),
                FileRole::Named(wanted) => {
                    sorted.named.push(Arc::new(CheckedFile::new(&wanted.name, wanted.way, file)));
                }
            }
        }
        sorted
    }

    /// Adds the output of this task alone, which it has asked for.
    pub(crate) fn add_output(&mut self, file: File, room_bytes: u64) -> Arc<CheckedFile> {
        self.use_output(Arc::new(CheckedFile::new("output", Way::Out, file).with_room(room_bytes)))
    }

    /// Has the task write its output into this file.
    pub(crate) fn use_output(&mut self, output: Arc<CheckedFile>) -> Arc<CheckedFile> {
        Arc::clone(self.output.insert(output))
    }

    /// The client's file of this name, checked by [`CheckedFile::look`].
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

    /// All files of the client, unchecked.
    pub(crate) fn all(&self) -> Vec<Arc<dyn PositionedFile>> {
        self.named.iter().map(|file| Arc::clone(file) as Arc<dyn PositionedFile>).collect()
    }

    /// The client's file for the output of the job, checked.
    pub(crate) fn out(&self) -> Result<Arc<CheckedFile>, TaskFailure> {
        let out = self.named(OUT)?;
        match out.way() {
            Way::Out => Ok(out),
            Way::In | Way::Folder => Err(TaskFailure::new(format!(
                "file {OUT:?} is not one that the job writes: it cannot be its output"
            ))),
        }
    }

    /// The output that is written in place, checked.
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

    /// Forgets that the task asked for [`Self::in_place`].
    pub(crate) fn forget_in_place(&self) {
        self.asked_for_shared.set(false);
    }

    /// Whether the task asked for [`Self::in_place`].
    pub(crate) fn is_in_place(&self) -> bool {
        self.asked_for_shared.get()
    }

    /// The length and the time of modification of each file that the job reads; files that cannot be checked are left
    /// out.
    pub(crate) fn seen(&self) -> Vec<PlannedFile> {
        let read = self.named.iter().filter(|file| file.way() == Way::In);
        read.filter_map(|file| file.look().ok()).cloned().collect()
    }

    /// Compares the files with what an earlier task of the job saw.
    ///
    /// # Errors
    /// [`TaskFailure`] that names the file that has changed.
    pub(crate) fn expect(&self, seen: &[PlannedFile]) -> Result<(), TaskFailure> {
        for before in seen {
            if let Some(file) = self.named.iter().find(|file| file.name() == before.name) {
                file.expect(before)?;
            }
        }
        Ok(())
    }

    /// The first failed write, the first file that changed while the task read it, or an output that became too long.
    pub(crate) fn fault(&self) -> Option<TaskFailure> {
        let ours = [&self.output, &self.shared].into_iter().flatten();
        self.named.iter().chain(ours).find_map(|file| file.fault())
    }
}

#[cfg(test)]
mod tests;

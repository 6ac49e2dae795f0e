//! The files that go with an offer: made or looked up when it is made, let go of when it is settled.
//!
//! A client's file and the shared output outlive the offer; its own output and the results of the parts are made for it
//! alone. What a worker says of its output is checked here before it counts: sealed, as long as it says, and, if it is a
//! plan, with the number of its parts at its head. Called by `perform.rs` on the way down and by `fleet.rs` on the way up.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bulkhead_core::action::{Task, TaskFile};
use bulkhead_core::event::{Leftover, TaskResult};
use bulkhead_proto::death::Lie;
use bulkhead_proto::ids::{OutputId, ScratchId};
use bulkhead_proto::job::OutputMode;
use bulkhead_proto::worker::message::FileRole;
use bulkhead_proto::worker::stage::{self, Stage};

use crate::files::Files;
use crate::held::{Held, OutputFile};

/// What was given with an offer.
#[derive(Debug)]
pub(crate) struct Given {
    is_plan: bool,
    /// Its own output.
    output: Option<OutputFile>,
    /// The output that it shares with the other tasks of its job.
    shared: Option<ScratchId>,
    /// What the parts left.
    results: Option<OutputFile>,
    /// Its log, until it is sent.
    log: Option<OwnedFd>,
}

/// What goes down the lane: what each descriptor is for, and the descriptors.
pub(crate) type Parcel<'a> = (Vec<FileRole>, Vec<BorrowedFd<'a>>);

impl Given {
    /// Makes what this task needs and is not there yet.
    ///
    /// # Errors
    /// As many as may be are open; something is short.
    pub(crate) fn make(task: &Task, held: &mut Held) -> io::Result<Self> {
        let is_plan = matches!(task.stage, Stage::Plan);
        let mut given = Self { is_plan, output: None, shared: None, results: None, log: None };
        for file in &task.files {
            match file {
                TaskFile::Shared { scratch } => {
                    held.share(*scratch)?;
                    given.shared = Some(*scratch);
                }
                TaskFile::Results { results } => given.results = Some(held.fill(&stage::pack(results))?),
                TaskFile::Log { log } => given.log = Some(held.begin_log(*log)?),
                TaskFile::Client { .. } | TaskFile::Plan { .. } => {}
            }
        }
        // Who merges seals what all have written; a plan is never that.
        if task.output == OutputMode::Descriptor && (is_plan || given.shared.is_none()) {
            given.output = Some(held.make()?);
        }
        Ok(given)
    }

    /// All that goes down with the task. `None`: the core named what is not held any more.
    pub(crate) fn parcel<'a>(&'a self, task: &Task, held: &'a Held, files: &'a Files) -> Option<Parcel<'a>> {
        let mut roles = Vec::with_capacity(task.files.len() + 1);
        let mut descriptors = Vec::with_capacity(task.files.len() + 1);
        if let Some(output) = &self.output {
            roles.push(FileRole::Output);
            descriptors.push(output.as_fd());
        }
        for file in &task.files {
            let (role, descriptor) = match file {
                TaskFile::Client { file, name } => (FileRole::Named(name.clone()), files.get(*file)?.as_fd()),
                TaskFile::Shared { scratch } => (FileRole::Shared, held.scratch(*scratch)?.as_fd()),
                TaskFile::Plan { output } => (FileRole::Plan, held.look(*output)?.as_fd()),
                TaskFile::Log { .. } => (FileRole::Log, self.log.as_ref()?.as_fd()),
                TaskFile::Results { .. } => (FileRole::Results, self.results.as_ref()?.as_fd()),
            };
            roles.push(role);
            descriptors.push(descriptor);
        }
        Some((roles, descriptors))
    }

    /// All of it is on its way: what is for the worker alone is not needed here any more.
    pub(crate) fn sent(&mut self) {
        self.log = None;
    }

    /// What a worker's word is worth that its output is done and has so many bytes.
    ///
    /// # Errors
    /// The rule that it broke. Sealing is not done here, see [`Held::take`].
    pub(crate) fn ended_with(self, bytes: u64, held: &mut Held) -> Result<TaskResult, Lie> {
        let taken = match (self.output, self.shared) {
            (Some(output), _) => held.take(output, bytes),
            (None, Some(scratch)) => held.take_scratch(scratch, bytes),
            (None, None) => return Err(Lie::Result),
        };
        match taken {
            Ok(Some(output)) if self.is_plan => planned(output, bytes, held),
            Ok(Some(output)) => Ok(TaskResult::Held { output, bytes }),
            Ok(None) => Err(Lie::Output),
            Err(error) => Ok(lost(&error)),
        }
    }

    /// What a worker's word is worth that a task which failed left so many bytes in its own output.
    ///
    /// # Errors
    /// The rule that it broke.
    pub(crate) fn left(self, bytes: u64, held: &mut Held) -> Result<Leftover, Lie> {
        match held.take(self.output.ok_or(Lie::Result)?, bytes) {
            Ok(Some(output)) => Ok(Leftover::Held { output, bytes }),
            Ok(None) => Err(Lie::Output),
            Err(error) => {
                log::warn!("the output of a failed task could not be kept error={error}");
                Ok(Leftover::Nothing)
            }
        }
    }
}

fn lost(error: &io::Error) -> TaskResult {
    let message = format!("its output could not be kept: {error}");
    TaskResult::Failed { message, code: None, output: Leftover::Nothing }
}

/// Reads how many parts a plan has. It is sealed: nobody can change that any more.
fn planned(output: OutputId, bytes: u64, held: &mut Held) -> Result<TaskResult, Lie> {
    let result = match held.head(output) {
        Ok(head) => match head.and_then(|head| stage::parts_of(head, bytes)) {
            Some(parts) => return Ok(TaskResult::Planned { output, bytes, parts }),
            None => Err(Lie::Plan),
        },
        Err(error) => Ok(lost(&error)),
    };
    held.drop_output(output);
    result
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::rc::Rc;

    use bulkhead_proto::ids::{Fence, JobId, KindId};
    use bulkhead_proto::job::Payload;
    use bulkhead_sys::memfd;

    use super::*;
    use crate::background_closer::BackgroundCloser;

    fn task(stage: Stage, output: OutputMode, files: Vec<TaskFile>) -> Task {
        Task {
            job: JobId(1),
            fence: Fence(1),
            kind: KindId(0),
            memory_bytes: None,
            output,
            stage,
            files,
            input: Payload::default(),
        }
    }

    fn shared() -> TaskFile {
        TaskFile::Shared { scratch: ScratchId(7) }
    }

    fn write(output: BorrowedFd<'_>, bytes: &[u8]) {
        let mut file = File::from(output.try_clone_to_owned().unwrap());
        file.write_all(bytes).unwrap();
    }

    fn roles(given: &Given, task: &Task, held: &Held) -> Vec<FileRole> {
        given.parcel(task, held, &Files::new(8, false, BackgroundCloser::default())).unwrap().0
    }

    /// A plan task that wrote this and says that it has so many bytes.
    fn plan(written: &[u8], said: u64, held: &mut Held) -> Result<TaskResult, Lie> {
        let task = task(Stage::Plan, OutputMode::Descriptor, vec![shared()]);
        let given = Given::make(&task, held).unwrap();
        assert_eq!(roles(&given, &task, held), [FileRole::Output, FileRole::Shared]);
        let own = given.output.as_ref().unwrap().as_fd();
        write(own, written);
        memfd::seal_output(own).unwrap();
        given.ended_with(said, held)
    }

    #[test]
    fn a_plan_says_how_many_parts_it_has_or_breaks_a_rule() {
        let mut held = Held::new(8, BackgroundCloser::default());
        let good = stage::pack(&[b"a", b"b", b"c"]);
        let planned = plan(&good, good.len() as u64, &mut held).unwrap();
        assert!(matches!(planned, TaskResult::Planned { parts: 3, .. }), "{planned:?}");
        assert_eq!(plan(&good, good.len() as u64 + 1, &mut held), Err(Lie::Output));
        for bad in [&b""[..], b"short", &[255; 64], &good[..39]] {
            assert_eq!(plan(bad, bad.len() as u64, &mut held), Err(Lie::Plan), "{bad:?}");
        }
        held.drop_scratch(ScratchId(7));
        let TaskResult::Planned { output, .. } = planned else { unreachable!("as asserted") };
        held.drop_output(output);
        assert_eq!(held.open(), 0, "what broke a rule is gone");
    }

    #[test]
    fn what_all_have_written_is_the_result_once_the_merge_has_sealed_it() {
        let mut held = Held::new(8, BackgroundCloser::default());
        let run = task(Stage::Run { part: 0, parts: 1 }, OutputMode::Inline, vec![shared()]);
        let given = Given::make(&run, &mut held).unwrap();
        assert_eq!(roles(&given, &run, &held), [FileRole::Shared]);
        let merge = task(Stage::Merge { parts: 1 }, OutputMode::Descriptor, vec![shared()]);
        let premature = Given::make(&merge, &mut held).unwrap();
        assert_eq!(roles(&premature, &merge, &held), [FileRole::Shared], "it has no output of its own");
        assert_eq!(premature.ended_with(0, &mut held), Err(Lie::Output), "it is not sealed");
        let all = held.scratch(ScratchId(7)).unwrap().as_fd();
        write(all, b"together");
        memfd::seal_output(all).unwrap();
        let again = Given::make(&merge, &mut held).unwrap();
        let ended = again.ended_with(8, &mut held);
        assert!(matches!(ended, Ok(TaskResult::Held { bytes: 8, .. })), "{ended:?}");
        assert!(held.scratch(ScratchId(7)).is_none(), "it is a result now");
    }

    #[test]
    fn what_the_parts_left_comes_packed_and_what_is_gone_is_said() {
        let mut held = Held::new(8, BackgroundCloser::default());
        let results = Rc::new(vec![Payload::from(b"one".to_vec()), Payload::default()]);
        let packed = stage::pack(&results);
        let merge = task(Stage::Merge { parts: 2 }, OutputMode::Inline, vec![TaskFile::Results { results }]);
        let given = Given::make(&merge, &mut held).unwrap();
        assert_eq!(roles(&given, &merge, &held), [FileRole::Results]);
        let mut read = vec![0; packed.len() + 1];
        let count = memfd::read_at(given.results.as_ref().unwrap().as_fd(), &mut read, 0).unwrap();
        assert_eq!(&read[..count], &packed[..]);
        assert_eq!(given.ended_with(0, &mut held), Err(Lie::Result), "it has no output");
        assert_eq!(held.open(), 0);
        let plan = task(Stage::Plan, OutputMode::Inline, vec![TaskFile::Plan { output: OutputId(9) }]);
        let given = Given::make(&plan, &mut held).unwrap();
        assert!(given.parcel(&plan, &held, &Files::new(8, false, BackgroundCloser::default())).is_none());
    }
}

//! The files that are sent with an offer: created or looked up when the offer is made, dropped when it is settled.
//!
//! Client files and the shared output outlive the offer; its own output, its log and the packed results of the parts
//! are created for it alone. An output that its task asks for while it runs is created then (`output_answers.rs`), and takes the place of
//! a reserve that went with the offer. A worker's report about its output is checked here before it counts: the file is sealed,
//! has the reported size, and a plan begins with the number of its parts. Called by `perform.rs` when an offer is
//! sent and by `worker_table.rs` when it ends.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bulkhead_core::action::{Task, TaskFile};
use bulkhead_core::event::{Leftover, TaskResult};
use bulkhead_proto::death::Violation;
use bulkhead_proto::ids::{OutputId, ScratchId};
use bulkhead_proto::job::OutputMode;
use bulkhead_proto::worker::message::{FileRole, OutputRoom};
use bulkhead_proto::worker::stage::{self, Stage};
use bulkhead_sys::clock;

use crate::client_files::ClientFileStore;
use crate::output_store::{OutputFile, OutputStore};
use crate::rate_limit::{self, LineAbout};

/// The files of one offer.
#[derive(Debug)]
pub(crate) struct OfferFiles {
    is_plan: bool,
    /// How long its outputs may become.
    room: OutputRoom,
    /// The offer's own output file.
    output: Option<OutputFile>,
    /// The output that all tasks of its job share.
    shared: Option<ScratchId>,
    /// The packed results of the parts, for a merge.
    results: Option<OutputFile>,
    /// The worker's descriptor of the log, until it is sent.
    log: Option<OwnedFd>,
}

/// The content of one frame on the lane: the role of each descriptor, and the descriptors.
pub(crate) type LaneFiles<'a> = (Vec<FileRole>, Vec<BorrowedFd<'a>>);

impl OfferFiles {
    /// Creates the files that this task needs and that do not exist yet.
    ///
    /// # Errors
    /// As many files are open as are allowed; memory or descriptors are short.
    pub(crate) fn make(task: &Task, outputs: &mut OutputStore) -> io::Result<Self> {
        let is_plan = matches!(task.stage, Stage::Plan);
        let room = task.room();
        let mut offer_files = Self { is_plan, room, output: None, shared: None, results: None, log: None };
        for file in &task.files {
            match file {
                TaskFile::Shared { scratch } => {
                    outputs.share(*scratch)?;
                    offer_files.shared = Some(*scratch);
                }
                TaskFile::Results { results } => {
                    offer_files.results = Some(outputs.fill(&stage::pack(results))?)
                }
                TaskFile::Log { log } => offer_files.log = Some(outputs.begin_log(*log)?),
                TaskFile::Client { .. } | TaskFile::Plan { .. } | TaskFile::Registered { .. } => {}
            }
        }
        // A merge seals the shared output as its result; a plan's result is always a file of its own.
        let has_own = task.output == OutputMode::Descriptor && (is_plan || offer_files.shared.is_none());
        if has_own || task.has_reserve() {
            offer_files.output = Some(outputs.make()?);
        }
        Ok(offer_files)
    }

    /// Adds the output that the task has asked for; `already` is what was sent with the offer.
    pub(crate) fn with_output(already: Option<Self>, output: OutputFile, own_bytes: u64) -> Self {
        let room = already.as_ref().map_or(OutputRoom::NONE, |files| files.room);
        let none = Self { is_plan: false, room, output: None, shared: None, results: None, log: None };
        let room = OutputRoom { own_bytes, ..room };
        Self { output: Some(output), room, ..already.unwrap_or(none) }
    }

    /// The offer's own output file.
    pub(crate) fn output(&self) -> Option<&OutputFile> {
        self.output.as_ref()
    }

    /// Drops the offer's own output file: it was not sent, or its task is refused one.
    pub(crate) fn drop_output(&mut self) {
        self.output = None;
    }

    /// The files to send with the task. `None`: the core named a file that is not stored any more.
    pub(crate) fn lane_files<'a>(
        &'a self,
        task: &Task,
        outputs: &'a OutputStore,
        files: &'a ClientFileStore,
    ) -> Option<LaneFiles<'a>> {
        let mut roles = Vec::with_capacity(task.files.len() + 1);
        let mut descriptors = Vec::with_capacity(task.files.len() + 1);
        if let Some(output) = &self.output {
            roles.push(FileRole::Output);
            descriptors.push(output.as_fd());
        }
        for file in &task.files {
            let (role, descriptor) = match file {
                TaskFile::Client { file, name } => (FileRole::Named(name.clone()), files.get(*file)?.as_fd()),
                TaskFile::Shared { scratch } => (FileRole::Shared, outputs.scratch(*scratch)?.as_fd()),
                TaskFile::Plan { output } => (FileRole::Plan, outputs.look(*output)?.as_fd()),
                TaskFile::Log { .. } => (FileRole::Log, self.log.as_ref()?.as_fd()),
                TaskFile::Results { .. } => (FileRole::Results, self.results.as_ref()?.as_fd()),
                TaskFile::Registered { .. } => continue,
            };
            roles.push(role);
            descriptors.push(descriptor);
        }
        Some((roles, descriptors))
    }

    /// Drops the descriptors that only the worker needs, after they were sent.
    pub(crate) fn mark_sent(&mut self) {
        self.log = None;
    }

    /// Checks the worker's report that its output is complete and has `bytes` bytes, and stores the output.
    ///
    /// # Errors
    /// The rule that the worker broke. The file must be sealed already, see [`OutputStore::take`], and no longer than the
    /// task was told: code of a job can write to the descriptor.
    pub(crate) fn take_output(self, bytes: u64, outputs: &mut OutputStore) -> Result<TaskResult, Violation> {
        let is_own = self.output.is_some();
        if bytes > if is_own { self.room.own_bytes } else { self.room.shared_bytes } {
            return Err(Violation::Output);
        }
        let taken = match (self.output, self.shared) {
            (Some(output), _) => outputs.take(output, bytes),
            (None, Some(scratch)) => outputs.take_scratch(scratch, bytes),
            (None, None) => return Err(Violation::Result),
        };
        match taken {
            Ok(Some(output)) if self.is_plan => planned_result(output, bytes, outputs),
            Ok(Some(output)) => Ok(TaskResult::Held { output, bytes }),
            Ok(None) => Err(Violation::Output),
            Err(error) => Ok(lost_output(&error)),
        }
    }

    /// Checks the worker's report that a failed task left `bytes` bytes in its own output, and stores them.
    ///
    /// # Errors
    /// The rule that the worker broke.
    pub(crate) fn take_failure_output(
        self,
        bytes: u64,
        outputs: &mut OutputStore,
    ) -> Result<Leftover, Violation> {
        let output = self.output.ok_or(Violation::Result)?;
        if bytes > self.room.own_bytes {
            return Err(Violation::Output);
        }
        match outputs.take(output, bytes) {
            Ok(Some(output)) => Ok(Leftover::Held { output, bytes }),
            Ok(None) => Err(Violation::Output),
            Err(error) => {
                if rate_limit::may_log(LineAbout::Outputs, clock::monotonic_ns()) {
                    log::warn!("the output of a failed task could not be kept error={error}");
                }
                Ok(Leftover::Nothing)
            }
        }
    }
}

fn lost_output(error: &io::Error) -> TaskResult {
    let message = format!("its output could not be kept: {error}");
    TaskResult::Failed { message, program: None, output: Leftover::Nothing }
}

/// Reads the number of parts at the head of a plan, which is sealed.
fn planned_result(output: OutputId, bytes: u64, outputs: &mut OutputStore) -> Result<TaskResult, Violation> {
    let result = match outputs.head(output) {
        Ok(head) => match head.and_then(|head| stage::parts_of(head, bytes)) {
            Some(parts) => return Ok(TaskResult::Planned { output, bytes, parts }),
            None => Err(Violation::Plan),
        },
        Err(error) => Ok(lost_output(&error)),
    };
    outputs.drop_output(output);
    result
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::rc::Rc;

    use bulkhead_core::account::{Ledger, LoweredBounds, Users};
    use bulkhead_proto::ids::{Fence, JobId, KindId};
    use bulkhead_proto::job::Payload;
    use bulkhead_sys::memfd;

    use super::*;
    use crate::background_closer::BackgroundCloser;
    use crate::shell_ledger::ShellLedger;

    fn no_files() -> ClientFileStore {
        let ledger = ShellLedger::new(Ledger::new(Users::One, &[], LoweredBounds::default()));
        ClientFileStore::new(ledger, BackgroundCloser::default())
    }

    fn task(stage: Stage, output: OutputMode, files: Vec<TaskFile>) -> Task {
        Task {
            job: JobId(1),
            fence: Fence(1),
            kind: KindId(0),
            memory_bytes: None,
            grace_ms: 0,
            output,
            room: Some(Box::new(OutputRoom::LARGEST)),
            stage,
            files: files.into(),
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

    fn roles(offer_files: &OfferFiles, task: &Task, outputs: &OutputStore) -> Vec<FileRole> {
        offer_files.lane_files(task, outputs, &no_files()).unwrap().0
    }

    /// A plan task that wrote these bytes and reports a size of `said`.
    fn plan(written: &[u8], said: u64, outputs: &mut OutputStore) -> Result<TaskResult, Violation> {
        let task = task(Stage::Plan, OutputMode::Descriptor, vec![shared()]);
        let offer_files = OfferFiles::make(&task, outputs).unwrap();
        assert_eq!(roles(&offer_files, &task, outputs), [FileRole::Output, FileRole::Shared]);
        let own = offer_files.output.as_ref().unwrap().as_fd();
        write(own, written);
        memfd::seal_output(own).unwrap();
        offer_files.take_output(said, outputs)
    }

    #[test]
    fn a_plan_says_how_many_parts_it_has_or_breaks_a_rule() {
        let mut outputs = OutputStore::new(8, BackgroundCloser::default());
        let good = stage::pack(&[b"a", b"b", b"c"]);
        let planned = plan(&good, good.len() as u64, &mut outputs).unwrap();
        assert!(matches!(planned, TaskResult::Planned { parts: 3, .. }), "{planned:?}");
        assert_eq!(plan(&good, good.len() as u64 + 1, &mut outputs), Err(Violation::Output));
        for bad in [&b""[..], b"short", &[255; 64], &good[..39]] {
            assert_eq!(plan(bad, bad.len() as u64, &mut outputs), Err(Violation::Plan), "{bad:?}");
        }
        outputs.drop_scratch(ScratchId(7));
        let TaskResult::Planned { output, .. } = planned else { unreachable!("as asserted") };
        outputs.drop_output(output);
        assert_eq!(outputs.open(), 0, "what broke a rule is gone");
    }

    #[test]
    fn an_output_that_is_longer_than_its_task_was_told_breaks_a_rule() {
        let mut outputs = OutputStore::new(8, BackgroundCloser::default());
        let room = Some(Box::new(OutputRoom { own_bytes: 5, shared_bytes: 5 }));
        for (bytes, is_allowed) in [(&b"short"[..], true), (b"longer", false)] {
            let whole = Task { room: room.clone(), ..task(Stage::Whole, OutputMode::Descriptor, Vec::new()) };
            for failed in [false, true] {
                let offer_files = OfferFiles::make(&whole, &mut outputs).unwrap();
                let own = offer_files.output.as_ref().unwrap().as_fd();
                write(own, bytes);
                let said = memfd::seal_output(own).unwrap();
                let taken = match failed {
                    true => offer_files.take_failure_output(said, &mut outputs).map(drop),
                    false => offer_files.take_output(said, &mut outputs).map(drop),
                };
                assert_eq!(taken, if is_allowed { Ok(()) } else { Err(Violation::Output) });
            }
            let merge = Task {
                room: room.clone(),
                ..task(Stage::Merge { parts: 1 }, OutputMode::Descriptor, vec![shared()])
            };
            let offer_files = OfferFiles::make(&merge, &mut outputs).unwrap();
            let all = outputs.scratch(ScratchId(7)).unwrap().as_fd();
            write(all, bytes);
            let said = memfd::seal_output(all).unwrap();
            assert_eq!(offer_files.take_output(said, &mut outputs).is_ok(), is_allowed);
        }
    }

    #[test]
    fn a_reserve_goes_with_a_task_that_may_ask_and_no_longer_result_fits_it() {
        let mut outputs = OutputStore::new(8, BackgroundCloser::default());
        let room = Some(Box::new(OutputRoom { own_bytes: 5, shared_bytes: 0 }));
        for (bytes, is_allowed) in [(&b"short"[..], true), (b"longer", false)] {
            let whole = Task { room: room.clone(), ..task(Stage::Whole, OutputMode::Auto, Vec::new()) };
            let offer_files = OfferFiles::make(&whole, &mut outputs).unwrap();
            assert_eq!(roles(&offer_files, &whole, &outputs), [FileRole::Output]);
            let own = offer_files.output.as_ref().unwrap().as_fd();
            write(own, bytes);
            let said = memfd::seal_output(own).unwrap();
            assert_eq!(offer_files.take_output(said, &mut outputs).is_ok(), is_allowed);
        }
        let bare = Task { room: None, ..task(Stage::Whole, OutputMode::Auto, Vec::new()) };
        assert!(OfferFiles::make(&bare, &mut outputs).unwrap().output.is_none());
    }

    #[test]
    fn what_all_have_written_is_the_result_once_the_merge_has_sealed_it() {
        let mut outputs = OutputStore::new(8, BackgroundCloser::default());
        let run = task(Stage::Run { part: 0, parts: 1 }, OutputMode::Inline, vec![shared()]);
        let offer_files = OfferFiles::make(&run, &mut outputs).unwrap();
        assert_eq!(roles(&offer_files, &run, &outputs), [FileRole::Shared]);
        let merge = task(Stage::Merge { parts: 1 }, OutputMode::Descriptor, vec![shared()]);
        let premature = OfferFiles::make(&merge, &mut outputs).unwrap();
        assert_eq!(roles(&premature, &merge, &outputs), [FileRole::Shared], "it has no output of its own");
        assert_eq!(premature.take_output(0, &mut outputs), Err(Violation::Output), "it is not sealed");
        let all = outputs.scratch(ScratchId(7)).unwrap().as_fd();
        write(all, b"together");
        memfd::seal_output(all).unwrap();
        let again = OfferFiles::make(&merge, &mut outputs).unwrap();
        let ended = again.take_output(8, &mut outputs);
        assert!(matches!(ended, Ok(TaskResult::Held { bytes: 8, .. })), "{ended:?}");
        assert!(outputs.scratch(ScratchId(7)).is_none(), "it is a result now");
    }

    #[test]
    fn what_the_parts_left_comes_packed_and_what_is_gone_is_said() {
        let mut outputs = OutputStore::new(8, BackgroundCloser::default());
        let results = Rc::new(vec![Payload::from(b"one".to_vec()), Payload::default()]);
        let packed = stage::pack(&results);
        let merge = task(Stage::Merge { parts: 2 }, OutputMode::Inline, vec![TaskFile::Results { results }]);
        let offer_files = OfferFiles::make(&merge, &mut outputs).unwrap();
        assert_eq!(roles(&offer_files, &merge, &outputs), [FileRole::Results]);
        let mut read = vec![0; packed.len() + 1];
        let count = memfd::read_at(offer_files.results.as_ref().unwrap().as_fd(), &mut read, 0).unwrap();
        assert_eq!(&read[..count], &packed[..]);
        assert_eq!(offer_files.take_output(0, &mut outputs), Err(Violation::Result), "it has no output");
        assert_eq!(outputs.open(), 0);
        let plan = task(Stage::Plan, OutputMode::Inline, vec![TaskFile::Plan { output: OutputId(9) }]);
        let offer_files = OfferFiles::make(&plan, &mut outputs).unwrap();
        assert!(offer_files.lane_files(&plan, &outputs, &no_files()).is_none());
    }
}

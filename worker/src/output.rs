//! The output of a task: into the box while it is short, else into a file of the supervisor or of the client.
//!
//! A failed write is kept: the task fails with it even if its handler ignores the error, so an incomplete output is
//! never reported as done. Nothing is synced here: a client that wants its file on the disk syncs it when the job is
//! done, as `bulkhead -o` does before it gives the file its name. The merge seals the shared output; a merge that finds
//! it sealed knows that an earlier merge had done all the work. With [`OutputMode::Auto`] the first byte that does not fit the
//! box makes the task ask the supervisor for a file, once, and wait for it. A reserve that came with the offer is used first, and the task
//! asks when its output outgrows that. With [`OutputMode::Arena`] that is so of the first
//! byte beyond [`BLOCK_MAX_BYTES`], and of a shorter output that finds no place in the arena; it is gathered until its end. Driven by `runtime.rs`.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::time::Duration;

use bulkhead_link::worker::{PartialOutput, ResultArena, WorkerRing};
use bulkhead_proto::job::OutputMode;
use bulkhead_proto::limits::{BLOCK_MAX_BYTES, INLINE_MAX_BYTES};
use bulkhead_proto::log::LogStream;
use bulkhead_proto::worker::boxes::ProgramStop;
use bulkhead_proto::worker::stage::Stage;
use bulkhead_task::{PositionedFile, RegisteredContext, ReportSink, TaskContext, TaskFailure, TaskReporter};

pub(crate) use task_end::TaskEnd;

use crate::output::overflow::{AskForOutput, FileCursor, OverflowTarget};
use crate::report_gate::ReportGate;
use crate::task_files::{CheckedFile, TaskFiles};
use crate::task_log::TaskLog;

mod overflow;
mod task_end;

/// The output of one task, with its files and its log.
pub(crate) struct TaskOutput<'a> {
    ring: &'a WorkerRing,
    grace: Duration,
    /// Passes the reports of handles, and the number of this task there.
    gate: Option<(&'a Arc<ReportGate>, u64)>,
    /// Rings the supervisor if it sleeps.
    bell: Option<&'a dyn Fn()>,
    /// Asks for an output: the file, and how long it may become, in bytes.
    ask: Option<AskForOutput<'a>>,
    /// A file for the output of a task that may ask for one, until it is used.
    reserve: Option<Arc<CheckedFile>>,
    arena: Option<&'a ResultArena>,
    files: TaskFiles,
    log: TaskLog,
    stage: Stage,
    inline: Vec<u8>,
    place: OverflowTarget,
    file: Option<BufWriter<FileCursor>>,
    /// Bytes that were written into the file.
    spilled: u64,
    /// The first write that failed.
    failure: Option<String>,
    breathed: bool,
    /// The contexts that the job names.
    contexts: Vec<Arc<RegisteredContext>>,
}

impl<'a> TaskOutput<'a> {
    /// For a task of this stage with these files and this output mode.
    pub(crate) fn new(ring: &'a WorkerRing, mut files: TaskFiles, stage: Stage, mode: OutputMode) -> Self {
        let of_job = matches!(stage, Stage::Whole | Stage::Merge { .. });
        let may_ask = stage == Stage::Whole && matches!(mode, OutputMode::Auto | OutputMode::Arena);
        let reserve = if may_ask { files.output.take() } else { None };
        let ours = files.output.as_ref().or(files.shared.as_ref().filter(|_| of_job));
        let place = match ours {
            Some(file) => OverflowTarget::Ours(Arc::clone(file)),
            None if of_job && mode == OutputMode::File => OverflowTarget::Clients,
            None if of_job && mode == OutputMode::Auto => OverflowTarget::OnDemand,
            None if stage == Stage::Whole && mode == OutputMode::Arena => OverflowTarget::Arena,
            None => OverflowTarget::None,
        };
        let (inline, file, failure) = (Vec::new(), None, None);
        let log = TaskLog::new(files.log.take());
        let grace = Duration::ZERO;
        Self {
            ring,
            grace,
            gate: None,
            bell: None,
            ask: None,
            reserve,
            arena: None,
            files,
            log,
            stage,
            inline,
            place,
            file,
            spilled: 0,
            failure,
            breathed: false,
            contexts: Vec::new(),
        }
    }

    /// The same for a task that has so long to end when it is told to.
    pub(crate) fn with_grace(self, grace: Duration) -> Self {
        Self { grace, ..self }
    }

    /// The same for a task whose reports may come from handles.
    pub(crate) fn with_gate(self, gate: &'a Arc<ReportGate>, task: u64) -> Self {
        Self { gate: Some((gate, task)), ..self }
    }

    /// The same for a task that may have something to tell before its end.
    pub(crate) fn with_bell(self, bell: &'a dyn Fn()) -> Self {
        Self { bell: Some(bell), ..self }
    }

    /// The same for a task that may ask for an output.
    pub(crate) fn with_ask(self, ask: AskForOutput<'a>) -> Self {
        Self { ask: Some(ask), ..self }
    }

    /// One more of the contexts that the job names.
    pub(crate) fn add_context(&mut self, context: Arc<RegisteredContext>) {
        self.contexts.push(context);
    }

    /// The same for a task that may use the arena.
    pub(crate) fn with_arena(self, arena: Option<&'a ResultArena>) -> Self {
        Self { arena, ..self }
    }

    /// The files of the task.
    pub(crate) fn files(&self) -> &TaskFiles {
        &self.files
    }

    /// Whether nothing was written.
    pub(crate) fn is_empty(&self) -> bool {
        self.inline.is_empty() && self.spilled == 0
    }

    /// The kind's plan function has returned; from now on the runtime writes the packed plan.
    pub(crate) fn plan_ends(&self) {
        self.files.forget_in_place();
    }

    /// Completes the output and closes all files. Returns where the output is, or why the task failed.
    pub(crate) fn end(mut self, fate: Result<(), TaskFailure>) -> TaskEnd {
        if let Some((gate, _)) = self.gate {
            gate.shut();
        }
        fate.and_then(|()| self.finish()).unwrap_or_else(|failure| self.fail(&failure))
    }

    /// # Errors
    /// [`TaskFailure`]: a write failed, a file that was read has changed, the last bytes cannot be written, or the
    /// output cannot be sealed because the task still uses it.
    fn finish(&mut self) -> Result<TaskEnd, TaskFailure> {
        let ended = self.complete();
        match self.failure.take().map(io::Error::other).map(TaskFailure::from).or_else(|| self.files.fault())
        {
            Some(failure) => Err(failure),
            // Last of all: what is in the arena has to be reported.
            None => ended.and_then(|end| self.place_long(end)),
        }
    }

    /// Puts an output that was gathered for the arena there, or into a file if it finds no place.
    fn place_long(&mut self, end: TaskEnd) -> Result<TaskEnd, TaskFailure> {
        let bytes = match end {
            TaskEnd::Inline(bytes) if bytes.len() > INLINE_MAX_BYTES => bytes,
            other => return Ok(other),
        };
        if let Some(offset) = self.arena.and_then(|arena| arena.put(&bytes)) {
            return Ok(TaskEnd::Block { offset, bytes: bytes.len() });
        }
        let file = self.place_for(bytes.len() as u64)?;
        self.inline = bytes;
        self.move_inline_to_file()?;
        file.set_length(self.spilled)?;
        Ok(TaskEnd::Descriptor { bytes: file.seal()? })
    }

    /// Builds the failure. If a file of the task has changed meanwhile, its text begins with that.
    fn fail(&mut self, failure: &TaskFailure) -> TaskEnd {
        let said = failure.to_string();
        let text = match self.files.fault().map(|fault| fault.to_string()) {
            Some(fault) if !said.contains(&fault) => format!("{fault} ({said})"),
            _ => said,
        };
        let (inline, spilled) = if failure.keeps_output() { self.keep(&text) } else { (Vec::new(), 0) };
        TaskEnd::Failed { text, program: failure.program_end(), inline, spilled }
    }

    /// The output of a failed task, if there is room for it: bytes beside the text, or the number of bytes in its
    /// descriptor.
    fn keep(&mut self, text: &str) -> (Vec<u8>, u64) {
        if self.spilled == 0 && PartialOutput::fits(text, self.inline.len()) {
            return (std::mem::take(&mut self.inline), 0);
        }
        if self.stage == Stage::Whole
            && matches!(self.place, OverflowTarget::OnDemand | OverflowTarget::Arena)
            && let Err(error) = self.place_for(self.inline.len() as u64)
        {
            log::warn!("the output of a failed task is not kept error={error}");
        }
        // An output that other tasks of the job write too must not be sealed by this one.
        let own = self.files.output.clone().filter(|_| self.stage == Stage::Whole);
        let Some(file) = own else { return (Vec::new(), 0) };
        match self.move_inline_to_file().and_then(|()| Ok(file.seal()?)) {
            Ok(bytes) => (Vec::new(), bytes),
            Err(error) => {
                log::warn!("the output of a failed task is not kept error={error}");
                (Vec::new(), 0)
            }
        }
    }

    fn complete(&mut self) -> Result<TaskEnd, TaskFailure> {
        match &self.place {
            OverflowTarget::Ours(file) | OverflowTarget::Reserve(file) if self.is_left_in_place(file)? => {
                Ok(TaskEnd::Descriptor { bytes: file.seal()? })
            }
            OverflowTarget::Ours(file) | OverflowTarget::Reserve(file)
                if self.spilled > 0 || self.stage == Stage::Plan =>
            {
                let file = Arc::clone(file);
                self.move_inline_to_file()?;
                file.set_length(self.spilled)?;
                // Sealed here and not in the supervisor, because the kernel may wait for processes that use the file.
                Ok(TaskEnd::Descriptor { bytes: file.seal()? })
            }
            OverflowTarget::Clients if !self.is_left_as_it_is() => {
                self.move_inline_to_file()?;
                self.files.out()?.set_length(self.spilled)?;
                Ok(TaskEnd::Inline(Vec::new()))
            }
            _ => Ok(TaskEnd::Inline(std::mem::take(&mut self.inline))),
        }
    }

    /// Whether the output was written in place by the tasks of the job.
    fn is_left_in_place(&self, file: &CheckedFile) -> Result<bool, TaskFailure> {
        let is_of_all = self.files.shared.as_ref().is_some_and(|shared| std::ptr::eq(&**shared, file));
        let may_be = is_of_all || self.stage == Stage::Whole;
        Ok(may_be && self.is_empty() && file.size()? > 0)
    }

    /// Whether the client's file is complete already: this task or earlier ones have written it in place.
    fn is_left_as_it_is(&self) -> bool {
        self.files.is_in_place() || matches!(self.stage, Stage::Merge { .. }) && self.is_empty()
    }

    /// Clears the time of death that the task stamped (`last_breath`), because its worker lives.
    pub(crate) fn announce_alive(&self) {
        if self.breathed {
            self.ring.breathe_on();
        }
    }

    /// Reports by the task itself: a handle in another thread may report at the same moment.
    fn report(&self, report: impl FnOnce(&WorkerRing)) {
        match self.gate {
            Some((gate, _)) => gate.report(report),
            None => report(self.ring),
        }
    }

    /// Stores that the program of the task was stopped or continued, and rings.
    fn set_program_stop(&mut self, stop: Option<ProgramStop>) {
        self.ring.set_program_stop(stop);
        if let Some(bell) = self.bell {
            bell();
        }
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        let is_result = matches!(self.stage, Stage::Run { .. });
        if self.files.is_in_place() && !is_result && !bytes.is_empty() {
            return Err(io::Error::other("the task writes its output in place, and has no other"));
        }
        let gathered_max =
            if matches!(self.place, OverflowTarget::Arena) { BLOCK_MAX_BYTES } else { INLINE_MAX_BYTES };
        if self.spilled > 0 || self.inline.len() + bytes.len() > gathered_max {
            return self.spill(bytes);
        }
        self.inline.extend_from_slice(bytes);
        Ok(())
    }
}

impl Write for TaskOutput<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(failure) = &self.failure {
            return Err(io::Error::other(failure.clone()));
        }
        match self.take(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                self.failure = Some(error.to_string());
                Err(error)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TaskContext for TaskOutput<'_> {
    fn progress(&mut self, done: u64, total: u64) {
        self.report(|ring| ring.progress(done, total));
    }

    fn say(&mut self, words: &str) {
        self.report(|ring| ring.say(words));
    }

    fn is_cancelled(&self) -> bool {
        self.ring.is_cancelled()
    }

    fn grace(&self) -> Duration {
        self.grace
    }

    fn leave_behind(&mut self, pids: &[u32]) {
        self.ring.leave_behind(pids);
    }

    fn last_breath(&mut self) {
        self.breathed = true;
        self.ring.last_breath();
    }

    fn program_stopped(&mut self, pid: u32, signal: i32) {
        self.set_program_stop(Some(ProgramStop { pid, signal }));
    }

    fn program_continued(&mut self) {
        self.set_program_stop(None);
    }

    fn log(&mut self, stream: LogStream, bytes: &[u8]) {
        self.log.add(stream, bytes);
    }

    fn file(&self, name: &str) -> Result<Arc<dyn PositionedFile>, TaskFailure> {
        self.files.named(name).map(|file| file as Arc<dyn PositionedFile>)
    }

    fn files(&self) -> Vec<Arc<dyn PositionedFile>> {
        self.files.all()
    }

    fn long_output(&mut self, bytes: u64) -> Result<Arc<dyn PositionedFile>, TaskFailure> {
        if self.stage == Stage::Whole
            && self.is_empty()
            && matches!(self.place, OverflowTarget::OnDemand | OverflowTarget::Arena)
        {
            self.place_for(bytes)?;
        }
        self.shared()
    }

    fn reporter(&self) -> TaskReporter {
        self.gate.map_or_else(TaskReporter::silent, |(gate, task)| {
            gate.open(task);
            TaskReporter::new(Arc::clone(gate) as Arc<dyn ReportSink>, task)
        })
    }

    fn context_count(&self) -> usize {
        self.contexts.len()
    }

    fn context(&self, at: usize) -> Result<Arc<RegisteredContext>, TaskFailure> {
        let count = self.contexts.len();
        self.contexts.get(at).cloned().ok_or_else(|| {
            TaskFailure::new(format!(
                "the job names {count} contexts and none at place {at}: submit it with one"
            ))
        })
    }

    fn shared(&self) -> Result<Arc<dyn PositionedFile>, TaskFailure> {
        if self.inline.is_empty() && self.spilled == 0 || matches!(self.stage, Stage::Run { .. }) {
            return self.files.in_place(self.stage).map(|file| file as Arc<dyn PositionedFile>);
        }
        Err(TaskFailure::new("the task has written output already: it cannot write it in place any more"))
    }
}

#[cfg(test)]
mod tests;

//! The loop of a worker: receive, claim, run, finish, ring.
//!
//! After each result the worker checks whether the supervisor sleeps, and rings if it does. So when the worker waits
//! for its channel and its lane, it has nothing left to report. It exits when the channel or the lane is closed, or
//! after a task that panicked or left processes which it may not end. A task may write files of its own of any length: how
//! long its output in memory may become is checked at each write of ours and before the seal, see
//! `task_files/checked_file.rs`. Driven by `lib.rs`.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bulkhead_link::worker::{Channel, ResultArena, StackPage, WorkerRing};
use bulkhead_proto::job::OutputMode;
use bulkhead_proto::worker::message::{TaskMessage, TaskUses};
use bulkhead_sys::bell::Bell;
use bulkhead_sys::lane::Lane;
use bulkhead_sys::memory_limit::MemoryLimit;
use bulkhead_sys::poll::{PollTarget, Readiness, wait};
use bulkhead_task::TaskFailure;

use crate::closer::Closer;
use crate::early_files::{EarlyFiles, RoleFiles};
use crate::output::{TaskEnd, TaskOutput};
use crate::panics;
use crate::registrations::KEPT_BYTES;
use crate::registry::{ContextLoader, IdleWork, KindHandler};
use crate::report_gate::ReportGate;
use crate::stage_call;
use crate::task_files::TaskFiles;

/// After so long without a task, memory of the arena goes back to the system.
const ARENA_IDLE: Duration = Duration::from_secs(1);

/// Why a worker exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitReason {
    /// The supervisor closed the channel (the worker is retired) or the lane (the supervisor is gone).
    Closed,
    /// A task panicked, and the failure was reported.
    Panicked,
    /// A task has left processes that this worker may not end, and they were reported.
    LeftProcesses,
}

/// A worker that is connected.
pub(crate) struct Runtime {
    early_files: EarlyFiles,
    ring: Arc<WorkerRing>,
    gate: Arc<ReportGate>,
    channel: Channel,
    handlers: Vec<Option<KindHandler>>,
    doorbell: Bell,
    /// The page for the text of its stack.
    stack_page: Option<&'static StackPage>,
    /// Loads contexts.
    loader: Option<Arc<ContextLoader>>,
    /// What is still to be done between two tasks.
    idle_work: Option<Arc<IdleWork>>,
    /// The input of a task that is in an arena.
    block: RefCell<Vec<u8>>,
}

impl Runtime {
    /// `handlers` has the handler of each kind at the kind's number.
    pub(crate) fn new(
        lane: Lane,
        (ring, doorbell): (WorkerRing, Bell),
        channel: Channel,
        handlers: Vec<Option<KindHandler>>,
    ) -> Self {
        let (stack_page, loader, idle_work, block) = (None, None, None, RefCell::default());
        let ring = Arc::new(ring);
        let told = Arc::clone(&ring);
        let closer = Closer::telling(move |unclosed| told.set_unclosed(unclosed));
        let early_files = EarlyFiles::new(lane, closer);
        let gate = Arc::new(ReportGate::new(Arc::clone(&ring)));
        Self { early_files, ring, gate, channel, handlers, doorbell, stack_page, loader, idle_work, block }
    }

    /// The same with a page for the text of its stack.
    pub(crate) fn with_stack_page(self, stack_page: Option<&'static StackPage>) -> Self {
        Self { stack_page, ..self }
    }

    /// The same with code that loads contexts.
    pub(crate) fn with_loader(self, loader: Option<Arc<ContextLoader>>) -> Self {
        Self { loader, ..self }
    }

    /// The same with work for a time without tasks.
    pub(crate) fn with_idle_work(self, idle_work: Option<Arc<IdleWork>>) -> Self {
        Self { idle_work, ..self }
    }

    /// Runs tasks until there is a reason to exit.
    pub(crate) fn serve(&mut self) -> Result<ExitReason> {
        loop {
            let arena = self.early_files.arena().filter(|arena| arena.may_give_back());
            let [channel, lane, idle] = self.wait(arena.map(|_| ARENA_IDLE)).context("cannot wait")?;
            let leave = if lane.hung_up {
                Some(ExitReason::Closed)
            } else if channel.readable {
                self.take_message()?
            } else if lane.readable {
                unless(self.early_files.take_frame()?)
            } else if let Some(work) = self.idle_work.take_if(|_| idle.readable) {
                (work.act)();
                None
            } else {
                // The time is over, or a signal was handled. The lane blocks, so it is read only when poll says that it is readable.
                if let Some(Err(error)) = arena.map(ResultArena::give_back) {
                    log::warn!("memory of the arena cannot be given back error={error}");
                }
                None
            };
            if let Some(leave) = leave {
                return Ok(leave);
            }
        }
    }

    /// Waits for a message, a frame, and the moment for idle work, if there is any: most workers have two descriptors to poll.
    fn wait(&self, timeout: Option<Duration>) -> io::Result<[Readiness; 3]> {
        let [channel, lane] = [self.channel.as_fd(), self.early_files.as_fd()].map(PollTarget::readable);
        match &self.idle_work {
            Some(work) => wait([channel, lane, PollTarget::readable(work.when.as_fd())], timeout),
            None => {
                wait([channel, lane], timeout).map(|[channel, lane]| [channel, lane, Readiness::default()])
            }
        }
    }

    /// Runs the tasks of one message until there is a reason to exit.
    fn take_message(&mut self) -> Result<Option<ExitReason>> {
        let Some(message) = self.channel.recv().context("the task channel broke")? else {
            return Ok(Some(ExitReason::Closed));
        };
        for task in &message.tasks {
            let leave = self.take(task)?;
            if leave.is_some() {
                return Ok(leave);
            }
        }
        Ok(None)
    }

    /// Runs one task if it can still be claimed.
    fn take(&mut self, task: &TaskMessage) -> Result<Option<ExitReason>> {
        let files = if task.has_files {
            match self.early_files.files_of(task.seq)? {
                Some(files) => files,
                None => return Ok(Some(ExitReason::Closed)),
            }
        } else {
            self.early_files.drop_before(task.seq);
            RoleFiles::new()
        };
        if task.output == OutputMode::Arena && !self.early_files.wait_for_arena()? {
            return Ok(Some(ExitReason::Closed));
        }
        // Before the claim: after it, what is in the page is taken for the text of this task.
        if let Some(page) = self.stack_page {
            page.begin(task.seq);
        }
        if !self.ring.claim(task.seq) {
            // The supervisor has taken the offer back; another worker runs the task.
            self.early_files.dispose(files);
            return Ok(None);
        }
        // After the claim: what an offer names that was taken back may be forgotten already.
        if let Some(uses) = &task.uses
            && !self.early_files.receive_all(uses)?
        {
            return Ok(Some(ExitReason::Closed));
        }
        let (ended, panicked) = self.run(task, TaskFiles::new(files, task.room))?;
        if let TaskEnd::Failed { text, .. } = &ended {
            log::debug!("task failed job={} attempt={} error={text:?}", task.job, task.fence);
        }
        self.ring.finish(task.seq, &ended.as_finish());
        if let Some(page) = self.stack_page {
            page.end();
        }
        self.ring_if_asleep()?;
        if panicked {
            self.ring.last_breath();
            return Ok(Some(ExitReason::Panicked));
        }
        if self.ring.has_left_processes() {
            self.ring.last_breath();
            return Ok(Some(ExitReason::LeftProcesses));
        }
        Ok(None)
    }

    /// Runs a claimed task and closes all of its files. Returns its end and whether it panicked.
    fn run(&self, task: &TaskMessage, files: TaskFiles) -> Result<(TaskEnd, bool)> {
        let grace = Duration::from_millis(u64::from(task.grace_ms));
        // `take` rings once more after the task, and returns the error if the doorbell was closed.
        let bell = || drop(self.ring_if_asleep());
        let ask = || self.early_files.ask_for_output(task.seq);
        let output = TaskOutput::new(&self.ring, files, task.stage, task.output);
        let output = output.with_arena(self.early_files.arena());
        let output = output.with_gate(&self.gate, task.seq.0);
        let mut output = output.with_grace(grace).with_bell(&bell).with_ask(&ask);
        // Before the limit, of which the mapping would take its whole length. A fault is found again when it is used.
        if let Some(uses) = task.uses.as_deref() {
            self.early_files.registrations().borrow().map_stores(uses);
        }
        let limit = task.memory_bytes.map(MemoryLimit::set).transpose();
        let fate = panics::caught(|| match &limit {
            Ok(_) => self.call(task, &mut output),
            Err(error) => {
                Err(TaskFailure::new(format!("the memory limit of the task cannot be set: {error}")))
            }
        });
        if let Ok(Some(limit)) = limit {
            limit.lift().context("a task has lowered the limits of its worker")?;
        }
        output.announce_alive();
        let panicked = fate.is_err();
        let ended = output.end(fate.and_then(|ended| ended));
        self.early_files.fault().context("the lane broke while a task asked for its output")?;
        Ok((ended, panicked))
    }

    /// Tells a sleeping supervisor that there is something new in the box. One that has hung up is found by the loop's poll.
    fn ring_if_asleep(&self) -> Result<()> {
        if !self.ring.should_ring() {
            return Ok(());
        }
        self.doorbell
            .try_ring()
            .context("cannot ring the supervisor: its doorbell was closed in this process")
    }

    fn call(&self, task: &TaskMessage, output: &mut TaskOutput<'_>) -> Result<(), TaskFailure> {
        let handler = self.handlers.get(usize::from(task.kind.0)).and_then(Option::as_ref);
        let handler =
            handler.ok_or_else(|| TaskFailure::new(format!("this worker has no kind {}", task.kind)))?;
        let Some(uses) = task.uses.as_deref() else {
            return stage_call::call(handler, task.stage, task.input.as_bytes(), output);
        };
        self.load(uses, output)?;
        let Some(arena) = uses.arena else {
            return stage_call::call(handler, task.stage, task.input.as_bytes(), output);
        };
        let mut block = self.block.borrow_mut();
        let registrations = self.early_files.registrations();
        registrations.borrow_mut().check(arena)?;
        registrations.borrow().read(arena, task.input.as_bytes(), &mut block)?;
        let ended = stage_call::call(handler, task.stage, &block, output);
        if block.capacity() > KEPT_BYTES {
            *block = Vec::new();
        }
        ended
    }

    /// Loads the contexts that a task names, each once in this worker, in their order.
    fn load(&self, uses: &TaskUses, output: &mut TaskOutput<'_>) -> Result<(), TaskFailure> {
        for (at, id) in uses.contexts.iter().enumerate() {
            let (context, is_due) = self.early_files.registrations().borrow().context(*id)?;
            if let Some(loader) = self.loader.as_ref().filter(|_| is_due) {
                let loaded = loader(&context, output).map_err(|failure| {
                    TaskFailure::new(format!("context {at} of the job cannot be loaded: {failure}"))
                })?;
                if !output.is_empty() {
                    return Err(TaskFailure::new("the loader of a context must not write output"));
                }
                context.keep(loaded);
            }
            output.add_context(context);
        }
        Ok(())
    }
}

/// A reason to exit, unless the supervisor is there.
fn unless(is_there: bool) -> Option<ExitReason> {
    (!is_there).then_some(ExitReason::Closed)
}

//! The loop of a worker: receive, claim, run, finish, ring.
//!
//! A worker that is about to wait has nothing more to tell: each result was followed by a look whether the
//! supervisor sleeps. It waits for its channel and its lane, and leaves when either is closed, or after a task
//! that panicked.

use std::os::fd::AsFd;

use anyhow::{Context, Result};
use bulkhead_jobs::Failure;
use bulkhead_link::worker::{Channel, Finish, Kept, WorkerRing};
use bulkhead_proto::codec;
use bulkhead_proto::worker::{LaneUp, TaskMessage};
use bulkhead_sys::lane::Lane;
use bulkhead_sys::memory_limit::MemoryLimit;
use bulkhead_sys::poll::{Watch, wait};

use crate::descriptors::Outputs;
use crate::output::TaskOutput;
use crate::panics;
use crate::registry::Code;

/// Why a worker leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// The channel is closed (retired), or the lane (there is nobody to tell results to).
    Closed,
    /// A task panicked; that was reported.
    Panicked,
}

/// A worker that is up.
pub(crate) struct Runtime {
    outputs: Outputs,
    ring: WorkerRing,
    channel: Channel,
    handlers: Vec<Option<Code>>,
    doorbell: Vec<u8>,
}

impl Runtime {
    /// `handlers` by the number of their kind.
    pub(crate) fn new(lane: Lane, ring: WorkerRing, channel: Channel, handlers: Vec<Option<Code>>) -> Self {
        let doorbell = codec::encode(&LaneUp::Doorbell);
        Self { outputs: Outputs::new(lane), ring, channel, handlers, doorbell }
    }

    /// Runs tasks until there is a reason to leave.
    pub(crate) fn serve(&mut self) -> Result<Leave> {
        loop {
            let watched = [Watch::readable(self.channel.as_fd()), Watch::readable(self.outputs.as_fd())];
            let [channel, lane] = wait(watched, None).context("cannot wait")?;
            let leave = if lane.hung_up {
                Some(Leave::Closed)
            } else if channel.readable {
                self.take_message()?
            } else if lane.readable {
                unless(self.outputs.take_frame()?)
            } else {
                // A signal was handled; the lane blocks, so it is read only when it has something.
                None
            };
            if let Some(leave) = leave {
                return Ok(leave);
            }
        }
    }

    /// Runs the tasks of one message, as long as there is no reason to leave.
    fn take_message(&mut self) -> Result<Option<Leave>> {
        let Some(message) = self.channel.recv().context("the task channel broke")? else {
            return Ok(Some(Leave::Closed));
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
    fn take(&mut self, task: &TaskMessage) -> Result<Option<Leave>> {
        let file = if task.has_files {
            match self.outputs.output_of(task.seq)? {
                Some(file) => Some(file),
                None => return Ok(Some(Leave::Closed)),
            }
        } else {
            self.outputs.drop_before(task.seq);
            None
        };
        if !self.ring.claim(task.seq) {
            // Taken back: somebody else runs it.
            return Ok(None);
        }
        let mut output = TaskOutput::new(&self.ring, file);
        let limit = task.memory_bytes.map(MemoryLimit::set).transpose();
        let fate = panics::caught(|| match &limit {
            Ok(_) => self.run(task, &mut output),
            Err(error) => Err(Failure::new(format!("its memory cannot be limited: {error}"))),
        });
        if let Ok(Some(limit)) = limit {
            limit.lift().context("a task has lowered the limits of its worker")?;
        }
        output.outlive();
        let panicked = fate.is_err();
        match fate.and_then(|ended| ended).and_then(|()| Ok(output.finish()?)) {
            Ok(finish) => self.ring.finish(task.seq, &finish),
            Err(failure) => {
                log::debug!("task failed job={} attempt={} error=\"{failure}\"", task.job, task.fence);
                let (text, code) = (failure.to_string(), failure.code());
                let output = if failure.keeps_output() { output.keep(&text) } else { Kept::Nothing };
                self.ring.finish(task.seq, &Finish::Failed { text: &text, output, code });
            }
        }
        let is_heard = !self.ring.should_ring() || self.outputs.ring(&self.doorbell)?;
        if panicked {
            self.ring.last_breath();
            return Ok(Some(Leave::Panicked));
        }
        Ok(unless(is_heard))
    }

    fn run(&self, task: &TaskMessage, output: &mut TaskOutput<'_>) -> Result<(), Failure> {
        let handler = self.handlers.get(usize::from(task.kind.0)).and_then(Option::as_ref);
        let handler =
            handler.ok_or_else(|| Failure::new(format!("this worker has no kind {}", task.kind)))?;
        handler(task.input.as_bytes(), output)
    }
}

/// A reason to leave, unless the supervisor is there.
fn unless(is_there: bool) -> Option<Leave> {
    (!is_there).then_some(Leave::Closed)
}

//! The loop of a worker: receive, claim, run, finish, ring.
//!
//! A worker that is about to wait has nothing more to tell: each result was followed by a look whether the
//! supervisor sleeps. It waits for its channel and its lane, and leaves when either is closed.

use std::os::fd::AsFd;

use anyhow::{Context, Result};
use bulkhead_jobs::{Failure, Handler};
use bulkhead_link::worker::{Channel, Finish, WorkerRing};
use bulkhead_proto::codec;
use bulkhead_proto::job::OutputMode;
use bulkhead_proto::worker::{LaneUp, TaskMessage};
use bulkhead_sys::lane::Lane;
use bulkhead_sys::poll::wait_any;

use crate::descriptors::Outputs;
use crate::output::TaskOutput;
use crate::panics;

/// A worker that is up.
pub(crate) struct Runtime {
    outputs: Outputs,
    ring: WorkerRing,
    channel: Channel,
    handlers: Vec<Option<Handler>>,
    doorbell: Vec<u8>,
}

impl Runtime {
    /// `handlers` by the number of their kind.
    pub(crate) fn new(
        lane: Lane,
        ring: WorkerRing,
        channel: Channel,
        handlers: Vec<Option<Handler>>,
    ) -> Self {
        let doorbell = codec::encode(&LaneUp::Doorbell);
        Self { outputs: Outputs::new(lane), ring, channel, handlers, doorbell }
    }

    /// Runs tasks until the channel is closed (retired), or the lane (there is nobody to tell results to).
    pub(crate) fn serve(&mut self) -> Result<()> {
        loop {
            let [channel, lane] =
                wait_any([self.channel.as_fd(), self.outputs.as_fd()]).context("cannot wait")?;
            let goes_on = if lane.hung_up {
                false
            } else if channel.readable || channel.hung_up {
                self.take_message()?
            } else {
                self.outputs.take_frame()?
            };
            if !goes_on {
                return Ok(());
            }
        }
    }

    /// Runs the tasks of one message. `false`: there will be no more.
    fn take_message(&mut self) -> Result<bool> {
        let Some(message) = self.channel.recv().context("the task channel broke")? else { return Ok(false) };
        for task in &message.tasks {
            if !self.take(task)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Runs one task if it can still be claimed. `false`: the supervisor has hung up.
    fn take(&mut self, task: &TaskMessage) -> Result<bool> {
        let file = match task.output {
            OutputMode::Inline => {
                self.outputs.drop_before(task.seq);
                None
            }
            OutputMode::Descriptor => match self.outputs.output_of(task.seq)? {
                Some(file) => Some(file),
                None => return Ok(false),
            },
        };
        if !self.ring.claim(task.seq) {
            // Taken back: somebody else runs it.
            return Ok(true);
        }
        let mut output = TaskOutput::new(&self.ring, file);
        match self.run(task, &mut output).and_then(|()| Ok(output.finish()?)) {
            Ok(finish) => self.ring.finish(task.seq, &finish),
            Err(failure) => {
                log::debug!("task failed job={} attempt={} error=\"{failure}\"", task.job, task.fence);
                self.ring.finish(task.seq, &Finish::Failed(&failure.to_string()));
            }
        }
        if self.ring.should_ring() { self.outputs.ring(&self.doorbell) } else { Ok(true) }
    }

    fn run(&self, task: &TaskMessage, output: &mut TaskOutput<'_>) -> Result<(), Failure> {
        let handler = self.handlers.get(usize::from(task.kind.0)).copied().flatten();
        let handler =
            handler.ok_or_else(|| Failure::new(format!("this worker has no kind {}", task.kind)))?;
        let ended = panics::caught(|| handler(task.input.as_bytes(), output));
        output.outlive();
        ended
    }
}

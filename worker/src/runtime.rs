//! The loop of a worker: receive, claim, run, finish, ring.

use anyhow::{Context, Result};
use bulkhead_jobs::{Failure, Handler};
use bulkhead_link::worker::{Channel, Finish, WorkerRing};
use bulkhead_proto::codec;
use bulkhead_proto::job::OutputMode;
use bulkhead_proto::worker::{LaneUp, TaskMessage};
use bulkhead_sys::lane::Lane;

use crate::descriptors;
use crate::output::TaskOutput;
use crate::panics;

/// A worker that is up.
pub(crate) struct Runtime {
    lane: Lane,
    ring: WorkerRing,
    channel: Channel,
    handlers: Vec<Option<Handler>>,
    doorbell: Vec<u8>,
}

impl Runtime {
    /// `handlers` by the number of their kind.
    pub(crate) fn new(lane: Lane, ring: WorkerRing, channel: Channel, handlers: Vec<Option<Handler>>) -> Self {
        Self { lane, ring, channel, handlers, doorbell: codec::encode(&LaneUp::Doorbell) }
    }

    /// Runs tasks until the channel is closed: retired, or the supervisor is gone.
    pub(crate) fn serve(&mut self) -> Result<()> {
        while let Some(message) = self.channel.recv().context("the task channel broke")? {
            for task in &message.tasks {
                if !self.take(task)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Runs one task if it can still be claimed. `false`: the supervisor has hung up.
    fn take(&mut self, task: &TaskMessage) -> Result<bool> {
        let file = match task.output {
            OutputMode::Inline => None,
            OutputMode::Descriptor => match descriptors::output_of(&self.lane, task.seq)? {
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
        if self.ring.should_ring() {
            // A full lane holds doorbells that were not heard yet; one of them does.
            self.lane.send_now(&self.doorbell).context("cannot ring the supervisor")?;
        }
        Ok(true)
    }

    fn run(&self, task: &TaskMessage, output: &mut TaskOutput<'_>) -> Result<(), Failure> {
        let handler = self.handlers.get(usize::from(task.kind.0)).copied().flatten();
        let handler = handler.ok_or_else(|| Failure::new(format!("this worker has no kind {}", task.kind)))?;
        panics::caught(|| handler(task.input.as_bytes(), output))
    }
}

//! Output descriptors, as they come down the lane: each before the task that it belongs to, in the order of seq.
//!
//! A descriptor may come whose task never does: the offer was taken back, or its message found the channel
//! full. It is dropped as soon as a later offer is run. The lane is read while the worker idles as well, so
//! that such ones cannot fill it up.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail};
use bulkhead_proto::codec;
use bulkhead_proto::ids::Seq;
use bulkhead_proto::limits::LANE_FRAME_MAX_BYTES;
use bulkhead_proto::worker::LaneDown;
use bulkhead_sys::lane::{Lane, LaneFrame};

/// One frame of the supervisor with its descriptors; `None` when it has hung up.
pub(crate) fn receive(lane: &Lane) -> Result<Option<(LaneDown, Vec<OwnedFd>)>> {
    let mut bytes = [0; LANE_FRAME_MAX_BYTES];
    match lane.recv(&mut bytes).context("cannot read the lane")? {
        LaneFrame::Frame { length, descriptors } => {
            let frame = codec::decode(&bytes[..length]).context("the supervisor speaks another dialect")?;
            Ok(Some((frame, descriptors)))
        }
        LaneFrame::Refused(fault) => bail!("the supervisor sent a frame that cannot be taken: {fault:?}"),
        LaneFrame::HungUp => Ok(None),
    }
}

/// The lane, and the descriptors that came down it ahead of their tasks.
#[derive(Debug)]
pub(crate) struct Outputs {
    lane: Lane,
    early: VecDeque<(Seq, File)>,
}

impl Outputs {
    /// After the setup, nothing but output descriptors comes down `lane`.
    pub(crate) fn new(lane: Lane) -> Self {
        Self { lane, early: VecDeque::new() }
    }

    /// Takes one frame, waiting for it. `false`: the supervisor has hung up.
    pub(crate) fn take_frame(&mut self) -> Result<bool> {
        match receive(&self.lane)? {
            None => Ok(false),
            Some((LaneDown::Files { seq, .. }, descriptors)) => {
                let descriptor =
                    descriptors.into_iter().next().context("an output frame without its descriptor")?;
                self.early.push_back((seq, File::from(descriptor)));
                Ok(true)
            }
            Some((frame, _)) => bail!("the lane holds {frame:?} where only outputs may be"),
        }
    }

    /// The output descriptor of an offer, waiting for it; those of earlier offers are dropped. `None` when the
    /// supervisor has hung up.
    pub(crate) fn output_of(&mut self, wanted: Seq) -> Result<Option<File>> {
        loop {
            self.drop_before(wanted);
            match self.early.pop_front() {
                Some((seq, file)) if seq == wanted => return Ok(Some(file)),
                Some((seq, _)) => {
                    bail!("the lane holds the output of offer {seq} where that of {wanted} was due")
                }
                None if self.take_frame()? => {}
                None => return Ok(None),
            }
        }
    }

    /// Drops the descriptors of offers before this one: their tasks will not come any more.
    pub(crate) fn drop_before(&mut self, seq: Seq) {
        while self.early.front().is_some_and(|(early, _)| *early < seq) {
            self.early.pop_front();
        }
    }

    /// Sends a frame up if the lane has room; a full lane is fine. `false`: the supervisor has hung up.
    pub(crate) fn ring(&self, doorbell: &[u8]) -> Result<bool> {
        match self.lane.send_now(doorbell) {
            // A full lane holds doorbells that were not heard yet; one of them does.
            Ok(_) => Ok(true),
            Err(error) if is_hang_up(&error) => Ok(false),
            Err(error) => Err(error).context("cannot ring the supervisor"),
        }
    }
}

fn is_hang_up(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset)
}

impl AsFd for Outputs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.lane.as_fd()
    }
}

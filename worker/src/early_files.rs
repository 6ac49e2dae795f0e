//! RoleFiles of offers, as they come down the lane: each offer's before its task, in the order of seq.
//!
//! They may come for a task that never does: the offer was taken back, or its message found the channel full. Those
//! are dropped as soon as a later offer is run. The lane is read while the worker idles as well, so that such ones
//! cannot fill it up. A client's file is closed on a thread of its own if its task never came: its close may hang, and
//! that is nobody's here.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use bulkhead_proto::codec;
use bulkhead_proto::ids::Seq;
use bulkhead_proto::limits::LANE_FRAME_MAX_BYTES;
use bulkhead_proto::worker::message::{FileRole, LaneDown};
use bulkhead_sys::lane::{Lane, LaneFrame};

/// What came with one offer.
pub(crate) type RoleFiles = Vec<(FileRole, OwnedFd)>;

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

/// The lane, and the files that came down it ahead of their tasks.
#[derive(Debug)]
pub(crate) struct EarlyFiles {
    lane: Lane,
    early: VecDeque<(Seq, RoleFiles)>,
}

impl EarlyFiles {
    /// After the setup, nothing but files comes down `lane`.
    pub(crate) fn new(lane: Lane) -> Self {
        Self { lane, early: VecDeque::new() }
    }

    /// Takes one frame, waiting for it. `false`: the supervisor has hung up.
    pub(crate) fn take_frame(&mut self) -> Result<bool> {
        match receive(&self.lane)? {
            None => Ok(false),
            Some((LaneDown::Files { seq, roles }, descriptors)) => {
                ensure!(
                    roles.len() == descriptors.len(),
                    "the files of offer {seq} came as {} descriptors where {} were due",
                    descriptors.len(),
                    roles.len()
                );
                self.early.push_back((seq, roles.into_iter().zip(descriptors).collect()));
                Ok(true)
            }
            Some((frame, _)) => bail!("the lane holds {frame:?} where only files may be"),
        }
    }

    /// The files of an offer, waiting for them; those of earlier offers are dropped. `None` when the supervisor has
    /// hung up.
    pub(crate) fn files_of(&mut self, wanted: Seq) -> Result<Option<RoleFiles>> {
        loop {
            self.drop_before(wanted);
            match self.early.pop_front() {
                Some((seq, files)) if seq == wanted => return Ok(Some(files)),
                Some((seq, _)) => {
                    bail!("the lane holds the files of offer {seq} where those of {wanted} were due")
                }
                None if self.take_frame()? => {}
                None => return Ok(None),
            }
        }
    }

    /// Drops the files of offers before this one: their tasks will not come any more.
    pub(crate) fn drop_before(&mut self, seq: Seq) {
        while self.early.front().is_some_and(|(early, _)| *early < seq) {
            self.early.pop_front().into_iter().for_each(|(_, files)| dispose(files));
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

impl AsFd for EarlyFiles {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.lane.as_fd()
    }
}

/// Closes the files of a task that is not run here. Without a thread to spare it may have to wait for a client's.
pub(crate) fn dispose(files: RoleFiles) {
    if files.iter().any(|(role, _)| matches!(role, FileRole::Named(_))) {
        drop(thread::Builder::new().name("disposal".to_owned()).spawn(move || drop(files)));
    }
}

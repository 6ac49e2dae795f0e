//! The files of offers, which arrive on the lane: those of each offer before its task, in the order of seq.
//!
//! Files may arrive for a task that never does, because the offer was taken back or its message found the channel full.
//! They are dropped when a later offer is run. An idle worker reads the lane too, so that such files cannot fill it.
//! The file of a client whose task never came is closed on a thread of its own, because its close may hang. Driven by
//! `runtime.rs`.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use bulkhead_proto::codec;
use bulkhead_proto::ids::Seq;
use bulkhead_proto::limits::LANE_FRAME_MAX_BYTES;
use bulkhead_proto::worker::message::{FileRole, LaneDown};
use bulkhead_sys::lane::{Lane, LaneFrame};

/// The files of one offer, each with its role.
pub(crate) type RoleFiles = Vec<(FileRole, OwnedFd)>;

/// Receives one frame of the supervisor with its descriptors; `None` if the supervisor has hung up.
pub(crate) fn receive(lane: &Lane) -> Result<Option<(LaneDown, Vec<OwnedFd>)>> {
    let mut bytes = [0; LANE_FRAME_MAX_BYTES];
    match lane.recv(&mut bytes).context("cannot read the lane")? {
        LaneFrame::Frame { length, descriptors } => {
            let frame =
                codec::decode(&bytes[..length]).context("a frame of the supervisor cannot be decoded")?;
            Ok(Some((frame, descriptors)))
        }
        LaneFrame::Refused(fault) => bail!("the supervisor sent a frame that cannot be taken: {fault:?}"),
        LaneFrame::HungUp => Ok(None),
    }
}

/// The lane, and the files that arrived before their tasks.
#[derive(Debug)]
pub(crate) struct EarlyFiles {
    lane: Lane,
    early: VecDeque<(Seq, RoleFiles)>,
}

impl EarlyFiles {
    /// Takes over the lane after the setup: only files arrive from then on.
    pub(crate) fn new(lane: Lane) -> Self {
        Self { lane, early: VecDeque::new() }
    }

    /// Waits for one frame and stores its files. `false` if the supervisor has hung up.
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

    /// Waits for the files of an offer; those of earlier offers are dropped. `None` if the supervisor has hung up.
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

    /// Drops the files of offers before this one: their tasks will never arrive.
    pub(crate) fn drop_before(&mut self, seq: Seq) {
        while self.early.front().is_some_and(|(early, _)| *early < seq) {
            self.early.pop_front().into_iter().for_each(|(_, files)| dispose(files));
        }
    }

    /// Sends a doorbell to the supervisor without blocking. `false` if the supervisor has hung up.
    pub(crate) fn ring(&self, doorbell: &[u8]) -> Result<bool> {
        match self.lane.send_now(doorbell) {
            // A full lane holds doorbells that the supervisor has not read yet; one of them is enough.
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

/// Closes the files of a task that this worker does not run, on a thread if a client's file is among them. If no thread
/// can be made, the close of a client's file may block this worker.
pub(crate) fn dispose(files: RoleFiles) {
    if files.iter().any(|(role, _)| matches!(role, FileRole::Named(_))) {
        drop(thread::Builder::new().name("closer".to_owned()).spawn(move || drop(files)));
    }
}

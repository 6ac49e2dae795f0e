//! Output descriptors, as they come down the lane: each before the task that it belongs to, in the order of seq.

use std::fs::File;
use std::os::fd::OwnedFd;

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

/// The output descriptor of an offer; those of earlier offers, which were taken back, are dropped on the way.
/// `None` when the supervisor has hung up.
pub(crate) fn output_of(lane: &Lane, wanted: Seq) -> Result<Option<File>> {
    loop {
        match receive(lane)? {
            None => return Ok(None),
            Some((LaneDown::Output { seq }, descriptors)) if seq == wanted => {
                let descriptor = descriptors.into_iter().next().context("an output frame without its descriptor")?;
                return Ok(Some(File::from(descriptor)));
            }
            Some((LaneDown::Output { seq }, _)) if seq < wanted => {}
            Some((frame, _)) => bail!("the lane holds {frame:?} where the output of offer {wanted} was due"),
        }
    }
}

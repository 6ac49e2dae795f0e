//! The lane of a worker: what it says on it, and what is sent down it but answers and registrations.
//!
//! At most [`LANE_FRAMES_PER_TURN`] frames are read in a turn, and none is believed that does not fit the stage of the worker. Driven by
//! `worker_table.rs` and `perform.rs`; `worker_table/output_answers.rs` and `worker_table/registrations.rs` send the rest.

use std::io;
use std::os::fd::AsFd;

use bulkhead_core::event::Event;
use bulkhead_link::supervisor::StackPageReader;
use bulkhead_proto::codec;
use bulkhead_proto::death::Violation;
use bulkhead_proto::ids::{KindId, Seq};
use bulkhead_proto::limits::{LANE_FRAME_MAX_BYTES, LANE_FRAMES_PER_TURN};
use bulkhead_proto::plain::Plain;
use bulkhead_proto::worker::message::{LaneDown, LaneUp, StackText};
use bulkhead_sys::lane::{LaneFault, LaneFrame};

use crate::offer_files::LaneFiles;
use crate::output_store::OutputStore;
use crate::worker_process::WorkerProcess;
use crate::worker_stage::WorkerStage;

/// The result of reading a lane.
pub(crate) enum LaneRead {
    /// The lane is empty.
    Nothing,
    /// As many frames were read as one turn allows; there may be more.
    More,
    /// The worker's hello.
    Hello {
        /// Its ipc-channel server listens there.
        path: String,
        /// Whether its own runtime writes its stack.
        stack_text: StackText,
    },
    /// The worker's program does not offer these kinds of its pool.
    MissingKinds(Vec<KindId>),
    /// The task of this offer, which the worker has claimed, asks for an output.
    NeedsOutput(Seq),
    /// Nothing more is read from this lane; the event says why.
    Ended(Box<Event>),
}

impl LaneRead {
    /// The event, if reading ended with this call.
    pub(crate) fn event(self) -> Option<Event> {
        match self {
            Self::Ended(event) => Some(*event),
            Self::Nothing
            | Self::More
            | Self::Hello { .. }
            | Self::MissingKinds(_)
            | Self::NeedsOutput(_) => None,
        }
    }
}

impl WorkerProcess {
    /// Reads at most [`LANE_FRAMES_PER_TURN`] frames from its lane.
    pub(crate) fn read_lane(&mut self) -> LaneRead {
        if self.rings > self.naps {
            return self.violated(Violation::Doorbell);
        }
        let mut bytes = [0; LANE_FRAME_MAX_BYTES];
        for _ in 0..LANE_FRAMES_PER_TURN {
            let frame = match self.lane.recv(&mut bytes) {
                Ok(LaneFrame::Frame { length, .. }) => codec::decode::<LaneUp>(&bytes[..length]),
                Ok(LaneFrame::Refused(LaneFault::Truncated)) => return self.violated(Violation::Lane),
                Ok(LaneFrame::Refused(LaneFault::Descriptors)) => {
                    return self.violated(Violation::Descriptor);
                }
                Ok(LaneFrame::HungUp) => return self.hung_up(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return LaneRead::Nothing,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return self.hung_up(),
            };
            match (frame, self.reached.stage()) {
                (_, WorkerStage::Closed) => {}
                (Ok(LaneUp::Hello { path, missing, stack_text }), WorkerStage::Starting)
                    if missing.is_empty() =>
                {
                    self.reached.enter(WorkerStage::Connecting);
                    return LaneRead::Hello { path, stack_text };
                }
                (Ok(LaneUp::Hello { missing, .. }), WorkerStage::Starting) => {
                    self.reached.close();
                    return LaneRead::MissingKinds(missing);
                }
                (Ok(LaneUp::NeedOutput { seq }), WorkerStage::Ready(_)) => {
                    if self.ring.is_claimed(seq) {
                        return LaneRead::NeedsOutput(seq);
                    }
                    return self.violated(Violation::NeedOutput);
                }
                (Ok(LaneUp::NotUp { why }), WorkerStage::Starting | WorkerStage::Connecting) => {
                    self.reached.close();
                    let error = Plain(&why).to_string();
                    return LaneRead::Ended(Box::new(Event::BootstrapFailed { worker: self.id, error }));
                }
                _ => return self.violated(Violation::Lane),
            }
        }
        LaneRead::More
    }

    /// The reason that a dead worker gave on its lane for not starting, if it was not read while the worker lived.
    pub(crate) fn late_bootstrap_failure(&mut self) -> Option<Event> {
        if !matches!(self.reached.stage(), WorkerStage::Starting | WorkerStage::Connecting) {
            return None;
        }
        self.read_lane().event().filter(|event| matches!(event, Event::BootstrapFailed { .. }))
    }

    /// Sends the files of an offer.
    ///
    /// # Errors
    /// As [`bulkhead_sys::lane::Lane::send`]: the lane is full or closed, or too many of our descriptors are in flight.
    pub(crate) fn send_files(&self, seq: Seq, (roles, descriptors): LaneFiles<'_>) -> io::Result<()> {
        self.lane.send(&codec::encode(&LaneDown::Files { seq, roles }), &descriptors)
    }

    /// Makes its arena and sends it, unless it has one.
    ///
    /// # Errors
    /// No descriptor or memory for it, or as [`bulkhead_sys::lane::Lane::send`]: the next offer tries again.
    pub(crate) fn give_arena(&mut self, outputs: &OutputStore) -> io::Result<()> {
        if self.arena.is_some() {
            return Ok(());
        }
        let (arena, [file, freed_page]) = outputs.make_arena(self.id)?;
        self.lane.send(&codec::encode(&LaneDown::Arena), &[file.as_fd(), freed_page.as_fd()])?;
        self.arena = Some(arena);
        Ok(())
    }

    /// Makes the page for the text of its stack and sends it, if the worker asked for one.
    ///
    /// # Errors
    /// No descriptor or memory for it, or as [`bulkhead_sys::lane::Lane::send`].
    pub(crate) fn give_stack_page(&mut self, wish: StackText) -> io::Result<()> {
        match wish {
            StackText::Never => Ok(()),
            StackText::AtDeath | StackText::WhenAsked => {
                self.writes_stack = wish == StackText::WhenAsked;
                let (page, descriptor) = StackPageReader::create()?;
                self.stack_page = Some(page);
                self.lane.send(&codec::encode(&LaneDown::StackPage), &[descriptor.as_fd()])
            }
        }
    }

    /// The worker broke a rule of the protocol: nothing more is sent to it or read from it but its box.
    pub(crate) fn violated(&mut self, violation: Violation) -> LaneRead {
        if self.reached.is_closed() {
            return LaneRead::Nothing;
        }
        self.reached.close();
        LaneRead::Ended(Box::new(Event::Violated { worker: self.id, violation }))
    }

    /// The lane hung up, or the leader is reaped while others of its tree live on.
    pub(crate) fn hung_up(&mut self) -> LaneRead {
        if self.reached.is_closed() {
            // It was asked to leave, or something else is known of it: a kill that follows is ours.
            return LaneRead::Nothing;
        }
        self.is_hung_up = true;
        self.reached.close();
        LaneRead::Ended(Box::new(Event::HungUp { worker: self.id }))
    }
}

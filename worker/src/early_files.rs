//! What comes down the lane: the arena, before the first task that may use it; the files of offers, those of each offer before its task, in the order of seq; and the output
//! that a task asks for while it runs (`proto/src/worker/message.rs` has the states).
//!
//! What clients registered comes down the lane too, before the first task that names it (`registrations.rs`).
//!
//! While a task waits for its output, the files of later offers are stored as else. A lane that breaks then ends the worker
//! after the task has returned: its offer stays claimed, so the death is charged to it.
//!
//! Files may arrive for a task that never does, because the offer was taken back or its message found the channel full.
//! They are dropped when a later offer is run. An idle worker reads the lane too, so that such files cannot fill it.
//! The file of a client whose task never came is closed by the closer (`closer.rs`), because its close may hang. Driven by
//! `runtime.rs`.

use std::cell::{OnceCell, RefCell};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail, ensure};
use bulkhead_link::worker::ResultArena;
use bulkhead_proto::codec;
use bulkhead_proto::ids::Seq;
use bulkhead_proto::limits::LANE_FRAME_MAX_BYTES;
use bulkhead_proto::worker::message::{FileRole, LaneDown, LaneUp, TaskUses};
use bulkhead_sys::lane::{Lane, LaneFrame};

use crate::closer::Closer;
use crate::registrations::WorkerRegistrations;

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
    early: RefCell<VecDeque<(Seq, RoleFiles)>>,
    registrations: RefCell<WorkerRegistrations>,
    closer: Closer,
    /// `None`: it could not be mapped.
    arena: OnceCell<Option<ResultArena>>,
    /// Why no output could be asked for: the worker has to exit.
    broken: RefCell<Option<anyhow::Error>>,
}

/// The answer to a task that asked for an output.
#[derive(Debug)]
enum OutputReply {
    Given(File, u64),
    Refused(String),
}

impl EarlyFiles {
    /// Takes over the lane after the setup: only files arrive from then on. The closer closes those of clients.
    pub(crate) fn new(lane: Lane, closer: Closer) -> Self {
        Self {
            lane,
            early: RefCell::default(),
            registrations: RefCell::default(),
            closer,
            arena: OnceCell::new(),
            broken: RefCell::new(None),
        }
    }

    /// Waits for one frame and stores its files. `false` if the supervisor has hung up.
    pub(crate) fn take_frame(&self) -> Result<bool> {
        match receive(&self.lane)? {
            None => Ok(false),
            Some((frame, descriptors)) => match self.keep(frame, descriptors)? {
                None => Ok(true),
                Some((frame, _)) => bail!("the lane holds {frame:?} where only files may be"),
            },
        }
    }

    /// Keeps files of later offers and registrations; gives any other frame back.
    fn keep(&self, frame: LaneDown, descriptors: Vec<OwnedFd>) -> Result<Option<(LaneDown, Vec<OwnedFd>)>> {
        match frame {
            LaneDown::Files { seq, roles } => self.store(seq, roles, descriptors)?,
            LaneDown::Registered { registration, kind, bytes, files } => {
                ensure!(
                    files.len() == descriptors.len(),
                    "registration {registration} came as {} descriptors where {} were due",
                    descriptors.len(),
                    files.len()
                );
                let files = files.into_iter().zip(descriptors).collect();
                self.registrations.borrow_mut().add(registration, kind, bytes.into(), files);
            }
            LaneDown::Arena => self.store_arena(descriptors)?,
            LaneDown::Forget { registration } => {
                self.registrations.borrow_mut().forget(registration, &self.closer);
            }
            other => return Ok(Some((other, descriptors))),
        }
        Ok(None)
    }

    /// A worker without memory for the mapping goes on: its results go into files.
    fn store_arena(&self, descriptors: Vec<OwnedFd>) -> Result<()> {
        let arena = ResultArena::map(descriptors)
            .inspect_err(|error| log::warn!("the arena cannot be mapped error={error}"));
        ensure!(self.arena.set(arena.ok()).is_ok(), "a second arena came");
        Ok(())
    }

    /// Waits for the arena, which the supervisor sends before the first task that may use it. `false` if it has hung up.
    pub(crate) fn wait_for_arena(&self) -> Result<bool> {
        while self.arena.get().is_none() {
            if !self.take_frame()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits for all that a claimed task uses of registrations: the supervisor sent it before the task. `false` if it has hung
    /// up.
    pub(crate) fn receive_all(&self, uses: &TaskUses) -> Result<bool> {
        while !self.registrations.borrow().has_all(uses) {
            if !self.take_frame()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What clients registered.
    pub(crate) fn registrations(&self) -> &RefCell<WorkerRegistrations> {
        &self.registrations
    }

    /// The arena, if one came and could be mapped.
    pub(crate) fn arena(&self) -> Option<&ResultArena> {
        self.arena.get().and_then(Option::as_ref)
    }

    fn store(&self, seq: Seq, roles: Vec<FileRole>, descriptors: Vec<OwnedFd>) -> Result<()> {
        ensure!(
            roles.len() == descriptors.len(),
            "the files of offer {seq} came as {} descriptors where {} were due",
            descriptors.len(),
            roles.len()
        );
        self.early.borrow_mut().push_back((seq, roles.into_iter().zip(descriptors).collect()));
        Ok(())
    }

    /// Asks for the output of this offer, which is claimed, and waits for it: the file, and how long it may become, in bytes.
    /// The supervisor answers at once.
    ///
    /// # Errors
    /// It gives none, or the lane broke: [`Self::fault`].
    pub(crate) fn ask_for_output(&self, wanted: Seq) -> io::Result<(File, u64)> {
        match self.answer(wanted) {
            Ok(OutputReply::Given(file, room_bytes)) => Ok((file, room_bytes)),
            Ok(OutputReply::Refused(why)) => Err(io::Error::other(why)),
            Err(error) => {
                let text = format!("no output could be asked for: {error:#}");
                *self.broken.borrow_mut() = Some(error);
                Err(io::Error::other(text))
            }
        }
    }

    fn answer(&self, wanted: Seq) -> Result<OutputReply> {
        let question = codec::encode(&LaneUp::NeedOutput { seq: wanted });
        while let Err(error) = self.lane.send(&question, &[]) {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error).context("the supervisor cannot be asked");
            }
        }
        loop {
            let (frame, descriptors) = receive(&self.lane)?.context("the supervisor is gone")?;
            let Some(frame) = self.keep(frame, descriptors)? else { continue };
            match frame {
                (LaneDown::Output { seq, room_bytes }, mut descriptors) if seq == wanted => {
                    ensure!(descriptors.len() == 1, "output {seq} came as {} descriptors", descriptors.len());
                    let file = descriptors.pop().map(File::from).context("an output has a file")?;
                    return Ok(OutputReply::Given(file, room_bytes));
                }
                (LaneDown::NoOutput { seq, why }, _) if seq == wanted => {
                    return Ok(OutputReply::Refused(why));
                }
                (frame, _) => bail!("the lane holds {frame:?} where the output of offer {wanted} was due"),
            }
        }
    }

    /// Why this worker has to exit, if the lane broke while a task asked for an output.
    pub(crate) fn fault(&self) -> Result<()> {
        self.broken.take().map_or(Ok(()), Err)
    }

    /// Waits for the files of an offer; those of earlier offers are dropped. `None` if the supervisor has hung up.
    pub(crate) fn files_of(&self, wanted: Seq) -> Result<Option<RoleFiles>> {
        loop {
            self.drop_before(wanted);
            let first = self.early.borrow_mut().pop_front();
            match first {
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
    pub(crate) fn drop_before(&self, seq: Seq) {
        let mut early = self.early.borrow_mut();
        while early.front().is_some_and(|(early, _)| *early < seq) {
            early.pop_front().into_iter().for_each(|(_, files)| self.dispose(files));
        }
    }

    /// Closes the files of a task that this worker does not run; the closer does it if a client's file is among them.
    pub(crate) fn dispose(&self, files: RoleFiles) {
        if files.iter().any(|(role, _)| matches!(role, FileRole::Named(_))) {
            let descriptors = files.len();
            self.closer.close(files, descriptors);
        }
    }
}

impl AsFd for EarlyFiles {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.lane.as_fd()
    }
}

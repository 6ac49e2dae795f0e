//! Answers to tasks that ask for an output while they run: the file is made, and sent down the lane of the worker.
//!
//! | the send meets | and |
//! |---|---|
//! | room | the answer is gone |
//! | a full lane | the answer waits for the lane to be writable; the task waits on, and its limits count |
//! | a closed lane | the answer is dropped: the death of the worker follows |
//! | a shortage (ETOOMANYREFS, EMFILE, ENOMEM, the bound of open files) | the file is dropped, and the core refuses |
//! | a shortage, of a refusal | the worker is given up, because its task would wait for ever |
//!
//! The files of later offers can fill a lane while a task runs; a worker that waits for its answer reads them, so the lane has
//! room again. A worker has one unsent answer at most: a new one replaces it, because the task of the old one has ended. Driven
//! by `perform.rs`, and by `read_lanes` when the lane is ready.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use bulkhead_core::event::Event;
use bulkhead_proto::codec;
use bulkhead_proto::ids::{Seq, WorkerId};
use bulkhead_proto::worker::message::LaneDown;
use bulkhead_sys::shortage;
use mio::Interest;
use mio::unix::SourceFd;

use crate::offer_files::OfferFiles;
use crate::output_store::OutputStore;
use crate::poll_source::PollSource;
use crate::worker_process::WorkerProcess;
use crate::worker_table::WorkerTable;

/// The answer to a task that asked for an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OutputAnswer {
    /// The file of its offer, of which so many bytes may be used.
    Given { seq: Seq, room_bytes: u64 },
    /// It gets none.
    Refused { seq: Seq, why: String },
}

/// What became of an answer.
enum Sent {
    /// It is gone, or nobody waits for it any more.
    Over,
    /// The lane is full.
    Full,
    /// The supervisor lacks something.
    Short(io::Error),
}

impl WorkerProcess {
    /// Drops the output of an offer whose task is refused one: from now on it has none.
    fn drop_output_of(&mut self, seq: Seq) {
        if let Some(files) = self.offer_files.get_mut(&seq) {
            files.drop_output();
        }
    }
}

impl WorkerTable {
    /// Makes the output that the task of an offer has asked for, and sends it.
    pub(crate) fn give_output(
        &mut self,
        (id, seq): (WorkerId, Seq),
        room_bytes: u64,
        outputs: &OutputStore,
        events: &mut Vec<Event>,
    ) {
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| !worker.reached.is_closed()) else {
            return;
        };
        match outputs.make() {
            Ok(file) => {
                let files = OfferFiles::with_output(worker.offer_files.remove(&seq), file, room_bytes);
                worker.offer_files.insert(seq, files);
                worker.unsent_answer = Some(OutputAnswer::Given { seq, room_bytes });
                self.send_answer(id, events);
            }
            Err(error) => {
                worker.drop_output_of(seq);
                events.push(output_short((id, seq), &error));
            }
        }
    }

    /// Tells the task of an offer that it gets no output.
    pub(crate) fn refuse_output(&mut self, id: WorkerId, seq: Seq, why: String, events: &mut Vec<Event>) {
        if let Some(worker) = self.workers.get_mut(&id).filter(|worker| !worker.reached.is_closed()) {
            worker.drop_output_of(seq);
            worker.unsent_answer = Some(OutputAnswer::Refused { seq, why });
            self.send_answer(id, events);
        }
    }

    /// Sends the answer that a task waits for, if there is one.
    pub(super) fn send_answer(&mut self, id: WorkerId, events: &mut Vec<Event>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Some(answer) = worker.unsent_answer.take() else { return };
        match send(worker, &answer) {
            Sent::Over => {}
            Sent::Full => {
                worker.unsent_answer = Some(answer);
                self.watch_lane(id, Interest::READABLE | Interest::WRITABLE, events);
                return;
            }
            Sent::Short(error) => match answer {
                OutputAnswer::Given { seq, .. } => {
                    worker.drop_output_of(seq);
                    events.push(output_short((id, seq), &error));
                }
                OutputAnswer::Refused { .. } => {
                    log::error!("cannot answer a task worker={id} error={error}");
                    events.extend(worker.hung_up().event());
                }
            },
        }
        self.unwatch_lane(id, events);
    }

    /// The poll reports no more that the lane of a worker has room, if nothing waits for that.
    pub(super) fn unwatch_lane(&mut self, id: WorkerId, events: &mut Vec<Event>) {
        let needless = |worker: &mut WorkerProcess| {
            worker.waits_for_lane && worker.unsent_answer.is_none() && worker.unsent_forgets.is_empty()
        };
        if self.workers.get_mut(&id).is_some_and(needless) {
            self.watch_lane(id, Interest::READABLE, events);
        }
    }

    /// Changes what the poll reports of a lane. If it cannot, the worker is given up, because its task would wait for ever.
    pub(super) fn watch_lane(&mut self, id: WorkerId, interest: Interest, events: &mut Vec<Event>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.waits_for_lane = interest.is_writable();
        let descriptor = worker.lane.as_fd().as_raw_fd();
        let changed =
            self.registry.reregister(&mut SourceFd(&descriptor), PollSource::Lane(id).token(), interest);
        if let Err(error) = changed {
            log::error!("cannot watch the lane of a worker worker={id} error={error}");
            events.extend(worker.hung_up().event());
        }
    }
}

/// Sends an answer, unless its offer has ended meanwhile.
fn send(worker: &WorkerProcess, answer: &OutputAnswer) -> Sent {
    let (frame, file) = match answer {
        OutputAnswer::Given { seq, room_bytes } => {
            let Some(file) = worker.offer_files.get(seq).and_then(OfferFiles::output) else {
                return Sent::Over;
            };
            (LaneDown::Output { seq: *seq, room_bytes: *room_bytes }, Some(file.as_fd()))
        }
        OutputAnswer::Refused { seq, why } => (LaneDown::NoOutput { seq: *seq, why: why.clone() }, None),
    };
    match worker.lane.send(&codec::encode(&frame), file.as_slice()) {
        Ok(()) => Sent::Over,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Sent::Full,
        Err(error) if is_closed(&error) => Sent::Over,
        Err(error) => Sent::Short(error),
    }
}

pub(super) fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

fn output_short((worker, seq): (WorkerId, Seq), error: &io::Error) -> Event {
    let shortage = format!("the output of a task: {}", shortage::explain(error));
    Event::OutputShort { worker, seq, shortage }
}

#[cfg(test)]
mod tests;

//! Outputs that tasks ask for while they run: who gets one, who is refused, whose claim is a lie.
//!
//! | a worker asks for | and |
//! |---|---|
//! | an offer that is not in its ring any more, or it is killed | nothing follows |
//! | an offer of another output mode, or one that has asked before | it is killed: a violation |
//! | an offer whose job has ended, or is not with it any more | is refused |
//! | a task for which there is no room (`outputs.rs`), or no file can be made | is refused, with the bound: the task fails |
//! | any other task | is given one, which counts until the offer is settled |
//!
//! Every question of a worker that lives gets one answer, in the same turn: the worker waits for it. Driven by events; the shell
//! has checked that the worker has claimed the offer.

use bulkhead_proto::death::Violation;
use bulkhead_proto::ids::{Seq, WorkerId};
use bulkhead_proto::limits::RESERVE_MAX_BYTES;
use bulkhead_proto::worker::message::OutputRoom;
use bulkhead_proto::worker::stage::Stage;

use crate::action::{Action, Task};
use crate::event::TaskResult;
use crate::job::{TaskRun, Ticket, truncate};
use crate::machine::outputs::{room_on_demand, room_to_reserve};
use crate::machine::{Core, JobOffer};
use crate::turn::Counter;

impl Core {
    /// A task asks for an output.
    pub(super) fn output_needed(&mut self, id: WorkerId, seq: Seq) {
        let worker = self.workers.get(id).filter(|worker| worker.kill().is_none());
        let Some(offer) = worker.and_then(|worker| worker.ring().get(seq)).copied() else {
            return self.turn.count(Counter::Stale, 1);
        };
        if !offer.ticket().may_ask() {
            return self.violated(id, Violation::NeedOutput);
        }
        // It has begun, so no alarm is needed for a worker that does not begin it.
        self.workers.note_claimed(id, seq);
        self.watch_head(id);
        match self.room_for(id, &offer) {
            Ok(room_bytes) => {
                let ticket = self.jobs.give_room(offer.ticket(), room_bytes);
                self.workers.change_ticket(id, seq, ticket);
                self.post_charges();
                self.turn.act(Action::GiveOutput { worker: id, seq, room_bytes });
            }
            Err(why) => self.refuse_output(id, &offer, why),
        }
    }

    /// Lets a reserve go with an offer that has no file of the daemon's, if its task is expected to ask, because a question costs a way
    /// to the supervisor and back.
    ///
    /// A reserve is an output of at most [`RESERVE_MAX_BYTES`]. It counts as what a task is given. A task whose result is longer asks,
    /// and what it is given takes the place of the reserve. `worker/output_habit.rs` says which tasks are expected to ask.
    pub(super) fn reserve_output(&mut self, run: TaskRun, ticket: Ticket, task: &mut Task) -> Ticket {
        let may_have = ticket.may_ask() && task.stage == Stage::Whole && !self.workers.is_short();
        if !may_have || !self.workers.expects_reserve(self.jobs.batch(run).flavour()) {
            return ticket;
        }
        self.post_charges();
        let (account, largest) = self.jobs.largest_output(&self.turn, run);
        let sums = self.jobs.output_sums(account);
        let Some(bytes) = room_to_reserve(&self.ledger, (account, largest), sums) else { return ticket };
        task.room = Some(Box::new(OutputRoom { own_bytes: bytes, shared_bytes: 0 }));
        let reserved = self.jobs.reserve_room(ticket, bytes);
        self.post_charges();
        reserved
    }

    /// Notes whether a reserve was, or would have been, right for the result of a task that might ask.
    pub(super) fn note_output(&mut self, run: TaskRun, ticket: Ticket, result: &TaskResult) {
        if ticket.might_have_output() {
            let fits = match result {
                TaskResult::Held { bytes, .. } => *bytes <= RESERVE_MAX_BYTES,
                TaskResult::Inline(_) | TaskResult::InArena { .. } => false,
                TaskResult::Planned { .. } | TaskResult::Failed { .. } => return,
            };
            self.workers.note_output(self.jobs.batch(run).flavour(), fits);
        }
    }

    fn room_for(&mut self, id: WorkerId, offer: &JobOffer) -> Result<u64, String> {
        let Some(run) = self.current(id, offer) else { return Err("its job has ended".to_owned()) };
        self.post_charges();
        let (account, largest) = self.jobs.largest_output(&self.turn, run);
        let sums = self.jobs.output_sums(account);
        room_on_demand(&self.ledger, (account, largest), sums, self.workers.slot_count() as u64)
    }

    /// The shell could not make the output: its room is given back at once.
    pub(super) fn output_short(&mut self, id: WorkerId, seq: Seq, shortage: &str) {
        self.fall_short(shortage);
        let Some(offer) = self.workers.offer(id, seq).copied() else { return };
        // It asked once, and has its answer if this one was not given.
        if offer.ticket().was_given() {
            self.refuse_output(id, &offer, shortage.to_owned());
        }
    }

    fn refuse_output(&mut self, id: WorkerId, offer: &JobOffer, mut why: String) {
        truncate(&mut why);
        let ticket = self.jobs.refuse_room(offer.ticket());
        self.workers.change_ticket(id, offer.seq(), ticket);
        self.turn.act(Action::RefuseOutput { worker: id, seq: offer.seq(), why });
    }
}

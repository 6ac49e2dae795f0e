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

use crate::action::Action;
use crate::job::truncate;
use crate::machine::outputs::room_on_demand;
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

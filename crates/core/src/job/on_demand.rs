//! The room of an output that a task asked for while it ran, or of a reserve: promised to its offer, until the offer is settled.
//!
//! It changes the ticket of the offer, so that [`Jobs::unload`] gives back what was promised, whatever ends the offer. The
//! machine (`machine/on_demand.rs`) decides who gets how much.

use bulkhead_proto::limits::OUTPUT_MAX_BYTES;

use crate::job::Jobs;
use crate::job::held_outputs::files_of_offer;
use crate::job::run::{OutputDemand, TaskRun, Ticket};
use crate::turn::{AccountId, Turn};

impl Jobs {
    /// Whether the next task of a run may ask for an output while it runs.
    pub(crate) fn may_ask(&self, run: TaskRun) -> bool {
        self.table.entry(self.table.open(run)).may_ask()
    }

    /// The account of a run, and the most bytes that one output of its kind may have.
    pub(crate) fn largest_output(&self, turn: &Turn, run: TaskRun) -> (AccountId, u64) {
        let batch = self.table.batch(self.table.open(run));
        let largest = turn.kind(batch.kind).and_then(|kind| kind.output_max_bytes);
        (batch.account, largest.unwrap_or(OUTPUT_MAX_BYTES))
    }

    /// An offer is promised a reserve of so many bytes.
    ///
    /// # Panics
    /// If it may not ask, or has one.
    pub(crate) fn reserve_room(&mut self, ticket: Ticket, bytes: u64) -> Ticket {
        assert!(ticket.demand == OutputDemand::Open, "an offer gets one reserve");
        self.promise(Ticket { demand: OutputDemand::Reserved, ..ticket }, bytes)
    }

    /// An offer is promised an output of so many bytes, in place of its reserve.
    ///
    /// # Panics
    /// If it may not ask for one.
    pub(crate) fn give_room(&mut self, ticket: Ticket, bytes: u64) -> Ticket {
        assert!(ticket.may_ask(), "an offer asks for one output");
        let bare = self.refuse_room(ticket);
        self.promise(Ticket { demand: OutputDemand::Given, ..bare }, bytes)
    }

    fn promise(&mut self, ticket: Ticket, bytes: u64) -> Ticket {
        let given = Ticket { granted: ticket.granted + bytes, ..ticket };
        self.outputs.grant(&mut self.table.charges, ticket.account, bytes);
        let files = files_of_offer(given.granted) - files_of_offer(ticket.granted);
        self.outputs.open(&mut self.table.charges, ticket.account, files);
        given
    }

    /// An offer gets no output: what it was promised is given back.
    pub(crate) fn refuse_room(&mut self, ticket: Ticket) -> Ticket {
        let bytes = ticket.given_bytes();
        let refused = Ticket { granted: ticket.granted - bytes, demand: OutputDemand::Refused, ..ticket };
        self.outputs.ungrant(&mut self.table.charges, ticket.account, bytes);
        let files = files_of_offer(ticket.granted) - files_of_offer(refused.granted);
        self.outputs.close(&mut self.table.charges, ticket.account, files);
        refused
    }
}

//! Workers that are asked for the text of their stack before they are killed.
//!
//! A kill for a limit of time or a cancel says nothing about where the task hangs. A worker whose hello says that it
//! writes its stack when it is asked has [`STACK_MS`] for it, once; then it is killed whatever it has written, or if it has
//! ended the task meanwhile. From the question on it is offered nothing, and its other offers are taken back. No job waits
//! for this: a task that is to be killed has its outcome before.
//!
//! | from | to | when |
//! |---|---|---|
//! | unable | able | its hello says that it writes its stack when asked |
//! | able | asked | it is to be killed for a limit of time or a cancel, has begun a task, and could hear of it |
//! | asked | answered | the time is over: it is killed |
//! | able, asked | answered | it is killed for another reason: memory, a protocol violation, a stop, a hang-up; at once |
//!
//! All others are killed at once: a worker that is stopped or hung up hears nothing. What a worker writes decides nothing.

use bulkhead_proto::death::KillReason;
use bulkhead_proto::ids::WorkerId;

use crate::action::Action;
use crate::turn::{Turn, WorkerAlarm};
use crate::worker::{FollowUp, Kill, Worker, Workers};

/// Time for a worker to write its stack, in milliseconds.
const STACK_MS: u64 = 5;

/// How far a worker is with the text of its stack, see the table above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum StackRequest {
    #[default]
    Unable,
    Able,
    /// It is killed so when the time is over.
    Asked {
        kill: Kill,
    },
    Answered,
}

/// Whether a stack explains this kill.
fn is_explained(why: KillReason) -> bool {
    match why {
        KillReason::Timeout | KillReason::NoProgress | KillReason::CpuTime | KillReason::Cancel => true,
        KillReason::Memory { .. }
        | KillReason::Stop
        | KillReason::Violation { .. }
        | KillReason::Unresponsive
        | KillReason::Stopped
        | KillReason::ProgramStopped => false,
    }
}

impl<T: Copy> Worker<T> {
    /// How the core killed it, or is about to.
    pub(crate) fn meant_kill(&self) -> Option<Kill> {
        match self.stack_request {
            StackRequest::Asked { kill } => Some(kill),
            StackRequest::Unable | StackRequest::Able | StackRequest::Answered => self.kill(),
        }
    }

    /// Whether it is about to be killed.
    pub(super) fn is_asked_for_stack(&self) -> bool {
        matches!(self.stack_request, StackRequest::Asked { .. })
    }

    /// Whether it can be asked: it has begun a task, and hears.
    fn may_be_asked(&self) -> bool {
        let has_begun = self.ring.head().is_some_and(|head| head.is_claimed());
        let hears = self.stopped_until_ns.is_none() && !self.is_hung_up();
        self.stack_request == StackRequest::Able && has_begun && hears
    }
}

impl<T: Copy> Workers<T> {
    /// The hello of a worker said that it writes its stack when it is asked.
    pub(crate) fn note_writes_stack(&mut self, id: WorkerId) {
        if let Some(worker) = self.table.get_mut(&id) {
            worker.stack_request = StackRequest::Able;
        }
    }

    /// A worker is to be killed. Returns whether that waits for the text of its stack; [`Self::stack_time_over`] says when it
    /// does no more.
    pub(crate) fn waits_for_stack(&mut self, turn: &mut Turn, id: WorkerId, kill: Kill) -> bool {
        let Some(worker) = self.table.get_mut(&id).filter(|_| is_explained(kill.why())) else { return false };
        if worker.is_asked_for_stack() {
            return true;
        }
        let Some(seq) = worker.ring.head().map(|head| head.seq()).filter(|_| worker.may_be_asked()) else {
            return false;
        };
        worker.stack_request = StackRequest::Asked { kill };
        worker.set(turn, id, WorkerAlarm::Stack, turn.after_ms(STACK_MS));
        self.recall_all(turn, id);
        turn.act(Action::AskStack { worker: id, seq, why: kill.why() });
        true
    }

    /// The time for the text of a stack is over: the worker is to be killed.
    ///
    /// # Panics
    /// If its alarm was not set.
    pub(crate) fn stack_time_over(&mut self, id: WorkerId) -> FollowUp {
        let Some(worker) = self.table.get_mut(&id) else { return FollowUp::Nothing };
        worker.rang(WorkerAlarm::Stack);
        match std::mem::replace(&mut worker.stack_request, StackRequest::Answered) {
            StackRequest::Asked { kill } => FollowUp::Kill(kill),
            StackRequest::Unable | StackRequest::Able | StackRequest::Answered => FollowUp::Nothing,
        }
    }

    /// A worker is killed now.
    pub(super) fn ask_no_more(&mut self, turn: &mut Turn, id: WorkerId) {
        let Some(worker) = self.table.get_mut(&id) else { return };
        worker.stack_request = StackRequest::Answered;
        worker.cancel(turn, id, WorkerAlarm::Stack);
    }
}

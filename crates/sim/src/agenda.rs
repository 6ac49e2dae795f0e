//! The agenda of the world outside the daemon: moves, ordered by time.
//!
//! Moves of the same instant come in random order: each gets a drawn number as its second key. The agenda performs
//! nothing; `World` takes the next move and performs it.

use std::collections::BTreeMap;

use bulkhead_proto::ids::{LogId, OutputId, WorkerId};

use crate::rng::SimRng;

/// One thing that happens outside the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// A worker does its next step.
    Work(WorkerId),
    /// A worker comes to the end of its bootstrap.
    Boot(WorkerId),
    /// A signal reaches a worker.
    Die(WorkerId),
    /// A signal stops a worker.
    Stop(WorkerId),
    /// A stopped worker is continued.
    Continue(WorkerId),
    /// A signal stops the program of a worker's task.
    StopProgram(WorkerId),
    /// A stopped program is continued.
    ContinueProgram(WorkerId),
    /// A dead worker's lane hangs up.
    HangUp(WorkerId),
    /// A dead worker's tree is gone: its death can be proven.
    Prove(WorkerId),
    /// The bootstrap thread of a worker that died gives up, late.
    LateBoot(WorkerId),
    /// A process that a dead worker left has ended.
    StrayEnds(u32),
    /// A client does something.
    Act(usize),
    /// A client has read all that was sent to it.
    Flush(usize),
    /// The last reply with an output that was dropped is read.
    FreeOutput(OutputId),
    /// The same of a log.
    FreeLog(LogId),
    /// The journal comes to the end of a commit.
    Commit,
    /// The wall clock is set.
    SetWall,
    /// The daemon is told to drain or to stop.
    Shutdown,
}

/// The moves to come.
#[derive(Debug, Default)]
pub struct Agenda {
    moves: BTreeMap<(u64, u64, u64), Move>,
    added: u64,
}

impl Agenda {
    /// Plans a move.
    pub fn add(&mut self, at_ns: u64, what: Move, rng: &mut SimRng) {
        self.added += 1;
        self.moves.insert((at_ns, rng.draw(), self.added), what);
    }

    /// When the next one is due.
    pub fn next_ns(&self) -> Option<u64> {
        self.moves.keys().next().map(|key| key.0)
    }

    /// Takes the next one if it is due.
    pub fn take_due(&mut self, now_ns: u64) -> Option<Move> {
        let due = self.next_ns().is_some_and(|at| at <= now_ns);
        if due { self.moves.pop_first().map(|(_, what)| what) } else { None }
    }

    /// Drops moves that are no longer wanted.
    pub fn keep(&mut self, wanted: impl Fn(Move) -> bool) {
        self.moves.retain(|_, what| wanted(*what));
    }
}

//! A fake worker process: its life, the task that it runs, and the news that the supervisor could see.
//!
//! It holds both sides of the worker - the truth and the supervisor's notes - so that the oracles can compare them.
//! `moves.rs` (the world) and `hear.rs`, `hands.rs` (the supervisor) move it.

#![deny(clippy::wildcard_enum_match_arm)]

use std::collections::{BTreeSet, VecDeque};

use bulkhead_core::action::Task;
use bulkhead_core::event::Event;
use bulkhead_proto::death::{Death, KillReason, Violation};
use bulkhead_proto::ids::{RegistrationId, Seq, WorkerId};

use crate::boxes::{FakeResult, Pages};
use crate::closes::UnclosedFiles;
use crate::on_demand::Wanted;
use crate::ring::RingNotes;
use crate::vitals::Vitals;

/// The life of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    /// Spawned, not connected.
    Booting,
    /// Connected.
    Up,
    /// Its leader is dead; something of its tree may live.
    Dead(Death),
    /// All of its tree is gone.
    Gone(Death),
}

/// What a worker runs.
#[derive(Clone, Debug)]
pub struct FakeRun {
    /// The offer.
    pub seq: Seq,
    /// How it will end.
    pub ends: Ends,
    /// Whether the task never ends by its nature, and so only by a cancel or a limit.
    pub loops: bool,
    /// How far it is with an output that it asks for.
    pub wanted: Wanted,
}

/// How a task ends.
#[derive(Clone, Debug)]
pub enum Ends {
    /// With a report.
    Report(FakeResult),
    /// With the death of its worker.
    Death(Death),
    /// Never.
    Never,
}

/// What the supervisor has not seen yet.
#[derive(Debug, Default)]
pub struct Tells {
    /// The end of the bootstrap.
    pub boot: Option<Result<(), String>>,
    /// Violations on the lane.
    pub lane_violation: Option<Violation>,
    /// Questions on the lane for outputs.
    pub output_questions: Vec<Seq>,
    /// The lane hung up.
    pub hung_up: bool,
    /// It was stopped, or continued.
    pub stops: Vec<Event>,
}

/// One fake worker.
#[derive(Debug)]
pub struct FakeWorker {
    /// Its number.
    pub id: WorkerId,
    /// How far its process is.
    pub life: Life,
    /// Its box and orders.
    pub pages: Pages,
    /// The supervisor's notes on them.
    pub ring: RingNotes,
    /// What it was sent of registrations, and was not told to forget.
    pub registered: BTreeSet<RegistrationId>,
    /// Its task channel.
    pub inbox: VecDeque<(Seq, Task)>,
    /// Messages that its channel takes.
    pub capacity: usize,
    /// Whether its channel was closed: it is to leave.
    pub closed: bool,
    /// Whether it was asked to leave.
    pub retired: bool,
    /// Why the supervisor killed it.
    pub kill: Option<KillReason>,
    /// What it runs.
    pub run: Option<FakeRun>,
    /// Whether it says that it writes its stack when it is asked.
    pub writes_stack: bool,
    /// Whether it breaks the protocol now and then.
    pub hostile: bool,
    /// Whether it stands still, for ever or until its death.
    pub hung: bool,
    /// Whether its next step is on the agenda.
    pub planned: bool,
    /// Whether its death was told before it died: a deliberate defect.
    pub buried: bool,
    /// Tasks that it has begun.
    pub begun: u64,
    /// Processes of its tasks that it could not end.
    pub left: Vec<u32>,
    /// Files of clients that it has to close.
    pub unclosed: UnclosedFiles,
    /// What the kernel shows of it.
    pub vitals: Vitals,
    /// What is to be seen of it.
    pub tells: Tells,
}

impl FakeWorker {
    /// A process that was just spawned.
    pub fn new(id: WorkerId, capacity: usize, hostile: bool) -> Self {
        Self {
            id,
            life: Life::Booting,
            pages: Pages::new(),
            ring: RingNotes::default(),
            registered: BTreeSet::new(),
            inbox: VecDeque::new(),
            capacity,
            closed: false,
            retired: false,
            kill: None,
            run: None,
            // Not drawn, so that every seed means what it always did.
            writes_stack: id.0 % 3 == 1,
            hostile,
            hung: false,
            planned: false,
            buried: false,
            begun: 0,
            left: Vec::new(),
            unclosed: UnclosedFiles::default(),
            vitals: Vitals::default(),
            tells: Tells::default(),
        }
    }

    /// Whether its leader lives.
    pub fn lives(&self) -> bool {
        matches!(self.life, Life::Booting | Life::Up)
    }

    /// Whether all of its tree is gone.
    pub fn is_gone(&self) -> bool {
        matches!(self.life, Life::Gone(_))
    }
}

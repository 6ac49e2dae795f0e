//! Scenarios whose tasks ask for outputs while they run: which do, how the fake shell answers, and what hostile workers ask for.
//!
//! Drawn apart from everything else, so that a seed without them means what it always did. A task that wants to write more than
//! fits inline asks at its end and waits; its answer comes a while later, as through a lane that was full.

use bulkhead_core::action::Task;
use bulkhead_core::event::Event;
use bulkhead_proto::death::Violation;
use bulkhead_proto::ids::{Seq, WorkerId};
use bulkhead_proto::job::OutputMode;
use bulkhead_proto::worker::boxes::{ClaimState, ReportStatus};

use crate::arenas;
use crate::boxes::FakeResult;
use crate::clock::MS;
use crate::rng::SimRng;
use crate::sabotage::Sabotage;
use crate::worker::{Ends, FakeRun};
use crate::world::{NewsSource, World};

/// What the draws of this file begin with. Chosen so that no seed of `tests/regressions.rs` has such tasks.
const SALT: u64 = 0x0de3_8811;

/// How far a task is with its output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// It needs none, or has one from the start.
    #[default]
    Nothing,
    /// It will ask.
    Later,
    /// It will ask for an output of more bytes than this.
    Beyond(u64),
    /// It waits for the answer.
    Asked,
}

/// How far a task is that has just begun. One of sixteen asks whatever reserve it has.
pub(crate) fn wanted(task: &Task) -> Wanted {
    match task.output {
        OutputMode::Auto | OutputMode::Arena if task.has_reserve() && task.job.0 % 16 != 3 => {
            Wanted::Beyond(task.room().own_bytes)
        }
        OutputMode::Auto | OutputMode::Arena => Wanted::Later,
        OutputMode::Inline | OutputMode::Descriptor | OutputMode::File => Wanted::Nothing,
    }
}

/// Whether tasks of this seed ask for outputs.
pub(crate) fn ask(seed: u64) -> bool {
    SimRng::new(seed ^ SALT).chance(500)
}

impl World {
    /// Where the output of a submit goes that would go inline.
    pub(crate) fn inline_or_auto(&self, mode: OutputMode) -> OutputMode {
        let mut rng = SimRng::new(self.scenario.seed ^ SALT ^ self.clock.ns());
        let is_auto = self.scenario.on_demand && mode == OutputMode::Inline && rng.chance(600);
        match is_auto {
            true if self.scenario.arenas && arenas::takes(self.scenario.seed, self.clock.ns()) => {
                OutputMode::Arena
            }
            true => OutputMode::Auto,
            false => mode,
        }
    }

    /// A run wants to end with an output that it does not have: it asks first. Gives the run back if it need not.
    pub(crate) fn asks_first(&mut self, id: WorkerId, mut run: FakeRun) -> Option<FakeRun> {
        let is_long = matches!(&run.ends, Ends::Report(written) if is_in_descriptor(written));
        let fits = |reserve| matches!(&run.ends, Ends::Report(written) if written.output_bytes <= reserve);
        match run.wanted {
            Wanted::Nothing => return Some(run),
            Wanted::Later | Wanted::Beyond(_) if !is_long => return Some(run),
            Wanted::Beyond(reserve) if fits(reserve) => {
                self.report.reserves_used += 1;
                return Some(run);
            }
            Wanted::Later | Wanted::Beyond(_) | Wanted::Asked => {}
        }
        if run.wanted != Wanted::Asked {
            self.report.output_questions += 1;
            self.ask_for_output(id, run.seq);
            run.wanted = Wanted::Asked;
        }
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.run = Some(run);
        }
        None
    }

    /// A worker sends the question, honest or not.
    pub(crate) fn ask_for_output(&mut self, id: WorkerId, seq: Seq) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.tells.output_questions.push(seq);
            self.news.insert(NewsSource::Worker(id));
        }
    }

    /// The lane of a worker: a question about an offer that it has not claimed breaks a rule.
    pub(crate) fn hear_questions(&mut self, id: WorkerId, batch: &mut Vec<Event>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        for seq in std::mem::take(&mut worker.tells.output_questions) {
            if worker.closed {
                return;
            }
            if worker.ring.is_open(seq) && worker.pages.is(seq, ClaimState::Claimed) {
                batch.push(Event::OutputNeeded { worker: id, seq });
            } else {
                worker.closed = true;
                batch.push(Event::Violated { worker: id, violation: Violation::NeedOutput });
            }
        }
    }

    /// The shell makes an output for a task, if it can.
    pub(crate) fn give_output(&mut self, id: WorkerId, seq: Seq, room_bytes: u64) {
        if self.is_short() {
            let shortage = "no output descriptor".to_owned();
            return self.told_back.push(Event::OutputShort { worker: id, seq, shortage });
        }
        let after = self.rng.span(MS);
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.ring.give(seq);
        let Some(run) = worker.run.as_mut().filter(|run| run.seq == seq) else { return };
        let waits = std::mem::take(&mut run.wanted) == Wanted::Asked;
        if let Ends::Report(written) = &mut run.ends
            && is_in_descriptor(written)
        {
            written.output_bytes = written.output_bytes.min(room_bytes);
            self.report.outputs_given += 1;
        }
        if waits {
            self.plan_work(id, after);
        }
    }

    /// A task gets no output: it fails.
    pub(crate) fn refuse_output(&mut self, id: WorkerId, seq: Seq, why: &str) {
        let after = self.rng.span(MS);
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.ring.refuse(seq);
        let Some(run) = worker.run.as_mut().filter(|run| run.seq == seq) else { return };
        let waits = std::mem::take(&mut run.wanted) == Wanted::Asked;
        if let Ends::Report(written) = &mut run.ends
            && is_in_descriptor(written)
        {
            *written = FakeResult::failed(why, 0, written.elapsed_ns);
            self.report.outputs_refused += 1;
        }
        if waits {
            self.plan_work(id, after);
        }
    }
}

fn is_in_descriptor(written: &FakeResult) -> bool {
    ReportStatus::unpack(written.status) == Some(ReportStatus::Descriptor)
}

impl Sabotage {
    /// Breaks the answers of the core.
    pub(crate) fn spoil_answers(self, actions: &mut Vec<bulkhead_core::action::Action>) {
        use bulkhead_core::action::Action::{GiveOutput, Offer, RefuseOutput};
        match self {
            Self::AnswerNobody => {
                actions.retain(|action| !matches!(action, GiveOutput { .. } | RefuseOutput { .. }));
            }
            Self::GiveTwice => {
                let given = actions.iter().filter(|action| matches!(action, GiveOutput { .. }));
                let given: Vec<_> = given.cloned().collect();
                actions.extend(given);
            }
            Self::GiveUnasked => {
                let offers = actions.iter().filter_map(|action| match action {
                    Offer { worker, seq, task } if task.output == OutputMode::Auto => {
                        Some(GiveOutput { worker: *worker, seq: *seq, room_bytes: 5000 })
                    }
                    _ => None,
                });
                let offers: Vec<_> = offers.collect();
                actions.extend(offers);
            }
            Self::GiveTooMuch => actions.iter_mut().for_each(|action| {
                if let GiveOutput { room_bytes, .. } = action {
                    *room_bytes = room_bytes.saturating_mul(64);
                }
            }),
            _ => {}
        }
    }
}

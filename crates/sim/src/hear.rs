//! The fake shell's ears: makes events of what a shell can see, and decides nothing.
//!
//! Within one source the order is the real one's: the end of the bootstrap, results, violations, the hint of
//! death, and the proof last, after a last look into the box. Between sources the order is random.

#![deny(clippy::wildcard_enum_match_arm)]

use bulkhead_core::event::{Event, Leftover, ProcessEnd, Report, TaskResult};
use bulkhead_proto::client::evidence::Evidence;
use bulkhead_proto::client::outcome::Survivor;
use bulkhead_proto::death::Death;
use bulkhead_proto::ids::{OutputId, Seq, WorkerId};
use bulkhead_proto::worker::boxes::ReportStatus;
use bulkhead_proto::worker::stage::Stage;

use crate::boxes::FakeResult;
use crate::ring::EntryRead;
use crate::sabotage::Sabotage;
use crate::worker::{FakeWorker, Life};
use crate::world::{NewsSource, World};

impl World {
    /// Hears the sources that have news, and leaves some of them for the next turn.
    pub(crate) fn hear(&mut self, batch: &mut Vec<Event>) {
        let mut sources: Vec<NewsSource> = self.news.iter().copied().collect();
        while !sources.is_empty() {
            let place = self.rng.place(sources.len());
            let source = sources.swap_remove(place);
            if !batch.is_empty() && self.rng.chance(self.scenario.faults.overlook) {
                continue;
            }
            self.news.remove(&source);
            match source {
                NewsSource::Worker(worker) => self.hear_worker(worker, batch),
                NewsSource::Client(client) => self.hear_client(client, batch),
            }
        }
    }

    fn hear_worker(&mut self, id: WorkerId, batch: &mut Vec<Event>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        match worker.tells.boot.take() {
            Some(Ok(())) => batch.push(Event::WorkerReady { worker: id, writes_stack: worker.writes_stack }),
            Some(Err(error)) => batch.push(Event::BootstrapFailed { worker: id, error }),
            None => {}
        }
        self.hear_questions(id, batch);
        self.read_box(id, batch);
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if let Some(violation) = worker.tells.lane_violation.take() {
            worker.closed = true;
            batch.push(Event::Violated { worker: id, violation });
        }
        batch.append(&mut worker.tells.stops);
        if std::mem::take(&mut worker.tells.hung_up) {
            worker.closed = true;
            batch.push(Event::HungUp { worker: id });
        }
        let early = self.sabotage == Some(Sabotage::EarlyProof) && worker.lives() && worker.run.is_some();
        if worker.buried {
            return;
        }
        if worker.is_gone() || early {
            worker.buried = early;
            self.bury(id, batch);
        }
    }

    /// Rule 8. The worker leaves the world with this event, and its claims with it.
    fn bury(&mut self, id: WorkerId, batch: &mut Vec<Event>) {
        let spoil = self.sabotage == Some(Sabotage::WrongRemains);
        let Some(worker) = self.workers.get_mut(&id) else { return };
        self.oracles.ledger.proof(id, worker.pages.guilt());
        let mut remains = worker.ring.remains(&mut worker.pages);
        if spoil {
            remains.iter_mut().for_each(|left| left.claimed = !left.claimed);
        }
        let end = process_end(worker);
        let is_gone = worker.is_gone();
        if is_gone {
            self.leave_strays(id, batch);
            self.workers.remove(&id);
        }
        let noticed_after_us = if self.rng.chance(500) { Some(self.rng.span(1_000_000)) } else { None };
        batch.push(Event::Died { worker: id, end, evidence: Evidence::default(), noticed_after_us, remains });
    }

    /// Rules 4 to 6.
    pub(crate) fn read_box(&mut self, id: WorkerId, batch: &mut Vec<Event>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        for found in worker.ring.poll(&worker.pages) {
            match found {
                EntryRead::Done(seq, written) => self.finished(id, seq, &written, batch),
                EntryRead::Violation(violation) => {
                    if let Some(worker) = self.workers.get_mut(&id) {
                        worker.closed = true;
                    }
                    batch.push(Event::Violated { worker: id, violation });
                }
            }
        }
        batch.extend(self.workers.get_mut(&id).and_then(FakeWorker::unclosed_event));
    }

    fn finished(&mut self, worker: WorkerId, seq: Seq, written: &FakeResult, batch: &mut Vec<Event>) {
        if self.sabotage == Some(Sabotage::LoseReports) && self.rng.chance(100) {
            return;
        }
        let what = self.workers.get(&worker).map(|worker| worker.ring.what(seq));
        let (stage, scratch) = what.unwrap_or((Stage::Whole, None));
        let inline = self.scenario.logs
            && seq.0 % 2 == 1
            && self.workers.get(&worker).is_some_and(|worker| worker.ring.leaves_inline(seq));
        let result = match ReportStatus::unpack(written.status) {
            Some(ReportStatus::Descriptor) if stage == Stage::Plan => {
                TaskResult::Planned { output: self.hold(), bytes: written.output_bytes, parts: written.parts }
            }
            Some(ReportStatus::Descriptor) => {
                // The shared output is the result, and no scratch any more.
                if let Some(scratch) = scratch {
                    self.scratches.remove(&scratch);
                }
                TaskResult::Held { output: self.hold(), bytes: written.output_bytes }
            }
            Some(ReportStatus::Block) => {
                self.report.blocks += 1;
                TaskResult::InArena { output: self.hold(), bytes: written.output_bytes }
            }
            Some(ReportStatus::Failed { program }) => TaskResult::Failed {
                message: String::from_utf8_lossy(&written.bytes).into_owned(),
                program,
                output: match written.output_bytes {
                    0 if inline => Leftover::Inline(written.payload()),
                    0 => Leftover::Nothing,
                    bytes => Leftover::Held { output: self.hold(), bytes },
                },
            },
            _ => TaskResult::Inline(written.payload()),
        };
        let survivors = written.has_left.then(|| Survivor {
            pid: self.name_survivor(worker),
            uid: Some(0),
            name: "sudo".to_owned(),
        });
        let output_bytes = written.output_bytes;
        let report = Report {
            result,
            output_bytes,
            elapsed_ns: written.elapsed_ns,
            survivors: survivors.into_iter().collect(),
        };
        batch.push(Event::Finished { worker, seq, report });
    }

    fn hold(&mut self) -> OutputId {
        self.outputs_made += 1;
        let output = OutputId(self.outputs_made);
        self.held.insert(output);
        output
    }
}

/// How the process of a worker ended, as the supervisor tells it: its own death comes before a kill.
fn process_end(worker: &FakeWorker) -> ProcessEnd {
    if worker.kill.is_some() {
        return ProcessEnd::ByUs;
    }
    ProcessEnd::Itself(match &worker.life {
        Life::Gone(death) | Life::Dead(death) => death.clone(),
        Life::Booting | Life::Up => Death::Signalled { signal: 9, core: false },
    })
}

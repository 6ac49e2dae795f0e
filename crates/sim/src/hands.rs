//! The fake shell's hands: performs actions in their order, as `action.rs` promises each, without ever waiting.
//!
//! Offers to one worker that follow each other travel in one message. Between any two actions, and between the
//! halves of one, the world may move.

#![deny(clippy::wildcard_enum_match_arm)] // a new action is to be thought of here

use bulkhead_core::action::{Action, Task, TaskFile};
use bulkhead_core::event::Event;
use bulkhead_proto::death::KillReason;
use bulkhead_proto::ids::{ClientId, OutputId, PoolId, Seq, WorkerId};
use bulkhead_proto::job::OutputMode;
use bulkhead_proto::worker::stage::Stage;

use crate::agenda::Move;
use crate::boxes::FakeResult;
use crate::clock::{MS, S, US};
use crate::report::{Verdict, broken};
use crate::sabotage::Sabotage;
use crate::scenario::GRACE_MS;
use crate::task::TaskId;
use crate::worker::{Ends, FakeWorker, Life};
use crate::world::{NewsSource, World};

/// Tasks on their way to one worker.
type OfferBundle = Vec<(WorkerId, Seq, Task)>;

impl World {
    /// Performs the actions of one turn.
    pub(crate) fn perform(&mut self, actions: &mut Vec<Action>) -> Verdict {
        let mut bundle = OfferBundle::new();
        for action in actions.drain(..) {
            self.interleave()?;
            if let Action::Offer { worker, seq, task } = action {
                if bundle.first().is_some_and(|first| first.0 != worker) {
                    self.send_bundle(&mut bundle);
                }
                self.offer(worker, seq, task, &mut bundle)?;
            } else {
                self.send_bundle(&mut bundle);
                self.perform_other(action)?;
            }
        }
        self.send_bundle(&mut bundle);
        Ok(())
    }

    fn perform_other(&mut self, action: Action) -> Verdict {
        match action {
            Action::Reply { client, tag, reply, output } => {
                if self.sabotage == Some(Sabotage::TwiceTold) {
                    self.deliver(client, tag, reply.clone(), output)?;
                }
                self.deliver(client, tag, reply, output)?;
            }
            Action::Close { client, .. } => self.close(client)?,
            Action::Spawn { worker, pool } => self.spawn(worker, pool),
            Action::GiveOutput { worker, seq, room_bytes } => self.give_output(worker, seq, room_bytes),
            Action::RefuseOutput { worker, seq, why } => self.refuse_output(worker, seq, &why),
            Action::TakeBack { worker, seq } => self.take_back(worker, seq),
            Action::Unwant { worker, seq } => self.unwant(worker, seq),
            Action::AskStack { worker, seq, why } => self.ask_stack(worker, seq, why),
            Action::Look { worker } => self.look(worker),
            Action::Settle { worker, seq } => self.settle(worker, seq)?,
            Action::Kill { worker, why } => self.kill(worker, why),
            Action::Retire { worker } => self.retire(worker),
            Action::DropOutput { output } => self.drop_output(output)?,
            Action::Exit => self.exit()?,
            Action::Examine { worker } => self.examine(worker),
            Action::DropFile { file } => drop(self.files.remove(&file)),
            Action::Forget { worker, registration } => self.forget(worker, registration),
            Action::DropScratch { scratch } => drop(self.scratches.remove(&scratch)),
            Action::ShowLog { client, tag, reply, log } => self.show_log(client, tag, reply, log)?,
            Action::DropLog { log } => self.drop_log(log),
            Action::ReserveJobs { end } => self.told_back.push(Event::JobsReserved { end }),
            Action::Ready { .. } | Action::Offer { .. } => {}
        }
        Ok(())
    }

    fn spawn(&mut self, id: WorkerId, pool: PoolId) {
        let faults = self.scenario.faults;
        let is_down = match self.sabotage {
            Some(Sabotage::OneForAll) => self.down.is_some(),
            _ => self.down == Some(pool),
        };
        if is_down || self.rng.chance(faults.spawn_fails) {
            let error = "no memory for a process".to_owned();
            self.told_back.push(Event::SpawnFailed { worker: id, error });
            return;
        }
        let capacity = if self.rng.chance(faults.narrow) { self.rng.between(1, 3) } else { 300 };
        let hostile = self.rng.chance(faults.hostile);
        self.workers.insert(id, FakeWorker::new(id, capacity as usize, hostile));
        self.told_back.push(Event::WorkerSpawned { worker: id, pid: 10_000 + id.0 as u32 });
        if !self.rng.chance(faults.boot_hangs) {
            let after = 500 * US + self.rng.span(4 * MS);
            self.plan(after, Move::Boot(id));
        }
    }

    /// Rule 1: orders and word, then the descriptor; the message goes with the bundle.
    fn offer(&mut self, id: WorkerId, seq: Seq, task: Task, bundle: &mut OfferBundle) -> Verdict {
        self.report.offers += 1;
        let Some(worker) = self.workers.get_mut(&id) else { return Ok(()) };
        if !worker.ring.offer(seq, &task) {
            return broken("pool", format!("worker {id}: the entry of offer {seq} was not settled"));
        }
        worker.pages.offer(seq, TaskId::of(&task));
        if worker.run.is_none() {
            worker.vitals.offered = worker.vitals.at(self.clock.ns());
        }
        self.interleave()?;
        self.send_registrations(id, &task);
        for file in &task.files {
            if let TaskFile::Shared { scratch } = file {
                self.scratches.insert(*scratch);
            }
        }
        let log = task.files.iter().find_map(|file| match file {
            TaskFile::Log { log } => Some(*log),
            TaskFile::Client { .. }
            | TaskFile::Registered { .. }
            | TaskFile::Shared { .. }
            | TaskFile::Plan { .. }
            | TaskFile::Results { .. } => None,
        });
        let has_output = task.output == OutputMode::Descriptor || task.has_reserve();
        let needs_one = has_output || task.stage != Stage::Whole || log.is_some();
        if needs_one && self.is_short() {
            self.offer_failed(id, seq, Some("no output descriptor".to_owned()));
        } else {
            self.logs.extend(log);
            bundle.push((id, seq, task));
        }
        Ok(())
    }

    fn send_bundle(&mut self, bundle: &mut OfferBundle) {
        let Some(id) = bundle.first().map(|first| first.0) else { return };
        let sent = self.workers.get_mut(&id).is_some_and(|worker| {
            let room = worker.inbox.is_empty() || worker.inbox.len() + bundle.len() <= worker.capacity;
            let open = room && worker.life == Life::Up && !worker.closed;
            if open {
                worker.inbox.extend(bundle.drain(..).map(|(_, seq, task)| (seq, task)));
            }
            open
        });
        if sent {
            let wakes = self.workers.get(&id).is_some_and(|worker| worker.run.is_none());
            let after = self.rng.span(60 * US);
            if wakes {
                self.plan_work(id, after);
            }
        }
        for (_, seq, _) in bundle.drain(..) {
            self.offer_failed(id, seq, None);
        }
    }

    fn offer_failed(&mut self, id: WorkerId, seq: Seq, shortage: Option<String>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        match worker.ring.take_back(&mut worker.pages, seq) {
            Some(Ok(taken)) => self.told_back.push(Event::OfferFailed { worker: id, seq, taken, shortage }),
            Some(Err(violation)) => self.told_back.push(Event::Violated { worker: id, violation }),
            None => {}
        }
    }

    fn take_back(&mut self, id: WorkerId, seq: Seq) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        match worker.ring.take_back(&mut worker.pages, seq) {
            Some(Ok(won)) => {
                let won = won || self.sabotage == Some(Sabotage::FalseTakeBack);
                self.told_back.push(Event::TookBack { worker: id, seq, won });
            }
            Some(Err(violation)) => {
                self.told_back.push(Event::Violated { worker: id, violation });
                self.told_back.push(Event::TookBack { worker: id, seq, won: false });
            }
            None => {}
        }
    }

    /// Most tasks end when they are told to, about in time; some do not.
    fn unwant(&mut self, id: WorkerId, seq: Seq) {
        self.report.asked += 1;
        let (heeds, after) = (self.rng.chance(700), self.rng.span(3 * GRACE_MS * MS / 2));
        let is_current = |worker: &FakeWorker| worker.run.as_ref().is_some_and(|run| run.seq == seq);
        if !heeds || !self.workers.get(&id).is_some_and(is_current) {
            return;
        }
        // CONT comes with TERM.
        self.continue_program(id);
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Some(run) = worker.run.as_mut() else { return };
        if let Ends::Report(written) = &mut run.ends {
            *written = FakeResult::failed("nobody wants it", 0, after);
            self.report.heeded += 1;
            self.plan(after, Move::Work(id));
        }
    }

    /// What a worker writes is nowhere in this world. Some workers die of the signal, which they said they handle.
    fn ask_stack(&mut self, id: WorkerId, seq: Seq, why: KillReason) {
        self.report.stacks += 1;
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.lives()) else { return };
        if worker.hostile && seq.0 % 2 == 1 {
            worker.kill.get_or_insert(why);
            self.plan(0, Move::Die(id));
        }
    }

    fn look(&mut self, id: WorkerId) {
        let mut found = Vec::new();
        self.read_box(id, &mut found);
        if let Some(worker) = self.workers.get(&id) {
            found.push(Event::Looked { worker: id, head: worker.ring.head(&worker.pages) });
        }
        self.told_back.append(&mut found);
    }

    fn settle(&mut self, id: WorkerId, seq: Seq) -> Verdict {
        let Some(worker) = self.workers.get_mut(&id) else { return Ok(()) };
        let blind = self.sabotage == Some(Sabotage::FalseTakeBack);
        if worker.ring.settle(&mut worker.pages, seq) || blind {
            Ok(())
        } else {
            broken("pool", format!("worker {id}: offer {seq} was settled before anything was said of it"))
        }
    }

    fn kill(&mut self, id: WorkerId, why: KillReason) {
        if self.sabotage == Some(Sabotage::NoKill) {
            return;
        }
        let late = self.rng.chance(self.scenario.faults.late_kill);
        let freezes = self.rng.chance(500);
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.closed = true;
        self.news.insert(NewsSource::Worker(id));
        // A worker that is dead already keeps its own death.
        if worker.lives() {
            worker.kill.get_or_insert(why);
            worker.hung |= late && freezes;
            let after = if late { self.rng.span(3 * S) } else { self.rng.span(300 * US) };
            self.plan(after, Move::Die(id));
        }
    }

    fn retire(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.closed = true;
        worker.retired = true;
        if worker.run.is_none() {
            let after = self.rng.span(100 * US);
            self.plan_work(id, after);
        }
    }

    fn drop_output(&mut self, output: OutputId) -> Verdict {
        if self.sabotage == Some(Sabotage::KeepOutputs) || self.held.remove(&output) {
            self.output_dropped(output);
            Ok(())
        } else {
            broken("outputs", format!("output {output} was dropped twice, or never held"))
        }
    }

    fn close(&mut self, client: ClientId) -> Verdict {
        self.oracles.replies.closed(client)?;
        if let Some(person) = self.clients.iter_mut().find(|person| person.id == client) {
            person.hang_up();
        }
        Ok(())
    }

    fn exit(&mut self) -> Verdict {
        self.exited = true;
        // A stuck worker may never die: the daemon leaves it behind, killed.
        match self.workers.keys().find(|worker| !self.oracles.pool.is_stuck(**worker)) {
            Some(left) => broken("ends", format!("the daemon leaves while worker {left} lives")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;

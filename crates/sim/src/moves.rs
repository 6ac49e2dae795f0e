//! The moves of worker processes: come up, claim, run, report, crash, hang, die. `violations.rs` has protocol violations.
//!
//! An honest worker follows the rules of the claim word one step at a time; each step is a move of its own, so
//! that the supervisor can act between any two.

#![deny(clippy::wildcard_enum_match_arm)]

use bulkhead_core::action::Task;
use bulkhead_core::event::Event;
use bulkhead_proto::death::Death;
use bulkhead_proto::worker::boxes::ReportStatus;

use bulkhead_proto::ids::{Seq, WorkerId};
use bulkhead_proto::job::OutputMode;
use bulkhead_proto::worker::message::{LEFT_AFTER_PANIC, LEFT_PROCESSES};
use bulkhead_proto::worker::stage::Stage;

use crate::agenda::Move;
use crate::boxes::FakeResult;
use crate::clock::{MS, S, US};
use crate::on_demand;
use crate::report::Verdict;
use crate::task::TaskId;
use crate::truth::Truth;
use crate::worker::{Ends, FakeRun, Life};
use crate::world::{NewsSource, World};

impl World {
    /// Performs one move of the outside world.
    pub(crate) fn perform_move(&mut self, what: Move) -> Verdict {
        self.trace.note(self.clock.ns(), "move", &what);
        match what {
            Move::Work(worker) => return self.work(worker),
            Move::Boot(worker) => self.boot(worker),
            Move::Die(worker) => self.end(worker, Death::Signalled { signal: 9, core: false }),
            Move::Stop(worker) => self.stop(worker),
            Move::Continue(worker) => self.go_on(worker),
            Move::StopProgram(worker) => self.stop_program(worker),
            Move::ContinueProgram(worker) => self.continue_program(worker),
            Move::HangUp(worker) => self.tell(worker, |tells| tells.hung_up = true),
            Move::Prove(worker) => self.prove(worker),
            Move::LateBoot(worker) => self.late_boot(worker),
            Move::StrayEnds(pid) => self.end_stray(pid),
            Move::Act(client) => self.act(client),
            Move::Flush(client) => self.flush(client),
            Move::FreeOutput(output) => self.told_back.push(Event::OutputFreed { output }),
            Move::FreeLog(log) => self.told_back.push(Event::LogFreed { log }),
            Move::Commit => return self.commit(),
            Move::SetWall => self.set_wall(),
            Move::Shutdown => self.shut_down(),
        }
        Ok(())
    }

    fn tell(&mut self, id: WorkerId, change: impl FnOnce(&mut crate::worker::Tells)) {
        if let Some(worker) = self.workers.get_mut(&id) {
            change(&mut worker.tells);
            self.news.insert(NewsSource::Worker(id));
        }
    }

    fn boot(&mut self, id: WorkerId) {
        let faults = self.scenario.faults;
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.life == Life::Booting) else {
            return;
        };
        if worker.closed {
            return self.die(id, Death::Exited { code: 0 });
        }
        if self.rng.chance(faults.boot_dies) {
            return self.die(id, Death::Exited { code: 1 });
        }
        if self.rng.chance(faults.boot_fails) {
            return self.tell(id, |tells| tells.boot = Some(Err("cannot connect".to_owned())));
        }
        worker.life = Life::Up;
        self.tell(id, |tells| tells.boot = Some(Ok(())));
        self.plan_spare_stop(id);
    }

    /// The bootstrap thread of a worker that died gives up after the death.
    fn late_boot(&mut self, id: WorkerId) {
        self.tell(id, |tells| {
            tells.boot.get_or_insert(Err("connection reset".to_owned()));
        });
    }

    /// One step of a worker's runtime.
    fn work(&mut self, id: WorkerId) -> Verdict {
        let faults = self.scenario.faults;
        let Some(worker) = self.workers.get_mut(&id) else { return Ok(()) };
        worker.planned = false;
        if worker.life != Life::Up || worker.hung || worker.vitals.is_still() {
            return Ok(());
        }
        let hostile = worker.hostile;
        if self.rng.chance(faults.crash) {
            let death = self.own_death();
            self.die(id, death);
            return Ok(());
        }
        if hostile && self.rng.chance(400) {
            self.violate(id)?;
            let after = self.rng.span(MS);
            self.plan_work(id, after);
            return Ok(());
        }
        let Some(worker) = self.workers.get_mut(&id) else { return Ok(()) };
        if let Some(run) = worker.run.take() {
            if let Some(run) = self.asks_first(id, run) {
                self.end_run(id, run);
            }
        } else if let Some((seq, task)) = worker.inbox.pop_front() {
            return self.claim(id, seq, &task);
        } else if worker.closed {
            self.die(id, Death::Exited { code: 0 });
        }
        Ok(())
    }

    /// Puts a worker's next step on the agenda, if it has one and none is there.
    pub(crate) fn plan_work(&mut self, id: WorkerId, after_ns: u64) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if !worker.planned && worker.life == Life::Up {
            worker.planned = true;
            self.plan(after_ns, Move::Work(id));
        }
    }

    /// Rule 2, and then the task begins.
    fn claim(&mut self, id: WorkerId, seq: Seq, task: &Task) -> Verdict {
        let Some(worker) = self.workers.get_mut(&id) else { return Ok(()) };
        if !worker.pages.claim(seq) {
            let after = self.rng.span(US);
            self.plan_work(id, after);
            return Ok(());
        }
        worker.begun += 1;
        let (ends, after_ns) = self.fate(task);
        let loops = Truth::of_task(&task.input, task.stage) == Truth::Loops;
        let Some(worker) = self.workers.get_mut(&id) else { return Ok(()) };
        worker.hung |= matches!(ends, Ends::Never);
        self.begin_run(id, FakeRun { seq, ends, loops, wanted: on_demand::wanted(task) });
        self.oracles.exclusive.claimed(id, TaskId::of(task), &self.workers)?;
        self.plan_work(id, after_ns);
        Ok(())
    }

    /// How a task will end, and after how many nanoseconds.
    fn fate(&mut self, task: &Task) -> (Ends, u64) {
        let mut name = task.input.as_bytes().to_vec();
        name.extend(TaskId::of(task).part.to_le_bytes());
        let executions = self.executions.entry(name).or_default();
        *executions += 1;
        let count = *executions;
        if !self.calm && self.rng.chance(self.scenario.faults.hang) {
            return (Ends::Never, 0);
        }
        let after_ns = match Truth::of_task(&task.input, task.stage) {
            Truth::Slow(ms) => u64::from(ms) * MS,
            Truth::Harmless(us) => u64::from(us) * US,
            Truth::Poison(_) | Truth::Fails(_) | Truth::Loops | Truth::Fan(..) => self.rng.span(3 * MS),
        };
        let ends = match Truth::of_task(&task.input, task.stage) {
            Truth::Loops => return (Ends::Never, 0),
            Truth::Poison(per_mille) if self.rng.chance(u32::from(per_mille)) => {
                Ends::Death(self.own_death())
            }
            Truth::Fails(times) if count <= u32::from(times) => {
                let text = format!("no, for the {count}. time");
                Ends::Report(FakeResult::failed(&text, left_over(task, count), after_ns))
            }
            Truth::Harmless(_) | Truth::Slow(_) | Truth::Poison(_) | Truth::Fails(_) | Truth::Fan(..) => {
                Ends::Report(done(task, count, after_ns))
            }
        };
        (ends, after_ns)
    }

    /// Rule 4: the result, then the word. Death may come between the two.
    fn end_run(&mut self, id: WorkerId, run: FakeRun) {
        let (crash, now_ns) = (self.scenario.faults.crash, self.clock.ns());
        let Some(worker) = self.workers.get_mut(&id) else { return };
        match run.ends {
            Ends::Report(mut written) => {
                let failed =
                    matches!(ReportStatus::unpack(written.status), Some(ReportStatus::Failed { .. }));
                let panicked = failed && self.scenario.logs && self.rng.chance(200);
                written.has_left = panicked && self.rng.chance(400);
                let code = if written.has_left { LEFT_PROCESSES } else { LEFT_AFTER_PANIC };
                worker.pages.write(run.seq, written);
                if self.rng.chance(crash) {
                    return self.die(id, Death::Signalled { signal: 11, core: false });
                }
                worker.pages.done(run.seq);
                worker.vitals.end(now_ns);
                self.news.insert(NewsSource::Worker(id));
                if panicked {
                    return self.die(id, Death::Exited { code: i32::from(code) });
                }
                let after = self.rng.span(2 * US);
                self.plan_work(id, after);
            }
            Ends::Death(death) => {
                worker.run = Some(FakeRun { ends: Ends::Never, loops: false, ..run });
                self.die(id, death);
            }
            Ends::Never => worker.run = Some(run),
        }
    }

    /// A leader dies by itself. Was it about to be killed, either may have come first.
    fn die(&mut self, id: WorkerId, death: Death) {
        let first = self.rng.chance(500);
        if let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.lives() && first) {
            worker.kill = None;
        }
        self.end(id, death);
    }

    /// A leader is dead. Its box stays as it is; the rest of its tree may take longer.
    fn end(&mut self, id: WorkerId, death: Death) {
        let faults = self.scenario.faults;
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.lives()) else { return };
        let booting = worker.life == Life::Booting;
        worker.life = Life::Dead(death);
        worker.inbox.clear();
        let proof = if self.rng.chance(faults.very_late_proof) {
            self.rng.between(9 * S, 90 * S)
        } else if self.rng.chance(faults.late_proof) {
            self.rng.span(5 * S)
        } else {
            self.rng.between(50 * US, 700 * US)
        };
        self.plan(proof, Move::Prove(id));
        if !self.rng.chance(faults.no_hint) {
            let hint = self.rng.span(MS);
            self.plan(hint, Move::HangUp(id));
        }
        if booting && self.rng.chance(300) {
            let late = self.rng.span(2 * MS);
            self.plan(late, Move::LateBoot(id));
        }
    }

    fn prove(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if let Life::Dead(death) = &worker.life {
            worker.life = Life::Gone(death.clone());
            self.news.insert(NewsSource::Worker(id));
        }
    }
}

/// With less room than this for its output, in bytes, a task uses half of it.
const MUCH_ROOM: u64 = 16 << 20;

/// The report of a task that is done; each execution's is different, so that two can be told apart.
fn done(task: &Task, count: u32, elapsed_ns: u64) -> FakeResult {
    match task.output {
        OutputMode::Descriptor if task.stage == Stage::Plan => {
            let parts = Truth::parts(&task.input);
            FakeResult { parts, ..FakeResult::descriptor(16 + 8 * u64::from(parts), elapsed_ns) }
        }
        OutputMode::Descriptor => {
            let room =
                if task.stage == Stage::Whole { task.room().own_bytes } else { task.room().shared_bytes };
            let bytes = if room < MUCH_ROOM { room / 2 } else { 1_000_000 };
            FakeResult::descriptor(bytes + u64::from(count), elapsed_ns)
        }
        OutputMode::Arena if !count.is_multiple_of(4) => {
            FakeResult::block(5000 + u64::from(count), elapsed_ns)
        }
        OutputMode::Auto | OutputMode::Arena if count % 2 == 1 && !elapsed_ns.is_multiple_of(3) => {
            FakeResult::descriptor(1_000_000 + u64::from(count), elapsed_ns)
        }
        OutputMode::Inline | OutputMode::File | OutputMode::Auto | OutputMode::Arena => {
            let mut bytes = task.input.as_bytes().to_vec();
            bytes.extend_from_slice(&TaskId::of(task).part.to_le_bytes());
            bytes.extend_from_slice(&count.to_le_bytes());
            FakeResult::inline(bytes, elapsed_ns)
        }
    }
}

/// Bytes that a task leaves when it fails: some leave none.
fn left_over(task: &Task, count: u32) -> u64 {
    let shares = matches!(task.stage, Stage::Merge { .. });
    let leaves = task.output == OutputMode::Descriptor && !shares && count % 2 == 1;
    if leaves { 500 + u64::from(count) } else { 0 }
}

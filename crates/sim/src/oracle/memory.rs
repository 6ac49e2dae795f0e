//! `memory`: no user has more memory in outputs and logs than a share of the bound, whatever its tasks may still write,
//! and nobody is offered a task without room for what it writes.
//!
//! It follows offers, their ends, and what the shell frees, and never asks the core. An output that was dropped and that an
//! unread reply holds counts on, apart from the rest: it was dropped because there was too much, or its job was forgotten.

use std::collections::BTreeMap;

use bulkhead_core::action::{Action, Task, TaskFile};
use bulkhead_core::config::{Config, Users};
use bulkhead_core::event::{Event, Leftover, TaskResult};
use bulkhead_proto::ids::{LogId, OutputId, ScratchId, Seq, WorkerId};
use bulkhead_proto::log::LOG_BYTES;

use crate::report::{Verdict, broken};

/// What one offer may write, and into which shared output.
#[derive(Clone, Copy, Debug)]
struct OfferRoom {
    uid: u32,
    own_bytes: u64,
    shared: Option<ScratchId>,
}

/// A file that takes memory.
#[derive(Clone, Copy, Debug)]
struct CountedOutput {
    uid: u32,
    bytes: u64,
    is_dropped: bool,
}

/// All memory in outputs and logs.
#[derive(Debug, Default)]
pub struct MemoryOracle {
    most: u64,
    /// Whether one user gets all.
    one: bool,
    offers: BTreeMap<(WorkerId, Seq), OfferRoom>,
    scratches: BTreeMap<ScratchId, (u32, u64)>,
    outputs: BTreeMap<OutputId, CountedOutput>,
    logs: BTreeMap<LogId, CountedOutput>,
}

impl MemoryOracle {
    /// An oracle that holds nothing.
    pub fn new(config: &Config) -> Self {
        Self { most: config.outputs_bytes_max, one: config.users == Users::One, ..Self::default() }
    }

    /// Follows an event.
    pub fn told(&mut self, event: &Event) {
        match event {
            Event::TookBack { worker, seq, won: true }
            | Event::OfferFailed { worker, seq, taken: true, .. } => {
                self.offers.remove(&(*worker, *seq));
            }
            Event::Finished { worker, seq, report } => {
                let Some(room) = self.offers.remove(&(*worker, *seq)) else { return };
                let output = match &report.result {
                    TaskResult::Held { output, .. } => {
                        if let Some(scratch) = room.shared {
                            self.scratches.remove(&scratch);
                        }
                        *output
                    }
                    TaskResult::Planned { output, .. }
                    | TaskResult::Failed { output: Leftover::Held { output, .. }, .. } => *output,
                    // The oracle `arenas` counts these.
                    TaskResult::InArena { .. } => return,
                    TaskResult::Inline(_) | TaskResult::Failed { .. } => return,
                };
                let (uid, bytes) = (room.uid, report.output_bytes);
                self.outputs.insert(output, CountedOutput { uid, bytes, is_dropped: false });
            }
            // It had no other output.
            Event::OutputShort { worker, seq, .. } => {
                self.offers.entry((*worker, *seq)).and_modify(|offer| offer.own_bytes = 0);
            }
            Event::Died { worker, .. } => self.offers.retain(|(of, _), _| of != worker),
            Event::OutputFreed { output } => _ = self.outputs.remove(output),
            Event::LogFreed { log } => _ = self.logs.remove(log),
            _ => {}
        }
    }

    /// Follows an action; `uid` is the user of the job that is offered.
    ///
    /// # Errors
    /// A task is offered without room for what it is to write.
    pub fn decided(&mut self, action: &Action, uid: impl Fn(&Task) -> u32) -> Verdict {
        match action {
            Action::Offer { worker, seq, task } => return self.offered((*worker, *seq), task, uid(task)),
            Action::GiveOutput { worker, seq, room_bytes } => {
                self.offers.entry((*worker, *seq)).and_modify(|offer| offer.own_bytes = *room_bytes);
            }
            Action::RefuseOutput { worker, seq, .. } => {
                self.offers.entry((*worker, *seq)).and_modify(|offer| offer.own_bytes = 0);
            }
            Action::DropOutput { output } => {
                self.outputs.entry(*output).and_modify(|file| file.is_dropped = true);
            }
            Action::DropLog { log } => {
                self.logs.entry(*log).and_modify(|file| file.is_dropped = true);
            }
            Action::DropScratch { scratch } => _ = self.scratches.remove(scratch),
            _ => {}
        }
        Ok(())
    }

    fn offered(&mut self, offer: (WorkerId, Seq), task: &Task, uid: u32) -> Verdict {
        let mut room = OfferRoom { uid, own_bytes: task.room().own_bytes, shared: None };
        for file in &task.files {
            match file {
                TaskFile::Shared { scratch } => {
                    let (_, bytes) =
                        self.scratches.entry(*scratch).or_insert((uid, task.room().shared_bytes));
                    if *bytes != task.room().shared_bytes || *bytes == 0 {
                        let told = task.room().shared_bytes;
                        let what = format!("scratch {scratch} of {bytes} bytes is offered with {told}");
                        return broken("memory", what);
                    }
                    room.shared = Some(*scratch);
                }
                TaskFile::Log { log } => {
                    self.logs.insert(*log, CountedOutput { uid, bytes: LOG_BYTES, is_dropped: false });
                }
                TaskFile::Client { .. }
                | TaskFile::Registered { .. }
                | TaskFile::Plan { .. }
                | TaskFile::Results { .. } => {}
            }
        }
        self.offers.insert(offer, room);
        Ok(())
    }

    /// After each step.
    ///
    /// # Errors
    /// A user has more than a share, or twice that of what was dropped and a client has not read; or all have more than the bound
    /// and an eighth.
    pub fn check(&self) -> Verdict {
        // What is held or may be written, and what was dropped and is not freed, by user.
        let mut of = BTreeMap::<u32, (u64, u64)>::new();
        for room in self.offers.values() {
            of.entry(room.uid).or_default().0 += room.own_bytes;
        }
        for (uid, bytes) in self.scratches.values() {
            of.entry(*uid).or_default().0 += bytes;
        }
        for file in self.outputs.values().chain(self.logs.values()) {
            let sums = of.entry(file.uid).or_default();
            *(if file.is_dropped { &mut sums.1 } else { &mut sums.0 }) += file.bytes;
        }
        let share = |uid: u32| if self.one || uid == 0 { self.most } else { self.most - self.most / 4 };
        let all: u64 = of.values().map(|(held, _)| held).sum();
        let greedy =
            of.iter().find(|(uid, (held, pinned))| *held > share(**uid) || *pinned > 2 * share(**uid));
        if greedy.is_some() || all > self.most + self.most / 8 {
            return broken("memory", format!("{all} bytes are held, {greedy:?}, of {}", self.most));
        }
        Ok(())
    }

    /// All jobs are forgotten: nothing may be held any more.
    ///
    /// # Errors
    /// Something is.
    pub fn finish(&self) -> Verdict {
        // What a reply still holds may be freed later.
        let mut held = self.outputs.values().chain(self.logs.values()).filter(|file| !file.is_dropped);
        if held.next().is_some() || !self.scratches.is_empty() {
            let (outputs, logs) = (&self.outputs, &self.logs);
            return broken("memory", format!("{outputs:?} and {logs:?} are held, and no job is left"));
        }
        Ok(())
    }
}

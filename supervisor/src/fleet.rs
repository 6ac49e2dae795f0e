//! All workers: brings them up, hears them, reads their boxes, proves their deaths.
//!
//! What it sees becomes events, in the order in which the core must hear them: results before the death that
//! ended their worker. It never judges a job, and never waits. Driven by the loop (`turn.rs`) and its hands.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result};
use bulkhead_core::event::{Event, Report, TaskResult};
use bulkhead_link::supervisor::{Found, FoundResult};
use bulkhead_proto::death::Lie;
use bulkhead_proto::ids::WorkerId;
use bulkhead_proto::worker::Tasks;
use bulkhead_sys::{clock, tree};
use mio::unix::SourceFd;
use mio::{Interest, Registry};

use crate::bootstrap::{Bootstrap, Connected};
use crate::held::Held;
use crate::spawn::Template;
use crate::tokens::Source;
use crate::worker::{Heard, Stage, Worker};

/// All workers.
pub(crate) struct Fleet {
    template: Template,
    registry: Registry,
    bootstrap: Bootstrap,
    workers: BTreeMap<WorkerId, Worker>,
    /// Those whose lanes may have frames for us.
    audible: BTreeSet<WorkerId>,
    /// Those whose leaders are dead, or nearly so.
    dying: BTreeSet<WorkerId>,
    /// A child ended since the last look for orphans.
    child_ended: bool,
    found: Vec<Found>,
}

impl Fleet {
    /// No workers yet; they will be watched by the poll of `registry`.
    pub(crate) fn new(template: Template, registry: Registry) -> Result<Self> {
        let bootstrap = Bootstrap::new(&registry)?;
        Ok(Self {
            template,
            registry,
            bootstrap,
            workers: BTreeMap::new(),
            audible: BTreeSet::new(),
            dying: BTreeSet::new(),
            child_ended: false,
            found: Vec::new(),
        })
    }

    /// One worker, if it is still here.
    pub(crate) fn get(&mut self, worker: WorkerId) -> Option<&mut Worker> {
        self.workers.get_mut(&worker)
    }

    /// A lane became readable or hung up.
    pub(crate) fn mark_audible(&mut self, worker: WorkerId) {
        self.audible.insert(worker);
    }

    /// A leader died.
    pub(crate) fn mark_dying(&mut self, worker: WorkerId) {
        if self.workers.contains_key(&worker) {
            self.dying.insert(worker);
        }
    }

    /// Some child ended: a leader, or what a worker left behind.
    pub(crate) fn mark_child_ended(&mut self) {
        self.child_ended = true;
    }

    /// Whether there is something to do before the next sleep.
    pub(crate) fn is_busy(&self) -> bool {
        !self.audible.is_empty()
    }

    /// Spawns a worker and says what came of it.
    pub(crate) fn spawn(&mut self, worker: WorkerId) -> Event {
        match self.template.spawn(worker).and_then(|made| self.watch(made)) {
            Ok(pid) => Event::WorkerSpawned { worker, pid },
            Err(error) => Event::SpawnFailed { worker, error: format!("{error:#}") },
        }
    }

    fn watch(&mut self, made: Worker) -> Result<u32> {
        let sources = [Source::Lane(made.id), Source::Death(made.id)];
        for (descriptor, source) in made.descriptors().into_iter().zip(sources) {
            let registered = self.registry.register(
                &mut SourceFd(&descriptor.as_raw_fd()),
                source.token(),
                Interest::READABLE,
            );
            if let Err(error) = registered {
                // Nobody would hear of its death: end it here, and do not count it as spawned. As a child that
                // nobody knows it is reaped with the orphans.
                drop(made.tree.kill());
                return Err(error).context("cannot watch the new worker");
            }
        }
        let pid = made.tree.process().pid();
        self.workers.insert(made.id, made);
        Ok(pid)
    }

    /// Reads the lanes that may have something.
    pub(crate) fn listen(&mut self, events: &mut Vec<Event>) {
        for id in std::mem::take(&mut self.audible) {
            let Some(worker) = self.workers.get_mut(&id) else { continue };
            match worker.listen() {
                Heard::Nothing => {}
                Heard::More => drop(self.audible.insert(id)),
                Heard::Over(event) => events.push(event),
                Heard::Hello(path) => {
                    let pid = worker.tree.process().pid();
                    if let Err(error) = self.bootstrap.start(id, pid, path, worker.folder.0.clone()) {
                        let error = format!("no thread to connect to it: {error}");
                        events.push(Event::BootstrapFailed { worker: id, error });
                    }
                    self.audible.insert(id);
                }
            }
        }
    }

    /// Takes what the bootstrap threads have brought.
    pub(crate) fn connect(&mut self, events: &mut Vec<Event>) {
        for Connected { worker: id, sender } in self.bootstrap.results() {
            let Some(worker) = self.workers.get_mut(&id) else { continue };
            if !matches!(worker.stage, Stage::Connecting) {
                continue;
            }
            match sender {
                Ok(sender) => {
                    worker.stage = Stage::Ready(sender);
                    events.push(Event::WorkerReady { worker: id });
                }
                Err(error) => {
                    worker.stage = Stage::Closed;
                    events.push(if error.is_lie() {
                        log::warn!("a worker's hello is a lie worker={id} error=\"{error}\"");
                        Event::Lied { worker: id, lie: Lie::Hello }
                    } else {
                        Event::BootstrapFailed { worker: id, error: error.to_string() }
                    });
                }
            }
        }
    }

    /// Reads the boxes of all workers that hold offers.
    pub(crate) fn read_boxes(&mut self, held: &mut Held, events: &mut Vec<Event>) {
        for worker in self.workers.values_mut().filter(|worker| worker.ring.has_outstanding()) {
            read_box(worker, &mut self.found, held, events);
        }
    }

    /// Reads the box of one.
    pub(crate) fn read_box(&mut self, id: WorkerId, held: &mut Held, events: &mut Vec<Event>) {
        if let Some(worker) = self.workers.get_mut(&id) {
            read_box(worker, &mut self.found, held, events);
        }
    }

    /// Tells all workers that hold offers whether the loop sleeps.
    pub(crate) fn nap(&mut self, asleep: bool) {
        for worker in self.workers.values_mut() {
            worker.nap(asleep);
        }
    }

    /// Moves the ends of the dying on; each whose death is proven leaves with its last results and its obituary.
    ///
    /// Proof is: leader reaped, process group empty, and no stray child of anybody left at this subreaper. A
    /// stray cannot be told to whom it belonged, so while one lives no death is proven.
    pub(crate) fn bury(&mut self, held: &mut Held, events: &mut Vec<Event>) {
        let mut ended = Vec::new();
        for id in &self.dying {
            if let Some(status) = self.workers.get_mut(id).and_then(Worker::advance) {
                ended.push((*id, status));
            }
        }
        if ended.is_empty() {
            return self.reap_orphans();
        }
        if !self.strays_are_gone() {
            return;
        }
        let now_ns = clock::monotonic_ns();
        for (id, status) in ended {
            self.dying.remove(&id);
            if let Some(mut worker) = self.workers.remove(&id) {
                read_box(&mut worker, &mut self.found, held, events);
                events.push(worker.obituary(status, now_ns));
                for descriptor in worker.descriptors() {
                    // The descriptors are about to be closed, which does the same.
                    drop(self.registry.deregister(&mut SourceFd(&descriptor.as_fd().as_raw_fd())));
                }
            }
        }
    }

    fn is_leader(&self, pid: u32) -> bool {
        self.workers.values().any(|worker| worker.tree.process().pid() == pid)
    }

    /// What living workers have left behind, and has ended, becomes ours to reap.
    fn reap_orphans(&mut self) {
        if std::mem::take(&mut self.child_ended)
            && let Err(error) = tree::reap_orphans(&|pid| self.is_leader(pid))
        {
            log::error!("cannot look for orphaned processes error={error}");
        }
    }

    fn strays_are_gone(&mut self) -> bool {
        self.child_ended = false;
        match tree::sweep_strays(&|pid| self.is_leader(pid)) {
            Ok(left) => left == 0,
            Err(error) => {
                log::error!("cannot look for stray processes error={error}");
                false
            }
        }
    }

    /// Sends tasks to a worker. `false`: they did not go, the channel is full or closed.
    pub(crate) fn send(&self, worker: WorkerId, tasks: &Tasks) -> bool {
        match self.workers.get(&worker).map(|worker| &worker.stage) {
            Some(Stage::Ready(sender)) => sender.send(tasks).is_ok(),
            _ => false,
        }
    }

    /// Ends every worker that is left, without waiting: the daemon leaves.
    pub(crate) fn abandon(&mut self) {
        for worker in self.workers.values_mut() {
            drop(worker.tree.kill());
        }
    }
}

fn read_box(worker: &mut Worker, found: &mut Vec<Found>, held: &mut Held, events: &mut Vec<Event>) {
    let lie = worker.read_box(found);
    for Found { seq, elapsed_ns, result } in found.drain(..) {
        let descriptor = worker.outputs.remove(&seq);
        let result = match (result, descriptor) {
            (FoundResult::Inline(payload), _) => TaskResult::Inline(payload),
            (FoundResult::Failed(message), _) => TaskResult::Failed(message),
            (FoundResult::Descriptor { bytes }, Some(descriptor)) => match held.take(descriptor, bytes) {
                Ok(Some(output)) => TaskResult::Held { output, bytes },
                Ok(None) => {
                    worker.disputed.push(seq);
                    events.push(Event::Lied { worker: worker.id, lie: Lie::Output });
                    continue;
                }
                Err(error) => TaskResult::Failed(format!("its output could not be kept: {error}")),
            },
            (FoundResult::Descriptor { .. }, None) => {
                worker.disputed.push(seq);
                events.push(Event::Lied { worker: worker.id, lie: Lie::Result });
                continue;
            }
        };
        events.push(Event::Finished { worker: worker.id, seq, report: Report { result, elapsed_ns } });
    }
    events.extend(lie);
}

//! One worker process as the supervisor sees it: process tree, lane, ring, channel and boot folder.
//!
//! It examines, asks, kills and reaps the process, reads its box, and makes the event of its death; it decides nothing about jobs. How far the
//! worker has come is in `worker_stage.rs`, what goes over its lane in `worker_process/lane.rs`. Driven by `worker_table.rs` and `perform.rs`.

mod lane;

pub(crate) use lane::LaneRead;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::AsFd;
use std::rc::Rc;

use bulkhead_core::event::{Event, Head, ProcessEnd, Remains};
use bulkhead_link::supervisor::{FinishedTask, ProgramChange, Ring, StackPageReader};
use bulkhead_proto::client::evidence::{Evidence, ProgramFile};
use bulkhead_proto::client::outcome::Survivor;
use bulkhead_proto::death::{Death, KillReason};
use bulkhead_proto::ids::{RegistrationId, Seq, WorkerId};
use bulkhead_proto::worker::boxes::{ProgramStop, STACK_SIGNAL};
use bulkhead_sys::bell::Bell;
use bulkhead_sys::clock;
use bulkhead_sys::exit::ExitStatus;
use bulkhead_sys::lane::Lane;
use bulkhead_sys::mark::Marks;
use bulkhead_sys::pidfd::Process;
use bulkhead_sys::process_identity::ProcessIdentity;
use bulkhead_sys::signals;
use bulkhead_sys::tree::{Tree, TreeEnd};

use crate::boot_folder::BootFolder;
use crate::deferred_close::DeferredClose;
use crate::offer_files::OfferFiles;
use crate::rate_limit::{self, LineAbout};
use crate::result_arena::WorkerArena;
use crate::sampling::WorkerSampler;
use crate::worker_stage::ReachedStage;
use crate::worker_table::OutputAnswer;
use crate::worker_table::registrations::ToldUnclosed;

/// The signal that [`WorkerProcess::kill`] sends. Death by another one means that the worker died before it arrived.
const SIGKILL: i32 = 9;

/// One worker.
pub(crate) struct WorkerProcess {
    pub(crate) id: WorkerId,
    pub(crate) tree: Tree,
    pub(crate) lane: DeferredClose<Lane>,
    pub(crate) ring: Ring,
    /// The page in which its own runtime writes its stack, if it asked for one.
    pub(crate) stack_page: Option<StackPageReader>,
    /// Whether its hello said that it writes its stack when it is asked, and whether it was.
    pub(crate) writes_stack: bool,
    pub(crate) is_asked: bool,
    pub(crate) sampler: WorkerSampler,
    pub(crate) reached: ReachedStage,
    pub(crate) folder: BootFolder,
    /// The files of its open offers.
    pub(crate) offer_files: BTreeMap<Seq, OfferFiles>,
    /// Its arena, once it was offered a task that may use it, and the open offers of such tasks.
    pub(crate) arena: Option<Rc<WorkerArena>>,
    pub(crate) arena_offers: Vec<Seq>,
    /// The answer that a task waits for and that its full lane did not take.
    pub(crate) unsent_answer: Option<OutputAnswer>,
    /// What it was sent that clients registered, and has not been told to forget.
    pub(crate) registered: BTreeSet<RegistrationId>,
    /// What it is to forget, and its full lane did not take.
    pub(crate) unsent_forgets: VecDeque<RegistrationId>,
    /// The poll reports when its lane has room.
    pub(crate) waits_for_lane: bool,
    pub(crate) spawned_ns: u64,
    /// The program file that it was started from.
    pub(crate) program: Option<ProgramFile>,
    /// When we killed it, if its lane had not hung up before; CLOCK_MONOTONIC nanoseconds.
    pub(crate) killed_ns: Option<u64>,
    /// The worker bears its mark, and all its descendants inherit it.
    pub(crate) is_marked: bool,
    /// The marks of this daemon.
    pub(crate) marks: Marks,
    /// Its lane hung up before we killed it: the worker was dying by itself.
    pub(crate) is_hung_up: bool,
    /// Offers whose DONE entries broke a rule; they count as claimed when the worker is dead.
    pub(crate) disputed: Vec<Seq>,
    /// Whether it was ever told to forget something, so that it may have files of clients to close.
    pub(crate) has_forgotten: bool,
    /// What the core was told of these files.
    pub(crate) told_unclosed: ToldUnclosed,
    /// What the worker rings when the loop sleeps.
    pub(crate) doorbell: Bell,
    /// Naps announced to the worker, and its rings. More rings than naps break the protocol.
    pub(crate) naps: u64,
    pub(crate) rings: u64,
    /// The duration of its last task, as the worker reports it.
    pub(crate) last_elapsed_ns: Option<u64>,
}

impl WorkerProcess {
    /// Whether this offer may have a result in the arena, which is told once.
    pub(crate) fn take_arena_offer(&mut self, seq: Seq) -> bool {
        let place = self.arena_offers.iter().position(|one| *one == seq);
        place.map(|place| self.arena_offers.swap_remove(place)).is_some()
    }

    /// Reads newly DONE entries from its box. Returns the event if the worker broke a rule.
    pub(crate) fn read_box(&mut self, found: &mut Vec<FinishedTask>) -> Option<Event> {
        match self.ring.poll(found) {
            Ok(()) => None,
            Err(violation) => self.violated(violation).event(),
        }
    }

    /// The event if a signal has stopped or continued the program of its claimed task since the last call.
    pub(crate) fn program_event(&mut self) -> Option<Event> {
        let worker = self.id;
        Some(match self.ring.program_change()? {
            ProgramChange::Stopped { seq, stop: ProgramStop { pid, signal } } => {
                Event::ProgramStopped { worker, seq, pid, signal }
            }
            ProgramChange::Continued { seq } => Event::ProgramContinued { worker, seq },
        })
    }

    /// Announces in its orders whether the loop sleeps, if it holds offers.
    pub(crate) fn nap(&mut self, asleep: bool) {
        if self.ring.has_outstanding() {
            self.ring.nap(asleep);
            self.naps += u64::from(asleep);
        }
    }

    /// The first unfinished entry of its ring.
    pub(crate) fn head(&self) -> Option<Head> {
        self.ring.head().map(|(seq, claimed)| Head { seq, claimed })
    }

    /// Whether this pid is its leader. After the leader is reaped its number may belong to another process.
    pub(crate) fn leads(&self, pid: u32) -> bool {
        self.leader() == Some(pid)
    }

    /// The pid of its leader, until the leader is reaped.
    pub(crate) fn leader(&self) -> Option<u32> {
        (!self.tree.is_reaped()).then(|| self.tree.process().pid())
    }

    /// Samples the worker (state, processor time, memory) and reads the progress in its box. If its leader is reaped,
    /// the process `left`, which delays the proof of death, is sampled instead.
    pub(crate) fn examine(&self, left: Option<u32>) -> Event {
        let progress_ns = self.ring.progress_ns(clock::monotonic_ns());
        let progress = self.ring.progress();
        let seen = match left.filter(|_| self.tree.is_reaped()) {
            Some(pid) => Process::open(pid).ok().and_then(|process| WorkerSampler::of(&process).sample()),
            None => self.sampler.sample(),
        };
        Event::Examined { worker: self.id, seen, progress_ns, progress }
    }

    /// Reaps what has died. Returns the exit status once the leader is reaped and its process group is empty.
    pub(crate) fn advance(&mut self) -> Option<ExitStatus> {
        match self.tree.advance() {
            Ok(TreeEnd::Ended(status)) => Some(status),
            Ok(TreeEnd::Alive | TreeEnd::Dying) => None,
            Err(error) => {
                if rate_limit::may_log(LineAbout::Worker(self.id.0), clock::monotonic_ns()) {
                    log::error!("cannot get the state of a worker process worker={} error={error}", self.id);
                }
                None
            }
        }
    }

    /// Sends SIGURG, so that a task that waits reads its orders. Not sent to a reaped process. No handler is
    /// installed for it but while `exec` runs a program; elsewhere its default action is to be ignored.
    pub(crate) fn nudge(&self) {
        if !self.tree.is_reaped() {
            drop(self.tree.process().kill(signals::URG));
        }
    }

    /// Asks the worker for the stack of this offer before it is killed, and keeps a sample as evidence if the reason asks for
    /// one: what is seen later is the writing.
    pub(crate) fn ask_stack(&mut self, seq: Seq, why: KillReason) {
        if needs_evidence(&why) {
            self.sampler.keep_as_evidence();
        }
        self.is_asked = true;
        self.ring.request_stack(seq);
        if !self.tree.is_reaped() {
            // It may be dead, or another user: then it is killed without a stack.
            drop(self.tree.process().kill(STACK_SIGNAL));
        }
    }

    /// Kills the worker and its process tree, and keeps a sample as evidence if the reason asks for one.
    pub(crate) fn kill(&mut self, why: KillReason) {
        self.reached.close();
        if needs_evidence(&why) && !self.is_asked {
            self.sampler.keep_as_evidence();
        }
        if !self.is_hung_up {
            self.killed_ns.get_or_insert_with(clock::monotonic_ns);
        }
        if let Err(error) = self.tree.kill()
            && rate_limit::may_log(LineAbout::Worker(self.id.0), clock::monotonic_ns())
        {
            log::error!(
                "cannot kill a worker worker={} pid={} error={error}",
                self.id,
                self.tree.process().pid()
            );
        }
    }

    /// The processes of its last task that the worker says it could not end. Its word is believed only about its own
    /// descendants, which bear its mark, or whose parent it is.
    pub(crate) fn survivors(&self) -> Vec<Survivor> {
        let leader = self.leader();
        let own = |pid: u32| {
            let identity = ProcessIdentity::of(pid);
            // A process that is gone has no parent, and a worker that is reaped no leader.
            let is_child = leader.is_some() && identity.parent == leader;
            let is_own = is_child || self.marks.of(pid) == Some(self.id.0);
            is_own.then(|| survivor(pid, identity))
        };
        self.ring.survivors().into_iter().filter_map(own).collect()
    }

    /// Whether a task of this dead worker may be offered again once its death is proven.
    pub(crate) fn may_be_repeated(&self) -> bool {
        self.ring.has_claimed()
    }

    /// The event of its proven death, with what its box says about open offers.
    pub(crate) fn death_event(&mut self, status: ExitStatus, now_ns: u64) -> Event {
        let disputed = self.disputed.drain(..).map(|seq| (seq, true));
        let mut remains: Vec<Remains> = self
            .ring
            .remains()
            .into_iter()
            .chain(disputed)
            .map(|(seq, claimed)| Remains { seq, claimed })
            .collect();
        remains.sort_by_key(|left| left.seq);
        let since =
            |moment: u64| (self.spawned_ns..=now_ns).contains(&moment).then(|| (now_ns - moment) / 1000);
        let last_breath = self.ring.last_breath_ns().and_then(since);
        let pid = self.tree.process().pid();
        let itself = |death| (ProcessEnd::Itself(death), last_breath);
        let (end, noticed_after_us) = match (status, self.killed_ns.take()) {
            (ExitStatus::Signal { signal: SIGKILL, .. }, Some(killed_ns)) => {
                (ProcessEnd::ByUs, since(killed_ns))
            }
            // It said that it handles this signal, and does not.
            (ExitStatus::Signal { signal: STACK_SIGNAL, .. }, killed_ns) if self.is_asked => {
                (ProcessEnd::ByUs, killed_ns.and_then(since))
            }
            (ExitStatus::Code(code), _) => itself(Death::Exited { code }),
            (ExitStatus::Signal { signal, core }, _) => itself(self.ring.death_by(signal, core, pid)),
        };
        let signal = match status {
            ExitStatus::Signal { signal, .. } => Some(signal),
            ExitStatus::Code(_) => None,
        };
        let mut evidence =
            Evidence { seen: self.sampler.last.take().map(Box::new), ..self.ring.evidence(signal) };
        let first_claimed = remains.iter().find(|left| left.claimed).map(|left| left.seq);
        if let (Some(page), Some(seq)) = (&self.stack_page, first_claimed) {
            evidence.stack_text = page.text(seq);
        }
        let has_addresses = !evidence.frames.is_empty() || !evidence.stack_text.is_empty();
        evidence.program = self.program.take().filter(|_| has_addresses).map(Box::new);
        Event::Died { worker: self.id, end, evidence, noticed_after_us, remains }
    }

    /// Its lane, its pidfd and its doorbell, to be registered with the poll.
    pub(crate) fn descriptors(&self) -> [std::os::fd::BorrowedFd<'_>; 3] {
        [self.lane.as_fd(), self.tree.process().as_fd(), self.doorbell.as_fd()]
    }
}

/// A process as clients are told of it.
pub(crate) fn survivor(pid: u32, identity: ProcessIdentity) -> Survivor {
    Survivor { pid, uid: identity.uid, name: identity.name }
}

/// Whether a sample of the worker explains the kill. A stop of the service kills many workers at once, and a user who
/// cancels needs no evidence.
fn needs_evidence(why: &KillReason) -> bool {
    match why {
        KillReason::Timeout
        | KillReason::NoProgress
        | KillReason::CpuTime
        | KillReason::Memory { .. }
        | KillReason::Stopped
        | KillReason::ProgramStopped
        | KillReason::Unresponsive => true,
        KillReason::Cancel | KillReason::Stop | KillReason::Violation { .. } => false,
    }
}

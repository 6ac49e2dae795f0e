//! A supervisor played by a test: spawns the real worker program, brings it up, offers tasks, reads its box.
//!
//! It decides nothing and never sleeps: it waits for the lane or the process, with a limit that only a hang
//! meets. Whatever a test leaves running is killed, tree and all, when it is dropped.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use bulkhead_link::supervisor::{FinishedResult, FinishedTask, Ring, Sender, connect};
use bulkhead_proto::codec;
use bulkhead_proto::ids::{Fence, JobId, KindId, Seq, WorkerId};
use bulkhead_proto::job::{OutputMode, Payload};
use bulkhead_proto::limits::LANE_FRAME_MAX_BYTES;
use bulkhead_proto::worker::message::{
    BOOT_FOLDER_VARIABLE, FileRole, LaneDown, LaneUp, OutputRoom, Setup, TaskMessage, Tasks,
};
use bulkhead_proto::worker::stage::Stage;
use bulkhead_sys::bell::Bell;
use bulkhead_sys::exit::ExitStatus;
use bulkhead_sys::lane::{Lane, LaneFrame};
use bulkhead_sys::memfd::output_file;
use bulkhead_sys::poll::wait_readable;
use bulkhead_sys::spawn::{Spawn, spawn};
use bulkhead_sys::tree::{Tree, TreeEnd};
use tempfile::TempDir;

/// Longest wait of a test: only a hang meets it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The table of kinds; their numbers are their places.
pub(crate) const KINDS: [&str; 6] = ["noop", "factorial", "sleep", "chaos", "no-such-kind", "transform"];
pub(crate) const NOOP: KindId = KindId(0);
pub(crate) const FACTORIAL: KindId = KindId(1);
pub(crate) const SLEEP: KindId = KindId(2);
pub(crate) const CHAOS: KindId = KindId(3);
pub(crate) const UNKNOWN: KindId = KindId(4);
pub(crate) const TRANSFORM: KindId = KindId(5);

/// A worker process that may not be connected yet.
pub(crate) struct Born {
    pub(crate) tree: Tree,
    pub(crate) lane: Lane,
    pub(crate) folder: TempDir,
}

impl Born {
    /// Spawns the worker program; nothing is on its lane yet.
    pub(crate) fn new() -> Self {
        let (lane, theirs) = Lane::pair().unwrap();
        Self::with_stdin(lane, theirs)
    }

    /// Spawns it with this standard input.
    pub(crate) fn with_stdin(lane: Lane, stdin: OwnedFd) -> Self {
        let Some(program) = option_env!("CARGO_BIN_EXE_bulkhead-worker") else {
            panic!("built without the feature builtin");
        };
        Self::spawned((Path::new(program), &[]), (lane, stdin))
    }

    /// Spawns another worker program with these arguments; nothing is on its lane yet.
    pub(crate) fn of(program: &Path, args: &[OsString]) -> Self {
        Self::spawned((program, args), Lane::pair().unwrap())
    }

    fn spawned((program, args): (&Path, &[OsString]), (lane, stdin): (Lane, OwnedFd)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let env =
            [(BOOT_FOLDER_VARIABLE.into(), folder.path().into()), ("BULKHEAD_LOG".into(), "off".into())];
        let process = spawn(Spawn { program, args, env: &env, stdin }).unwrap();
        Self { tree: Tree::new(process), lane, folder }
    }

    /// Waits for the end of the process.
    pub(crate) fn end(&mut self) -> ExitStatus {
        assert!(wait_readable(self.tree.process().as_fd(), PATIENCE).unwrap(), "the worker does not end");
        match self.tree.advance().unwrap() {
            TreeEnd::Ended(status) => status,
            other => panic!("the worker left somebody behind: {other:?}"),
        }
    }

    /// The next frame that it sends up the lane; `None` when it has hung up.
    pub(crate) fn hear(&self) -> Option<LaneUp> {
        let mut bytes = [0; LANE_FRAME_MAX_BYTES];
        loop {
            assert!(wait_readable(self.lane.as_fd(), PATIENCE).unwrap(), "the lane is silent");
            match self.lane.recv(&mut bytes) {
                Ok(LaneFrame::Frame { length, .. }) => return Some(codec::decode(&bytes[..length]).unwrap()),
                Ok(LaneFrame::HungUp) => return None,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

impl Drop for Born {
    fn drop(&mut self) {
        drop(self.tree.kill());
        drop(wait_readable(self.tree.process().as_fd(), PATIENCE));
        drop(self.tree.advance());
    }
}

/// A worker that is up, and the supervisor's hold on it.
pub(crate) struct Played {
    pub(crate) born: Born,
    pub(crate) ring: Ring,
    pub(crate) doorbell: Bell,
    /// `None` once retired.
    pub(crate) sender: Option<Sender>,
    /// The kinds that it said it cannot run.
    pub(crate) missing: Vec<KindId>,
    pub(crate) found: Vec<FinishedTask>,
    next: u64,
}

impl Played {
    /// The whole bootstrap.
    pub(crate) fn up(enable_chaos: bool) -> Self {
        Self::on(Born::new(), enable_chaos)
    }

    /// The whole bootstrap of this worker.
    pub(crate) fn on(born: Born, enable_chaos: bool) -> Self {
        let (ring, descriptors) = Ring::create().unwrap();
        let kinds = KINDS.map(str::to_owned).to_vec();
        let setup = Setup { worker: WorkerId(1), kinds, enable_chaos, may_be_traced: true };
        let setup = codec::encode(&LaneDown::Setup(setup));
        let doorbell = Bell::new().unwrap();
        let passed = [descriptors.box_page.as_fd(), descriptors.orders_page.as_fd(), doorbell.as_fd()];
        born.lane.send(&setup, &passed).unwrap();
        let Some(LaneUp::Hello { path, missing, .. }) = born.hear() else { panic!("no hello") };
        let sender = connect(&path, born.folder.path(), born.tree.process().pid()).unwrap();
        Self { born, ring, doorbell, sender: Some(sender), missing, found: Vec::new(), next: 1 }
    }

    /// Offers a task, and gives the message that still has to be sent.
    pub(crate) fn offer(&mut self, kind: KindId, input: &str) -> TaskMessage {
        let seq = Seq(self.next);
        self.next += 1;
        self.ring.offer(seq, JobId(seq.0), Fence(1));
        TaskMessage {
            seq,
            job: JobId(seq.0),
            fence: Fence(1),
            kind,
            stage: Stage::Whole,
            has_files: false,
            memory_bytes: None,
            grace_ms: 2000,
            output: OutputMode::Inline,
            room: OutputRoom::LARGEST,
            uses: None,
            input: Payload::from(input.as_bytes().to_vec()),
        }
    }

    /// As [`Self::offer`], with an output descriptor that is sent at once.
    pub(crate) fn offer_with_output(&mut self, kind: KindId, input: &str) -> (TaskMessage, OwnedFd) {
        let mut task = self.offer(kind, input);
        task.output = OutputMode::Descriptor;
        task.has_files = true;
        let output = output_file("output").unwrap();
        self.send_output(task.seq, &output);
        (task, output)
    }

    /// As [`Self::offer`], of this stage and with these files, which are sent at once.
    pub(crate) fn offer_stage(
        &mut self,
        (kind, input): (KindId, &str),
        stage: Stage,
        output: OutputMode,
        files: &[(FileRole, BorrowedFd<'_>)],
    ) -> TaskMessage {
        let task = self.offer(kind, input);
        self.send_files(task.seq, files);
        TaskMessage { stage, output, has_files: !files.is_empty(), ..task }
    }

    /// Sends an output descriptor, as often as it takes for the lane to have room.
    pub(crate) fn send_output(&self, seq: Seq, output: &OwnedFd) {
        self.send_files(seq, &[(FileRole::Output, output.as_fd())]);
    }

    fn send_files(&self, seq: Seq, files: &[(FileRole, BorrowedFd<'_>)]) {
        let roles = files.iter().map(|(role, _)| role.clone()).collect();
        let descriptors: Vec<_> = files.iter().map(|(_, descriptor)| *descriptor).collect();
        let frame = codec::encode(&LaneDown::Files { seq, roles });
        let deadline = std::time::Instant::now() + PATIENCE;
        while let Err(error) = self.born.lane.send(&frame, &descriptors) {
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            assert!(std::time::Instant::now() < deadline, "nobody reads the lane");
            std::thread::yield_now();
        }
    }

    /// Sends tasks in one message.
    pub(crate) fn send(&self, tasks: &[TaskMessage]) {
        self.sender.as_ref().unwrap().send(&Tasks { tasks: tasks.to_vec() }).unwrap();
    }

    /// Offers and sends one task, and waits for its result.
    pub(crate) fn run(&mut self, kind: KindId, input: &str) -> FinishedResult {
        let task = self.offer(kind, input);
        self.send(&[task]);
        self.wait_for(1).remove(0).result
    }

    /// Waits for so many results as a supervisor does: nap, look, sleep until it rings. Settles them.
    pub(crate) fn wait_for(&mut self, count: usize) -> Vec<FinishedTask> {
        while self.found.len() < count {
            let before = self.found.len();
            self.ring.nap(true);
            self.ring.poll(&mut self.found).unwrap();
            if self.found.len() == before {
                assert!(wait_readable(self.doorbell.as_fd(), PATIENCE).unwrap(), "the doorbell is silent");
                self.doorbell.hear();
            }
            self.ring.nap(false);
        }
        let found: Vec<FinishedTask> = self.found.drain(..).collect();
        found.iter().for_each(|found| self.ring.settle(found.seq));
        found
    }

    /// Waits until the worker has claimed the first unfinished offer. No doorbell tells that.
    pub(crate) fn wait_for_claim(&self) -> Seq {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            if let Some((seq, true)) = self.ring.head() {
                return seq;
            }
            assert!(std::time::Instant::now() < deadline, "nothing is claimed");
            std::thread::yield_now();
        }
    }

    /// Retires the worker, and waits for its end. Returns the number of its rings, too.
    pub(crate) fn retire(&mut self) -> (ExitStatus, u64) {
        self.sender = None;
        let status = self.born.end();
        assert_eq!(self.born.hear(), None);
        (status, self.doorbell.hear())
    }
}

/// The bytes of an inline result.
pub(crate) fn inline(result: &FinishedResult) -> &[u8] {
    match result {
        FinishedResult::Inline(payload) => payload.as_bytes(),
        other => panic!("{other:?}"),
    }
}

/// The text of a failure.
pub(crate) fn failed(result: &FinishedResult) -> &str {
    match result {
        FinishedResult::Failed { message, .. } => message,
        other => panic!("{other:?}"),
    }
}

//! A worker runtime by hand: each step of the bootstrap and each step of a task can be done wrongly.
//!
//! All other steps are done like in the real runtime, so that the daemon has no other reason to complain. Driven by the
//! attacks.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bulkhead_link::worker::{Channel, Finish, PartialOutput, Server, WorkerRing};
use bulkhead_proto::codec;
use bulkhead_proto::ids::Seq;
use bulkhead_proto::job::OutputMode;
use bulkhead_proto::limits::{LANE_FRAME_MAX_BYTES, RING};
use bulkhead_proto::worker::boxes::{self, BOX_BYTES, ClaimState, ClaimWord, NAP_AT, ORDERS_BYTES};
use bulkhead_proto::worker::message::{
    BOOT_FOLDER_VARIABLE, LaneDown, LaneUp, Setup, StackText, TaskMessage,
};
use bulkhead_sys::bell::Bell;
use bulkhead_sys::lane::{Lane, LaneFrame};
use bulkhead_sys::process;
use bulkhead_sys::shared_page::SharedPage;
use bulkhead_worker::TaskContext;

use super::{BAIT, Deed, Orders, sit};

/// What a worker does after its attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Nothing, for ever: only a kill ends it.
    Sit,
    /// Goes on as if nothing had happened; the attack has ended its task.
    Serve,
}

/// A worker that has its setup and has not said hello.
#[derive(Debug)]
pub(crate) struct Newborn {
    pub(crate) lane: Lane,
    pub(crate) pages: Vec<OwnedFd>,
    pub(crate) doorbell: Bell,
    pub(crate) setup: Setup,
}

impl Newborn {
    /// Takes the lane and the setup.
    pub(crate) fn take() -> Self {
        process::die_with_parent().expect("it may be asked for");
        let lane = Lane::from_stdin().expect("a daemon started this process");
        let (frame, mut pages) = receive(&lane);
        let LaneDown::Setup(setup) = frame else { panic!("the first frame is no setup") };
        let doorbell = Bell::adopt(pages.pop().expect("three descriptors")).expect("a free number");
        Self { lane, pages, doorbell, setup }
    }

    /// Says hello with this path and nothing missing.
    pub(crate) fn hello(&self, path: &str) {
        self.say(&LaneUp::Hello { path: path.to_owned(), missing: Vec::new(), stack_text: StackText::Never });
    }

    /// Sends any frame.
    pub(crate) fn say(&self, frame: &LaneUp) {
        self.lane.send(&codec::encode(frame), &[]).expect("the daemon holds its end");
    }

    /// Opens the channel's server and names it.
    pub(crate) fn listen(&self) -> Server {
        let (server, path) = Channel::listen().expect("a server");
        self.hello(&path);
        server
    }

    /// Says hello and is connected.
    pub(crate) fn come_up(self) -> Puppet {
        let channel = self.listen().accept().expect("the daemon connects");
        let ring = WorkerRing::map(&self.pages).expect("box and orders");
        let box_page = SharedPage::map_shared(self.pages[0].as_fd(), BOX_BYTES).expect("the box");
        let orders_page = SharedPage::map_read_only(self.pages[1].as_fd(), ORDERS_BYTES).expect("the orders");
        Puppet {
            lane: self.lane,
            pages: self.pages,
            doorbell: self.doorbell,
            kinds: self.setup.kinds,
            channel,
            ring,
            box_page,
            orders_page,
        }
    }
}

fn receive(lane: &Lane) -> (LaneDown, Vec<OwnedFd>) {
    let mut bytes = [0; LANE_FRAME_MAX_BYTES];
    match lane.recv(&mut bytes) {
        Ok(LaneFrame::Frame { length, descriptors }) => {
            (codec::decode(&bytes[..length]).expect("a frame of the daemon"), descriptors)
        }
        other => panic!("no frame of the daemon: {other:?}"),
    }
}

/// The folder that was made for this worker.
pub(crate) fn boot_folder() -> PathBuf {
    PathBuf::from(std::env::var_os(BOOT_FOLDER_VARIABLE).expect("the daemon names it"))
}

/// A worker that is up.
#[derive(Debug)]
pub struct Puppet {
    pub(crate) lane: Lane,
    pub(crate) pages: Vec<OwnedFd>,
    pub(crate) doorbell: Bell,
    pub(crate) kinds: Vec<String>,
    pub(crate) channel: Channel,
    pub(crate) ring: WorkerRing,
    pub(crate) box_page: SharedPage,
    pub(crate) orders_page: SharedPage,
}

/// The output of an honest task.
struct Text(Vec<u8>);

impl std::io::Write for Text {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl TaskContext for Text {
    fn progress(&mut self, _done: u64, _total: u64) {}

    fn say(&mut self, _words: &str) {}

    fn last_breath(&mut self) {}
}

impl Puppet {
    /// Does the whole bootstrap correctly.
    pub(crate) fn come_up() -> Self {
        Newborn::take().come_up()
    }

    /// Serves honestly until the attack is due.
    pub(crate) fn serve(mut self, orders: &Orders, deed: Deed) -> ExitCode {
        while let Ok(Some(message)) = self.channel.recv() {
            let mut tasks = &message.tasks[..];
            while let [first, rest @ ..] = tasks {
                tasks = match self.attack(orders, deed, tasks) {
                    None => {
                        self.run(first);
                        rest
                    }
                    Some((After::Sit, _)) => sit(),
                    Some((After::Serve, ended)) => &tasks[ended..],
                };
            }
        }
        if let Deed::Retired(deed) = deed
            && orders.enlist()
        {
            deed(&mut self);
            sit();
        }
        ExitCode::SUCCESS
    }

    /// Attacks if it is time: what to do then, and how many tasks are done with. A bait that was taken back is none.
    fn attack(&mut self, orders: &Orders, deed: Deed, tasks: &[TaskMessage]) -> Option<(After, usize)> {
        let [first, rest @ ..] = tasks else { return None };
        if first.input.as_bytes() != BAIT.as_bytes() || !orders.wants_more() {
            return None;
        }
        match deed {
            Deed::Offered(deed) if self.is_offered(first) && orders.enlist() => Some((deed(self, first), 1)),
            Deed::Claimed(deed) => {
                let file = self.output_of(first);
                if !self.ring.claim(first.seq) {
                    return Some((After::Serve, 1));
                }
                if orders.enlist() {
                    return Some((deed(self, first, file), 1));
                }
                self.finish(first);
                Some((After::Serve, 1))
            }
            Deed::Ring(deed) if !rest.is_empty() => {
                deed(self, tasks, orders).map(|after| (after, tasks.len()))
            }
            _ => None,
        }
    }

    fn is_offered(&self, task: &TaskMessage) -> bool {
        let at = boxes::entry_at(boxes::index_of(task.seq)) + boxes::WORD_AT;
        self.box_page.load(at, Ordering::SeqCst) == ClaimWord::pack(task.seq, ClaimState::Offered)
    }

    /// Runs a task as it should be, if it can be claimed.
    pub(crate) fn run(&mut self, task: &TaskMessage) {
        drop(self.output_of(task));
        if self.ring.claim(task.seq) {
            self.finish(task);
        }
    }

    /// The output descriptor that came for a task.
    pub(crate) fn output_of(&self, task: &TaskMessage) -> Option<File> {
        if task.output != OutputMode::Descriptor {
            return None;
        }
        loop {
            let (frame, descriptors) = receive(&self.lane);
            if matches!(frame, LaneDown::Files { seq, .. } if seq == task.seq) {
                return descriptors.into_iter().next().map(File::from);
            }
        }
    }

    /// Asks for an output for any offer.
    pub(crate) fn ask(&self, seq: Seq) {
        self.lane.send(&codec::encode(&LaneUp::NeedOutput { seq }), &[]).expect("the daemon holds its end");
    }

    /// Waits for the output that it asked for, and how long that may become.
    pub(crate) fn take_given(&self, wanted: Seq) -> (File, u64) {
        loop {
            if let (LaneDown::Output { seq, room_bytes }, mut descriptors) = receive(&self.lane)
                && seq == wanted
            {
                return (File::from(descriptors.remove(0)), room_bytes);
            }
        }
    }

    /// Reports a task as done, with the output of its kind, and rings if the daemon sleeps.
    pub(crate) fn finish(&mut self, task: &TaskMessage) {
        let kind = self.kinds.get(usize::from(task.kind.0)).map_or("", String::as_str);
        let Some(bulkhead_jobs::BuiltinKind::Whole(handler)) = bulkhead_jobs::find(kind) else {
            panic!("no built-in kind of one task: {kind:?}")
        };
        let mut output = Text(Vec::new());
        match handler(task.input.as_bytes(), &mut output) {
            Ok(()) => self.ring.finish(task.seq, &Finish::Inline(&output.0)),
            Err(failure) => self.ring.finish(
                task.seq,
                &Finish::Failed { text: &failure.to_string(), output: PartialOutput::Nothing, program: None },
            ),
        }
        self.ring_if_asleep();
    }

    /// Rings if the daemon asked for it.
    pub(crate) fn ring_if_asleep(&mut self) {
        if self.ring.should_ring() {
            self.ring_now();
        }
    }

    /// Rings.
    pub(crate) fn ring_now(&self) {
        self.doorbell.ring();
    }

    /// Puts a word of this state into the entry of `seq`.
    pub(crate) fn put(&self, seq: Seq, state: ClaimState) {
        self.put_word(seq, ClaimWord::pack(seq, state));
    }

    /// Puts any word into the entry of `seq`.
    pub(crate) fn put_word(&self, seq: Seq, word: u64) {
        self.put_field(seq, boxes::WORD_AT, word);
    }

    /// Puts any number into a field of the entry of `seq`.
    pub(crate) fn put_field(&self, seq: Seq, field: usize, value: u64) {
        self.box_page.store(boxes::entry_at(boxes::index_of(seq)) + field, value, Ordering::SeqCst);
    }

    /// Waits until the daemon has taken every result that this worker has given. A worker that ran a job may say of it
    /// what it likes, also while the daemon copies it: an attack on the whole box would change results of the neighbour.
    pub(crate) fn await_taken(&mut self) {
        self.ring_if_asleep();
        let is_done = |index| {
            let word = self.box_page.load(boxes::entry_at(index) + boxes::WORD_AT, Ordering::SeqCst);
            ClaimWord::unpack(word).is_some_and(|word| word.state == ClaimState::Done)
        };
        while (0..RING).any(is_done) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until the daemon has read the box after this call: it has slept and woken a few times. Other jobs must
    /// keep it busy.
    pub(crate) fn await_looks(&self) {
        let nap = || self.orders_page.load(NAP_AT, Ordering::SeqCst);
        let until = nap() + 6;
        while nap() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

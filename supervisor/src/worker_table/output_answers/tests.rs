//! Answers on a lane that the test holds: full, closed, and without what a file takes.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bulkhead_proto::ids::PoolId;
use bulkhead_proto::limits::LANE_FRAME_MAX_BYTES;
use bulkhead_sys::descriptors::set_nonblocking;
use bulkhead_sys::lane::Lane;
use bulkhead_sys::socket::recv_with_fds;
use bulkhead_sys::spawner::{ChildStreams, Spawner};
use bulkhead_sys::tree::TreeEnd;
use mio::{Events, Poll, Waker};

use super::*;
use crate::args::DaemonArgs;
use crate::background_closer::BackgroundCloser;
use crate::boot_folder::BootRoot;
use crate::deferred_close::DeferredClose;
use crate::settings::{PassedStreams, Settings};
use crate::spawn::WorkerTemplate;

const WORKER: WorkerId = WorkerId(1);
const SEQ: Seq = Seq(7);
const PATIENCE: Duration = Duration::from_secs(60);

/// A table with one worker, which only sleeps, and the other end of its lane.
struct Bench {
    table: WorkerTable,
    poll: Poll,
    theirs: OwnedFd,
    outputs: OutputStore,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new(open_max: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("bulkhead.toml");
        std::fs::write(&config, "worker_program = \"/bin/sleep\"\nworker_args = [\"600\"]\n").unwrap();
        let args = DaemonArgs {
            config: Some(config),
            socket: Some(folder.path().join("s")),
            state: Some(folder.path().join("state")),
            ..DaemonArgs::default()
        };
        let settings = Settings::gather(args, PassedStreams::default()).unwrap();
        let root = BootRoot::claim(folder.path().join("boot"), 1).unwrap();
        let spawner = Spawner::start(ChildStreams::default()).unwrap();
        let template = WorkerTemplate::new(&settings, root, BackgroundCloser::default(), spawner);
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), PollSource::Threads.token()).unwrap());
        let mut table = WorkerTable::new(template, poll.registry().try_clone().unwrap(), waker);
        let spawned = table.spawn(WORKER, PoolId(0));
        assert!(matches!(spawned, Event::WorkerSpawned { .. }), "{spawned:?}");
        let (ours, theirs) = Lane::pair().unwrap();
        set_nonblocking(theirs.as_fd()).unwrap();
        let token = PollSource::Lane(WORKER).token();
        poll.registry()
            .register(&mut SourceFd(&ours.as_fd().as_raw_fd()), token, Interest::READABLE)
            .unwrap();
        table.workers.get_mut(&WORKER).unwrap().lane = DeferredClose::new(ours, BackgroundCloser::default());
        let outputs = OutputStore::new(open_max, BackgroundCloser::default());
        Self { table, poll, theirs, outputs, _folder: folder }
    }

    fn worker(&mut self) -> &mut WorkerProcess {
        self.table.workers.get_mut(&WORKER).unwrap()
    }

    fn give(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        self.table.give_output((WORKER, SEQ), 5000, &self.outputs, &mut events);
        events
    }

    fn refuse(&mut self, why: String) -> Vec<Event> {
        let mut events = Vec::new();
        self.table.refuse_output(WORKER, SEQ, why, &mut events);
        events
    }

    fn fill_lane(&mut self) {
        while self.worker().lane.send(b"not an answer", &[]).is_ok() {}
    }

    /// The worker reads its lane; then the poll reports that there is room, and the loop goes on.
    fn drain_lane(&mut self) -> Vec<Event> {
        while received(self.theirs.as_fd()).is_some() {}
        let mut ready = Events::with_capacity(8);
        while !ready.iter().any(|event| event.token() == PollSource::Lane(WORKER).token()) {
            self.poll.poll(&mut ready, Some(PATIENCE)).unwrap();
            assert!(!ready.is_empty(), "the poll does not report room in the lane");
        }
        let mut events = Vec::new();
        self.table.mark_lane_readable(WORKER);
        self.table.read_lanes(&mut events);
        events
    }

    /// The answer that has arrived, and how many descriptors came with it.
    fn answer(&self) -> Option<(LaneDown, usize)> {
        received(self.theirs.as_fd())
            .map(|(bytes, descriptors)| (codec::decode(&bytes).unwrap(), descriptors.len()))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let tree = &mut self.worker().tree;
        drop(tree.kill());
        while !matches!(tree.advance(), Ok(TreeEnd::Ended(_)) | Err(_)) {
            drop(bulkhead_sys::poll::wait_readable(tree.process().as_fd(), PATIENCE));
        }
    }
}

fn received(lane: BorrowedFd<'_>) -> Option<(Vec<u8>, Vec<OwnedFd>)> {
    let (mut bytes, mut descriptors) = (vec![0; LANE_FRAME_MAX_BYTES], Vec::new());
    let length = recv_with_fds(lane, &mut bytes, &mut descriptors).ok()?;
    bytes.truncate(length);
    Some((bytes, descriptors))
}

fn given() -> LaneDown {
    LaneDown::Output { seq: SEQ, room_bytes: 5000 }
}

#[test]
fn an_answer_brings_the_file_that_is_kept_until_the_offer_is_settled() {
    let mut bench = Bench::new(4);
    assert!(bench.give().is_empty());
    assert_eq!(bench.answer(), Some((given(), 1)));
    assert_eq!((bench.answer(), bench.outputs.open()), (None, 1));
    bench.worker().offer_files.remove(&SEQ);
    assert_eq!(bench.outputs.open(), 0);
}

#[test]
fn an_answer_waits_for_a_full_lane() {
    let mut bench = Bench::new(4);
    bench.fill_lane();
    assert!(bench.give().is_empty());
    assert!(bench.worker().unsent_answer.is_some());
    assert!(bench.drain_lane().is_empty());
    assert_eq!((bench.answer(), bench.answer()), (Some((given(), 1)), None));
    assert!(bench.worker().unsent_answer.is_none() && !bench.worker().waits_for_lane);
    bench.fill_lane();
    assert!(bench.refuse("no room".to_owned()).is_empty());
    assert!(bench.drain_lane().is_empty());
    assert_eq!(bench.answer(), Some((LaneDown::NoOutput { seq: SEQ, why: "no room".to_owned() }, 0)));
}

#[test]
fn an_answer_whose_offer_has_ended_meanwhile_is_not_sent() {
    let mut bench = Bench::new(4);
    bench.fill_lane();
    assert!(bench.give().is_empty());
    bench.worker().offer_files.remove(&SEQ);
    assert!(bench.drain_lane().is_empty());
    assert_eq!((bench.answer(), bench.outputs.open()), (None, 0));
    assert!(bench.worker().unsent_answer.is_none() && !bench.worker().waits_for_lane);
}

#[test]
fn without_a_file_the_core_is_told() {
    let mut bench = Bench::new(0);
    let events = bench.give();
    let [Event::OutputShort { worker: WORKER, seq: SEQ, shortage }] = &events[..] else {
        panic!("{events:?}")
    };
    assert!(shortage.contains("as many output files are open as allowed (0)"), "{shortage}");
    assert_eq!(bench.answer(), None);
}

#[test]
fn a_worker_that_is_gone_or_cannot_be_answered_gets_nothing() {
    let mut bench = Bench::new(4);
    let events = bench.refuse("x".repeat(4 << 20));
    assert!(matches!(events[..], [Event::HungUp { worker: WORKER }]), "{events:?}");
    assert!(bench.give().is_empty() && bench.refuse(String::new()).is_empty(), "its death is awaited");
    assert_eq!((bench.answer(), bench.outputs.open()), (None, 0));
    let mut bench = Bench::new(4);
    bench.theirs = Lane::pair().unwrap().1;
    assert!(bench.give().is_empty(), "its lane is closed: its death follows");
    assert!(bench.worker().unsent_answer.is_none());
}

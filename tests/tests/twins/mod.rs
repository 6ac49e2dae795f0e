//! The two rings behind one trait, so that a case can be played with either.
//!
//! Each twin is both halves of a channel: the supervisor's notes, the worker's steps, and a page for a hostile worker.

use bulkhead_core::action::Task;
use bulkhead_link::supervisor::{FinishedResult, Ring};
use bulkhead_link::worker::{Finish, PartialOutput, WorkerRing};
use bulkhead_proto::ids::{Fence, JobId, KindId, Seq};
use bulkhead_proto::job::{OutputMode, Payload};
use bulkhead_proto::worker::boxes::{self, BOX_BYTES, ReportStatus, STATUS_AT, WORD_AT};
use bulkhead_proto::worker::message::OutputRoom;
use bulkhead_proto::worker::stage::Stage;
use bulkhead_sim::boxes::{FakeResult, Pages};
use bulkhead_sim::ring::{EntryRead, RingNotes as Notes};
use bulkhead_sim::task::TaskId;
use bulkhead_sys::shared_page::SharedPage;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

pub(crate) mod cases;

/// The text of a task that says no.
const NO: &str = "no";
/// A status that no report has.
const NONSENSE: u64 = 99;

/// A worker broke a rule.
pub(crate) type Violation = ();

/// A ring and who acts on it.
pub(crate) trait Twin {
    /// What it is called when it is wrong.
    const NAME: &'static str;
    /// One without offers.
    fn new() -> Self;
    /// The supervisor offers; false, or a panic: the entry is in use.
    fn offer(&mut self, seq: u64) -> bool;
    /// The supervisor takes back.
    fn take_back(&mut self, seq: u64) -> Result<bool, Violation>;
    /// The supervisor looks for results, up to the first violation; whether there was one.
    fn poll(&mut self) -> (Vec<u64>, bool);
    /// The first that is not done, and whether it is claimed.
    fn head(&self) -> Option<(u64, bool)>;
    /// The supervisor settles; false, or a panic: it has not ended.
    fn settle(&mut self, seq: u64) -> bool;
    /// What a dead worker left.
    fn remains(&mut self) -> Vec<(u64, bool)>;
    /// The worker claims.
    fn claim(&mut self, seq: u64) -> bool;
    /// The worker ends a task well; its seq is its result.
    fn end(&mut self, seq: u64);
    /// The worker's task says no.
    fn fail(&mut self, seq: u64);
    /// The worker reports what is no report.
    fn end_badly(&mut self, seq: u64);
    /// A hostile worker writes the word of an entry.
    fn scribble(&mut self, entry: u64, word: u64);
}

/// The one of the worker channel.
pub(crate) struct Real {
    ring: Ring,
    worker: WorkerRing,
    hostile: SharedPage,
}

fn entry_of(seq: u64) -> usize {
    boxes::entry_at(boxes::index_of(Seq(seq)))
}

/// The seq that a task's result is.
fn seq_of(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().unwrap())
}

impl Twin for Real {
    const NAME: &'static str = "the ring";

    fn new() -> Self {
        let (ring, descriptors) = Ring::create().unwrap();
        let hostile = SharedPage::map_shared(descriptors.box_page.as_fd(), BOX_BYTES).unwrap();
        let worker = WorkerRing::map(&[descriptors.box_page, descriptors.orders_page]).unwrap();
        Self { ring, worker, hostile }
    }

    fn offer(&mut self, seq: u64) -> bool {
        self.ring.offer(Seq(seq), JobId(seq), Fence(1));
        true
    }

    fn take_back(&mut self, seq: u64) -> Result<bool, Violation> {
        self.ring.take_back(Seq(seq)).map_err(|_| ())
    }

    fn poll(&mut self) -> (Vec<u64>, bool) {
        let mut found = Vec::new();
        let violated = self.ring.poll(&mut found).is_err();
        let seqs = found.iter().map(|found| match &found.result {
            FinishedResult::Inline(payload) => {
                assert_eq!(seq_of(payload.as_bytes()), found.seq.0, "it is another's result");
                found.seq.0
            }
            FinishedResult::Failed { message, .. } if message == NO => found.seq.0,
            other => panic!("nobody reported this: {other:?}"),
        });
        (seqs.collect(), violated)
    }

    fn head(&self) -> Option<(u64, bool)> {
        self.ring.head().map(|(seq, claimed)| (seq.0, claimed))
    }

    fn settle(&mut self, seq: u64) -> bool {
        self.ring.settle(Seq(seq));
        true
    }

    fn remains(&mut self) -> Vec<(u64, bool)> {
        self.ring.remains().into_iter().map(|(seq, claimed)| (seq.0, claimed)).collect()
    }

    fn claim(&mut self, seq: u64) -> bool {
        self.worker.claim(Seq(seq))
    }

    fn end(&mut self, seq: u64) {
        self.worker.finish(Seq(seq), &Finish::Inline(&seq.to_le_bytes()));
    }

    fn fail(&mut self, seq: u64) {
        self.worker
            .finish(Seq(seq), &Finish::Failed { text: NO, output: PartialOutput::Nothing, program: None });
    }

    fn end_badly(&mut self, seq: u64) {
        self.end(seq);
        self.hostile.store(entry_of(seq) + STATUS_AT, NONSENSE, Ordering::Release);
    }

    fn scribble(&mut self, entry: u64, word: u64) {
        self.hostile.store(entry_of(entry) + WORD_AT, word, Ordering::Release);
    }
}

/// The one of the simulation.
pub(crate) struct Simulated {
    notes: Notes,
    pages: Pages,
}

/// The task of an offer: its job has the number of its seq.
fn task(seq: u64) -> Task {
    Task {
        job: JobId(seq),
        fence: Fence(1),
        kind: KindId(0),
        memory_bytes: None,
        grace_ms: 0,
        output: OutputMode::Inline,
        room: Some(Box::new(OutputRoom::LARGEST)),
        stage: Stage::Whole,
        files: Vec::new().into(),
        input: Payload::from(Vec::new()),
    }
}

impl Twin for Simulated {
    const NAME: &'static str = "its twin in the simulation";

    fn new() -> Self {
        Self { notes: Notes::default(), pages: Pages::new() }
    }

    fn offer(&mut self, seq: u64) -> bool {
        let task = task(seq);
        let free = self.notes.offer(Seq(seq), &task);
        self.pages.offer(Seq(seq), TaskId::of(&task));
        free
    }

    fn take_back(&mut self, seq: u64) -> Result<bool, Violation> {
        // Of an offer that it does not know the simulation says nothing: it is not won.
        self.notes.take_back(&mut self.pages, Seq(seq)).unwrap_or(Ok(false)).map_err(|_| ())
    }

    fn poll(&mut self) -> (Vec<u64>, bool) {
        let mut seqs = Vec::new();
        for found in self.notes.poll(&self.pages) {
            let EntryRead::Done(seq, written) = found else { return (seqs, true) };
            match ReportStatus::unpack(written.status) {
                Some(ReportStatus::Inline) => {
                    assert_eq!(seq_of(&written.bytes), seq.0, "it is another's result")
                }
                Some(ReportStatus::Failed { .. }) => assert_eq!(written.bytes, NO.as_bytes()),
                other => panic!("nobody reported this: {other:?}"),
            }
            seqs.push(seq.0);
        }
        (seqs, false)
    }

    fn head(&self) -> Option<(u64, bool)> {
        self.notes.head(&self.pages).map(|head| (head.seq.0, head.claimed))
    }

    fn settle(&mut self, seq: u64) -> bool {
        self.notes.settle(&mut self.pages, Seq(seq))
    }

    fn remains(&mut self) -> Vec<(u64, bool)> {
        let remains = self.notes.remains(&mut self.pages);
        remains.into_iter().map(|left| (left.seq.0, left.claimed)).collect()
    }

    fn claim(&mut self, seq: u64) -> bool {
        self.pages.claim(Seq(seq))
    }

    fn end(&mut self, seq: u64) {
        self.pages.write(Seq(seq), FakeResult::inline(seq.to_le_bytes().to_vec(), 1));
        self.pages.done(Seq(seq));
    }

    fn fail(&mut self, seq: u64) {
        self.pages.write(Seq(seq), FakeResult::failed(NO, 0, 1));
        self.pages.done(Seq(seq));
    }

    fn end_badly(&mut self, seq: u64) {
        self.pages.write(Seq(seq), FakeResult { status: NONSENSE, ..FakeResult::inline(Vec::new(), 1) });
        self.pages.done(Seq(seq));
    }

    fn scribble(&mut self, entry: u64, word: u64) {
        self.pages.scribble(Seq(entry), word);
    }
}

//! Workers whose drops of what clients registered hang: each is offered nothing beyond a bound, is replaced, and is offered tasks again
//! once the drops go on.
//!
//! The drops are a loader's (`contexts.rs`); `silent_disk.rs` has a close(2) that hangs.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use std::fs::File;
use std::io::pipe;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bulkhead_client::{
    JobFile, JobInput, NewContext, ReceivedOutput, Session, SessionEnd, SessionEvent, SessionOptions, Spec,
    connect,
};
use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::view::WorkerState;
use bulkhead_proto::client::why::{WhyNow, WhyPool};
use bulkhead_proto::ids::JobId;
use bulkhead_proto::limits::UNCLOSED_MAX;
use bulkhead_tests::contexts::{LINGER, SHOW, STICK};
use bulkhead_tests::daemon::{DEADLINE, Daemon, Setup, binary, eventually, new_folder};
use bulkhead_tests::program_file::copy_program;
use bulkhead_tests::wire::Wire;

/// The files of each context.
const FILES: u64 = 7;
/// The most such contexts that may wait to be dropped.
const CONTEXTS_MAX: u64 = UNCLOSED_MAX / FILES;

fn setup(program: &Path) -> Setup {
    let config = format!("worker_program = {:?}\n", program.display().to_string());
    Setup { workers: 1, config, ..Setup::default() }
}

fn null() -> File {
    File::open("/dev/null").unwrap()
}

/// A client that registers contexts, each for one job.
struct Forgetful(Session);

impl Forgetful {
    fn new(daemon: &Daemon) -> Self {
        let connection = connect::connect(&daemon.socket()).unwrap();
        Self(Session::over(connection, SessionOptions::default()).unwrap())
    }

    /// Has a worker load a context with this text and file, and then forget it. The process id of the worker.
    fn show(&self, text: &str, first: File) -> u32 {
        let mut files = vec![JobFile::read("a", first)];
        files.extend((1..FILES).map(|at| JobFile::read(format!("f{at}"), null())));
        let context = self.0.register_context(NewContext::loaded(text, files)).unwrap();
        let spec = Arc::new(Spec { contexts: vec![context], ..Spec::new("noop") });
        self.0.submit(1, &spec, JobInput::from(SHOW.as_bytes().to_vec())).unwrap();
        let shown = self.next_output();
        self.0.drop_context(context);
        assert!(shown.starts_with(text), "{shown}");
        shown.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Contexts until another worker runs their jobs than this one: how many.
    fn drop_until_replaced(&self, worker: u32) -> u64 {
        let until = Instant::now() + DEADLINE;
        let mut shown = 0;
        while self.show("one", null()) == worker {
            shown += 1;
            assert!(Instant::now() < until, "{shown} contexts, and it is still there");
        }
        shown
    }

    fn next_output(&self) -> String {
        let (mut events, until) = (Vec::new(), Instant::now() + DEADLINE);
        loop {
            self.0.lead().turn(Some(until), None, &mut events).unwrap();
            assert!(Instant::now() < until, "no end is told");
            for event in events.drain(..) {
                match event {
                    SessionEvent::Job { end: SessionEnd::Ended(end), .. } => {
                        match (end.outcome, end.output) {
                            (Outcome::Done, ReceivedOutput::Inline(bytes)) => {
                                return String::from_utf8_lossy(&bytes).into_owned();
                            }
                            other => panic!("{other:?}"),
                        }
                    }
                    SessionEvent::Job { end, .. } => panic!("{end:?}"),
                    _ => {}
                }
            }
        }
    }
}

/// What a job waits for, while it is queued.
fn queued_in(wire: &mut Wire, job: JobId) -> Option<WhyPool> {
    match wire.call(Request::Why { job }) {
        Reply::Why(why) => match why.now {
            WhyNow::Queued { pool, .. } => Some(pool),
            _ => None,
        },
        other => panic!("{other:?}"),
    }
}

fn assert_nobody_blamed(daemon: &Daemon) {
    let events = daemon.ok(&["events"]);
    assert!(events.contains("unclosed_files="), "{events}");
    assert!(!events.contains("blamed"), "{events}");
}

/// What waits behind a drop that hangs keeps its descriptors, so it has a bound: another worker takes its place.
#[test]
fn a_worker_with_too_many_files_behind_a_drop_that_hangs_is_replaced() {
    let daemon = Daemon::start_with(&setup(&binary("context-worker")));
    let client = Forgetful::new(&daemon);
    let first = client.show(STICK, null());
    // The drop that hangs has files too.
    let shown = 1 + client.drop_until_replaced(first);
    assert!(shown > CONTEXTS_MAX, "{shown} contexts of {FILES} files each");
    assert_nobody_blamed(&daemon);
}

/// Its program is gone, so no worker can take its place.
#[test]
fn a_worker_that_cannot_be_replaced_is_offered_tasks_again_once_its_drops_go_on() {
    let folder = new_folder();
    let program = folder.path().join("worker");
    copy_program(&binary("context-worker"), &program);
    let daemon = Daemon::start_in(folder, &setup(&program));
    daemon.await_worker(WorkerState::Spare);
    std::fs::remove_file(&program).unwrap();
    let client = Forgetful::new(&daemon);
    let first = client.show(STICK, null());
    client.drop_until_replaced(first);
    let (lingers, held) = pipe().unwrap();
    let second = client.show(LINGER, File::from(OwnedFd::from(lingers)));
    assert_ne!(second, first);
    for _ in 0..CONTEXTS_MAX {
        assert_eq!(client.show("two", null()), second);
    }
    let mut wire = Wire::connect(&daemon.socket());
    let job = eventually("it is offered nothing", || {
        let job = wire.submit("noop", &["x"]);
        queued_in(&mut wire, job).filter(|pool| pool.unclosed == 1).map(|_| job)
    });
    for _ in 0..20 {
        let pool = queued_in(&mut wire, job).expect("the job waits");
        assert_eq!((pool.unclosed, pool.idle, pool.busy, pool.spares), (1, 0, 0, 0));
    }
    drop(held);
    let reply = wire.call(Request::Wait { jobs: vec![job] });
    assert!(matches!(&reply, Reply::Ended(ended) if ended[0].outcome == Outcome::Done), "{reply:?}");
    let pids: Vec<_> =
        wire.workers().iter().filter(|row| row.state == WorkerState::Idle).map(|row| row.pid).collect();
    assert_eq!(pids, [Some(second)]);
    assert_nobody_blamed(&daemon);
}

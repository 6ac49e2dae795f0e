//! The real loop around no core: with real workers it keeps what action.rs promises, which is the script of the
//! simulation's, and it does not sleep on a result.

use std::process::{Command, Stdio};

use bulkhead_core::action::Action;
use bulkhead_link::supervisor::Ring;
use bulkhead_link::worker::{Finish, WorkerRing};
use bulkhead_proto::death::KillReason;
use bulkhead_proto::ids::{Fence, JobId, KindId, PoolId, Seq, WorkerId};
use bulkhead_proto::job::Payload;
use bulkhead_proto::limits::CANCEL_GRACE_MAX_MS;

use super::*;
use crate::args::DaemonArgs;
use crate::daemon;
use crate::settings::{PassedStreams, Settings};
use crate::setup;
use crate::shells::{Shell, keep_every_promise};

/// Set in the process that is the supervisor.
const MARK: &str = "BULKHEAD_TEST_SHELL";
/// How long one look at the world waits for something to happen.
const LOOK: Duration = Duration::from_millis(5);

/// A loop that never asks its core.
struct RealShell {
    event_loop: EventLoop,
    ready: Events,
    kinds: Vec<String>,
}

impl RealShell {
    fn kind(&self, name: &str) -> KindId {
        let place = self.kinds.iter().position(|kind| kind == name).unwrap();
        KindId(place.try_into().unwrap())
    }
}

impl Shell for RealShell {
    fn perform(&mut self, action: Action) -> (Vec<Event>, bool) {
        let mut events = Vec::new();
        let leaves = self.event_loop.performer.perform(&mut vec![action], clock::monotonic_ns(), &mut events);
        (events, leaves)
    }

    fn hear(&mut self) -> Vec<Event> {
        let mut batch = Vec::new();
        let polled = self.event_loop.poll.poll(&mut self.ready, Some(LOOK));
        assert!(polled.is_ok() || polled.is_err_and(|error| error.kind() == io::ErrorKind::Interrupted));
        self.event_loop.collect_events(&self.ready, &mut batch);
        batch
    }

    fn quick(&self) -> (KindId, Payload) {
        (self.kind("noop"), Payload::from(b"x".to_vec()))
    }

    fn endless(&self) -> (KindId, Payload) {
        (self.kind("chaos"), Payload::from(b"hang".to_vec()))
    }
}

/// Runs `test` with a loop in a process of its own: a supervisor reaps every child of its process, those of other tests
/// too. `name` is that of the test that calls this, which the new process runs again.
fn in_own_process(name: &str, test: impl FnOnce(RealShell)) {
    let own = std::env::current_exe().unwrap();
    let program = own.ancestors().nth(2).unwrap().join("bulkhead-worker");
    if !program.is_file() {
        skip!("{} is not built: `cargo build --workspace` builds it", program.display());
    }
    if std::env::var_os(MARK).is_some() {
        let folder = tempfile::Builder::new().prefix("bh-").tempdir().unwrap();
        let config = folder.path().join("bulkhead.toml");
        std::fs::write(&config, format!("worker_program = {program:?}\njournal_folder = \"none\"\n"))
            .unwrap();
        let (socket, state) = (Some(folder.path().join("s")), Some(folder.path().join("state")));
        let args =
            DaemonArgs { config: Some(config), socket, state, enable_chaos: true, ..DaemonArgs::default() };
        let settings = Settings::gather(args, PassedStreams::default()).unwrap();
        let kinds = settings.core.kinds.iter().map(|kind| kind.name.clone()).collect();
        let descriptors = setup::make_room_for_descriptors().unwrap();
        let (event_loop, _instance) = daemon::assemble(settings, descriptors, None).unwrap();
        test(RealShell { event_loop, ready: Events::with_capacity(EVENTS), kinds });
    } else {
        let mut test = Command::new(own);
        let name = format!("turn::tests::{name}");
        test.args(["--exact", &name, "--nocapture", "--test-threads=1"]).env(MARK, "1").stdin(Stdio::null());
        let output = test.output().unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success() && said[0].contains("1 passed"), "{}\n{}", said[0], said[1]);
    }
}

#[test]
fn the_real_shell_keeps_every_promise() {
    in_own_process("the_real_shell_keeps_every_promise", |mut shell| keep_every_promise(&mut shell));
}

/// The worker finishes while the loop is awake, so it rings no doorbell. The test plays that worker, in a ring that it
/// puts in place of that of a real one. Without the look the loop sleeps until the real one has said hello.
#[test]
fn the_last_look_before_a_sleep_finds_what_no_doorbell_was_rung_for() {
    in_own_process("the_last_look_before_a_sleep_finds_what_no_doorbell_was_rung_for", |mut shell| {
        let (worker, seq) = (WorkerId(1), Seq(1));
        // Nothing else keeps the loop awake: nobody has connected, and the core asks for its workers, and then for nothing
        // until they are overdue.
        assert!(shell.hear().is_empty());
        shell.event_loop.core.step(now(), &mut Vec::new(), &mut Output::default());
        let (spawned, _) = shell.perform(Action::Spawn { worker, pool: PoolId(0) });
        assert!(matches!(spawned[..], [Event::WorkerSpawned { .. }]), "{spawned:?}");
        let (mut ring, pages) = Ring::create().unwrap();
        let played = WorkerRing::map(&[pages.box_page, pages.orders_page]).unwrap();
        ring.offer(seq, JobId(1), Fence(1));
        shell.event_loop.performer.workers.get(worker).unwrap().ring = ring;
        assert!(played.claim(seq));
        played.finish(seq, &Finish::Inline(b"x"));
        assert!(!played.should_ring(), "the loop is awake");
        let mut batch = Vec::new();
        shell.event_loop.sleep(&mut shell.ready, &mut batch).unwrap();
        let is_it = |event: &Event| matches!(event, Event::Finished { seq: of, .. } if *of == seq);
        assert!(batch.iter().any(is_it), "the loop slept on a result: {batch:?}");
        shell.perform(Action::Kill { worker, why: KillReason::Stop });
    });
}

#[test]
fn the_unit_gives_the_daemon_more_time_than_its_stop_takes() {
    let unit = include_str!("../../../systemd/bulkhead.service");
    let told = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).unwrap();
    let told_ms = told.parse::<u64>().unwrap() * 1000;
    let sample = include_str!("../../../systemd/bulkhead.toml");
    let grace = sample.lines().find_map(|line| line.strip_prefix("#grace_seconds = ")).unwrap();
    let jobs_ms = grace.parse::<u64>().unwrap() * 1000 + u64::from(CANCEL_GRACE_MAX_MS);
    let own_ms = (LAST_REPLIES_NS + LAST_DEATHS_NS + LAST_FACTS_NS) / 1_000_000;
    // Beside these: kills in the last turns of the core, and the removal of copies.
    let slack_ms = 10_000;
    assert!(
        told_ms >= jobs_ms + own_ms + slack_ms,
        "{told_ms} ms, but {jobs_ms} + {own_ms} + {slack_ms} ms are needed"
    );
}

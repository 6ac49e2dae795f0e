//! The real shell, with real workers, keeps what action.rs promises: the script of the simulation's.

use std::process::{Command, Stdio};

use bulkhead_core::action::Action;
use bulkhead_proto::ids::KindId;
use bulkhead_proto::job::Payload;

use super::*;
use crate::args::DaemonArgs;
use crate::daemon;
use crate::settings::Settings;
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

/// A process of its own: a supervisor reaps every child of its process, those of other tests too.
#[test]
fn the_real_shell_keeps_every_promise() {
    let own = std::env::current_exe().unwrap();
    let program = own.ancestors().nth(2).unwrap().join("bulkhead-worker");
    if !program.is_file() {
        skip!("{} is not built: `cargo build --workspace` builds it", program.display());
    }
    if std::env::var_os(MARK).is_some() {
        let folder = tempfile::Builder::new().prefix("bh-").tempdir().unwrap();
        let config = folder.path().join("bulkhead.toml");
        std::fs::write(&config, format!("worker_program = {program:?}\n")).unwrap();
        let (socket, state) = (Some(folder.path().join("s")), Some(folder.path().join("state")));
        let args =
            DaemonArgs { config: Some(config), socket, state, enable_chaos: true, ..DaemonArgs::default() };
        let settings = Settings::gather(args).unwrap();
        let kinds = settings.core.kinds.iter().map(|kind| kind.name.clone()).collect();
        let (event_loop, _instance) = daemon::assemble(settings, None).unwrap();
        keep_every_promise(&mut RealShell { event_loop, ready: Events::with_capacity(EVENTS), kinds });
    } else {
        let name = "turn::tests::the_real_shell_keeps_every_promise";
        let mut test = Command::new(own);
        test.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(MARK, "1").stdin(Stdio::null());
        let output = test.output().unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success() && said[0].contains("1 passed"), "{}\n{}", said[0], said[1]);
    }
}

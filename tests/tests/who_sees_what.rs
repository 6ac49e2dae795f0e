//! Two users of one service: what one's task said, used and left is not in anything that the other is shown.
//!
//! Bob asks by hand and by the command, as text and as JSON, while a task of Alice runs and after its worker was killed. Alice
//! and an administrator are shown all of it.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use std::path::PathBuf;

use bulkhead_proto::client::message::{Reply, Request, Submit};
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::view::WorkerRow;
use bulkhead_proto::ids::{JobId, WorkerId};
use bulkhead_proto::job::Policy;
use bulkhead_tests::daemon::{Daemon, eventually};
use bulkhead_tests::or_skip;
use bulkhead_tests::other_users::{ALICE, BOB, command_for_all, connect_as, run_as, system_daemon};
use bulkhead_tests::raid::may_become_others;
use bulkhead_tests::wire::{Wire, submit};

/// What `chaos stall` says before it hangs.
const LAST_WORDS: &str = "no further";

/// A system daemon for everybody in the group `nogroup`, with the command in its folder.
struct Service {
    daemon: Daemon,
    command: PathBuf,
}

impl Service {
    fn start() -> Self {
        let daemon = system_daemon("");
        let command = command_for_all(&daemon);
        Self { daemon, command }
    }

    /// What the command prints for this user.
    fn print_as(&self, uid: u32, arguments: &[&str]) -> String {
        let done = run_as(uid, (&self.command, &self.daemon), arguments);
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    /// All that the verbs for watching print for this user, each as text and as JSON.
    fn print_all_as(&self, uid: u32) -> String {
        let verbs: [&[&str]; 6] =
            [&["events"], &["workers"], &["status"], &["deaths"], &["deaths", "--evidence"], &["jobs"]];
        let print = |verb: &&[&str]| {
            let json = [*verb, &["--json"]].concat();
            [self.print_as(uid, verb), self.print_as(uid, &json)].concat()
        };
        verbs.iter().map(print).collect()
    }
}

/// Whether a word is in a text, with no letter or digit beside it.
fn has_word(text: &str, word: &str) -> bool {
    text.split(|letter: char| !letter.is_ascii_alphanumeric()).any(|part| part == word)
}

/// The row of the worker that runs this job, as the client is shown it.
fn runner(wire: &mut Wire, job: JobId) -> WorkerRow {
    eventually("a worker runs the job", || wire.workers().into_iter().find(|row| row.job == Some(job)))
}

fn row(wire: &mut Wire, worker: WorkerId) -> WorkerRow {
    wire.workers().into_iter().find(|row| row.worker == worker).unwrap()
}

/// A task of Alice that reports, hangs, and is killed at its limit.
fn stalled(wire: &mut Wire, timeout_ms: u64) -> JobId {
    let policy = Policy { timeout_ms: Some(timeout_ms), grace_ms: Some(0), ..Policy::default() };
    let stall = Submit { policy, ..submit("chaos", &["stall"], false) };
    let Reply::Accepted { first, .. } = wire.call(Request::Submit(stall)) else { panic!("not accepted") };
    first
}

#[test]
fn what_a_user_s_task_said_before_its_death_is_shown_to_no_other() {
    or_skip!(may_become_others());
    let service = Service::start();
    let (mut alice, mut bob) =
        (connect_as(&service.daemon, ALICE).welcome(), connect_as(&service.daemon, BOB).welcome());
    let job = stalled(&mut alice, 500);
    let pid = runner(&mut alice, job).pid.unwrap();
    assert!(matches!(alice.call(Request::Wait { jobs: vec![job] }), Reply::Ended(_)));
    let is_death = |what: &What| matches!(what, What::Died { .. } | What::WorkerGone { .. });
    let death = eventually("the death is recorded", || {
        alice.records().into_iter().map(|record| record.what).find(is_death)
    });
    let What::Died { worker, evidence, .. } = &death else { panic!("her own, and cut: {death:?}") };
    assert_eq!((evidence.last_words.as_str(), evidence.progress.is_some()), (LAST_WORDS, true));
    let mut shown = bob.records().into_iter().map(|record| record.what).filter(is_death);
    let told = shown.next();
    assert!(matches!(&told, Some(What::WorkerGone { worker: gone, .. }) if gone == worker), "{told:?}");
    let (hers, his) = (service.print_all_as(ALICE), service.print_all_as(BOB));
    for secret in [LAST_WORDS, "progress", "resident_bytes=", "chaos", "timeout"] {
        assert!(hers.contains(secret) && !his.contains(secret), "{secret}:\n{his}");
    }
    assert!(has_word(&hers, &pid.to_string()) && !has_word(&his, &pid.to_string()), "{pid}:\n{his}");
    assert!(his.contains("worker died, it ran jobs of other users"), "{his}");
    assert!(service.print_as(0, &["events"]).contains(LAST_WORDS), "root is an administrator");
}

#[test]
fn what_a_running_worker_is_about_is_shown_to_the_user_of_its_task() {
    or_skip!(may_become_others());
    let service = Service::start();
    let (mut alice, mut bob) =
        (connect_as(&service.daemon, ALICE).welcome(), connect_as(&service.daemon, BOB).welcome());
    let job = stalled(&mut alice, 3_600_000);
    let hers = runner(&mut alice, job);
    let his = row(&mut bob, hers.worker);
    assert_eq!((hers.offers, hers.pid.is_some()), (1, true));
    assert_eq!(his, WorkerRow { pid: None, job: None, offers: 0, ..hers.clone() });
    let pid = hers.pid.unwrap().to_string();
    assert!(has_word(&service.print_as(ALICE, &["workers"]), &pid));
    let printed = service.print_all_as(BOB);
    assert!(!has_word(&printed, &pid), "{pid}:\n{printed}");
    let root = service.print_as(0, &["workers", "--json"]);
    assert!(has_word(&root, &pid), "root is an administrator: {root}");
    assert!(matches!(alice.call(Request::Cancel { jobs: vec![job] }), Reply::Changed { count: 1, .. }));
}

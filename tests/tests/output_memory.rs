//! Outputs in memory, with a real daemon: what they take is what `status` says, the oldest go alone and by user, and one
//! that is longer than there is room for fails by the name of its key.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Output;

use bulkhead_proto::client::message::{Reply, Request, Submit};
use bulkhead_proto::client::outcome::{JobEnded, JobOutput, Outcome, OutputBound, OutputGone};
use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::{OutputMode, Policy};
use bulkhead_tests::daemon::{Daemon, Setup, eventually};
use bulkhead_tests::or_skip;
use bulkhead_tests::other_users::{ALICE, BOB, command_for_all, connect_as, run_as, system_daemon};
use bulkhead_tests::raid::may_become_others;
use bulkhead_tests::wire::{Wire, submit};

/// A factorial of about half a megabyte.
const N: &str = "100000";
const DIGITS: u64 = 456_574;
/// Room for four of them.
const KEEP_BYTES: u64 = 2 << 20;

/// A system daemon for everybody in the group `nogroup`, with the command in its folder.
struct Service {
    daemon: Daemon,
    command: PathBuf,
}

impl Service {
    fn start() -> Self {
        let daemon = system_daemon(&format!("keep_bytes_max = {KEEP_BYTES}\n"));
        let command = command_for_all(&daemon);
        Self { daemon, command }
    }

    fn run_as(&self, uid: u32, arguments: &[&str]) -> Output {
        run_as(uid, (&self.command, &self.daemon), arguments)
    }

    /// The memory of all outputs and logs that the daemon has open, in bytes.
    fn output_memory(&self) -> u64 {
        let folder = format!("/proc/{}/fd", self.daemon.pid());
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(folder).unwrap().filter_map(Result::ok) {
            let is_output = std::fs::read_link(entry.path())
                .is_ok_and(|target| target.to_string_lossy().starts_with("/memfd:bulkhead-output"));
            // One that was closed meanwhile takes nothing.
            if let Ok(stat) = std::fs::metadata(entry.path())
                && is_output
            {
                files.insert(stat.ino(), stat.blocks() * 512);
            }
        }
        files.values().sum()
    }
}

/// Runs so many large factorials, one after the other.
fn run_detached(wire: &mut Wire, count: usize) -> Vec<JobId> {
    let policy = Policy { output: OutputMode::Descriptor, ..Policy::default() };
    (0..count)
        .map(|_| {
            let one = Submit { policy: policy.clone(), ..submit("factorial", &[N], false) };
            let reply = wire.call(Request::Submit(one));
            let Reply::Accepted { first, .. } = reply else { panic!("{reply:?}") };
            let end = wire.call(Request::Wait { jobs: vec![first] });
            assert!(matches!(&end, Reply::Ended(ended) if ended[0].outcome == Outcome::Done), "{end:?}");
            first
        })
        .collect()
}

fn result(wire: &mut Wire, job: JobId) -> JobEnded {
    match wire.call(Request::Result { job }) {
        Reply::Ended(mut ended) => ended.remove(0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn thirty_outputs_of_one_user_take_what_may_be_kept_and_the_neighbours_stays() {
    or_skip!(may_become_others());
    let service = Service::start();
    let (mut alice, mut bob) =
        (connect_as(&service.daemon, ALICE).welcome(), connect_as(&service.daemon, BOB).welcome());
    let neighbours = run_detached(&mut bob, 1)[0];
    let jobs = run_detached(&mut alice, 30);
    // What the answers to `wait` held is freed once they are read.
    let shown = eventually("every answer is read", || {
        let shown = alice.status().outputs;
        (shown.held == shown.kept).then_some(shown)
    });
    assert!(shown.kept <= KEEP_BYTES && shown.kept >= KEEP_BYTES - 500_000, "{shown:?}");
    let memory = service.output_memory();
    assert!(memory <= shown.held && memory + 8 * 4096 >= shown.held, "{memory} bytes, and {shown:?}");
    assert!(alice.status().kept_bytes >= shown.kept, "status counts them");
    let gone = OutputGone { bytes: DIGITS, bound: OutputBound::KeptBytes, limit: KEEP_BYTES };
    assert_eq!(result(&mut alice, jobs[0]).output, JobOutput::Gone(gone));
    let last = result(&mut alice, jobs[29]);
    assert_eq!((last.outcome, last.output), (Outcome::Done, JobOutput::Descriptor { bytes: DIGITS }));
    assert_eq!(result(&mut bob, neighbours).output, JobOutput::Descriptor { bytes: DIGITS });
    assert_eq!(alice.job(jobs[0]).output_gone, Some(gone), "the job's record stays");
    let told = service.run_as(ALICE, &["result", &jobs[0].to_string()]);
    let text = String::from_utf8_lossy(&told.stderr).into_owned();
    assert_eq!((told.status.code(), told.stdout.len()), (Some(1), 0), "{text}");
    assert!(text.contains("456574 bytes went to make room, keep_bytes_max = 2097152"), "{text}");
    let status = String::from_utf8(service.run_as(ALICE, &["status"]).stdout).unwrap();
    assert!(status.contains(&format!("{} kept", shown.kept)), "{status}");
}

#[test]
fn a_longer_output_than_its_kind_may_have_fails_by_name_and_programs_write_what_files_they_want() {
    let config = "[kinds.factorial]\noutput_max_bytes = 400000\n[kinds.exec]\noutput_max_bytes = 50000\n";
    let daemon = Daemon::start_with(&Setup { config: config.to_owned(), ..Setup::default() });
    let failed = daemon.cli(&["run", "factorial", N]);
    let text = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert_eq!(failed.status.code(), Some(1), "{text}");
    assert!(text.contains("longer than the 400000 bytes") && text.contains("output_max_bytes"), "{text}");
    assert!(text.contains("outputs_bytes_max"), "{text}");
    assert_eq!(daemon.ok(&["run", "factorial", "5"]).trim(), "120");
    let script =
        "head -c 1000000 /dev/zero > scratch && wc -c < scratch && head -c 45000 /dev/zero | tr '\\0' x";
    let ran = daemon.ok(&["run", "exec", "--", "sh", "-c", script]);
    assert!(ran.starts_with("1000000\n") && ran.len() >= 45_000, "{} bytes", ran.len());
    let script = "head -c 60000 /dev/zero | tr '\\0' x";
    let failed = daemon.cli(&["run", "exec", "--", "sh", "-c", script]);
    let text = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(text.contains("longer than the 50000 bytes"), "{text}");
}

//! Outputs that tasks ask for while they run, with a real daemon: results of any length, what they cost, and each way in which a
//! task gets none.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use std::collections::BTreeSet;
use std::process::Command;

use bulkhead_proto::client::message::{Reply, Request, Submit};
use bulkhead_proto::client::outcome::{JobEnded, JobOutput, Outcome};
use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::{OutputMode, Policy};
use bulkhead_tests::daemon::{Daemon, Setup, binary, eventually};
use bulkhead_tests::or_skip;
use bulkhead_tests::shortage::{limit, possible};
use bulkhead_tests::wire::{Wire, submit};

/// A factorial of 77,338 digits.
const N: &str = "20000";
const DIGITS: u64 = 77_338;

fn auto() -> Policy {
    Policy { output: OutputMode::Auto, ..Policy::default() }
}

fn accepted(wire: &mut Wire, kind: &str, inputs: &[&str], policy: Policy) -> JobId {
    match wire.call(Request::Submit(Submit { policy, ..submit(kind, inputs, false) })) {
        Reply::Accepted { first, .. } => first,
        other => panic!("{other:?}"),
    }
}

fn result(wire: &mut Wire, job: JobId) -> JobEnded {
    let end = wire.call(Request::Wait { jobs: vec![job] });
    assert!(matches!(&end, Reply::Ended(_)), "{end:?}");
    match wire.call(Request::Result { job }) {
        Reply::Ended(mut ended) => ended.remove(0),
        other => panic!("{other:?}"),
    }
}

fn change(wire: &mut Wire, request: Request) {
    let reply = wire.call(request);
    assert!(matches!(&reply, Reply::Changed { refused, .. } if refused.is_empty()), "{reply:?}");
}

fn start(workers: u16, config: &str) -> (Daemon, Wire) {
    let daemon = Daemon::start_with(&Setup { workers, config: config.to_owned(), ..Setup::default() });
    let wire = Wire::connect(&daemon.socket());
    (daemon, wire)
}

fn pids(daemon: &Daemon) -> BTreeSet<Option<u32>> {
    daemon.workers().iter().map(|row| row.pid).collect()
}

/// The message of a job that failed.
fn failure(ended: &JobEnded) -> &str {
    match &ended.outcome {
        Outcome::Failed { message, .. } => message,
        other => panic!("{other:?}"),
    }
}

/// Everything that counted is let go of.
fn settled(wire: &mut Wire) {
    eventually("no output counts", || (wire.status().outputs.held == 0).then_some(()));
}

#[test]
fn a_result_of_any_length_comes_and_only_a_long_one_takes_a_file() {
    let (daemon, mut wire) = start(2, "");
    let before = pids(&daemon);
    let inputs: Vec<&str> = (0..200).map(|at| if at % 50 == 7 { N } else { "20" }).collect();
    let first = accepted(&mut wire, "factorial", &inputs, auto());
    let mut outputs = BTreeSet::new();
    for (at, input) in (0..).zip(&inputs) {
        let ended = result(&mut wire, JobId(first.0 + at));
        assert_eq!(ended.outcome, Outcome::Done);
        match ended.output {
            JobOutput::Descriptor { bytes } => {
                assert_eq!((*input, bytes), (N, DIGITS));
                outputs.insert(at);
            }
            JobOutput::Inline(payload) => assert_eq!(payload.as_bytes(), b"2432902008176640000"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(outputs, BTreeSet::from([7, 57, 107, 157]));
    let shown = eventually("every answer is read", || {
        let shown = wire.status().outputs;
        (shown.held == shown.kept).then_some(shown)
    });
    assert!(shown.running == 0 && (4 * DIGITS..5 * DIGITS).contains(&shown.kept), "{shown:?}");
    change(&mut wire, Request::Forget { jobs: (0..200).map(|at| JobId(first.0 + at)).collect() });
    settled(&mut wire);
    assert!(before.is_subset(&pids(&daemon)), "no worker had to go");
}

#[test]
fn a_kind_says_so_for_its_jobs_and_its_most_is_the_room_of_each() {
    let program = binary("odd-worker").display().to_string();
    let config = format!(
        "worker_program = {program:?}\n[kinds.letters]\noutput = \"auto\"\noutput_max_bytes = 65536\n"
    );
    let (daemon, mut wire) = start(1, &config);
    assert!(daemon.ok(&["kinds"]).contains("output of any length"));
    for bytes in [5, 4096, 4097, 65_536] {
        assert_eq!(daemon.ok(&["run", "letters", &bytes.to_string()]).trim().len(), bytes);
    }
    let job = accepted(&mut wire, "letters", &["65537"], Policy::default());
    let ended = result(&mut wire, job);
    let text = failure(&ended);
    assert!(text.contains("longer than the 65536 bytes") && text.contains("output_max_bytes"), "{text}");
}

/// After the first long results an output goes with each task; one that is longer than it, and short ones, come as well.
#[test]
fn what_outgrows_the_output_that_came_with_it_comes_whole() {
    let program = binary("odd-worker").display().to_string();
    let (daemon, mut wire) =
        start(2, &format!("worker_program = {program:?}\n[kinds.letters]\noutput = \"auto\"\nring = 64\n"));
    let before = pids(&daemon);
    let lengths: Vec<u64> =
        (0..120).map(|at| if at % 40 == 39 { 3 << 20 } else { 4097 + at * 500 }).collect();
    for length in lengths.iter().copied().chain([10, 20_000, 10, 10, 10, 10, 10, 4097]) {
        let job = accepted(&mut wire, "letters", &[&length.to_string()], Policy::default());
        match result(&mut wire, job).output {
            JobOutput::Descriptor { bytes } => assert_eq!(bytes, length),
            JobOutput::Inline(payload) => assert_eq!(payload.as_bytes().len() as u64, length),
            other => panic!("{other:?}"),
        }
        change(&mut wire, Request::Forget { jobs: vec![job] });
    }
    settled(&mut wire);
    assert!(before.is_subset(&pids(&daemon)), "no worker had to go");
}

/// Between the claim and the end no file can be made: the task fails with the cause, and the next one has its output.
#[test]
fn without_a_descriptor_a_task_that_asks_fails_with_the_limit_and_its_worker_lives() {
    or_skip!(possible(&["prlimit", "--version"]));
    let (daemon, mut wire) = start(1, "");
    let before = pids(&daemon);
    limit(&daemon, "nofile", "3");
    let job = accepted(&mut wire, "factorial", &[N], auto());
    let ended = result(&mut wire, job);
    let text = failure(&ended).to_owned();
    assert!(
        text.contains("gets no output") && text.contains("the limit of open files is 3: raise it"),
        "{text}"
    );
    settled(&mut wire);
    limit(&daemon, "nofile", "1000");
    let job = accepted(&mut wire, "factorial", &[N], auto());
    assert_eq!(result(&mut wire, job).output, JobOutput::Descriptor { bytes: DIGITS });
    assert!(before.is_subset(&pids(&daemon)), "no worker had to go");
}

#[test]
fn what_is_cancelled_or_killed_while_it_asks_leaves_nothing_behind() {
    let (daemon, mut wire) = start(2, "");
    for round in 0..20 {
        let first = accepted(&mut wire, "factorial", &[N; 20], auto());
        if round % 4 == 0 {
            let pids = daemon.workers().into_iter().filter_map(|row| row.pid);
            // One may have been recycled meanwhile.
            pids.take(2).for_each(|pid| _ = Command::new("kill").args(["-9", &pid.to_string()]).output());
        }
        drop(result(&mut wire, JobId(first.0 + round % 20)));
        let jobs: Vec<_> = (0..20).map(|at| JobId(first.0 + at)).collect();
        // Some have ended already.
        drop(wire.call(Request::Cancel { jobs: jobs.clone() }));
        jobs.iter().for_each(|job| drop(result(&mut wire, *job)));
        change(&mut wire, Request::Forget { jobs });
    }
    settled(&mut wire);
    let job = accepted(&mut wire, "factorial", &[N], auto());
    assert_eq!(result(&mut wire, job).output, JobOutput::Descriptor { bytes: DIGITS });
}

#[test]
fn a_drain_waits_for_tasks_that_ask() {
    let (mut daemon, mut wire) = start(2, "");
    let submit = Submit { policy: auto(), ..submit("factorial", &[N; 30], true) };
    let tag = wire.ask(Request::Submit(submit));
    let mut ended = 0;
    let mut is_told = false;
    while ended < 30 {
        let frame = wire.next_reply().expect("the daemon answers before it leaves");
        match frame.reply {
            Reply::Accepted { .. } if !is_told => {
                bulkhead_tests::daemon::send_signal(daemon.pid(), "TERM");
                is_told = true;
            }
            Reply::Ended(all) if frame.tag == tag => {
                assert!(
                    all.iter().all(|one| one.output == JobOutput::Descriptor { bytes: DIGITS }),
                    "{all:?}"
                );
                ended += all.len();
            }
            _ => {}
        }
    }
    assert!(daemon.await_end().success());
}

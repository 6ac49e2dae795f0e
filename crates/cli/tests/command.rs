//! The command as people run it: against a daemon made by hand, and against none.
//!
//! What is looked at is what scripts rely on: stdout, stderr, exit code, and what was asked of the daemon.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "../../client/tests/fake/mod.rs"]
mod fake;
#[macro_use]
#[path = "../../../tests/src/skip.rs"]
pub mod skip;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::outcome::{self, JobEnded, Outcome, TimeLimit};
use bulkhead_proto::client::refusal::{BoundPart, Refusal, UnknownJobs};
use bulkhead_proto::client::view::JobRow;
use bulkhead_proto::client::why::{Past, Why, WhyNow};
use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::{JobState, OutputMode};
use fake::{Fake, Peer, done, done_in_file};

fn bulkhead(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
    command.args(arguments).env_remove("BULKHEAD_SOCKET").env_remove("BULKHEAD_LOG").stdin(Stdio::null());
    command
}

/// Runs the command against a script, and waits for both.
fn against(script: impl FnOnce(Peer) + Send + 'static, arguments: &[&str]) -> Output {
    let fake = Fake::serve(script);
    let output = bulkhead(arguments).env("BULKHEAD_SOCKET", fake.path()).output().unwrap();
    fake.finish();
    output
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn ended(job: u64, outcome: Outcome) -> JobEnded {
    JobEnded {
        job: JobId(job),
        outcome,
        output: outcome::JobOutput::None,
        attempts: 1,
        survivors: Vec::new(),
    }
}

/// Ends each job with its own input, the last one first.
fn echo(mut peer: Peer) {
    while let Some((tag, submit)) = peer.submit() {
        peer.accept(tag, 1, submit.inputs.len());
        for (index, input) in submit.inputs.iter().enumerate().rev() {
            peer.reply(tag, Reply::Ended(vec![done(index as u64 + 1, input.as_bytes())]));
        }
    }
}

#[test]
fn results_are_lines_in_the_order_of_the_inputs() {
    let output = against(echo, &["run", "factorial", "3..5", "1", "--as", "bits", "--with-input"]);
    assert_eq!(text(&output.stdout), "3\t3 bits\n4\t4 bits\n5\t5 bits\n1\t1 bits\n");
    assert_eq!((code(&output), text(&output.stderr)), (0, ""));
    let output = against(echo, &["run", "noop", "--count", "3", "--unordered"]);
    assert_eq!(text(&output.stdout), "2\n1\n0\n");
}

#[test]
fn json_has_one_object_for_each_job() {
    let output = against(echo, &["--json", "run", "noop", "--count", "2"]);
    let lines: Vec<serde_json::Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    let expected = serde_json::json!({"index": 1, "input": "1", "job": 2, "outcome": "done", "attempts": 1,
        "output_bytes": 1, "result": "1"});
    assert_eq!(lines[1], expected);
}

#[test]
fn the_first_bad_job_in_the_order_of_the_inputs_gives_the_code() {
    let script = |mut peer: Peer| {
        let (tag, _) = peer.submit().unwrap();
        peer.accept(tag, 1, 3);
        peer.reply(
            tag,
            Reply::Ended(vec![ended(3, Outcome::Failed { message: "no".to_owned(), code: Some(9) })]),
        );
        peer.reply(
            tag,
            Reply::Ended(vec![ended(
                2,
                Outcome::TimedOut { limit: TimeLimit::Wall, limit_ms: 5, part: None },
            )]),
        );
        peer.reply(tag, Reply::Ended(vec![done(1, b"fine")]));
    };
    let output = against(script, &["run", "sleep", "1", "--count", "3"]);
    assert_eq!((code(&output), text(&output.stdout)), (124, "fine\n"));
    let said = text(&output.stderr);
    assert!(said.contains("job 2 (sleep 1) timed out after 1 attempt: ran longer than 5 ms"), "{said}");
    assert!(said.contains("job 3 (sleep 1) failed after 1 attempt: no"), "{said}");
}

/// What cannot be said on stderr is not said: results and exit code are what they would be.
#[test]
fn a_stderr_that_takes_nothing_changes_nothing() {
    let script = |mut peer: Peer| {
        let (tag, _) = peer.submit().unwrap();
        peer.accept(tag, 1, 2);
        peer.reply(
            tag,
            Reply::Ended(vec![ended(1, Outcome::Failed { message: "no".to_owned(), code: None })]),
        );
        peer.reply(tag, Reply::Ended(vec![done(2, b"fine")]));
    };
    let full = || Stdio::from(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let closed = || Stdio::from(std::io::pipe().unwrap().1);
    for stderr in [full(), closed()] {
        let fake = Fake::serve(script);
        let mut run = bulkhead(&["run", "sleep", "1", "--count", "2"]);
        let run = run.env("BULKHEAD_SOCKET", fake.path()).stdout(Stdio::piped()).stderr(stderr).spawn();
        let output = run.unwrap().wait_with_output().unwrap();
        fake.finish();
        assert_eq!((code(&output), text(&output.stdout)), (1, "fine\n"));
        let nobody = bulkhead(&["--socket", "/nowhere/s", "ping"]).stderr(full()).output().unwrap();
        assert_ne!(code(&nobody), 101, "an error that cannot be told is no panic");
    }
}

#[test]
fn a_long_output_comes_through_its_descriptor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("digits");
    let script = |mut peer: Peer| {
        let (tag, submit) = peer.submit().unwrap();
        assert_eq!(submit.policy.output, OutputMode::Descriptor);
        peer.accept(tag, 1, 1);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![b'7'; 1 << 20]).unwrap();
        peer.reply_with(tag, Reply::Ended(vec![done_in_file(1, 1 << 20)]), file.as_fd());
    };
    let output = against(script, &["run", "factorial", "1000000", "-o", path.to_str().unwrap()]);
    assert_eq!((code(&output), text(&output.stderr)), (0, ""));
    assert_eq!(std::fs::read(&path).unwrap(), vec![b'7'; 1 << 20]);
    let output = against(script, &["run", "factorial", "1000000"]);
    assert_eq!(output.stdout.len(), (1 << 20) + 1, "a line end of its own");
}

#[test]
fn a_dash_as_output_is_stdout_with_the_exact_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::serve(echo);
    let mut run = bulkhead(&["run", "factorial", "3", "--as", "bits", "-o", "-"]);
    let output = run.env("BULKHEAD_SOCKET", fake.path()).current_dir(folder.path()).output().unwrap();
    fake.finish();
    assert_eq!((code(&output), text(&output.stdout), text(&output.stderr)), (0, "3 bits", ""));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "no file of that name");
}

#[test]
fn a_job_named_twice_is_asked_for_once() {
    let script = |mut peer: Peer| {
        let asked = peer.request().unwrap();
        assert_eq!(asked.request, Request::Cancel { jobs: vec![JobId(5), JobId(4)] });
        peer.reply(asked.tag, Reply::Changed { count: 2, refused: Vec::new() });
    };
    let output = against(script, &["cancel", "5", "5", "4..5"]);
    assert_eq!((code(&output), text(&output.stdout), text(&output.stderr)), (0, "cancelled 2 jobs\n", ""));
}

#[test]
fn an_unknown_job_is_told_on_stderr_as_json_or_not() {
    let script = |mut peer: Peer| {
        let asked = peer.request().unwrap();
        let unknown = UnknownJobs { jobs: vec![JobId(9)], last: JobId(8), ..UnknownJobs::default() };
        peer.reply(asked.tag, Reply::Unknown(unknown));
    };
    for (arguments, lines) in [(&["wait", "9"][..], 0), (&["wait", "9", "--json"], 1)] {
        let output = against(script, arguments);
        assert_eq!((code(&output), text(&output.stdout).lines().count()), (1, lines));
        assert!(
            text(&output.stderr).starts_with("bulkhead: job 9 never existed: "),
            "{}",
            text(&output.stderr)
        );
    }
}

#[test]
fn a_daemon_that_dies_under_running_jobs_has_lost_them() {
    let script = |mut peer: Peer| {
        let (tag, _) = peer.submit().unwrap();
        peer.accept(tag, 1, 2);
        peer.reply(tag, Reply::Ended(vec![done(1, b"first")]));
    };
    let output = against(script, &["run", "noop", "--count", "2"]);
    assert_eq!((code(&output), text(&output.stdout)), (122, "first\n"));
    assert!(text(&output.stderr).contains("1 job had not ended"), "{}", text(&output.stderr));
}

#[test]
fn refusals_have_their_codes() {
    for (refusal, expected) in [
        (Refusal::Draining, 75),
        (
            Refusal::Busy {
                what: "queue".to_owned(),
                limit: 1,
                part: BoundPart::All,
                key: None,
                retry_after_ms: 9,
            },
            75,
        ),
        (Refusal::UnknownKind { kind: "x".to_owned(), known: vec!["noop".to_owned()] }, 2),
    ] {
        let said = refusal.to_string();
        let script = move |mut peer: Peer| {
            let (tag, _) = peer.submit().unwrap();
            peer.reply(tag, Reply::Refused(refusal));
        };
        let output = against(script, &["submit", "x"]);
        assert_eq!((code(&output), text(&output.stdout)), (expected, ""));
        assert!(text(&output.stderr).contains(&said));
    }
}

#[test]
fn why_is_told_in_sentences_one_a_line() {
    let why = Why {
        job: JobId(7),
        attempts: 2,
        now: WhyNow::Backoff { left_ms: 1500, alone: false },
        vanished_ms: None,
        past: Past { failures: 1, retries_max: 3, ..Past::default() },
    };
    let expected = why.clone();
    let script = move |mut peer: Peer| {
        let asked = peer.request().unwrap();
        assert_eq!(asked.request, Request::Why { job: JobId(7) });
        peer.reply(asked.tag, Reply::Why(Box::new(why)));
    };
    let output = against(script.clone(), &["why", "7"]);
    let said = "Job 7 failed and is tried again in 1.50s.\n\
                Its own code failed 1 time and was tried again, of 3 allowed.\n";
    assert_eq!((code(&output), text(&output.stdout)), (0, said));
    let output = against(script, &["why", "7", "--json"]);
    assert_eq!(serde_json::from_slice::<Why>(&output.stdout).unwrap(), expected);
}

#[test]
fn ctrl_c_takes_back_what_has_not_ended() {
    let fake = Fake::serve(|mut peer| {
        let (tag, _) = peer.submit().unwrap();
        peer.accept(tag, 1, 2);
        peer.reply(tag, Reply::Ended(vec![done(1, b"first")]));
        let asked = peer.request().unwrap();
        assert_eq!(asked.request, Request::Cancel { jobs: vec![JobId(2)] });
        peer.reply(asked.tag, Reply::Changed { count: 1, refused: Vec::new() });
        assert!(peer.request().is_none());
    });
    let mut child = bulkhead(&["run", "noop", "--count", "2"])
        .env("BULKHEAD_SOCKET", fake.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "first\n", "it is there while the other job runs");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    fake.finish();
}

#[test]
fn a_reader_that_leaves_ends_it_quietly() {
    let fake = Fake::serve(|mut peer| {
        let mut first = 1;
        while let Some(frame) = peer.request() {
            match frame.request {
                Request::Submit(submit) => {
                    let last = first + submit.inputs.len() as u64;
                    peer.accept(frame.tag, first, submit.inputs.len());
                    let ends = (first..last).map(|job| done(job, &[b'x'; 200])).collect();
                    peer.reply(frame.tag, Reply::Ended(ends));
                    first = last;
                }
                Request::Cancel { .. } => {
                    peer.reply(frame.tag, Reply::Changed { count: 0, refused: Vec::new() });
                }
                other => panic!("{other:?}"),
            }
        }
    });
    let mut child = bulkhead(&["run", "noop", "--count", "50000"])
        .env("BULKHEAD_SOCKET", fake.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 10]).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), text(&output.stderr)), (141, ""));
    fake.finish();
}

/// The pipe is full, and the command waits in the middle of a result.
#[test]
fn a_signal_ends_a_write_that_nobody_reads() {
    for output in [&[][..], &["-o", "/dev/stdout"]] {
        let fake = Fake::serve(|mut peer| {
            let (tag, _) = peer.submit().unwrap();
            peer.accept(tag, 1, 2);
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&vec![b'7'; 1 << 20]).unwrap();
            peer.reply_with(tag, Reply::Ended(vec![done_in_file(1, 1 << 20)]), file.as_fd());
            let mut asked = 0;
            while let Some(frame) = peer.request() {
                if let Request::Jobs { .. } = frame.request {
                    peer.reply(frame.tag, Reply::Jobs { rows: vec![row(1)], last: JobId(1), more: false });
                    continue;
                }
                assert_eq!(frame.request, Request::Cancel { jobs: vec![JobId(2)] });
                peer.reply(frame.tag, Reply::Changed { count: 1, refused: Vec::new() });
                asked += 1;
            }
            assert!(asked > 0, "the other job was not taken back");
        });
        let mut command = bulkhead(&["run", "factorial", "1000000", "1000001"]);
        let command = command.args(output).env("BULKHEAD_SOCKET", fake.path());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut [0; 10]).unwrap();
        assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        drop(stdout);
        assert_eq!(code(&output), 130);
        let said = text(&output.stderr);
        assert!(
            said.contains("the daemon still has the result of job 1, and `bulkhead result 1` prints it"),
            "{said}"
        );
        fake.finish();
    }
}

/// The row of a job that is done.
fn row(job: u64) -> JobRow {
    JobRow {
        job: JobId(job),
        kind: "factorial".to_owned(),
        state: JobState::Ended,
        outcome: Some("done".to_owned()),
        attempts: 1,
        crashes: 0,
        uid: 0,
        accepted_us: 0,
    }
}

/// A folder with a copy of the command and a supervisor that is this shell script. Another process makes them: a
/// file that this one had open for writing could leak into a child of another test, and then not be run.
fn installed(script: &str) -> tempfile::TempDir {
    const MAKE: &str =
        r#"cp "$1" bulkhead && printf '#!/bin/sh\n%s\n' "$2" > bulkhead-supervisor && chmod +x *"#;
    let folder = tempfile::tempdir().unwrap();
    let mut make = Command::new("sh");
    make.args(["-c", MAKE, "sh", env!("CARGO_BIN_EXE_bulkhead"), script]).current_dir(folder.path());
    assert!(make.status().unwrap().success());
    folder
}

/// `run noop` where nobody listens; the private folders are to be made in `runtime`.
fn run_alone(program: &Path, runtime: &Path) -> Output {
    let mut command = Command::new(program);
    command.args(["run", "noop"]).env_remove("BULKHEAD_SOCKET").env("XDG_RUNTIME_DIR", runtime);
    command.stdin(Stdio::null()).output().unwrap()
}

#[test]
fn a_private_daemon_that_fails_is_shown_with_its_last_words_and_cleaned_up() {
    if Path::new(bulkhead_proto::client::places::SYSTEM_SOCKET).exists() {
        skip!("this machine has a system daemon, so no private one would be started");
    }
    let runtime = tempfile::tempdir_in("/tmp").unwrap();
    let folder = installed("echo 'no luck today' >&2; exit 3");
    let output = run_alone(&folder.path().join("bulkhead"), runtime.path());
    assert_eq!(code(&output), 69);
    assert!(text(&output.stderr).contains("no luck today"), "{}", text(&output.stderr));
    // What it says on its stdout needs no disk. An error of the place has the next one tried.
    for (said, tries) in
        [("failed 28 no \u{202e}room", 3), ("failed 1 forbidden", 1), ("failed 2 not found", 1)]
    {
        let script = format!("echo . >> $(dirname $0)/tries; printf '%s\\n' '{said}'; exit 1");
        let folder = installed(&script);
        let output = run_alone(&folder.path().join("bulkhead"), runtime.path());
        let stderr = text(&output.stderr);
        let reason = said.splitn(3, ' ').nth(2).unwrap().replace('\u{202e}', "\\u{202e}");
        assert!(code(&output) == 69 && stderr.contains(&format!("it did not start: {reason}")), "{stderr}");
        let tried = std::fs::read_to_string(folder.path().join("tries")).unwrap().lines().count();
        assert!(if tries > 1 { tried >= tries } else { tried == 1 }, "{said}: {tried} tries");
    }
    // Ready, but nobody listens; it must go when its stdin ends.
    let folder = installed("echo ready; cat; echo gone > $(dirname $0)/gone");
    let output = run_alone(&folder.path().join("bulkhead"), runtime.path());
    assert_eq!(code(&output), 69);
    assert!(folder.path().join("gone").exists(), "it was waited for");
    let left = std::fs::read_dir(runtime.path()).unwrap().count();
    assert_eq!(left, 0, "nothing is left in {}", runtime.path().display());
}

#[test]
fn submit_says_where_outputs_are_instead() {
    for (words, wanted) in [
        (
            "transform in.y4m --gray -o out.y4m",
            "submit has no -o, because the daemon keeps the output: use `bulkhead result ID -o out.y4m`",
        ),
        (
            "exec --out a=b -- true",
            "submit has no --out a=b, because a job writes files only for a command that waits: use `bulkhead run`",
        ),
    ] {
        let output = bulkhead(&["submit"]).args(words.split(' ')).output().unwrap();
        assert!(code(&output) == 2 && text(&output.stderr).contains(wanted), "{}", text(&output.stderr));
    }
}

//! `bulkhead logs`: what jobs write, while they run and after, against a real daemon.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Output, Stdio};

use bulkhead_proto::log::LOG_BYTES;
use bulkhead_tests::daemon::{Daemon, Setup};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

/// Submits a script and gives its job's number.
fn submit(daemon: &Daemon, flags: &[&str], script: &str) -> String {
    let words = [&["submit", "exec"], flags, &["--", "sh", "-c", script]].concat();
    daemon.ok(&words).trim().to_owned()
}

fn followed(daemon: &Daemon, job: &str) -> Child {
    let mut command = daemon.command(&["logs", job, "--follow"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs")
}

/// A named pipe that a program waits at until it is let go.
struct Gate(std::path::PathBuf);

impl Gate {
    fn new(daemon: &Daemon, name: &str) -> Self {
        let path = daemon.folder().join(name);
        let made = std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo runs");
        assert!(made.success());
        Self(path)
    }

    fn wait(&self) -> String {
        format!("read go <{}", self.0.display())
    }

    fn open(&self) {
        std::fs::write(&self.0, "go\n").expect("somebody waits at it");
    }
}

#[test]
fn what_a_program_writes_is_seen_while_it_runs_and_after() {
    let daemon = Daemon::start();
    let gate = Gate::new(&daemon, "gate");
    let job = submit(&daemon, &[], &format!("echo one; echo two >&2; {}; echo three; exit 5", gate.wait()));
    let mut follower = followed(&daemon, &job);
    let mut out = BufReader::new(follower.stdout.take().expect("a pipe"));
    let mut line = String::new();
    out.read_line(&mut line).expect("it is written");
    assert_eq!(line, "one\n", "while the job runs");
    gate.open();
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("it ends with the job");
    assert_eq!(rest, "three\n");
    let ended = follower.wait_with_output().expect("it ends with the job");
    let said = text(&ended.stderr);
    assert_eq!(code(&ended), Some(5));
    assert!(said.starts_with("two\n") && said.contains("exit code 5"), "{said}");

    let after = daemon.cli(&["logs", &job]);
    assert_eq!((code(&after), text(&after.stdout).as_str()), (Some(0), "one\nthree\n"));
    assert_eq!(text(&after.stderr), "two\n");
    let again = daemon.cli(&["logs", &job, "--follow", "--stderr"]);
    assert_eq!((code(&again), text(&again.stdout)), (Some(5), String::new()));
    assert!(text(&again.stderr).starts_with("two\n"));
    assert_eq!(daemon.ok(&["logs", &job, "--stdout", "--timestamps"]).matches("Z stdout ").count(), 2);
    let json = daemon.ok(&["--json", "logs", &job]);
    let first: serde_json::Value =
        serde_json::from_str(json.lines().next().expect("a line")).expect("an object");
    assert_eq!((&first["stream"], &first["text"]), (&"stdout".into(), &"one\n".into()), "{json}");
}

#[test]
fn a_queued_job_is_waited_for_and_each_attempt_is_shown() {
    let daemon = Daemon::start_with(&Setup { workers: 1, ..Setup::default() });
    let gate = Gate::new(&daemon, "gate");
    let before = submit(&daemon, &[], &gate.wait());
    let marks = daemon.folder().join("marks");
    let script = format!("echo x >>{0}; wc -l <{0}; [ $(wc -l <{0}) -gt 1 ]", marks.display());
    let job = submit(&daemon, &["--retries-max", "1"], &script);
    let early = daemon.cli(&["logs", &job]);
    assert!(
        code(&early) == Some(1) && text(&early.stderr).contains("has not run yet"),
        "{}",
        text(&early.stderr)
    );
    let follower = followed(&daemon, &job);
    gate.open();
    let ended = follower.wait_with_output().expect("it ends with the job");
    assert_eq!((code(&ended), text(&ended.stdout).as_str()), (Some(0), "1\n2\n"), "{}", text(&ended.stderr));
    assert!(text(&ended.stderr).contains("attempt 2"), "{}", text(&ended.stderr));
    assert_eq!(daemon.ok(&["logs", &job]), "2\n", "the latest attempt's is kept");
    assert_eq!(daemon.ok(&["logs", &before]), "");
}

#[test]
fn of_too_much_the_beginning_and_the_end_are_kept() {
    let daemon = Daemon::start();
    let bytes = 5 * LOG_BYTES;
    let job = submit(&daemon, &[], &format!("echo begin; yes | head -c {bytes}; echo end; echo err >&2"));
    daemon.ok(&["wait", &job]);
    let output = daemon.cli(&["logs", &job]);
    let (out, said) = (text(&output.stdout), text(&output.stderr));
    assert!(out.starts_with("begin\ny\n") && out.ends_with("y\nend\n"), "{} bytes", out.len());
    assert!(out.len() as u64 > LOG_BYTES / 2 && (out.len() as u64) < LOG_BYTES, "{} bytes", out.len());
    assert!(said.contains("bytes are missing here") && said.ends_with("err\n"), "{said}");
    for flags in [&["logs", &job][..], &["--json", "logs", &job], &["logs", &job, "--follow"]] {
        let closed = std::io::pipe().expect("a pipe").1;
        let left = daemon.command(flags).stdout(closed).output().expect("it runs");
        assert!(code(&left) == Some(141) && !text(&left.stderr).contains("daemon"), "{flags:?}: {left:?}");
        let full = std::fs::File::create("/dev/full").expect("it is there");
        let full = daemon.command(flags).stdout(full).output().expect("it runs");
        let said = text(&full.stderr);
        assert!(
            code(&full) == Some(1) && said.contains("cannot write what the job logged: No space left"),
            "{said}"
        );
    }
}

#[test]
fn what_a_job_wrote_before_its_worker_died_is_there() {
    let daemon = Daemon::start();
    let gate = Gate::new(&daemon, "gate");
    let job = submit(&daemon, &["--crashes-max", "1"], &format!("echo last; {}", gate.wait()));
    let mut follower = followed(&daemon, &job);
    let mut out = BufReader::new(follower.stdout.take().expect("a pipe"));
    let mut line = String::new();
    out.read_line(&mut line).expect("it is written");
    let worker = daemon.await_worker(bulkhead_proto::client::view::WorkerState::Busy);
    let pid = worker.pid.expect("it runs").to_string();
    assert!(std::process::Command::new("kill").args(["-9", &pid]).status().expect("kill runs").success());
    let ended = follower.wait_with_output().expect("it ends with the job");
    assert_eq!((code(&ended), line.as_str()), (Some(125), "last\n"));
    assert_eq!(daemon.ok(&["logs", &job]), "last\n");
}

#[test]
fn jobs_without_a_log_say_why() {
    let daemon = Daemon::start();
    let silent = daemon.ok(&["submit", "noop", "x"]).trim().to_owned();
    let refused = daemon.cli(&["logs", &silent]);
    assert_eq!(code(&refused), Some(1));
    assert!(text(&refused.stderr).contains("jobs of kind noop keep no log"), "{}", text(&refused.stderr));
    assert_eq!(code(&daemon.cli(&["logs", "999"])), Some(1));
}

//! Batches with `-o` that people end early, against a daemon made by hand: what the command keeps, and what it says.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "../../client/tests/fake/mod.rs"]
mod fake;

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::Sender;

use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::outcome::{JobEnded, JobOutput, Outcome};
use bulkhead_proto::ids::JobId;
use fake::{Fake, Peer, done};

/// A folder to work in, with an older output.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        std::fs::write(desk.path("out"), "older").unwrap();
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let all = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> = all.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn bulkhead(&self, line: &str, fake: &Fake) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
        command.args(line.split(' ')).current_dir(self.0.path()).env("TMPDIR", self.0.path());
        command.env("BULKHEAD_SOCKET", fake.path()).env_remove("BULKHEAD_LOG");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs the command, and sends it this signal when the script says so and these bytes are on stdout.
    fn interrupted(&self, line: &str, signal: &str, read: &str, script: fn(Peer, Sender<()>)) -> Output {
        let (ready, is_ready) = std::sync::mpsc::channel();
        let fake = Fake::serve(move |peer| script(peer, ready));
        let mut child = self.bulkhead(line, &fake).spawn().unwrap();
        is_ready.recv().unwrap();
        let mut first = vec![0; read.len()];
        child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
        assert_eq!(text(&first), read);
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        fake.finish();
        output
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn said(output: &Output) -> (Option<i32>, &str, &str) {
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn ended(job: u64, outcome: Outcome) -> JobEnded {
    JobEnded { job: JobId(job), outcome, output: JobOutput::None, attempts: 1, survivors: Vec::new() }
}

/// Of six jobs the first and the third are done and the second has failed; then the command is interrupted; the fifth
/// is done before the cancel comes to it.
fn half(mut peer: Peer, ready: Sender<()>) {
    let (tag, submit) = peer.submit().unwrap();
    peer.accept(tag, 1, submit.inputs.len());
    let failed = Outcome::Failed { message: "no".to_owned(), code: None };
    peer.reply(tag, Reply::Ended(vec![done(3, b"three"), done(1, b"one"), ended(2, failed)]));
    ready.send(()).unwrap();
    let asked = peer.request().unwrap();
    assert!(matches!(asked.request, Request::Cancel { .. }), "{asked:?}");
    peer.reply(tag, Reply::Ended(vec![done(5, b"five"), ended(4, Outcome::Cancelled)]));
    peer.reply(tag, Reply::Ended(vec![ended(6, Outcome::Cancelled)]));
    peer.reply(asked.tag, Reply::Changed { count: 2, refused: Vec::new() });
    assert!(peer.request().is_none());
}

/// What is told of it; `place` is where the results are.
fn told(place: &str) -> String {
    let failed = "bulkhead: job 2 (factorial 12) failed after 1 attempt: no\n";
    format!("{failed}bulkhead: 3 of 6 results are in {place}, 1 job ended without one; missing: 14, 16\n")
}

#[test]
fn ctrl_c_keeps_what_was_done_and_says_what_is_missing() {
    for (signal, options) in [("-INT", ""), ("-TERM", " -q"), ("-INT", " --unordered")] {
        let desk = Desk::new();
        let line = format!("run factorial 11..16 -o out --with-input{options}");
        let output = desk.interrupted(&line, signal, "", half);
        let told = told(desk.path("out.partial").to_str().unwrap());
        let told = if options == " -q" { told.split_inclusive('\n').nth(1).unwrap() } else { &told };
        assert_eq!(said(&output), (Some(130), "", told), "{line}");
        let mut lines: Vec<String> = desk.text("out.partial").lines().map(str::to_owned).collect();
        lines.sort();
        assert_eq!(lines, ["11\tone", "13\tthree", "15\tfive"]);
        assert_eq!(
            (desk.text("out").as_str(), desk.names()),
            ("older", vec!["out".into(), "out.partial".into()])
        );
    }
}

/// The path itself is given only to what is complete, and a kept file is never written over.
#[test]
fn a_second_interrupted_run_keeps_its_own() {
    let desk = Desk::new();
    for name in ["out.partial", "out.partial-2"] {
        let output = desk.interrupted("run factorial 11..16 -o out", "-INT", "", half);
        assert!(text(&output.stderr).contains(&format!("/{name}, 1 job")), "{}", text(&output.stderr));
        assert_eq!(desk.text(name), "one\nthree\nfive\n", "in the order of the inputs");
    }
    assert_eq!(desk.text("out"), "older");
}

#[test]
fn objects_are_kept_with_their_failures() {
    let desk = Desk::new();
    let output = desk.interrupted("run factorial 11..16 -o out --json", "-INT", "", half);
    assert_eq!(said(&output), (Some(130), "", &*told(desk.path("out.partial").to_str().unwrap())));
    let ends: Vec<serde_json::Value> =
        desk.text("out.partial").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let outcomes: Vec<&str> = ends.iter().map(|end| end["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["done", "failed", "done", "done"]);
}

#[test]
fn a_pipe_has_what_was_done_and_the_rest_is_told() {
    let desk = Desk::new();
    let output = desk.interrupted("run factorial 11..16 -o -", "-INT", "one\nthree\n", half);
    assert_eq!(said(&output), (Some(130), "five\n", &*told("stdout")));
    assert_eq!(desk.names(), ["out"]);
}

/// Without `-o` the order alone tells the results apart.
#[test]
fn without_a_file_nothing_comes_out_of_turn() {
    let desk = Desk::new();
    let output = desk.interrupted("run factorial 11..16 -q", "-INT", "one\nthree\n", half);
    assert_eq!(said(&output), (Some(130), "", ""));
}

#[test]
fn nothing_is_kept_of_nothing() {
    let desk = Desk::new();
    let script = |mut peer: Peer, ready: Sender<()>| {
        let (tag, submit) = peer.submit().unwrap();
        peer.accept(tag, 1, submit.inputs.len());
        ready.send(()).unwrap();
        let asked = peer.request().unwrap();
        peer.reply(asked.tag, Reply::Changed { count: 6, refused: Vec::new() });
    };
    let output = desk.interrupted("run factorial 11..16 -o out", "-INT", "", script);
    assert_eq!((said(&output), desk.names()), ((Some(130), "", ""), vec!["out".to_owned()]));
}

/// The last job ends before the cancel comes to it: nothing is missing.
#[test]
fn a_batch_that_is_complete_all_the_same_has_its_path() {
    let desk = Desk::new();
    let script = |mut peer: Peer, ready: Sender<()>| {
        let (tag, submit) = peer.submit().unwrap();
        peer.accept(tag, 1, submit.inputs.len());
        peer.reply(tag, Reply::Ended(vec![done(1, b"one")]));
        ready.send(()).unwrap();
        let asked = peer.request().unwrap();
        peer.reply(tag, Reply::Ended(vec![done(2, b"two")]));
        peer.reply(asked.tag, Reply::Changed { count: 0, refused: Vec::new() });
    };
    let output = desk.interrupted("run factorial 1..2 -o out", "-INT", "", script);
    assert_eq!((said(&output), desk.text("out").as_str()), ((Some(130), "", ""), "one\ntwo\n"));
    assert_eq!(desk.names(), ["out"]);
}

#[test]
fn a_daemon_that_dies_leaves_what_it_has_sent() {
    let desk = Desk::new();
    let fake = Fake::serve(|mut peer| {
        let (tag, submit) = peer.submit().unwrap();
        peer.accept(tag, 1, submit.inputs.len());
        peer.reply(tag, Reply::Ended(vec![done(2, b"two")]));
    });
    let output = desk.bulkhead("run noop --count 3 -o out", &fake).output().unwrap();
    fake.finish();
    let (code, stdout, stderr) = said(&output);
    assert_eq!((code, stdout), (Some(122), ""));
    let place = desk.path("out.partial");
    let told = format!(
        "bulkhead: 1 of 3 results is in {}; missing: input 1, input 3\nbulkhead: 2 jobs had not ended",
        place.display()
    );
    assert!(stderr.starts_with(&told), "{stderr}");
    assert_eq!((desk.text("out.partial").as_str(), desk.text("out").as_str()), ("two\n", "older"));
}

//! Durable submits, against a daemon made by hand: their keys, a daemon that comes back, and what is refused.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "../../client/tests/fake/mod.rs"]
mod fake;

use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::os::unix::net::UnixListener;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use bulkhead_proto::client::message::Reply;
use bulkhead_proto::client::refusal::{BoundPart, Refusal};
use bulkhead_proto::ids::{JobId, Tag};
use bulkhead_proto::job::OutputMode;
use bulkhead_proto::limits::BATCH_MAX;
use fake::{Fake, Peer};

/// Runs the command against a daemon, and waits for both.
fn against(fake: Fake, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
    command.args(arguments).env("BULKHEAD_SOCKET", fake.path()).env_remove("BULKHEAD_LOG");
    let output = command.stdin(Stdio::null()).output().unwrap();
    fake.finish();
    output
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// The key of the next submit.
fn next_key(peer: &mut Peer) -> (Tag, String) {
    let (tag, submit) = peer.submit().unwrap();
    (tag, String::from_utf8(submit.durable.unwrap().key.unwrap()).unwrap())
}

#[test]
fn a_durable_submit_is_repeated_with_its_key_when_the_daemon_comes_back() {
    for (key, arguments) in [
        (None, &["submit", "--durable", "noop"][..]),
        (Some("night"), &["submit", "--durable", "--key", "night", "noop"]),
    ] {
        let (said, heard) = std::sync::mpsc::channel();
        let before = move |mut peer: Peer| said.send(next_key(&mut peer).1).unwrap();
        let after = move |mut peer: Peer| {
            let first = heard.recv().unwrap();
            assert!(key.is_none_or(|key| key == first), "{first}");
            let (tag, again) = next_key(&mut peer);
            assert_eq!(again, first);
            peer.accept(tag, 17, 1);
        };
        let fake = Fake::serve_each(vec![Box::new(before), Box::new(after)]);
        let output = against(fake, arguments);
        assert_eq!((code(&output), text(&output.stdout)), (0, "17\n"));
        assert!(
            text(&output.stderr).contains("was lost: waiting for it to come back"),
            "{}",
            text(&output.stderr)
        );
    }
}

#[test]
fn a_volatile_submit_is_never_repeated() {
    let script = |mut peer: Peer| {
        let (_, submit) = peer.submit().unwrap();
        assert_eq!(submit.durable, None);
    };
    let output = against(Fake::serve(script), &["submit", "--volatile", "noop"]);
    assert_eq!((code(&output), text(&output.stdout)), (69, ""));
}

#[test]
fn what_a_durable_submit_is_refused_for_is_said() {
    for (refusal, expected, said) in [
        (Refusal::NotDurable { why: "there is no state folder".to_owned() }, 75, "`--volatile` submits"),
        (Refusal::KeyTaken { first: JobId(5), count: 3 }, 1, "a different submit, jobs 5 to 7"),
    ] {
        let whole = refusal.to_string();
        let script = move |mut peer: Peer| {
            let (tag, key) = next_key(&mut peer);
            assert_eq!(key, "k");
            peer.reply(tag, Reply::Refused(refusal));
        };
        let output = against(Fake::serve(script), &["submit", "--durable", "--key", "k", "noop"]);
        assert_eq!((code(&output), text(&output.stdout)), (expected, ""));
        let stderr = text(&output.stderr);
        assert!(stderr.contains(&whole) && stderr.contains(said), "{stderr}");
    }
}

/// The key on the command line that repeats a submit.
fn repeating(key: &str) -> String {
    format!("the same command with --durable --key '{key}' prints")
}

#[test]
fn a_durable_submit_that_is_refused_midway_names_its_key_and_what_was_accepted() {
    let full = Refusal::Busy {
        what: "queued jobs".to_owned(),
        limit: 1,
        part: BoundPart::All,
        key: None,
        retry_after_ms: 1,
    };
    for refusal in [full, Refusal::Draining, Refusal::NotDurable { why: "no space left".to_owned() }] {
        let (said, heard) = std::sync::mpsc::channel();
        let script = move |mut peer: Peer| {
            let (tag, key) = next_key(&mut peer);
            said.send(key.clone()).unwrap();
            peer.accept(tag, 1, BATCH_MAX);
            let (tag, second) = next_key(&mut peer);
            assert_eq!(second, format!("{key}#1"));
            peer.reply(tag, Reply::Refused(refusal));
        };
        let output = against(Fake::serve(script), &["submit", "--durable", "--count", "10000", "noop"]);
        let (stderr, numbers) = (text(&output.stderr), text(&output.stdout).lines().count());
        assert_eq!((code(&output), numbers), (75, BATCH_MAX), "{stderr}");
        assert!(stderr.contains("4096 jobs accepted before this error"), "{stderr}");
        assert!(stderr.contains(&repeating(&heard.recv().unwrap())), "{stderr}");
    }
}

#[test]
fn a_durable_submit_without_an_answer_names_its_key() {
    for (reply, expected) in [
        (Reply::Refused(Refusal::Draining), 75),
        (Reply::Goodbye(Refusal::Draining), 75),
        (Reply::Accepted { first: JobId(1), count: 2, refused: None }, 69),
    ] {
        let (said, heard) = std::sync::mpsc::channel();
        let script = move |mut peer: Peer| {
            let (tag, key) = next_key(&mut peer);
            said.send(key).unwrap();
            peer.reply(tag, reply);
        };
        let output = against(Fake::serve(script), &["submit", "--durable", "noop"]);
        let stderr = text(&output.stderr);
        assert_eq!((code(&output), text(&output.stdout)), (expected, ""), "{stderr}");
        assert!(stderr.contains("0 jobs accepted before this error"), "{stderr}");
        assert!(stderr.contains(&repeating(&heard.recv().unwrap())), "{stderr}");
    }
}

#[test]
#[ignore = "waits for 30 s, as long as the command waits for an answer"]
fn a_durable_submit_whose_daemon_hangs_names_its_key() {
    let (said, heard) = std::sync::mpsc::channel();
    let script = move |mut peer: Peer| {
        said.send(next_key(&mut peer).1).unwrap();
        assert!(peer.request().is_none());
    };
    let output = against(Fake::serve(script), &["submit", "--durable", "noop"]);
    assert_eq!(code(&output), 69);
    assert!(text(&output.stderr).contains(&repeating(&heard.recv().unwrap())), "{}", text(&output.stderr));
}

#[test]
fn a_key_is_quoted_as_a_shell_reads_it() {
    let script = |mut peer: Peer| {
        let (tag, _) = next_key(&mut peer);
        peer.reply(tag, Reply::Refused(Refusal::Draining));
    };
    let output = against(Fake::serve(script), &["submit", "--durable", "--key", "o'clock", "noop"]);
    assert!(text(&output.stderr).contains(&repeating(r"o'\''clock")), "{}", text(&output.stderr));
}

#[test]
fn what_no_repeat_can_change_names_no_key() {
    let script = |mut peer: Peer| {
        let (tag, _) = next_key(&mut peer);
        peer.reply(tag, Reply::Refused(Refusal::Invalid { why: "no".to_owned() }));
    };
    let output = against(Fake::serve(script), &["submit", "--durable", "noop"]);
    assert_eq!(code(&output), 2);
    assert!(!text(&output.stderr).contains("--key"), "{}", text(&output.stderr));
}

/// The first daemon is the user's own. While it is away, another one listens at a place that the discovery tries after it.
#[test]
fn a_durable_submit_goes_on_at_the_daemon_where_it_began_alone() {
    let places = tempfile::tempdir().unwrap();
    let at = |folder: &str| {
        let folder = places.path().join(folder).join("bulkhead");
        std::fs::create_dir_all(&folder).unwrap();
        folder.join("bulkhead.sock")
    };
    let (first, next) = (at("run"), at("state"));
    let another = UnixListener::bind(next).unwrap();
    let away = first.clone();
    let before = move |mut peer: Peer| {
        next_key(&mut peer);
        std::fs::remove_file(away).unwrap();
    };
    let after = |mut peer: Peer| {
        let (tag, _) = next_key(&mut peer);
        peer.accept(tag, 17, 1);
    };
    let fake = Fake::serve_each(vec![Box::new(before), Box::new(after)]);
    std::os::unix::fs::symlink(fake.path(), &first).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
    command.args(["submit", "--durable", "noop"]).env_remove("BULKHEAD_SOCKET").env_remove("BULKHEAD_LOG");
    command
        .env("XDG_RUNTIME_DIR", places.path().join("run"))
        .env("XDG_STATE_HOME", places.path().join("state"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.contains("was lost: waiting for it to come back"), "{line}");
    // Time for ten tries, in which a command that looks for any daemon finds the other one.
    std::thread::park_timeout(Duration::from_millis(500));
    std::os::unix::fs::symlink(fake.path(), &first).unwrap();
    stderr.read_to_string(&mut line).unwrap();
    let output = child.wait_with_output().unwrap();
    another.set_nonblocking(true).unwrap();
    let asked = another.accept();
    assert!(matches!(&asked, Err(error) if error.kind() == ErrorKind::WouldBlock), "{asked:?}: {line}");
    assert_eq!((code(&output), text(&output.stdout)), (0, "17\n"), "{line}");
    fake.finish();
}

#[test]
fn a_durable_program_has_a_short_output_unless_a_long_one_is_asked_for() {
    for (flags, output) in [
        (&["--durable"][..], OutputMode::Inline),
        (&["--volatile"], OutputMode::Descriptor),
        (&["--durable", "--large"], OutputMode::Descriptor),
    ] {
        let script = move |mut peer: Peer| {
            let (tag, submit) = peer.submit().unwrap();
            assert_eq!(submit.policy.output, output);
            peer.accept(tag, 1, 1);
        };
        let arguments = [&["submit"][..], flags, &["exec", "--", "true"]].concat();
        assert_eq!(code(&against(Fake::serve(script), &arguments)), 0, "{flags:?}");
    }
}

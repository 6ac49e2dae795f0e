//! Durable jobs that have ended, after the daemon was killed and started again: each question is answered as before, from the journal.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::process::Output;

use bulkhead_tests::daemon::{Daemon, Setup, new_folder};

/// A daemon with a journal in its folder, and what starts it again.
fn with_journal() -> (Daemon, Setup) {
    let folder = new_folder();
    let config = format!("journal_folder = {:?}\n", folder.path().join("journal"));
    let setup = Setup { config, ..Setup::default() };
    (Daemon::start_in(folder, &setup), setup)
}

fn kill_and_start(daemon: &mut Daemon, setup: &Setup) {
    assert!(!daemon.end("KILL").success());
    daemon.start_again(setup);
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Exit code, stdout and stderr.
fn told(output: &Output) -> (Option<i32>, String, String) {
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn submit(daemon: &Daemon, arguments: &[&str]) -> String {
    let all = [&["submit", "--durable"][..], arguments].concat();
    daemon.ok(&all).trim().to_owned()
}

#[test]
fn each_question_is_answered_as_before_the_daemon_was_killed() {
    let (mut daemon, setup) = with_journal();
    let done = submit(&daemon, &["--key", "k", "factorial", "20"]);
    let failed = submit(&daemon, &["exec", "--", "sh", "-c", "echo out; exit 3"]);
    let crashed = submit(&daemon, &["--crashes-max", "1", "chaos", "segv"]);
    daemon.cli(&["wait", &done, &failed, &crashed]);
    let mut questions = Vec::new();
    for job in [&done, &failed, &crashed] {
        for verb in ["wait", "result", "job", "why", "cancel"] {
            let as_json: &[&str] = if verb == "job" { &["--json"] } else { &[] };
            let asked: Vec<String> =
                [&[verb, job.as_str()][..], as_json].concat().iter().map(|word| (*word).to_owned()).collect();
            questions.push(asked);
        }
    }
    let ask = |daemon: &Daemon, question: &Vec<String>| {
        let words: Vec<&str> = question.iter().map(String::as_str).collect();
        told(&daemon.cli(&words))
    };
    let before: Vec<_> = questions.iter().map(|question| ask(&daemon, question)).collect();
    kill_and_start(&mut daemon, &setup);
    for (question, before) in questions.iter().zip(before) {
        assert_eq!(ask(&daemon, question), before, "{question:?}");
    }
    assert_eq!(submit(&daemon, &["--key", "k", "factorial", "20"]), done, "the same submit is the same job");
    let other = daemon.cli(&["submit", "--durable", "--key", "k", "factorial", "21"]);
    assert_eq!(other.status.code(), Some(1), "{}", text(&other.stderr));
    assert!(text(&other.stderr).contains(&format!("job {done}")));
}

#[test]
fn what_the_journal_has_is_run_again_and_forgotten() {
    let (mut daemon, setup) = with_journal();
    let volatile = daemon.ok(&["submit", "noop"]).trim().to_owned();
    let crashed = submit(&daemon, &["--crashes-max", "1", "chaos", "segv"]);
    let failed = submit(&daemon, &["exec", "--", "false"]);
    daemon.cli(&["wait", &volatile, &crashed, &failed]);
    kill_and_start(&mut daemon, &setup);
    daemon.ok(&["retry", &crashed]);
    assert_eq!(daemon.cli(&["wait", &crashed]).status.code(), Some(125), "it crashes again");
    let detail: serde_json::Value = serde_json::from_str(&daemon.ok(&["job", &crashed, "--json"])).unwrap();
    assert_eq!(detail["row"]["attempts"], 2, "{detail}");
    daemon.ok(&["forget", &failed]);
    for job in [&failed, &volatile] {
        let gone = daemon.cli(&["wait", job]);
        assert_eq!(gone.status.code(), Some(122), "{}", text(&gone.stderr));
        let said = text(&gone.stderr);
        assert!(
            said.contains(&format!("job {job} is of an earlier run of the daemon, which ended at 20")),
            "{said}"
        );
        assert_eq!(daemon.cli(&["cancel", job]).status.code(), Some(1));
    }
    kill_and_start(&mut daemon, &setup);
    let detail: serde_json::Value = serde_json::from_str(&daemon.ok(&["job", &crashed, "--json"])).unwrap();
    assert_eq!(detail["row"]["attempts"], 2, "the journal has both");
    assert_eq!(daemon.cli(&["job", &failed]).status.code(), Some(1), "it stays forgotten");
}

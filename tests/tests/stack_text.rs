//! The text that a worker's own runtime writes of its stack: shown with the death of the task that ran, to its user and to no
//! other, and harmless whatever it is.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::job::Policy;
use bulkhead_proto::limits::STACK_TEXT_MAX_BYTES;
use bulkhead_tests::daemon::{Daemon, Setup, binary, eventually};
use bulkhead_tests::or_skip;
use bulkhead_tests::other_users::{
    ALICE, BOB, command_for_all, connect_as, open_to_all, run_as, system_config,
};
use bulkhead_tests::raid::may_become_others;
use bulkhead_tests::wire::submit;
use bulkhead_tests::writing::{ABORT, ASKED, DONE, FAULT, FLOOD, FORGE, FORGE_AND_HANG, NOTE, STILLBORN};
use serde_json::Value;

fn daemon_with(config: &str) -> Daemon {
    let config = format!("worker_program = {:?}\n{config}", binary("writing-worker"));
    Daemon::start_with(&Setup { workers: 1, config, ..Setup::default() })
}

/// The newest death.
fn newest(daemon: &Daemon) -> Value {
    serde_json::from_str(&daemon.ok(&["deaths", "--limit", "1", "--json"])).expect("one death")
}

/// Runs a job that kills its worker; its number and its death.
fn death_of(daemon: &Daemon, deed: &str) -> (String, Value) {
    let id = daemon.ok(&["submit", "noop", deed, "--crashes-max", "1"]).trim().to_owned();
    daemon.cli(&["wait", &id]);
    let death = newest(daemon);
    assert_eq!(death["job"].to_string(), id);
    (id, death)
}

#[test]
fn what_an_older_handler_writes_is_shown_and_the_death_keeps_its_name() {
    let daemon = daemon_with("");
    let (id, death) = death_of(&daemon, &format!("{FAULT}:"));
    assert_eq!(death["evidence"]["stack_text"], NOTE, "{death}");
    assert_eq!(death["death"]["death"], "fault");
    assert!(death["death"]["address"].as_u64().is_some_and(|address| address != 0), "{death}");
    for text in [daemon.ok(&["job", &id]), daemon.ok(&["deaths", "--evidence"])] {
        assert!(text.contains("\n  wrote     11\n"), "{text}");
    }
    let detail: Value = serde_json::from_str(&daemon.ok(&["job", &id, "--json"])).unwrap();
    assert_eq!(detail["deaths"][0]["evidence"]["stack_text"], NOTE);
    let died = daemon.events_named("died").pop().expect("an event");
    assert_eq!(died["evidence"]["stack_text"], "", "records are many and have no text");
}

/// The text of a task that is done is gone when the next one dies, in the same worker.
#[test]
fn a_text_is_not_charged_to_the_next_task() {
    let daemon = daemon_with("");
    eventually("both workers are there", || (daemon.workers().len() == 2).then_some(()));
    for round in 0..3 {
        daemon.ok(&["run", "noop", &format!("{DONE}:secret of round {round}")]);
        let (id, death) = death_of(&daemon, &format!("{ABORT}:"));
        assert_eq!(death["evidence"]["stack_text"], "", "{death}");
        assert!(!daemon.ok(&["job", &id]).contains("secret"));
    }
    let (_, death) = death_of(&daemon, &format!("{ABORT}:own"));
    assert_eq!(death["evidence"]["stack_text"], "own");
}

#[test]
fn a_page_full_of_control_characters_is_cut_and_harms_nobody() {
    let daemon = daemon_with("");
    let (id, death) = death_of(&daemon, &format!("{FLOOD}:\u{1b}[2J\u{202e}\r\n\u{9b}31m"));
    let text = death["evidence"]["stack_text"].as_str().unwrap();
    assert!(text.ends_with("[cut: the page for it is full]"), "{text:?}");
    assert!((STACK_TEXT_MAX_BYTES / 2..STACK_TEXT_MAX_BYTES + 64).contains(&text.len()), "{}", text.len());
    for arguments in [&["job", &id][..], &["deaths", "--evidence"], &["events"], &["why", &id]] {
        let text = daemon.ok(arguments);
        let is_harmless = |letter: char| letter == '\n' || !letter.is_control() && letter != '\u{202e}';
        assert!(text.chars().all(is_harmless), "{arguments:?}: {text:?}");
    }
    assert!(daemon.ok(&["job", &id]).contains("\\u{1b}[2J\\u{202e}"));
}

#[test]
fn the_text_is_shown_to_the_user_of_the_task_alone() {
    or_skip!(may_become_others());
    let daemon = daemon_with(&system_config(""));
    open_to_all(&daemon);
    let command = command_for_all(&daemon);
    let mut alice = connect_as(&daemon, ALICE).welcome();
    let policy = Policy { crashes_max: Some(1), ..Policy::default() };
    let mut job = submit("noop", &[&format!("{ABORT}:a word of Alice")], false);
    job.policy = policy;
    let Reply::Accepted { first, .. } = alice.call(Request::Submit(job)) else { panic!("not accepted") };
    eventually("it has died", || {
        let Reply::Deaths(rows) = alice.call(Request::Deaths { limit: 1 }) else { panic!("deaths") };
        rows.into_iter().next().filter(|row| row.death.evidence.stack_text == "a word of Alice")
    });
    let job = first.to_string();
    let seen_by = |uid: u32| {
        let show = |arguments: &[&str]| {
            String::from_utf8(run_as(uid, (&command, &daemon), arguments).stdout).unwrap()
        };
        [
            show(&["deaths", "--evidence"]),
            show(&["deaths", "--json"]),
            show(&["job", &job]),
            show(&["events"]),
        ]
        .map(|text| text.contains("a word of Alice"))
    };
    assert_eq!(seen_by(ALICE), [true, true, true, false]);
    assert_eq!(seen_by(BOB), [false; 4]);
}

/// A task in a worker that has run two others, with work ahead, says that its text was written for another offer: one that is
/// done, the next one, none, or one that never was. The daemon knows which offer was claimed, and shows the text for no job.
#[test]
fn a_text_that_names_another_offer_is_shown_for_no_job() {
    // The third offer is the task's own: then its text is shown, so the numbers are right.
    for (seq, is_shown) in [(3, true), (0, false), (1, false), (2, false), (4, false), (u64::MAX, false)] {
        check_forged(&daemon_with(""), &format!("{FORGE}:{seq}:a forged text"), is_shown, &[]);
    }
}

/// The same of a task that hangs and whose worker is asked for its stack.
#[test]
fn a_forged_text_of_a_task_that_hangs_is_shown_for_no_job() {
    for (seq, is_shown) in [(3, true), (2, false), (4, false)] {
        let daemon = daemon_with(&format!("worker_args = [{ASKED:?}]"));
        let deed = format!("{FORGE_AND_HANG}:{seq}:a forged text");
        check_forged(&daemon, &deed, is_shown, &["--timeout", "200ms"]);
    }
}

/// Runs two tasks, then one that forges and another one behind it.
fn check_forged(daemon: &Daemon, deed: &str, is_shown: bool, limit: &[&str]) {
    let done = format!("{DONE}:");
    let mut jobs = Vec::new();
    for _ in 0..2 {
        jobs.push(daemon.ok(&["submit", "noop", &done]).trim().to_owned());
        daemon.ok(&["wait", &jobs[jobs.len() - 1]]);
    }
    let both = [&["submit", "noop", "--each", deed, &done, "--crashes-max", "1"], limit].concat();
    let both = daemon.ok(&both);
    jobs.extend(both.split_whitespace().map(str::to_owned));
    assert_eq!(jobs.len(), 4, "{both}");
    daemon.cli(&["wait", &jobs[2], &jobs[3]]);
    let death = newest(daemon);
    assert_eq!(death["job"].to_string(), jobs[2], "{death}");
    let has_text = |text: String| text.contains("  wrote     a forged text");
    let mut shown = vec![death["evidence"]["stack_text"] != ""];
    shown.push(has_text(daemon.ok(&["deaths", "--evidence"])));
    shown.push(has_text(daemon.ok(&["job", &jobs[2]])));
    assert_eq!(shown, [is_shown; 3], "{deed}: {death}");
    for job in [&jobs[0], &jobs[1], &jobs[3]] {
        assert!(!has_text(daemon.ok(&["job", job])), "{deed}: job {job}");
    }
}

/// Code of others runs in the start of a worker too: where it crashes is known.
#[test]
fn a_crash_in_the_start_of_a_worker_leaves_its_place() {
    let program = binary("writing-worker");
    let config = format!(
        "[pools.bad]\nworker_program = {program:?}\nworker_args = [{STILLBORN:?}]\n[kinds.noop]\npool = \"bad\"\n"
    );
    let daemon = Daemon::start_with(&Setup { workers: 1, config, ..Setup::default() });
    let died = eventually("a worker has died", || daemon.events_named("died").into_iter().next());
    assert_eq!(died["death"]["death"], "fault", "{died}");
    assert!(died["evidence"]["frames"].as_array().is_some_and(|frames| !frames.is_empty()), "{died}");
}

//! What is known of a death beside its name: where it was, how far, and what it said last, whoever ends it and
//! whichever thread it is; and what a hostile worker leaves there harms nobody who looks.

use std::path::Path;

use bulkhead_proto::client::places;
use bulkhead_proto::client::view::WorkerState;
use bulkhead_tests::daemon::{Daemon, Setup, binary, eventually, send_signal};
use bulkhead_tests::hostile::BAIT;
use bulkhead_tests::odd;
use bulkhead_tests::program_file::copy_program;
use bulkhead_tests::siege::Siege;
use serde_json::{Value, json};

/// A daemon with these workers.
fn daemon_of(program: &Path) -> Daemon {
    let config = format!("worker_program = {program:?}\n");
    Daemon::start_with(&Setup { config, ..Setup::default() })
}

/// The newest death.
fn newest(daemon: &Daemon) -> Value {
    let text = daemon.ok(&["deaths", "--limit", "1", "--json"]);
    serde_json::from_str(&text).expect("one death")
}

/// Runs a job that kills its worker once; its death.
fn death_of(daemon: &Daemon, deed: &str) -> Value {
    let id = daemon.ok(&["submit", "noop", deed, "--crashes-max", "1"]).trim().to_owned();
    daemon.cli(&["wait", &id]);
    let death = newest(daemon);
    assert_eq!(death["job"].to_string(), id);
    death
}

/// Whether a line of the backtrace is of this function, with its place in this file.
fn is_traced(death: &Value, function: &str, file: &str) -> bool {
    let lines = death["backtrace"].as_array().expect("a list of lines");
    let is_it = |line: &str| line.starts_with(function) && line.contains(file);
    lines.iter().filter_map(Value::as_str).any(is_it)
}

#[test]
fn after_a_kill_from_outside_progress_and_last_words_are_whole() {
    let daemon = daemon_of(&binary("odd-worker"));
    let id = daemon.ok(&["submit", "noop", odd::TELL, "--crashes-max", "1"]).trim().to_owned();
    let victim = daemon.await_worker(WorkerState::Busy);
    let pid = victim.pid.expect("a busy worker has a process");
    let folders = std::fs::read_dir(places::boot_folder(&daemon.socket())).expect("it is there").flatten();
    let own = format!("w{}-", victim.worker);
    let is_own = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&own);
    let folder = folders.into_iter().find(is_own).expect("each worker has a folder").path();
    eventually("it has told all", || folder.join(odd::TOLD).exists().then_some(()));
    send_signal(pid, "KILL");
    daemon.cli(&["wait", &id]);
    let evidence = &newest(&daemon)["evidence"];
    assert_eq!(evidence["progress"], json!({ "done": 3, "total": 7 }));
    assert_eq!((&evidence["last_words"], &evidence["frames"]), (&json!(odd::WORDS), &json!([])));
    let died = daemon.events_named("died").into_iter().find(|died| died["pid"] == pid);
    assert_eq!(died.expect("its death is an event")["evidence"], *evidence);
    for text in [daemon.ok(&["job", &id]), daemon.ok(&["deaths", "--evidence"]), daemon.ok(&["events"])] {
        assert!(text.contains(r"row 3, \u{1b}[31mred\n"), "{text}");
    }
    assert!(daemon.ok(&["job", &id]).contains("3 of 7"));
}

#[test]
fn threads_of_a_kinds_own_are_traced_too() {
    let daemon = daemon_of(&binary("odd-worker"));
    let death = death_of(&daemon, odd::THREAD);
    assert_eq!(death["death"]["death"], "fault");
    assert!(is_traced(&death, "bulkhead_sys::raise::fault", "raise.rs:"), "{death}");
    let death = death_of(&daemon, odd::THREAD_OVERFLOW);
    assert_eq!(death["death"]["death"], "stack-overflow");
    assert!(is_traced(&death, "bulkhead_tests::odd::deeper", "odd.rs:"), "{death}");
}

/// abort(3) raises its signal in libc: the frames of libc stand before those of the program.
#[test]
fn frames_of_libraries_are_shown_by_name_and_offset() {
    let daemon = Daemon::start();
    let id = daemon.ok(&["submit", "chaos", "abort", "--crashes-max", "1"]).trim().to_owned();
    daemon.cli(&["wait", &id]);
    let death = newest(&daemon);
    let innermost = &death["evidence"]["other_frames"][0];
    assert_eq!(
        (innermost["image"].as_str().map(|name| &name[..4]), &innermost["after"]),
        (Some("libc"), &json!(0))
    );
    let lines = death["backtrace"].as_array().expect("a list of lines");
    assert!(
        lines[0].as_str().is_some_and(|line| line.starts_with("libc") && line.contains("+0x")),
        "{death}"
    );
    for text in [daemon.ok(&["job", &id]), daemon.ok(&["deaths", "--evidence"])] {
        assert!(text.contains("  at        libc"), "{text}");
    }
}

#[test]
fn a_worker_program_that_was_replaced_is_not_asked_for_names() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = folder.path().join("worker");
    copy_program(&binary("odd-worker"), &program);
    let daemon = daemon_of(&program);
    let id = daemon.ok(&["submit", "noop", odd::THREAD, "--crashes-max", "1"]).trim().to_owned();
    daemon.cli(&["wait", &id]);
    assert!(is_traced(&newest(&daemon), "bulkhead_sys::raise::fault", "raise.rs:"));
    let other = folder.path().join("other");
    copy_program(&binary("odd-worker"), &other);
    std::fs::rename(&other, &program).expect("it is replaced");
    let shown = daemon.ok(&["job", &id]);
    assert!(shown.contains("it is not the file that ran") && shown.contains("  at        0x"), "{shown}");
    assert!(!is_traced(&newest(&daemon), "bulkhead_sys", ""), "names of another file");
}

#[test]
fn garbage_for_evidence_harms_nobody_who_looks() {
    let mut siege = Siege::begin(&["evidence-of-garbage"], 1);
    let death = death_of(&siege.daemon, BAIT);
    siege.await_peace();
    let daemon = &siege.daemon;
    let evidence = &death["evidence"];
    assert_eq!(evidence["progress"], json!({ "done": u64::MAX, "total": 1 }));
    assert_eq!(evidence["frames"].as_array().map(Vec::len), Some(bulkhead_proto::limits::BACKTRACE_MAX));
    let others = evidence["other_frames"].as_array().expect("a list");
    assert_eq!(others.len(), bulkhead_proto::limits::IMAGES_MAX, "those whose names are there");
    assert!(
        others.iter().all(|other| other["image"].as_str().is_some_and(|name| name.starts_with("?[2J???")))
    );
    assert!(evidence["last_words"].as_str().is_some_and(|words| words.contains("\u{1b}[2J")));
    let id = death["job"].to_string();
    for arguments in [&["job", &id][..], &["deaths", "--evidence"], &["events"], &["why", &id]] {
        let text = daemon.ok(arguments);
        let is_harmless = |letter: char| letter == '\n' || !letter.is_control() && letter != '\u{202e}';
        assert!(text.chars().all(is_harmless), "{arguments:?}: {text:?}");
    }
    assert!(!siege.daemon.log().contains('\u{1b}'), "{}", siege.daemon.log());
}

/// Prints how long a death took to become an event, for a small worker and for one that holds much memory; asserts
/// nothing about time.
#[test]
fn the_time_from_death_to_event_by_size() {
    let daemon = daemon_of(&binary("odd-worker"));
    for (mebibytes, rounds) in [(0_usize, 40), (512, 8)] {
        for _ in 0..rounds {
            death_of(&daemon, &format!("{}{}", odd::GROW, mebibytes << 20));
        }
        let died = daemon.events_named("died");
        let mut spans: Vec<u64> =
            died.iter().rev().take(rounds).filter_map(|died| died["noticed_after_us"].as_u64()).collect();
        assert_eq!(spans.len(), rounds, "each moment of death is known");
        spans.sort_unstable();
        let (p50, worst) = (spans[rounds / 2], spans[rounds - 1]);
        println!("{mebibytes:>4} MiB more: death to event p50 {p50} us, longest {worst} us, of {rounds}");
    }
}

//! Worker programs as others write them, with a real daemon: what they may do, and what the daemon says of it.

use bulkhead_tests::daemon::{Daemon, Setup, binary};
use bulkhead_tests::foreign::{LONG, LONG_BYTES, PAST_THE_CHECKS, VARIABLES};

/// A daemon whose workers run the program, with these lines in its configuration.
fn daemon_with(lines: &str) -> Daemon {
    let config = format!("worker_program = {:?}\n{lines}", binary("foreign-worker"));
    Daemon::start_with(&Setup { workers: 1, config, ..Setup::default() })
}

/// A job may write files of its own of any length, also beside an output in memory, whose length stays bounded.
#[test]
fn files_of_its_own_may_be_long_and_its_output_may_not() {
    let daemon = daemon_with("[kinds.noop]\noutput_max_bytes = 100000\n");
    let long = daemon.folder().join("long");
    let deed = format!("{LONG}:{}", long.display());
    for flags in [&["run", "noop"][..], &["run", "noop", "--large"]] {
        daemon.ok(&[flags, &[&deed]].concat());
        assert_eq!(std::fs::metadata(&long).expect("it was made").len(), LONG_BYTES, "{flags:?}");
        std::fs::remove_file(&long).expect("it is there");
    }
    let fits = daemon.ok(&["run", "noop", "--large", &format!("{PAST_THE_CHECKS}:100000")]);
    assert_eq!(fits.trim_end().len(), 100_000);
    let failed = daemon.cli(&["run", "noop", "--large", &format!("{PAST_THE_CHECKS}:100001")]);
    let text = String::from_utf8_lossy(&failed.stderr);
    assert_eq!(failed.status.code(), Some(1), "{text}");
    assert!(text.contains("longer than the 100000 bytes") && text.contains("output_max_bytes"), "{text}");
    assert_eq!(daemon.events_named("died").len(), 0, "the worker has done nothing wrong");
}

/// `TMPDIR` is the daemon's from the first instruction of the program on, and no other variable changes later.
#[test]
fn temporary_files_go_where_those_of_the_daemon_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let named = format!("TMPDIR={}", folder.path().display());
    for (through, wanted) in [(vec!["env", &named], Some(&named)), (vec!["env", "-u", "TMPDIR"], None)] {
        let config = format!("worker_program = {:?}\n", binary("foreign-worker"));
        let through = through.into_iter().map(str::to_owned).collect();
        let daemon = Daemon::start_with(&Setup { workers: 1, config, through, ..Setup::default() });
        let told = daemon.ok(&["run", "noop", VARIABLES]);
        let (before, now) = told.trim_end().split_once('\n').expect("two lines");
        assert_eq!(before, now);
        let found = before.split(' ').find(|variable| variable.starts_with("TMPDIR="));
        assert_eq!(found, wanted.map(String::as_str), "{before}");
    }
}

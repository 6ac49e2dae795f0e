//! The start of a run: what is refused and in which words, and the numbers of each run.

#![allow(clippy::unwrap_used)]

mod common;
#[macro_use]
#[path = "../../../tests/src/skip.rs"]
#[allow(unreachable_pub)]
mod skip;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use bulkhead_facts::fact::FactNo;
use bulkhead_journal::NotQueued;
use bulkhead_journal::answer::JournalAnswer;
use bulkhead_journal::bounds::BLOCK;
use bulkhead_journal::fault::OpenNote;
use bulkhead_journal::numbers::{NUMBER_KINDS, NextNumbers, NumberKind};
use bulkhead_journal::opening::OpenJournal;
use bulkhead_journal::reader::JournalReader;
use bulkhead_journal::settings::JournalSettings;
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::ids::JobId;
use common::{Desk, accept, end, settings};
use rusqlite::Connection;

/// Why the journal in a folder cannot be opened.
fn refusal(folder: &Path) -> String {
    OpenJournal::open(settings(folder)).unwrap_err().to_string()
}

/// What people should know of a start.
fn notes(folder: &Path) -> Vec<OpenNote> {
    OpenJournal::open(settings(folder)).unwrap().notes().to_vec()
}

/// A folder with a journal that was used and closed.
fn used() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut desk = Desk::open(folder.path());
    desk.push(accept(1));
    desk.push(end(1, Some(1), Outcome::Done, bulkhead_sys::clock::wall_us()));
    assert!(desk.await_stored().is_empty() && desk.close());
    folder
}

/// What a power cut would leave of a folder in use.
fn crash_copy(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in ["journal.db", "journal.db-wal", "numbers"] {
        let bytes = fs::read(folder.join(name)).unwrap();
        fs::write(copy.path().join(name), bytes).unwrap();
    }
    copy
}

#[test]
fn a_database_of_another_program_or_version_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("journal.db");
    let foreign = Connection::open(&database).unwrap();
    foreign.execute_batch("CREATE TABLE bookmarks(url TEXT); INSERT INTO bookmarks VALUES ('x')").unwrap();
    drop(foreign);
    for bytes in
        [fs::read(&database).unwrap(), b"not a database at all, and longer than its head is. ".repeat(99)]
    {
        fs::write(&database, &bytes).unwrap();
        let text = refusal(folder.path());
        assert!(text.contains("journal.db is no journal of Bulkhead: move it away"), "{text}");
        assert_eq!(fs::read(&database).unwrap(), bytes);
    }
    let folder = used();
    let newer = Connection::open(folder.path().join("journal.db")).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    drop(newer);
    let text = refusal(folder.path());
    assert!(text.contains("has schema 99 and this version of Bulkhead knows 1: install"), "{text}");
}

#[test]
fn a_damaged_database_is_refused_and_a_torn_log_is_not() {
    let folder = used();
    let database = folder.path().join("journal.db");
    let mut bytes = fs::read(&database).unwrap();
    // All but the head of the file.
    bytes[100..].fill(0x5a);
    fs::write(&database, &bytes).unwrap();
    let text = refusal(folder.path());
    assert!(text.contains("journal.db is damaged (") && text.contains("restore a copy"), "{text}");

    let folder = tempfile::tempdir().unwrap();
    let mut desk = Desk::open(folder.path());
    desk.push(accept(1));
    desk.await_stored();
    let before = fs::metadata(folder.path().join("journal.db-wal")).unwrap().len();
    desk.push(accept(2));
    desk.await_stored();
    let copy = crash_copy(folder.path());
    let log = fs::OpenOptions::new().write(true).open(copy.path().join("journal.db-wal")).unwrap();
    log.set_len(before + 700).unwrap();
    assert!(notes(copy.path()).iter().any(|note| matches!(note, OpenNote::UncleanEnd { .. })));
    let reader = JournalReader::open(copy.path()).unwrap();
    assert!(reader.job(JobId(1)).unwrap().is_some() && reader.job(JobId(2)).unwrap().is_none());
    assert!(desk.close());
}

#[test]
fn a_folder_that_others_may_change_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o770)).unwrap();
    let text = refusal(folder.path());
    assert!(
        text.contains("other users may write to the state folder") && text.contains("(mode 0770)"),
        "{text}"
    );
    fs::write(folder.path().join("file"), "").unwrap();
    assert!(refusal(&folder.path().join("file")).contains("is no folder"));
    fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
    if chown(folder.path(), Some(65_534), None).is_err() {
        skip!("only root can give a folder away");
    }
    let text = refusal(folder.path());
    assert!(text.contains("belongs to user 65534 and not to user 0, who runs this daemon"), "{text}");
}

#[test]
fn other_users_cannot_read_what_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let desk = Desk::open(folder.path());
    for name in ["journal.db", "journal.db-wal", "journal.db-shm"] {
        let mode = fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert!(desk.close());
}

#[test]
fn a_folder_in_use_or_without_room_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("a/b");
    let link = folder.path().join("link");
    symlink(&missing, &link).unwrap();
    let open = OpenJournal::open(settings(&missing)).unwrap();
    assert_eq!(fs::metadata(&missing).unwrap().permissions().mode() & 0o777, 0o700);
    for path in [&missing, &link] {
        let text = refusal(path);
        assert!(
            text.contains(&format!("is in use by process {}: stop that daemon", std::process::id())),
            "{text}"
        );
    }
    drop(open);
    OpenJournal::open(settings(&link)).unwrap();
    let greedy = JournalSettings { room_min_bytes: u64::MAX, ..settings(&missing) };
    let text = OpenJournal::open(greedy).unwrap_err().to_string();
    assert!(text.contains("bytes left and 18446744073709551615 are needed: make room"), "{text}");
}

#[test]
fn a_database_that_another_program_locks_is_refused() {
    let folder = used();
    let other = Connection::open(folder.path().join("journal.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for _ in 0..2 {
        let text = refusal(folder.path());
        assert!(
            text.starts_with("another program has locked ") && text.contains("end it, and start"),
            "{text}"
        );
    }
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(notes(folder.path()), [], "a start that failed leaves no trace");
}

#[test]
fn a_folder_in_memory_is_said_to_be_gone_at_reboot() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let text = notes(folder.path())[0].to_string();
    assert!(text.ends_with("is in memory: durable jobs are gone at reboot"), "{text}");
}

#[test]
fn numbers_go_on_whatever_is_lost_of_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let first = OpenJournal::open(settings(folder.path())).unwrap();
    assert!(NUMBER_KINDS.iter().all(|kind| first.first_numbers().of(*kind) == 1));
    assert!(matches!(first.notes(), [OpenNote::New { .. }]), "{:?}", first.notes());
    let desk = Desk::start(first);
    desk.writer.reserve(NumberKind::Job, 2 * BLOCK + 1);
    assert_eq!(desk.answer(), JournalAnswer::Reserved { kind: NumberKind::Job, next: 2 * BLOCK + 1 });
    let copy = crash_copy(folder.path());
    // A clean end gives back what was not used.
    let mut unused = desk.first_numbers;
    unused.set(NumberKind::Job, 78);
    desk.writer.close(unused);
    assert_eq!(desk.answer(), JournalAnswer::Closed { is_clean: true });
    desk.writer.join();
    let second = OpenJournal::open(settings(folder.path())).unwrap();
    assert_eq!((second.first_numbers().of(NumberKind::Job), second.epoch().number), (78, 2));
    assert_eq!(second.notes(), []);
    assert!(second.before().is_some_and(|run| run.ended_us.is_some() && run.epoch.number == 1));
    // A number that was given out before this run is not given back by it, nor one that is not reserved.
    let desk = Desk::start(second);
    let mut unused = NextNumbers::default();
    unused.set(NumberKind::Worker, u64::MAX >> 1);
    desk.writer.close(unused);
    assert!(matches!(desk.writer.push(FactNo(1), accept(1)), Err(NotQueued::Closing(_))));
    assert_eq!(desk.answer(), JournalAnswer::Closed { is_clean: true });
    desk.writer.join();
    let third = OpenJournal::open(settings(folder.path())).unwrap();
    assert_eq!(third.first_numbers().of(NumberKind::Job), 78);
    assert_eq!(third.first_numbers().of(NumberKind::Worker), BLOCK + 1);
    drop(third);

    // After a crash the reserved ones are not given out again: from the database and from the file alike.
    for lost in ["", "numbers", "journal.db"] {
        let image = tempfile::tempdir().unwrap();
        for name in ["journal.db", "journal.db-wal", "numbers"] {
            if name != lost && (lost != "journal.db" || name == "numbers") {
                fs::write(image.path().join(name), fs::read(copy.path().join(name)).unwrap()).unwrap();
            }
        }
        let next = OpenJournal::open(settings(image.path())).unwrap();
        assert_eq!(next.first_numbers().of(NumberKind::Job), 2 * BLOCK + 1, "without {lost:?}");
        assert_eq!(next.first_numbers().of(NumberKind::Worker), BLOCK + 1, "without {lost:?}");
        let is_gone =
            matches!(next.notes()[0], OpenNote::DatabaseGone { next_job, .. } if next_job == 2 * BLOCK + 1);
        assert_eq!(is_gone, lost == "journal.db", "{:?}", next.notes());
    }
    fs::write(copy.path().join("numbers"), "x").unwrap();
    assert!(refusal(copy.path()).contains("numbers is damaged: restore it"));
}

#[test]
fn an_older_copy_repeats_no_number() {
    let folder = used();
    let old = fs::read(folder.path().join("journal.db")).unwrap();
    let mut next_job = 0;
    for _ in 0..3 {
        let journal = OpenJournal::open(settings(folder.path())).unwrap();
        next_job = journal.first_numbers().of(NumberKind::Job) + 10;
        let desk = Desk::start(journal);
        let mut unused = desk.first_numbers;
        unused.set(NumberKind::Job, next_job);
        desk.writer.close(unused);
        desk.writer.join();
    }
    fs::write(folder.path().join("journal.db"), old).unwrap();
    let journal = OpenJournal::open(settings(folder.path())).unwrap();
    assert_eq!(journal.first_numbers().of(NumberKind::Job), next_job);
    assert_eq!(journal.epoch().number, 5);
    assert!(matches!(journal.notes(), [OpenNote::OlderCopy { .. }]), "{:?}", journal.notes());
}

#[test]
fn a_number_of_an_earlier_run_leads_to_that_run() {
    let folder = tempfile::tempdir().unwrap();
    let desk = Desk::open(folder.path());
    let copy = crash_copy(folder.path());
    assert!(desk.close());
    let journal = OpenJournal::open(settings(copy.path())).unwrap();
    let reader = JournalReader::open(copy.path()).unwrap();
    let old = reader.run_of(JobId(5)).unwrap().unwrap();
    assert_eq!((old.epoch.number, old.ended_us), (1, None));
    let own = reader.run_of(JobId(BLOCK + 1)).unwrap().unwrap();
    assert_eq!(own.epoch, *journal.epoch());
    assert_eq!(own.epoch.pid, std::process::id());
}

#[test]
fn a_start_long_after_the_last_commit_doubts_the_clock() {
    const DAY_US: i64 = 86_400_000_000;
    for (moved_us, is_doubted) in [(0, false), (-2 * DAY_US, true), (365 * DAY_US, true)] {
        let folder = used();
        let connection = Connection::open(folder.path().join("journal.db")).unwrap();
        connection.execute("UPDATE epoch SET seen_us = seen_us + ?", [moved_us]).unwrap();
        connection.execute("UPDATE result SET at_us = 7", []).unwrap();
        drop(connection);
        let mut desk = Desk::open(folder.path());
        // The ended job is old beyond measure: it goes, unless the clock is doubted.
        let mut told = Vec::new();
        desk.push(accept(50));
        told.extend(
            desk.answers_until(|answer| matches!(answer, JournalAnswer::Stored { up_to: FactNo(1), .. })),
        );
        let expected =
            if is_doubted { vec![] } else { vec![JournalAnswer::Evicted { jobs: vec![JobId(1)] }] };
        assert_eq!(told, expected, "{moved_us}");
        assert!(desk.close());
    }
}

/// Whether a start doubts the clock. The run ends clean, or is killed.
fn doubts(folder: &Path, is_killed: bool) -> bool {
    let journal = OpenJournal::open(settings(folder)).unwrap();
    let is_doubted = journal.notes().contains(&OpenNote::ClockJumped);
    if is_killed {
        drop(journal);
    } else {
        assert!(Desk::start(journal).close());
    }
    is_doubted
}

#[test]
fn a_restart_forgets_no_doubt_of_the_clock() {
    let folder = used();
    let sql = |sql: &str| {
        Connection::open(folder.path().join("journal.db")).unwrap().execute(sql, []).unwrap();
    };
    sql("UPDATE epoch SET seen_us = seen_us - 31536000000000");
    for is_killed in [true, true, false, true] {
        assert!(doubts(folder.path(), is_killed), "the last commit has the time of the wrong clock");
    }
    // The same after a boot, whose clock begins anew.
    sql("UPDATE epoch SET boot_id = 'other', seen_boot_us = seen_boot_us + 7000000000000, \
         doubted_until_us = doubted_until_us + 7000000000000");
    assert!(doubts(folder.path(), false) && doubts(folder.path(), false));
    sql("UPDATE epoch SET doubted_until_us = 1");
    assert!(!doubts(folder.path(), false), "the doubt is over");
}

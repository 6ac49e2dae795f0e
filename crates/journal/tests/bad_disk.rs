//! A disk that fails, and files that others change under the writer: `Stored` is answered only for what is stored, and that is
//! not lost.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use bulkhead_facts::fact::{Fact, FactNo};
use bulkhead_facts::fold::DurableState;
use bulkhead_journal::answer::JournalAnswer;
use bulkhead_journal::numbers::NumberKind;
use bulkhead_journal::opening::OpenJournal;
use bulkhead_journal::reader::JournalReader;
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::ids::JobId;
use common::{Desk, accept, assert_holds, end, payload, settings, submit};
use rusqlite::Connection;

fn now_us() -> u64 {
    bulkhead_sys::clock::wall_us()
}

/// A desk whose job 1 is stored.
fn with_one_job(folder: &Path) -> (Desk, DurableState) {
    let mut desk = Desk::open(folder);
    let mut state = DurableState::default();
    state.add(&accept(1)).unwrap();
    desk.push(accept(1));
    assert_eq!(desk.await_stored(), []);
    (desk, state)
}

#[test]
fn a_lock_of_another_program_is_told_and_results_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (mut desk, mut state) = with_one_job(folder.path());
    let other = Connection::open(folder.path().join("journal.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let ended = end(1, Some(1), Outcome::Done, now_us());
    state.add(&ended).unwrap();
    let result = desk.push(ended);
    let refused = desk.push(accept(2));
    desk.writer.reserve(NumberKind::Job, 5_000_000);
    let mut not_stored = Vec::new();
    let why = loop {
        match desk.answer() {
            JournalAnswer::NotStored { from, to, .. } => not_stored.push((from, to)),
            JournalAnswer::Degraded { why } => break why,
            other => panic!("{other:?} while the database is locked"),
        }
    };
    assert_eq!(why, "another program has locked the database for 1 s");
    // What arrives while nothing can be stored is refused as well.
    let late = desk.push(accept(3));
    while not_stored.last().is_none_or(|(_, to)| *to < late) {
        let JournalAnswer::NotStored { from, to, .. } = desk.answer() else { panic!("something is stored") };
        not_stored.push((from, to));
    }
    assert!(
        not_stored.iter().any(|(from, to)| *from <= result.min(refused) && *to >= refused),
        "{not_stored:?}"
    );
    other.execute_batch("COMMIT").unwrap();
    drop(other);
    let told = desk.answers_until(|answer| matches!(answer, JournalAnswer::Reserved { .. }));
    assert!(told.contains(&JournalAnswer::Recovered), "{told:?}");
    assert_holds(folder.path(), &state);
    desk.push(accept(4));
    state.add(&accept(4)).unwrap();
    assert_eq!(desk.await_stored(), []);
    assert_holds(folder.path(), &state);
    assert!(desk.close());
}

/// Does something to the files of a running journal, then stores a fact more: why it is not stored.
fn after(folder: &Path, harm: impl FnOnce(&Path)) -> (Desk, String) {
    let (mut desk, _) = with_one_job(folder);
    harm(folder);
    desk.push(end(1, Some(1), Outcome::Done, now_us()));
    loop {
        match desk.answer() {
            JournalAnswer::Degraded { why } => return (desk, why),
            JournalAnswer::NotStored { .. } => {}
            other => panic!("{other:?} is answered"),
        }
    }
}

#[test]
fn a_database_that_is_removed_or_replaced_stores_nothing_more() {
    for (name, what) in
        [("journal.db", "journal.db was removed"), ("journal.db-wal", "journal.db-wal was removed")]
    {
        let folder = tempfile::tempdir().unwrap();
        let (desk, why) = after(folder.path(), |folder| fs::remove_file(folder.join(name)).unwrap());
        assert!(why.ends_with(what), "{why}");
        assert!(name != "journal.db" || !desk.close(), "nothing of it was stored");
    }
    let folder = tempfile::tempdir().unwrap();
    let (desk, why) = after(folder.path(), |folder| {
        let copy = fs::read(folder.join("journal.db")).unwrap();
        fs::remove_file(folder.join("journal.db")).unwrap();
        fs::write(folder.join("journal.db"), copy).unwrap();
    });
    assert!(why.ends_with("journal.db was replaced by another file"), "{why}");
    let there = fs::read(folder.path().join("journal.db")).unwrap();
    assert!(!desk.close());
    assert_eq!(fs::read(folder.path().join("journal.db")).unwrap(), there, "another file is left as it is");
    let folder = tempfile::tempdir().unwrap();
    let (_desk, why) = after(folder.path(), |folder| {
        fs::hard_link(folder.join("journal.db"), folder.join("second")).unwrap();
    });
    assert!(why.ends_with("journal.db has 2 names"), "{why}");
}

#[test]
fn a_log_that_is_cut_loses_nothing_unsaid() {
    let folder = tempfile::tempdir().unwrap();
    let cut = |folder: &Path| {
        let log = fs::OpenOptions::new().write(true).open(folder.join("journal.db-wal")).unwrap();
        log.set_len(0).unwrap();
    };
    let (desk, why) = after(folder.path(), cut);
    assert!(why.contains("journal.db-wal was cut to 0 bytes, it had "), "{why}");
    // Everything was in the log alone.
    let why = desk.await_degraded();
    assert!(why.contains("journal.db has no row of this run, restart the daemon: "), "{why}");
    assert!(!desk.close());
    let folder = tempfile::tempdir().unwrap();
    assert!(Desk::open(folder.path()).close());
    let (mut desk, _) = with_one_job(folder.path());
    let other = Connection::open(folder.path().join("journal.db")).unwrap();
    other.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
    drop(other);
    desk.push(accept(2));
    assert_eq!(desk.await_stored(), []);
    cut(folder.path());
    desk.push(end(1, Some(1), Outcome::Done, now_us()));
    assert!(desk.await_degraded().contains("journal.db-wal was cut"));
    // The last job that was told as stored was in the log alone: this run stores nothing more.
    let why = desk.await_degraded();
    assert!(why.ends_with("lacks 1 transactions that were stored: restart the daemon"), "{why}");
    assert!(!desk.close());
    let folder = tempfile::tempdir().unwrap();
    let (_desk, why) = after(folder.path(), |folder| {
        let database = fs::OpenOptions::new().write(true).open(folder.join("journal.db")).unwrap();
        database.set_len(100).unwrap();
    });
    assert!(why.contains("journal.db was cut to 100 bytes, it had "), "{why}");
}

#[test]
fn a_log_that_another_program_has_emptied_into_the_database_is_no_loss() {
    let folder = tempfile::tempdir().unwrap();
    let (desk, why) = after(folder.path(), |folder| {
        let other = Connection::open(folder.join("journal.db")).unwrap();
        other.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    });
    assert!(why.contains("journal.db-wal was cut"), "{why}");
    let mut others = desk.answers_until(|answer| *answer == JournalAnswer::Recovered);
    others.retain(|answer| !matches!(answer, JournalAnswer::NotStored { .. }));
    assert_eq!(others, []);
    let reader = JournalReader::open(folder.path()).unwrap();
    assert_eq!(reader.result(JobId(1)).unwrap().unwrap().end.outcome, Outcome::Done);
    assert!(desk.close());
}

/// Whether the writer is in the middle of a transaction.
fn is_locked(other: &Connection) -> bool {
    let begun = other.execute_batch("BEGIN IMMEDIATE").is_ok();
    if begun {
        other.execute_batch("ROLLBACK").unwrap();
    }
    !begun
}

/// The database has a second name when the transaction ends, so that it is in the database and still not answered.
#[test]
fn a_transaction_that_failed_after_its_commit_counts_once_with_its_submits() {
    let folder = tempfile::tempdir().unwrap();
    let mut desk = Desk::open(folder.path());
    let other = Connection::open(folder.path().join("journal.db")).unwrap();
    other.busy_timeout(std::time::Duration::ZERO).unwrap();
    let (name, link) = (folder.path().join("journal.db"), folder.path().join("second"));
    let mut state = DurableState::default();
    let mut first = 1;
    loop {
        let old = Fact::Accepted(Box::new(submit(first, 1000, None, vec![payload("x"); 3000])));
        state.add(&old).unwrap();
        desk.push(old);
        assert_eq!(desk.await_stored(), []);
        // Ends and further submits by turns.
        let mut submits = Vec::new();
        for job in first..first + 3000 {
            if job % 10 == 0 {
                let new = Fact::Accepted(Box::new(submit(100_000 + job, 1000, None, vec![payload("y")])));
                submits.push((desk.push(new.clone()), new));
            }
            let ended = end(job, Some(1), Outcome::Done, now_us());
            state.add(&ended).unwrap();
            desk.push(ended);
        }
        first += 3000;
        while !is_locked(&other) && desk.writer.unanswered() != (0, 0) {}
        fs::hard_link(&name, &link).unwrap();
        let mut answers: Vec<JournalAnswer> = desk.answers.try_iter().collect();
        // Then the transaction that is running has no answer yet, and gets none.
        let is_inside = is_locked(&other);
        if is_inside {
            answers.push(desk.answer());
            assert!(!matches!(answers.last(), Some(JournalAnswer::Stored { .. })), "answered with two names");
        }
        let mut answers = answers.into_iter();
        if !is_inside && desk.writer.unanswered() == (0, 0) {
            fs::remove_file(&link).unwrap();
        }
        let (mut stored, mut refused) = (FactNo(0), Vec::new());
        let last = FactNo(desk.pushed);
        while stored < last {
            match answers.next().unwrap_or_else(|| desk.answer()) {
                JournalAnswer::Stored { up_to, .. } => stored = up_to.max(stored),
                JournalAnswer::NotStored { from, to, .. } => refused.push((from, to)),
                JournalAnswer::Degraded { why } => {
                    assert!(why.ends_with("journal.db has 2 names"), "{why}");
                    drop(fs::remove_file(&link));
                }
                JournalAnswer::Recovered => {}
                other => panic!("{other:?}"),
            }
        }
        drop(fs::remove_file(&link));
        let is_refused = |number: FactNo| refused.iter().any(|(from, to)| (*from..=*to).contains(&number));
        let kept: Vec<&Fact> =
            submits.iter().filter(|(number, _)| !is_refused(*number)).map(|(_, fact)| fact).collect();
        kept.iter().for_each(|fact| state.add(fact).unwrap());
        assert!(!is_inside || !kept.is_empty(), "the submits of the transaction are stored");
        assert_holds(folder.path(), &state);
        if is_inside {
            break;
        }
    }
    assert!(desk.close());
}

/// The run ends while the database has a second name since its last transaction: no submit that was refused is found by the next run.
#[test]
fn a_submit_that_was_refused_is_not_there_after_a_restart() {
    loop {
        let folder = tempfile::tempdir().unwrap();
        let mut desk = Desk::open(folder.path());
        let other = Connection::open(folder.path().join("journal.db")).unwrap();
        other.busy_timeout(std::time::Duration::ZERO).unwrap();
        let link = folder.path().join("second");
        let mut numbers = Vec::new();
        for first in (1..=30_000).step_by(10) {
            let new = Fact::Accepted(Box::new(submit(first, 1000, None, vec![payload("x"); 10])));
            numbers.push((desk.push(new), JobId(first)));
        }
        while !is_locked(&other) && desk.writer.unanswered() != (0, 0) {}
        fs::hard_link(folder.path().join("journal.db"), &link).unwrap();
        let is_inside = is_locked(&other);
        desk.writer.close(desk.first_numbers);
        let (mut refused, mut stored) = (Vec::new(), FactNo(0));
        loop {
            match desk.answer() {
                JournalAnswer::NotStored { from, to, .. } => refused.push(from..=to),
                JournalAnswer::Stored { up_to, .. } => stored = up_to,
                JournalAnswer::Closed { .. } => break,
                _ => {}
            }
        }
        desk.writer.join();
        drop(other);
        fs::remove_file(&link).unwrap();
        OpenJournal::open(settings(folder.path())).unwrap();
        let reader = JournalReader::open(folder.path()).unwrap();
        let mut is_unanswered_there = false;
        for (number, job) in numbers {
            let is_there = reader.job(job).unwrap().is_some();
            assert!(
                !is_there || !refused.iter().any(|range| range.contains(&number)),
                "{number} was refused"
            );
            assert!(is_there || number > stored, "{number} was stored");
            is_unanswered_there |= is_there && number > stored;
        }
        // Otherwise the second name came too early or too late.
        if is_inside && is_unanswered_there {
            break;
        }
    }
}

/// The files of a folder in use, as they are.
fn copy_of(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in ["journal.db", "journal.db-wal", "numbers"] {
        fs::write(copy.path().join(name), fs::read(folder.join(name)).unwrap()).unwrap();
    }
    copy
}

/// What a power cut leaves of a folder whose log had a page that a failed sync did not write: `before` is the log as it was then. A
/// page that was written since is on the disk.
fn power_cut(folder: &Path, before: &[u8]) -> tempfile::TempDir {
    let image = copy_of(folder);
    let path = image.path().join("journal.db-wal");
    let mut log = fs::read(&path).unwrap();
    for (now, then) in log.chunks_mut(4096).zip(before.chunks(4096)).skip(1) {
        if now.get(..then.len()).is_some_and(|now| now == then) {
            now.fill(0);
        }
    }
    fs::write(&path, log).unwrap();
    image
}

#[test]
fn commits_after_a_crash_do_not_stand_behind_a_hole_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let (desk, mut state) = with_one_job(folder.path());
    let crashed = copy_of(folder.path());
    assert!(desk.close());
    let log = fs::read(crashed.path().join("journal.db-wal")).unwrap();
    let reader = Connection::open(crashed.path().join("journal.db")).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM job;").unwrap();
    let refusal = OpenJournal::open(settings(crashed.path())).unwrap_err().to_string();
    assert!(refusal.contains("whose log has to be emptied after a crash: end it"), "{refusal}");
    drop(reader);
    let mut desk = Desk::open(crashed.path());
    desk.push(accept(2));
    state.add(&accept(2)).unwrap();
    assert_eq!(desk.await_stored(), []);
    let image = power_cut(crashed.path(), &log);
    OpenJournal::open(settings(image.path())).unwrap();
    assert_holds(image.path(), &state);
    assert!(desk.close());
}

#[test]
fn commits_after_a_recovery_do_not_stand_behind_a_hole_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let (mut desk, mut state) = with_one_job(folder.path());
    let other = Connection::open(folder.path().join("journal.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let ended = end(1, Some(1), Outcome::Done, now_us());
    desk.push(ended.clone());
    state.add(&ended).unwrap();
    desk.await_degraded();
    let log = fs::read(folder.path().join("journal.db-wal")).unwrap();
    // It stays open: the last connection that is closed would empty the log.
    other.execute_batch("COMMIT").unwrap();
    desk.await_stored();
    let image = power_cut(folder.path(), &log);
    OpenJournal::open(settings(image.path())).unwrap();
    assert_holds(image.path(), &state);
    drop(other);
    assert!(desk.close());
}

#[test]
fn an_end_while_nothing_can_be_stored_is_not_clean() {
    let folder = tempfile::tempdir().unwrap();
    let (mut desk, state) = with_one_job(folder.path());
    let other = Connection::open(folder.path().join("journal.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    desk.push(end(1, Some(1), Outcome::Done, now_us()));
    desk.await_degraded();
    assert!(!desk.close());
    other.execute_batch("COMMIT").unwrap();
    assert_holds(folder.path(), &state);
}

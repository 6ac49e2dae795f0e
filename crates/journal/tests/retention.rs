//! What goes when there is too much, or when it is too old.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use bulkhead_facts::fact::{AttemptEnd, Fact, FactNo};
use bulkhead_journal::answer::JournalAnswer;
use bulkhead_journal::opening::OpenJournal;
use bulkhead_journal::reader::{EndedFilter, JournalReader};
use bulkhead_journal::settings::{JournalSettings, KeepRules};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::ids::JobId;
use common::{Desk, FAR_US, all_ended, assert_holds, attempt, end, payload, settings, submit};
use rusqlite::Connection;

/// A desk of a journal that keeps so much.
fn keeping(folder: &Path, keep: KeepRules) -> Desk {
    Desk::start(OpenJournal::open(JournalSettings { keep, ..settings(folder) }).unwrap())
}

#[test]
fn what_is_too_much_goes_faster_than_facts_arrive() {
    const JOBS: u64 = 4000;
    let now_us = bulkhead_sys::clock::wall_us();
    loop {
        let folder = tempfile::tempdir().unwrap();
        let mut desk = Desk::open(folder.path());
        let batch =
            |first| Fact::Accepted(Box::new(submit(first, 1000, None, vec![payload("x"); JOBS as usize])));
        for first in [1, JOBS + 1] {
            desk.push(batch(first));
            for job in first..first + JOBS {
                desk.push(end(job, None, Outcome::Cancelled, now_us));
            }
            desk.push(batch(first + 10 * JOBS));
        }
        assert_eq!(desk.await_stored(), []);
        assert!(desk.close());
        let mut desk = keeping(folder.path(), KeepRules { jobs_max: 1, ..KeepRules::default() });
        for first in [10 * JOBS + 1, 11 * JOBS + 1] {
            for job in first..first + JOBS {
                desk.push(end(job, None, Outcome::Cancelled, now_us));
            }
        }
        // What each commit stored, and what went after it.
        let (mut commits, mut stored): (Vec<(u64, usize)>, _) = (Vec::new(), FactNo(0));
        while stored < FactNo(desk.pushed) {
            match desk.answer() {
                JournalAnswer::Stored { up_to, .. } => {
                    commits.push((up_to.0 - stored.0, 0));
                    stored = up_to;
                }
                JournalAnswer::Evicted { jobs } => {
                    if let Some((_, gone)) = commits.last_mut() {
                        *gone += jobs.len();
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(desk.close());
        commits.pop();
        let large: Vec<&(u64, usize)> = commits.iter().filter(|(stored, _)| *stored > 1024).collect();
        for (stored, gone) in &large {
            assert!(*gone as u64 >= 2 * stored, "{commits:?}");
        }
        // Otherwise the writer has taken the facts in small portions.
        if !large.is_empty() {
            break;
        }
    }
}

#[test]
fn the_oldest_of_who_has_most_goes_first_and_no_unfinished_job() {
    let folder = tempfile::tempdir().unwrap();
    let keep = KeepRules { jobs_max: 30, ..KeepRules::default() };
    let mut desk = keeping(folder.path(), keep);
    let now_us = bulkhead_sys::clock::wall_us();
    let mut fold = bulkhead_facts::fold::DurableState::default();
    let mut tell = |fact: Fact| {
        fold.add(&fact).unwrap();
        desk.push(fact);
    };
    for job in 1..=100_u64 {
        let uid = if job % 10 == 0 { 1001 } else { 1000 };
        tell(Fact::Accepted(Box::new(submit(job, uid, None, vec![payload("x")]))));
        if job % 2 == 0 {
            tell(end(job, Some(1), Outcome::Done, now_us + job));
        }
    }
    let mut gone: Vec<JobId> = Vec::new();
    while gone.len() < 20 {
        if let JournalAnswer::Evicted { jobs } = desk.answer() {
            fold.add(&Fact::Evicted { jobs: jobs.clone().into() }).unwrap();
            gone.extend(jobs);
        }
    }
    // Of 40 ended jobs of one user and 10 of the other one, the oldest 20 of the former go.
    let wanted: Vec<JobId> =
        (1..=50).map(|half| 2 * half).filter(|job| job % 10 != 0).take(20).map(JobId).collect();
    assert_eq!(gone, wanted);
    assert!(desk.close());
    assert_holds(folder.path(), &fold);
    let connection = Connection::open(folder.path().join("journal.db")).unwrap();
    let kept: (u64, u64) = connection
        .query_row("SELECT sum(jobs), sum(bytes) FROM kept", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert_eq!(kept, (30, 30 * (96 + 6)));
}

/// One value of the database.
fn value(folder: &Path, sql: &str) -> u64 {
    let connection = Connection::open(folder.join("journal.db")).unwrap();
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// Waits until a query of the database has this value.
fn await_value(folder: &Path, sql: &str, wanted: u64) {
    let begun = std::time::Instant::now();
    while value(folder, sql) != wanted {
        assert!(begun.elapsed() < common::PATIENCE, "{sql} is {} and not {wanted}", value(folder, sql));
        std::thread::yield_now();
    }
}

#[test]
fn bytes_count_inputs_that_stay_and_attempts_and_no_more_goes_than_needs_to() {
    let folder = tempfile::tempdir().unwrap();
    let mut desk = Desk::open(folder.path());
    let long = "x".repeat(100_000);
    for job in 1..=20_u64 {
        desk.push(Fact::Accepted(Box::new(submit(job, 1000, None, vec![payload(&long)]))));
        let outcome = if job % 2 == 0 { Outcome::Done } else { Outcome::Cancelled };
        desk.push(end(job, Some(1), outcome, FAR_US + job));
    }
    let message = "y".repeat(50_000);
    for job in 31..=34 {
        desk.push(Fact::Accepted(Box::new(submit(job, 1000, None, vec![payload("z")]))));
        let Fact::AttemptEnded(mut ended) = attempt(job, 1, AttemptEnd::Failed) else { panic!("no attempt") };
        ended.message = Some(message.clone());
        desk.push(Fact::AttemptEnded(ended));
    }
    for job in [32, 33] {
        desk.push(end(job, None, Outcome::Cancelled, FAR_US));
        desk.push(Fact::Forgotten { job: JobId(job) });
    }
    assert_eq!(desk.await_stored(), []);
    let all = value(folder.path(), "SELECT bytes FROM kept");
    assert!((1_200_000..1_210_000).contains(&all), "ten inputs and four messages, and not {all} bytes");
    assert!(desk.close());
    // Two attempts of jobs that are gone, then two inputs with the done job between them: no attempt of a job that goes on.
    let keep = KeepRules { bytes_max: 950_000, ..KeepRules::default() };
    let desk = keeping(folder.path(), keep);
    let mut gone = Vec::new();
    while gone.len() < 3 {
        let JournalAnswer::Evicted { jobs } = desk.answer() else { panic!("something else is answered") };
        gone.extend(jobs);
    }
    assert_eq!(gone, [1, 2, 3].map(JobId));
    assert!(desk.close());
    assert_eq!(value(folder.path(), "SELECT sum(job) FROM attempt"), 31 + 34);
    assert!((850_001..=950_000).contains(&value(folder.path(), "SELECT bytes FROM kept")));
    let reader = JournalReader::open(folder.path()).unwrap();
    assert_eq!(all_ended(&reader, EndedFilter::default()).len(), 17);
    // What users have is what their rows say.
    let counted = "SELECT (SELECT sum(bytes) FROM result) + (SELECT sum(96 + ifnull(length(message), 0) \
                   + ifnull(length(death), 0)) FROM attempt)";
    assert_eq!(value(folder.path(), "SELECT bytes FROM kept"), value(folder.path(), counted));
}

#[test]
fn old_attempts_go_by_themselves_and_never_with_a_job_that_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let mut desk = Desk::open(folder.path());
    for job in 1..=4 {
        desk.push(Fact::Accepted(Box::new(submit(job, 1000, None, vec![payload("x")]))));
        let Fact::AttemptEnded(mut ended) = attempt(job, 1, AttemptEnd::Lost) else { panic!("no attempt") };
        ended.at_us = 9;
        desk.push(Fact::AttemptEnded(ended));
    }
    // Job 1 goes on, job 2 has ended, and the others are gone, with one attempt more that is not old.
    desk.push(attempt(4, 2, AttemptEnd::Lost));
    for job in 2..=4 {
        desk.push(end(job, None, Outcome::Cancelled, FAR_US));
    }
    desk.push(Fact::Forgotten { job: JobId(3) });
    desk.push(Fact::Forgotten { job: JobId(4) });
    desk.await_stored();
    await_value(folder.path(), "SELECT sum(10 * job + fence) FROM attempt", 11 + 21 + 42);
    assert!(desk.close());
    let connection = Connection::open(folder.path().join("journal.db")).unwrap();
    for (filter, index) in [("at_us < 5", "attempt_orphan "), ("uid = 1000", "attempt_orphan_user ")] {
        let sql =
            format!("EXPLAIN QUERY PLAN SELECT id FROM attempt WHERE is_orphan AND {filter} ORDER BY at_us");
        let plan: String = connection.query_row(&sql, [], |row| row.get(3)).unwrap();
        assert!(plan.contains(index), "{plan}");
    }
}

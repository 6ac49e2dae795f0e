//! What goes when there is too much, or when it is too old.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use bulkhead_facts::fact::{Fact, FactNo};
use bulkhead_journal::answer::JournalAnswer;
use bulkhead_journal::opening::OpenJournal;
use bulkhead_journal::settings::{JournalSettings, KeepRules};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::ids::JobId;
use common::{Desk, assert_holds, end, payload, settings, submit};
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
                JournalAnswer::Stored { up_to } => {
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
            return;
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

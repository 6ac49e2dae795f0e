//! How much processor time the writer takes for a fact: a measurement, which asserts nothing.
//!
//! `cargo test --release -p bulkhead-journal --test pace -- --ignored --nocapture`, on a machine that does nothing else. The commits
//! are of 2048 facts, so that the disk hardly counts.

#![allow(clippy::unwrap_used)]

mod common;

use bulkhead_facts::fact::{Fact, FactNo};
use bulkhead_journal::opening::OpenJournal;
use bulkhead_journal::settings::JournalSettings;
use bulkhead_proto::client::outcome::Outcome;
use common::{Desk, end, payload, settings, submit};
use rusqlite::Connection;

const INDEXES: [&str; 3] = ["result_end", "result_user", "result_not_done"];

/// Jobs in one run of the measurement.
const JOBS: u64 = 200_000;

/// Processor time of the writer's thread so far, in microseconds: utime and stime of proc(5), in ticks of 10 ms.
fn writer_cpu_us() -> f64 {
    let mut tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let is_writer = |task: &std::path::PathBuf| {
        std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name == "journal\n")
    };
    // A thread that has just begun has no name yet, and has used no time.
    let Some(writer) = tasks.find(is_writer) else { return 0.0 };
    let stat = std::fs::read_to_string(writer.join("stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) * 1e4
}

/// Microseconds of the writer for the acceptance and for the end of each job.
fn microseconds(batch: usize, without: &[&str]) -> (f64, f64) {
    let folder = tempfile::tempdir().unwrap();
    assert!(Desk::open(folder.path()).close());
    let connection = Connection::open(folder.path().join("journal.db")).unwrap();
    for index in without {
        connection.execute_batch(&format!("DROP INDEX {index}")).unwrap();
    }
    drop(connection);
    let large =
        JournalSettings { queue_facts_max: 1 << 22, queue_bytes_max: 1 << 32, ..settings(folder.path()) };
    let mut desk = Desk::start(OpenJournal::open(large).unwrap());
    let mut took = |facts: Vec<Fact>| {
        let begun_us = writer_cpu_us();
        for fact in facts {
            desk.push(fact);
        }
        let last = FactNo(desk.pushed);
        desk.answers_until(|answer| {
            matches!(answer, bulkhead_journal::answer::JournalAnswer::Stored { up_to, .. } if *up_to == last)
        });
        (writer_cpu_us() - begun_us) / JOBS as f64
    };
    let accepted = (1..=JOBS)
        .step_by(batch)
        .map(|first| Fact::Accepted(Box::new(submit(first, 1000, None, vec![payload("0123456789"); batch]))))
        .collect();
    let accepted_us = took(accepted);
    let at_us = bulkhead_sys::clock::wall_us();
    let ended = (1..=JOBS).map(|job| end(job, Some(1), Outcome::Done, at_us + job)).collect();
    let ended_us = took(ended);
    assert!(desk.close());
    (accepted_us, ended_us)
}

#[test]
#[ignore = "a measurement"]
fn pace() {
    for round in 0..3 {
        for batch in [1, 4000] {
            let (accepted, with) = microseconds(batch, &[]);
            let (_, without) = microseconds(batch, &INDEXES);
            println!(
                "round {round}, submits of {batch}: accepted {accepted:.2} us a job; ended {with:.2} us, without indexes \
                 {without:.2} us, ratio {:.2}",
                with / without
            );
        }
    }
}

//! People read the journal with Debian's `sqlite3 -readonly`, while the daemon runs and after; and the database of version 1 is read
//! by every later version.

#![allow(clippy::unwrap_used)]

mod common;
#[macro_use]
#[path = "../../../tests/src/skip.rs"]
#[allow(unreachable_pub)]
mod skip;

use std::path::Path;
use std::process::Command;

use bulkhead_facts::fact::Fact;
use bulkhead_journal::opening::OpenJournal;
use bulkhead_journal::reader::JournalReader;
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::ids::JobId;
use common::{Desk, accept, end, payload, settings, submit};
use rusqlite::Connection;

/// What `sqlite3 -readonly` prints.
fn ask(folder: &Path, sql: &str) -> Result<String, &'static str> {
    let output = Command::new("sqlite3").arg("-readonly").arg(folder.join("journal.db")).arg(sql).output();
    let output = output.map_err(|_| "no sqlite3 is installed")?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_view_for_people_is_read_by_sqlite3_while_the_daemon_runs_and_after() {
    let folder = tempfile::tempdir().unwrap();
    let mut desk = Desk::open(folder.path());
    let at_us = bulkhead_sys::clock::wall_us();
    desk.push(Fact::Accepted(Box::new(submit(1, 1000, Some("k"), vec![payload("in"); 3]))));
    desk.push(end(1, Some(1), Outcome::Done, at_us));
    desk.push(end(2, Some(1), Outcome::Failed { message: "no such file".to_owned(), code: Some(2) }, at_us));
    desk.await_stored();
    let sql = "SELECT job, user, kind, pool, state, outcome, cause, attempts, crashes, accepted, waited, ran, \
               output_bytes FROM jobs_v1 ORDER BY job";
    let expected = "1|1000|a|default|ended|done||1|0|1970-01-01 00:00:01|5.0e-06|7.0e-06|6\n\
                    2|1000|a|default|ended|failed|failed: no such file|1|0|1970-01-01 00:00:01|5.0e-06|7.0e-06|\n\
                    3|1000|a|default|unfinished||||0|1970-01-01 00:00:01|||\n";
    let expected = expected.replace("unfinished||||0", "unfinished|||0|0");
    assert_eq!(or_skip!(ask(folder.path(), sql)), expected);
    let ended = "SELECT abs(unixepoch(ended) - unixepoch()) < 600 FROM jobs_v1 WHERE job = 1";
    assert_eq!(or_skip!(ask(folder.path(), ended)), "1\n");
    let schema = or_skip!(ask(folder.path(), "SELECT sql FROM sqlite_schema WHERE name = 'jobs_v1'"));
    assert!(schema.contains("-- For people and scripts: columns may be added"), "{schema}");
    desk.push(accept(10));
    assert_eq!(desk.await_stored(), [], "a reader holds nothing up");
    assert!(desk.close());
    assert_eq!(or_skip!(ask(folder.path(), "SELECT count(*) FROM jobs_v1")), "4\n");
    assert_eq!(or_skip!(ask(folder.path(), "PRAGMA integrity_check")), "ok\n");
}

#[test]
fn a_database_of_version_1_is_read_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let old = Connection::open(folder.path().join("journal.db")).unwrap();
    old.execute_batch(include_str!("data/version_1.sql")).unwrap();
    drop(old);
    let journal = OpenJournal::open(settings(folder.path())).unwrap();
    assert_eq!(journal.epoch().number, 2);
    let mut desk = Desk::start(journal);
    let reader = JournalReader::open(folder.path()).unwrap();
    let done = reader.result(JobId(1)).unwrap().unwrap();
    assert_eq!((done.end.outcome, done.end.output), (Outcome::Done, Some(payload("result"))));
    let crashed = reader.job(JobId(2)).unwrap().unwrap();
    assert_eq!(crashed.end.unwrap().end.outcome, Outcome::Crashed { crashes: 1, last: "SIGSEGV".to_owned() });
    assert_eq!(crashed.attempts.len(), 1);
    assert_eq!(crashed.attempts[0].death.as_ref().unwrap().pid, 99);
    let queued = reader.job(JobId(3)).unwrap().unwrap();
    assert_eq!((queued.submit.shared.policy.timeout_ms, queued.input), (Some(1), Some(payload("in"))));
    desk.push(Fact::Retried { job: JobId(2), at_us: 9, expires_us: None });
    desk.push(end(2, Some(2), Outcome::Done, bulkhead_sys::clock::wall_us()));
    assert_eq!(desk.await_stored(), []);
    assert!(desk.close());
}

//! Durable jobs over the end of their daemon, with real daemons that are killed and stopped.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bulkhead_journal::reader::JournalReader;
use bulkhead_proto::client::message::{Reply, Request, Submit};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::ids::JobId;
use bulkhead_tests::daemon::{Daemon, Setup, eventually, new_folder};
use bulkhead_tests::or_skip;
use bulkhead_tests::wire::{Wire, submit};

/// Beyond every number of a job.
const ALL: JobId = JobId(1 << 60);

/// A daemon with a journal in its own folder.
fn daemon_with_journal() -> (Daemon, Setup, PathBuf) {
    let folder = new_folder();
    let journal = folder.path().join("journal");
    let setup = Setup { config: format!("journal_folder = {journal:?}\n"), ..Setup::default() };
    (Daemon::start_in(folder, &setup), setup, journal)
}

fn durable(kind: &str, inputs: &[&str]) -> Request {
    Request::Submit(Submit { durable: Some(Box::default()), ..submit(kind, inputs, false) })
}

/// Submits durable jobs; the number of the first.
fn submit_durable(daemon: &Daemon, kind: &str, inputs: &[&str]) -> JobId {
    match Wire::connect(&daemon.socket()).call(durable(kind, inputs)) {
        Reply::Accepted { first, count, refused: None } if count as usize == inputs.len() => first,
        other => panic!("the submit was not accepted: {other:?}"),
    }
}

/// Why a durable submit is refused.
fn refusal(daemon: &Daemon) -> String {
    match Wire::connect(&daemon.socket()).call(durable("noop", &["x"])) {
        Reply::Refused(Refusal::NotDurable { why }) => why,
        other => panic!("it is not refused as it should be: {other:?}"),
    }
}

fn reader(journal: &Path) -> JournalReader {
    JournalReader::open(journal).expect("the journal can be read")
}

fn unfinished(journal: &Path) -> u64 {
    reader(journal).count_unfinished(ALL).expect("jobs are counted")
}

fn await_all_ended(journal: &Path) {
    eventually("every durable job has ended", || (unfinished(journal) == 0).then_some(()));
}

/// How a job ended, and what it said.
fn end_of(journal: &Path, job: JobId) -> (Outcome, Vec<u8>) {
    let end = reader(journal).result(job).expect("the result can be read");
    let end = end.unwrap_or_else(|| panic!("job {job} has no end")).end;
    (end.outcome, end.output.map(|output| output.as_bytes().to_vec()).unwrap_or_default())
}

#[test]
fn every_durable_job_ends_once_though_its_daemon_is_killed() {
    let (mut daemon, setup, journal) = daemon_with_journal();
    let mut accepted: Vec<(JobId, String)> = Vec::new();
    for round in 0..4_u64 {
        let numbers: Vec<String> = (0..30).map(|number| (round * 100 + number + 2).to_string()).collect();
        let inputs: Vec<&str> = numbers.iter().map(String::as_str).collect();
        let first = submit_durable(&daemon, "factorial", &inputs);
        accepted.extend((first.0..).map(JobId).zip(numbers.iter().cloned()));
        let first = submit_durable(&daemon, "sleep", &["10"; 30]);
        accepted.extend((first.0..).map(JobId).take(30).map(|job| (job, "10".to_owned())));
        // At a different moment each time: some jobs have ended, some run, most wait.
        let left = 60 - 5 * round;
        eventually("some jobs have ended", || (unfinished(&journal) <= left).then_some(()));
        daemon.end("KILL");
        daemon.start_again(&setup);
    }
    await_all_ended(&journal);
    for (job, input) in &accepted {
        let (outcome, output) = end_of(&journal, *job);
        assert_eq!(outcome, Outcome::Done, "job {job} ({input})");
        assert!(!output.is_empty() || input == "10", "job {job} ({input}) has no result");
    }
    let mut ids: Vec<JobId> = accepted.iter().map(|(job, _)| *job).collect();
    ids.dedup();
    assert!(ids.is_sorted() && ids.len() == 240, "each job has a number of its own");
}

#[test]
fn a_daemon_that_stops_at_once_leaves_its_durable_jobs_to_the_next() {
    let (mut daemon, setup, journal) = daemon_with_journal();
    // The last ones cannot end before the daemon is stopped.
    let inputs = [["100"; 18].as_slice(), &["10000"; 2]].concat();
    let first = submit_durable(&daemon, "sleep", &inputs);
    assert!(daemon.end("INT").success());
    assert!(unfinished(&journal) > 0, "all have ended before the daemon was stopped");
    daemon.start_again(&setup);
    assert!(!daemon.log().contains("ended without a stop"), "{}", daemon.log());
    await_all_ended(&journal);
    for job in (first.0..).map(JobId).take(20) {
        assert_eq!(end_of(&journal, job).0, Outcome::Done, "job {job}");
    }
}

#[test]
fn what_a_client_was_told_is_stored_though_the_daemon_is_killed() {
    let (mut daemon, _, journal) = daemon_with_journal();
    let told = Wire::connect(&daemon.socket()).run_durable("noop", &["x"; 500]);
    daemon.end("KILL");
    assert_eq!((told.len(), unfinished(&journal)), (500, 0));
    for ended in told {
        assert_eq!(end_of(&journal, ended.job).0, ended.outcome, "job {}", ended.job);
    }
}

#[test]
fn a_daemon_that_drains_ends_or_leaves_each_durable_job_and_the_next_one_ends_the_rest() {
    let (mut daemon, setup, journal) = daemon_with_journal();
    let first = submit_durable(&daemon, "noop", &["x"; 1000]);
    assert!(daemon.end("TERM").success());
    daemon.start_again(&setup);
    assert!(!daemon.log().contains("ended without a stop"), "{}", daemon.log());
    await_all_ended(&journal);
    assert!((first.0..).map(JobId).take(1000).all(|job| end_of(&journal, job).0 == Outcome::Done));
}

#[test]
fn without_a_journal_durable_jobs_are_refused_and_others_are_not() {
    let daemon = Daemon::start();
    assert!(refusal(&daemon).contains("has no journal"), "{}", refusal(&daemon));
    assert_eq!(Wire::connect(&daemon.socket()).run("noop", &["on"]).len(), 1);
}

/// SQLite notices nothing of it; the writer looks at the path.
#[test]
fn a_database_that_is_removed_refuses_durable_jobs_until_a_restart_and_numbers_go_on() {
    let (mut daemon, setup, journal) = daemon_with_journal();
    let before = submit_durable(&daemon, "noop", &["x"]);
    await_all_ended(&journal);
    for name in ["journal.db", "journal.db-wal", "journal.db-shm"] {
        std::fs::remove_file(journal.join(name)).expect("it was there");
    }
    assert!(refusal(&daemon).contains("journal.db"), "{}", refusal(&daemon));
    assert_eq!(Wire::connect(&daemon.socket()).run("noop", &["on"]).len(), 1);
    assert!(daemon.end("INT").success(), "it ends all the same");
    daemon.start_again(&setup);
    assert!(daemon.log().contains("is gone, with the jobs in it: job numbers go on at"), "{}", daemon.log());
    let after = submit_durable(&daemon, "noop", &["x"]);
    assert!(after.0 > before.0 + 1, "job {} comes after job {}", after.0, before.0);
    await_all_ended(&journal);
}

/// A `sqlite3` that holds the write lock of a journal until it is dropped; `Err`: there is none.
struct ForeignLock(Child);

impl ForeignLock {
    fn take(journal: &Path) -> Result<Self, String> {
        let mut command = Command::new("sqlite3");
        command.arg(journal.join("journal.db")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("sqlite3 cannot be run: {error}"))?;
        let mut stdin = child.stdin.take().expect("its standard input is piped");
        let text = ".timeout 60000\nBEGIN IMMEDIATE;\nSELECT 'locked';\n";
        stdin.write_all(text.as_bytes()).expect("it reads");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("its standard output is piped");
        BufReader::new(stdout).read_line(&mut line).expect("it answers");
        child.stdin = Some(stdin);
        let lock = Self(child);
        assert_eq!(line, "locked\n");
        Ok(lock)
    }
}

impl Drop for ForeignLock {
    fn drop(&mut self) {
        // It may be dead already.
        drop(self.0.kill());
        self.0.wait().expect("it is this process's child");
    }
}

#[test]
fn a_foreign_lock_refuses_durable_jobs_and_no_others_until_it_is_gone() {
    let (mut daemon, setup, journal) = daemon_with_journal();
    submit_durable(&daemon, "noop", &["x"]);
    await_all_ended(&journal);
    let lock = or_skip!(ForeignLock::take(&journal));
    let why = refusal(&daemon);
    assert!(why.contains("another program has locked the database for 1 s"), "{why}");
    assert_eq!(Wire::connect(&daemon.socket()).run("noop", &["on"]).len(), 1);
    drop(lock);
    eventually("durable jobs are taken again", || {
        let reply = Wire::connect(&daemon.socket()).call(durable("noop", &["x"]));
        matches!(reply, Reply::Accepted { .. }).then_some(())
    });
    await_all_ended(&journal);
    // A daemon that cannot write the end of its run ends nevertheless, and says so.
    let lock = or_skip!(ForeignLock::take(&journal));
    assert!(daemon.end("INT").success());
    assert!(daemon.log().contains("the journal has no end of this run"), "{}", daemon.log());
    drop(lock);
    daemon.start_again(&setup);
    assert!(daemon.log().contains("the last run ended without a stop"), "{}", daemon.log());
    submit_durable(&daemon, "noop", &["x"]);
    await_all_ended(&journal);
}

//! `bulkhead why` against a real daemon: a job that waits, one that runs, one that is quarantined, one that never was.

use bulkhead_proto::client::exit;
use bulkhead_proto::client::view::WorkerState;
use bulkhead_tests::daemon::{Daemon, Setup};
use bulkhead_tests::wire::Wire;

fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[test]
fn why_tells_what_a_job_waits_for_and_why_it_is_quarantined() {
    let daemon = Daemon::start_with(&Setup { workers: 1, ..Setup::default() });
    let mut wire = Wire::connect(&daemon.socket());
    let long = wire.submit("sleep", &["600000"]);
    let busy = daemon.await_worker(WorkerState::Busy);
    let pid = busy.pid.expect("a busy worker has a process");
    let poison = wire.submit("chaos", &["segv"]);
    let why = |job: u64| daemon.ok(&["why", &job.to_string()]);

    let runs = format!("Job {long} has been running for ");
    let place = format!("attempt 1, in worker {} (pid {pid}).", busy.worker);
    assert_says(&why(long.0), &[&runs, &place, "It has no limit"]);
    let longest = format!("The only worker is busy: worker {} has run job {long} for ", busy.worker);
    assert_says(&why(poison.0), &[" has been queued for ", "It is the next one in the queue.", &longest]);

    daemon.ok(&["cancel", &long.to_string()]);
    let cancelled = format!("Job {long} was cancelled by its owner, user ");
    assert_says(&why(long.0), &[&cancelled, &format!("`bulkhead retry {long}` runs it again")]);
    assert_eq!(daemon.cli(&["wait", &poison.to_string()]).status.code(), Some(i32::from(exit::CRASHED)));
    assert_says(
        &why(poison.0),
        &[
            "is quarantined: it killed 3 workers, and crashes_max is 3.",
            "Attempt 1 ended when worker ",
            "Attempt 3 ended when worker ",
            "died of SIGSEGV",
            "charged to this job.",
            &format!("`bulkhead forget {poison}` drops it."),
        ],
    );
    let json: serde_json::Value =
        serde_json::from_str(&daemon.ok(&["why", "--json", &poison.to_string()])).expect("JSON");
    assert_eq!(json["now"]["now"], "ended", "{json}");
    assert_eq!(json["past"]["deaths"].as_array().map(Vec::len), Some(3), "{json}");

    let never = daemon.cli(&["why", "4711"]);
    assert_eq!(never.status.code(), Some(i32::from(exit::FAILED)));
    let said = String::from_utf8_lossy(&never.stderr);
    assert_says(&said, &[&format!("job 4711 never existed: the last number given is {poison}")]);
}

//! What `status` says of bounds: each names the key or the limit that sets it, or that it is fixed.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use bulkhead_tests::daemon::{Daemon, Setup};
use bulkhead_tests::or_skip;
use bulkhead_tests::other_users::{ALICE, BOB, CAROL, command_for_all, open_to_all, run_as, system_config};
use bulkhead_tests::raid::may_become_others;
use serde_json::Value;

/// The bound of this resource in the account of the caller.
fn holding(daemon: &Daemon, resource: &str) -> Value {
    let holds = holds(daemon).into_iter().find(|row| row["resource"] == resource);
    holds.unwrap_or_else(|| panic!("no {resource}"))
}

fn holds(daemon: &Daemon) -> Vec<Value> {
    let status: Value = serde_json::from_str(&daemon.ok(&["status", "--json"])).unwrap();
    status["accounts"][0]["holds"].as_array().unwrap().clone()
}

#[test]
fn each_bound_has_a_key_or_is_fixed() {
    let daemon = Daemon::start();
    let holds = holds(&daemon);
    assert!(holds.len() > 15, "{holds:?}");
    for row in &holds {
        let is_bounded = !row["bound"].is_null();
        let named = usize::from(row["key"].is_string()) + usize::from(row["fixed"] == true);
        assert_eq!(named, usize::from(is_bounded), "{row}");
    }
    for (resource, key) in
        [("held outputs", "keep_outputs_max"), ("bytes of memory in outputs and logs", "outputs_bytes_max")]
    {
        assert_eq!(holding(&daemon, resource)["key"], key);
    }
}

/// Without the key, the limit of open files is what bounds them.
#[test]
fn the_key_of_a_bound_is_the_one_that_would_change_it() {
    assert_eq!(holding(&Daemon::start(), "files that come with jobs")["key"], "RLIMIT_NOFILE");
    let setup = Setup { config: "files_max = 8\n".to_owned(), ..Setup::default() };
    let daemon = Daemon::start_with(&setup);
    let files = holding(&daemon, "files that come with jobs");
    assert_eq!((&files["key"], &files["bound"]), (&Value::from("files_max"), &Value::from(8)));
}

/// Each of three users submits more than it has room for, and is told which bound it met: its share, that of all, or what one
/// user gets beyond that.
#[test]
fn who_is_refused_is_told_the_bound_that_was_met() {
    or_skip!(may_become_others());
    let setup =
        Setup { workers: 1, config: system_config("queue_max = 640\nlend_max = 0\n"), ..Setup::default() };
    let daemon = Daemon::start_with(&setup);
    open_to_all(&daemon);
    let command = command_for_all(&daemon);
    // Nothing leaves the queue.
    let blocker = daemon.ok(&["submit", "sleep", "86400000"]);
    daemon.await_worker(bulkhead_proto::client::view::WorkerState::Busy);
    let busy = [
        (ALICE, "your share of the queued jobs is used up (limit 480 of 640, set by queue_max)"),
        (BOB, "there is no room for more queued jobs (limit 640, set by queue_max)"),
        (
            CAROL,
            "all users together fill the bound of the queued jobs (640, set by queue_max), and you have the 10 that one user \
             gets even then",
        ),
    ];
    for (user, met) in busy {
        let refused = run_as(user, (&command, &daemon), &["submit", "noop", "--count", "600"]);
        let told = String::from_utf8_lossy(&refused.stderr);
        assert!(refused.status.code() == Some(75) && told.contains(met), "{met:?} is not in {told}");
    }
    let status = |user| {
        let output = run_as(user, (&command, &daemon), &["status"]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for (user, told) in [
        (ALICE, "480 of 480 queued jobs (queue_max)"),
        (BOB, "160 of 480 queued jobs (queue_max; all users together fill its 640)"),
        (CAROL, "10 of 480 queued jobs (queue_max; all users together fill its 640)"),
        (CAROL, "650 queued (of 640 at most, queue_max; 10 of them beyond it"),
    ] {
        assert!(status(user).contains(told), "{told:?} is not in {}", status(user));
    }
    daemon.ok(&["cancel", blocker.trim()]);
}

//! What `status` says of bounds: each names the key or the limit that sets it, or that it is fixed.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use bulkhead_tests::daemon::{Daemon, Setup};
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

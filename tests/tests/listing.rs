//! `bulkhead jobs` of many jobs: the newest are what one sees, and whoever wants the others is told how.

use bulkhead_tests::daemon::Daemon;

/// The numbers that are listed, and what is said beside.
fn listed(daemon: &Daemon, arguments: &[&str]) -> (Vec<u64>, String) {
    let output = daemon.cli(&[&["jobs", "--json"], arguments].concat());
    let text = String::from_utf8(output.stdout).expect("text");
    let rows = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a row"));
    let numbers = rows.map(|row| row["job"].as_u64().expect("a number")).collect();
    (numbers, String::from_utf8(output.stderr).expect("text"))
}

#[test]
fn of_many_jobs_the_newest_are_listed_last() {
    let daemon = Daemon::start();
    daemon.ok(&["submit", "--count", "37", "noop"]);
    let (newest, said) = listed(&daemon, &["--limit", "4"]);
    assert_eq!(newest, [34, 35, 36, 37]);
    assert!(said.contains("these are the newest") && said.contains("--after 0"), "{said}");
    let table = daemon.ok(&["jobs", "--limit", "4"]);
    assert!(table.lines().last().is_some_and(|line| line.starts_with("37 ")), "{table}");
    let (oldest, said) = listed(&daemon, &["--limit", "3", "--after", "0"]);
    assert_eq!(oldest, [1, 2, 3]);
    assert!(said.contains("--after 3 goes on"), "{said}");
    let (rest, said) = listed(&daemon, &["--after", "33", "--limit", "4"]);
    assert_eq!((rest, said.as_str()), (vec![34, 35, 36, 37], ""));
    let (all, said) = listed(&daemon, &[]);
    assert_eq!((all, said.as_str()), ((1..=37).collect(), ""));
    assert_eq!(listed(&daemon, &["--limit", "4", "--quiet"]).1, "");
}

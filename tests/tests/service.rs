//! The system service, for real: installed, started, used, hurt and stopped under a real systemd.
//!
//! Skipped, and said so, where no systemd can be booted (not root, no namespaces, no overlay).

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use std::path::Path;
use std::process::Output;

use bulkhead_tests::daemon::binary;
use bulkhead_tests::or_skip;
use bulkhead_tests::systemd::Machine;
use bulkhead_tests::tidy::root;

/// SHA-256 of the digits of 1000!, from CPython's `math.factorial` and `hashlib`.
const THOUSAND: &str = "cc336cf135d690c1105664b3b859db66b940db51cd66cf891fee120584cf7873";

/// Two workers and chaos, on top of the sample config.
const DROP_IN: &str = "workers = 2\nenable_chaos = true\n";

/// One user who may and one who may not.
const USERS: &str = "u alice -\nu mallory -\nm alice bulkhead\n";

#[test]
fn the_service_works_from_installation_to_stop() {
    let machine = or_skip!(Machine::boot());
    install(&machine);
    the_unit_is_sound(&machine);
    machine.run(&["systemctl", "enable", "--now", "bulkhead.service"]);
    assert_eq!(property(&machine, "ActiveState"), "active", "Type=notify: start returns when jobs are taken");

    its_log_says(&machine, "journal opened folder=/var/lib/bulkhead/journal");
    the_group_may_and_others_may_not(&machine);
    no_programs_without_a_sandbox(&machine);
    a_killed_worker_costs_nothing(&machine);
    poison_is_named_in_the_journal(&machine);
    a_killed_supervisor_is_started_again(&machine);
    its_log_says(&machine, "the last run ended without a stop");
    nothing_is_left_after_a_stop(&machine);
}

fn its_log_says(machine: &Machine, text: &str) {
    machine.eventually(&format!("its log to say: {text}"), |machine| {
        machine.run(&["journalctl", "--no-pager", "-o", "cat", "-u", "bulkhead.service"]).contains(text)
    });
}

fn no_programs_without_a_sandbox(machine: &Machine) {
    let refused = machine.try_run_as("alice", &["bulkhead", "run", "exec", "--", "true"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(2) && said.contains("does not offer exec"), "{said}");
}

/// As docs/src/service.md says.
fn install(machine: &Machine) {
    for name in ["bulkhead", "bulkhead-supervisor", "bulkhead-worker"] {
        put(machine, &binary(name), &format!("/usr/local/bin/{name}"), "755");
    }
    let systemd = root().join("systemd");
    put(machine, &systemd.join("bulkhead.service"), "/etc/systemd/system/bulkhead.service", "644");
    put(machine, &systemd.join("bulkhead.sysusers"), "/etc/sysusers.d/bulkhead.conf", "644");
    put(machine, &systemd.join("bulkhead.toml"), "/etc/bulkhead/bulkhead.toml", "644");
    let (users, drop_in) = (machine.folder().join("users"), machine.folder().join("drop_in"));
    std::fs::write(&users, USERS).unwrap();
    std::fs::write(&drop_in, DROP_IN).unwrap();
    put(machine, &users, "/etc/sysusers.d/zz-test-users.conf", "644");
    put(machine, &drop_in, "/etc/bulkhead/conf.d/test.toml", "644");
    machine.run(&["systemd-sysusers"]);
    machine.run(&["systemctl", "daemon-reload"]);
}

/// Copies a file of the host into the machine, by way of the folder that both see.
fn put(machine: &Machine, from: &Path, to: &str, mode: &str) {
    let between = machine.folder().join("file");
    std::fs::copy(from, &between).unwrap();
    machine.run(&["install", "-D", "-m", mode, between.to_str().unwrap(), to]);
    std::fs::remove_file(between).unwrap();
}

fn the_unit_is_sound(machine: &Machine) {
    let verdict = machine.try_run(&["systemd-analyze", "verify", "bulkhead.service"]);
    let complaints = String::from_utf8_lossy(&verdict.stderr);
    assert!(verdict.status.success() && !complaints.contains("bulkhead"), "{complaints}");
    let judged = machine.run(&["systemd-analyze", "security", "--no-pager", "bulkhead.service"]);
    let score = judged.lines().find(|line| line.contains("Overall exposure level")).unwrap_or(&judged);
    println!("{score}");
    let level: f64 = score.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
    assert!(level <= 1.0, "the unit is more exposed than it was: {score}");
}

fn the_group_may_and_others_may_not(machine: &Machine) {
    assert!(ok(machine, "alice", &["run", "factorial", "1000", "--as", "sha256"]).contains(THOUSAND));
    let refused = bulkhead(machine, "mallory", &["run", "noop", "1"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(69), "{said}");
    assert!(said.contains("permission") && said.contains("group bulkhead"), "{said}");
    println!("mallory is told: {}", said.trim());
    let own = bulkhead(machine, "bulkhead", &["run", "noop", "1"]);
    assert!(!own.status.success(), "the user that jobs run as must not be a client");
}

fn a_killed_worker_costs_nothing(machine: &Machine) {
    let ids = ok(machine, "alice", &["submit", "--count", "4", "sleep", "500"]);
    let ids: Vec<&str> = ids.lines().collect();
    let victim = busy_worker(machine);
    machine.run(&["kill", "-9", &victim]);
    ok(machine, "alice", &[&["wait"], &ids[..]].concat());
    let events = ok(machine, "root", &["events"]);
    let told = |words: &[&str]| events.lines().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(told(&["worker died", "SIGKILL", &format!("pid={victim}")]), "{events}");
    assert!(told(&["worker replaced", "spare=warm"]) && told(&["job retried", "attempt=2"]), "{events}");
    let status = machine.run(&["systemctl", "status", "--no-pager", "bulkhead.service"]);
    assert!(status.contains("active (running)"), "{status}");
    println!("{status}");
}

/// The process of a worker that runs a job. The jobs that keep it busy last long enough to be found.
fn busy_worker(machine: &Machine) -> String {
    let mut found = None;
    let rows = ok(machine, "root", &["workers", "--json"]);
    for row in rows.lines() {
        let row: serde_json::Value = serde_json::from_str(row).unwrap();
        if row["state"] == "busy" {
            found = row["pid"].as_u64();
        }
    }
    found.unwrap_or_else(|| panic!("nobody is busy:\n{rows}")).to_string()
}

fn poison_is_named_in_the_journal(machine: &Machine) {
    let poison = bulkhead(machine, "alice", &["run", "chaos", "segv"]);
    assert_eq!(poison.status.code(), Some(125), "{}", String::from_utf8_lossy(&poison.stderr));
    machine.eventually("the journal to name the poison job", |machine| {
        let journal = machine.run(&["journalctl", "--no-pager", "-o", "cat", "-u", "bulkhead.service"]);
        journal.contains("SIGSEGV") && journal.contains("job ended")
    });
}

/// systemd starts it anew, and nothing of the old one lives on beside it.
fn a_killed_supervisor_is_started_again(machine: &Machine) {
    let old = property(machine, "MainPID");
    machine.run(&["kill", "-9", &old]);
    machine.eventually("the service to be restarted", |machine| {
        let new = property(machine, "MainPID");
        new != old && new != "0" && property(machine, "ActiveState") == "active"
    });
    assert_eq!(property(machine, "NRestarts"), "1");
    assert!(ok(machine, "alice", &["run", "noop", "again"]).contains("again"));
    machine.eventually("supervisor and its own workers to be all there is", |machine| {
        let workers = ok(machine, "root", &["workers", "--json"]).lines().count();
        processes(machine).len() == 1 + workers
            && !machine.try_run(&["test", "-e", &format!("/proc/{old}")]).status.success()
    });
}

fn nothing_is_left_after_a_stop(machine: &Machine) {
    let cgroup = format!("/sys/fs/cgroup{}", property(machine, "ControlGroup"));
    machine.run(&["test", "-d", &cgroup]);
    ok(machine, "alice", &["submit", "--count", "3", "sleep", "200"]);
    machine.run(&["systemctl", "stop", "bulkhead.service"]);
    assert_eq!(property(machine, "ActiveState"), "inactive");
    assert_eq!(property(machine, "Result"), "success");
    assert_eq!(processes(machine), [""; 0], "no process");
    for gone in ["/run/bulkhead", &cgroup] {
        machine.run(&["test", "!", "-e", gone]);
    }
    assert_eq!(machine.run(&["find", "/tmp", "/var/tmp", "/dev/shm", "-user", "bulkhead"]), "");
}

/// Every process of the service's user. Their folders in /proc belong to root, because they are not dumpable; the
/// user stands inside.
fn processes(machine: &Machine) -> Vec<String> {
    const LIST: &str =
        r#"grep -ls "^Uid:[[:space:]]$(id -u bulkhead)[[:space:]]" /proc/[0-9]*/status || true"#;
    machine.run(&["bash", "-c", LIST]).lines().map(str::to_owned).collect()
}

fn property(machine: &Machine, name: &str) -> String {
    machine.run(&["systemctl", "show", "--value", "-p", name, "bulkhead.service"]).trim().to_owned()
}

fn bulkhead(machine: &Machine, user: &str, arguments: &[&str]) -> Output {
    machine.try_run_as(user, &[&["bulkhead"], arguments].concat())
}

/// What a `bulkhead` command that must succeed prints.
fn ok(machine: &Machine, user: &str, arguments: &[&str]) -> String {
    let output = bulkhead(machine, user, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{user}: bulkhead {arguments:?} ({}): {said}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

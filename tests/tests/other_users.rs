//! Programs that become another user, as set-uid programs do: the daemon of an ordinary user may not signal them.
//!
//! One that ends is told as any other. One that lives on is named with pid and user: in the outcome, in `status` while it
//! lives, and in the log when the daemon ends.

use std::path::Path;

use bulkhead_proto::client::view::WorkerState;
use bulkhead_sys::pidfd::Process;
use bulkhead_tests::daemon::{Daemon, eventually};
use bulkhead_tests::or_skip;
use bulkhead_tests::ordinary_user::{OrdinaryUser, set_uid_helper};
use serde_json::Value;

const CONFIG: &str = "grace_seconds = 0\nstuck_after_seconds = 1\n[kinds.exec]\ncancel_grace_ms = 200\n";

/// A process of root that a job has left; it ends with the test.
struct Survivor {
    pid: u32,
    process: Process,
}

impl Survivor {
    /// Waits until the process has written its number into this file, and sleeps.
    fn told(file: &Path) -> Self {
        let pid = eventually("the process tells its number", || {
            std::fs::read_to_string(file).ok()?.strip_suffix('\n')?.parse().ok()
        });
        let survivor = Self { pid, process: Process::open(pid).expect("it lives") };
        let name = format!("/proc/{pid}/comm");
        eventually("it sleeps", || {
            std::fs::read_to_string(&name).is_ok_and(|name| name == "sleep\n").then_some(())
        });
        survivor
    }
}

impl Drop for Survivor {
    fn drop(&mut self) {
        drop(self.process.kill(9));
    }
}

/// Becomes root, writes its number into the file `$1`, and sleeps. It ends by itself if a test fails before it is known.
fn sleeper(helper: &str, file: &Path) -> String {
    format!("{helper} sh -c 'echo on; echo $$ > {0}.new; mv {0}.new {0}; exec sleep 100'", file.display())
}

fn submit(daemon: &Daemon, script: &str) -> String {
    daemon.ok(&["submit", "exec", "--", "sh", "-c", script]).trim().to_owned()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("one line of JSON")
}

fn survivors(daemon: &Daemon) -> Vec<Value> {
    json(&daemon.ok(&["status", "--json"]))["survivors"].as_array().expect("a list").clone()
}

/// Waits until `status` names the process, and checks what it says of it; then until it names nobody any more.
fn await_named_while_it_lives(daemon: &Daemon, survivor: &Survivor, job: &str) {
    let row = eventually("status lists it", || survivors(daemon).into_iter().next());
    let (pid, name) = (survivor.pid, row["name"].as_str().expect("a name"));
    assert_eq!((row["pid"].as_u64(), row["uid"].as_u64()), (Some(pid.into()), Some(0)));
    assert_eq!((name, row["job"].to_string().as_str()), ("sleep", job));
    let named = format!("lives on  process {pid} (sleep, user 0), of job {job}");
    let status = daemon.ok(&["status"]);
    assert!(status.contains(&named), "{named:?} is not in:\n{status}");
    let records = daemon.events_named("lives-on");
    assert_eq!(records.len(), 1, "{records:?}");
    assert!(daemon.log().contains(&format!("a process lives on, it runs as another user pid={pid}")));
    daemon.ok(&["run", "exec", "--", "true"]);
    assert!(daemon.workers().iter().all(|row| row.state != WorkerState::Stuck), "it takes no slot");
    survivor.process.kill(9).expect("root may");
    eventually("status lists it no more", || survivors(daemon).is_empty().then_some(()));
}

#[test]
fn one_that_ends_is_told_as_any_other() {
    let user = or_skip!(OrdinaryUser::new(60_141));
    let daemon = user.daemon(CONFIG, &[]);
    let helper = or_skip!(set_uid_helper(daemon.folder(), &user));
    let run = |retries: &str, script: &str| {
        let script = format!("exec {helper} sh -c '{script}'");
        daemon.cli(&["run", "exec", "--json", "--retries-max", retries, "--", "sh", "-c", &script])
    };
    let ran = run("0", "id -u; echo on; exit 3");
    let end = json(&String::from_utf8_lossy(&ran.stdout));
    assert_eq!((ran.status.code(), end["result"].as_str()), (Some(3), Some("0\non\n")), "{ran:?}");
    assert_eq!((&end["outcome"], end["survivors"].is_null()), (&Value::from("failed"), true));
    let ran = run("2", "echo on");
    let end = json(&String::from_utf8_lossy(&ran.stdout));
    assert_eq!((ran.status.code(), &end["attempts"]), (Some(0), &Value::from(1)), "{ran:?}");
    assert!(daemon.events_named("died").is_empty(), "its workers are as warm as before");
}

#[test]
fn one_that_timed_out_and_lives_on_is_named_in_the_outcome_and_in_status() {
    let user = or_skip!(OrdinaryUser::new(60_142));
    let daemon = user.daemon(CONFIG, &[]);
    let helper = or_skip!(set_uid_helper(daemon.folder(), &user));
    let file = daemon.folder().join("pid");
    let script = format!("exec {}", sleeper(&helper, &file));
    let ran =
        daemon.cli(&["run", "exec", "--retries-max", "2", "--timeout", "3s", "--", "sh", "-c", &script]);
    let survivor = Survivor::told(&file);
    let said = String::from_utf8_lossy(&ran.stderr);
    assert_eq!((ran.status.code(), ran.stdout.as_slice()), (Some(124), &b"on\n"[..]), "{said}");
    let named = format!("process {} (sleep, user 0) of job 1 lives on", survivor.pid);
    assert!(said.contains(&named), "{named:?} is not in:\n{said}");
    await_named_while_it_lives(&daemon, &survivor, "1");
}

#[test]
fn one_that_was_cancelled_and_lives_on_is_named_with_the_job_and_in_status() {
    let user = or_skip!(OrdinaryUser::new(60_143));
    let daemon = user.daemon(CONFIG, &[]);
    let helper = or_skip!(set_uid_helper(daemon.folder(), &user));
    let file = daemon.folder().join("pid");
    let job = submit(&daemon, &sleeper(&helper, &file));
    let survivor = Survivor::told(&file);
    daemon.ok(&["cancel", &job]);
    let line = format!("left      process {} (sleep, user 0): it could not be ended", survivor.pid);
    eventually("the job names it", || daemon.ok(&["job", &job]).contains(&line).then_some(()));
    await_named_while_it_lives(&daemon, &survivor, &job);
}

/// A part of the failed attempt still runs, so it is not repeated beside that.
#[test]
fn a_failed_attempt_whose_process_lives_on_is_not_repeated() {
    let user = or_skip!(OrdinaryUser::new(60_144));
    let daemon = user.daemon(CONFIG, &[]);
    let helper = or_skip!(set_uid_helper(daemon.folder(), &user));
    let file = daemon.folder().join("pid");
    let script = format!(
        "{} & until grep -q sleep /proc/$(cat {})/comm; do sleep 0.01; done; exit 5",
        sleeper(&helper, &file),
        file.display()
    );
    let ran = daemon.cli(&["run", "exec", "--json", "--retries-max", "3", "--", "sh", "-c", &script]);
    let survivor = Survivor::told(&file);
    let end = json(&String::from_utf8_lossy(&ran.stdout));
    assert_eq!((ran.status.code(), &end["attempts"]), (Some(5), &Value::from(1)), "{ran:?}");
    assert_eq!(end["survivors"][0]["pid"], Value::from(survivor.pid));
    await_named_while_it_lives(&daemon, &survivor, "1");
}

#[test]
fn one_that_outlives_the_daemon_is_named_in_its_log() {
    let user = or_skip!(OrdinaryUser::new(60_145));
    let mut daemon = user.daemon(CONFIG, &[]);
    let helper = or_skip!(set_uid_helper(daemon.folder(), &user));
    let file = daemon.folder().join("pid");
    submit(&daemon, &sleeper(&helper, &file));
    let survivor = Survivor::told(&file);
    assert!(daemon.end("TERM").success());
    let named = format!(
        "a process outlives the daemon, it runs as another user pid={} name=\"sleep\" uid=0",
        survivor.pid
    );
    assert!(daemon.log().contains(&named), "{named:?} is not in:\n{}", daemon.log());
}

/// The worker of the first job is killed while the program runs as root. That job must not run twice at once, so it waits;
/// the death of a worker of another job is proven all the same.
#[test]
fn one_that_outlives_its_worker_delays_its_own_job_and_no_other() {
    let user = or_skip!(OrdinaryUser::new(60_146));
    let daemon = user.daemon(CONFIG, &[]);
    let helper = or_skip!(set_uid_helper(daemon.folder(), &user));
    let (first, second) = (daemon.folder().join("first"), daemon.folder().join("second"));
    let job = submit(&daemon, &sleeper(&helper, &first));
    let survivor = Survivor::told(&first);
    let worker = daemon.await_worker(WorkerState::Busy);
    bulkhead_tests::daemon::send_signal(worker.pid.expect("it runs"), "KILL");
    let text = format!("pid {} of user 0 that it left behind", survivor.pid);
    eventually("status names it", || daemon.ok(&["status"]).contains(&text).then_some(()));
    let other = submit(&daemon, &format!("echo x >> {}; sleep 100", second.display()));
    let runs = |count: usize| {
        eventually("the other job runs", || {
            let text = std::fs::read_to_string(&second).unwrap_or_default();
            (text.lines().count() == count).then_some(())
        });
    };
    runs(1);
    let rows = daemon.workers();
    let of_other = |job: &str| rows.iter().find(|row| row.job.is_some_and(|own| own.to_string() == job));
    let other_worker = of_other(&other).and_then(|row| row.pid).expect("it has a worker");
    bulkhead_tests::daemon::send_signal(other_worker, "KILL");
    runs(2);
    daemon.ok(&["cancel", &other]);
    let attempts = || json(&daemon.ok(&["job", "--json", &job]))["row"]["attempts"].as_u64();
    assert_eq!(attempts(), Some(1), "it waits");
    std::fs::remove_file(&first).expect("it is there");
    survivor.process.kill(9).expect("root may");
    let again = Survivor::told(&first);
    assert_ne!(again.pid, survivor.pid);
    assert_eq!(attempts(), Some(2));
}

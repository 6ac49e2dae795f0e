//! A daemon that could take strangers for its own: it is PID 1, or has children when it starts. It splits, touches no
//! stranger, and seems to be one process to those who signal it or wait for it.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::view::WorkerState;
use bulkhead_sys::pidfd::Process;
use bulkhead_tests::daemon::{Daemon, Setup, binary, eventually, new_folder, processes_under, send_signal};
use bulkhead_tests::shortage::possible;
use bulkhead_tests::wire::{Wire, submit};
use bulkhead_tests::{or_skip, skip};

const SIGKILL: i32 = 9;

/// Starts a process in the background, writes its pid to `$0`, and becomes the command behind that.
const WITH_A_CHILD: &str = "sleep 3456 </dev/null >/dev/null 2>&1 & echo $! >\"$0\"; exec \"$@\"";

/// A process that the daemon did not start. Dropping it ends it.
struct Stranger(Process);

impl Stranger {
    /// The process whose pid stands in this file.
    fn of(file: &Path) -> Self {
        let text = std::fs::read_to_string(file).expect("its pid");
        Self::at(text.trim().parse().expect("a pid"))
    }

    fn at(pid: u32) -> Self {
        Self(Process::open(pid).expect("it lives"))
    }

    fn lives(&self) -> bool {
        matches!(stat(self.0.pid()), Some((name, state, _)) if name == "sleep" && state != "Z")
    }

    fn parent(&self) -> u32 {
        stat(self.0.pid()).expect("it lives").2
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        drop(self.0.kill(SIGKILL));
    }
}

/// Name, state and parent of a process.
fn stat(pid: u32) -> Option<(String, String, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    Some((name.to_owned(), fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

/// The living children of a process, as pid and name.
fn children(pid: u32) -> Vec<(u32, String)> {
    let entries = std::fs::read_dir("/proc").expect("/proc is there").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let child =
        |child: u32| stat(child).filter(|stat| stat.2 == pid && stat.1 != "Z").map(|stat| (child, stat.0));
    pids.filter_map(child).collect()
}

/// The daemon itself below the outer process.
fn inner(outer: u32) -> u32 {
    let found = children(outer).into_iter().find(|(_, name)| name.starts_with("bulkhead-super"));
    found.expect("the outer process has an inner one").0
}

/// A daemon that has a child when it starts.
fn with_a_child(first: &[&str]) -> (Daemon, Stranger) {
    let folder = new_folder();
    let file = folder.path().join("stranger");
    let mut through: Vec<String> = first.iter().map(|word| (*word).to_owned()).collect();
    through.extend(["sh", "-c", WITH_A_CHILD].map(str::to_owned));
    through.push(file.display().to_string());
    let daemon = Daemon::start_in(folder, &Setup { through, ..Setup::default() });
    let stranger = Stranger::of(&file);
    (daemon, stranger)
}

fn there_is(program: &str) -> Result<(), String> {
    let output = Command::new(program).arg("--version").output();
    output.map(drop).map_err(|error| format!("{program}: {error}"))
}

fn crash_a_worker(daemon: &Daemon) {
    let crashed = daemon.cli(&["run", "chaos", "segv"]);
    assert_eq!(crashed.status.code(), Some(125), "{}", String::from_utf8_lossy(&crashed.stderr));
}

#[test]
fn a_child_from_before_the_start_is_left_alone() {
    let (mut daemon, stranger) = with_a_child(&[]);
    let outer = daemon.pid();
    assert_eq!(stranger.parent(), outer);
    assert_eq!(children(outer).len(), 2, "the stranger and the inner process: {:?}", children(outer));
    crash_a_worker(&daemon);
    assert!(stranger.lives(), "it was no job");
    stranger.0.kill(SIGKILL).expect("it is ours");
    eventually("the outer process reaps it", || stat(stranger.0.pid()).is_none().then_some(()));
    assert!(daemon.end("TERM").success());
    assert_eq!(daemon.leftovers(), [""; 0]);
}

/// Without children it is one process, as ever.
#[test]
fn a_daemon_without_children_does_not_split() {
    let daemon = Daemon::start();
    let children = children(daemon.pid());
    assert!(
        !children.is_empty() && children.iter().all(|(_, name)| name.starts_with("bulkhead-worker")),
        "{children:?}"
    );
}

/// A job that drops its mark, leaves its group, and loses its worker: every process of it is ended and named, and the
/// stranger is not.
#[test]
fn a_stray_without_a_mark_is_ended_and_named() {
    or_skip!(there_is("prlimit"));
    let (daemon, stranger) = with_a_child(&[]);
    let file = daemon.folder().join("strays");
    let script = format!(
        "prlimit --rttime=1000000:1000000 --pid $$; setsid sleep 3457 & echo $! >>{0}; echo $$ >>{0}; wait",
        file.display()
    );
    let job = daemon.ok(&["submit", "exec", "--", "sh", "-c", &script]);
    let lines = || std::fs::read_to_string(&file).unwrap_or_default();
    let pids = eventually("the job is there", || {
        let pids: Vec<u32> = lines().lines().filter_map(|line| line.parse().ok()).collect();
        let is_up = pids.len() >= 2 && stat(pids[0]).is_some_and(|stat| stat.0 == "sleep");
        is_up.then_some(pids)
    });
    let worker = daemon.await_worker(WorkerState::Busy).pid.expect("it has a process");
    // What the job left must not come back while it is looked for.
    send_signal(worker, "KILL");
    for (pid, name) in [(pids[0], "sleep"), (pids[1], "sh")] {
        let line = format!("ended a process that a worker left pid={pid} name=\"{name}\" worker=unknown");
        eventually("the log names it", || daemon.log().contains(&line).then_some(()));
        eventually("it is gone", || stat(pid).is_none().then_some(()));
    }
    daemon.ok(&["cancel", job.trim()]);
    assert!(stranger.lives(), "it was no job");
}

/// As `systemctl kill` does by default, and a terminal's Ctrl-C: the signal comes directly and is passed on. It counts
/// once, so the running job ends well; a second one stops at once.
#[test]
fn a_signal_to_both_processes_counts_once() {
    for twice in [false, true] {
        let (mut daemon, _stranger) = with_a_child(&[]);
        let both = [daemon.pid(), inner(daemon.pid())];
        let mut wire = Wire::connect(&daemon.socket());
        let job = if twice { "600000" } else { "1000" };
        let tag = wire.ask(Request::Submit(submit("sleep", &[job], true)));
        daemon.await_worker(WorkerState::Busy);
        both.into_iter().for_each(|pid| send_signal(pid, "TERM"));
        eventually("it drains", || daemon.log().contains("draining").then_some(()));
        if twice {
            // To the outer process alone, which is the one that was started. The signals before may have met in one.
            eventually("it stops", || {
                send_signal(both[0], "TERM");
                daemon.log().contains("asked to stop at once").then_some(())
            });
        }
        let mut outcome = None;
        while let Some(frame) = wire.next_reply() {
            if let (true, Reply::Ended(some)) = (frame.tag == tag, frame.reply) {
                outcome = some.into_iter().next().map(|end| end.outcome);
            }
        }
        let is_done = outcome == Some(Outcome::Done);
        assert_eq!(is_done, !twice, "{outcome:?}\n{}", daemon.log());
        assert!(daemon.await_end().success());
        assert_eq!(daemon.log().contains("asked to stop at once"), twice, "{}", daemon.log());
    }
}

/// As a shell's Ctrl-Z and `fg`. The group of the daemon must not be an orphaned one, which TSTP does not stop.
#[test]
fn a_stop_by_the_terminal_stops_both_and_a_continue_wakes_both() {
    or_skip!(there_is("python3"));
    let own_group = "import os, sys; os.setpgid(0, 0); os.execvp(sys.argv[1], sys.argv[1:])";
    let (daemon, _stranger) = with_a_child(&["python3", "-c", own_group]);
    let both = [daemon.pid(), inner(daemon.pid())];
    let are_stopped = || both.map(|pid| stat(pid).is_some_and(|stat| stat.1 == "T"));
    send_signal(both[0], "TSTP");
    eventually("both are stopped", || (are_stopped() == [true; 2]).then_some(()));
    send_signal(both[0], "CONT");
    eventually("both go on", || (are_stopped() == [false; 2]).then_some(()));
    assert_eq!(daemon.ok(&["run", "noop", "on"]), "on\n");
}

/// The outer process leaves as the inner one did: with its code, or by its signal.
#[test]
fn the_exit_status_is_the_daemons_own() {
    let (mut daemon, _stranger) = with_a_child(&[]);
    send_signal(inner(daemon.pid()), "KILL");
    assert_eq!(daemon.await_end().signal(), Some(SIGKILL));
    eventually("its workers are gone", || processes_under(daemon.folder()).is_empty().then_some(()));

    let folder = new_folder();
    let file = folder.path().join("stranger");
    let mut command = Command::new("sh");
    command.args(["-c", WITH_A_CHILD]).arg(&file).arg(binary("bulkhead-supervisor"));
    let output = command.args(["--config", "/nowhere"]).output().expect("it runs");
    let _stranger = Stranger::of(&file);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("/nowhere"), "{} {said}", output.status);
}

/// The death of the outer process ends the inner one in order, and its jobs with it.
#[test]
fn a_killed_outer_process_ends_all_below_it() {
    let (mut daemon, stranger) = with_a_child(&[]);
    daemon.ok(&["submit", "sleep", "600000"]);
    daemon.ok(&["submit", "exec", "--", "sleep", "3457"]);
    eventually("both run", || {
        (daemon.workers().iter().filter(|row| row.state == WorkerState::Busy).count() == 2).then_some(())
    });
    daemon.end("KILL");
    eventually("nothing of it is left", || daemon.leftovers().is_empty().then_some(()));
    let log = daemon.log();
    assert!(log.contains("the outer process") && log.trim_end().ends_with("stopped"), "{log}");
    assert!(stranger.lives(), "it was no job");
}

/// What a service manager hears comes from the process that it started. Prints a pid and the text of each report.
const MANAGER: &str = "
import array, socket, struct, sys
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
manager.bind(sys.argv[1])
print('bound', flush=True)
while True:
    text, control, _, _ = manager.recvmsg(4096, socket.CMSG_SPACE(12))
    pid = struct.unpack('3i', control[0][2])[0]
    print(pid, text.decode().replace('\\n', ' '), flush=True)
";

struct Manager(Child);

impl Drop for Manager {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn reports_come_from_the_process_that_was_started() {
    or_skip!(there_is("python3"));
    let folder = new_folder();
    let socket = folder.path().join("notify");
    let mut command = Command::new("python3");
    command.args(["-c", MANAGER]).arg(&socket).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut manager = Manager(command.spawn().expect("it starts"));
    let mut lines = BufReader::new(manager.0.stdout.take().expect("a pipe")).lines();
    let mut next = || lines.next().expect("it tells").expect("text");
    assert_eq!(next(), "bound");
    let variable = format!("NOTIFY_SOCKET={}", socket.display());
    let (mut daemon, _stranger) = with_a_child(&["env", &variable]);
    let outer = daemon.pid();
    let ready = next();
    assert!(ready.starts_with(&format!("{outer} READY=1 STATUS=")), "{ready}");
    assert!(daemon.end("TERM").success());
    assert_eq!(next(), format!("{outer} STOPPING=1 STATUS=draining"));
}

/// A daemon that is PID 1 of a namespace, and PID 1's pid out here.
fn as_init() -> (Daemon, u32) {
    let through = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--"].map(str::to_owned);
    let daemon = Daemon::start_with(&Setup { through: through.to_vec(), ..Setup::default() });
    let init = children(daemon.pid())[0].0;
    (daemon, init)
}

/// Runs a script in the namespace of PID 1, from outside.
fn inside(init: u32, script: &str) -> String {
    let mut command = Command::new("nsenter");
    command.args(["--target", &init.to_string(), "--pid", "--mount", "--", "sh", "-c", script]);
    let output = command.stdin(Stdio::null()).output().expect("nsenter runs");
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

const NAMESPACE: [&str; 6] = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "true"];

#[test]
fn as_the_first_process_of_a_namespace_it_keeps_what_others_left_there() {
    or_skip!(possible(&NAMESPACE));
    let (mut daemon, init) = as_init();
    inside(init, "sleep 3456 </dev/null >/dev/null 2>&1 &");
    let find = || children(init).into_iter().find(|(_, name)| name == "sleep");
    let stranger = Stranger::at(eventually("the orphan is its child", find).0);
    crash_a_worker(&daemon);
    assert!(stranger.lives(), "it was no job");
    stranger.0.kill(SIGKILL).expect("it is ours");
    eventually("PID 1 reaps it", || stat(stranger.0.pid()).is_none().then_some(()));
    inside(init, "sleep 3456 </dev/null >/dev/null 2>&1 &");
    let tag = daemon.ok(&["submit", "sleep", "1"]);
    daemon.ok(&["wait", tag.trim()]);
    // As a container runtime stops it. The namespace ends with it, and the second orphan too.
    send_signal(init, "TERM");
    assert_eq!(daemon.await_end().code(), Some(0));
    assert_eq!(daemon.leftovers(), [""; 0]);
}

/// No signal of its own ends PID 1, so the code says which one ended the daemon.
#[test]
fn as_the_first_process_of_a_namespace_it_leaves_with_a_shells_code() {
    or_skip!(possible(&NAMESPACE));
    let (mut daemon, init) = as_init();
    send_signal(inner(init), "KILL");
    assert_eq!(daemon.await_end().code(), Some(128 + SIGKILL));
}

/// Under the default profile of container runtimes, with and without close_range(2); and a call that is refused is named.
#[test]
fn it_splits_under_a_filter_of_system_calls() {
    let filter = binary("refuse-calls").display().to_string();
    for rules in [&["container"][..], &["close_range=EPERM"]] {
        let (mut daemon, stranger) = with_a_child(&[&[&*filter], rules, &["--"]].concat());
        let null = std::fs::read_link(format!("/proc/{}/fd/1", daemon.pid())).expect("it is ours");
        assert_eq!(null, Path::new("/dev/null"));
        let open = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("it is ours").count();
        assert_eq!(open, 5, "the standard streams, its signals, its reports");
        crash_a_worker(&daemon);
        assert!(stranger.lives(), "it was no job");
        assert!(daemon.end("TERM").success());
    }
    for (rule, call) in [("signalfd4=EPERM", "signalfd(2)"), ("clone=ENOSYS", "clone(2)")] {
        let folder = new_folder();
        let file = folder.path().join("stranger");
        let mut command = Command::new("sh");
        command.args(["-c", WITH_A_CHILD]).arg(&file).args([&*filter, rule, "--"]);
        let output = command.arg(binary("bulkhead-supervisor")).output().expect("it runs");
        let _stranger = Stranger::of(&file);
        let said = String::from_utf8_lossy(&output.stderr);
        let is_named = said.contains(call) && said.contains("seccomp");
        assert!(output.status.code() == Some(1) && is_named, "{} {said}", output.status);
    }
}

/// A pid namespace with the /proc of another one: the pids of its children would be looked up among strangers.
#[test]
fn a_namespace_without_a_proc_of_its_own_is_refused() {
    or_skip!(possible(&NAMESPACE));
    let folder = new_folder();
    let config = folder.path().join("bulkhead.toml");
    std::fs::write(&config, "").expect("a file");
    for arguments in [["--check-config"], ["--config"]] {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child"]).arg(binary("bulkhead-supervisor"));
        command.args(arguments).arg(&config);
        if arguments == ["--config"] {
            command.arg("--private").arg("--socket").arg(folder.path().join("s"));
            command.arg("--state").arg(folder.path().join("state"));
        }
        let output = command.stdin(Stdio::piped()).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        let names = "/proc is not of this pid namespace: it shows this process, pid ";
        assert!(output.status.code() == Some(1) && said.contains(names), "{} {said}", output.status);
        assert!(!folder.path().join("s").exists() && !folder.path().join("state").exists());
    }
}

#[test]
fn an_unprivileged_daemon_splits_as_well() {
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    or_skip!(possible(&[&nobody[..], &["true"]].concat()));
    let program = binary("bulkhead-supervisor");
    let reach = [&nobody[..], &["test", "-x", program.to_str().expect("text")]].concat();
    if possible(&reach).is_err() {
        skip!("another user cannot reach the programs under test");
    }
    let folder = new_folder();
    std::os::unix::fs::chown(folder.path(), Some(65534), Some(65534)).expect("we are root");
    let file = folder.path().join("stranger");
    let mut through: Vec<String> = nobody.map(str::to_owned).to_vec();
    through.extend(["sh", "-c", WITH_A_CHILD].map(str::to_owned));
    through.push(file.display().to_string());
    let mut daemon = Daemon::start_in(folder, &Setup { through, ..Setup::default() });
    let stranger = Stranger::of(&file);
    crash_a_worker(&daemon);
    assert!(stranger.lives(), "it was no job");
    assert!(daemon.end("TERM").success());
}

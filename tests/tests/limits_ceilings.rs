//! The most that users may ask for: refused above it, allowed for an administrator. Needs root, to be somebody else.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use bulkhead_proto::client::exit;
use bulkhead_tests::daemon::{binary, eventually};
use bulkhead_tests::skip;
use tempfile::TempDir;

/// Users and a group that nobody has anything under; the group is there by name, as the config file wants it.
const DAEMON_UID: u32 = 64_001;
const USER_UID: u32 = 64_002;

/// A daemon in system mode, under a user of its own.
struct System {
    folder: TempDir,
    child: Child,
    gid: u32,
}

/// Id and name of a group of no importance.
fn some_group() -> Option<(u32, String)> {
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut words = line.split(':');
        let name = words.next().filter(|name| ["nogroup", "nobody"].contains(name))?;
        Some((words.nth(1)?.parse().ok()?, name.to_owned()))
    })
}

impl System {
    fn start(gid: u32, group: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("bh-").tempdir().expect("a temporary folder");
        let path = folder.path();
        std::fs::write(
            path.join("config"),
            format!(
                "mode = \"system\"\ngroup = \"{group}\"\nadmin_group = \"{group}-that-is-not-there\"\ntimeout_max_seconds = 10\n\
                 no_progress_max_seconds = 10\ncpu_max_seconds = 10\nmemory_max_bytes = 67108864\n"
            ),
        )
        .expect("a config file");
        chown(path, Some(DAEMON_UID), Some(gid)).expect("root may give it away");
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("it is ours");
        let mut command = Command::new(binary("bulkhead-supervisor"));
        command.arg("--private").arg("--config").arg(path.join("config"));
        command.arg("--socket").arg(path.join("s")).arg("--state").arg(path.join("state"));
        command.args(["--workers", "1", "--enable-chaos"]).uid(DAEMON_UID).gid(gid);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(std::fs::File::create(path.join("log")).expect("a log file"));
        let mut child = command.spawn().expect("the supervisor starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped"))
            .read_line(&mut line)
            .expect("it says something");
        let log = std::fs::read_to_string(path.join("log")).unwrap_or_default();
        assert_eq!(line, "ready\n", "{log}");
        Self { folder, child, gid }
    }

    /// Runs a `bulkhead` command as this user.
    fn cli(&self, uid: u32, arguments: &[&str]) -> Output {
        let mut command = Command::new(binary("bulkhead"));
        command.arg("--socket").arg(self.folder.path().join("s")).args(arguments).stdin(Stdio::null());
        command.current_dir("/").uid(uid).gid(self.gid).output().expect("the command runs")
    }
}

impl Drop for System {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        eventually("the daemon ends with its parent", || {
            self.child.try_wait().expect("its status can be asked")
        });
    }
}

/// Whether another user can run what was built here.
fn can_be_run_by_others(program: &Path) -> bool {
    let ran = Command::new(program).arg("--version").uid(USER_UID).current_dir("/").output();
    ran.is_ok_and(|output| output.status.success())
}

#[test]
fn users_may_ask_for_so_much_and_administrators_for_more() {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if !is_root
        || !can_be_run_by_others(&binary("bulkhead"))
        || !can_be_run_by_others(&binary("bulkhead-supervisor"))
    {
        skip!("only root can be somebody else, and others must be able to run what was built");
    }
    let Some((gid, group)) = some_group() else { skip!("there is no group of no importance") };
    let system = System::start(gid, &group);
    for (flag, little, much, key) in [
        ("--timeout", "10s", "11s", "timeout_ms"),
        ("--no-progress", "10s", "11s", "no_progress_ms"),
        ("--cpu-time", "10s", "11s", "cpu_ms"),
        ("--memory", "64M", "65M", "memory_bytes"),
    ] {
        let within = system.cli(USER_UID, &["run", flag, little, "noop", "x"]);
        assert!(within.status.success(), "{flag}: {}", String::from_utf8_lossy(&within.stderr));
        let above = system.cli(USER_UID, &["run", flag, much, "noop", "x"]);
        let said = String::from_utf8_lossy(&above.stderr);
        assert_eq!(above.status.code(), Some(i32::from(exit::FAILED)), "{flag}: {said}");
        assert!(said.contains(key) && said.contains("administrator"), "{flag}: {said}");
        let admin = system.cli(0, &["run", flag, much, "noop", "x"]);
        assert!(admin.status.success(), "{flag}: {}", String::from_utf8_lossy(&admin.stderr));
    }
    // Who asks for nothing has the most, and no more.
    let crashed = system.cli(USER_UID, &["run", "--crashes-max", "1", "chaos", "eat:100"]);
    assert_eq!(crashed.status.code(), Some(i32::from(exit::CRASHED)));
    let done = system.cli(0, &["run", "chaos", "eat:100"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

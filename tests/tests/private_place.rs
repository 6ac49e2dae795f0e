//! A private daemon whose usual folder is full: it is started in the next place that has room, or the command says why not.
//!
//! Each command runs in a mount namespace of its own, in which small file systems lie over `/tmp`, `/dev/shm` and
//! `/var/tmp`; nothing outside is touched. As root, and as a user without rights.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use bulkhead_proto::client::places::SYSTEM_SOCKET;
use bulkhead_tests::daemon::binary;
use bulkhead_tests::{or_skip, skip};

/// Small file systems, filled up: one that has no bytes left, one that has no inodes left.
const NO_BYTES: &str = "full() { mount -t tmpfs -o size=16k,mode=1777 none $1; head -c 1M /dev/zero > $1/fill 2> /dev/null || true; }";
const NO_INODES: &str = "full() { mount -t tmpfs -o size=1M,nr_inodes=2,mode=1777 none $1; : > $1/fill; }";
/// A place with room.
const EMPTY: &str = "empty() { mount -t tmpfs -o size=8M,mode=1777 none $1; }";

fn possible() -> Result<(), &'static str> {
    if Path::new(SYSTEM_SOCKET).exists() {
        return Err("this machine has a system daemon, so no private one would be started");
    }
    let tried =
        Command::new("unshare").args(["--mount", "mount", "-t", "tmpfs", "none", "/var/tmp"]).output();
    let is_possible = tried.is_ok_and(|output| output.status.success());
    is_possible.then_some(()).ok_or("only root can mount, in a namespace of its own")
}

/// Runs `bulkhead run` with these words after this script of mounts, as root or as another user.
fn run_after(script: &str, user: Option<&str>, variables: &[(&str, &str)], words: &str) -> Output {
    let become_user = user.map_or_else(String::new, |user| {
        format!("setpriv --reuid {user} --regid {user} --clear-groups --inh-caps=-all ")
    });
    // The programs may lie below a place that is hidden now.
    let script = format!(
        "set -e; mount --bind \"$0\" /mnt; {NO_BYTES}; {EMPTY}; {script}; exec {become_user}/mnt/bulkhead run {words}"
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
    command
        .arg(binary("bulkhead").parent().expect("it lies in a folder"))
        .env_remove("BULKHEAD_SOCKET")
        .env_remove("XDG_RUNTIME_DIR")
        .env_remove("TMPDIR");
    command.envs(variables.iter().copied()).current_dir("/").stdin(Stdio::null());
    command.output().expect("unshare runs")
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_full_tmp_is_said_and_the_next_place_is_taken() {
    or_skip!(possible());
    for user in [None, Some("61807")] {
        if user.is_some() && !is_for_all(&binary("bulkhead")) {
            skip!("the programs under test are not for every user");
        }
        for full in ["full /tmp", &format!("{NO_INODES}; full /tmp")] {
            let output = run_after(&format!("{full}; empty /dev/shm"), user, &[], "exec -- echo hello");
            let (code, stdout, stderr) = said(&output);
            assert_eq!((code, stdout.as_str()), (Some(0), "hello\n"), "{full} {user:?}: {stderr}");
            let told = "bulkhead: the folder of the private daemon is in /dev/shm: /tmp: ";
            assert!(stderr.contains(told) && stderr.contains("No space left on device"), "{full}: {stderr}");
        }
    }
}

/// Whether every user may run this program.
fn is_for_all(program: &Path) -> bool {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "61807", "--regid", "61807", "--clear-groups"]).arg(program).arg("--version");
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

#[test]
fn a_full_folder_of_the_user_s_choice_is_said_too() {
    or_skip!(possible());
    for name in ["TMPDIR", "XDG_RUNTIME_DIR"] {
        let script = "empty /dev/shm; mkdir -m 1777 /dev/shm/own; full /dev/shm/own; empty /tmp";
        let (code, stdout, stderr) =
            said(&run_after(script, None, &[(name, "/dev/shm/own")], "exec -- echo hello"));
        assert_eq!((code, stdout.as_str()), (Some(0), "hello\n"), "{name}: {stderr}");
        let told = "is in /tmp: /dev/shm/own: ";
        assert!(stderr.contains(told) && stderr.contains("No space left on device"), "{name}: {stderr}");
        let quiet = run_after(script, None, &[(name, "/dev/shm/own")], "-q exec -- echo hello");
        assert_eq!(said(&quiet), (Some(0), "hello\n".to_owned(), String::new()));
    }
}

#[test]
fn a_machine_without_any_room_is_told_place_by_place() {
    or_skip!(possible());
    let (code, stdout, stderr) =
        said(&run_after("full /tmp; full /dev/shm; full /var/tmp", None, &[], "exec -- echo hello"));
    assert_eq!((code, stdout.as_str()), (Some(69), ""), "{stderr}");
    for part in ["no daemon is running", "/tmp: ", "/dev/shm: ", "/var/tmp: ", "No space left", "set TMPDIR"]
    {
        assert!(stderr.contains(part), "{part:?} is not in {stderr}");
    }
    assert!(stderr.lines().count() == 1, "{stderr}");
}

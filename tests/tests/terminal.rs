//! Programs that ask a terminal, in jobs of a daemon whose session has one: opening /dev/tty fails at once.
//!
//! `bulkhead run` is started by script(1), which gives it a terminal of its own; the daemon that it starts is in the
//! session of that terminal. A program in a background group of that session would be stopped by SIGTTIN or SIGTTOU at
//! its first read or change of the terminal. Each command has a limit, so that one that is stopped is told by its code.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use bulkhead_tests::daemon::{Daemon, binary, new_folder};
use bulkhead_tests::{or_skip, skip};

/// The path of a program, or why a test cannot use it.
fn find(name: &str) -> Result<String, String> {
    let places = ["/usr/bin", "/bin", "/usr/local/bin"];
    let found = places.iter().map(|place| format!("{place}/{name}")).find(|path| Path::new(path).is_file());
    found.ok_or_else(|| format!("there is no {name}"))
}

/// Runs `sh -c SCRIPT` as a job, from a terminal, as this user: its exit code and what the terminal showed.
fn run(user: Option<u32>, script: &str) -> (Option<i32>, String) {
    let folder = new_folder();
    let path = folder.path().join("script");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let run =
        format!("exec {} run exec --timeout 20s -- sh {}", binary("bulkhead").display(), path.display());
    let mut command = Command::new("script");
    command.args(["-q", "-e", "-c", &run, "/dev/null"]).stdin(Stdio::null());
    command.env("XDG_RUNTIME_DIR", folder.path()).env("XDG_STATE_HOME", folder.path());
    command.env_remove("BULKHEAD_SOCKET").env("SHELL", "/bin/sh");
    if let Some(uid) = user {
        chown(folder.path(), Some(uid), Some(uid)).unwrap();
        command.uid(uid).gid(uid).env("HOME", folder.path());
    }
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).replace("\r\n", "\n"))
}

/// The user of the tests, and another one if they run as root.
fn users() -> Vec<Option<u32>> {
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    if is_root { vec![None, Some(65_534)] } else { vec![None] }
}

/// The numbers are those of proc_pid_stat(5): the session, and the terminal of that session.
const STAT: &str = "stat() { read -r line </proc/$1/stat; set -- ${line##*) }; echo $4 $5; }";

#[test]
fn the_session_of_a_program_has_no_terminal_although_that_of_its_worker_has_one() {
    or_skip!(find("script"));
    for user in users() {
        let script = format!("{STAT}; stat $PPID; stat $$; echo $$; {{ cat </dev/tty; }} 2>&1; echo $?");
        let (code, shown) = run(user, &script);
        assert_eq!(code, Some(0), "{shown}");
        let lines: Vec<&str> = shown.lines().collect();
        let field = |line: usize, field: usize| lines[line].split(' ').nth(field).unwrap();
        assert_ne!(field(0, 1), "0", "the worker's session has a terminal: {shown}");
        assert_eq!((field(1, 0), field(1, 1)), (lines[2], "0"), "{shown}");
        assert!(shown.contains("/dev/tty: No such device or address"), "{shown}");
    }
}

/// Writing to it and changing it stop a program in the background as well.
#[test]
fn what_asks_a_terminal_is_told_at_once_that_there_is_none() {
    or_skip!(find("script"));
    for user in users() {
        for script in [
            "echo words >/dev/tty",
            "stty -echo </dev/tty",
            "bash -c 'read -r -s -p word: word </dev/tty'",
            "perl -e 'open(my $tty, \"+<\", \"/dev/tty\") or exit 6; <$tty>'",
        ] {
            let (code, shown) = run(user, script);
            assert!(code.is_some_and(|code| (1..=6).contains(&code)), "{script}: {code:?} {shown}");
        }
    }
}

#[test]
fn getpass_of_python_reads_standard_input_instead() {
    or_skip!(find("script"));
    let python = or_skip!(find("python3"));
    for user in users() {
        let script = format!("{python} -c 'import getpass; getpass.getpass()'");
        let (code, shown) = run(user, &script);
        assert_eq!(code, Some(1), "{shown}");
        assert!(shown.contains("EOFError"), "standard input is empty: {shown}");
    }
}

#[test]
fn ssh_keygen_does_not_wait_for_a_passphrase() {
    or_skip!(find("script"));
    or_skip!(find("ssh-keygen"));
    for user in users() {
        let script = "ssh-keygen -q -t ed25519 -N secret -f key && exec ssh-keygen -y -f key";
        let (code, shown) = run(user, script);
        assert_eq!(code, Some(255), "{shown}");
        assert!(shown.contains("incorrect passphrase"), "{shown}");
    }
}

#[test]
fn git_does_not_wait_for_a_user_name() {
    or_skip!(find("script"));
    or_skip!(find("git"));
    for user in users() {
        let script = "printf 'protocol=http\\nhost=x\\n\\n' | git credential fill";
        let (code, shown) = run(user, script);
        assert_eq!(code, Some(128), "{shown}");
        assert!(shown.contains("could not read Username"), "{shown}");
    }
}

#[test]
fn sudo_says_that_it_needs_a_terminal() {
    or_skip!(find("script"));
    or_skip!(find("sudo"));
    let Some(user) = users().into_iter().find(Option::is_some) else {
        skip!("only root becomes another user");
    };
    let (code, shown) = run(user, "sudo -k true");
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("terminal is required") || shown.contains("sudo: "), "{shown}");
}

/// The prompt of a shell begins on a line of its own, and a file gets the bytes of the result alone.
#[test]
fn only_a_terminal_gets_a_newline_after_a_result() {
    or_skip!(find("script"));
    let daemon = Daemon::start();
    let id = daemon.ok(&["submit", "factorial", "5"]);
    daemon.ok(&["wait", id.trim()]);
    let result = format!("{} result {}; printf end", binary("bulkhead").display(), id.trim());
    let mut command = Command::new("script");
    command.args(["-q", "-e", "-c", &result, "/dev/null"]).stdin(Stdio::null());
    command.env("BULKHEAD_SOCKET", daemon.socket()).env("SHELL", "/bin/sh");
    let output = command.output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout).replace("\r\n", "\n");
    assert_eq!((output.status.code(), shown.as_str()), (Some(0), "120\nend"));
}

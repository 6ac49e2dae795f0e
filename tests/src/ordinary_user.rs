//! A daemon of an ordinary user that only one test uses, so that all processes of that user are the test's.
//!
//! Only root can become another user. Whatever happens, all processes of the user are killed at the end; it must never be
//! a user that runs anything else.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use crate::daemon::{Daemon, Setup, binary, new_folder};
use crate::program_file::copy_program;

/// The user of one test.
#[derive(Debug)]
pub struct OrdinaryUser {
    uid: u32,
    gid: u32,
}

/// What a set-uid helper is told to become root wholly, so that no other user may signal it.
pub const AS_ROOT: &str = "--reuid=0 --regid=0 --clear-groups";

impl OrdinaryUser {
    /// The user of this number.
    ///
    /// # Errors
    /// Why not: the reason to skip the test.
    pub fn new(uid: u32) -> Result<Self, String> {
        Self::in_group(uid, uid)
    }

    /// The user of this number in one group, which may be somebody else's.
    ///
    /// # Errors
    /// Why not: the reason to skip the test.
    pub fn in_group(uid: u32, gid: u32) -> Result<Self, String> {
        let user = Self { uid, gid };
        let become_it = Command::new("setpriv").args(user.identity()).arg("true").status();
        match become_it {
            Ok(status) if status.success() => Ok(user),
            _ => Err("only root with setpriv becomes another user".to_owned()),
        }
    }

    fn identity(&self) -> Vec<String> {
        vec![format!("--reuid={}", self.uid), format!("--regid={}", self.gid), "--clear-groups".to_owned()]
    }

    /// A daemon of this user with these limits of `prlimit`. Its folder has the programs.
    pub fn daemon(&self, config: &str, limits: &[&str]) -> Daemon {
        let folder = new_folder();
        let programs = folder.path().join("programs");
        fs::create_dir(&programs).expect("a folder for the programs");
        for name in ["bulkhead-supervisor", "bulkhead-worker"] {
            copy_program(&binary(name), &programs.join(name));
        }
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
        chown(folder.path(), Some(self.uid), Some(self.uid)).expect("root may");
        let mut through = vec!["prlimit".to_owned()];
        through.extend(limits.iter().map(|limit| (*limit).to_owned()));
        through.push("setpriv".to_owned());
        through.extend(self.identity());
        let config = config.to_owned();
        Daemon::start_in(folder, &Setup { workers: 2, chaos: false, config, through, programs })
    }

    /// A program under test, run as this user with as many open files as root may give it, from this folder.
    pub fn command(&self, name: &str, folder: &Path, arguments: &[&str]) -> Command {
        let program = folder.join(name);
        copy_program(&binary(name), &program);
        let mut command = Command::new("prlimit");
        command.args(["--nofile=4096:4096", "setpriv"]).args(self.identity()).arg(program).args(arguments);
        command
    }

    /// Its processes, dead ones that are not reaped included.
    pub fn processes(&self) -> Vec<u32> {
        let mine = format!("Uid:\t{}\t", self.uid);
        let pids = fs::read_dir("/proc").expect("/proc is there").flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let is_mine = |pid: &u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.lines().any(|line| line.starts_with(&mine))
        };
        pids.filter(is_mine).collect()
    }
}

impl Drop for OrdinaryUser {
    fn drop(&mut self) {
        // As that user `kill -1` reaches each of its processes at once, so that none can fork meanwhile.
        let kill = ["/bin/sh", "-c", "kill -KILL -1"];
        drop(Command::new("setpriv").args(self.identity()).args(kill).status());
    }
}

/// Makes a set-uid program of root in this folder that becomes who its arguments say, and then runs the rest of them.
///
/// # Errors
/// Why not: the reason to skip the test.
pub fn set_uid_helper(folder: &Path, user: &OrdinaryUser) -> Result<String, String> {
    let helper = folder.join("helper");
    let made = Command::new("install").args(["-m", "4755", "/usr/bin/setpriv"]).arg(&helper).status();
    let probe = || {
        let mut command = Command::new("setpriv");
        command.args(user.identity()).arg(&helper).args(AS_ROOT.split(' ')).args(["id", "-ru"]);
        command.output().is_ok_and(|output| output.stdout == b"0\n")
    };
    match made {
        Ok(made) if made.success() && probe() => Ok(format!("{} {AS_ROOT}", helper.display())),
        _ => {
            Err("no set-uid program works here: setpriv is missing, or the file system has nosuid".to_owned())
        }
    }
}

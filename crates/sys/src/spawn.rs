//! Spawning a process without forking this one.
//!
//! `std::process::Command` uses posix_spawn as long as nothing has to run between fork and exec; its cost does
//! not grow with the size of the parent then, so there is no `pre_exec` here and never may be. What the child
//! has to do for itself (limits, PDEATHSIG, sandbox) it does after exec; what it needs to know comes through
//! its standard input.
//!
//! The caller must be a thread that lives as long as the child: PDEATHSIG is sent when the *thread* that
//! spawned it ends. Where strays are swept, it must be the thread that sweeps, or a child that was just
//! spawned would look like a stray.
//!
//! Until its exec, a child holds copies of all our descriptors. This thread waits for that exec; what another
//! thread closes meanwhile stays open that long.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::pidfd::Process;

/// What to spawn.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// Path of the program; it is not looked up.
    pub program: &'a Path,
    /// Its arguments, the program's own name not among them.
    pub args: &'a [OsString],
    /// Its whole environment.
    pub env: &'a [(&'a str, OsString)],
    /// Its standard input. Standard output is /dev/null, standard error is shared with us; nothing else is
    /// inherited.
    pub stdin: OwnedFd,
}

/// Starts a process that leads a process group of its own.
///
/// # Errors
/// ENOENT, EACCES, ENOEXEC: the program cannot be run. EAGAIN, ENOMEM, EMFILE, ENFILE: something is short; try
/// again later. If the child was made but no descriptor for it is to be had, it has been killed and is left to
/// [`crate::tree::sweep_strays`].
pub fn spawn(spawn: Spawn<'_>) -> io::Result<Process> {
    let child = Command::new(spawn.program)
        .args(spawn.args)
        .env_clear()
        .envs(spawn.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::from(spawn.stdin))
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()?;
    Process::open(child.id()).inspect_err(|_| {
        // Our own unreaped child, so the group is its own; that it may be dead already is fine.
        let group = i32::try_from(child.id()).expect("a process id fits 31 bits");
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;
    use crate::poll::wait_readable;
    use crate::testing::{reap, spawning};
    use std::os::fd::AsFd;

    /// What `script` writes to its standard input, which is a socket.
    fn said(script: &str, env: &[(&str, OsString)]) -> String {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let args = ["-c".into(), script.into()];
        let shell = Spawn { program: Path::new("/bin/sh"), args: &args, env, stdin: theirs.into() };
        let process = spawning(|| spawn(shell)).unwrap();
        assert!(wait_readable(process.as_fd(), Duration::from_secs(30)).unwrap());
        reap(&process);
        let mut text = String::new();
        ours.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn what_is_open_here_does_not_reach_the_child() {
        let folder = tempfile::tempdir().unwrap();
        let _open = File::create(folder.path().join("open-in-the-parent")).unwrap();
        let listed = said("exec 3<&0; ls -l /proc/self/fd >&3", &[]);
        assert!(listed.contains("0 -> socket:"), "{listed}");
        assert!(!listed.contains("open-in-the-parent"), "{listed}");
        assert_eq!(said("exec 3<&0; link=$(readlink /proc/$$/fd/1); echo $link >&3", &[]), "/dev/null\n");
    }

    #[test]
    fn the_environment_is_what_was_asked_for_and_the_group_its_own() {
        let env = [("BULKHEAD_LOG", OsString::from("info"))];
        let environ = "exec 3<&0; tr '\\0' '\\n' </proc/$$/environ >&3";
        assert_eq!(said(environ, &env), "BULKHEAD_LOG=info\n");
        assert_eq!(said(environ, &[]), "");
        let group =
            "exec 3<&0; read -r pid name state parent group rest </proc/$$/stat; echo $((group - $$)) >&3";
        assert_eq!(said(group, &[]), "0\n");
    }

    #[test]
    fn a_missing_program_is_an_error_and_leaves_nobody() {
        let (_ours, theirs) = UnixStream::pair().unwrap();
        let missing = Spawn { program: Path::new("/nowhere"), args: &[], env: &[], stdin: theirs.into() };
        assert_eq!(spawn(missing).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}

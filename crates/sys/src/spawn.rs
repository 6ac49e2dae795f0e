//! Spawns a process without forking this one.
//!
//! It calls posix_spawn(3): no code of ours runs between fork and exec, and the cost does not grow with the size of
//! this process. The child sets up itself after its exec (limits, PDEATHSIG, sandbox); its setup arrives on its
//! standard input.
//!
//! The calling thread must live as long as the child, because PDEATHSIG is sent when the *thread* that spawned it
//! ends.
//!
//! Until its exec a child holds copies of the calling thread's descriptors, which the exec closes while this thread
//! waits. A file on FUSE whose server never answers the flush blocks both for ever. A process that holds untrusted
//! descriptors spawns through [`crate::spawner`].

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use nix::libc;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::unistd::Pid;

use crate::pidfd::Process;

/// The process to spawn.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// The path of the program; PATH is not searched.
    pub program: &'a Path,
    /// Its arguments without the program's name.
    pub args: &'a [OsString],
    /// Its whole environment.
    pub env: &'a [(OsString, OsString)],
    /// Its standard input. Standard output is /dev/null and standard error ours, unless a [`crate::spawner`] has others; no
    /// other descriptor is inherited.
    pub stdin: OwnedFd,
}

/// Starts a process that leads a process group of its own.
///
/// # Errors
/// ENOENT, EACCES, ENOEXEC: the program cannot be run. EAGAIN, ENOMEM, EMFILE, ENFILE: a resource is exhausted; retry
/// later. `InvalidInput`: a string contains a NUL. If the child was created but no pidfd could be opened, it is
/// killed and left to [`crate::tree::sweep_strays`].
pub fn spawn(spawn: Spawn<'_>) -> io::Result<Process> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    ExecStrings::of(&spawn)?.start(spawn.stdin, Some(&null)).and_then(take_hold)
}

/// Opens a pidfd of a child that was just created.
pub(crate) fn take_hold(child: u32) -> io::Result<Process> {
    Process::open(child).inspect_err(|_| {
        // The child is not reaped, so this is its group. It may be dead already.
        let group = i32::try_from(child).expect("a process id fits 31 bits");
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    })
}

/// Program, arguments and environment as C strings.
#[derive(Debug)]
pub(crate) struct ExecStrings {
    program: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl ExecStrings {
    pub(crate) fn of(spawn: &Spawn<'_>) -> io::Result<Self> {
        let program = word(spawn.program.as_os_str())?;
        let args = std::iter::once(Ok(program.clone()))
            .chain(spawn.args.iter().map(|arg| word(arg)))
            .collect::<io::Result<_>>()?;
        let variable = |(name, value): &(OsString, OsString)| {
            let mut both = name.clone();
            both.push("=");
            both.push(value);
            Ok(CString::new(both.into_vec())?)
        };
        Ok(Self { program, args, env: spawn.env.iter().map(variable).collect::<io::Result<_>>()? })
    }

    /// Creates the process with no signal blocked and none ignored. Our copy of `stdin` is closed when this returns. Without
    /// `stdout` it gets that of the calling thread.
    pub(crate) fn start(&self, stdin: OwnedFd, stdout: Option<&File>) -> io::Result<u32> {
        let mut actions = PosixSpawnFileActions::init()?;
        actions.add_dup2(stdin.as_raw_fd(), libc::STDIN_FILENO)?;
        if let Some(stdout) = stdout {
            actions.add_dup2(stdout.as_raw_fd(), libc::STDOUT_FILENO)?;
        }
        let mut attributes = PosixSpawnAttr::init()?;
        attributes.set_flags(
            PosixSpawnFlags::POSIX_SPAWN_SETPGROUP
                | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK
                | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF,
        )?;
        attributes.set_pgroup(Pid::from_raw(0))?;
        attributes.set_sigmask(&SigSet::empty())?;
        attributes.set_sigdefault(&SigSet::all())?;
        let child = posix_spawn(self.program.as_c_str(), &actions, &attributes, &self.args, &self.env)?;
        Ok(u32::try_from(child.as_raw()).expect("a process id is not negative"))
    }
}

fn word(text: &OsStr) -> io::Result<CString> {
    Ok(CString::new(text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;
    use crate::poll::wait_readable;
    use crate::testing::{in_child, reap, spawning};
    use std::os::fd::AsFd;

    /// The bytes that `script` writes to its standard input, which is a socket.
    fn said(script: &str, env: &[(OsString, OsString)]) -> String {
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
        let env = [("BULKHEAD_LOG".into(), "info".into())];
        let environ = "exec 3<&0; tr '\\0' '\\n' </proc/$$/environ >&3";
        assert_eq!(said(environ, &env), "BULKHEAD_LOG=info\n");
        assert_eq!(said(environ, &[]), "");
        let group =
            "exec 3<&0; read -r pid name state parent group rest </proc/$$/stat; echo $((group - $$)) >&3";
        assert_eq!(said(group, &[]), "0\n");
    }

    #[test]
    fn a_child_starts_with_no_signal_blocked_or_ignored() {
        in_child("spawn::tests::a_child_starts_with_no_signal_blocked_or_ignored", || {
            SigSet::all().thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_SETMASK).unwrap();
            for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGUSR1, libc::SIGXFSZ, 40] {
                // SAFETY: to ignore a signal runs no code.
                unsafe { libc::signal(signal, libc::SIG_IGN) };
            }
            let said = said("exec 3<&0; exec /usr/bin/grep -E '^Sig(Blk|Ign)' /proc/self/status >&3", &[]);
            let (blocked, ignored) = said.split_once("SigIgn:").unwrap();
            assert_eq!(blocked, "SigBlk:\t0000000000000000\n");
            // The C library's own two signals, 32 and 33: its posix_spawn ignores them in every child.
            let own = 0b11 << 31;
            assert_eq!(u64::from_str_radix(ignored.trim(), 16).unwrap() & !own, 0, "{ignored}");
        });
    }

    #[test]
    fn a_missing_program_is_an_error_and_leaves_nobody() {
        let (_ours, theirs) = UnixStream::pair().unwrap();
        let missing = Spawn { program: Path::new("/nowhere"), args: &[], env: &[], stdin: theirs.into() };
        assert_eq!(spawn(missing).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}

//! Ends all descendants of this process, and names those that it may not end.
//!
//! A program may have become another user, as set-uid programs do: kill(2) then fails with EPERM, and the process lives
//! on. It is a survivor. A dead process of another user refuses a signal as well, so a process counts as a survivor only
//! while it lives. It must never be called in a process with children that are to stay. Driven by `program.rs`.

use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::libc;

use crate::exit::{ExitStatus, Reap, Which, reap_any, wait_for_any, wait_now};
use crate::freeze::{FREEZE_PASSES_MAX, KillOutcome, freeze, kill_with_group};
use crate::pidfd::Process;
use crate::poll::{PollTarget, wait};
use crate::process_stats::fields_of;
use crate::strays::children;

/// Passes beside survivors: one of another user may fork children of ours without end.
const PASSES_MAX: usize = 64;

/// How the descendants have ended.
#[derive(Debug, Default)]
pub(crate) struct DescendantsEnd {
    /// The status of the process that was asked for; `None` if it has survived.
    pub(crate) status: Option<ExitStatus>,
    /// The processes that live on, because they run as other users.
    pub(crate) survivors: Vec<u32>,
}

/// Kills and reaps all descendants of this process, also those that it inherits meanwhile. Blocks until none is left but
/// those that run as other users. `leader` is a child whose group is killed first, and whose status is returned. If it is
/// dead already, it is not signalled.
///
/// Processes that fork without pause are not outrun one by one: each pass first stops them all and takes from each the
/// right to fork, see [`freeze`].
///
/// # Errors
/// ENOENT: /proc is missing or has no lists of children. EMFILE, ENFILE: no descriptor is free.
pub(crate) fn end_descendants(leader: Option<&Process>) -> io::Result<DescendantsEnd> {
    if let Some(leader) = leader {
        kill_unless_dead(leader)?;
    }
    let mut end = DescendantsEnd::default();
    for pass in 0_usize.. {
        if !reap_dead(leader, &mut end.status)? {
            break;
        }
        let (dying, survivors) = kill_all()?;
        match dying {
            Some(process) if survivors.is_empty() || pass < PASSES_MAX => {
                // Interrupted or not, the next pass checks.
                let _ = wait([PollTarget::readable(process.as_fd())], None);
            }
            _ if !survivors.is_empty() => {
                // Those that this pass has killed may be dead by now, `leader` among them.
                reap_dead(leader, &mut end.status)?;
                end.survivors = survivors;
                break;
            }
            // Those that are left have died meanwhile.
            _ => drop(wait_for_any()),
        }
    }
    Ok(end)
}

/// Kills a child and its group. Dead or alive, its pid is not reused before it is reaped, and neither is the number of its
/// group. One call ends a group that forks without pause; killed one by one, its members could outrun this process.
fn kill_unless_dead(leader: &Process) -> io::Result<()> {
    if wait_now(Which::Pidfd(leader.as_fd()), Reap::No)?.is_none() {
        match leader.kill(libc::SIGKILL) {
            // It runs as another user.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
            other => other?,
        }
    }
    kill_with_group(leader.pid());
    Ok(())
}

/// Reaps all dead children and keeps the status of `leader`. `false`: there are no children any more.
fn reap_dead(leader: Option<&Process>, status: &mut Option<ExitStatus>) -> io::Result<bool> {
    loop {
        match reap_any() {
            // Its pid may be reused by another child after that.
            Ok(Some((pid, ended)))
                if status.is_none() && leader.is_some_and(|leader| leader.pid() == pid) =>
            {
                *status = Some(ended);
            }
            Ok(Some(_)) => {}
            Ok(None) => return Ok(true),
            Err(error) if error.raw_os_error() == Some(Errno::ECHILD as i32) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

/// Kills all descendants. Returns one that was killed and is not dead yet, and those that live and refuse.
fn kill_all() -> io::Result<(Option<Process>, Vec<u32>)> {
    let children = children()?;
    let mut all = freeze(children.clone(), std::process::id(), FREEZE_PASSES_MAX);
    // A /proc with `hidepid` hides processes of other users from the freeze.
    all.extend(children);
    let (mut dying, mut survivors) = (None, Vec::new());
    for pid in all {
        let outcome = kill_with_group(pid);
        if lives(pid) {
            match outcome {
                KillOutcome::Refused => survivors.push(pid),
                KillOutcome::Sent if dying.is_none() => dying = Process::open(pid).ok(),
                KillOutcome::Sent => {}
            }
        }
    }
    Ok((dying, survivors))
}

/// Whether a descendant is alive. A child that /proc does not show, or shows as dead, is asked for as such: a process
/// whose first thread has ended is shown as dead while the others run.
fn lives(pid: u32) -> bool {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    let is_shown_alive =
        fields_of(&stat).is_some_and(|fields| !matches!(fields.first(), Some(b'Z' | b'X' | b'x')));
    is_shown_alive || matches!(wait_now(Which::Pid(pid), Reap::No), Ok(None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{PATIENCE, in_child};

    /// Its first thread ends, and another one goes on.
    const SCRIPT: &str = "import ctypes, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
ctypes.CDLL(None).pthread_exit(None)";

    #[test]
    fn a_process_whose_first_thread_has_ended_lives() {
        in_child("descendants_end::tests::a_process_whose_first_thread_has_ended_lives", || {
            let Ok(mut python) = std::process::Command::new("python3").args(["-c", SCRIPT]).spawn() else {
                skip!("there is no python3");
            };
            let pid = python.id();
            let is_zombie = || {
                let stat = std::fs::read(format!("/proc/{pid}/stat")).unwrap();
                fields_of(&stat).unwrap().first() == Some(&b'Z')
            };
            let until = std::time::Instant::now() + PATIENCE;
            while !is_zombie() {
                assert!(std::time::Instant::now() < until, "its first thread goes on");
                std::thread::yield_now();
            }
            assert!(lives(pid));
            python.kill().unwrap();
            wait_for_any().unwrap();
            assert!(!lives(pid), "it is not reaped yet");
            python.wait().unwrap();
            assert!(!lives(pid));
        });
    }
}

//! Strays: children of this process that nobody spawned here - what a worker left behind when it daemonised
//! something or died, and the kernel gave to its subreaper.
//!
//! The kernel lists children per thread, and a list may change while it is read; that is why every pass that
//! reaped somebody is followed by another. A stray that is killed hands its own children to us as it dies, and
//! each of those deaths raises SIGCHLD: whoever sweeps at each SIGCHLD sees the end of them all.

use std::io;

use nix::errno::Errno;
use nix::sys::signal::{self, Signal, killpg};
use nix::unistd::{Pid, getpgid};

use crate::exit::{Reap, Which, wait_now};

/// Passes in one sweep; what is left then is told, and its SIGCHLD brings the next sweep.
const PASSES_MAX: usize = 64;

/// Kills every child of this process that `is_known` does not know, reaps those that are dead, and gives how
/// many are left: killed, but not dead yet. Children in the process group of a known process are its own
/// affair and are only reaped. Never blocks.
///
/// Call it from the thread that spawns: a child that was spawned but is not known yet is a stray to it.
///
/// # Errors
/// ENOENT: /proc is not there or hides the lists of children (`CONFIG_PROC_CHILDREN`); EMFILE, ENFILE: try again
/// later.
pub fn sweep_strays(is_known: &dyn Fn(u32) -> bool) -> io::Result<usize> {
    let mut left = 0;
    for _ in 0..PASSES_MAX {
        left = 0;
        let mut reaped = false;
        for child in children()? {
            match treat(child, is_known) {
                Treated::Spared => {}
                Treated::Reaped => reaped = true,
                Treated::Left => left += 1,
            }
        }
        if !reaped {
            return Ok(left);
        }
    }
    Ok(left.max(1))
}

/// Reaps every dead child of this process that `is_known` does not know, and kills nobody: what a worker that lives
/// on leaves behind must not pile up. Never blocks.
///
/// # Errors
/// As [`sweep_strays`].
pub fn reap_orphans(is_known: &dyn Fn(u32) -> bool) -> io::Result<()> {
    for child in children()?.into_iter().filter(|child| !is_known(*child)) {
        // What cannot be reaped now lives, or is reaped by the next look.
        let _ = wait_now(Which::Pid(child), Reap::Yes);
    }
    Ok(())
}

enum Treated {
    Spared,
    Reaped,
    Left,
}

/// A child's number is its own until we reap it, so it cannot be mistaken here.
fn treat(child: u32, is_known: &dyn Fn(u32) -> bool) -> Treated {
    if is_known(child) {
        return Treated::Spared;
    }
    let pid = Pid::from_raw(i32::try_from(child).expect("a process id fits 31 bits"));
    let group = getpgid(Some(pid)).ok();
    let spared = group.is_some_and(|group| u32::try_from(group.as_raw()).is_ok_and(is_known));
    if !spared {
        // EPERM: it runs as somebody else now. It is left, and so its worker is not proven dead.
        let _ = signal::kill(pid, Signal::SIGKILL);
        if group == Some(pid) {
            let _ = killpg(pid, Signal::SIGKILL);
        }
    }
    match wait_now(Which::Pid(child), Reap::Yes) {
        Ok(Some(_)) => Treated::Reaped,
        Err(error) if error.raw_os_error() == Some(Errno::ECHILD as i32) => Treated::Reaped,
        Ok(None) | Err(_) if spared => Treated::Spared,
        Ok(None) | Err(_) => Treated::Left,
    }
}

/// The children of all threads of this process, dead ones too.
fn children() -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for thread in std::fs::read_dir("/proc/self/task")? {
        match std::fs::read_to_string(thread?.path().join("children")) {
            Ok(list) => found.extend(list.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok())),
            // The thread ended, and its children went to another one; those it is not in yet come to light
            // with the next sweep. Without the thread list itself nothing can be said.
            Err(error) if is_gone(&error) && std::fs::exists("/proc/thread-self/children")? => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ESRCH as i32)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::poll::wait_readable;
    use crate::testing::{PATIENCE, in_child, reap, shell};

    #[test]
    fn only_strangers_are_swept() {
        in_child("strays::tests::only_strangers_are_swept", || {
            let known = shell("read line");
            let stray = shell("read line");
            let sweep = || sweep_strays(&|pid| pid == known.pid()).unwrap();
            if sweep() > 0 {
                assert!(wait_readable(stray.as_fd(), PATIENCE).unwrap());
                assert_eq!(sweep(), 0);
            }
            assert!(
                !wait_readable(known.as_fd(), std::time::Duration::ZERO).unwrap(),
                "a known child was killed"
            );
            known.kill(9).unwrap();
            reap(&known);
        });
    }

    #[test]
    fn only_the_dead_are_reaped() {
        in_child("strays::tests::only_the_dead_are_reaped", || {
            let (known, dead, living) = (shell("exit 0"), shell("exit 0"), shell("read line"));
            for child in [&known, &dead] {
                assert!(wait_readable(child.as_fd(), PATIENCE).unwrap());
            }
            reap_orphans(&|pid| pid == known.pid()).unwrap();
            let mut left = children().unwrap();
            left.sort_unstable();
            let mut expected = [known.pid(), living.pid()];
            expected.sort_unstable();
            assert_eq!(left, expected);
            assert!(!wait_readable(living.as_fd(), std::time::Duration::ZERO).unwrap(), "it was killed");
            living.kill(9).unwrap();
            reap(&living);
            reap(&known);
        });
    }

    #[test]
    fn children_of_every_thread_are_seen() {
        in_child("strays::tests::children_of_every_thread_are_seen", || {
            let barrier = std::sync::Barrier::new(9);
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        let child = shell("read line");
                        barrier.wait();
                        assert!(wait_readable(child.as_fd(), PATIENCE).unwrap());
                        barrier.wait();
                    });
                }
                barrier.wait();
                assert_eq!(children().unwrap().len(), 8);
                sweep_strays(&|_| false).unwrap();
                barrier.wait();
                assert_eq!(sweep_strays(&|_| false).unwrap(), 0);
                assert_eq!(children().unwrap(), []);
            });
        });
    }

    #[test]
    fn orphans_in_the_group_of_a_known_process_are_spared() {
        in_child("strays::tests::orphans_in_the_group_of_a_known_process_are_spared", || {
            crate::tree::become_subreaper().unwrap();
            let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            let worker = crate::testing::shell_on(
                "exec 3<&0; (sh -c 'read line <&3' &); echo >&3; read line <&3",
                theirs,
            );
            assert!(wait_readable(ours.as_fd(), PATIENCE).unwrap());
            assert_eq!(sweep_strays(&|pid| pid == worker.pid()).unwrap(), 0);
            let orphans = || children().unwrap().len() - 1;
            assert_eq!(orphans(), 1, "the orphan is gone, or never came to us");
            let mut tree = crate::tree::Tree::new(worker);
            tree.kill().unwrap();
            assert!(wait_readable(tree.process().as_fd(), PATIENCE).unwrap());
            let mut signals = crate::signals::Signals::new(&[crate::signals::CHLD]).unwrap();
            while !matches!(tree.advance().unwrap(), crate::tree::TreeEnd::Ended(_)) {
                assert!(wait_readable(signals.as_fd(), PATIENCE).unwrap());
                signals.pending();
            }
        });
    }
}

//! A worker's process tree: killing it, and the proof that it is dead.
//!
//! A kill covers the whole tree. Leader and process group die by one signal, which the kernel delivers to all of them
//! at once; children that left the group become ours when their parents die (PR_SET_CHILD_SUBREAPER), and
//! [`sweep_strays`] kills them. A task may be retried once [`Tree::advance`] returns [`TreeEnd::Ended`] and no stray
//! of the worker is alive.
//!
//! The kernel reuses the number of an empty process group. The unreaped leader reserves it, so the group is signalled
//! only before the leader is reaped; later it is only probed. Driven by the supervisor's `worker_process.rs`.

use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{self, Signal, killpg};
use nix::unistd::Pid;

pub use crate::ended_strays::{EndedStray, EndedStrays};
use crate::exit::{ExitStatus, Reap, Which, wait_now};
use crate::pidfd::Process;
pub use crate::strays::{RemainingStray, RemainingStrays, Sweep, reap_orphans, sweep_strays};

/// Makes this process the parent of each descendant whose own parent dies.
///
/// # Errors
/// EINVAL: a kernel before 3.4.
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: PR_SET_CHILD_SUBREAPER takes one integer.
    let result = unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
    Errno::result(result)?;
    Ok(())
}

/// Ends that: orphans go to the next subreaper above again.
///
/// # Errors
/// EINVAL: a kernel before 3.4.
pub(crate) fn stop_being_subreaper() -> io::Result<()> {
    // SAFETY: PR_SET_CHILD_SUBREAPER takes one integer.
    let result = unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 0) };
    Errno::result(result)?;
    Ok(())
}

/// How far a tree has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeEnd {
    /// The leader is alive.
    Alive,
    /// The leader is reaped, its group is not empty. SIGCHLD tells when to look again: the rest of the group are our
    /// children now, if we are their subreaper.
    Dying,
    /// The leader is reaped and its group is empty. Returned by each later call too.
    Ended(ExitStatus),
}

#[derive(Clone, Copy, Debug)]
enum TreeState {
    Unreaped,
    Reaped(ExitStatus),
    Ended(ExitStatus),
}

/// A process and the group it leads. Dropping it neither kills nor reaps.
#[derive(Debug)]
pub struct Tree {
    process: Process,
    state: TreeState,
}

impl Tree {
    /// The tree of a process that was just spawned.
    pub fn new(process: Process) -> Self {
        Self { process, state: TreeState::Unreaped }
    }

    /// Its leader.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Whether the leader was reaped. Then its pid may belong to another process.
    pub fn is_reaped(&self) -> bool {
        !matches!(self.state, TreeState::Unreaped)
    }

    /// Sends SIGKILL to the leader and its group. Does nothing once the leader is reaped, because the group got its
    /// signal before.
    ///
    /// # Errors
    /// EPERM: the leader runs as another user. Group members of another user are skipped.
    pub fn kill(&self) -> io::Result<()> {
        if !matches!(self.state, TreeState::Unreaped) {
            return Ok(());
        }
        self.process.kill(libc::SIGKILL)?;
        self.kill_group()
    }

    /// Checks how far the tree has ended: kills the group of a dead leader and reaps the dead. Never blocks.
    ///
    /// # Errors
    /// ECHILD: the leader was reaped elsewhere, so its exit status is lost.
    pub fn advance(&mut self) -> io::Result<TreeEnd> {
        if matches!(self.state, TreeState::Unreaped) {
            if wait_now(Which::Pidfd(self.process.as_fd()), Reap::No)?.is_none() {
                return Ok(TreeEnd::Alive);
            }
            // A zombie still reserves the group's number: this is the last moment to signal the group.
            self.kill_group()?;
            let status = wait_now(Which::Pidfd(self.process.as_fd()), Reap::Yes)?;
            self.state = TreeState::Reaped(status.ok_or(Errno::ECHILD)?);
        }
        if let TreeState::Reaped(status) = self.state
            && self.group_is_empty()
        {
            self.state = TreeState::Ended(status);
        }
        Ok(match self.state {
            TreeState::Ended(status) => TreeEnd::Ended(status),
            TreeState::Reaped(_) | TreeState::Unreaped => TreeEnd::Dying,
        })
    }

    fn group(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.process.pid()).expect("a process id fits 31 bits"))
    }

    /// Only while the leader is unreaped.
    fn kill_group(&self) -> io::Result<()> {
        match killpg(self.group(), Signal::SIGKILL) {
            // EPERM: no member may be signalled. The group then counts as not empty.
            Ok(()) | Err(Errno::ESRCH | Errno::EPERM) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the group of a reaped leader is empty. Reaps its dead that are our children.
    ///
    /// The number is reserved while the group has members. So if a process has it as its pid, the group was empty
    /// before.
    fn group_is_empty(&self) -> bool {
        if signal::kill(self.group(), None) != Err(Errno::ESRCH) {
            return true;
        }
        // Our dead children; ECHILD when there are none in this group.
        while let Ok(Some(_)) = wait_now(Which::Group(self.process.pid()), Reap::Yes) {}
        killpg(self.group(), None) == Err(Errno::ESRCH)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::poll::wait_readable;
    use crate::signals::{CHLD, Signals};
    use crate::testing::{PATIENCE, in_child, shell, shell_on};

    /// Advances until the tree has ended and no stray is left, waiting for SIGCHLD alone.
    fn see_the_end(tree: &mut Tree, signals: &mut Signals) -> ExitStatus {
        loop {
            signals.pending();
            let end = tree.advance().unwrap();
            let sweep = Sweep {
                is_leader: &|pid| end == TreeEnd::Alive && pid == tree.process().pid(),
                marks: crate::mark::Marks::new(1),
                lives: &|_| false,
                leads_unmarked: &|_| false,
            };
            let left = sweep_strays(&sweep, &mut EndedStrays::default()).unwrap();
            match end {
                TreeEnd::Ended(status) if left == RemainingStrays::default() => return status,
                _ => {
                    assert!(wait_readable(signals.as_fd(), PATIENCE).unwrap(), "no SIGCHLD: {end:?} {left:?}")
                }
            }
        }
    }

    /// A tree of `script`, after it has written to its standard input. The socket reaches its end when all processes
    /// that hold it are gone.
    fn tree_of(script: &str) -> (Tree, UnixStream) {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let tree = Tree::new(shell_on(script, theirs));
        ours.read_exact(&mut [0]).unwrap();
        (tree, ours)
    }

    #[test]
    fn the_end_of_a_leader_is_told_again_and_again() {
        let mut tree = Tree::new(shell("read line"));
        assert_eq!(tree.advance().unwrap(), TreeEnd::Alive);
        tree.kill().unwrap();
        assert!(wait_readable(tree.process().as_fd(), PATIENCE).unwrap());
        let status = ExitStatus::Signal { signal: libc::SIGKILL, core: false };
        assert_eq!(tree.advance().unwrap(), TreeEnd::Ended(status));
        assert_eq!(tree.advance().unwrap(), TreeEnd::Ended(status));
        tree.kill().unwrap();
    }

    #[test]
    fn a_kill_reaches_grandchildren() {
        in_child("tree::tests::a_kill_reaches_grandchildren", || {
            become_subreaper().unwrap();
            let mut signals = Signals::new(&[CHLD]).unwrap();
            let (mut tree, mut socket) =
                tree_of("exec 3<&0; (sh -c 'echo >&3; read line <&3' & wait) & wait");
            tree.kill().unwrap();
            assert_eq!(see_the_end(&mut tree, &mut signals), ExitStatus::Signal { signal: 9, core: false });
            assert_eq!(socket.read(&mut [0]).unwrap(), 0, "somebody still holds the socket");
        });
    }

    #[test]
    fn the_group_of_a_leader_that_left_by_itself_is_killed() {
        in_child("tree::tests::the_group_of_a_leader_that_left_by_itself_is_killed", || {
            become_subreaper().unwrap();
            let mut signals = Signals::new(&[CHLD]).unwrap();
            let (mut tree, mut socket) =
                tree_of("exec 3<&0; (trap '' TERM HUP; echo >&3; read line <&3) & exit 5");
            assert_eq!(see_the_end(&mut tree, &mut signals), ExitStatus::Code(5));
            assert_eq!(socket.read(&mut [0]).unwrap(), 0);
        });
    }

    #[test]
    fn a_daemonised_grandchild_is_swept() {
        in_child("tree::tests::a_daemonised_grandchild_is_swept", || {
            become_subreaper().unwrap();
            let mut signals = Signals::new(&[CHLD]).unwrap();
            let daemon = "(setsid setsid sh -c 'sh -c \"echo >&3; read line <&3\" & wait' &) 3<&0; read line";
            let (mut tree, mut socket) = tree_of(daemon);
            tree.kill().unwrap();
            see_the_end(&mut tree, &mut signals);
            assert_eq!(socket.read(&mut [0]).unwrap(), 0);
        });
    }
}

//! Strays: children of this process that it did not spawn. A worker left them when it daemonised a process or died,
//! and the kernel gave them to their subreaper.
//!
//! The mark of a stray (`mark.rs`) names its worker. A stray without a mark has dropped it, or its worker could not
//! be marked: it may belong to any worker. Strays with the mark of a living worker are left alone, so a job's
//! children delay no other job's proof of death; a stray without a mark that cannot be killed delays all of them.
//!
//! The kernel lists children per thread, and the list can change during the read, so each pass that reaped a child is
//! followed by another one. A killed stray's own children become ours when it dies, and each death raises SIGCHLD, so
//! sweeping at each SIGCHLD ends them all. Driven by the supervisor's `worker_table/reaping.rs`.

use std::io;

use nix::errno::Errno;
use nix::sys::signal::{self, Signal, killpg};
use nix::unistd::{Pid, getpgid};

use crate::ended_strays::EndedStrays;
use crate::exit::{Reap, Which, wait_now};
use crate::freeze::{KillOutcome, freeze, kill_with_group, pids_of};
use crate::mark::Marks;

/// Passes in one sweep, few because the caller has others to serve. Strays that remain are reported, and their
/// SIGCHLD causes the next sweep.
const PASSES_MAX: usize = 8;

/// Passes over the descendants of one stray in one sweep, few for the same reason.
const SWEEP_FREEZE_PASSES_MAX: usize = 4;

/// Tells a sweep which processes to spare.
#[expect(missing_debug_implementations, reason = "functions have no text")]
pub struct Sweep<'a> {
    /// Whether a process is an unreaped worker's leader; those are never touched.
    pub is_leader: &'a dyn Fn(u32) -> bool,
    /// The marks of this daemon.
    pub marks: Marks,
    /// Whether the worker of this mark is alive; then its strays are spared.
    pub lives: &'a dyn Fn(u64) -> bool,
    /// Whether a process leads the group of a living worker that could not be marked. Strays without a mark in that
    /// group are spared.
    pub leads_unmarked: &'a dyn Fn(u32) -> bool,
}

/// A stray that is not dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemainingStray {
    /// Its process id, which is reserved until it is reaped.
    pub pid: u32,
    /// The mark of its worker, if it has one.
    pub mark: Option<u64>,
    /// It runs as another user and cannot be killed.
    pub is_refused: bool,
}

impl RemainingStray {
    fn may_be_of(&self, mark: u64) -> bool {
        self.mark.is_none_or(|own| own == mark)
    }
}

/// The strays that a sweep has killed but that are not dead yet, and those that it may not kill.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemainingStrays {
    /// Those that were seen.
    pub all: Vec<RemainingStray>,
    /// There may be more, which were not seen.
    pub is_partial: bool,
}

impl RemainingStrays {
    /// A remaining stray that may belong to the worker of this mark; first one that bears it.
    pub fn any_of(&self, mark: u64) -> Option<u32> {
        let own = self.all.iter().find(|stray| stray.mark == Some(mark));
        own.or_else(|| self.all.iter().find(|stray| stray.may_be_of(mark))).map(|stray| stray.pid)
    }

    /// Whether a remaining stray that may belong to the worker of this mark holds up the proof of its death. A stray that
    /// cannot be killed does so only while something of the worker `may_be_repeated`: it may live for ever, and only a
    /// repeated task must never run beside it.
    pub fn hold_up(&self, mark: u64, may_be_repeated: bool) -> bool {
        let counts = |stray: &RemainingStray| stray.may_be_of(mark) && (may_be_repeated || !stray.is_refused);
        self.is_partial || self.all.iter().any(counts)
    }

    /// The strays that cannot be killed.
    pub fn refused(&self) -> impl Iterator<Item = &RemainingStray> {
        self.all.iter().filter(|stray| stray.is_refused)
    }
}

/// Kills each child of this process that belongs to no living worker, reaps the dead, and returns those that remain.
/// Notes in `ended` those that it ended. Never blocks.
///
/// Must not run during a spawn: a child that is spawned but not registered yet looks like a stray.
///
/// # Errors
/// ENOENT: /proc is missing or has no lists of children (`CONFIG_PROC_CHILDREN`). EMFILE, ENFILE: retry later.
pub fn sweep_strays(sweep: &Sweep<'_>, ended: &mut EndedStrays) -> io::Result<RemainingStrays> {
    ended.begin_sweep();
    let mut left = RemainingStrays::default();
    for _ in 0..PASSES_MAX {
        left = RemainingStrays::default();
        let mut reaped = false;
        for child in children()?.into_iter().filter(|child| !(sweep.is_leader)(*child)) {
            match treat(child, sweep, ended) {
                StrayOutcome::Spared => {}
                StrayOutcome::Reaped => reaped = true,
                StrayOutcome::Left { mark, is_refused } => {
                    left.all.push(RemainingStray { pid: child, mark, is_refused });
                }
            }
        }
        if !reaped {
            return Ok(left);
        }
    }
    // The last pass reaped some too, and their children were not seen. SIGCHLD will report those.
    left.is_partial = true;
    Ok(left)
}

/// Reaps each dead child that `is_leader` does not know, and kills none, so that orphans of living workers do not
/// pile up. Never blocks.
///
/// # Errors
/// As [`sweep_strays`].
pub fn reap_orphans(is_leader: &dyn Fn(u32) -> bool) -> io::Result<()> {
    for child in children()?.into_iter().filter(|child| !is_leader(*child)) {
        // A child that cannot be reaped is alive, or is reaped by the next call.
        let _ = wait_now(Which::Pid(child), Reap::Yes);
    }
    Ok(())
}

/// Whether a child of this process other than the leader is alive in the group of a dead leader that is not reaped yet.
/// Reaps the other dead.
pub(crate) fn has_others_in_group(leader: u32) -> io::Result<bool> {
    reap_orphans(&|pid| pid == leader)?;
    let is_member = |child: &u32| *child != leader && group_of(*child) == Some(leader);
    Ok(children()?.iter().any(is_member))
}

fn group_of(pid: u32) -> Option<u32> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?);
    u32::try_from(getpgid(Some(pid)).ok()?.as_raw()).ok()
}

enum StrayOutcome {
    Spared,
    Reaped,
    Left { mark: Option<u64>, is_refused: bool },
}

/// A child's pid is not reused before it is reaped, so this cannot hit another process.
fn treat(child: u32, sweep: &Sweep<'_>, ended: &mut EndedStrays) -> StrayOutcome {
    let pid = Pid::from_raw(i32::try_from(child).expect("a process id fits 31 bits"));
    let group = getpgid(Some(pid)).ok();
    let mark = sweep.marks.of(child);
    let spared = match mark {
        Some(mark) => (sweep.lives)(mark),
        None => group.is_some_and(|group| u32::try_from(group.as_raw()).is_ok_and(sweep.leads_unmarked)),
    };
    let mut is_refused = false;
    if !spared {
        // The processes below it become ours when it dies. Those that fork without pause would outrun the sweeps, so all
        // of them end in this pass.
        for below in freeze(vec![child], std::process::id(), SWEEP_FREEZE_PASSES_MAX) {
            if below != child {
                ended.end(below, mark, || kill_with_group(below) == KillOutcome::Sent);
            }
        }
        // EPERM: it runs as another user now.
        is_refused = !ended.end(child, mark, || signal::kill(pid, Signal::SIGKILL) != Err(Errno::EPERM));
        if group == Some(pid) {
            let _ = killpg(pid, Signal::SIGKILL);
        }
    }
    match wait_now(Which::Pid(child), Reap::Yes) {
        Ok(Some(_)) => {
            ended.forget(child);
            StrayOutcome::Reaped
        }
        Err(error) if error.raw_os_error() == Some(Errno::ECHILD as i32) => StrayOutcome::Reaped,
        Ok(None) | Err(_) if spared => StrayOutcome::Spared,
        Ok(None) | Err(_) => StrayOutcome::Left { mark, is_refused },
    }
}

/// The children of all threads of this process, dead ones too.
pub(crate) fn children() -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for thread in std::fs::read_dir("/proc/self/task")? {
        match std::fs::read_to_string(thread?.path().join("children")) {
            Ok(list) => found.extend(pids_of(&list)),
            // The thread has ended and its children belong to another one; the next sweep finds those that are not
            // listed yet. If the list of the own thread is missing, nothing is known.
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

    fn marks() -> Marks {
        Marks::new(1)
    }

    /// Sweeps, sparing `leader`, strays with the mark of `living`, and the group of `unmarked`.
    fn sweep_beside(leader: u32, living: u64, unmarked: u32) -> RemainingStrays {
        sweep_strays(
            &Sweep {
                is_leader: &|pid| pid == leader,
                marks: marks(),
                lives: &|mark| mark == living,
                leads_unmarked: &|pid| pid == unmarked,
            },
            &mut EndedStrays::default(),
        )
        .unwrap()
    }

    #[test]
    fn only_strangers_are_swept() {
        in_child("strays::tests::only_strangers_are_swept", || {
            let known = shell("read line");
            let stray = shell("read line");
            let sweep = || sweep_beside(known.pid(), 0, 0);
            if sweep() != RemainingStrays::default() {
                assert!(wait_readable(stray.as_fd(), PATIENCE).unwrap());
                assert_eq!(sweep(), RemainingStrays::default());
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

    /// A stray of a dead worker is killed and reported as its own, in whatever process group; a living worker's is
    /// not touched.
    #[test]
    fn a_mark_says_whose_a_stray_is() {
        in_child("strays::tests::a_mark_says_whose_a_stray_is", || {
            let [worker, living, dead] = [(); 3].map(|()| shell("read line"));
            marks().put(living.pid(), 7).unwrap();
            marks().put(dead.pid(), 8).unwrap();
            let left = sweep_beside(worker.pid(), 7, dead.pid());
            let stray = RemainingStray { pid: dead.pid(), mark: Some(8), is_refused: false };
            let of_the_dead = RemainingStrays { all: vec![stray], is_partial: false };
            assert!(left == of_the_dead || left == RemainingStrays::default(), "{left:?}");
            assert!(of_the_dead.hold_up(8, false) && !of_the_dead.hold_up(7, true));
            assert!(wait_readable(dead.as_fd(), PATIENCE).unwrap());
            assert_eq!(sweep_beside(worker.pid(), 7, dead.pid()), RemainingStrays::default());
            for spared in [&living, &worker] {
                assert!(!wait_readable(spared.as_fd(), std::time::Duration::ZERO).unwrap(), "it was killed");
                spared.kill(9).unwrap();
                reap(spared);
            }
        });
    }

    #[test]
    fn one_that_cannot_be_killed_holds_up_only_what_may_be_repeated() {
        let stray = |pid, mark, is_refused| RemainingStray { pid, mark, is_refused };
        let all = vec![stray(5, None, true), stray(6, Some(7), true), stray(9, Some(8), false)];
        let left = RemainingStrays { all, is_partial: false };
        for (mark, may_be_repeated, holds_up) in
            [(7, true, true), (7, false, false), (8, false, true), (3, true, true), (3, false, false)]
        {
            assert_eq!(left.hold_up(mark, may_be_repeated), holds_up, "{mark} {may_be_repeated}");
        }
        assert_eq!((left.any_of(7), left.any_of(3)), (Some(6), Some(5)));
        assert!(RemainingStrays { is_partial: true, ..RemainingStrays::default() }.hold_up(1, false));
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
                sweep_beside(0, 0, 0);
                barrier.wait();
                assert_eq!(sweep_beside(0, 0, 0), RemainingStrays::default());
                assert_eq!(children().unwrap(), []);
            });
        });
    }

    #[test]
    fn orphans_in_the_group_of_an_unmarked_worker_are_spared() {
        in_child("strays::tests::orphans_in_the_group_of_an_unmarked_worker_are_spared", || {
            crate::tree::become_subreaper().unwrap();
            let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            let worker = crate::testing::shell_on(
                "exec 3<&0; (sh -c 'read line <&3' &); echo >&3; read line <&3",
                theirs,
            );
            assert!(wait_readable(ours.as_fd(), PATIENCE).unwrap());
            assert_eq!(sweep_beside(worker.pid(), 0, worker.pid()), RemainingStrays::default());
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

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

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{self, Signal, killpg};
use nix::unistd::{Pid, getpgid};

use crate::ended_strays::EndedStrays;
use crate::exit::{Reap, Which, wait_for_any, wait_now};
use crate::mark::Marks;
use crate::pidfd::Process;
use crate::process_stats::{field, fields_of};

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

/// The strays that a sweep has killed but that are not dead yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemainingStrays {
    /// For each worker with remaining strays one of them, by the worker's mark.
    pub marked: BTreeMap<u64, u32>,
    /// Strays without a mark.
    pub unmarked: Vec<u32>,
    /// There may be more, which were not seen.
    pub is_partial: bool,
}

impl RemainingStrays {
    /// A remaining stray that may belong to the worker of this mark.
    pub fn any_of(&self, mark: u64) -> Option<u32> {
        self.marked.get(&mark).or(self.unmarked.first()).copied()
    }

    /// Whether a remaining stray may belong to the worker of this mark.
    pub fn may_be_of(&self, mark: u64) -> bool {
        self.is_partial || !self.unmarked.is_empty() || self.marked.contains_key(&mark)
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
                StrayOutcome::Left(Some(mark)) => drop(left.marked.insert(mark, child)),
                StrayOutcome::Left(None) => left.unmarked.push(child),
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

/// Kills and reaps all descendants of this process, also those that it inherits meanwhile. Blocks until there are none.
///
/// Processes that fork without pause are not outrun one by one: each pass first stops them all and takes from each the
/// right to fork, see [`freeze`].
///
/// # Errors
/// EPERM: the remaining ones run as another user. Otherwise as [`sweep_strays`].
pub(crate) fn end_children() -> io::Result<()> {
    loop {
        match wait_now(Which::Any, Reap::Yes) {
            Ok(Some(_)) => continue,
            Ok(None) => {}
            Err(error) if error.raw_os_error() == Some(Errno::ECHILD as i32) => return Ok(()),
            Err(error) => return Err(error),
        }
        let listed = freeze(children()?, std::process::id(), FREEZE_PASSES_MAX);
        let killed = listed.iter().filter(|child| kill_with_group(**child)).count();
        if killed > 0 {
            // Interrupted or not, the next pass checks.
            let _ = wait_for_any();
        } else if !listed.is_empty() {
            return Err(Errno::EPERM.into());
        }
    }
}

/// Passes of one freeze: each finds only what was forked during the one before.
const FREEZE_PASSES_MAX: usize = 64;

/// Stops children of `parent` and all their descendants, and sets RLIMIT_NPROC of each to 0, until a pass finds nobody
/// new. Returns them. None of them forks any more: a stopped one does not run, and one that somebody continues may not
/// fork, unless it is root's, for whom the limit does not count.
fn freeze(roots: Vec<u32>, parent: u32, passes_max: usize) -> BTreeSet<u32> {
    let mut frozen = BTreeSet::new();
    for _ in 0..passes_max {
        let mut found_new = false;
        let mut left: Vec<(u32, u32)> = roots.iter().map(|root| (*root, parent)).collect();
        while let Some((pid, parent)) = left.pop() {
            if !frozen.contains(&pid) {
                if !stop_forking(pid, parent) {
                    continue;
                }
                found_new = true;
                frozen.insert(pid);
            }
            left.extend(children_of(pid).into_iter().map(|child| (child, pid)));
        }
        if !found_new {
            break;
        }
    }
    frozen
}

/// Stops a process that is a child of `parent`; `false` if there is none. A pid may have been reused since it was listed,
/// so the process is held by a descriptor before its parent is checked.
fn stop_forking(pid: u32, parent: u32) -> bool {
    let Ok(process) = Process::open(pid) else { return false };
    let is_child = std::fs::read(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| field(fields_of(&stat)?, PARENT_AT))
        .is_some_and(|found| found == u64::from(parent));
    if !is_child {
        return false;
    }
    let _ = process.kill(libc::SIGSTOP);
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    if let Ok(pid) = i32::try_from(pid) {
        // SAFETY: the new limit lives through the call, and a null pointer for the old one is allowed.
        unsafe { libc::prlimit(pid, libc::RLIMIT_NPROC, &raw const none, std::ptr::null_mut()) };
    }
    true
}

/// The place of the parent in a `stat` line behind the name.
const PARENT_AT: usize = 1;

/// The children of another process; none if it is gone.
fn children_of(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| pids_of(&list)).collect()
}

fn pids_of(list: &str) -> Vec<u32> {
    list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn group_of(pid: u32) -> Option<u32> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?);
    u32::try_from(getpgid(Some(pid)).ok()?.as_raw()).ok()
}

/// `false`: it runs as another user.
fn kill_with_group(child: u32) -> bool {
    let pid = Pid::from_raw(i32::try_from(child).expect("a process id fits 31 bits"));
    if getpgid(Some(pid)) == Ok(pid) {
        let _ = killpg(pid, Signal::SIGKILL);
    }
    signal::kill(pid, Signal::SIGKILL) != Err(Errno::EPERM)
}

enum StrayOutcome {
    Spared,
    Reaped,
    Left(Option<u64>),
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
    if !spared {
        // The processes below it become ours when it dies. Those that fork without pause would outrun the sweeps, so all
        // of them end in this pass.
        for below in freeze(vec![child], std::process::id(), SWEEP_FREEZE_PASSES_MAX) {
            if below != child {
                ended.end(below, mark, || kill_with_group(below));
            }
        }
        // EPERM: it runs as another user now. It remains, so its worker's death is not proven.
        ended.end(child, mark, || signal::kill(pid, Signal::SIGKILL).is_ok());
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
        Ok(None) | Err(_) => StrayOutcome::Left(mark),
    }
}

/// The children of all threads of this process, dead ones too.
fn children() -> io::Result<Vec<u32>> {
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
            let of_the_dead =
                RemainingStrays { marked: BTreeMap::from([(8, dead.pid())]), ..RemainingStrays::default() };
            assert!(left == of_the_dead || left == RemainingStrays::default(), "{left:?}");
            assert!(of_the_dead.may_be_of(8) && !of_the_dead.may_be_of(7));
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

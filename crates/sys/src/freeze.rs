//! Takes from processes the chance to fork: stops them and all their descendants, and sets their RLIMIT_NPROC to 0.
//!
//! Processes that fork without pause cannot be killed one by one: while one dies, another one forks. So all are frozen
//! first, until a pass finds no new one, and killed then. It must never touch a process that is not below the given
//! roots. A process of another user is listed like the others, though it can be neither stopped nor killed. Driven by
//! `strays.rs` and `descendants_end.rs`.

use std::collections::BTreeSet;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{self, Signal, killpg};
use nix::unistd::{Pid, getpgid};

use crate::pidfd::Process;
use crate::process_stats::{field, fields_of};

/// Passes of one freeze: each finds only what was forked during the one before.
pub(crate) const FREEZE_PASSES_MAX: usize = 64;

/// Stops children of `parent` and all their descendants, and sets RLIMIT_NPROC of each to 0, until a pass finds nobody
/// new. Returns them. None of them forks any more: a stopped one does not run, and one that somebody continues may not
/// fork, unless it is root's, for whom the limit does not count.
pub(crate) fn freeze(roots: Vec<u32>, parent: u32, passes_max: usize) -> BTreeSet<u32> {
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

/// The numbers in a list of children.
pub(crate) fn pids_of(list: &str) -> Vec<u32> {
    list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// What came of a kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KillOutcome {
    /// It was signalled, or is gone already.
    Sent,
    /// It runs as another user. A zombie of another user refuses as well.
    Refused,
}

/// Kills a process, and its group if it leads one. The pid must be reserved: by a frozen process, or by an unreaped child.
pub(crate) fn kill_with_group(child: u32) -> KillOutcome {
    let pid = Pid::from_raw(i32::try_from(child).expect("a process id fits 31 bits"));
    if getpgid(Some(pid)) == Ok(pid) {
        let _ = killpg(pid, Signal::SIGKILL);
    }
    match signal::kill(pid, Signal::SIGKILL) {
        Err(Errno::EPERM) => KillOutcome::Refused,
        Ok(()) | Err(_) => KillOutcome::Sent,
    }
}

//! Which strays the sweeps ended: each is told once, with its name.
//!
//! A killed process needs a moment to die, and each sweep kills it again until it is reaped. So the pids of those that
//! were killed and may not be reaped yet are kept, and only for these: a pid is reused after the reaping. At most
//! [`NAMED_MAX`] are named between two calls of [`EndedStrays::take`], and the others counted: a fork bomb must not fill
//! the log. It kills nothing. Driven by `strays.rs`; the supervisor's `worker_table/reaping.rs` logs what it tells.

use std::collections::BTreeSet;

use crate::process_stats::fields_of;

/// Strays that are named at a time; the others are counted.
const NAMED_MAX: usize = 16;

/// A stray that a sweep ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedStray {
    /// Its process id.
    pub pid: u32,
    /// The kernel's name of it: the first 15 bytes of its program's name, unless it changed that.
    pub name: String,
    /// The mark of its worker; `None`: it had none.
    pub mark: Option<u64>,
}

/// The strays that the sweeps have ended since they were last told.
#[derive(Debug, Default)]
pub struct EndedStrays {
    /// Those that were killed and not reaped before the latest sweep.
    before: BTreeSet<u32>,
    /// The same after it.
    now: BTreeSet<u32>,
    named: Vec<EndedStray>,
    unnamed: u64,
}

impl EndedStrays {
    /// The strays that were ended since the last call, and how many more there were.
    pub fn take(&mut self) -> (Vec<EndedStray>, u64) {
        (std::mem::take(&mut self.named), std::mem::take(&mut self.unnamed))
    }

    pub(crate) fn begin_sweep(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }

    /// Kills a process by `kill`, which returns `false` if it may not, and notes it if it was alive. Returns what `kill` did.
    pub(crate) fn end(&mut self, pid: u32, mark: Option<u64>, kill: impl FnOnce() -> bool) -> bool {
        let is_known = self.before.contains(&pid) || self.now.contains(&pid);
        // The name is read first: a dead process has none once it is reaped.
        let name = if is_known { None } else { name_of_living(pid) };
        if !kill() {
            return false;
        }
        self.now.insert(pid);
        let Some(name) = name else { return true };
        if self.named.len() < NAMED_MAX {
            self.named.push(EndedStray { pid, name, mark });
        } else {
            self.unnamed += 1;
        }
        true
    }

    /// It is reaped, so its pid may be another process's from now on.
    pub(crate) fn forget(&mut self, pid: u32) {
        self.before.remove(&pid);
        self.now.remove(&pid);
    }
}

/// The name of a process; `None` if it is dead.
fn name_of_living(pid: u32) -> Option<String> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let is_dead = matches!(fields_of(&stat)?.first(), Some(b'Z' | b'X'));
    let from = stat.iter().position(|byte| *byte == b'(')? + 1;
    let to = stat.iter().rposition(|byte| *byte == b')')?;
    (!is_dead).then(|| String::from_utf8_lossy(stat.get(from..to).unwrap_or_default()).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::testing::{PATIENCE, reap, shell};

    #[test]
    fn each_is_told_once_until_its_pid_may_be_reused() {
        let mut ended = EndedStrays::default();
        let child = shell("read line");
        let (pid, mark) = (child.pid(), Some(3));
        ended.begin_sweep();
        ended.end(pid, mark, || false);
        assert_eq!(ended.take(), (Vec::new(), 0), "it may not be killed");
        for _ in 0..3 {
            ended.begin_sweep();
            ended.end(pid, mark, || true);
            ended.end(pid, mark, || true);
        }
        let expected = EndedStray { pid, name: "sh".to_owned(), mark };
        assert_eq!(ended.take(), (vec![expected], 0));
        ended.forget(pid);
        ended.end(pid, mark, || child.kill(9).is_ok());
        assert_eq!(ended.take().0.len(), 1, "another one with the same pid");
        assert!(crate::poll::wait_readable(child.as_fd(), PATIENCE).unwrap());
        ended.forget(pid);
        ended.end(pid, mark, || true);
        assert_eq!(ended.take(), (Vec::new(), 0), "it is dead, and nobody ended it now");
        reap(&child);
    }

    #[test]
    fn many_are_counted() {
        let mut ended = EndedStrays::default();
        let children: Vec<_> = (0..NAMED_MAX + 2).map(|_| shell("read line")).collect();
        for child in &children {
            ended.end(child.pid(), None, || child.kill(9).is_ok());
        }
        let (named, more) = ended.take();
        assert_eq!((named.len(), more), (NAMED_MAX, 2));
        for child in &children {
            reap(child);
        }
    }
}

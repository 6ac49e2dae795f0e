//! A mark that a process hands down to all its descendants, so that a stray can be assigned to its worker.
//!
//! The mark is a pair of hard limits of two resources without any effect here: one is `base + number`, the other
//! `base - number`. Limits survive fork, exec, a new session, a clean environment and a change of user. Without
//! `CAP_SYS_RESOURCE` a hard limit can only be lowered, so a process can drop its mark but never take another one; a
//! process that may raise limits (root) can forge it. An environment variable would be lost by `env -i` and cannot be
//! read of a process that is not dumpable; a session or process group is left by one call. Two system calls mark a
//! worker, two read a stray's mark, in less than a microsecond each. Where hard limits are too low for marks (a
//! daemon inside a worker, or limits on locks or real-time scheduling set by an administrator), the process group
//! tells whose a stray is, unless it has left it.
//!
//! Driven by the supervisor's `spawn.rs` and by `strays.rs`; it decides nothing about which process lives.

use std::io;

use nix::errno::Errno;
use nix::libc;

/// RLIMIT_LOCKS has no effect since Linux 2.4.25: file locks are not counted.
const RISING: libc::__rlimit_resource_t = libc::RLIMIT_LOCKS;
/// RLIMIT_RTTIME: microseconds of real-time scheduling without a pause, more than any process will see.
const FALLING: libc::__rlimit_resource_t = libc::RLIMIT_RTTIME;

/// Worker numbers are below this: they go on over restarts, after a crash a million higher.
const NUMBERS: u64 = 1 << 40;

/// The marks of one daemon.
#[derive(Clone, Copy, Debug)]
pub struct Marks {
    base: u64,
}

impl Marks {
    /// Marks that differ from those of a daemon with another seed, so that a daemon inside a worker of another one is
    /// not confused.
    pub fn new(seed: u64) -> Self {
        // Far below "unlimited", far above any limit in use; the lower half is for the numbers.
        Self { base: (1 << 61) | ((seed & 0x000f_ffff) << 41) | NUMBERS }
    }

    /// Marks a process, and all that it forks from now on, with a number from 1 to 2^40 - 1.
    ///
    /// # Errors
    /// EPERM: its limits are lower already, or it runs as another user. ESRCH: it is gone. EINVAL: the number is out
    /// of range.
    pub fn put(&self, pid: u32, number: u64) -> io::Result<()> {
        if !(1..NUMBERS).contains(&number) {
            return Err(Errno::EINVAL.into());
        }
        exchange(pid, RISING, Some(self.base + number))?;
        exchange(pid, FALLING, Some(self.base - number))?;
        Ok(())
    }

    /// Reads a limit of a process, to see whether the call works.
    ///
    /// # Errors
    /// A filter refuses the call.
    pub(crate) fn check(pid: u32) -> io::Result<()> {
        exchange(pid, RISING, None).map(drop)
    }

    /// The number of this process's mark; `None` if it has none or its limits cannot be read.
    pub fn of(&self, pid: u32) -> Option<u64> {
        let (rising, falling) = match (exchange(pid, RISING, None), exchange(pid, FALLING, None)) {
            (Ok(rising), Ok(falling)) => (rising, falling),
            // It runs as another user; /proc shows its limits to everybody.
            _ => shown_limits(&std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?)?,
        };
        let number = rising.checked_sub(self.base)?;
        ((1..NUMBERS).contains(&number) && falling == self.base - number).then_some(number)
    }
}

/// The two hard limits in the text of /proc/PID/limits.
fn shown_limits(text: &str) -> Option<(u64, u64)> {
    let hard = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        // Soft limit, hard limit, unit.
        line.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    Some((hard("Max file locks")?, hard("Max realtime timeout")?))
}

/// Returns the hard limit of a process; sets soft and hard limit to `new`, if given.
fn exchange(pid: u32, resource: libc::__rlimit_resource_t, new: Option<u64>) -> io::Result<u64> {
    let pid = i32::try_from(pid).map_err(|_| Errno::ESRCH)?;
    let new = new.map(|limit| libc::rlimit { rlim_cur: limit, rlim_max: limit });
    let new = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both point to a limit that lives through the call, or are null, which is allowed.
    Errno::result(unsafe { libc::prlimit(pid, resource, new, &raw mut old) })?;
    Ok(old.rlim_max)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::testing::{reap, shell, shell_on};

    const MARKS: Marks = Marks { base: (1 << 61) | NUMBERS };

    /// The pid that the script writes, of a process that lives on.
    fn told(socket: &mut UnixStream) -> u32 {
        let mut byte = [0];
        let mut text = String::new();
        while socket.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
            text.push(char::from(byte[0]));
        }
        text.parse().unwrap()
    }

    #[test]
    fn proc_shows_the_same_mark() {
        let process = shell("read line");
        let shown =
            || shown_limits(&std::fs::read_to_string(format!("/proc/{}/limits", process.pid())).unwrap());
        assert_eq!(shown(), None, "unlimited is no number");
        MARKS.put(process.pid(), 7).unwrap();
        assert_eq!(shown(), Some((MARKS.base + 7, MARKS.base - 7)));
        process.kill(9).unwrap();
        reap(&process);
    }

    #[test]
    fn a_mark_is_handed_down_whatever_a_child_does() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let script =
            "exec 3<&0; read go <&3; (setsid env -i /bin/sh -c 'echo $$ >&3; read line <&3' &); wait";
        let parent = shell_on(script, theirs);
        assert_eq!(MARKS.of(parent.pid()), None);
        MARKS.put(parent.pid(), 7).unwrap();
        std::io::Write::write_all(&mut ours, b"go\n").unwrap();
        let child = told(&mut ours);
        assert_eq!((MARKS.of(parent.pid()), MARKS.of(child)), (Some(7), Some(7)));
        assert_eq!(Marks::new(9).of(child), None, "a mark of another daemon is none");
        parent.kill(9).unwrap();
        reap(&parent);
        // The child ends at the end of its standard input.
        drop(ours);
    }

    #[test]
    fn a_mark_that_was_lowered_is_none() {
        for (limit, way) in [(RISING, "rising"), (FALLING, "falling")] {
            let process = shell("read line");
            MARKS.put(process.pid(), 7).unwrap();
            let now = exchange(process.pid(), limit, None).unwrap();
            exchange(process.pid(), limit, Some(now - 1)).unwrap();
            assert_eq!(MARKS.of(process.pid()), None, "{way}");
            process.kill(9).unwrap();
            reap(&process);
        }
    }

    #[test]
    fn numbers_that_cannot_be_told_apart_are_refused() {
        let process = shell("read line");
        for number in [0, NUMBERS, u64::MAX] {
            assert_eq!(MARKS.put(process.pid(), number).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        }
        process.kill(9).unwrap();
        reap(&process);
        assert_eq!(MARKS.of(process.pid()), None);
        for number in [1, NUMBERS - 1] {
            let process = shell("read line");
            Marks::new(u64::MAX).put(process.pid(), number).unwrap();
            assert_eq!(Marks::new(u64::MAX).of(process.pid()), Some(number));
            process.kill(9).unwrap();
            reap(&process);
        }
    }

    /// Each other mark needs one of the two limits raised; lowering limits leads to no valid mark.
    #[test]
    fn nobody_takes_on_the_mark_of_another() {
        let process = shell("read line");
        MARKS.put(process.pid(), 7).unwrap();
        for other in [6, 8] {
            match MARKS.put(process.pid(), other) {
                Ok(()) => {
                    process.kill(9).unwrap();
                    reap(&process);
                    skip!("this process may raise limits");
                }
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
                    assert_ne!(MARKS.of(process.pid()), Some(other));
                }
            }
        }
        process.kill(9).unwrap();
        reap(&process);
    }
}

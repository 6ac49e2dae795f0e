//! What /proc shows of a living child: its state, processor time and resident memory.
//!
//! The files of /proc are opened while the child is young: once it has made itself not dumpable, a /proc with
//! `hidepid` would hide it. An open file keeps showing the same process, even after its number is reused. Nothing
//! here waits for the child or for a lock that it could hold: `stat` and `statm` are computed from counters. Driven
//! by the supervisor's `sampling.rs`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::libc;
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::descendants;
use crate::pidfd::Process;

/// Longer than any `stat` line, which has 52 numbers and a name of at most 64 bytes.
const LINE_MAX_BYTES: usize = 1536;

/// The open files of one child.
#[derive(Debug)]
pub struct ProcessStats {
    pid: u32,
    stat: File,
    statm: File,
    clock: ClockId,
    page_bytes: u64,
}

/// One sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatsSample {
    /// The letter of proc_pid_stat(5) for its first thread: R, S, D, T, t, Z and others.
    pub state: char,
    /// Processor time of all its threads together, living and ended, in nanoseconds.
    pub cpu_ns: u64,
    /// Processor time of its descendants, living and dead, in nanoseconds; `descendants.rs` says what may be missed.
    pub below_ns: u64,
    /// Resident memory in bytes. The kernel may not have counted some dozens of pages per processor yet.
    pub resident_bytes: u64,
    /// The kernel function in which it waits; empty if it runs, or if this process may not read it.
    pub waits_in: String,
}

impl ProcessStats {
    /// Opens the files of a child that is not reaped.
    ///
    /// # Errors
    /// ENOENT: /proc is not there, or the child is hidden already. EMFILE, ENFILE: no descriptor is free.
    pub fn of_child(process: &Process) -> io::Result<Self> {
        let pid = process.pid();
        let number = Pid::from_raw(i32::try_from(pid).expect("a process id fits 31 bits"));
        let page_bytes = sysconf(SysconfVar::PAGE_SIZE)?.and_then(|bytes| u64::try_from(bytes).ok());
        Ok(Self {
            pid,
            stat: File::open(format!("/proc/{pid}/stat"))?,
            statm: File::open(format!("/proc/{pid}/statm"))?,
            clock: clock_getcpuclockid(number)?,
            page_bytes: page_bytes.ok_or(Errno::ENOSYS)?,
        })
    }

    /// Takes a sample. `None`: it was reaped. Takes some ten microseconds, and as many for each descendant.
    ///
    /// # Errors
    /// None for valid arguments.
    pub fn sample(&self) -> io::Result<Option<StatsSample>> {
        let mut line = [0; LINE_MAX_BYTES];
        // Read first, because it fails for a reaped child; the clock below is found by pid.
        let Some(stat) = read(&self.stat, &mut line)? else { return Ok(None) };
        let state = state_of(stat).ok_or(Errno::EBADMSG)?;
        // Read before the descendants: a child that is reaped in between would be counted twice.
        let reaped_ns = descendants::reaped_ns(stat);
        let Some(statm) = read(&self.statm, &mut line)? else { return Ok(None) };
        let resident = field(statm, 1).ok_or(Errno::EBADMSG)?.saturating_mul(self.page_bytes);
        Ok(Some(StatsSample {
            state,
            cpu_ns: self.cpu_ns()?,
            below_ns: reaped_ns + descendants::cpu_ns(self.pid),
            resident_bytes: resident,
            waits_in: self.waits_in(),
        }))
    }

    /// Processor time of all its threads, in nanoseconds. The clock is found by pid, so the child must not be reaped.
    /// Takes well below a microsecond.
    ///
    /// # Errors
    /// EINVAL: it was reaped.
    pub fn cpu_ns(&self) -> io::Result<u64> {
        let time = clock_gettime(self.clock)?;
        let part = |number: i64| u64::try_from(number).unwrap_or(0);
        Ok(part(time.tv_sec()) * 1_000_000_000 + part(time.tv_nsec()))
    }

    /// Opened at each sample, because the kernel checks the right to trace at each read.
    fn waits_in(&self) -> String {
        let text = std::fs::read_to_string(format!("/proc/{}/wchan", self.pid)).unwrap_or_default();
        if text == "0" { String::new() } else { text }
    }
}

/// The content of the file, or `None` if the process was reaped.
fn read<'a>(file: &File, line: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
    match file.read_at(line, 0) {
        Ok(length) => Ok(Some(&line[..length])),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The letter behind the name. The name stands in parentheses and may contain any byte, parentheses too.
fn state_of(stat: &[u8]) -> Option<char> {
    fields_of(stat)?.first().map(|letter| char::from(*letter))
}

/// The fields behind the name.
pub(crate) fn fields_of(stat: &[u8]) -> Option<&[u8]> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    stat.get(end + 2..)
}

/// The number in field `place`, from 0.
pub(crate) fn field(line: &[u8], place: usize) -> Option<u64> {
    let word = line.split(|byte| byte.is_ascii_whitespace()).nth(place)?;
    std::str::from_utf8(word).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::testing::{PATIENCE, reap, shell, shell_on};

    /// Samples until `is_so`: a process that was just woken or stopped needs a moment.
    fn sample_until(stats: &ProcessStats, what: &str, is_so: impl Fn(&StatsSample) -> bool) -> StatsSample {
        let end = std::time::Instant::now() + PATIENCE;
        loop {
            let seen = stats.sample().unwrap().expect("it was not reaped");
            if is_so(&seen) {
                return seen;
            }
            assert!(std::time::Instant::now() < end, "never {what}: {seen:?}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_loop_is_told_from_a_wait_and_from_a_stop() {
        let (_ours, theirs) = UnixStream::pair().unwrap();
        let waits = shell_on("read line", theirs);
        let loops = shell("while :; do :; done");
        let (of_waits, of_loops) =
            (ProcessStats::of_child(&waits).unwrap(), ProcessStats::of_child(&loops).unwrap());
        let before = sample_until(&of_waits, "sleeping", |seen| seen.state == 'S');
        let busy = sample_until(&of_loops, "busy", |seen| seen.state == 'R' && seen.cpu_ns > 50_000_000);
        let after = sample_until(&of_waits, "sleeping", |seen| seen.state == 'S');
        assert!(after.cpu_ns - before.cpu_ns < busy.cpu_ns, "{before:?} {after:?} {busy:?}");
        assert!(busy.resident_bytes > 4096 && busy.waits_in.is_empty(), "{busy:?}");
        loops.kill(libc::SIGSTOP).unwrap();
        let stopped = sample_until(&of_loops, "stopped", |seen| seen.state == 'T');
        assert_eq!(of_loops.cpu_ns().unwrap(), stopped.cpu_ns, "time runs on for one that is stopped");
        for process in [&waits, &loops] {
            process.kill(libc::SIGKILL).unwrap();
        }
        reap(&waits);
        reap(&loops);
        assert_eq!(of_loops.sample().unwrap(), None, "it was reaped");
        assert!(of_loops.cpu_ns().is_err());
    }

    #[test]
    fn the_dead_are_seen_until_they_are_reaped() {
        let process = shell("exit 3");
        let stats = ProcessStats::of_child(&process).unwrap();
        assert_eq!(sample_until(&stats, "dead", |seen| seen.state == 'Z').resident_bytes, 0);
        reap(&process);
        assert_eq!(stats.sample().unwrap(), None);
    }

    #[test]
    fn a_name_may_hold_anything() {
        assert_eq!(state_of(b"7 (a) R ) (b)) S 1 7"), Some('S'));
        assert_eq!(state_of(b"7 (a"), None);
        assert_eq!(
            (field(b"12 34 5\n", 1), field(b"12 34 5\n", 2), field(b"12", 1)),
            (Some(34), Some(5), None)
        );
    }
}

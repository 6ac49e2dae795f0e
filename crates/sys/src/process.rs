//! Settings of the calling process: who may trace it, when it is killed, how much it may use.
//!
//! Each holds until the process execs or ends. Used by the supervisor and the worker.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::Mode;
use nix::unistd::{SysconfVar, sysconf};

/// Forbids core files, and tracing or reading memory by any user but root.
///
/// # Errors
/// None for valid arguments.
pub fn set_not_dumpable() -> io::Result<()> {
    // SAFETY: PR_SET_DUMPABLE takes one integer.
    let result = unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) };
    Errno::result(result)?;
    Ok(())
}

/// Makes the kernel kill this process (SIGKILL) when the thread that spawned it ends. If the parent died before this
/// call, no signal comes: check for a hang-up of a shared socket afterwards.
///
/// # Errors
/// None for valid arguments.
pub fn die_with_parent() -> io::Result<()> {
    // SAFETY: PR_SET_PDEATHSIG takes one integer.
    let result = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    Errno::result(result)?;
    Ok(())
}

/// The largest core file that this process and its children may leave, in bytes: the soft limit of RLIMIT_CORE.
///
/// # Errors
/// None for valid arguments.
pub fn core_limit() -> io::Result<u64> {
    let (soft, _) = getrlimit(Resource::RLIMIT_CORE)?;
    Ok(soft)
}

/// Raises RLIMIT_NOFILE to its hard limit and returns that.
///
/// # Errors
/// None for valid arguments.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// The memory of this machine in bytes; 0 if unknown.
pub fn machine_memory_bytes() -> u64 {
    let ask = |name| sysconf(name).ok().flatten().and_then(|value| u64::try_from(value).ok());
    let bytes = ask(SysconfVar::_PHYS_PAGES).zip(ask(SysconfVar::PAGE_SIZE));
    bytes.map_or(0, |(pages, size)| pages.saturating_mul(size))
}

/// Grows the descriptor table of this process to `count` entries. It never shrinks, so later opens do not need memory
/// for it.
///
/// # Errors
/// EMFILE, EINVAL: this process may not open so many. ENOMEM.
pub fn grow_descriptor_table(count: u64) -> io::Result<()> {
    let last = libc::c_int::try_from(count.saturating_sub(1)).map_err(|_| Errno::EINVAL)?;
    let null = std::fs::File::open("/dev/null")?;
    // SAFETY: F_DUPFD_CLOEXEC takes one integer, and a number that is in use is passed over.
    let copy = Errno::result(unsafe { libc::fcntl(null.as_raw_fd(), libc::F_DUPFD_CLOEXEC, last) })?;
    // SAFETY: the kernel has just made this descriptor for us and no other code has it.
    drop(unsafe { OwnedFd::from_raw_fd(copy) });
    Ok(())
}

/// Lets SIGXFSZ end this process if it writes beyond `bytes` of a file, memfds included; `None` restores the limit
/// that it was started with. Only the soft limit is set, to at most the hard limit.
///
/// # Errors
/// None for valid arguments.
pub fn limit_file_size(bytes: Option<u64>) -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE)?;
    setrlimit(Resource::RLIMIT_FSIZE, bytes.map_or(hard, |bytes| bytes.min(hard)), hard)?;
    Ok(())
}

/// Does `work` under another limit of file size, which the processes started by it keep; `None`: the limit stays.
///
/// # Errors
/// None for valid arguments.
pub(crate) fn with_file_size_limit<T>(bytes: Option<u64>, work: impl FnOnce() -> T) -> io::Result<T> {
    let Some(bytes) = bytes else { return Ok(work()) };
    let before = file_size_limit()?;
    limit_file_size(Some(bytes))?;
    let done = work();
    // Setting back a soft limit within the hard one does not fail.
    drop(limit_file_size(Some(before)));
    Ok(done)
}

/// The limit that [`limit_file_size`] set, in bytes.
///
/// # Errors
/// None for valid arguments.
pub fn file_size_limit() -> io::Result<u64> {
    Ok(getrlimit(Resource::RLIMIT_FSIZE)?.0)
}

/// The permissions that new files of this process do not get (umask(2)). `None`: /proc cannot be read.
pub fn umask() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let digits = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(digits.trim(), 8).ok()
}

/// Sets the umask of this process and of those that it starts, and returns the earlier one.
pub fn set_umask(mask: u32) -> u32 {
    nix::sys::stat::umask(Mode::from_bits_truncate(mask)).bits()
}

/// The OOM score adjustment of this process and its children, from -1000 (never killed) to 1000 (first).
const OOM_SCORE: &str = "/proc/self/oom_score_adj";
/// The highest adjustment.
const OOM_SCORE_MAX: i32 = 1000;

/// Raises the OOM score by `by`: when memory runs out, this process is killed before one that uses up to `by`
/// thousandths of the machine's memory more. Raising needs no privilege, but a process that is not dumpable can no
/// longer do it.
///
/// # Errors
/// ENOENT: /proc is not there. EACCES: [`set_not_dumpable`] was called before.
pub fn be_killed_first(by: i32) -> io::Result<()> {
    let text = std::fs::read_to_string(OOM_SCORE)?;
    let score: i32 = text.trim().parse().map_err(io::Error::other)?;
    std::fs::write(OOM_SCORE, score.saturating_add(by).min(OOM_SCORE_MAX).to_string())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;
    use crate::memfd::output_file;
    use crate::poll::wait_readable;
    use crate::testing::{PATIENCE, in_child, shell_on, spawning};

    #[test]
    fn a_core_file_is_ruled_out() {
        in_child("process::tests::a_core_file_is_ruled_out", || {
            set_not_dumpable().unwrap();
            // SAFETY: PR_GET_DUMPABLE takes no argument.
            assert_eq!(unsafe { libc::prctl(libc::PR_GET_DUMPABLE) }, 0);
        });
    }

    #[test]
    fn descriptors_are_raised_to_the_hard_limit() {
        in_child("process::tests::descriptors_are_raised_to_the_hard_limit", || {
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            setrlimit(Resource::RLIMIT_NOFILE, 64, hard).unwrap();
            assert_eq!(raise_descriptor_limit().unwrap(), hard);
            assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
        });
    }

    #[test]
    fn the_score_rises_up_to_the_highest() {
        in_child("process::tests::the_score_rises_up_to_the_highest", || {
            let score = || std::fs::read_to_string(OOM_SCORE).unwrap().trim().parse::<i32>().unwrap();
            let before = score();
            be_killed_first(7).unwrap();
            assert_eq!(score(), (before + 7).min(OOM_SCORE_MAX));
            be_killed_first(i32::MAX).unwrap();
            assert_eq!(score(), OOM_SCORE_MAX);
        });
    }

    /// Run by `too_much_output_kills` in a process of its own: must not return.
    #[test]
    #[ignore = "kills its own process: started by too_much_output_kills"]
    fn writes_too_much() {
        limit_file_size(None).unwrap();
        limit_file_size(Some(4096)).unwrap();
        let file = output_file("too-much").unwrap();
        std::io::Write::write_all(&mut std::fs::File::from(file), &[0; 8192]).unwrap();
    }

    #[test]
    fn too_much_output_kills() {
        let mut test = Command::new(std::env::current_exe().unwrap());
        test.args(["--exact", "process::tests::writes_too_much", "--ignored", "--test-threads=1"]);
        test.stdout(std::process::Stdio::null());
        let status = spawning(|| test.spawn()).unwrap().wait().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGXFSZ));
    }

    /// Run by `the_death_of_the_parent_kills`: writes a byte, then waits for the death of its parent.
    #[test]
    #[ignore = "waits for its parent's death: started by the_death_of_the_parent_kills"]
    fn waits_for_the_death_of_its_parent() {
        die_with_parent().unwrap();
        let stdin = std::io::stdin();
        // SAFETY: standard input is open for the whole life of this process.
        let socket = UnixStream::from(stdin.as_fd().try_clone_to_owned().unwrap());
        std::io::Write::write_all(&mut &socket, b"x").unwrap();
        wait_readable(socket.as_fd(), PATIENCE).unwrap();
    }

    #[test]
    fn the_death_of_the_parent_kills() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let binary = std::env::current_exe().unwrap();
        let test = "process::tests::waits_for_the_death_of_its_parent";
        let script = format!("exec 3<&0; {} --exact {test} --ignored <&3 & wait", binary.display());
        let parent = shell_on(&script, theirs);
        ours.read_exact(&mut [0]).unwrap();
        // Kills the parent alone, not its group.
        parent.kill(libc::SIGKILL).unwrap();
        crate::testing::reap(&parent);
        // The end of the stream: all holders of the other end are dead, although none of them was killed here.
        assert_eq!(ours.read(&mut [0]).unwrap(), 0);
    }
}

//! Explains errors of system calls that mean an exhausted resource: the limit, its value, and how to raise it.
//!
//! For messages to people, because the kernel's own text names no limit. No decision depends on it. Used by the
//! supervisor, `link` and the client.

use std::io;

use nix::errno::Errno;
use nix::libc::RLIM_INFINITY;
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::getuid;

/// The limit that was reached, its value and how to raise it; `None` for other errors.
pub fn remedy(error: &io::Error) -> Option<String> {
    let text = match Errno::from_raw(error.raw_os_error()?) {
        Errno::EMFILE => format!(
            "the limit of open files is {}: raise it (LimitNOFILE in a unit, ulimit -n in a shell)",
            soft(Resource::RLIMIT_NOFILE)
        ),
        Errno::ENFILE => "the machine's limit of open files is met: raise fs.file-max".to_owned(),
        Errno::EAGAIN => format!(
            "a limit of processes is met, {} for this user, or that of its cgroup: raise it (LimitNPROC and \
             TasksMax in a unit, ulimit -u in a shell)",
            soft(Resource::RLIMIT_NPROC)
        ),
        Errno::ENOMEM => "memory is short: free some, or raise MemoryMax of the unit".to_owned(),
        Errno::ENOSPC | Errno::EDQUOT => "the file system is full: free space or inodes there".to_owned(),
        Errno::ETOOMANYREFS => format!(
            "more descriptors that user {} has sent over sockets wait there to be received than the limit of open \
             files, {}: end the clients that do not read their replies and the jobs that send descriptors, or raise \
             the limit (LimitNOFILE in a unit, ulimit -n in a shell)",
            getuid(),
            soft(Resource::RLIMIT_NOFILE)
        ),
        Errno::EFBIG => file_size_remedy(),
        Errno::EROFS => "the file system is read-only: mount it writable".to_owned(),
        _ => return None,
    };
    Some(text)
}

/// Whether descriptors or memory were short, so that the same call may succeed later.
pub fn is_short(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM))
}

/// The error, and what to do about it if that is known.
pub fn explain(error: &io::Error) -> String {
    match remedy(error) {
        Some(remedy) => format!("{error}; {remedy}"),
        None => error.to_string(),
    }
}

/// What to do about EFBIG, the error of a write or ftruncate(2) beyond the limit of file size.
pub fn file_size_remedy() -> String {
    match soft(Resource::RLIMIT_FSIZE).as_str() {
        UNLIMITED => "the file system holds no file of this size".to_owned(),
        limit => format!(
            "the limit of file size is {limit} bytes: raise it (LimitFSIZE in a unit, ulimit -f in a shell)"
        ),
    }
}

/// How [`soft`] shows that there is no limit.
const UNLIMITED: &str = "unlimited";

fn soft(resource: Resource) -> String {
    match getrlimit(resource) {
        Ok((RLIM_INFINITY, _)) => UNLIMITED.to_owned(),
        Ok((soft, _)) => soft.to_string(),
        Err(_) => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_out_is_named_with_its_limit() {
        let of = |errno: Errno| explain(&io::Error::from(errno));
        let limit = soft(Resource::RLIMIT_NOFILE);
        assert!(of(Errno::EMFILE).contains(&format!("is {limit}: raise it")), "{}", of(Errno::EMFILE));
        assert!(of(Errno::EAGAIN).contains("processes"));
        let in_flight = of(Errno::ETOOMANYREFS);
        let (user, limit) = (format!("user {} has sent", getuid()), format!("open files, {limit}: end"));
        assert!(in_flight.contains(&user) && in_flight.contains(&limit), "{in_flight}");
        assert_eq!(of(Errno::ENOENT), io::Error::from(Errno::ENOENT).to_string());
        assert_eq!(remedy(&io::Error::other("x")), None);
    }
}

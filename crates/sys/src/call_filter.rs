//! System calls that a filter refuses: the names for messages, and which of the calls that this project needs work
//! here.
//!
//! A container runtime installs a seccomp filter, which answers EPERM for a call that is not in its profile, and ENOSYS
//! (old ones EPERM) for a call that is newer than the profile. An old kernel answers ENOSYS as well. [`check`] makes
//! each call once without an effect. It never retries and never waits. Driven by the supervisor, at its start and in
//! `--check-config`; [`refused`] is used wherever such a call is made.

//! | call | without it | first kernel |
//! |---|---|---|
//! | close_range(2) | unshare(2), then fcntl(2) on each descriptor | 5.9 |
//! | process_vm_readv(2) | evidence of a crash has no backtrace | 3.2 |
//! | prlimit(2), which glibc uses for setrlimit(3) too | nothing can be started | 2.6.36 |
//! | pidfd_open(2), pidfd_send_signal(2), waitid(2) with P_PIDFD | nothing can be started | 5.4 |
//! | memfd_create(2) | nothing can be started | 3.17 |
//! | signalfd4(2), clone(2) without flags of namespaces: not tried | no start as PID 1 or with children (`outer.rs`) | 2.6.27 |

use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::libc;

use crate::exit::{Reap, Which, wait_now};
use crate::mark::Marks;
use crate::memfd;
use crate::pidfd::Process;

/// A call that does not work here.
#[derive(Debug)]
pub struct RefusedCall {
    /// The error, with the name of the call and the likely filter.
    pub error: io::Error,
    /// What is missing without the call; `None`: nothing works without it.
    pub loss: Option<&'static str>,
}

/// The error of a call that never fails with EPERM or ENOSYS unless it is refused: these two get a text that names the
/// call, and others stay as they are.
pub fn refused(call: &str, error: Errno) -> io::Error {
    let why = match error {
        Errno::EPERM => "a filter of system calls (seccomp) refuses it",
        Errno::ENOSYS => "a filter of system calls (seccomp) refuses it, or the kernel is too old for it",
        _ => return error.into(),
    };
    let advice = "allow the call in the profile of the container runtime or unit (SystemCallFilter)";
    io::Error::other(format!("{call} does not work: {error}: {why}: {advice}"))
}

/// Makes each call of the table that is not tried by the start of the [`crate::spawner::Spawner`], and returns those that
/// are refused. Other errors are left to the call's real use.
pub fn check() -> Vec<RefusedCall> {
    let own = std::process::id();
    let needed = |result: io::Result<()>| (result, None);
    let process = Process::open(own);
    let mut results = vec![
        needed(memfd::output_file("bulkhead-check").map(drop)),
        (check_memory_read(), Some("evidence of crashes has no backtrace")),
        needed(Marks::check(own).map_err(|error| of_io("prlimit(2)", error))),
    ];
    match process {
        Ok(process) => {
            let sent = process.kill(0);
            results.push(needed(sent.map_err(|error| of_io("pidfd_send_signal(2)", error))));
            // This process is no child of its own: ECHILD is the answer of a call that works.
            let waited = wait_now(Which::Pidfd(process.as_fd()), Reap::No).map(drop);
            results.push(needed(waited.map_err(|error| of_io("waitid(2)", error))));
        }
        Err(error) => results.push(needed(Err(error))),
    }
    let is_refusal = |error: &io::Error| error.raw_os_error().is_none();
    let failed = results.into_iter().filter_map(|(result, loss)| Some((result.err()?, loss)));
    failed.filter(|(error, _)| is_refusal(error)).map(|(error, loss)| RefusedCall { error, loss }).collect()
}

/// The same for an error of the standard library.
pub(crate) fn of_io(call: &str, error: io::Error) -> io::Error {
    error.raw_os_error().map_or(error, |code| refused(call, Errno::from_raw(code)))
}

/// Reads one byte of this process's own memory.
fn check_memory_read() -> io::Result<()> {
    let (from, mut to) = (1_u8, 0_u8);
    let remote = libc::iovec { iov_base: (&raw const from).cast_mut().cast(), iov_len: 1 };
    let local = libc::iovec { iov_base: (&raw mut to).cast(), iov_len: 1 };
    // SAFETY: it writes one byte, to `to`, and both live through the call.
    let read =
        unsafe { libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0) };
    Errno::result(read).map(drop).map_err(|error| refused("process_vm_readv(2)", error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostile_filter::refuse_calls;
    use crate::testing::in_child;

    #[test]
    fn a_refusal_names_the_call_and_other_errors_stay() {
        let error = refused("unshare(2)", Errno::EPERM).to_string();
        assert!(error.starts_with("unshare(2) does not work: EPERM") && error.contains("seccomp"), "{error}");
        assert_eq!(refused("unshare(2)", Errno::EMFILE).raw_os_error(), Some(libc::EMFILE));
        assert!(check().is_empty(), "{:?}", check());
    }

    #[test]
    fn each_refused_call_is_found() {
        in_child("call_filter::tests::each_refused_call_is_found", || {
            let calls = ["memfd_create", "process_vm_readv", "prlimit64", "pidfd_send_signal", "waitid"];
            refuse_calls(&calls.map(|call| (call, libc::EPERM))).unwrap();
            let found = check();
            assert_eq!(found.len(), calls.len(), "{found:?}");
            for call in calls {
                let name = if call == "prlimit64" { "prlimit" } else { call };
                let named = found.iter().any(|refused| refused.error.to_string().contains(name));
                assert!(named, "{call} is not in {found:?}");
            }
            refuse_calls(&[("pidfd_open", libc::ENOSYS)]).unwrap();
            assert!(check().iter().any(|refused| refused.error.to_string().contains("pidfd_open")));
        });
    }
}

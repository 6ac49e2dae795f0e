//! Filters of system calls (seccomp), as a container runtime installs them: calls that it refuses, and with which error.
//!
//! For tests alone (feature `hostile-peer`). A filter holds for all threads of this process and for all that they start,
//! and is never removed.

use std::io;

use nix::errno::Errno;
use nix::libc::{self, c_long};

/// Pairs of names and numbers.
macro_rules! calls {
    ($($name:ident $number:ident),* $(,)?) => { [$((stringify!($name), libc::$number)),*] };
}

/// What the default profile of Docker and containerd refuses (EPERM) to a process without capabilities, on all
/// architectures. `clone` is refused with flags that make a namespace.
const REFUSED: &[(&str, c_long)] = &calls![
    acct SYS_acct, add_key SYS_add_key, bpf SYS_bpf, chroot SYS_chroot, clock_settime SYS_clock_settime,
    delete_module SYS_delete_module, fanotify_init SYS_fanotify_init, finit_module SYS_finit_module,
    fsconfig SYS_fsconfig, fsmount SYS_fsmount, fsopen SYS_fsopen, fspick SYS_fspick,
    get_mempolicy SYS_get_mempolicy, init_module SYS_init_module, io_uring_enter SYS_io_uring_enter,
    io_uring_register SYS_io_uring_register, io_uring_setup SYS_io_uring_setup, kcmp SYS_kcmp,
    kexec_load SYS_kexec_load, keyctl SYS_keyctl, mbind SYS_mbind, mount SYS_mount,
    mount_setattr SYS_mount_setattr, move_mount SYS_move_mount, move_pages SYS_move_pages,
    open_by_handle_at SYS_open_by_handle_at, open_tree SYS_open_tree, perf_event_open SYS_perf_event_open,
    pidfd_getfd SYS_pidfd_getfd, pivot_root SYS_pivot_root, process_madvise SYS_process_madvise,
    quotactl SYS_quotactl, reboot SYS_reboot, request_key SYS_request_key, set_mempolicy SYS_set_mempolicy,
    setdomainname SYS_setdomainname, sethostname SYS_sethostname, setns SYS_setns,
    settimeofday SYS_settimeofday, swapoff SYS_swapoff, swapon SYS_swapon, syslog SYS_syslog,
    umount2 SYS_umount2, unshare SYS_unshare, userfaultfd SYS_userfaultfd, vhangup SYS_vhangup,
];

/// The same, of x86-64 alone.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[(&str, c_long)] = &calls![
    ioperm SYS_ioperm, iopl SYS_iopl, kexec_file_load SYS_kexec_file_load, uselib SYS_uselib, ustat SYS_ustat,
    sysfs SYS_sysfs,
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[(&str, c_long)] = &[];

/// What this project calls, or its libraries do, and may do without, or has to name.
const OURS: &[(&str, c_long)] = &calls![
    clone SYS_clone, clone3 SYS_clone3, close_range SYS_close_range, copy_file_range SYS_copy_file_range,
    fallocate SYS_fallocate, faccessat2 SYS_faccessat2, kcmp SYS_kcmp, memfd_create SYS_memfd_create,
    openat2 SYS_openat2, personality SYS_personality, pidfd_open SYS_pidfd_open,
    pidfd_send_signal SYS_pidfd_send_signal, prlimit64 SYS_prlimit64,
    process_vm_readv SYS_process_vm_readv, ptrace SYS_ptrace, renameat2 SYS_renameat2,
    sched_setaffinity SYS_sched_setaffinity, signalfd4 SYS_signalfd4, statx SYS_statx, unshare SYS_unshare, waitid SYS_waitid,
];

/// Calls from this number on are newer than the profile.
const NEWER: u32 = 463;
/// The CLONE_NEW flags that the profile refuses.
const NAMESPACES: u32 = 0x7e02_0000;
/// Where `struct seccomp_data` has the number of the call and the lower half of its first argument.
const NUMBER_AT: u32 = 0;
#[cfg(target_endian = "little")]
const FLAGS_AT: u32 = 16;
#[cfg(target_endian = "big")]
const FLAGS_AT: u32 = 20;

/// Refuses these calls, each with its errno.
///
/// # Errors
/// EINVAL: no call of the table of calls has that name. ENOSYS, EACCES: this machine has no filters.
pub fn refuse_calls(calls: &[(&str, i32)]) -> io::Result<()> {
    let mut filter = vec![load(NUMBER_AT)];
    for (name, errno) in calls {
        let (_, number) = OURS.iter().find(|(known, _)| known == name).ok_or(Errno::EINVAL)?;
        refuse(&mut filter, *number, *errno);
    }
    install(filter)
}

/// Refuses all that the default profile of container runtimes refuses.
///
/// # Errors
/// ENOSYS, EACCES: this machine has no filters.
pub fn refuse_as_containers() -> io::Result<()> {
    let mut filter = vec![load(NUMBER_AT)];
    for (_, number) in REFUSED.iter().chain(REFUSED_HERE) {
        refuse(&mut filter, *number, libc::EPERM);
    }
    refuse(&mut filter, libc::SYS_clone3, libc::ENOSYS);
    filter.extend([jump(libc::BPF_JGE, NEWER, 0, 1), answer(libc::ENOSYS)]);
    let clone = u32::try_from(libc::SYS_clone).map_err(|_| Errno::EINVAL)?;
    filter.extend([
        jump(libc::BPF_JEQ, clone, 0, 3),
        load(FLAGS_AT),
        jump(libc::BPF_JSET, NAMESPACES, 0, 1),
        answer(libc::EPERM),
    ]);
    install(filter)
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).unwrap_or(u16::MAX), jt: 0, jf: 0, k }
}

fn load(at: u32) -> libc::sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at)
}

fn jump(how: u32, k: u32, if_true: u8, if_false: u8) -> libc::sock_filter {
    libc::sock_filter { jt: if_true, jf: if_false, ..statement(libc::BPF_JMP | how | libc::BPF_K, k) }
}

fn answer(errno: i32) -> libc::sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno.unsigned_abs())
}

fn refuse(filter: &mut Vec<libc::sock_filter>, number: c_long, errno: i32) {
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    filter.extend([jump(libc::BPF_JEQ, number, 0, 1), answer(errno)]);
}

fn install(mut filter: Vec<libc::sock_filter>) -> io::Result<()> {
    filter.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW));
    let len = u16::try_from(filter.len()).map_err(|_| Errno::EINVAL)?;
    let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    // SAFETY: prctl takes integers, and seccomp copies the program, which lives through the call.
    unsafe {
        Errno::result(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        Errno::result(libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_TSYNC,
            &raw const program,
        ))?;
    }
    Ok(())
}

//! Starts a program as it would start in a fresh login: in a session of its own, with no signal blocked or ignored.
//!
//! It calls posix_spawn(3), so no code of ours runs between fork and exec. POSIX_SPAWN_SETSID makes the program the
//! leader of a session and of a process group with its own number. The session has no terminal, so opening /dev/tty
//! fails at once (ENXIO); in the session of the daemon's terminal a program of a background group that reads from it
//! would be stopped for ever. The signal mask is empty and all signals have their default actions, whatever this
//! process inherited. Only the standard streams and the files of the program stay open in it.
//!
//! It starts, and never waits, signals or reaps. Driven by `program.rs`.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::SigSet;

use crate::descriptors::open_numbers;
use crate::process::with_file_size_limit;

use super::{Input, ProgramSpec, STDIN_MAX_BYTES, path_of};

/// Starts a program and returns its process id, which is the number of its session and process group too. `out` and
/// `err` are its output streams; this process keeps no copy of them.
///
/// # Errors
/// ENOENT, EACCES, ENOEXEC, E2BIG: the program cannot be run. EAGAIN, ENOMEM, EMFILE: a resource is exhausted.
/// EINVAL: its standard input is too long. `InvalidInput`: a word contains a NUL.
pub(super) fn start(program: &ProgramSpec<'_>, out: OwnedFd, err: OwnedFd) -> io::Result<u32> {
    let streams = [stdin(program.stdin)?, above_streams(out)?, above_streams(err)?];
    let mut actions = PosixSpawnFileActions::init()?;
    for (stream, number) in streams.iter().zip(0..) {
        actions.add_dup2(stream.as_raw_fd(), number)?;
    }
    enter(&mut actions, &word(program.folder.as_os_str())?)?;
    let path = word(program.path.as_os_str())?;
    let args: Vec<CString> = std::iter::once(program.name)
        .chain(program.args.iter().map(OsString::as_os_str))
        .map(word)
        .collect::<io::Result<_>>()?;
    let env = environment(program.env)?;
    keep_open(program)?;
    let attributes = attributes()?;
    let spawn = || posix_spawn(path.as_c_str(), &actions, &attributes, &args, &env);
    let child = with_file_size_limit(program.file_max_bytes, spawn)??;
    Ok(u32::try_from(child.as_raw()).expect("a process id is not negative"))
}

/// A session of its own, an empty mask, and the default action of each signal.
fn attributes() -> io::Result<PosixSpawnAttr> {
    let mut attributes = PosixSpawnAttr::init()?;
    let session = PosixSpawnFlags::from_bits_retain(libc::POSIX_SPAWN_SETSID.into());
    attributes.set_flags(
        session | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF,
    )?;
    attributes.set_sigmask(&SigSet::empty())?;
    attributes.set_sigdefault(&every_signal())?;
    Ok(attributes)
}

/// All signals, also the two that glibc keeps for itself (32 and 33): sigfillset(3) leaves those out, and then
/// posix_spawn(3) starts the program with both ignored.
fn every_signal() -> SigSet {
    // SAFETY: a sigset_t is an array of integers, one bit for each signal, so each pattern of bits is valid.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        (&raw mut set).write_bytes(0xff, 1);
        SigSet::from_sigset_t_unchecked(set)
    }
}

/// Has the program start in `folder`.
fn enter(actions: &mut PosixSpawnFileActions, folder: &CString) -> io::Result<()> {
    let actions: *mut PosixSpawnFileActions = actions;
    // SAFETY: nix's type is the C type (repr(transparent)) and was initialised; the path is copied by the call.
    match unsafe { libc::posix_spawn_file_actions_addchdir_np(actions.cast(), folder.as_ptr()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Of two entries with one name the later counts.
fn environment(env: &[(OsString, OsString)]) -> io::Result<Vec<CString>> {
    let last: BTreeMap<&OsStr, &OsStr> = env.iter().map(|(name, value)| (&**name, &**value)).collect();
    let entry = |(name, value): (&OsStr, &OsStr)| {
        let mut both = name.to_owned();
        both.push("=");
        both.push(value);
        Ok(CString::new(both.into_vec())?)
    };
    last.into_iter().map(entry).collect()
}

fn word(text: &OsStr) -> io::Result<CString> {
    Ok(CString::new(text.as_bytes())?)
}

/// Marks all descriptors but the standard ones and the program's files close-on-exec: a library may have created some
/// without that flag, and this process may have inherited some.
fn keep_open(program: &ProgramSpec<'_>) -> io::Result<()> {
    // SAFETY: close_range takes three integers; with this flag it closes nothing in this process.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    match Errno::result(result) {
        Ok(_) => {}
        Err(Errno::ENOSYS | Errno::EPERM | Errno::EINVAL) => close_each_at_exec()?,
        Err(error) => return Err(error.into()),
    }
    for file in program.files {
        fcntl(file, FcntlArg::F_SETFD(FdFlag::empty()))?;
    }
    Ok(())
}

/// The same by one call for each descriptor: the kernel or a filter of system calls does not know the other one.
fn close_each_at_exec() -> io::Result<()> {
    for number in open_numbers()?.into_iter().filter(|number| *number > libc::STDERR_FILENO) {
        // SAFETY: fcntl takes three integers. The one that the listing was read with is closed already, which is an
        // error without any effect.
        unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}

/// A copy with a number above those of the standard streams, so that the dup2 calls do not overwrite each other's
/// sources.
fn above_streams(stream: OwnedFd) -> io::Result<OwnedFd> {
    if stream.as_raw_fd() > libc::STDERR_FILENO {
        return Ok(stream);
    }
    let copy = fcntl(&stream, FcntlArg::F_DUPFD_CLOEXEC(libc::STDERR_FILENO + 1))?;
    // SAFETY: the kernel has just made this descriptor for us and no other code has it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// A file is opened again, because the offset of its descriptor is where an earlier reader left off.
fn stdin(input: Input<'_>) -> io::Result<OwnedFd> {
    above_streams(match input {
        Input::Bytes([]) => File::open("/dev/null")?.into(),
        Input::Bytes(bytes) => filled(bytes)?,
        Input::File(file) => File::open(path_of(file))?.into(),
    })
}

/// A pipe that is filled before the program starts; the bytes fit its buffer.
fn filled(bytes: &[u8]) -> io::Result<OwnedFd> {
    if bytes.len() > STDIN_MAX_BYTES {
        return Err(Errno::EINVAL.into());
    }
    let (reader, mut writer) = io::pipe()?;
    writer.write_all(bytes)?;
    Ok(reader.into())
}

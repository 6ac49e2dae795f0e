//! What code of others does in a process: it handles faults, and it has something to do at the exit.
//!
//! For tests alone (feature `hostile-peer`): no program calls it.

use std::fs::File;
use std::io::{self, Write};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::libc::{self, c_int};

use crate::raise;

static NOTES: OnceLock<File> = OnceLock::new();
static HANGS: OnceLock<()> = OnceLock::new();

/// Handles these signals: each writes a line with its number to the file, and does nothing else.
///
/// # Errors
/// EINVAL: there is no such signal.
pub fn note_signals(signals: &[i32], notes: File) -> io::Result<()> {
    NOTES.get_or_init(|| notes);
    let handler: extern "C" fn(c_int) = note_signal;
    for signal in signals {
        // SAFETY: all-zero bytes are a valid sigaction: the default one.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = handler as libc::sighandler_t;
        // SAFETY: the handler has the form that these flags ask for, and only writes.
        Errno::result(unsafe { libc::sigaction(*signal, &raw const action, std::ptr::null_mut()) })?;
    }
    Ok(())
}

/// Ignores a signal.
///
/// # Errors
/// EINVAL: there is no such signal.
pub fn ignore_signal(signal: i32) -> io::Result<()> {
    // SAFETY: to ignore a signal runs no code.
    match unsafe { libc::signal(signal, libc::SIG_IGN) } {
        libc::SIG_ERR => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

extern "C" fn note_signal(signal: c_int) {
    let digits = [b'0' + (signal / 10) as u8, b'0' + (signal % 10) as u8, b'\n'];
    drop(NOTES.get().map(|mut notes| notes.write_all(&digits)));
}

/// At the exit of this process, writes a line to the file of [`note_signals`]; then it hangs, if it shall.
///
/// # Errors
/// ENOMEM: it cannot be registered (atexit(3)).
pub fn note_exit(hangs: bool) -> io::Result<()> {
    if hangs {
        HANGS.get_or_init(|| ());
    }
    // SAFETY: the function lives as long as the process.
    match unsafe { libc::atexit(at_exit) } {
        0 => Ok(()),
        _ => Err(Errno::ENOMEM.into()),
    }
}

extern "C" fn at_exit() {
    drop(NOTES.get().map(|mut notes| notes.write_all(b"exit\n")));
    if HANGS.get().is_some() {
        raise::hang();
    }
}

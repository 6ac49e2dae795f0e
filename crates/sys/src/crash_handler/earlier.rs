//! The handlers of faults that the program installed before ours: Python's faulthandler, a sanitizer's, the Rust runtime's.
//!
//! Such a handler is called after the record is stored, with what the kernel gave to ours. Most print something and then
//! raise the signal again, call abort(3) or return; all of that ends the process by the first signal. One that makes the
//! thread go on at another instruction has repaired the fault. It has [`TIME_MS`]: then a timer ends the process, by the
//! first signal too. While it runs, the signal has its default action, and is not blocked in its thread.
//!
//! A handler that repairs a fault and wants the same instruction to be tried again has to be installed after ours.
//! Driven by the crash handler: it must not allocate or lock.

use std::sync::OnceLock;

use nix::libc::{self, c_int, c_void, siginfo_t};

use super::backtrace::Registers;

/// Most time for an earlier handler, in milliseconds.
pub(super) const TIME_MS: i64 = 2000;

/// More than the highest number of a fault's signal.
const SIGNALS: usize = 32;
/// Of each signal the handler that was found at the installation, and the one that was found at the second.
static EARLIER: [[OnceLock<libc::sigaction>; 2]; SIGNALS] =
    [const { [const { OnceLock::new() }; 2] }; SIGNALS];

/// Keeps the handler of a signal. The second one counts in place of the first, which it may call itself; a third does not.
pub(super) fn keep(signal: c_int, action: libc::sigaction) {
    let places = places(signal).into_iter().flatten();
    if let Some(place) = places.into_iter().find(|place| place.get().is_none()) {
        let _ = place.set(action);
    }
}

fn places(signal: c_int) -> Option<&'static [OnceLock<libc::sigaction>; 2]> {
    EARLIER.get(usize::try_from(signal).ok()?)
}

/// The one that counts.
fn kept(signal: c_int) -> Option<&'static libc::sigaction> {
    let [first, second] = places(signal)?;
    second.get().or_else(|| first.get())
}

/// Calls the earlier handler of this signal, if there is one. Returns whether it makes the thread go on elsewhere; the signal
/// has its default action then.
///
/// # Safety
/// `info` and `context` are what the kernel gave to a handler of `signal` that was installed with SA_SIGINFO.
pub(super) unsafe fn call(signal: c_int, info: *mut siginfo_t, context: *mut c_void) -> bool {
    let Some(earlier) = kept(signal) else { return false };
    // SAFETY: the caller says that the context is filled.
    let pc = || unsafe { Registers::of(context) }.map(Registers::pc);
    let before = pc();
    let timer = start_timer(signal);
    open_to(signal);
    // SAFETY: sigaction(2) took this address for a handler of the form that the flags say, and the program may not
    // unload it while it is installed.
    unsafe {
        if earlier.sa_flags & libc::SA_SIGINFO == 0 {
            std::mem::transmute::<usize, extern "C" fn(c_int)>(earlier.sa_sigaction)(signal);
        } else {
            std::mem::transmute::<usize, extern "C" fn(c_int, *mut siginfo_t, *mut c_void)>(
                earlier.sa_sigaction,
            )(signal, info, context);
        }
    }
    let has_repaired = pc() != before;
    if let Some(timer) = timer.filter(|_| has_repaired) {
        // SAFETY: this timer is ours.
        unsafe { libc::syscall(libc::SYS_timer_delete, timer) };
    }
    has_repaired
}

/// Gives the signal its default action, and unblocks it in this thread.
fn open_to(signal: c_int) {
    // SAFETY: all-zero bytes are the default action and an empty set, which then holds the signal alone. Each call may be
    // made in a handler.
    unsafe {
        libc::sigaction(signal, &std::mem::zeroed(), std::ptr::null_mut());
        let mut only: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&raw mut only, signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const only, std::ptr::null_mut());
    }
}

/// Starts a timer that sends the signal to this process when the time is over. Without one, an earlier handler that hangs
/// is ended by the limits of its job. Not by timer_create(3), which may allocate.
fn start_timer(signal: c_int) -> Option<c_int> {
    // SAFETY: all-zero bytes are a valid sigevent: SIGEV_SIGNAL with no signal.
    let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = signal;
    let mut timer: c_int = 0;
    // SAFETY: the kernel reads the event and writes the number of the timer, both ours.
    let made = unsafe {
        libc::syscall(libc::SYS_timer_create, libc::CLOCK_MONOTONIC, &raw const event, &raw mut timer)
    };
    // SAFETY: all-zero bytes are a valid timespec.
    let never: libc::timespec = unsafe { std::mem::zeroed() };
    let mut once = libc::itimerspec { it_interval: never, it_value: never };
    once.it_value.tv_sec = TIME_MS / 1000;
    let nowhere: *mut libc::itimerspec = std::ptr::null_mut();
    // SAFETY: the kernel reads the times, and writes nothing to a null pointer.
    let set = made == 0
        && unsafe { libc::syscall(libc::SYS_timer_settime, timer, 0, &raw const once, nowhere) } == 0;
    set.then_some(timer)
}

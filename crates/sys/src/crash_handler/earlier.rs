//! The handlers of faults that the program installed before ours: Python's faulthandler, a sanitizer's, the Rust runtime's.
//!
//! Ours calls the earlier one after it has stored the record, with what the kernel gave to ours, on the stack where the kernel called
//! ours, with the signals blocked that the earlier one asked for. Faults alone are not blocked, and ours stays their handler.
//!
//! | the earlier handler | what becomes of the process |
//! |---|---|
//! | returns | the first signal ends it |
//! | returns after it made the thread go on at another instruction | it goes on: the fault is repaired, and the record is withdrawn |
//! | raises a fault: a second fault, abort(3), the same signal again | the first signal ends it at once, with its record |
//! | leaves by siglongjmp(3) | it goes on: the fault is repaired, and the next fault of the thread, or the timer, withdraws the record |
//! | takes longer than [`TIME_MS`] | a timer ends it by the first signal |
//!
//! Our handler finds out whether the earlier one was left by the stack pointer that the next signal interrupted, and in a thread without
//! a signal stack by a mark in the frame of [`call`]. Driven by the crash handler: it must not allocate or lock.

use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use nix::libc::{self, c_int, c_void, siginfo_t};

use super::FAULTS;
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

/// The guard page below a signal stack, where nothing else is.
const GUARD_BYTES: usize = 4096;
/// How far below a signal stack a fault means that it is used up.
const REACH_BYTES: usize = 64 << 10;
/// What [`call`] leaves in its frame while a handler runs.
const MARK: [usize; 4] = [0x6275_6c6b, 0x6865_6164, 0x7369_676e, 0x616c_7321];
/// The place of the mark of the call that runs or was left; 0: there is none.
static MARK_AT: AtomicUsize = AtomicUsize::new(0);
/// The lowest address of the stack on which it runs, if that is a signal stack.
static STACK_FROM: AtomicUsize = AtomicUsize::new(0);
/// Its timer, and what PR_GET_DUMPABLE said before; -1: there is none.
static TIMER: AtomicI32 = AtomicI32::new(-1);
static DUMPABLE: AtomicI32 = AtomicI32::new(-1);

/// Calls the earlier handler of this signal, if there is one, so that it leaves no core file. Returns whether it makes the thread
/// go on elsewhere. One that repairs a fault and wants the same instruction to be tried again has to be installed after ours.
///
/// # Safety
/// `info` and `context` are what the kernel gave to a handler of `signal` that was installed with SA_SIGINFO. No other thread calls
/// this meanwhile.
pub(super) unsafe fn call(signal: c_int, info: *mut siginfo_t, context: *mut c_void) -> bool {
    // SAFETY: PR_GET_DUMPABLE and PR_SET_DUMPABLE take at most one integer, and may be called in a handler.
    DUMPABLE.store(unsafe { libc::prctl(libc::PR_GET_DUMPABLE) }, Ordering::Relaxed);
    // SAFETY: as above.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) };
    let Some(earlier) = kept(signal) else { return false };
    // SAFETY: the caller says that the context is filled.
    let pc = || unsafe { Registers::of(context) }.map(Registers::pc);
    let before = pc();
    let mark = std::hint::black_box(MARK);
    STACK_FROM.store(signal_stack_from(mark.as_ptr().addr()), Ordering::Relaxed);
    MARK_AT.store(mark.as_ptr().expose_provenance(), Ordering::Release);
    TIMER.store(start_timer(signal).unwrap_or(-1), Ordering::Relaxed);
    // SAFETY: the caller says that the context is filled.
    unsafe { open_signals(earlier, context) };
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
    std::hint::black_box(&mark);
    pc() != before
}

/// Whether the earlier handler runs on this thread, which called it, and was interrupted by the signal with this context, or has used
/// up its stack.
///
/// # Safety
/// `info` and `context` are what the kernel gave to a handler that was installed with SA_SIGINFO.
pub(super) unsafe fn is_interrupted(info: &siginfo_t, context: *const c_void) -> bool {
    let mark = MARK_AT.load(Ordering::Acquire);
    if mark == 0 {
        return false;
    }
    // SAFETY: the caller says that the context is filled.
    let Some(registers) = (unsafe { Registers::of(context) }) else { return true };
    let from = STACK_FROM.load(Ordering::Relaxed);
    if from != 0 {
        // The kernel begins at the other end of a signal stack that is used up, so the mark is lost then.
        let is_there = (from.saturating_sub(GUARD_BYTES)..mark).contains(&registers.stack());
        // SAFETY: a fault has its address there, other signals have other bytes of the same siginfo_t.
        let fault = if info.si_code > 0 { unsafe { info.si_addr() }.addr() } else { 0 };
        return is_there || (from.saturating_sub(REACH_BYTES)..from).contains(&fault);
    }
    let is_below = registers.stack() < mark;
    // SAFETY: this thread had its mark there, on a stack that is there until the thread ends. If the handler was left, other
    // frames may be there: any bytes are numbers.
    is_below && unsafe { ptr::with_exposed_provenance::<[usize; 4]>(mark).read_volatile() } == MARK
}

/// Whether this is the signal of a timer of ours.
pub(super) fn is_of_timer(info: &siginfo_t) -> bool {
    // SAFETY: a signal of a timer carries the value of its timer.
    info.si_code == libc::SI_TIMER && unsafe { info.si_value() }.sival_ptr.addr() == timer_value().addr()
}

/// Undoes what [`call`] has done, after its handler has repaired the fault.
pub(super) fn undo() {
    MARK_AT.store(0, Ordering::Release);
    let timer = TIMER.swap(-1, Ordering::Relaxed);
    if timer >= 0 {
        // SAFETY: this timer is ours.
        unsafe { libc::syscall(libc::SYS_timer_delete, timer) };
    }
    let dumpable = DUMPABLE.swap(-1, Ordering::Relaxed);
    if dumpable >= 0 {
        // SAFETY: PR_SET_DUMPABLE takes one integer.
        unsafe { libc::prctl(libc::PR_SET_DUMPABLE, dumpable) };
    }
}

/// The lowest address of the calling thread's signal stack, if `here` is on it; else 0.
fn signal_stack_from(here: usize) -> usize {
    // SAFETY: all-zero bytes are a valid stack_t to be filled.
    let mut stack: libc::stack_t = unsafe { std::mem::zeroed() };
    // SAFETY: asks for what is set; `stack` is ours.
    unsafe { libc::sigaltstack(ptr::null(), &raw mut stack) };
    let from = stack.ss_sp.addr();
    if (from..from.saturating_add(stack.ss_size)).contains(&here) { from } else { 0 }
}

/// Blocks what the thread had blocked and what the earlier handler asked for, without [`FAULTS`].
///
/// # Safety
/// `context` is what the kernel gave to a handler that was installed with SA_SIGINFO.
unsafe fn open_signals(earlier: &libc::sigaction, context: *mut c_void) {
    let mut blocked = earlier.sa_mask;
    // SAFETY: each call changes a set that is ours, and may be made in a handler. The kernel's set has 64 signals, and the context
    // holds no more than that.
    unsafe {
        let before = &raw const (*context.cast::<libc::ucontext_t>()).uc_sigmask;
        let mut interrupted: libc::sigset_t = std::mem::zeroed();
        ptr::copy_nonoverlapping(before.cast::<u8>(), (&raw mut interrupted).cast(), 8);
        for signal in 1..=64 {
            if libc::sigismember(&raw const interrupted, signal) == 1 {
                libc::sigaddset(&raw mut blocked, signal);
            }
        }
        for signal in FAULTS {
            libc::sigdelset(&raw mut blocked, signal);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const blocked, ptr::null_mut());
    }
}

/// What the signal of a timer of ours carries.
fn timer_value() -> *mut c_void {
    (&raw const TIMER).cast_mut().cast()
}

/// Starts a timer that sends the signal to this thread when the time is over. Without one, or if it blocks the signal, an earlier
/// handler that hangs is ended by the limits of its job. Not by timer_create(3), which may allocate.
fn start_timer(signal: c_int) -> Option<c_int> {
    // SAFETY: all-zero bytes are a valid sigevent: SIGEV_SIGNAL with no signal.
    let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
    event.sigev_notify = libc::SIGEV_THREAD_ID;
    event.sigev_signo = signal;
    event.sigev_value.sival_ptr = timer_value();
    // SAFETY: asks for a number.
    event.sigev_notify_thread_id = unsafe { libc::gettid() };
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

//! The last testimony of a process: what ended it, left in a shared page by a signal handler.
//!
//! The handler runs on a stack of its own, so that it also speaks when the thread's stack is used up. It stores a
//! few words, each atomically, gives the signal back its default action and sends it again: what the kernel tells
//! of the death afterwards is as if nobody had listened. It must never allocate, lock or format. It speaks for the
//! first thread only; another that faults meanwhile waits for the end. A forked child stays silent: the page is its
//! parent's. A thread has a stack for handlers if Rust made it; one that C code made dies of an overflow unheard.
//!
//! This replaces the Rust runtime's own handler of SIGSEGV and SIGBUS, whose message on a stack overflow goes to
//! standard error; the testimony says the same. Installed by the worker, once, on the thread that runs its tasks.

use std::io;
use std::ops::Range;
use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::errno::Errno;
use nix::libc::{self, c_int, c_void, siginfo_t};

use crate::allocator;
use crate::clock::monotonic_ns;
use crate::shared_page::SharedPage;

mod backtrace;

use backtrace::{Image, Registers};

/// What ends a process by default and can be caught. Signals that are ignored when the handler is installed stay so.
const CAUGHT: [c_int; 19] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGABRT,
    libc::SIGSYS,
    libc::SIGTRAP,
    libc::SIGXCPU,
    libc::SIGXFSZ,
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
];

/// Bytes of the handler's stack: the largest frame that a kernel pushes (about 11 KiB with AMX) and room to spare.
const HANDLER_STACK_BYTES: usize = 64 << 10;
/// How far from the lowest byte of a stack a fault still is an overflow: below it, since a frame may be longer than
/// the guard, and above it, since the kernel keeps 256 pages free between a growing stack and its neighbour.
const STACK_REACH_BYTES: usize = (1 << 20) + (64 << 10);

/// Where in the page each word of the testimony stands: offsets, multiples of 8.
#[derive(Clone, Copy, Debug)]
pub struct CrashRecordLayout {
    /// CLOCK_MONOTONIC nanoseconds at which the signal was taken.
    pub moment: usize,
    /// The signal's number; stored last, 0 before.
    pub signal: usize,
    /// `si_code`, sign-extended: who sent it (0 and below: a process; above: the kernel, and why).
    pub code: usize,
    /// `si_addr`, for a signal of the kernel's.
    pub address: usize,
    /// `si_pid`, for a signal of a process's.
    pub sender: usize,
    /// 1 for a SIGSEGV at the end of the stack.
    pub stack_overflow: usize,
    /// Bytes of the allocation that failed right before; 0: none did.
    pub allocation: usize,
    /// How many frames there are; stored after them.
    pub frame_count: usize,
    /// 1 when the stack had to be searched for them: a call that was over may be among them.
    pub frames_searched: usize,
    /// Where in the program's file it was, and the calls that led there: a word each, the innermost first.
    pub frames: usize,
    /// For how many of them there is room.
    pub frames_max: usize,
}

/// The words themselves, and what the handler must know.
#[derive(Debug)]
struct CrashRecord {
    moment: &'static AtomicU64,
    signal: &'static AtomicU64,
    code: &'static AtomicU64,
    address: &'static AtomicU64,
    sender: &'static AtomicU64,
    stack_overflow: &'static AtomicU64,
    allocation: &'static AtomicU64,
    frame_count: &'static AtomicU64,
    frames_searched: &'static AtomicU64,
    /// A word for each frame that there is room for.
    frames: Vec<&'static AtomicU64>,
    image: Image,
    /// Addresses at which a fault of the installing thread is an overflow of its stack.
    stack_end: Range<usize>,
    pid: u32,
}

static CRASH_RECORD: OnceLock<CrashRecord> = OnceLock::new();
static RECORDED: AtomicBool = AtomicBool::new(false);

/// Has every death of this process by a signal that can be caught leave its testimony in `page`, which stays mapped
/// for good. Call it once, on the thread whose stack is to be watched.
///
/// # Errors
/// EALREADY: it was called before. ENOMEM: no stack for the handler. Whatever was done until then stays.
///
/// # Panics
/// If a place is none of the page's, or the page is mapped for reading only.
pub fn install(page: SharedPage, layout: &CrashRecordLayout) -> io::Result<()> {
    let page: &'static SharedPage = Box::leak(Box::new(page));
    let record = CrashRecord {
        moment: page.writable_word(layout.moment),
        signal: page.writable_word(layout.signal),
        code: page.writable_word(layout.code),
        address: page.writable_word(layout.address),
        sender: page.writable_word(layout.sender),
        stack_overflow: page.writable_word(layout.stack_overflow),
        allocation: page.writable_word(layout.allocation),
        frame_count: page.writable_word(layout.frame_count),
        frames_searched: page.writable_word(layout.frames_searched),
        frames: (0..layout.frames_max).map(|frame| page.writable_word(layout.frames + 8 * frame)).collect(),
        image: Image::own(),
        stack_end: stack_end()?,
        pid: process::id(),
    };
    CRASH_RECORD.set(record).map_err(|_| Errno::EALREADY)?;
    use_own_stack()?;
    CAUGHT.into_iter().try_for_each(catch)
}

/// Where a fault means that the calling thread's stack is used up.
fn stack_end() -> io::Result<Range<usize>> {
    // SAFETY: all-zero bytes are a valid pthread_attr_t to be filled.
    let mut attributes: libc::pthread_attr_t = unsafe { std::mem::zeroed() };
    // SAFETY: `attributes` is ours and lives through the call.
    let result = unsafe { libc::pthread_getattr_np(libc::pthread_self(), &raw mut attributes) };
    if result != 0 {
        return Err(io::Error::from_raw_os_error(result));
    }
    let (mut lowest, mut bytes) = (std::ptr::null_mut(), 0);
    // SAFETY: the attributes were filled by the call above; both places are ours. It cannot fail then.
    unsafe { libc::pthread_attr_getstack(&raw const attributes, &raw mut lowest, &raw mut bytes) };
    // SAFETY: they are not used after this.
    unsafe { libc::pthread_attr_destroy(&raw mut attributes) };
    let lowest = lowest.addr();
    Ok(lowest.saturating_sub(STACK_REACH_BYTES)..lowest + bytes.min(STACK_REACH_BYTES))
}

/// Gives the calling thread a stack for signal handlers, with a page below it that catches an overflow.
fn use_own_stack() -> io::Result<()> {
    // SAFETY: asks for a number.
    let guard_bytes = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    let bytes = guard_bytes + HANDLER_STACK_BYTES;
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at a place of the kernel's choice touches nothing that exists.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the first page of the mapping that was just made, which nobody uses.
    Errno::result(unsafe { libc::mprotect(start, guard_bytes, libc::PROT_NONE) })?;
    let stack = libc::stack_t {
        ss_sp: start.wrapping_byte_add(guard_bytes),
        ss_flags: 0,
        ss_size: HANDLER_STACK_BYTES,
    };
    // SAFETY: the memory stays mapped for good and nobody else uses it.
    Errno::result(unsafe { libc::sigaltstack(&raw const stack, std::ptr::null_mut()) })?;
    Ok(())
}

fn catch(signal: c_int) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid sigaction: the default one.
    let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: asks for what is set; `before` is ours.
    Errno::result(unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut before) })?;
    if before.sa_sigaction == libc::SIG_IGN {
        return Ok(());
    }
    let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = handle;
    let mut action = before;
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the mask is ours. Nothing else may interrupt the handler; a fault in it ends the process at once.
    unsafe { libc::sigfillset(&raw mut action.sa_mask) };
    // SAFETY: the handler has the form that SA_SIGINFO asks for and does only what is safe in a handler.
    Errno::result(unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) })?;
    Ok(())
}

/// The handler: says what is known, then lets the signal do what it does by default.
extern "C" fn handle(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    if let Some(record) = CRASH_RECORD.get()
        && record.pid == process::id()
    {
        if RECORDED.swap(true, Ordering::AcqRel) {
            wait_for_the_end();
        }
        // SAFETY: the kernel hands a filled siginfo_t and a filled context to a handler that was installed with
        // SA_SIGINFO.
        let (info, registers) = unsafe { (&*info, Registers::of(context)) };
        record.record_cause(signal, info, registers);
        if let Some(registers) = registers {
            record.record_frames(registers);
        }
    }
    // SAFETY: all-zero bytes are the default action. Neither call may fail for a signal that was caught; both may be
    // made in a handler. The signal is blocked until this returns, and ends the process then, before the instruction
    // that faulted would be tried again.
    unsafe {
        libc::sigaction(signal, &std::mem::zeroed(), std::ptr::null_mut());
        libc::raise(signal);
    }
}

/// Another thread is speaking, and ends the process when it has spoken. It never waits, so this ends.
fn wait_for_the_end() -> ! {
    loop {
        // SAFETY: waits; every signal that could wake this thread is blocked, or ends the process.
        unsafe { libc::pause() };
    }
}

impl CrashRecord {
    fn record_cause(&self, signal: c_int, info: &siginfo_t, registers: Option<Registers>) {
        let store = |word: &AtomicU64, value: u64| word.store(value, Ordering::Relaxed);
        store(self.moment, monotonic_ns());
        store(self.code, i64::from(info.si_code).cast_unsigned());
        if info.si_code > 0 {
            // SAFETY: si_addr is filled for the faults, and other bytes of the same siginfo_t for the rest: whoever
            // reads it believes it for a fault alone.
            let address = unsafe { info.si_addr() }.addr();
            let at_end = || registers.is_some_and(|registers| registers.are_at_stack_end(address));
            let overflow = signal == libc::SIGSEGV && (self.stack_end.contains(&address) || at_end());
            store(self.address, address as u64);
            store(self.stack_overflow, u64::from(overflow));
        } else {
            // SAFETY: a signal of a process carries its process id; anything else is bytes that nobody believes.
            store(self.sender, unsafe { info.si_pid() }.cast_unsigned().into());
        }
        if signal == libc::SIGABRT {
            store(self.allocation, allocator::failed_bytes());
        }
        self.signal.store(signal.cast_unsigned().into(), Ordering::Release);
    }

    /// After the cause, which must be told whatever becomes of this.
    fn record_frames(&self, registers: Registers) {
        let mut count = 0;
        let searched = backtrace::walk(&self.image, registers, &mut |address| {
            if let Some(word) = self.frames.get(count) {
                word.store(address, Ordering::Relaxed);
                count += 1;
            }
            count < self.frames.len()
        });
        self.frames_searched.store(searched.into(), Ordering::Relaxed);
        self.frame_count.store(count as u64, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;

//! The crash handler: records in a shared page why a process died by a signal. The page outlives the process.
//!
//! It records on a stack of its own, so that it works when the thread's stack is used up
//! (`crash_handler/record_stack.rs`), with all signals blocked. It stores some
//! words, each atomically, calls the handler that the program had installed before (`crash_handler/earlier.rs`), restores
//! the default action and raises the signal again: the wait status is the same as without it, and no core file is left. It
//! must never allocate, lock or format. The first thread that crashes records; another one waits for the end of the process, or until the first goes on.
//! A forked child records nothing, because the page is its parent's. Threads that C code started have no signal stack, so
//! their stack overflow is a plain SIGSEGV without a record; so is a fault of a task that installed a handler of its own and
//! then restored the default action.
//!
//! A signal from outside that is no fault (`HARMLESS`) does nothing: an administrator sends HUP or TERM to all processes of
//! a unit and means the daemon, and the task of a worker is not charged for that. Raised by the process itself, it ends it. One
//! that the program handled before is left to it, such as Python's INT. Installed by the worker on the thread that
//! runs its tasks; `link/supervisor/ring/death_cause.rs` reads the record.

use std::io;
use std::ops::Range;
use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use nix::errno::Errno;
use nix::libc::{self, c_int, c_void, siginfo_t};

use crate::allocator;
use crate::clock::monotonic_ns;
use crate::shared_page::SharedPage;

mod backtrace;
mod earlier;
mod images;
mod record_stack;
mod walker;

pub(crate) use walker::{PlacedFrame, StackWalker};

use backtrace::{Image, Registers, StackFrame};
use images::{NAME_BYTES, OtherImages};
use record_stack::RecordStacks;

/// Signals that end a process by default and can be caught. One that is ignored at the installation stays ignored, and one
/// that is handled too, unless it is a fault.
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

/// Signals of [`CAUGHT`] that say that the program has gone wrong.
const FAULTS: [c_int; 7] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT, libc::SIGSYS, libc::SIGTRAP];

/// Signals of [`CAUGHT`] that do nothing if another process sent them, or a terminal.
const HARMLESS: [c_int; 10] = [
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
/// Those that a terminal sends. The kernel sends the others for timers and files of the process itself.
const OF_TERMINALS: [c_int; 3] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT];

/// How far from the lowest byte of a stack a fault still counts as overflow: below it, because a frame can be longer
/// than the guard page, and above it, because the kernel keeps 256 pages free between a growing stack and its
/// neighbour.
const STACK_REACH_BYTES: usize = (1 << 20) + (64 << 10);

/// The offset of each word of the crash record in its page, a multiple of 8.
#[derive(Clone, Copy, Debug)]
pub struct CrashRecordLayout {
    /// The time of the signal, in CLOCK_MONOTONIC nanoseconds.
    pub moment: usize,
    /// The signal's number; stored last, 0 before.
    pub signal: usize,
    /// `si_code`, sign-extended: 0 and below from a process, above 0 from the kernel, with its reason.
    pub code: usize,
    /// `si_addr`, for a signal from the kernel.
    pub address: usize,
    /// `si_pid`, for a signal from a process.
    pub sender: usize,
    /// 1 for a SIGSEGV at the end of the stack.
    pub stack_overflow: usize,
    /// The size of an allocation that failed right before; 0: none did.
    pub allocation: usize,
    /// The number of frames, stored after them.
    pub frame_count: usize,
    /// 1 if the stack had to be searched for frames: a call that had returned may be among them.
    pub frames_searched: usize,
    /// The frames: the interrupted address and the calls that led there, as addresses in the program's file, one word
    /// each, the innermost first.
    pub frames: usize,
    /// The number of frames that fit.
    pub frames_max: usize,
    /// Where frames of other files than the program go.
    pub others: OtherFramesLayout,
}

/// Where frames of other files than the program go: libraries, and code without a file.
#[derive(Clone, Copy, Debug)]
pub struct OtherFramesLayout {
    /// Their number, stored after all of them and their names.
    pub count: usize,
    /// Two words each, the innermost first: the address in its file, and `own << 8 | name` with the number of the
    /// program's frames that are further in and the place of the name.
    pub frames: usize,
    /// The number of frames that fit.
    pub frames_max: usize,
    /// The names of their files, [`OtherFramesLayout::NAME_BYTES`] each: the last part of the path, filled up with zeros. It
    /// may hold any other byte.
    pub names: usize,
    /// The number of names that fit. Frames of further files are left out.
    pub names_max: usize,
}

impl OtherFramesLayout {
    /// Bytes of each name, a multiple of 8. A longer name has its first bytes there.
    pub const NAME_BYTES: usize = NAME_BYTES;
}

/// The words of the record, and what the handler needs to know.
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
    /// One word for each frame.
    frames: Vec<&'static AtomicU64>,
    others: OtherFrames,
    image: Image,
    stacks: RecordStacks,
    /// Addresses at which a fault of the installing thread means a stack overflow.
    stack_end: Range<usize>,
    pid: u32,
}

/// The words for frames of other files.
#[derive(Debug)]
struct OtherFrames {
    count: &'static AtomicU64,
    frames: Vec<[&'static AtomicU64; 2]>,
    names: Vec<[&'static AtomicU64; NAME_WORDS]>,
}

/// Words of a name.
const NAME_WORDS: usize = NAME_BYTES / 8;

static CRASH_RECORD: OnceLock<CrashRecord> = OnceLock::new();
/// The thread that records; 0: none does.
static RECORDER: AtomicI32 = AtomicI32::new(0);
/// The signal that it records.
static RECORDED: AtomicI32 = AtomicI32::new(0);

/// Installs the handler, so that each death of this process by a catchable signal leaves a record in `page`. The page
/// stays mapped for good. To be called once, on the thread whose stack overflow shall be recognised.
///
/// # Errors
/// EALREADY: it was called before. ENOMEM: no stack for the handler. Steps that were done stay in force.
///
/// # Panics
/// If an offset is outside the page, or the page is mapped for reading only.
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
        others: OtherFrames::of(page, &layout.others),
        image: Image::own(),
        stacks: RecordStacks::new()?,
        stack_end: stack_end()?,
        pid: process::id(),
    };
    CRASH_RECORD.set(record).map_err(|_| Errno::EALREADY)?;
    if let Some(record) = CRASH_RECORD.get() {
        record.stacks.use_own()?;
    }
    CAUGHT.into_iter().try_for_each(catch)
}

/// Installs it again, over the handlers that the program has installed since [`install`]: they are called after ours, as those
/// that were there before it.
///
/// # Errors
/// None is known.
pub fn install_again() -> io::Result<()> {
    CAUGHT.into_iter().try_for_each(catch)
}

/// The addresses at which a fault means that the calling thread's stack is used up.
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

fn catch(signal: c_int) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid sigaction: the default one.
    let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: asks for what is set; `before` is ours.
    Errno::result(unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut before) })?;
    if before.sa_sigaction == own_address() {
        return Ok(());
    }
    let is_handled = before.sa_sigaction != libc::SIG_DFL;
    if before.sa_sigaction == libc::SIG_IGN || is_handled && !FAULTS.contains(&signal) {
        return Ok(());
    }
    if is_handled {
        earlier::keep(signal, before);
    }
    set_action(signal)
}

/// [`handle`], as the kernel names it.
fn own_address() -> libc::sighandler_t {
    let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = handle;
    handler as libc::sighandler_t
}

/// Makes [`handle`] the handler of a signal.
fn set_action(signal: c_int) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid sigaction: the default one.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = own_address();
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: the mask is ours. Nothing else may interrupt the handler; a fault in it ends the process at once.
    unsafe { libc::sigfillset(&raw mut action.sa_mask) };
    // SAFETY: the handler has the form that SA_SIGINFO asks for and does only what is safe in a handler.
    Errno::result(unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) })?;
    Ok(())
}

/// What the kernel gave to the handler.
struct CaughtSignal {
    signal: c_int,
    info: *mut siginfo_t,
    context: *mut c_void,
}

/// The handler: stores the record, calls the handler that was there before, then lets the signal take its default action. It
/// leaves errno as it is if it returns. It may have little stack: the recording runs on another (`record_stack.rs`).
extern "C" fn handle(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let errno = Errno::last_raw();
    meet(signal, info, context);
    Errno::set_raw(errno);
}

/// As [`handle`], which alone calls it.
fn meet(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let mut caught = CaughtSignal { signal, info, context };
    // SAFETY: the kernel hands a filled siginfo_t and a filled context to a handler that was installed with SA_SIGINFO.
    let (details, is_interrupted) = unsafe { (&*info, || earlier::is_interrupted(&*info, context)) };
    if let Some(record) = CRASH_RECORD.get()
        && record.pid == process::id()
    {
        if is_harmless(signal, details, record.pid) {
            return;
        }
        // SAFETY: asks for a number.
        let own = unsafe { libc::gettid() };
        // What was left by siglongjmp(3).
        let is_left = await_turn(own);
        if is_left && is_interrupted() {
            // The handler that was there before has ended the process in its own way, for instance by abort(3).
            end_by(RECORDED.load(Ordering::Acquire));
        }
        if is_left {
            withdraw(record);
        }
        // A timer whose handler is over, and that fired before it was deleted.
        if earlier::is_of_timer(details) {
            return RECORDER.store(0, Ordering::Release);
        }
        RECORDED.store(signal, Ordering::Release);
        // SAFETY: this thread alone records now, and a handler of it that interrupts this one ends the process above.
        unsafe { record.stacks.run(store_record, (&raw mut caught).cast()) };
    } else if is_interrupted() {
        end_by(signal);
    }
    // SAFETY: these are what the kernel gave to this handler. This thread alone records; a forked child has no other threads.
    if unsafe { earlier::call(signal, info, context) } {
        return resume(signal);
    }
    // SAFETY: all-zero bytes are the default action. Neither call may fail for a signal that was caught; both may be
    // made in a handler. The signal is blocked until this returns, and ends the process then, before the instruction
    // that faulted would be tried again.
    unsafe {
        libc::sigaction(signal, &std::mem::zeroed(), std::ptr::null_mut());
        libc::raise(signal);
    }
}

/// Stores the record of a [`CaughtSignal`].
extern "C" fn store_record(caught: *mut c_void) {
    // SAFETY: `handle` calls this with its own value, which it does not touch meanwhile.
    let caught = unsafe { &*caught.cast::<CaughtSignal>() };
    // SAFETY: the kernel hands a filled siginfo_t and a filled context to a handler that was installed with SA_SIGINFO.
    let (info, registers) = unsafe { (&*caught.info, Registers::of(caught.context)) };
    if let Some(record) = CRASH_RECORD.get() {
        record.record_cause(caught.signal, info, registers);
        if let Some(registers) = registers {
            record.record_frames(registers);
        }
    }
}

/// Whether a signal comes from outside and is no fault. In a forked child of a task it never is: its parent may end it so.
fn is_harmless(signal: c_int, info: &siginfo_t, own: u32) -> bool {
    let is_from_outside = match info.si_code {
        // SAFETY: a signal with such a code carries the sender's process id, 0 for one in another pid namespace.
        libc::SI_USER | libc::SI_QUEUE | libc::SI_TKILL => unsafe { info.si_pid() }.cast_unsigned() != own,
        libc::SI_KERNEL => OF_TERMINALS.contains(&signal),
        _ => false,
    };
    is_from_outside && HARMLESS.contains(&signal)
}

/// Makes this thread the one that records. If another one records, that ends the process within a bounded time, or goes on: then
/// it is this one's turn, because a signal that was sent does not come again. Gives whether this thread was the recorder before.
fn await_turn(own: libc::pid_t) -> bool {
    loop {
        match RECORDER.compare_exchange(0, own, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return false,
            Err(recorder) if recorder == own => return true,
            Err(recorder) => wait_for_the_end(recorder),
        }
    }
}

/// Waits while another thread records.
fn wait_for_the_end(recorder: libc::pid_t) {
    while RECORDER.load(Ordering::Acquire) == recorder {
        // SAFETY: signal 0 asks whether the thread is there.
        let is_there = unsafe { libc::syscall(libc::SYS_tgkill, process::id(), recorder, 0) } == 0;
        if !is_there && Errno::last() == Errno::ESRCH {
            // The earlier handler was left, and the thread has ended since.
            if let Some(record) = CRASH_RECORD.get() {
                withdraw(record);
            }
            let _ = RECORDER.compare_exchange(recorder, 0, Ordering::AcqRel, Ordering::Acquire);
            return;
        }
        // SAFETY: waits for a millisecond, and for no descriptor.
        unsafe { libc::poll(std::ptr::null_mut(), 0, 1) };
    }
}

/// Withdraws the record: the handler that was there before has repaired the fault.
fn withdraw(record: &CrashRecord) {
    record.signal.store(0, Ordering::Release);
    earlier::undo();
}

/// The thread goes on: the handler that was there before has repaired the fault.
fn resume(signal: c_int) {
    if let Some(record) = CRASH_RECORD.get().filter(|record| record.pid == process::id()) {
        withdraw(record);
    } else {
        earlier::undo();
    }
    // It may have set another action. If this fails, the next fault ends the process without a record.
    drop(set_action(signal));
    RECORDER.store(0, Ordering::Release);
}

/// Ends the process by the default action of `signal`, whatever this thread blocks.
fn end_by(signal: c_int) -> ! {
    // SAFETY: all-zero bytes are the default action and an empty set, which then holds the signal alone. None of the
    // calls fails for a signal that was caught, and each may be made in a handler.
    unsafe {
        libc::sigaction(signal, &std::mem::zeroed(), std::ptr::null_mut());
        let mut only: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&raw mut only, signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const only, std::ptr::null_mut());
        libc::raise(signal);
        libc::_exit(128 + signal)
    }
}

impl CrashRecord {
    fn record_cause(&self, signal: c_int, info: &siginfo_t, registers: Option<Registers>) {
        let store = |word: &AtomicU64, value: u64| word.store(value, Ordering::Relaxed);
        store(self.moment, monotonic_ns());
        store(self.code, i64::from(info.si_code).cast_unsigned());
        if info.si_code > 0 {
            // SAFETY: si_addr is filled for the faults, and other bytes of the same siginfo_t for the rest: the
            // reader uses it for faults alone.
            let address = unsafe { info.si_addr() }.addr();
            let at_end = || registers.is_some_and(|registers| registers.are_at_stack_end(address));
            let overflow = signal == libc::SIGSEGV && (self.stack_end.contains(&address) || at_end());
            store(self.address, address as u64);
            store(self.stack_overflow, u64::from(overflow));
        } else {
            // SAFETY: a signal of a process carries its process id; otherwise the reader ignores these bytes.
            store(self.sender, unsafe { info.si_pid() }.cast_unsigned().into());
        }
        if signal == libc::SIGABRT {
            store(self.allocation, allocator::failed_bytes());
        }
        self.signal.store(signal.cast_unsigned().into(), Ordering::Release);
    }

    /// Stores the frames after the cause, so that the cause is recorded even if this fails.
    fn record_frames(&self, registers: Registers) {
        let images = images::read(self.image.code());
        let images = images.as_deref();
        let mut count = 0;
        let mut names = OtherNames::default();
        let searched = backtrace::walk(&self.image, images, registers, &mut |frame| match frame {
            StackFrame::Own(address) => {
                if let Some(word) = self.frames.get(count) {
                    word.store(address, Ordering::Relaxed);
                    count += 1;
                }
                count < self.frames.len()
            }
            StackFrame::Other(address) => {
                self.others.record(images, address, count, &mut names);
                true
            }
        });
        self.frames_searched.store(searched.into(), Ordering::Relaxed);
        self.others.count.store(names.frames as u64, Ordering::Release);
        self.frame_count.store(count as u64, Ordering::Release);
    }
}

/// The names that were stored, and how many frames.
#[derive(Default)]
struct OtherNames {
    /// The file of each, by where its code begins.
    files: [usize; 16],
    count: usize,
    frames: usize,
}

impl OtherFrames {
    fn of(page: &'static SharedPage, layout: &OtherFramesLayout) -> Self {
        let word = |at: usize, number: usize| page.writable_word(at + 8 * number);
        Self {
            count: page.writable_word(layout.count),
            frames: (0..layout.frames_max)
                .map(|frame| [0, 1].map(|part| word(layout.frames, 2 * frame + part)))
                .collect(),
            names: (0..layout.names_max)
                .map(|name| std::array::from_fn(|part| word(layout.names, NAME_WORDS * name + part)))
                .collect(),
        }
    }

    /// Stores one, while there is room for it and for the name of its file.
    fn record(&self, images: Option<&OtherImages>, address: usize, own: usize, names: &mut OtherNames) {
        let Some(place) = self.frames.get(names.frames) else { return };
        let Some((mapping, offset)) = images.and_then(|images| images.find(address)) else { return };
        let known = names.files.iter().take(names.count).position(|file| *file == mapping.base());
        let Some(name) = known.or_else(|| self.store_name(mapping.base(), &mapping.name, names)) else {
            return;
        };
        place[0].store(offset, Ordering::Relaxed);
        place[1].store((own << 8 | name) as u64, Ordering::Relaxed);
        names.frames += 1;
    }

    /// Stores another name; returns its place if there was room.
    fn store_name(&self, file: usize, name: &[u8; NAME_BYTES], names: &mut OtherNames) -> Option<usize> {
        let place = names.count;
        let (words, known) = (self.names.get(place)?, names.files.get_mut(place)?);
        for (word, bytes) in words.iter().zip(name.chunks_exact(8)) {
            let mut value = [0; 8];
            value.copy_from_slice(bytes);
            word.store(u64::from_ne_bytes(value), Ordering::Relaxed);
        }
        *known = file;
        names.count += 1;
        Some(place)
    }
}

#[cfg(test)]
mod tests;

//! Handlers that a program installs beside ours, for the tests of the crash handler.
//!
//! They note in the page that they were called, and then do what handlers of others do. Never used outside tests.

use std::sync::atomic::{AtomicBool, AtomicPtr};

use super::*;

/// Where an earlier handler leaves the number of its signal, and the address that it was given.
pub(super) const NOTED_SIGNAL_AT: usize = 3000;
pub(super) const NOTED_ADDRESS_AT: usize = 3008;
static NOTES: OnceLock<[&'static AtomicU64; 2]> = OnceLock::new();
/// What the earlier handler of a fault does after its note.
static WAY: OnceLock<String> = OnceLock::new();

/// Installs handlers as a program may have them.
pub(super) fn install(page: SharedPage, way: &str) {
    let page: &'static SharedPage = Box::leak(Box::new(page));
    NOTES.set([page.writable_word(NOTED_SIGNAL_AT), page.writable_word(NOTED_ADDRESS_AT)]).unwrap();
    WAY.set(way.to_owned()).unwrap();
    let detailed: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = note_fault;
    let plain: extern "C" fn(c_int) = note;
    for (signal, handler, flags) in [
        (libc::SIGSEGV, detailed as libc::sighandler_t, libc::SA_SIGINFO),
        (libc::SIGILL, detailed as libc::sighandler_t, libc::SA_SIGINFO),
        (libc::SIGABRT, plain as libc::sighandler_t, 0),
        (libc::SIGINT, plain as libc::sighandler_t, 0),
        (libc::SIGUSR2, use_stack as *const () as libc::sighandler_t, libc::SA_ONSTACK),
    ] {
        // SAFETY: all-zero bytes are a valid sigaction: the default one.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        (action.sa_sigaction, action.sa_flags) = (handler, flags);
        // SAFETY: the handlers have the form that the flags say, and do only what is safe in a handler.
        assert_eq!(unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) }, 0);
    }
}

/// Dies, or goes on, as this mode says.
pub(super) fn die(mode: &str, page: &OwnedFd) {
    match mode {
        "earlier-plain" => std::process::abort(),
        "earlier-int" => {
            raise::raise(libc::SIGINT).unwrap();
            raise::raise(libc::SIGKILL).unwrap();
        }
        #[cfg(target_arch = "x86_64")]
        "earlier-repairs" => {
            // SAFETY: the handler skips this instruction.
            unsafe { std::arch::asm!("ud2") };
            raise::raise(libc::SIGKILL).unwrap();
        }
        #[cfg(target_arch = "x86_64")]
        "earlier-nests" => {
            std::thread::spawn(|| {
                use_signal_stack(64 << 10);
                // SAFETY: the handler skips this instruction.
                unsafe { std::arch::asm!("ud2") };
            })
            .join()
            .unwrap();
            raise::raise(libc::SIGKILL).unwrap();
        }
        "earlier-uses-its-stack-up" => std::thread::spawn(|| {
            use_signal_stack(32 << 10);
            raise::fault()
        })
        .join()
        .unwrap(),
        "earlier-leaves-and-lives" => {
            fault_and_go_on();
            let page = SharedPage::map_shared(page.as_fd(), PAGE_BYTES).unwrap();
            assert_eq!(page.load(LAYOUT.signal, Ordering::Acquire), 11);
            while page.load(LAYOUT.signal, Ordering::Acquire) != 0 {
                std::thread::yield_now();
            }
            raise::raise(libc::SIGKILL).unwrap();
        }
        "earlier-leaves-and-aborts" => {
            fault_and_go_on();
            std::process::abort();
        }
        "earlier-leaves-and-faults" => {
            fault_and_go_on();
            raise::fault()
        }
        "earlier-leaves-a-thread" => {
            std::thread::spawn(fault_and_go_on).join().unwrap();
            raise::fault()
        }
        #[cfg(target_arch = "x86_64")]
        "earlier-leaves-a-thread-and-errno" => keep_errno(),
        #[cfg(target_arch = "x86_64")]
        "earlier-repairs-beside-a-signal" => raise_beside_a_fault(),
        other if other.ends_with(":thread") => std::thread::spawn(|| raise::fault()).join().unwrap(),
        _ => raise::fault(),
    }
}

/// A handler was left in a thread that has ended; another thread meets that, and its own fault is repaired.
#[cfg(target_arch = "x86_64")]
fn keep_errno() {
    std::thread::spawn(fault_and_go_on).join().unwrap();
    Errno::set_raw(77);
    // SAFETY: the handler skips this instruction.
    unsafe { std::arch::asm!("ud2") };
    let is_kept = Errno::last_raw() == 77;
    raise::raise(if is_kept { libc::SIGKILL } else { libc::SIGTERM }).unwrap();
}

/// A thread raises a signal while the fault of another one is repaired.
#[cfg(target_arch = "x86_64")]
fn raise_beside_a_fault() {
    std::thread::scope(|scope| {
        // SAFETY: the handler waits for this thread, then skips the instruction.
        let repaired = scope.spawn(|| unsafe { std::arch::asm!("ud2") });
        while NOTES.get().unwrap()[0].load(Ordering::Acquire) == 0 {
            std::thread::yield_now();
        }
        // SAFETY: asks for a number.
        BESIDE.store(unsafe { libc::gettid() }, Ordering::Release);
        raise::raise(libc::SIGUSR1).unwrap();
        repaired.join().unwrap();
    });
    raise::raise(libc::SIGKILL).unwrap();
}

extern "C" fn note(signal: c_int) {
    NOTES.get().unwrap()[0].store(signal.cast_unsigned().into(), Ordering::Release);
}

extern "C" fn note_fault(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    note(signal);
    // SAFETY: the signal is a fault, and the kernel filled its siginfo_t.
    let address = unsafe { (*info).si_addr() }.addr();
    NOTES.get().unwrap()[1].store(address as u64, Ordering::Release);
    match WAY.get().unwrap().as_str() {
        "raises" => {
            // SAFETY: to set the default action runs no code.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
            let _ = raise::raise(signal);
        }
        "aborts" => std::process::abort(),
        "faults" => call_nowhere(),
        "uses-its-stack-up" => _ = overflow(0),
        "faults-otherwise" => drop(raise::illegal_instruction()),
        way if way.starts_with("leaves") && !HAS_LEFT.swap(true, Ordering::AcqRel) => leave(),
        "hangs" => raise::hang(),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the kernel filled the context; the instruction that faulted has two bytes.
        "repairs" | "leaves-a-thread-and-errno" => unsafe {
            (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs[libc::REG_RIP as usize] += 2;
        },
        #[cfg(target_arch = "x86_64")]
        "repairs-beside-a-signal" => {
            // Only in our handler it blocks that signal.
            while !blocks(BESIDE.load(Ordering::Acquire), libc::SIGUSR1) {
                std::thread::yield_now();
            }
            // SAFETY: as above.
            unsafe { (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs[libc::REG_RIP as usize] += 2 };
        }
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above; the set is ours.
        "nests" => unsafe {
            let mut only: libc::sigset_t = std::mem::zeroed();
            libc::sigaddset(&raw mut only, libc::SIGUSR2);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const only, std::ptr::null_mut());
            raise::raise(libc::SIGUSR2).unwrap();
            (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs[libc::REG_RIP as usize] += 2;
        },
        _ => {}
    }
    std::hint::black_box(context);
}

/// Gives the calling thread a signal stack of so many bytes, with a page below it that cannot be used.
pub(super) fn use_signal_stack(bytes: usize) {
    // SAFETY: a new mapping, which stays for good and is used by nothing else.
    unsafe {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let start = libc::mmap(std::ptr::null_mut(), 4096 + bytes, access, flags, -1, 0);
        assert_eq!(libc::mprotect(start, 4096, libc::PROT_NONE), 0);
        let stack = libc::stack_t { ss_sp: start.byte_add(4096), ss_flags: 0, ss_size: bytes };
        assert_eq!(libc::sigaltstack(&raw const stack, std::ptr::null_mut()), 0);
    }
}

/// Writes over what lies above it, if it was called at the beginning of a signal stack that is in use.
extern "C" fn use_stack(_signal: c_int) {
    std::hint::black_box([0_u64; 128]);
}

/// The context that the first handler leaves to, and whether one has.
static BEFORE: AtomicPtr<libc::ucontext_t> = AtomicPtr::new(std::ptr::null_mut());
static HAS_LEFT: AtomicBool = AtomicBool::new(false);
/// The thread that raises a signal beside a fault; 0: none does yet.
#[cfg(target_arch = "x86_64")]
static BESIDE: AtomicI32 = AtomicI32::new(0);

/// Whether this thread of this process blocks a signal.
#[cfg(target_arch = "x86_64")]
fn blocks(thread: i32, signal: c_int) -> bool {
    let status = std::fs::read_to_string(format!("/proc/self/task/{thread}/status")).unwrap_or_default();
    let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
    let blocked = blocked.map(|set| u64::from_str_radix(set.trim(), 16).unwrap());
    blocked.is_some_and(|set| set >> (signal - 1) & 1 == 1)
}

/// Faults, and goes on after the handler has left to this place: as with sigsetjmp(3), which Rust cannot call.
pub(super) fn fault_and_go_on() {
    extern "C" fn fault_here() {
        raise::fault()
    }
    // SAFETY: all-zero bytes are a valid ucontext_t to be filled; contexts and stack are there for good.
    unsafe {
        let [before, inside] = [(); 2].map(|()| Box::leak(Box::new(std::mem::zeroed::<libc::ucontext_t>())));
        let stack = Box::leak(vec![0_u8; 256 << 10].into_boxed_slice());
        assert_eq!(libc::getcontext(inside), 0);
        (inside.uc_stack.ss_sp, inside.uc_stack.ss_size) = (stack.as_mut_ptr().cast(), stack.len());
        libc::makecontext(inside, fault_here, 0);
        BEFORE.store(before, Ordering::Release);
        assert_eq!(libc::swapcontext(before, inside), 0);
    }
}

fn leave() {
    // SAFETY: `fault_and_go_on` has filled it, and waits there.
    unsafe { libc::setcontext(BEFORE.load(Ordering::Acquire)) };
}

/// However it ends the process, or does not: the record is whole, and the process dies of the first signal.
#[test]
fn a_handler_that_was_there_before_is_called_with_what_the_kernel_said() {
    let earlier = [
        "earlier-returns",
        "earlier-raises",
        "earlier-aborts",
        "earlier-faults",
        "earlier-faults-otherwise",
        "earlier-hangs",
    ];
    let later = ["later-returns", "later-raises", "later-aborts", "later-faults"];
    for way in earlier.into_iter().chain(later) {
        let dead = dies_of(way);
        assert_eq!((dead.signal, dead.word(LAYOUT.signal)), (Some(libc::SIGSEGV), 11), "{way}");
        assert_eq!(dead.word(NOTED_SIGNAL_AT), 11, "{way}");
        let address = dead.word(LAYOUT.address);
        assert!(address != 0 && dead.word(NOTED_ADDRESS_AT) == address, "{way}: {address:x}");
        assert!(dead.word(LAYOUT.frame_count) > 0, "{way}");
    }
    // In a thread, whose signal stack the Rust runtime made.
    for way in earlier {
        let dead = dies_of(&format!("{way}:thread"));
        assert_eq!((dead.signal, dead.word(LAYOUT.signal)), (Some(libc::SIGSEGV), 11), "{way}:thread");
        assert!(dead.word(NOTED_SIGNAL_AT) == 11 && dead.word(LAYOUT.frame_count) > 0, "{way}:thread");
    }
    let dead = dies_of("earlier-uses-its-stack-up");
    assert_eq!((dead.signal, dead.word(LAYOUT.signal), dead.word(NOTED_SIGNAL_AT)), (Some(11), 11, 11));
    let plain = dies_of("earlier-plain");
    assert_eq!((plain.signal, plain.word(LAYOUT.signal), plain.word(NOTED_SIGNAL_AT)), (Some(6), 6, 6));
}

/// A fault that the program repairs is none, and a signal that it handles is not ours.
#[test]
fn what_the_program_handles_itself_leaves_no_record() {
    let ways: &[(&str, u64)] = if cfg!(target_arch = "x86_64") {
        &[("int", 2), ("repairs", 4), ("nests", 4)]
    } else {
        &[("int", 2)]
    };
    for (way, signal) in ways {
        let dead = dies_of(&format!("earlier-{way}"));
        assert_eq!((dead.signal, dead.word(LAYOUT.signal)), (Some(libc::SIGKILL), 0), "{way}");
        assert_eq!(dead.word(NOTED_SIGNAL_AT), *signal, "{way}");
    }
}

/// As siglongjmp(3) does. The record of a fault that was repaired so is not kept, and neither its timer nor its thread's end harms
/// what comes later.
#[test]
fn a_handler_that_was_left_has_repaired_the_fault() {
    for (way, signal, said) in
        [("lives", libc::SIGKILL, 0), ("aborts", libc::SIGABRT, 6), ("faults", libc::SIGSEGV, 11)]
    {
        let dead = dies_of(&format!("earlier-leaves-and-{way}"));
        assert_eq!((dead.signal, dead.word(LAYOUT.signal)), (Some(signal), said), "{way}");
    }
    let dead = dies_of("earlier-leaves-a-thread");
    assert_eq!((dead.signal, dead.word(LAYOUT.signal)), (Some(libc::SIGSEGV), 11));
    assert!(place(&dead.functions(), DIES) < FRAMES_MAX, "the record is that of the second fault");
}

/// A signal that one thread raises while another one repairs a fault is not lost.
#[test]
#[cfg(target_arch = "x86_64")]
fn a_signal_beside_a_fault_that_is_repaired_ends_the_process() {
    let dead = dies_of("earlier-repairs-beside-a-signal");
    assert_eq!((dead.signal, dead.word(LAYOUT.signal)), (Some(libc::SIGUSR1), 10));
}

#[test]
#[cfg(target_arch = "x86_64")]
fn errno_is_as_before_when_a_thread_goes_on() {
    let dead = dies_of("earlier-leaves-a-thread-and-errno");
    assert_eq!((dead.signal, dead.word(LAYOUT.signal)), (Some(libc::SIGKILL), 0));
}

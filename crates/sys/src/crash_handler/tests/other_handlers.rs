//! Handlers that a program installs beside ours, for the tests of the crash handler.
//!
//! They note in the page that they were called, and then do what handlers of others do. Never used outside tests.

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
    ] {
        // SAFETY: all-zero bytes are a valid sigaction: the default one.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        (action.sa_sigaction, action.sa_flags) = (handler, flags);
        // SAFETY: the handlers have the form that the flags say, and do only what is safe in a handler.
        assert_eq!(unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) }, 0);
    }
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
        "hangs" => raise::hang(),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the kernel filled the context; the instruction that faulted has two bytes.
        "repairs" => unsafe {
            (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs[libc::REG_RIP as usize] += 2;
        },
        _ => {}
    }
    std::hint::black_box(context);
}

//! Deaths of whole processes: this test binary, started again for one death each.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use object::Object;

use super::*;
use crate::raise;
use crate::testing::spawning;

mod other_handlers;

const PAGE_BYTES: usize = 4096;
const FRAMES_MAX: usize = 16;
const LAYOUT: CrashRecordLayout = CrashRecordLayout {
    moment: 0,
    signal: 8,
    code: 16,
    address: 24,
    sender: 32,
    stack_overflow: 40,
    allocation: 48,
    frame_count: 56,
    frames_searched: 64,
    frames: 128,
    frames_max: FRAMES_MAX,
    others: OtherFramesLayout { count: 512, frames: 520, frames_max: FRAMES_MAX, names: 1024, names_max: 8 },
};

/// A dead process and its crash record.
struct DeadProcess {
    page: SharedPage,
    signal: Option<i32>,
    pid: u32,
}

impl DeadProcess {
    fn word(&self, at: usize) -> u64 {
        self.page.load(at, Ordering::Acquire)
    }

    /// The mangled symbols of its frames, the innermost first.
    fn functions(&self) -> Vec<String> {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let symbols = object::File::parse(&*bytes).unwrap().symbol_map();
        let frames = (0..self.word(LAYOUT.frame_count) as usize).map(|frame| LAYOUT.frames + 8 * frame);
        frames
            .map(|at| symbols.before(self.word(at)).map_or("?", |symbol| symbol.name()).to_owned())
            .collect()
    }

    /// The files of its frames of other files, the innermost first, each with the number of own frames further in.
    fn others(&self) -> Vec<(String, u64)> {
        let layout = LAYOUT.others;
        let frames =
            (0..self.word(layout.count) as usize).map(|frame| self.word(layout.frames + 16 * frame + 8));
        frames
            .map(|word| {
                let mut name = [0; NAME_BYTES];
                self.page.read_bytes(layout.names + NAME_BYTES * (word & 0xff) as usize, &mut name);
                let end = name.iter().position(|byte| *byte == 0).unwrap_or(NAME_BYTES);
                (String::from_utf8(name[..end].to_vec()).unwrap(), word >> 8)
            })
            .collect()
    }

    fn is_searched(&self) -> bool {
        self.word(LAYOUT.frames_searched) == 1
    }

    fn code(&self) -> i64 {
        self.word(LAYOUT.code).cast_signed()
    }
}

/// Runs the death of this name in a process whose standard input is the page.
fn dies_of(mode: &str) -> DeadProcess {
    let (page, fd) = SharedPage::create("testimony", PAGE_BYTES).unwrap();
    let mut test = Command::new(std::env::current_exe().unwrap());
    test.args(["--exact", "crash_handler::tests::dies", "--ignored", "--test-threads=1"]);
    test.env("BULKHEAD_SYS_DEATH", mode).stdin(File::from(fd)).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = spawning(|| test.spawn()).unwrap();
    let (pid, status) = (child.id(), child.wait().unwrap());
    DeadProcess { page, signal: status.signal(), pid }
}

fn overflow(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 512]);
    if std::hint::black_box(depth) == u64::MAX { 0 } else { overflow(depth + 1) + frame[7] }
}

/// Calls an address without code, as a bad function pointer does.
#[inline(never)]
fn call_nowhere() {
    // SAFETY: none: it faults, as it is meant to.
    let nowhere: extern "C" fn() = unsafe { std::mem::transmute(std::hint::black_box(64_usize)) };
    nowhere();
    std::hint::black_box(());
}

/// Loads libm, and has it store a number where there is no memory.
#[inline(never)]
fn fault_in_a_late_library() {
    // SAFETY: none for the call: it faults, as it is meant to. The names end with zero bytes, and libm has such a function.
    unsafe {
        let library = libc::dlopen(c"libm.so.6".as_ptr(), libc::RTLD_NOW);
        let place = libc::dlsym(library, c"sincos".as_ptr());
        assert!(!place.is_null(), "libm is there");
        let sincos: extern "C" fn(f64, usize, usize) = std::mem::transmute(place);
        sincos(std::hint::black_box(1.0), 64, 64);
    }
    std::hint::black_box(());
}

/// Corrupts stack and frame pointer, then executes an invalid instruction.
#[inline(never)]
#[cfg(target_arch = "x86_64")]
fn ruin_the_stack() {
    // SAFETY: none: it faults, as it is meant to, and never comes back.
    unsafe { std::arch::asm!("mov rsp, 64", "mov rbp, 72", "ud2", options(noreturn)) };
}

/// What a job does that notices in a thread of its own that it has gone wrong.
#[inline(never)]
fn abort_in_a_thread() {
    std::process::abort()
}

/// Two threads crash at the same time, in different ways.
fn two_faults() {
    let gate = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            gate.wait();
            raise::fault()
        });
        gate.wait();
        drop(raise::illegal_instruction());
    });
}

/// Run by the other tests, in a process of its own: must not come back.
#[test]
#[ignore = "ends its own process: started by the other tests"]
fn dies() {
    let fd: OwnedFd = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    for signal in CAUGHT {
        // SAFETY: nothing runs yet that had a handler. The parent may have started us with some ignored, as `nohup`
        // does and a shell for background jobs; the handler skips those, and they would not end this process.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let mode = std::env::var("BULKHEAD_SYS_DEATH").unwrap();
    if let Some(way) = mode.strip_prefix("earlier-") {
        let way = way.trim_end_matches(":thread");
        other_handlers::install(SharedPage::map_shared(fd.as_fd(), PAGE_BYTES).unwrap(), way);
    }
    install(SharedPage::map_shared(fd.as_fd(), PAGE_BYTES).unwrap(), &LAYOUT).unwrap();
    if let Some(way) = mode.strip_prefix("later-") {
        other_handlers::install(SharedPage::map_shared(fd.as_fd(), PAGE_BYTES).unwrap(), way);
        install_again().unwrap();
    }
    match mode.as_str() {
        other if other.contains("er-") => other_handlers::die(other, &fd),
        "fault" => raise::fault(),
        "overflow" => {
            std::hint::black_box(overflow(0));
        }
        "abort" => std::process::abort(),
        "no-descriptors" => {
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: reads a limit that is ours.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const none) }, 0);
            raise::fault()
        }
        "nowhere" => call_nowhere(),
        "library" => fault_in_a_late_library(),
        #[cfg(target_arch = "x86_64")]
        "ruins" => ruin_the_stack(),
        "thread" => std::thread::spawn(|| raise::fault()).join().unwrap(),
        "thread-overflow" => drop(std::thread::spawn(|| std::hint::black_box(overflow(0))).join()),
        "thread-abort" => drop(std::thread::spawn(abort_in_a_thread).join()),
        "thread-library" => drop(std::thread::spawn(fault_in_a_late_library).join()),
        "two" => two_faults(),
        "allocation" => {
            std::hint::black_box(allocator::TrackingAllocator);
            let layout = std::alloc::Layout::array::<u8>(1 << 62).unwrap();
            // SAFETY: the layout has a size.
            let start = unsafe { std::alloc::GlobalAlloc::alloc(&allocator::TrackingAllocator, layout) };
            assert!(start.is_null());
            std::process::abort();
        }
        "child" => fork_and_fault(),
        "asks" => hear_a_child(),
        "asked-child" => end_a_child(),
        signal => raise::raise(signal.parse().unwrap()).unwrap(),
    }
}

/// A child that crashes, then a normal exit of this process.
fn fork_and_fault() {
    // SAFETY: the child does nothing but fault.
    match unsafe { libc::fork() } {
        0 => raise::fault(),
        child => {
            let mut status = 0;
            // SAFETY: waits for our own child; `status` is ours.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(libc::WTERMSIG(status), libc::SIGSEGV);
        }
    }
}

/// A child sends each harmless signal to this process, which goes on.
fn hear_a_child() {
    let script = format!(
        "for signal in {}; do kill -$signal $PPID; done",
        HARMLESS.map(|number| number.to_string()).join(" ")
    );
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
}

/// A forked child is ended by TERM from its parent, as without the handler.
fn end_a_child() {
    // SAFETY: the child only waits.
    match unsafe { libc::fork() } {
        0 => raise::hang(),
        child => {
            let mut status = 0;
            // SAFETY: signals and waits for our own child; `status` is ours.
            unsafe { libc::kill(child, libc::SIGTERM) };
            // SAFETY: as above.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(libc::WTERMSIG(status), libc::SIGTERM);
        }
    }
}

#[test]
fn a_signal_from_outside_that_is_no_fault_does_nothing() {
    for mode in ["asks", "asked-child"] {
        let left = dies_of(mode);
        assert_eq!((left.signal, left.word(LAYOUT.signal)), (None, 0), "{mode}");
    }
}

#[test]
fn a_fault_leaves_its_address_and_its_moment() {
    let before = monotonic_ns();
    let left = dies_of("fault");
    assert_eq!(left.signal, Some(libc::SIGSEGV), "the wait status tells the truth");
    assert_eq!(left.word(LAYOUT.signal), 11);
    assert!(left.code() > 0 && left.word(LAYOUT.address) != 0);
    assert_eq!(left.word(LAYOUT.stack_overflow), 0, "a wild store is no overflow");
    assert!((before..=monotonic_ns()).contains(&left.word(LAYOUT.moment)));
}

#[test]
fn an_overflow_of_the_stack_is_told_from_other_faults() {
    let left = dies_of("overflow");
    assert_eq!((left.signal, left.word(LAYOUT.signal)), (Some(libc::SIGSEGV), 11));
    assert_eq!(left.word(LAYOUT.stack_overflow), 1);
}

#[test]
fn every_signal_that_ends_a_process_is_told_with_its_sender() {
    for signal in CAUGHT {
        let left = dies_of(&signal.to_string());
        assert_eq!((left.signal, left.word(LAYOUT.signal)), (Some(signal), signal as u64));
        assert_eq!((left.code(), left.word(LAYOUT.sender)), (libc::SI_TKILL.into(), left.pid.into()));
    }
}

#[test]
fn an_abort_knows_whether_memory_was_refused() {
    let left = dies_of("abort");
    assert_eq!((left.signal, left.word(LAYOUT.allocation)), (Some(libc::SIGABRT), 0));
    let left = dies_of("allocation");
    assert_eq!((left.signal, left.word(LAYOUT.allocation)), (Some(libc::SIGABRT), 1 << 62));
}

#[test]
fn a_forked_child_does_not_speak_for_its_parent() {
    let left = dies_of("child");
    assert_eq!((left.signal, left.word(LAYOUT.signal)), (None, 0));
}

/// Parts of function symbols: length and name, as in both mangling schemes.
const DIES: &str = "5tests4dies";
const OVERFLOW: &str = "5tests8overflow";
const NOWHERE: &str = "5tests12call_nowhere";
const FAULT: &str = "5raise5fault";
const ILLEGAL: &str = "5raise19illegal_instruction";

/// The position of the first frame whose symbol contains this part.
fn place(functions: &[String], part: &str) -> usize {
    functions
        .iter()
        .position(|function| function.contains(part))
        .unwrap_or_else(|| panic!("{part}: {functions:?}"))
}

#[test]
fn a_fault_is_traced_from_its_instruction_to_its_beginning() {
    let left = dies_of("fault");
    let functions = left.functions();
    assert!(place(&functions, FAULT) < place(&functions, DIES));
    assert!(place(&functions, FAULT) <= 1, "the innermost comes first: {functions:?}");
    assert!(!left.is_searched());
}

#[test]
fn an_overflow_is_traced_from_its_innermost_call_on_whatever_thread() {
    for mode in ["overflow", "thread-overflow"] {
        let left = dies_of(mode);
        assert_eq!((left.signal, left.word(LAYOUT.stack_overflow)), (Some(libc::SIGSEGV), 1), "{mode}");
        let functions = left.functions();
        let calls = functions.iter().filter(|name| name.contains(OVERFLOW)).count();
        assert!(calls > FRAMES_MAX / 2, "{mode}: {functions:?}");
    }
}

#[test]
fn signals_that_arrive_in_libc_are_traced_to_the_call_of_our_own() {
    for mode in ["abort", "6", "11", "15", "24"] {
        let left = dies_of(mode);
        assert!(place(&left.functions(), DIES) < FRAMES_MAX, "{mode}");
        assert!(left.is_searched(), "{mode}: libc has no frame pointers, and that is said");
    }
}

#[test]
fn frames_of_libraries_stand_before_the_call_of_our_own() {
    for mode in ["abort", "11"] {
        let left = dies_of(mode);
        let others = left.others();
        let is_libc = |(name, own): &(String, u64)| name.starts_with("libc") && *own == 0;
        assert!(others.first().is_some_and(is_libc), "{mode}: {others:?}");
    }
    let left = dies_of("library");
    assert!(left.others().first().is_some_and(|(name, own)| name.starts_with("libm.so") && *own == 0));
    assert_eq!(place(&left.functions(), "fault_in_a_late_library"), 0);
    let left = dies_of("fault");
    let inner = left.others().into_iter().find(|(_, own)| *own == 0);
    assert_eq!(inner, None, "the program itself faulted");
}

/// No descriptor is free for the list of mappings.
#[test]
fn without_descriptors_the_frames_of_our_own_are_there() {
    let left = dies_of("no-descriptors");
    assert_eq!((left.signal, left.others()), (Some(libc::SIGSEGV), Vec::new()));
    place(&left.functions(), FAULT);
}

#[test]
fn a_call_of_what_is_no_code_is_traced_to_the_caller() {
    let left = dies_of("nowhere");
    assert_eq!((left.signal, left.word(LAYOUT.address)), (Some(libc::SIGSEGV), 64));
    let functions = left.functions();
    assert_eq!((place(&functions, NOWHERE), place(&functions, DIES)), (0, 1));
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_stack_in_ruins_costs_frames_and_nothing_else() {
    let left = dies_of("ruins");
    assert_eq!((left.signal, left.word(LAYOUT.signal)), (Some(libc::SIGILL), 4));
    let functions = left.functions();
    assert_eq!((functions.len(), place(&functions, "5tests14ruin_the_stack")), (1, 0));
}

#[test]
fn another_thread_speaks_for_itself_and_of_two_the_first_alone() {
    let left = dies_of("thread");
    assert_eq!((left.signal, left.word(LAYOUT.signal)), (Some(libc::SIGSEGV), 11));
    assert!(place(&left.functions(), FAULT) <= 1);
    for _ in 0..20 {
        let left = dies_of("two");
        assert_eq!(left.signal.map(|signal| signal as u64), Some(left.word(LAYOUT.signal)));
        place(&left.functions(), if left.word(LAYOUT.signal) == 11 { FAULT } else { ILLEGAL });
    }
}

/// Such a thread has a signal stack of 8 KiB, which the Rust runtime made.
#[test]
fn a_thread_with_a_small_signal_stack_leaves_all_that_another_does() {
    let left = dies_of("thread-abort");
    assert_eq!((left.signal, left.word(LAYOUT.signal)), (Some(libc::SIGABRT), 6));
    assert!(place(&left.functions(), "abort_in_a_thread") < FRAMES_MAX);
    assert!(left.others().iter().any(|(name, _)| name.starts_with("libc")), "{:?}", left.others());
    let left = dies_of("thread-library");
    assert_eq!((left.signal, left.word(LAYOUT.signal)), (Some(libc::SIGSEGV), 11));
    assert_eq!(place(&left.functions(), "fault_in_a_late_library"), 0);
    assert!(left.others().first().is_some_and(|(name, own)| name.starts_with("libm.so") && *own == 0));
}

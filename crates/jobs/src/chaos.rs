//! `chaos MODE`: ends its own process in the chosen way, to show that no other job is hurt.
//!
//! The daemon offers this kind only if it was started with `--enable-chaos`. Right before a death that no signal
//! handler sees, it must call `last_breath`, which stores the time, so that the time until the supervisor noticed can
//! be reported. The signal handler stores the time of all other deaths.

use bulkhead_sys::raise;
use bulkhead_task::{TaskContext, TaskFailure};

use crate::{quoted, text_of};

// Linux signal numbers (signal(7), x86 and ARM).
const SIGKILL: i32 = 9;
const SIGSTOP: i32 = 19;
const SIGXCPU: i32 = 24;
const SIGSYS: i32 = 31;

/// More bytes than an address space has.
const TOO_MANY_BYTES: usize = 1 << 62;

const MIB: usize = 1 << 20;
/// How often `stall` reports progress before it hangs.
const STALL_PARTS: u64 = 3;

/// The modes, as a usage text.
const USAGE: &str = "give segv, bus, ill, fpe, sys, xcpu, stack-overflow, alloc, abort, kill, exit:N, panic, loop, hang, stall, stop, \
     eat:MIB or share:MIB";

/// The ways to end the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChaosMode {
    /// A store to read-only memory: SIGSEGV.
    Segv,
    /// A store behind the end of a mapped file: SIGBUS.
    Bus,
    /// An instruction that does not exist: SIGILL.
    Ill,
    /// A whole number divided by zero: SIGFPE.
    Fpe,
    /// SIGSYS to itself, as after a forbidden system call.
    Sys,
    /// SIGXCPU to itself, as after too much processor time.
    Xcpu,
    /// Recursion without an end.
    StackOverflow,
    /// An allocation that cannot be satisfied, in code that cannot go on without it.
    Alloc,
    /// abort(3): SIGABRT.
    Abort,
    /// SIGKILL to itself: no handler runs.
    Kill,
    /// exit(3) with this code in the middle of the task.
    Exit(u8),
    /// A panic in the handler: the job fails; the worker reports it and exits.
    Panic,
    /// A busy loop; only a limit or a cancel ends it.
    Loop,
    /// A wait in the kernel without end; only a limit or a cancel ends it.
    Hang,
    /// Reports progress a few times, then hangs.
    Stall,
    /// SIGSTOP to itself. It ends done after a SIGCONT.
    Stop,
    /// Allocates this many MiB of private memory, frees them, and ends done.
    Eat(u32),
    /// Maps this many MiB of shared memory, which RLIMIT_DATA does not cover, and hangs.
    Share(u32),
}

impl ChaosMode {
    /// Whether the process ends without a signal handler running.
    fn is_silent(self) -> bool {
        matches!(self, Self::Kill | Self::Exit(_))
    }
}

pub(crate) fn run(input: &[u8], task: &mut dyn TaskContext) -> Result<(), TaskFailure> {
    let mode = parse(text_of(input)?)?;
    if mode.is_silent() {
        task.last_breath();
    }
    match mode {
        ChaosMode::Segv => raise::fault(),
        ChaosMode::Bus => cannot(raise::bus_error()),
        ChaosMode::Ill => cannot(raise::illegal_instruction()),
        ChaosMode::Fpe => cannot(raise::divide_by_zero()),
        ChaosMode::Sys => cannot(raise::raise(SIGSYS)),
        ChaosMode::Xcpu => cannot(raise::raise(SIGXCPU)),
        ChaosMode::Kill => cannot(raise::raise(SIGKILL)),
        ChaosMode::StackOverflow => {
            std::hint::black_box(deeper(0));
            Err(TaskFailure::new("the stack has no end"))
        }
        ChaosMode::Alloc => {
            let block: Vec<u8> = Vec::with_capacity(std::hint::black_box(TOO_MANY_BYTES));
            Err(TaskFailure::new(format!("{} bytes could be had", std::hint::black_box(block).capacity())))
        }
        ChaosMode::Abort => std::process::abort(),
        ChaosMode::Exit(code) => leave(code),
        ChaosMode::Panic => panic!("chaos was asked to panic"),
        ChaosMode::Loop => loop {
            std::hint::spin_loop();
        },
        ChaosMode::Hang => raise::hang(),
        ChaosMode::Stall => {
            for part in 1..=STALL_PARTS {
                task.progress(part, 0);
            }
            task.say("no further");
            raise::hang()
        }
        ChaosMode::Stop => cannot(raise::raise(SIGSTOP)),
        ChaosMode::Eat(mib) => Ok(write!(task, "{} MiB", eat(mib))?),
        ChaosMode::Share(mib) => cannot(raise::share(mib as usize * MIB)).and_then(|()| raise::hang()),
    }
}

/// The failure for a call that should have ended the process and returned.
fn cannot(died: std::io::Result<()>) -> Result<(), TaskFailure> {
    died.map_err(|error| TaskFailure::new(format!("end itself: {error}")))
}

/// Recurses without end, with a page of stack in each call.
fn deeper(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 512]);
    if frame[0] == u64::MAX { 0 } else { deeper(depth + 1) + std::hint::black_box(frame)[1] }
}

/// Allocates memory in steps and writes to each before the next.
fn eat(mib: u32) -> usize {
    let meal: Vec<Vec<u8>> = (0..mib).map(|_| std::hint::black_box(vec![1; MIB])).collect();
    meal.len()
}

fn leave(code: u8) -> ! {
    #[expect(clippy::disallowed_methods, reason = "ending the process is what this job was asked to do")]
    std::process::exit(i32::from(code))
}

fn parse(text: &str) -> Result<ChaosMode, TaskFailure> {
    match text.trim() {
        "segv" => Ok(ChaosMode::Segv),
        "bus" => Ok(ChaosMode::Bus),
        "ill" => Ok(ChaosMode::Ill),
        "fpe" => Ok(ChaosMode::Fpe),
        "sys" => Ok(ChaosMode::Sys),
        "xcpu" => Ok(ChaosMode::Xcpu),
        "stack-overflow" => Ok(ChaosMode::StackOverflow),
        "alloc" => Ok(ChaosMode::Alloc),
        "abort" => Ok(ChaosMode::Abort),
        "kill" => Ok(ChaosMode::Kill),
        "panic" => Ok(ChaosMode::Panic),
        "loop" => Ok(ChaosMode::Loop),
        "hang" => Ok(ChaosMode::Hang),
        "stall" => Ok(ChaosMode::Stall),
        "stop" => Ok(ChaosMode::Stop),
        word => parse_number(word)
            .map_err(|fault| TaskFailure::new(format!("chaos of {}: {fault}", quoted(text)))),
    }
}

/// Parses the modes with a number.
fn parse_number(word: &str) -> Result<ChaosMode, &'static str> {
    let (name, number) = word.split_once(':').ok_or(USAGE)?;
    let mib = || number.parse().map_err(|_| "give a whole number of MiB");
    match name {
        "exit" => number.parse().map(ChaosMode::Exit).map_err(|_| "give an exit code from 0 to 255"),
        "eat" => mib().map(ChaosMode::Eat),
        "share" => mib().map(ChaosMode::Share),
        _ => Err(USAGE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_task::{TestTask, failure_of};

    #[test]
    fn modes_are_read() {
        assert_eq!(parse("segv"), Ok(ChaosMode::Segv));
        assert_eq!(parse(" loop\n"), Ok(ChaosMode::Loop));
        assert_eq!(parse("exit:0"), Ok(ChaosMode::Exit(0)));
        assert_eq!(parse("exit:255"), Ok(ChaosMode::Exit(255)));
        assert_eq!((parse("eat:64"), parse("share:1")), (Ok(ChaosMode::Eat(64)), Ok(ChaosMode::Share(1))));
    }

    #[test]
    fn a_bad_mode_is_named_and_harmless() {
        for text in ["", "segfault", "exit", "Segv"] {
            let failure = failure_of(run, text);
            assert!(failure.contains(&format!("chaos of {text:?}: give segv")), "{failure}");
        }
        for text in ["exit:", "exit:256", "exit:-1", "exit:x"] {
            let failure = failure_of(run, text);
            assert!(failure.contains(&format!("chaos of {text:?}: give an exit code")), "{failure}");
        }
        for text in ["eat:", "eat:x", "share:-1", "share:99999999999"] {
            assert!(failure_of(run, text).contains("whole number of MiB"), "{text}");
        }
        assert_eq!(crate::test_task::output_of(run, "eat:2").unwrap(), "2 MiB");
        let mut task = TestTask::default();
        assert!(run(b"segfault", &mut task).is_err());
        assert_eq!(task.breaths, 0, "a mode that is refused draws no last breath");
    }

    #[test]
    fn a_panic_is_no_death() {
        let mut task = TestTask::default();
        let fate = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(b"panic", &mut task)));
        assert!(fate.is_err());
        assert_eq!(task.breaths, 0);
        assert!(ChaosMode::Kill.is_silent() && ChaosMode::Exit(0).is_silent());
        assert!(!ChaosMode::Segv.is_silent() && !ChaosMode::Loop.is_silent());
    }

    #[test]
    fn every_mode_of_the_usage_is_one() {
        let words =
            USAGE.trim_start_matches("give ").replace(" or ", ", ").replace(":N", ":7").replace(":MIB", ":7");
        assert!(words.split(", ").all(|word| parse(word).is_ok()) && words.split(", ").count() == 18);
    }
}

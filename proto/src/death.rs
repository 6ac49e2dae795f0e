//! How a worker process ended: one enum from the wait status to the command line.
//!
//! The supervisor makes a [`Death`] from the wait status and the worker's box, the core decides by it and stores it, and
//! the command line shows it. No step on this way may drop what is known: a death must never be reported as a mere
//! "broken pipe". The texts here are part of outcomes and records, so the simulation's trace holds them too.

use std::fmt;
use std::num::NonZeroU8;

use serde::{Deserialize, Serialize};

use crate::codec::{Decode, Encode};

/// How a worker ended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "death")]
pub enum Death {
    /// It exited with this code although nothing had asked it to leave.
    Exited {
        /// The exit code.
        code: i32,
    },
    /// It exited with code 0 in the middle of a task.
    LeftInMidJob,
    /// It exited after its last task had panicked and was reported as failed. The death is charged to no job.
    LeftAfterPanic,
    /// It exited after its last task had left processes that it may not end, and had been reported with them. The death is
    /// charged to no job.
    LeftProcesses,
    /// A signal that the supervisor did not send ended it, and no more is known: SIGKILL, which no handler can catch, or
    /// a signal that the process sent to itself, as abort(3) does.
    Signalled {
        /// The signal's number.
        signal: i32,
        /// Whether the kernel wrote a core file.
        core: bool,
    },
    /// One of its instructions faulted: SIGSEGV, SIGBUS, SIGILL or SIGFPE.
    Fault {
        /// The signal's number.
        signal: i32,
        /// Whether the kernel wrote a core file.
        core: bool,
        /// The address that could not be accessed (SIGSEGV, SIGBUS), or that of the instruction (SIGILL, SIGFPE).
        address: u64,
    },
    /// The stack of one of its threads overflowed.
    StackOverflow {
        /// The signal's number.
        signal: i32,
        /// Whether the kernel wrote a core file.
        core: bool,
        /// The address that could not be accessed.
        address: u64,
    },
    /// It aborted because it could not get memory.
    AllocationFailed {
        /// The signal's number.
        signal: i32,
        /// Whether the kernel wrote a core file.
        core: bool,
        /// The size of the failed allocation.
        bytes: u64,
    },
    /// Another process sent it this signal, which is not SIGKILL.
    Sent {
        /// The signal's number.
        signal: i32,
        /// Whether the kernel wrote a core file.
        core: bool,
        /// The process that sent it; it may have ended since.
        sender_pid: u32,
    },
    /// The supervisor killed it.
    Killed {
        /// Why.
        why: KillReason,
    },
    /// It exited because the supervisor had asked it to.
    Retired,
    /// It lives on: this signal ended the program that its task ran. The job fails, and the death is charged to nobody.
    OfProgram {
        /// The signal's number.
        signal: i32,
        /// Whether the kernel wrote a core file.
        core: bool,
    },
}

/// How the program ended that a failed task ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramEnd {
    /// With this exit code, or without having run: then the code that a shell gives for it.
    Code(NonZeroU8),
    /// A signal ended it.
    Signal {
        /// The signal's number, from 1 to [`SIGNAL_MAX`].
        signal: u8,
        /// Whether the kernel wrote a core file.
        core: bool,
    },
}

/// The highest number of a signal (signal(7)).
pub const SIGNAL_MAX: u8 = 64;
/// What a shell adds to the number of the signal that ended a program.
const SIGNALLED: u8 = 128;

impl ProgramEnd {
    /// The exit code that a shell shows for it.
    pub fn code(self) -> u8 {
        match self {
            Self::Code(code) => code.get(),
            Self::Signal { signal, .. } => SIGNALLED.saturating_add(signal),
        }
    }
}

/// Why the supervisor killed a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "why")]
pub enum KillReason {
    /// Its task reached its wall time limit.
    Timeout,
    /// Its task reported no progress for longer than its limit.
    NoProgress,
    /// Its task used more processor time than its limit.
    CpuTime,
    /// Its task used more memory than its limit.
    Memory {
        /// The limit, in bytes.
        limit_bytes: u64,
    },
    /// A signal stopped it, and no SIGCONT came in time.
    Stopped,
    /// A signal stopped the program of its task, and no SIGCONT came in time.
    ProgramStopped,
    /// Its task was cancelled.
    Cancel,
    /// The service is stopping.
    Stop,
    /// It broke the worker protocol.
    #[serde(rename = "lie")]
    Violation {
        /// The rule that it broke.
        #[serde(rename = "lie")]
        violation: Violation,
    },
    /// It did not start in time, or accepted no offer, or did not exit when asked.
    Unresponsive,
}

/// A rule of the worker protocol that a worker broke. Our worker runtime never breaks one: the worker's memory is
/// corrupted, or the worker is hostile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Violation {
    /// A claim word that the protocol does not allow: wrong seq, step back, second claim.
    ClaimWord,
    /// A result that is too long, too short or of an unknown form.
    Result,
    /// A lane frame that is malformed, truncated, oversized or not allowed at this point.
    Lane,
    /// A descriptor passed up the lane.
    Descriptor,
    /// An output descriptor that is not sealed, or whose length is not the one in the result.
    Output,
    /// A hello with a path outside the worker's folder, or with kinds that are not in the table.
    Hello,
    /// A plan without a valid number of parts.
    Plan,
    /// It asked for an output for an offer that it has not claimed, whose output goes elsewhere, or for a second time.
    NeedOutput,
    /// It rang its doorbell more often than the supervisor went to sleep.
    Doorbell,
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::ClaimWord => "impossible claim word",
            Self::Result => "malformed result",
            Self::Lane => "malformed lane frame",
            Self::Descriptor => "descriptor passed up the lane",
            Self::Output => "output descriptor is not what it said",
            Self::Hello => "hello names what is not its own",
            Self::Plan => "plan without a count of its parts",
            Self::NeedOutput => "asked for an output that it may not have",
            Self::Doorbell => "rang its doorbell more often than it was asked to",
        })
    }
}

impl fmt::Display for KillReason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => out.write_str("timeout"),
            Self::NoProgress => out.write_str("no progress"),
            Self::CpuTime => out.write_str("processor time"),
            Self::Memory { limit_bytes } => write!(out, "memory above its limit of {limit_bytes} bytes"),
            Self::Stopped => out.write_str("stopped by a signal and not continued"),
            Self::ProgramStopped => out.write_str("its program was stopped by a signal and not continued"),
            Self::Cancel => out.write_str("cancel"),
            Self::Stop => out.write_str("stop of the service"),
            Self::Violation { violation } => write!(out, "protocol violation ({violation})"),
            Self::Unresponsive => out.write_str("not responding"),
        }
    }
}

impl fmt::Display for Death {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { code } => write!(out, "exit code {code}"),
            Self::LeftInMidJob => out.write_str("left in mid-job with exit code 0"),
            Self::LeftAfterPanic => out.write_str("left after a panic in its task"),
            Self::LeftProcesses => out.write_str("left because it may not end the processes of its task"),
            Self::Signalled { signal, core } => write!(out, "{}{}", Signal(*signal), dumped(*core)),
            Self::Fault { signal, core, address } => {
                write!(out, "{} at address {address:#x}{}", Signal(*signal), dumped(*core))
            }
            Self::StackOverflow { signal, core, address } => {
                write!(out, "stack overflow ({} at {address:#x}){}", Signal(*signal), dumped(*core))
            }
            Self::AllocationFailed { signal, core, bytes } => {
                write!(out, "allocation of {bytes} bytes failed ({}){}", Signal(*signal), dumped(*core))
            }
            Self::Sent { signal, core, sender_pid } => {
                write!(out, "{} sent by process {sender_pid}{}", Signal(*signal), dumped(*core))
            }
            Self::Killed { why } => write!(out, "killed by the supervisor: {why}"),
            Self::Retired => out.write_str("retired"),
            Self::OfProgram { signal, core } => {
                write!(out, "its program: {}{}", Signal(*signal), left_core(*signal, *core))
            }
        }
    }
}

impl Death {
    /// The death as the predicate of a sentence about the worker: `died of SIGSEGV`, `was killed by the supervisor: cancel`.
    pub fn predicate(&self) -> String {
        match self {
            Self::Killed { .. } => format!("was {self}"),
            Self::Exited { .. } => format!("left with {self}"),
            Self::LeftInMidJob | Self::LeftAfterPanic | Self::LeftProcesses | Self::Retired => {
                self.to_string()
            }
            Self::AllocationFailed { .. } => format!("died when an {self}"),
            Self::Signalled { .. } | Self::Fault { .. } | Self::StackOverflow { .. } | Self::Sent { .. } => {
                format!("died of {self}")
            }
            Self::OfProgram { signal, core } => {
                format!("lives on, its program died of {}{}", Signal(*signal), left_core(*signal, *core))
            }
        }
    }

    /// The death without what it tells of the tasks that the worker ran: addresses, sizes, limits, senders.
    pub fn brief(&self) -> String {
        match self {
            Self::Signalled { signal, .. }
            | Self::Fault { signal, .. }
            | Self::StackOverflow { signal, .. }
            | Self::AllocationFailed { signal, .. }
            | Self::Sent { signal, .. }
            | Self::OfProgram { signal, .. } => Signal(*signal).to_string(),
            Self::Killed { .. } => "killed by the supervisor".to_owned(),
            Self::Exited { .. }
            | Self::LeftInMidJob
            | Self::LeftAfterPanic
            | Self::LeftProcesses
            | Self::Retired => self.to_string(),
        }
    }

    /// Whether the supervisor neither killed it nor asked it to leave.
    pub fn is_own(&self) -> bool {
        match self {
            Self::Exited { .. }
            | Self::LeftInMidJob
            | Self::LeftAfterPanic
            | Self::LeftProcesses
            | Self::Signalled { .. }
            | Self::Fault { .. }
            | Self::StackOverflow { .. }
            | Self::AllocationFailed { .. }
            | Self::Sent { .. } => true,
            Self::Killed { .. } | Self::Retired | Self::OfProgram { .. } => false,
        }
    }
}

/// Shows a signal by its name, or by its number if it has no name here.
pub(crate) struct Signal(pub(crate) i32);

impl fmt::Display for Signal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match signal_name(self.0) {
            Some(name) => out.write_str(name),
            None => write!(out, "signal {}", self.0),
        }
    }
}

fn dumped(core: bool) -> &'static str {
    if core { " (core dumped)" } else { "" }
}

/// The same for a program, whose user may look for the file: also that there is none, if the signal would leave one.
fn left_core(signal: i32, core: bool) -> &'static str {
    if !core && leaves_core(signal) { " (no core)" } else { dumped(core) }
}

/// Whether the kernel writes a core file for this signal, if limits and settings let it (signal(7), action "Core").
pub fn leaves_core(signal: i32) -> bool {
    // QUIT, ILL, TRAP, ABRT, BUS, FPE, SEGV, XCPU, XFSZ, SYS.
    matches!(signal, 3..=8 | 11 | 24 | 25 | 31)
}

/// The name of a signal that ends or stops a process, by its Linux number (signal(7), x86 and ARM).
pub fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        18 => "SIGCONT",
        19 => "SIGSTOP",
        20 => "SIGTSTP",
        21 => "SIGTTIN",
        22 => "SIGTTOU",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        26 => "SIGVTALRM",
        27 => "SIGPROF",
        29 => "SIGIO",
        31 => "SIGSYS",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_says_what_is_known_of_it() {
        let (signal, core) = (11, false);
        for (death, text) in [
            (Death::Signalled { signal: 9, core }, "SIGKILL"),
            (Death::Signalled { signal: 40, core: true }, "signal 40 (core dumped)"),
            (Death::Fault { signal, core, address: 0 }, "SIGSEGV at address 0x0"),
            (Death::StackOverflow { signal, core, address: 0x7ff8 }, "stack overflow (SIGSEGV at 0x7ff8)"),
            (Death::AllocationFailed { signal: 6, core, bytes: 7 }, "allocation of 7 bytes failed (SIGABRT)"),
            (Death::Sent { signal: 15, core, sender_pid: 812 }, "SIGTERM sent by process 812"),
        ] {
            assert_eq!(death.to_string(), text);
            assert!(death.is_own() && text.contains(&death.brief()));
            assert!(!death.brief().contains(' ') || text == "signal 40 (core dumped)");
        }
    }

    #[test]
    fn a_program_s_death_is_not_its_worker_s_and_says_whether_a_core_was_left() {
        for (signal, core, text) in
            [(11, true, "SIGSEGV (core dumped)"), (6, false, "SIGABRT (no core)"), (9, false, "SIGKILL")]
        {
            let death = Death::OfProgram { signal, core };
            assert_eq!(death.to_string(), format!("its program: {text}"));
            assert_eq!(death.predicate(), format!("lives on, its program died of {text}"));
            assert!(!death.is_own());
        }
        assert_eq!(ProgramEnd::Signal { signal: 11, core: true }.code(), 139);
        assert_eq!(ProgramEnd::Signal { signal: SIGNAL_MAX, core: false }.code(), 192);
    }
}

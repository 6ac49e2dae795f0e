//! How a process ended: one enum from the wait status to the CLI.
//!
//! Whoever sees a death keeps all that is known of it: a death must never become a mere "broken pipe" on its way
//! to the person who asks why. Made by the supervisor, carried by the core, shown by everybody.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::codec::{Decode, Encode};

/// How a worker ended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "death")]
pub enum Death {
    /// It left by itself with this code, in the middle of its duty.
    Exited {
        /// The exit code.
        code: i32,
    },
    /// It left by itself, in the middle of a task, as if all were well: exit code 0.
    LeftInMidJob,
    /// It left by itself after its last task panicked and was reported as failed. Nobody is charged.
    LeftAfterPanic,
    /// A signal that we did not send ended it, and no more is known: SIGKILL, which lets nobody speak, or one that
    /// it sent to itself, as abort(3) does.
    Signalled {
        /// The signal's number.
        signal: i32,
        /// Whether the kernel wrote a core file.
        core: bool,
    },
    /// An instruction of its own faulted: SIGSEGV, SIGBUS, SIGILL or SIGFPE.
    Fault {
        /// The signal's number.
        signal: i32,
        /// Whether the kernel wrote a core file.
        core: bool,
        /// What could not be reached (SIGSEGV, SIGBUS), or the instruction (SIGILL, SIGFPE).
        address: u64,
    },
    /// The stack of one of its threads was used up.
    StackOverflow {
        /// The signal's number.
        signal: i32,
        /// Whether the kernel wrote a core file.
        core: bool,
        /// Where it faulted.
        address: u64,
    },
    /// It aborted because it could not get memory.
    AllocationFailed {
        /// The signal's number.
        signal: i32,
        /// Whether the kernel wrote a core file.
        core: bool,
        /// How many bytes it asked for.
        bytes: u64,
    },
    /// Another process sent it this signal, which is not SIGKILL.
    Sent {
        /// The signal's number.
        signal: i32,
        /// Whether the kernel wrote a core file.
        core: bool,
        /// Who sent it; the process may have ended since.
        sender_pid: u32,
    },
    /// We killed it, and why.
    Killed {
        /// The reason.
        why: KillReason,
    },
    /// It left by itself because it was asked to.
    Retired,
}

/// Why the supervisor killed a worker.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "why")]
pub enum KillReason {
    /// Its task met its wall time limit.
    Timeout,
    /// Its task made no progress for too long.
    NoProgress,
    /// Its task used more processor time than it may.
    CpuTime,
    /// Its task had more memory than it may.
    Memory {
        /// The limit it met, in bytes.
        limit_bytes: u64,
    },
    /// A signal stopped it, and nobody let it go on in time.
    Stopped,
    /// Its task was cancelled.
    Cancel,
    /// The service is stopping.
    Stop,
    /// It broke the protocol.
    Lie {
        /// What it did.
        lie: Lie,
    },
    /// It did not come up in time, or took no offer, or did not leave when asked.
    Unresponsive,
}

/// A broken rule of the worker protocol: never an accident of an honest runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lie {
    /// A claim word that no rule allows: wrong seq, step back, second claim.
    ClaimWord,
    /// A result that is too long, too short or of no known form.
    Result,
    /// A lane frame that is malformed, truncated, oversized or out of place.
    Lane,
    /// A descriptor passed up the lane.
    Descriptor,
    /// An output descriptor that is not sealed or not as long as claimed.
    Output,
    /// A hello that names a path or kinds that are not its own.
    Hello,
    /// A plan that does not say how many parts it has.
    Plan,
}

impl fmt::Display for Lie {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::ClaimWord => "impossible claim word",
            Self::Result => "malformed result",
            Self::Lane => "malformed lane frame",
            Self::Descriptor => "descriptor passed up the lane",
            Self::Output => "output descriptor is not what it said",
            Self::Hello => "hello names what is not its own",
            Self::Plan => "plan without a count of its parts",
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
            Self::Cancel => out.write_str("cancel"),
            Self::Stop => out.write_str("stop of the service"),
            Self::Lie { lie } => write!(out, "lie ({lie})"),
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
        }
    }
}

impl Death {
    /// How it went, to be read after the worker's name: `died of SIGSEGV`, `was killed by the supervisor: cancel`.
    pub fn predicate(&self) -> String {
        match self {
            Self::Killed { .. } => format!("was {self}"),
            Self::Exited { .. } => format!("left with {self}"),
            Self::LeftInMidJob | Self::LeftAfterPanic | Self::Retired => self.to_string(),
            Self::AllocationFailed { .. } => format!("died when an {self}"),
            Self::Signalled { .. } | Self::Fault { .. } | Self::StackOverflow { .. } | Self::Sent { .. } => {
                format!("died of {self}")
            }
        }
    }

    /// Whether it died without being asked to: nobody here killed it or told it to leave.
    pub fn is_own(&self) -> bool {
        match self {
            Self::Exited { .. }
            | Self::LeftInMidJob
            | Self::LeftAfterPanic
            | Self::Signalled { .. }
            | Self::Fault { .. }
            | Self::StackOverflow { .. }
            | Self::AllocationFailed { .. }
            | Self::Sent { .. } => true,
            Self::Killed { .. } | Self::Retired => false,
        }
    }
}

/// A signal as people read it.
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
            assert!(death.is_own());
        }
    }
}

//! Kinds: the handlers that workers offer, and what the daemon must know of each.
//!
//! Client, supervisor and workers all use this table, and the parsing of arguments that more than one of them does.
//! It never runs a kind: the code of the built-in ones is in the `jobs` crate.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bound::KindLimits;
use crate::codec::{Decode, Encode};
use crate::file::{FileUse, IN, Way};
use crate::job::OutputMode;
use crate::limits::{EXEC_OUTPUT_MAX_BYTES, FACTORIAL_N_MAX, FACTORIAL_OUTPUT_MAX_BYTES};

/// What the daemon knows of a kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Kind {
    /// Its name on the command line and the wire.
    pub name: String,
    /// Its input, as `bulkhead kinds` shows it.
    pub usage: String,
    /// What it does, in one line.
    pub summary: String,
    /// The name of the pool of workers that runs it. Empty means [`DEFAULT_POOL`]; the daemon fills the name in.
    pub pool: String,
    /// Most offers that one worker may hold; 1 for kinds that run foreign code.
    pub ring: u16,
    /// Whether its jobs are planned, run in parts and merged.
    pub plans: bool,
    /// Whether it runs only on a daemon started with `--enable-chaos`.
    pub chaos: bool,
    /// Whether the standard output and error of its jobs are kept in a log, see [`crate::log`].
    pub logs: bool,
    /// Files that each job of it must bring.
    pub needs: Vec<FileUse>,
    /// The limits of its jobs; where the kind sets none of its own, those of the daemon.
    pub limits: KindLimits,
    /// `crashes_max` of a job whose policy has none; `None`: [`crate::job::CRASHES_MAX`].
    pub crashes_max: Option<u8>,
    /// `retries_max` of a job whose policy has none; `None`: 0.
    pub retries_max: Option<u8>,
    /// Where the output goes if the job's policy says [`OutputMode::Inline`]; of [`OutputMode::Auto`], each task asks for a
    /// descriptor only if it needs one.
    pub output: OutputMode,
    /// The most bytes of one output in memory; `None`: [`crate::limits::OUTPUT_MAX_BYTES`].
    pub output_max_bytes: Option<u64>,
    /// How long a task may take to end by itself after a cancel, a limit of time or a stop, in milliseconds; then its worker
    /// is killed. 0: the worker is killed at once.
    pub cancel_grace_ms: u32,
}

/// The kind that computes n!.
pub const FACTORIAL: &str = "factorial";

/// The kind that changes the frames of a clip.
pub const TRANSFORM: &str = "transform";

/// The kind that gives its input back.
pub const NOOP: &str = "noop";

/// The kind that sleeps.
pub const SLEEP: &str = "sleep";

/// The kind that kills its own worker; only on a daemon started with `--enable-chaos`.
pub const CHAOS: &str = "chaos";

/// The kind that runs any program. As long as workers have no sandbox, only a daemon in user mode offers it.
pub const EXEC: &str = "exec";

/// A row of the table of built-in kinds.
#[derive(Clone, Copy)]
struct Row {
    name: &'static str,
    usage: &'static str,
    summary: &'static str,
    ring: u16,
    plans: bool,
    chaos: bool,
    logs: bool,
    needs: &'static [(&'static str, Way)],
    output: OutputMode,
    output_max_bytes: Option<u64>,
    cancel_grace_ms: u32,
}

/// The values that most rows have.
const ROW: Row = Row {
    name: "",
    usage: "",
    summary: "",
    ring: 256,
    plans: false,
    chaos: false,
    logs: false,
    needs: &[],
    output: OutputMode::Inline,
    output_max_bytes: None,
    cancel_grace_ms: 0,
};

/// `cancel_grace_ms` of the kinds that check for a cancel: enough for one frame of a large clip, and for a program to
/// end with its child processes.
const CANCEL_GRACE_MS: u32 = 2000;

/// The built-in kinds.
const BUILTIN: [Row; 6] = [
    Row {
        name: FACTORIAL,
        usage: "N [decimal|hex|digits|bits|sha256]",
        summary: "n! with GMP, for n up to 10,000,000",
        output_max_bytes: Some(FACTORIAL_OUTPUT_MAX_BYTES),
        ..ROW
    },
    Row {
        name: TRANSFORM,
        usage: "scale=WxH[:lanczos|:bilinear],gray,mono,blur=N,rotate=90|180|270,crop=WxH+X+Y",
        summary: "does this to the frames of a Y4M clip, over all workers",
        ring: 1,
        plans: true,
        needs: &[(IN, Way::In)],
        output: OutputMode::Descriptor,
        cancel_grace_ms: CANCEL_GRACE_MS,
        ..ROW
    },
    Row { name: NOOP, usage: "TEXT", summary: "gives its input back", ..ROW },
    Row { name: SLEEP, usage: "MS", summary: "sleeps that many milliseconds", ..ROW },
    Row {
        name: CHAOS,
        usage: "segv|bus|ill|fpe|sys|xcpu|stack-overflow|alloc|abort|kill|exit:N|panic|loop|hang|stall|stop|eat:MIB|share:MIB",
        summary: "does this to its own process",
        ring: 1,
        chaos: true,
        ..ROW
    },
    Row {
        name: EXEC,
        usage: "PROGRAM ARGUMENTS...",
        summary: "runs a program in a folder of its own, its output is the result",
        ring: 1,
        logs: true,
        output_max_bytes: Some(EXEC_OUTPUT_MAX_BYTES),
        cancel_grace_ms: CANCEL_GRACE_MS,
        ..ROW
    },
];

/// The pool of a kind that names none.
pub const DEFAULT_POOL: &str = "default";

/// The table of built-in kinds, with `chaos` only when it is enabled.
pub fn builtin(enable_chaos: bool) -> Vec<Kind> {
    BUILTIN
        .iter()
        .filter(|row| enable_chaos || !row.chaos)
        .map(|row| Kind {
            name: row.name.to_owned(),
            usage: row.usage.to_owned(),
            summary: row.summary.to_owned(),
            ring: row.ring,
            plans: row.plans,
            chaos: row.chaos,
            logs: row.logs,
            needs: row.needs.iter().map(|&(name, way)| FileUse::new(name, way)).collect(),
            output: row.output,
            output_max_bytes: row.output_max_bytes,
            cancel_grace_ms: row.cancel_grace_ms,
            ..Kind::default()
        })
        .collect()
}

/// The form in which a factorial is written: the second word of the `factorial` kind's input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// All decimal digits.
    #[default]
    Decimal,
    /// All hexadecimal digits, lower case.
    Hex,
    /// The number of decimal digits.
    Digits,
    /// The number of bits.
    Bits,
    /// SHA-256 of the decimal digits, in hexadecimal.
    Sha256,
}

impl Form {
    /// All forms, by name.
    pub const NAMES: [(&str, Self); 5] = [
        ("decimal", Self::Decimal),
        ("hex", Self::Hex),
        ("digits", Self::Digits),
        ("bits", Self::Bits),
        ("sha256", Self::Sha256),
    ];

    /// The form with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, form)| *form)
    }

    /// The name of the form.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, form)| *form == self).map_or("", |(name, _)| name)
    }

    /// Whether the text may be too long for an inline output.
    pub fn is_large(self) -> bool {
        matches!(self, Self::Decimal | Self::Hex)
    }
}

/// A text that is not a valid `n` of the `factorial` kind, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadN {
    text: String,
    why: &'static str,
}

impl fmt::Display for BadN {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "factorial of {:?}: {}; give a whole number from 0 to {FACTORIAL_N_MAX}",
            self.text, self.why
        )
    }
}

impl std::error::Error for BadN {}

/// Parses the `n` of a factorial: a whole number from 0 to [`FACTORIAL_N_MAX`].
///
/// # Errors
/// [`BadN`] names the text and what is wrong with it: negative, fractional, not a number, too large.
pub fn parse_n(text: &str) -> Result<u64, BadN> {
    let bad = |why| BadN { text: text.chars().take(40).collect(), why };
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let fractional = unsigned.split_once('.').is_some_and(|(whole, part)| number(whole) && number(part));
    if fractional {
        Err(bad("it is not a whole number"))
    } else if !number(unsigned) {
        Err(bad("it is not a number"))
    } else if unsigned.len() < text.len() {
        Err(bad("it is negative"))
    } else {
        match text.parse::<u64>() {
            Ok(n) if n <= FACTORIAL_N_MAX => Ok(n),
            _ => Err(bad("it is too large")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_n_is_named_with_its_fault() {
        for (text, fault) in [
            ("-3", "negative"),
            ("2.5", "not a whole number"),
            ("abc", "not a number"),
            ("", "not a number"),
            ("1e3", "not a number"),
            ("10000001", "too large"),
            ("99999999999999999999999999", "too large"),
        ] {
            let error = parse_n(text).unwrap_err().to_string();
            assert!(error.contains(fault) && error.contains(text), "{error}");
        }
        assert_eq!(parse_n("10000000"), Ok(10_000_000));
        assert_eq!(parse_n("0"), Ok(0));
    }
}

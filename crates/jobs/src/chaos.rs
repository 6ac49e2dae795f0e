//! `chaos MODE`: ends its own process in the way that was asked for, to show that nobody else is hurt.
//!
//! Whoever may run it decides elsewhere: the daemon offers it only when started with `--enable-chaos`. It must
//! draw its last breath right before each death, so that the time until the supervisor noticed can be told.

use bulkhead_sys::raise;

use crate::{Failure, Task, quoted, text_of};

/// SIGKILL, by its Linux number (signal(7)).
const SIGKILL: i32 = 9;

/// The ways to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// A store to memory that may not be written: the kernel sends SIGSEGV.
    Segv,
    /// abort(3): SIGABRT.
    Abort,
    /// SIGKILL to itself: nothing can be said afterwards.
    Kill,
    /// Leaves in the middle of its duty with this code.
    Exit(u8),
    /// A panic in the handler's own code: a failure of the job, which its worker survives.
    Panic,
    /// Runs for ever, busily; only a limit or a cancel ends it.
    Loop,
}

impl Mode {
    /// Whether the process ends at once; what does not end it must stamp no moment of death.
    fn is_deadly(self) -> bool {
        !matches!(self, Self::Panic | Self::Loop)
    }
}

pub(crate) fn run(input: &[u8], task: &mut dyn Task) -> Result<(), Failure> {
    let mode = parse(text_of(input)?)?;
    if mode.is_deadly() {
        task.last_breath();
    }
    match mode {
        Mode::Segv => raise::fault(),
        Mode::Abort => std::process::abort(),
        Mode::Kill => {
            Ok(raise::raise(SIGKILL).map_err(|error| Failure::new(format!("kill itself: {error}")))?)
        }
        Mode::Exit(code) => leave(code),
        Mode::Panic => panic!("chaos was asked to panic"),
        Mode::Loop => loop {
            std::hint::spin_loop();
        },
    }
}

fn leave(code: u8) -> ! {
    #[expect(clippy::disallowed_methods, reason = "leaving without a word is what this job was asked to do")]
    std::process::exit(i32::from(code))
}

fn parse(text: &str) -> Result<Mode, Failure> {
    match text.trim() {
        "segv" => Ok(Mode::Segv),
        "abort" => Ok(Mode::Abort),
        "kill" => Ok(Mode::Kill),
        "panic" => Ok(Mode::Panic),
        "loop" => Ok(Mode::Loop),
        word => match word.strip_prefix("exit:") {
            Some(code) => code.parse().map(Mode::Exit).map_err(|_| {
                Failure::new(format!("chaos of {}: give an exit code from 0 to 255", quoted(text)))
            }),
            None => {
                let usage = "give segv, abort, kill, exit:N, panic or loop";
                Err(Failure::new(format!("chaos of {}: {usage}", quoted(text))))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::{Trial, failure_of};

    #[test]
    fn modes_are_read() {
        assert_eq!(parse("segv"), Ok(Mode::Segv));
        assert_eq!(parse(" loop\n"), Ok(Mode::Loop));
        assert_eq!(parse("exit:0"), Ok(Mode::Exit(0)));
        assert_eq!(parse("exit:255"), Ok(Mode::Exit(255)));
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
        let mut task = Trial::default();
        assert!(run(b"segfault", &mut task).is_err());
        assert_eq!(task.breaths, 0, "a mode that is refused draws no last breath");
    }

    #[test]
    fn a_panic_is_no_death() {
        let mut task = Trial::default();
        let fate = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(b"panic", &mut task)));
        assert!(fate.is_err());
        assert_eq!(task.breaths, 0);
        assert!(Mode::Segv.is_deadly() && Mode::Exit(0).is_deadly() && !Mode::Loop.is_deadly());
    }
}

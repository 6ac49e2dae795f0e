//! `sleep MS`: keeps its worker for this long and returns nothing.
//!
//! It is the only place of the project where a thread may sleep, because here sleeping is the job. It uses no processor
//! time, so many such jobs can stand in for slow work.

use std::time::Duration;

use bulkhead_proto::limits::SLEEP_MAX_MS;
use bulkhead_task::{TaskContext, TaskFailure};

use crate::{quoted, text_of};

pub(crate) fn run(input: &[u8], _task: &mut dyn TaskContext) -> Result<(), TaskFailure> {
    let span = Duration::from_millis(parse(text_of(input)?)?);
    #[expect(clippy::disallowed_methods, reason = "sleeping is what this job was asked to do")]
    std::thread::sleep(span);
    Ok(())
}

fn parse(text: &str) -> Result<u64, TaskFailure> {
    let word = text.trim();
    let bad = |why: &str| {
        TaskFailure::new(format!(
            "sleep of {}: {why}; give whole milliseconds from 0 to {SLEEP_MAX_MS}",
            quoted(text)
        ))
    };
    if word.is_empty() || !word.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad("it is not a whole number"));
    }
    word.parse().ok().filter(|ms| *ms <= SLEEP_MAX_MS).ok_or_else(|| bad("it is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_task::{failure_of, output_of};

    #[test]
    fn a_short_sleep_ends_and_gives_nothing() {
        assert_eq!(output_of(run, "0").unwrap(), "");
        assert_eq!(output_of(run, " 1\n").unwrap(), "");
    }

    #[test]
    fn the_longest_sleep_is_a_day() {
        assert_eq!(parse("86400000"), Ok(SLEEP_MAX_MS));
        assert!(failure_of(run, "86400001").contains("sleep of \"86400001\": it is too long"));
    }

    #[test]
    fn a_bad_span_is_named() {
        for text in ["", "-5", "1.5", "abc", "1 2", "10s"] {
            let failure = failure_of(run, text);
            assert!(
                failure.starts_with(&format!("sleep of {text:?}: it is not a whole number")),
                "{failure}"
            );
        }
        assert!(failure_of(run, "99999999999999999999999999").contains("too long"));
    }
}

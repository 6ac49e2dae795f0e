//! `factorial N [FORM]`: n! with GMP, as one task.
//!
//! GMP's own factorial (by prime swing) is one task on purpose: splitting one n! over two workers was measured slower.
//! So is its conversion to text: GMP in one call was 11 to 25 % faster than blocks split at powers of ten, with the
//! same peak of memory (190 MB for 10,000,000!). It reports two steps of progress: the product, and its form.

use bulkhead_proto::kind::{Form, parse_n};
use bulkhead_task::{TaskContext, TaskFailure};
use rug::{Complete, Integer};
use sha2::{Digest, Sha256};

use crate::{digit_count, quoted, text_of};

pub(crate) fn run(input: &[u8], task: &mut dyn TaskContext) -> Result<(), TaskFailure> {
    let (n, form) = parse(text_of(input)?)?;
    task.say("computing the product");
    task.progress(0, 2);
    let value = Integer::factorial(n).complete();
    task.say("giving it its form");
    task.progress(1, 2);
    match form {
        Form::Decimal => task.write_all(text(value, 10).as_bytes())?,
        Form::Hex => task.write_all(text(value, 16).as_bytes())?,
        Form::Digits => write!(task, "{}", digit_count::count(&value))?,
        Form::Bits => write!(task, "{}", value.significant_bits())?,
        Form::Sha256 => task.write_all(sha256(&text(value, 10)).as_bytes())?,
    }
    Ok(())
}

fn parse(text: &str) -> Result<(u32, Form), TaskFailure> {
    let mut words = text.split_whitespace();
    let n = parse_n(words.next().unwrap_or("")).map_err(|error| TaskFailure::new(error.to_string()))?;
    let n = u32::try_from(n).expect("parse_n gives at most FACTORIAL_N_MAX, which fits");
    let form = match words.next() {
        None => Form::default(),
        Some(name) => Form::named(name).ok_or_else(|| unknown_form(name))?,
    };
    match words.next() {
        None => Ok((n, form)),
        Some(more) => Err(TaskFailure::new(format!(
            "factorial of {n}: {} is one word too many; give N and a form",
            quoted(more)
        ))),
    }
}

fn unknown_form(name: &str) -> TaskFailure {
    let known: Vec<_> = Form::NAMES.iter().map(|(name, _)| *name).collect();
    TaskFailure::new(format!(
        "factorial form {}: it is not known; give one of {}",
        quoted(name),
        known.join(", ")
    ))
}

/// The number as text. It takes the number by value and frees it, so that only one of the two is in memory.
fn text(value: Integer, radix: i32) -> String {
    value.to_string_radix(radix)
}

/// SHA-256 in hexadecimal.
fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_task::{TestTask, failure_of, output_of};

    /// n, decimal digits, bits, SHA-256 of the digits: from CPython's `math.factorial` and `hashlib`.
    const KNOWN: [(u32, u32, u32, &str); 7] = [
        (0, 1, 1, "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"),
        (1, 1, 1, "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"),
        (20, 19, 62, "0f90a83d6efa0e58870635bedb7ca3eff1bdde520d4a98f83c8fec4c6b864611"),
        (100, 158, 525, "fb1bcc25c888ffc3d1a5f56b7a32ba89b9ae39f815ffea45faa8f419b321cb81"),
        (1000, 2568, 8530, "cc336cf135d690c1105664b3b859db66b940db51cd66cf891fee120584cf7873"),
        (3249, 10_001, 33_222, "b1b422cfbfac395e8f0fae45608f18a5d7912f6cf96ab78aa9dac4e6396bc622"),
        (5000, 16_326, 54_233, "094d42f05e73233579bb69dfce8b1f4ffbafe0f7f255475e4ec74640d53ff39b"),
    ];

    #[test]
    fn known_values_in_every_short_form() {
        for (n, digits, bits, sha256) in KNOWN {
            assert_eq!(output_of(run, &format!("{n} digits")).unwrap(), digits.to_string());
            assert_eq!(output_of(run, &format!("{n} bits")).unwrap(), bits.to_string());
            assert_eq!(output_of(run, &format!("{n} sha256")).unwrap(), sha256);
        }
    }

    #[test]
    fn it_tells_how_far_it_is() {
        let mut task = TestTask::default();
        run(b"20", &mut task).unwrap();
        assert_eq!(task.said, ["computing the product", "giving it its form"]);
        assert_eq!(task.progress, Some((1, 2)), "the worker says when all is done");
    }

    #[test]
    fn known_values_in_full() {
        assert_eq!(output_of(run, "0").unwrap(), "1");
        assert_eq!(output_of(run, "1 decimal").unwrap(), "1");
        assert_eq!(output_of(run, " 20 \n").unwrap(), "2432902008176640000");
        assert_eq!(output_of(run, "25 hex").unwrap(), "cd4a0619fb0907bc00000");
        let hundred = output_of(run, "100").unwrap();
        assert!(hundred.starts_with("93326215443944152681699238856266700490715968264381621468592963"));
        assert_eq!((hundred.len(), hundred.trim_end_matches('0').len()), (158, 158 - 24));
    }

    #[test]
    fn a_bad_n_is_named() {
        for (text, fault) in [
            ("", "not a number"),
            ("-3", "negative"),
            ("2.5", "not a whole number"),
            ("abc", "not a number"),
            ("10000001", "too large"),
            ("18446744073709551616", "too large"),
        ] {
            let failure = failure_of(run, text);
            assert!(failure.starts_with(&format!("factorial of {text:?}: it is {fault}")), "{failure}");
        }
    }

    #[test]
    fn the_largest_n_is_accepted() {
        assert_eq!(parse("10000000 bits"), Ok((10_000_000, Form::Bits)));
    }

    #[test]
    fn a_bad_form_or_word_is_named() {
        let unknown = failure_of(run, "5 octal");
        assert!(unknown.contains("form \"octal\"") && unknown.contains("decimal, hex, digits, bits, sha256"));
        assert!(failure_of(run, "5 hex 6").contains("\"6\" is one word too many"));
    }

    #[test]
    fn output_that_is_refused_is_a_failure() {
        let mut task = TestTask { room: Some(2), ..TestTask::default() };
        assert_eq!(run(b"20", &mut task).unwrap_err().to_string(), "output: no room");
    }
}

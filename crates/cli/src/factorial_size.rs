//! An upper bound for the length of a factorial's text, computed before the job is submitted.
//!
//! It decides whether the output may be inline or needs a descriptor, so it must never be too low. Used by `inputs.rs`.

use bulkhead_proto::job::OutputMode;
use bulkhead_proto::kind::Form;
use bulkhead_proto::limits::INLINE_MAX_BYTES;

/// Bytes added for rounding errors and a newline.
const SLACK_BYTES: f64 = 16.0;

/// The output mode for the text of n! in this form.
pub(crate) fn output_mode(n: u64, form: Form) -> OutputMode {
    let base: f64 = match form {
        Form::Decimal => 10.0,
        Form::Hex => 16.0,
        Form::Digits | Form::Bits | Form::Sha256 => return OutputMode::Inline,
    };
    if ln_factorial_at_most(n) / base.ln() + SLACK_BYTES > INLINE_MAX_BYTES as f64 {
        OutputMode::Descriptor
    } else {
        OutputMode::Inline
    }
}

/// An upper bound of ln n!, less than 1/(12n) above it: H. Robbins, "A Remark on Stirling's Formula", 1955.
fn ln_factorial_at_most(n: u64) -> f64 {
    if n < 2 {
        return 0.0;
    }
    let n = n as f64;
    n * n.ln() - n + 0.5 * (std::f64::consts::TAU * n).ln() + 1.0 / (12.0 * n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_above_and_close() {
        let mut exact = 0.0_f64;
        for n in 1..=3000_u64 {
            exact += (n as f64).ln();
            let bound = ln_factorial_at_most(n);
            assert!(bound >= exact - 1e-6, "n={n}");
            assert!(bound - exact < 0.1, "n={n}");
        }
    }

    #[test]
    fn only_long_texts_need_a_descriptor() {
        // 1000! has 2568 decimal digits, 1500! has 4115.
        assert_eq!(output_mode(1000, Form::Decimal), OutputMode::Inline);
        assert_eq!(output_mode(1500, Form::Decimal), OutputMode::Descriptor);
        assert_eq!(output_mode(1500, Form::Hex), OutputMode::Inline);
        assert_eq!(output_mode(1_000_000, Form::Hex), OutputMode::Descriptor);
        assert_eq!(output_mode(10_000_000, Form::Sha256), OutputMode::Inline);
    }
}

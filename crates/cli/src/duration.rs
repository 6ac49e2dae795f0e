//! Spans of time on the command line and in texts. A span that a user gives needs a unit: `5` alone could mean
//! anything.
//!
//! Pure. Driven by clap for options, and by the tables for ages. The spans in events are formatted by
//! `proto::client::record_text`.

use std::time::Duration;

/// The units, and the milliseconds of each.
const UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 24 * 3_600_000)];

/// Parses `500ms`, `5s`, `2m`, `1h`, `1d`.
///
/// # Errors
/// The text says what is wrong and gives correct examples.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    match (number.parse::<u64>().ok(), factor) {
        (Some(number), Some(factor)) => number
            .checked_mul(factor)
            .map(Duration::from_millis)
            .ok_or_else(|| "it is more than 2^64 milliseconds".to_owned()),
        (Some(_), None) if unit.is_empty() => {
            Err(format!("it needs a unit: {number}s, {number}ms, {number}m"))
        }
        _ => Err("give a whole number and a unit: 500ms, 5s, 2m, 1h, 1d".to_owned()),
    }
}

/// Prints milliseconds in the largest unit that needs no fraction, so that [`parse`] returns the same span.
pub(crate) fn exact(ms: u64) -> String {
    let fits = |(_, factor): &&(&str, u64)| ms >= *factor && ms.is_multiple_of(*factor);
    let (unit, factor) = UNITS.iter().rev().find(fits).unwrap_or(&UNITS[0]);
    format!("{}{unit}", ms / factor)
}

/// Prints a span in its two largest units: `3h12m`, `45s`.
pub(crate) fn rough(us: u64) -> String {
    let seconds = us / 1_000_000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match seconds {
        0 => format!("{}ms", us / 1000),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86_400 => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_need_a_unit_and_a_whole_number() {
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse("1d"), Ok(Duration::from_secs(86_400)));
        for text in ["500ms", "5s", "90s", "1h", "1d"] {
            assert_eq!(parse(text).map(|span| exact(span.as_millis() as u64)), Ok(text.to_owned()));
        }
        assert!(parse("5").unwrap_err().contains("needs a unit: 5s"));
        for bad in ["", "s", "1.5s", "-1s", "5 s", "5w", "99999999999999999999s", "9999999999999999999d"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ages_show_two_units() {
        let second = 1_000_000;
        for (us, text) in [
            (5_000, "5ms"),
            (45 * second, "45s"),
            (61 * second, "1m01s"),
            (11_520 * second, "3h12m"),
            (90_000 * second, "1d01h"),
        ] {
            assert_eq!(rough(us), text);
        }
    }
}

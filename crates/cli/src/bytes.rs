//! Sizes on the command line and in texts. A size that a user gives needs a unit, like a span of time.
//!
//! Pure. Units are powers of 1024, named by one letter. Driven by clap for options, and by `verb/job.rs` for limits.

/// The units, and the bytes of each.
const UNITS: [(&str, u64); 5] = [("B", 1), ("K", 1 << 10), ("M", 1 << 20), ("G", 1 << 30), ("T", 1 << 40)];

/// Parses `512M`, `2G`, `65536B`.
///
/// # Errors
/// The text says what is wrong and gives correct examples.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    match (number.parse::<u64>().ok(), factor) {
        (Some(number), Some(factor)) => {
            number.checked_mul(factor).ok_or_else(|| "it is more than 2^64 bytes".to_owned())
        }
        (Some(_), None) if unit.is_empty() => {
            Err(format!("it needs a unit: {number}M, {number}G, {number}B"))
        }
        _ => Err("give a whole number and a unit: 512M, 2G, 64K, 4096B".to_owned()),
    }
}

/// Prints a size in the largest unit that needs no fraction, so that [`parse`] returns the same size.
pub(crate) fn exact(bytes: u64) -> String {
    let fits = |(_, factor): &&(&str, u64)| bytes >= *factor && bytes.is_multiple_of(*factor);
    let (unit, factor) = UNITS.iter().rev().find(fits).unwrap_or(&UNITS[0]);
    format!("{}{unit}", bytes / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_need_a_unit_and_a_whole_number() {
        for (text, bytes) in
            [("512M", 512 << 20), ("2G", 2 << 30), ("1T", 1 << 40), ("64K", 65_536), ("7B", 7)]
        {
            assert_eq!(parse(text), Ok(bytes));
            assert_eq!(exact(bytes), text);
        }
        assert_eq!((exact(0), exact(1025), exact(1 << 10)), ("0B".into(), "1025B".into(), "1K".into()));
        assert!(parse("512").unwrap_err().contains("needs a unit: 512M"));
        for bad in ["", "M", "1.5G", "-1M", "5 M", "5m", "5MB", "99999999999999999999G", "99999999999T"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}

//! Sizes on the command line and in texts. On the way in they need a unit, as spans of time do.
//!
//! Pure. Units are powers of 1024, by one letter. Driven by clap for options, and by `job` for limits.

/// Units that are understood, and their bytes.
const UNITS: [(&str, u64); 5] = [("B", 1), ("K", 1 << 10), ("M", 1 << 20), ("G", 1 << 30), ("T", 1 << 40)];

/// Reads `512M`, `2G`, `65536B`.
///
/// # Errors
/// Says what is wrong and what would be right.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    match (number.parse::<u64>().ok(), factor) {
        (Some(number), Some(factor)) => number.checked_mul(factor).ok_or_else(|| "it is too much".to_owned()),
        (Some(_), None) if unit.is_empty() => {
            Err(format!("it needs a unit: {number}M, {number}G, {number}B"))
        }
        _ => Err("give a whole number and a unit: 512M, 2G, 64K, 4096B".to_owned()),
    }
}

/// In the largest unit that needs no fraction, so that it reads back as the same.
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

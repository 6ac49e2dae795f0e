//! Numbers for the `factorial` kind: single numbers, ranges, and files of both.
//!
//! A range `1..200` includes both ends, like `seq 1 200` and the shell's `{1..200}`; `1..=200` means the same. All
//! numbers are checked before anything is sent. An error names the value and, in a file, the line. Used by
//! `job_args.rs`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use bulkhead_client::name_user;
use bulkhead_proto::kind::parse_n;

/// Largest file of numbers, in bytes: all of it is read and checked before the first job is sent.
const FILE_MAX_BYTES: u64 = 64 << 20;

/// Numbers from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NumberRange {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl NumberRange {
    /// How many numbers.
    pub(crate) fn count(self) -> u64 {
        self.last - self.first + 1
    }
}

/// Parses one argument: a number, a range, or `@FILE`.
pub(crate) fn parse_argument(text: &str, into: &mut Vec<NumberRange>) -> Result<(), String> {
    match text.strip_prefix('@') {
        Some(path) => read_file(Path::new(path), into),
        None => {
            into.push(parse(text)?);
            Ok(())
        }
    }
}

/// Parses a number or a range.
fn parse(text: &str) -> Result<NumberRange, String> {
    let Some((first, last)) = text.split_once("..") else {
        let n = parse_n(text).map_err(|bad| bad.to_string())?;
        return Ok(NumberRange { first: n, last: n });
    };
    let end = |text: &str| parse_n(text).map_err(|bad| format!("range {first}..{last}: {bad}"));
    let range = NumberRange { first: end(first)?, last: end(last.strip_prefix('=').unwrap_or(last))? };
    if range.first > range.last {
        return Err(format!("range {text} runs backwards: write {}..{}", range.last, range.first));
    }
    Ok(range)
}

/// Reads a file of numbers and ranges, one or more on a line; `#` begins a comment; `-` is stdin.
pub(crate) fn read_file(path: &Path, into: &mut Vec<NumberRange>) -> Result<(), String> {
    let name = path.display();
    let failed = |error: std::io::Error| format!("cannot read numbers from {name}: {}", name_user(error));
    let mut text = String::new();
    let limit = FILE_MAX_BYTES + 1;
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(limit).read_to_string(&mut text)
    } else {
        File::open(path).map_err(failed)?.take(limit).read_to_string(&mut text)
    };
    if read.map_err(failed)? as u64 > FILE_MAX_BYTES {
        return Err(format!("{name} is longer than the limit of {FILE_MAX_BYTES} bytes: split it"));
    }
    parse_lines(&text, &name.to_string(), into)
}

fn parse_lines(text: &str, name: &str, into: &mut Vec<NumberRange>) -> Result<(), String> {
    let before = into.len();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        for word in line.split_whitespace() {
            into.push(parse(word).map_err(|why| format!("{name}:{}: {why}", number + 1))?);
        }
    }
    if into.len() == before { Err(format!("{name} has no numbers in it")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, last: u64) -> NumberRange {
        NumberRange { first, last }
    }

    #[test]
    fn ranges_have_both_their_ends() {
        assert_eq!(parse("20"), Ok(range(20, 20)));
        assert_eq!(parse("1..200"), Ok(range(1, 200)));
        assert_eq!(parse("1..=200"), Ok(range(1, 200)));
        assert_eq!(range(1, 200).count(), 200);
        assert_eq!(parse("7..7").unwrap().count(), 1);
    }

    #[test]
    fn a_bad_number_or_range_is_named() {
        for (text, fault) in [
            ("-3", "negative"),
            ("2.5", "whole number"),
            ("abc", "not a number"),
            ("10000001", "too large"),
            ("9..3", "runs backwards: write 3..9"),
            ("1..", "range 1..:"),
            ("..5", "range ..5:"),
            ("-3..5", "negative"),
            ("0..10000001", "too large"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(fault), "{text}: {error}");
        }
    }

    #[test]
    fn a_file_has_numbers_ranges_and_comments() {
        let mut ranges = Vec::new();
        parse_lines("# a list\n5 6\t7..9 # more\n\n10\r\n", "f", &mut ranges).unwrap();
        assert_eq!(ranges, [range(5, 5), range(6, 6), range(7, 9), range(10, 10)]);
        let error = parse_lines("1\n2 x\n", "list.txt", &mut ranges).unwrap_err();
        assert!(error.starts_with("list.txt:2: ") && error.contains("\"x\""), "{error}");
        assert!(parse_lines("# nothing\n", "f", &mut ranges).is_err());
    }

    #[test]
    fn a_file_is_read_by_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "3\n").unwrap();
        let mut ranges = Vec::new();
        parse_argument(&format!("@{}", file.path().display()), &mut ranges).unwrap();
        assert_eq!(ranges, [range(3, 3)]);
        let error = parse_argument("@/nowhere/at/all", &mut ranges).unwrap_err();
        assert!(error.contains("/nowhere/at/all"), "{error}");
    }
}

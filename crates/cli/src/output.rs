//! A job's output on its way to stdout or a file: in pieces, never wholly in memory.
//!
//! On stdout an output ends with a line end, so that a prompt or the next result begins a line of its own. A file
//! (`-o`) has the exact bytes.

use std::io::{self, Read, Write};

use anyhow::{Context, Result};
use bulkhead_client::{JobEnd, Output};
use serde_json::{Map, Value, json};

/// Bytes that are copied at once.
const PIECE_BYTES: usize = 256 << 10;

/// Hands the output to `each` in pieces.
fn pieces(output: &Output, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> Result<()> {
    const WRITE: &str = "cannot write the result";
    match output {
        Output::None => Ok(()),
        Output::Inline(bytes) => each(bytes).context(WRITE),
        Output::File(file) => {
            let mut reader = file.reader();
            let mut piece = vec![0; PIECE_BYTES];
            loop {
                match reader.read(&mut piece).context("cannot read the result's descriptor")? {
                    0 => return Ok(()),
                    count => each(&piece[..count]).context(WRITE)?,
                }
            }
        }
    }
}

/// Writes the output as it is.
pub(crate) fn write_exact(output: &Output, into: &mut impl Write) -> Result<()> {
    pieces(output, |piece| into.write_all(piece))
}

/// Writes the output, and a line end if it has none.
pub(crate) fn write_line(output: &Output, into: &mut impl Write) -> Result<()> {
    let mut last = 0;
    pieces(output, |piece| {
        last = piece.last().copied().unwrap_or(last);
        into.write_all(piece)
    })?;
    if last == b'\n' { Ok(()) } else { into.write_all(b"\n").context("cannot write the result") }
}

/// Writes one line of JSON: these fields, how the job ended, and its output as the text `result` (bytes that are not
/// UTF-8 are replaced). A long output is escaped on its way through. Of one that the job wrote into a file, so many bytes,
/// only these are told.
pub(crate) fn write_json(
    fields: Value,
    end: &JobEnd,
    in_file: Option<u64>,
    into: &mut impl Write,
) -> Result<()> {
    let Value::Object(mut object) = fields else { anyhow::bail!("fields of a result are an object") };
    object.append(&mut about(end));
    object.extend(in_file.map(|bytes| ("output_bytes".to_owned(), json!(bytes))));
    let text = Value::Object(object).to_string();
    let open = text.strip_suffix('}').unwrap_or(&text);
    write!(into, "{open}").context("cannot write the result")?;
    if in_file.is_none() && !matches!(end.output, Output::None) {
        into.write_all(b",\"result\":\"").context("cannot write the result")?;
        let mut text = Text::default();
        pieces(&end.output, |piece| text.write(piece, into))?;
        text.finish(into).context("cannot write the result")?;
        into.write_all(b"\"").context("cannot write the result")?;
    }
    into.write_all(b"}\n").context("cannot write the result")
}

/// A job's end as JSON fields, without its output.
pub(crate) fn about(end: &JobEnd) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("job".to_owned(), json!(end.job));
    if let Ok(Value::Object(outcome)) = serde_json::to_value(&end.outcome) {
        object.extend(outcome);
    }
    object.insert("attempts".to_owned(), json!(end.attempts));
    object.insert("output_bytes".to_owned(), json!(end.output.bytes()));
    object
}

/// Escapes text that comes in pieces: a letter may be cut in two.
#[derive(Default)]
struct Text {
    cut: Vec<u8>,
}

impl Text {
    fn write(&mut self, piece: &[u8], into: &mut impl Write) -> io::Result<()> {
        self.cut.extend_from_slice(piece);
        let whole = match std::str::from_utf8(&self.cut) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            // A fault in the middle: all of it is made valid, but for a letter that may be cut at the end.
            Err(_) => whole_letters(&self.cut),
            Ok(_) => self.cut.len(),
        };
        let rest = self.cut.split_off(whole);
        let bytes = std::mem::replace(&mut self.cut, rest);
        write_escaped(&bytes, into)
    }

    fn finish(self, into: &mut impl Write) -> io::Result<()> {
        write_escaped(&self.cut, into)
    }
}

/// Length without a letter that has begun at the end and is not complete.
fn whole_letters(bytes: &[u8]) -> usize {
    let tail = bytes.len().saturating_sub(3);
    match bytes[tail..].iter().rposition(|byte| byte & 0b1100_0000 == 0b1100_0000) {
        Some(start) if std::str::from_utf8(&bytes[tail + start..]).is_err() => tail + start,
        _ => bytes.len(),
    }
}

fn write_escaped(bytes: &[u8], into: &mut impl Write) -> io::Result<()> {
    let quoted = serde_json::to_string(&String::from_utf8_lossy(bytes))?;
    into.write_all(&quoted.as_bytes()[1..quoted.len() - 1])
}

#[cfg(test)]
mod tests {
    use bulkhead_proto::client::outcome::Outcome;
    use bulkhead_proto::ids::JobId;

    use super::*;

    fn line(text: &str) -> String {
        let mut out = Vec::new();
        write_line(&Output::Inline(text.as_bytes().to_vec()), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_ends_once() {
        assert_eq!(line("24"), "24\n");
        assert_eq!(line("24\n"), "24\n");
        assert_eq!(line(""), "\n");
    }

    #[test]
    fn json_is_one_valid_line_with_the_outcome_in_it() {
        let end = JobEnd {
            job: JobId(7),
            outcome: Outcome::Done,
            output: Output::Inline("a\"b\né".as_bytes().to_vec()),
            attempts: 2,
        };
        let mut out = Vec::new();
        write_json(json!({"index": 3}), &end, None, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(text.matches('\n').count(), 1);
        assert_eq!(
            value,
            json!({"index": 3, "job": 7, "outcome": "done", "attempts": 2, "output_bytes": 6, "result": "a\"b\né"})
        );
    }

    #[test]
    fn json_of_an_output_in_a_file_tells_its_length() {
        let output = Output::Inline(Vec::new());
        let end = JobEnd { job: JobId(7), outcome: Outcome::Done, output, attempts: 1 };
        let mut out = Vec::new();
        write_json(json!({}), &end, Some(4096), &mut out).unwrap();
        let value: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value, json!({"job": 7, "outcome": "done", "attempts": 1, "output_bytes": 4096}));
    }

    #[test]
    fn text_cut_anywhere_is_the_same_text() {
        let bytes = "né \u{1F600}\u{7} ".as_bytes().iter().copied().chain([0xFF, b'x', 0xE2, 0x82]);
        let bytes: Vec<u8> = bytes.collect();
        let whole = serde_json::to_string(&String::from_utf8_lossy(&bytes)).unwrap();
        for size in 1..=bytes.len() {
            let (mut text, mut out) = (Text::default(), Vec::new());
            bytes.chunks(size).for_each(|piece| text.write(piece, &mut out).unwrap());
            text.finish(&mut out).unwrap();
            assert_eq!(format!("\"{}\"", String::from_utf8(out).unwrap()), whole, "pieces of {size}");
        }
    }
}

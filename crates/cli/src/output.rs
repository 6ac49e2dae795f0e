//! Writes a job's output to stdout or to a file, a block at a time, so that it is never wholly in memory.
//!
//! `run` ends each result on stdout with a newline, so that the next one begins on a line of its own. Else the bytes are
//! exact: a file (`-o`), the output of a program, and what `result` prints; only a terminal gets a newline after that, for
//! the prompt. Used by `run`, `result` and `logs`.

use std::io::{self, Read, Write};

use anyhow::{Context, Result, bail};
use bulkhead_client::{JobEnd, ReceivedOutput};
use bulkhead_views::end::{EndView, ResultLine};
use serde_json::{Map, Value};

/// Bytes of one read.
const PIECE_BYTES: usize = 256 << 10;

const WRITE: &str = "cannot write the result";

/// Calls `each` with the output, a block at a time.
fn pieces(output: &ReceivedOutput, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> Result<()> {
    match output {
        ReceivedOutput::None => Ok(()),
        ReceivedOutput::Gone(gone) => bail!("there is no result: {gone}"),
        ReceivedOutput::Inline(bytes) => each(bytes).context(WRITE),
        ReceivedOutput::File(file) => {
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
pub(crate) fn write_exact(output: &ReceivedOutput, into: &mut impl Write) -> Result<()> {
    pieces(output, |piece| into.write_all(piece))
}

/// Writes the output, and a newline if it does not end with one.
pub(crate) fn write_line(output: &ReceivedOutput, into: &mut impl Write) -> Result<()> {
    let last = write_and_see_last(output, into)?;
    if last == Some(b'\n') { Ok(()) } else { into.write_all(b"\n").context(WRITE) }
}

/// Writes the output as it is; for a terminal also a newline, if it does not end with one and is not empty.
pub(crate) fn write_alone(output: &ReceivedOutput, is_terminal: bool, into: &mut impl Write) -> Result<()> {
    let last = write_and_see_last(output, into)?;
    let is_open = last.is_some_and(|last| last != b'\n');
    if is_terminal && is_open { into.write_all(b"\n").context(WRITE) } else { Ok(()) }
}

/// Writes the output as it is, and returns its last byte.
fn write_and_see_last(output: &ReceivedOutput, into: &mut impl Write) -> Result<Option<u8>> {
    let mut last = None;
    pieces(output, |piece| {
        last = piece.last().copied().or(last);
        into.write_all(piece)
    })?;
    Ok(last)
}

/// Writes one line of JSON: these fields, how the job ended, and its output as the text `result`, in which bytes that
/// are not UTF-8 are replaced. A long output is escaped block by block. `in_file` is the length of an output that the
/// job wrote into a file; then the line has only the length.
pub(crate) fn write_json(
    fields: Map<String, Value>,
    end: &JobEnd,
    in_file: Option<u64>,
    into: &mut impl Write,
) -> Result<()> {
    let mut view = view(end);
    view.output_bytes = in_file.unwrap_or(view.output_bytes);
    let mut line = ResultLine::begin(fields, &view, into).context(WRITE)?;
    let is_there = !matches!(end.output, ReceivedOutput::None | ReceivedOutput::Gone(_));
    if in_file.is_none() && is_there {
        line.begin_result().context(WRITE)?;
        pieces(&end.output, |piece| line.piece(piece))?;
    }
    line.finish().context(WRITE)
}

/// The fields of a job's end, without its output.
pub(crate) fn view(end: &JobEnd) -> EndView<'_> {
    EndView {
        job: end.job,
        outcome: &end.outcome,
        attempts: end.attempts,
        output_bytes: end.output.bytes(),
        output_gone: end.output.gone(),
        survivors: &end.survivors,
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_proto::client::outcome::Outcome;
    use bulkhead_proto::ids::JobId;
    use bulkhead_views::end::of_input;
    use serde_json::json;

    use super::*;

    fn line(text: &str) -> String {
        let mut out = Vec::new();
        write_line(&ReceivedOutput::Inline(text.as_bytes().to_vec()), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_ends_once() {
        assert_eq!(line("24"), "24\n");
        assert_eq!(line("24\n"), "24\n");
        assert_eq!(line(""), "\n");
    }

    #[test]
    fn only_a_terminal_gets_a_newline_after_a_result_that_is_alone() {
        let alone = |bytes: &[u8], is_terminal| {
            let mut out = Vec::new();
            write_alone(&ReceivedOutput::Inline(bytes.to_vec()), is_terminal, &mut out).unwrap();
            out
        };
        assert_eq!(alone(b"\x00\xff", false), b"\x00\xff");
        assert_eq!(alone(b"24", true), b"24\n");
        assert_eq!(alone(b"24\n", true), b"24\n");
        assert_eq!(alone(b"", true), b"");
    }

    #[test]
    fn json_is_one_valid_line_with_the_outcome_in_it() {
        let end = JobEnd {
            job: JobId(7),
            outcome: Outcome::Done,
            output: ReceivedOutput::Inline("a\"b\né".as_bytes().to_vec()),
            attempts: 2,
            survivors: Vec::new(),
        };
        let mut out = Vec::new();
        write_json(of_input(3, "x"), &end, None, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(text.matches('\n').count(), 1);
        assert_eq!(
            value,
            json!({"index": 3, "input": "x", "job": 7, "outcome": "done", "attempts": 2, "output_bytes": 6, "result": "a\"b\né"})
        );
    }

    #[test]
    fn json_of_an_output_in_a_file_tells_its_length() {
        let output = ReceivedOutput::Inline(Vec::new());
        let end =
            JobEnd { job: JobId(7), outcome: Outcome::Done, output, attempts: 1, survivors: Vec::new() };
        let mut out = Vec::new();
        write_json(Map::new(), &end, Some(4096), &mut out).unwrap();
        let value: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value, json!({"job": 7, "outcome": "done", "attempts": 1, "output_bytes": 4096}));
    }
}

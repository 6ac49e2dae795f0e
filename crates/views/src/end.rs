//! The end of a job: its outcome as fields, and its output as the text `result`.
//!
//! An output may be long, so its line is written block by block; see [`ResultLine`]. For an output that a job wrote
//! into a file of the client only the length is shown.

use std::io::{self, Write};

use bulkhead_proto::client::outcome::{Outcome, OutputGone, Survivor};
use bulkhead_proto::ids::JobId;
use serde_json::{Map, Value, json};

use crate::text::EscapedText;

/// A job's end, without its output.
#[derive(Clone, Copy, Debug)]
pub struct EndView<'a> {
    /// The job.
    pub job: JobId,
    /// How it ended.
    pub outcome: &'a Outcome,
    /// Attempts that were started.
    pub attempts: u32,
    /// The length of its output in bytes, wherever the output is.
    pub output_bytes: u64,
    /// Its output, if the daemon has dropped it to make room.
    pub output_gone: Option<OutputGone>,
    /// Processes that the daemon could not end.
    pub survivors: &'a [Survivor],
}

impl EndView<'_> {
    /// Its fields, with those of the outcome on the same level.
    pub fn fields(&self) -> Map<String, Value> {
        let mut object = Map::new();
        object.insert("job".to_owned(), json!(self.job));
        if let Ok(Value::Object(outcome)) = serde_json::to_value(self.outcome) {
            object.extend(outcome);
        }
        object.insert("attempts".to_owned(), json!(self.attempts));
        object.insert("output_bytes".to_owned(), json!(self.output_bytes));
        if let Some(gone) = self.output_gone {
            object.insert("output_gone".to_owned(), json!(gone));
        }
        if !self.survivors.is_empty() {
            object.insert("survivors".to_owned(), json!(self.survivors));
        }
        object
    }
}

/// Which input a job had: its index, from 0, and the input in words.
pub fn of_input(index: u64, input: &str) -> Map<String, Value> {
    Map::from_iter([("index".to_owned(), json!(index)), ("input".to_owned(), json!(input))])
}

/// One line of JSON: fields, how the job ended, and, after [`Self::begin_result`], its output as the text `result`, in
/// which bytes that are no UTF-8 are replaced.
#[derive(Debug)]
pub struct ResultLine<W> {
    into: W,
    text: Option<EscapedText>,
}

impl<W: Write> ResultLine<W> {
    /// Writes these fields and those of the end.
    ///
    /// # Errors
    /// The writer fails.
    pub fn begin(mut fields: Map<String, Value>, end: &EndView<'_>, mut into: W) -> io::Result<Self> {
        fields.append(&mut end.fields());
        let text = Value::Object(fields).to_string();
        let open = text.strip_suffix('}').unwrap_or(&text);
        into.write_all(open.as_bytes())?;
        Ok(Self { into, text: None })
    }

    /// Begins the output; without this call the line has no `result`.
    ///
    /// # Errors
    /// The writer fails.
    pub fn begin_result(&mut self) -> io::Result<()> {
        self.text = Some(EscapedText::default());
        self.into.write_all(b",\"result\":\"")
    }

    /// Writes a block of the output.
    ///
    /// # Errors
    /// The writer fails, or [`Self::begin_result`] was not called.
    pub fn piece(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.text {
            Some(text) => text.write(bytes, &mut self.into),
            None => Err(io::Error::other("the result was not begun")),
        }
    }

    /// Ends the line.
    ///
    /// # Errors
    /// The writer fails.
    pub fn finish(mut self) -> io::Result<()> {
        if let Some(text) = self.text.take() {
            text.finish(&mut self.into)?;
            self.into.write_all(b"\"")?;
        }
        self.into.write_all(b"}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(fields: Map<String, Value>, outcome: &Outcome, pieces: Option<&[&[u8]]>) -> String {
        let end = EndView {
            job: JobId(7),
            outcome,
            attempts: 2,
            output_bytes: 6,
            output_gone: None,
            survivors: &[],
        };
        let mut out = Vec::new();
        let mut line = ResultLine::begin(fields, &end, &mut out).unwrap();
        if let Some(pieces) = pieces {
            line.begin_result().unwrap();
            pieces.iter().for_each(|piece| line.piece(piece).unwrap());
        }
        line.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_is_an_object_with_the_result_at_its_end() {
        let failed = Outcome::Failed { message: "no".to_owned(), code: Some(3) };
        for (text, wanted) in [
            (
                line(of_input(3, "a"), &Outcome::Done, Some(&[b"a\"b\n\xC3", b"\xA9"])),
                r#"{"attempts":2,"index":3,"input":"a","job":7,"outcome":"done","output_bytes":6,"result":"a\"b\né"}"#,
            ),
            (
                line(Map::new(), &Outcome::Done, Some(&[])),
                r#"{"attempts":2,"job":7,"outcome":"done","output_bytes":6,"result":""}"#,
            ),
            (
                line(Map::new(), &failed, None),
                r#"{"attempts":2,"code":3,"job":7,"message":"no","outcome":"failed","output_bytes":6}"#,
            ),
        ] {
            assert_eq!(text, format!("{wanted}\n"));
        }
    }

    #[test]
    fn a_piece_without_a_result_is_an_error() {
        let end = EndView {
            job: JobId(7),
            outcome: &Outcome::Done,
            attempts: 1,
            output_bytes: 0,
            output_gone: None,
            survivors: &[],
        };
        let mut line = ResultLine::begin(Map::new(), &end, Vec::new()).unwrap();
        assert!(line.piece(b"a").is_err());
    }
}

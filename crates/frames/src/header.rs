//! The header (first line) of a Y4M clip: parsed into fields, and written from them.
//!
//! Rate, aspect, interlacing and comments are written as they were read, unless an operation changes them. Tags are
//! written in one fixed order. Driven by `clip_reader.rs` and `clip_scan.rs`.

use std::fmt::Write as _;

use crate::colour::Colour;
use crate::error::{Flaw, TransformError};
use crate::limits::SIDE_MAX;
use crate::shape::{Shape, Size};

/// The magic bytes at the start of every clip.
pub(crate) const MAGIC: &[u8] = b"YUV4MPEG2";

/// A fraction, not reduced; 0:0 means unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio {
    /// The numerator.
    pub over: u32,
    /// The denominator.
    pub under: u32,
}

/// Which rows of a frame belong to the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interlacing {
    /// `Ip`: all rows to one moment.
    Progressive,
    /// `It`: rows of two moments alternate, the first row belongs to the earlier one.
    TopFirst,
    /// `Ib`: rows of two moments alternate, the first row belongs to the later one.
    BottomFirst,
    /// `Im`: each FRAME line says it for its frame.
    Mixed,
    /// `I?`: not known.
    Unknown,
}

const INTERLACINGS: [(&str, Interlacing); 5] = [
    ("p", Interlacing::Progressive),
    ("t", Interlacing::TopFirst),
    ("b", Interlacing::BottomFirst),
    ("m", Interlacing::Mixed),
    ("?", Interlacing::Unknown),
];

/// A clip's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Size and colour space.
    pub shape: Shape,
    /// Frames a second, if given.
    pub rate: Option<Ratio>,
    /// The interlacing, if given.
    pub interlacing: Option<Interlacing>,
    /// The ratio of a pixel's width to its height, if given.
    pub aspect: Option<Ratio>,
    /// The `X` tags without their letter, in their order; any bytes.
    pub comments: Vec<Vec<u8>>,
}

impl Header {
    /// Parses the first line of a clip, without its newline.
    ///
    /// # Errors
    /// [`TransformError::Clip`] with the byte offset of the wrong tag.
    pub fn parse(line: &[u8]) -> Result<Self, TransformError> {
        let rest = line.strip_prefix(MAGIC).filter(|rest| rest.is_empty() || rest[0] == b' ');
        let rest = rest.ok_or(TransformError::clip(0, Flaw::NotY4m))?;
        let mut tags = Tags::default();
        let mut at = MAGIC.len() as u64;
        for word in rest.split(|byte| *byte == b' ') {
            if !word.is_empty() {
                tags.take(word).map_err(|flaw| TransformError::clip(at, flaw))?;
            }
            at += word.len() as u64 + 1;
        }
        tags.into_header().map_err(|flaw| TransformError::clip(0, flaw))
    }

    /// The line, with its newline.
    pub fn to_line(&self) -> Vec<u8> {
        let mut text = format!("YUV4MPEG2 W{} H{}", self.shape.size().width, self.shape.size().height);
        let mut add = |tag: char, value: &str| {
            write!(text, " {tag}{value}").expect("a string takes all that is written to it");
        };
        if let Some(Ratio { over, under }) = self.rate {
            add('F', &format!("{over}:{under}"));
        }
        if let Some(interlacing) = self.interlacing {
            let row = INTERLACINGS.iter().find(|row| row.1 == interlacing);
            add('I', row.expect("every interlacing is in the table").0);
        }
        if let Some(Ratio { over, under }) = self.aspect {
            add('A', &format!("{over}:{under}"));
        }
        add('C', self.shape.colour().tag());
        let mut line = text.into_bytes();
        for comment in &self.comments {
            line.extend_from_slice(b" X");
            line.extend_from_slice(comment);
        }
        line.push(b'\n');
        line
    }

    /// Whether a frame has, or may have, rows of two moments.
    pub(crate) fn is_interlaced(&self) -> bool {
        use Interlacing::{BottomFirst, Mixed, TopFirst};
        matches!(self.interlacing, Some(TopFirst | BottomFirst | Mixed))
    }
}

/// The tags that were parsed so far.
#[derive(Default)]
struct Tags {
    width: Option<u32>,
    height: Option<u32>,
    rate: Option<Ratio>,
    interlacing: Option<Interlacing>,
    aspect: Option<Ratio>,
    colour: Option<Colour>,
    comments: Vec<Vec<u8>>,
}

impl Tags {
    /// Parses one word of the line, which is not empty.
    fn take(&mut self, word: &[u8]) -> Result<(), Flaw> {
        if let Some(comment) = word.strip_prefix(b"X") {
            self.comments.push(comment.to_vec());
            return Ok(());
        }
        let text = String::from_utf8_lossy(word);
        let mut letters = text.chars();
        let tag = letters.next();
        let value = letters.as_str();
        match tag {
            Some('W') => set(&mut self.width, "width", side("width", value)?),
            Some('H') => set(&mut self.height, "height", side("height", value)?),
            Some('F') => set(&mut self.rate, "frame rate", ratio("frame rate", value)?),
            Some('A') => set(&mut self.aspect, "pixel aspect", ratio("pixel aspect", value)?),
            Some('I') => set(&mut self.interlacing, "interlacing", interlacing(value)?),
            Some('C') => set(&mut self.colour, "colour space", colour(value)?),
            _ => Err(Flaw::UnknownTag(cut(&text))),
        }
    }

    fn into_header(self) -> Result<Header, Flaw> {
        let width = self.width.ok_or(Flaw::Missing("width"))?;
        let height = self.height.ok_or(Flaw::Missing("height"))?;
        Ok(Header {
            shape: Shape::new(Size::new(width, height), self.colour.unwrap_or_else(Colour::unsaid))?,
            rate: self.rate,
            interlacing: self.interlacing,
            aspect: self.aspect,
            comments: self.comments,
        })
    }
}

fn set<T>(place: &mut Option<T>, name: &'static str, value: T) -> Result<(), Flaw> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Flaw::Twice(name)),
    }
}

fn side(name: &'static str, value: &str) -> Result<u32, Flaw> {
    let number = digits(value).filter(|side| (1..=SIDE_MAX).contains(side));
    number.ok_or_else(|| bad(name, value, format!("1 to {SIDE_MAX}")))
}

/// `N:M`, both above 0, or `0:0`.
fn ratio(name: &'static str, value: &str) -> Result<Ratio, Flaw> {
    let parts = value.split_once(':').and_then(|(over, under)| Some((digits(over)?, digits(under)?)));
    let parts = parts.filter(|(over, under)| (*over == 0) == (*under == 0));
    let (over, under) = parts.ok_or_else(|| bad(name, value, "a fraction as 25:1, or 0:0".into()))?;
    Ok(Ratio { over, under })
}

fn interlacing(value: &str) -> Result<Interlacing, Flaw> {
    let row = INTERLACINGS.iter().find(|row| row.0 == value);
    row.map(|row| row.1).ok_or_else(|| bad("interlacing", value, "one of p, t, b, m and ?".into()))
}

fn colour(value: &str) -> Result<Colour, Flaw> {
    Colour::named(value).ok_or_else(|| bad("colour space", value, format!("one of {}", Colour::tags())))
}

/// Parses a number of digits alone: no sign, no blank, no overflow.
pub(crate) fn digits(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

fn bad(name: &'static str, value: &str, wanted: String) -> Flaw {
    Flaw::Value { name, value: cut(value), wanted }
}

/// Untrusted text, cut for a message.
pub(crate) fn cut(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests;

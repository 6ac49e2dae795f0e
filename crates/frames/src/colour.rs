//! The colour spaces of Y4M that can be transformed: chroma subsampling, chroma position, and bits of a sample.
//!
//! One table with the values of the format's `C` tag. All other code asks for the fields and never for the tag.

use std::fmt;

/// The subsampling of chroma.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chroma {
    /// None: luma alone.
    Mono,
    /// One chroma sample for 2 x 2 luma samples.
    C420,
    /// One chroma sample for two luma samples in a row.
    C422,
    /// One chroma sample for each luma sample.
    C444,
}

impl Chroma {
    /// How many luma samples one chroma sample covers, across and down.
    pub fn steps(self) -> (u32, u32) {
        match self {
            Self::C420 => (2, 2),
            Self::C422 => (2, 1),
            Self::C444 | Self::Mono => (1, 1),
        }
    }
}

impl fmt::Display for Chroma {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Mono => "mono",
            Self::C420 => "4:2:0",
            Self::C422 => "4:2:2",
            Self::C444 => "4:4:4",
        })
    }
}

/// Bits of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// One byte a sample.
    Eight,
    /// Two bytes a sample, the low one first, values from 0 to 1023.
    Ten,
}

impl Depth {
    /// Bytes of a sample in the clip.
    pub fn bytes(self) -> u64 {
        match self {
            Self::Eight => 1,
            Self::Ten => 2,
        }
    }
}

/// A colour space: a row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour {
    tag: &'static str,
    chroma: Chroma,
    depth: Depth,
}

/// Every known colour space. Of the rows that differ only in the position of chroma, the first is the one that a
/// quarter turn does not change.
const TABLE: [Colour; 11] = [
    row("420jpeg", Chroma::C420, Depth::Eight), // between the four pixels
    row("420mpeg2", Chroma::C420, Depth::Eight), // on the left ones, between the rows
    row("420paldv", Chroma::C420, Depth::Eight), // on the upper left one
    row("420", Chroma::C420, Depth::Eight),     // as 420jpeg
    row("422", Chroma::C422, Depth::Eight),
    row("444", Chroma::C444, Depth::Eight),
    row("mono", Chroma::Mono, Depth::Eight),
    row("420p10", Chroma::C420, Depth::Ten),
    row("422p10", Chroma::C422, Depth::Ten),
    row("444p10", Chroma::C444, Depth::Ten),
    row("mono10", Chroma::Mono, Depth::Ten),
];

const fn row(tag: &'static str, chroma: Chroma, depth: Depth) -> Colour {
    Colour { tag, chroma, depth }
}

impl Colour {
    /// The colour space of this `C` tag.
    pub fn named(tag: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.tag == tag).copied()
    }

    /// The colour space of a clip without a `C` tag: 4:2:0, 8 bit.
    pub fn unsaid() -> Self {
        TABLE[0]
    }

    /// The tags of all rows, for a message.
    pub fn tags() -> String {
        TABLE.map(|row| row.tag).join(", ")
    }

    /// The value of the `C` tag.
    pub fn tag(self) -> &'static str {
        self.tag
    }

    /// How chroma is subsampled.
    pub fn chroma(self) -> Chroma {
        self.chroma
    }

    /// How many bits a sample has.
    pub fn depth(self) -> Depth {
        self.depth
    }

    /// The same without chroma.
    pub(crate) fn mono(self) -> Self {
        self.like(Chroma::Mono)
    }

    /// The colour space after a quarter turn. The position of chroma turns with the picture, and only the middle
    /// position stays the same. Y4M has no tags for the other turned positions, so the result has the middle one.
    pub(crate) fn turned(self) -> Self {
        match self.tag {
            "420" => self,
            _ => self.like(self.chroma),
        }
    }

    /// The first row with this chroma and our depth.
    fn like(self, chroma: Chroma) -> Self {
        let row = TABLE.iter().find(|row| row.chroma == chroma && row.depth == self.depth);
        *row.expect("the table has each chroma in each depth")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_by_its_tag() {
        for row in TABLE {
            assert_eq!(Colour::named(row.tag), Some(row));
            assert_eq!(row.mono().depth(), row.depth());
            assert_eq!(row.turned().chroma(), row.chroma());
        }
        assert_eq!(Colour::named("411"), None);
    }

    #[test]
    fn a_turn_keeps_only_chroma_in_the_middle() {
        let turned = |tag| Colour::named(tag).unwrap().turned().tag();
        assert_eq!(turned("420jpeg"), "420jpeg");
        assert_eq!(turned("420"), "420");
        assert_eq!(turned("420mpeg2"), "420jpeg");
        assert_eq!(turned("420paldv"), "420jpeg");
        assert_eq!(turned("422p10"), "422p10");
    }
}

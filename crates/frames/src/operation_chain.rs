//! The chain of operations as the user writes it: `scale=320x180:lanczos,gray,blur=2,rotate=90,crop=64x48+8+0`.
//!
//! Jobs carry and store a chain as this text. It needs no version: an operation never changes its meaning, a new
//! meaning gets a new name, and an unknown name is refused. `recipe.rs` decides whether a chain fits a clip.

use std::fmt;
use std::str::FromStr;

use crate::error::TransformError;
use crate::header::{cut, digits};
use crate::limits::{BLUR_RADIUS_MAX, OPERATIONS_MAX, SIDE_MAX};
use crate::shape::Size;

/// The interpolation filter of a scale operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// A windowed sinc with three lobes: sharp; the default.
    Lanczos,
    /// A triangle: softer and faster.
    Bilinear,
}

const FILTERS: [(&str, Filter); 2] = [("lanczos", Filter::Lanczos), ("bilinear", Filter::Bilinear)];

/// A clockwise rotation of the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// By 90 degrees.
    Quarter,
    /// By 180 degrees.
    Half,
    /// By 270 degrees.
    ThreeQuarters,
}

const ROTATIONS: [(&str, Rotation); 3] =
    [("90", Rotation::Quarter), ("180", Rotation::Half), ("270", Rotation::ThreeQuarters)];

/// One operation. It is applied to each frame independently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `scale=WxH[:lanczos|:bilinear]`: to this size.
    Scale(Size, Filter),
    /// `gray`: chroma becomes neutral; luma and the colour space stay the same.
    Gray,
    /// `mono`: the clip loses its chroma planes; luma stays the same.
    Mono,
    /// `blur=N`: each sample becomes the mean of the (2N + 1) x (2N + 1) pixels around it.
    Blur(u32),
    /// `rotate=90`, `180` or `270`, clockwise.
    Rotate(Rotation),
    /// `crop=WxH+X+Y`: a part of this size, X pixels from the left and Y from the top.
    Crop {
        /// The size of the part that is kept.
        size: Size,
        /// Columns left out at the left.
        x: u32,
        /// Rows left out at the top.
        y: u32,
    },
}

/// At least one operation, applied from the first to the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationChain(Vec<Operation>);

impl OperationChain {
    /// The operations in their order.
    pub fn operations(&self) -> &[Operation] {
        &self.0
    }

    /// Whether the output has no chroma of the input.
    pub(crate) fn drops_chroma(&self) -> bool {
        self.0.iter().any(|operation| matches!(operation, Operation::Gray | Operation::Mono))
    }
}

impl FromStr for OperationChain {
    type Err = TransformError;

    /// # Errors
    /// [`TransformError::Chain`] that names the operation and its value.
    fn from_str(text: &str) -> Result<Self, TransformError> {
        let words: Vec<&str> = text.trim().split(',').map(str::trim).collect();
        if words == [""] {
            return Err(TransformError::Chain(format!("the chain has no operation; give {USAGE}")));
        }
        if words.len() > OPERATIONS_MAX {
            let count = words.len();
            return Err(TransformError::Chain(format!(
                "the chain has {count} operations, the limit is {OPERATIONS_MAX}"
            )));
        }
        words.into_iter().map(operation).collect::<Result<_, _>>().map(Self).map_err(TransformError::Chain)
    }
}

const USAGE: &str =
    "some of scale=WxH[:lanczos|:bilinear], gray, mono, blur=N, rotate=90|180|270, crop=WxH+X+Y";

fn operation(word: &str) -> Result<Operation, String> {
    let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
    let read = match name {
        "scale" => scale(value.unwrap_or("")),
        "blur" => blur(value.unwrap_or("")),
        "rotate" => rotate(value.unwrap_or("")),
        "crop" => crop(value.unwrap_or("")),
        "gray" if value.is_none() => Ok(Operation::Gray),
        "mono" if value.is_none() => Ok(Operation::Mono),
        "gray" | "mono" => Err("no value".to_owned()),
        _ => return Err(format!("operation {:?} is not known; give {USAGE}", cut(word))),
    };
    read.map_err(|wanted| format!("operation {:?}: give {name} {wanted}", cut(word)))
}

/// Each of these functions parses a value; the error says what is expected.
fn scale(value: &str) -> Result<Operation, String> {
    let (wanted, name) = value.split_once(':').unwrap_or((value, "lanczos"));
    let filter = FILTERS.iter().find(|row| row.0 == name);
    let filter = filter.ok_or("one of the filters lanczos and bilinear, as scale=320x180:lanczos")?.1;
    let size = size(wanted).ok_or_else(|| format!("a size of 1 to {SIDE_MAX} each way, as scale=320x180"))?;
    Ok(Operation::Scale(size, filter))
}

fn blur(value: &str) -> Result<Operation, String> {
    let radius = digits(value).filter(|radius| (1..=BLUR_RADIUS_MAX).contains(radius));
    radius.map(Operation::Blur).ok_or_else(|| format!("a radius of 1 to {BLUR_RADIUS_MAX}, as blur=2"))
}

fn rotate(value: &str) -> Result<Operation, String> {
    let turn = ROTATIONS.iter().find(|row| row.0 == value);
    turn.map(|row| Operation::Rotate(row.1)).ok_or_else(|| "90, 180 or 270 degrees, as rotate=90".to_owned())
}

fn crop(value: &str) -> Result<Operation, String> {
    let wanted = || format!("a size of 1 to {SIDE_MAX} each way and where it begins, as crop=64x48+8+0");
    let mut parts = value.split('+');
    let size = parts.next().and_then(size).ok_or_else(wanted)?;
    let mut place = || parts.next().and_then(digits).filter(|place| *place < SIDE_MAX).ok_or_else(wanted);
    let (x, y) = (place()?, place()?);
    if parts.next().is_some() { Err(wanted()) } else { Ok(Operation::Crop { size, x, y }) }
}

fn size(text: &str) -> Option<Size> {
    let (width, height) = text.split_once('x')?;
    Some(Size::new(digits(width)?, digits(height)?)).filter(|size| size.is_possible())
}

impl fmt::Display for Operation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scale(size, filter) => write!(out, "scale={size}:{}", name(&FILTERS, *filter)),
            Self::Gray => out.write_str("gray"),
            Self::Mono => out.write_str("mono"),
            Self::Blur(radius) => write!(out, "blur={radius}"),
            Self::Rotate(turn) => write!(out, "rotate={}", name(&ROTATIONS, *turn)),
            Self::Crop { size, x, y } => write!(out, "crop={size}+{x}+{y}"),
        }
    }
}

fn name<T: PartialEq>(table: &[(&'static str, T)], value: T) -> &'static str {
    table.iter().find(|row| row.1 == value).expect("every value is in its table").0
}

impl fmt::Display for OperationChain {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, operation) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(out, "{comma}{operation}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> String {
        text.parse::<OperationChain>().unwrap_err().to_string()
    }

    #[test]
    fn every_operation_is_read_and_written() {
        let text = "scale=320x180:lanczos,gray,mono,blur=2,rotate=90,rotate=180,rotate=270,crop=64x48+8+0,\
                    scale=1x16384:bilinear";
        let chain: OperationChain = text.parse().unwrap();
        assert_eq!(chain.to_string(), text);
        assert_eq!(chain.operations().len(), 9);
        assert!(chain.drops_chroma());
    }

    #[test]
    fn blanks_and_the_default_filter() {
        let chain: OperationChain = " scale=2x4 , blur=1\n".parse().unwrap();
        assert_eq!(chain.to_string(), "scale=2x4:lanczos,blur=1");
        assert!(!chain.drops_chroma());
    }

    #[test]
    fn a_bad_operation_is_named_with_its_value() {
        for (text, wanted) in [
            ("gray=1", "give gray no value"),
            ("scale", "a size of 1 to 16384"),
            ("scale=320", "a size of 1 to 16384"),
            ("scale=0x5", "a size of 1 to 16384"),
            ("scale=5x16385", "a size of 1 to 16384"),
            ("scale=-1x5", "a size of 1 to 16384"),
            ("scale=5x5:cubic", "one of the filters lanczos and bilinear"),
            ("blur=", "a radius of 1 to 512"),
            ("blur=0", "a radius of 1 to 512"),
            ("blur=513", "a radius of 1 to 512"),
            ("blur=2.5", "a radius of 1 to 512"),
            ("rotate=45", "90, 180 or 270 degrees"),
            ("rotate", "90, 180 or 270 degrees"),
            ("crop=64x48", "where it begins"),
            ("crop=64x48+1", "where it begins"),
            ("crop=64x48+1+2+3", "where it begins"),
            ("crop=64x48-1+2", "where it begins"),
        ] {
            let told = told(&format!("mono,{text}"));
            let name = text.split('=').next().unwrap();
            assert!(told.starts_with(&format!("operation {text:?}: give {name} ")), "{told}");
            assert!(told.contains(wanted), "{told}");
        }
    }

    #[test]
    fn what_is_unknown_missing_or_too_much_is_told() {
        assert!(told("grey").starts_with("operation \"grey\" is not known; give some of scale=WxH"));
        assert!(told("gray,").starts_with("operation \"\" is not known"));
        assert!(told("  ").starts_with("the chain has no operation; give some of"));
        assert_eq!(told(&["gray"; 17].join(",")), "the chain has 17 operations, the limit is 16");
    }
}

//! A chain applied to one clip's header: the header of the output, and the stages for each plane.
//!
//! It decides once for all frames what each operation means for the clip's geometry, and refuses operations whose
//! result would be wrong. It touches no samples; `transform.rs` runs the stages.

use serde::{Deserialize, Serialize};

use crate::colour::Chroma;
use crate::error::TransformError;
use crate::header::{Header, Interlacing, Ratio};
use crate::operation_chain::{Filter, Operation, OperationChain, Rotation};
use crate::plane::blur::Radius;
use crate::shape::{Shape, Size};

/// The operation of a stage on one plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlaneOperation {
    Scale(Filter),
    Blur(Radius),
    Rotate(Rotation),
    Crop { x: u32, y: u32 },
}

/// An operation with the sizes of the plane before and after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlaneStage {
    pub(crate) step: PlaneOperation,
    pub(crate) from: Size,
    pub(crate) to: Size,
}

/// A chain for the frames of one clip.
///
/// It is serialised as the clip's header and the chain's text, and made again from them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RecipeText", into = "RecipeText")]
pub struct Recipe {
    input: Header,
    output: Header,
    chain: OperationChain,
    luma: Vec<PlaneStage>,
    /// The stages of both chroma planes; empty if the output has nothing of the clip's chroma.
    chroma: Vec<PlaneStage>,
}

/// The serialised form of a recipe.
#[derive(Clone, Serialize, Deserialize)]
struct RecipeText {
    header: Vec<u8>,
    chain: String,
}

impl From<Recipe> for RecipeText {
    fn from(recipe: Recipe) -> Self {
        Self { header: recipe.input.to_line(), chain: recipe.chain.to_string() }
    }
}

impl TryFrom<RecipeText> for Recipe {
    type Error = TransformError;

    fn try_from(written: RecipeText) -> Result<Self, TransformError> {
        let line = written.header.strip_suffix(b"\n").unwrap_or(&written.header);
        Self::new(Header::parse(line)?, written.chain.parse()?)
    }
}

impl Recipe {
    /// Applies this chain to a clip with this header.
    ///
    /// # Errors
    /// [`TransformError::Chain`], which names the operation, if it cannot be applied to this clip or its result would
    /// be wrong.
    pub fn new(input: Header, chain: OperationChain) -> Result<Self, TransformError> {
        let mut recipe = Self { output: input.clone(), input, chain, luma: Vec::new(), chroma: Vec::new() };
        for operation in recipe.chain.operations().to_vec() {
            recipe
                .add(operation)
                .map_err(|why| TransformError::Chain(format!("operation {operation}: {why}")))?;
        }
        if recipe.chain.drops_chroma() || recipe.input.shape.colour().chroma() == Chroma::Mono {
            recipe.chroma.clear();
        }
        if recipe.output.shape.colour() != recipe.input.shape.colour() {
            // Programs add a comment that repeats the colour space; it would be wrong now.
            recipe.output.comments.retain(|comment| !comment.starts_with(b"YSCSS="));
        }
        Ok(recipe)
    }

    /// The header of the clip.
    pub fn input(&self) -> &Header {
        &self.input
    }

    /// The header of the output.
    pub fn output(&self) -> &Header {
        &self.output
    }

    /// The chain.
    pub fn chain(&self) -> &OperationChain {
        &self.chain
    }

    /// The stages of luma.
    pub(crate) fn luma(&self) -> &[PlaneStage] {
        &self.luma
    }

    /// The stages of chroma.
    pub(crate) fn chroma(&self) -> &[PlaneStage] {
        &self.chroma
    }

    /// Whether the clip's chroma is part of the output.
    pub(crate) fn needs_chroma(&self) -> bool {
        !self.chain.drops_chroma() && self.input.shape.colour().chroma() != Chroma::Mono
    }

    fn add(&mut self, operation: Operation) -> Result<(), String> {
        let shape = self.output.shape;
        match operation {
            Operation::Scale(size, filter) => self.scale(size, filter),
            Operation::Blur(radius) => self.blur(radius),
            Operation::Rotate(turn) => self.rotate(turn),
            Operation::Crop { size, x, y } => self.crop(size, x, y),
            Operation::Gray => Ok(()),
            Operation::Mono => {
                self.output.shape = Shape::new(shape.size(), shape.colour().mono())
                    .expect("a frame without chroma is smaller than it was");
                Ok(())
            }
        }
    }

    fn scale(&mut self, size: Size, filter: Filter) -> Result<(), String> {
        let before = self.output.shape;
        if size.height != before.size().height {
            self.refuse_interlaced()?;
        }
        let after = Shape::new(size, before.colour()).map_err(|flaw| flaw.to_string())?;
        self.output.aspect = self.output.aspect.map(|aspect| squeezed(aspect, before.size(), size));
        self.step(after, |_| PlaneOperation::Scale(filter));
        Ok(())
    }

    fn blur(&mut self, radius: u32) -> Result<(), String> {
        self.refuse_interlaced()?;
        // On subsampled chroma the same distance is fewer samples, rounded to the nearest, a half up.
        let samples = |step: u32| (radius + step / 2) / step;
        self.step(self.output.shape, |(across, down)| {
            PlaneOperation::Blur(Radius { across: samples(across), down: samples(down) })
        });
        Ok(())
    }

    fn rotate(&mut self, turn: Rotation) -> Result<(), String> {
        self.refuse_interlaced()?;
        let before = self.output.shape;
        let colour = before.colour().turned();
        if turn == Rotation::Half {
            let after = Shape::new(before.size(), colour).expect("a turn keeps the size");
            self.step(after, |_| PlaneOperation::Rotate(turn));
            return Ok(());
        }
        let swap = |Ratio { over, under }| Ratio { over: under, under: over };
        self.output.aspect = self.output.aspect.map(swap);
        let after = Shape::new(before.size().turned(), colour).map_err(|flaw| flaw.to_string())?;
        self.luma.push(PlaneStage {
            step: PlaneOperation::Rotate(turn),
            from: before.size(),
            to: after.size(),
        });
        let (lying, standing) = (before.chroma_size(), before.chroma_size().turned());
        self.chroma.push(PlaneStage { step: PlaneOperation::Rotate(turn), from: lying, to: standing });
        if standing != after.chroma_size() {
            // Rotated 4:2:2 is subsampled vertically, for which Y4M has no tag. So its chroma is scaled back to 4:2:2.
            let step = PlaneOperation::Scale(Filter::Lanczos);
            self.chroma.push(PlaneStage { step, from: standing, to: after.chroma_size() });
        }
        self.output.shape = after;
        Ok(())
    }

    fn crop(&mut self, size: Size, x: u32, y: u32) -> Result<(), String> {
        let before = self.output.shape;
        let Size { width, height } = before.size();
        if u64::from(x) + u64::from(size.width) > u64::from(width)
            || u64::from(y) + u64::from(size.height) > u64::from(height)
        {
            return Err(format!(
                "it reaches beyond the picture, which is {} at that operation",
                before.size()
            ));
        }
        let chroma = before.colour().chroma();
        let (across, down) = chroma.steps();
        // The chroma rows of interlaced frames alternate between two moments, so two of them belong together.
        let down = if self.output.is_interlaced() && down == 2 { 4 } else { down };
        if !x.is_multiple_of(across) || !y.is_multiple_of(down) {
            return Err(format!("in {chroma} it can only begin at multiples of {across} (X) and {down} (Y)"));
        }
        if self.output.is_interlaced() && !y.is_multiple_of(2) {
            self.output.interlacing = Some(self.other_field_first()?);
        }
        let after = Shape::new(size, before.colour()).expect("a part is not larger than the whole");
        self.step(after, |(across, down)| PlaneOperation::Crop { x: x / across, y: y / down });
        Ok(())
    }

    /// Adds a stage to all planes. `step` gets how many luma samples one sample of the plane covers, across and down.
    fn step(&mut self, after: Shape, step: impl Fn((u32, u32)) -> PlaneOperation) {
        let before = std::mem::replace(&mut self.output.shape, after);
        self.luma.push(PlaneStage { step: step((1, 1)), from: before.size(), to: after.size() });
        let steps = before.colour().chroma().steps();
        self.chroma.push(PlaneStage {
            step: step(steps),
            from: before.chroma_size(),
            to: after.chroma_size(),
        });
    }

    fn refuse_interlaced(&self) -> Result<(), String> {
        if self.output.is_interlaced() {
            return Err(
                "the clip is interlaced, so rows of two moments would be mixed; deinterlace it first".into(),
            );
        }
        Ok(())
    }

    /// The interlacing without the first row.
    fn other_field_first(&self) -> Result<Interlacing, String> {
        match self.output.interlacing {
            Some(Interlacing::TopFirst) => Ok(Interlacing::BottomFirst),
            Some(Interlacing::BottomFirst) => Ok(Interlacing::TopFirst),
            _ => Err("in a clip of mixed interlacing it can only begin at an even row".into()),
        }
    }
}

/// The aspect of a pixel after scaling, such that the picture keeps its shape on the screen.
fn squeezed(aspect: Ratio, before: Size, after: Size) -> Ratio {
    let wide = |side: u32| u128::from(side);
    let over = wide(aspect.over) * wide(before.width) * wide(after.height);
    let under = wide(aspect.under) * wide(before.height) * wide(after.width);
    let (mut divisor, mut rest) = (over, under);
    while rest != 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    let part = |whole: u128| u32::try_from(whole / divisor.max(1)).ok();
    match (part(over), part(under)) {
        (Some(over), Some(under)) => Ratio { over, under },
        // The numbers do not fit, so the aspect is unknown.
        _ => Ratio { over: 0, under: 0 },
    }
}

#[cfg(test)]
mod tests;

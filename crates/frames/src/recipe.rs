//! A chain made to suit a clip: what comes out, and the stages that each plane goes through.
//!
//! It decides once for all frames what each operation means for this clip's geometry, and refuses what would come
//! out wrong. It touches no samples; `transform.rs` performs the stages.

use serde::{Deserialize, Serialize};

use crate::colour::Chroma;
use crate::error::TransformError;
use crate::header::{Header, Interlacing, Ratio};
use crate::operation_chain::{Filter, Operation, OperationChain, Turn};
use crate::plane::blur::Radius;
use crate::shape::{Shape, Size};

/// What is done to one plane, from one size to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlaneOperation {
    Scale(Filter),
    Blur(Radius),
    Turn(Turn),
    Crop { x: u32, y: u32 },
}

/// A step with its sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlaneStage {
    pub(crate) step: PlaneOperation,
    pub(crate) from: Size,
    pub(crate) to: Size,
}

/// A chain for the frames of one clip.
///
/// It travels as the clip's header and the chain's text, and is made again from them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RecipeText", into = "RecipeText")]
pub struct Recipe {
    input: Header,
    output: Header,
    chain: OperationChain,
    luma: Vec<PlaneStage>,
    /// For both planes of chroma; none if nothing of the clip's chroma is in the output.
    chroma: Vec<PlaneStage>,
}

/// The form in which a recipe travels.
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
    /// What this chain does to a clip with this header.
    ///
    /// # Errors
    /// [`TransformError::Chain`] that names the operation, if it cannot be done to this clip or would come out wrong.
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
            // A comment that programs add says the colour space again; it would be a lie now.
            recipe.output.comments.retain(|comment| !comment.starts_with(b"YSCSS="));
        }
        Ok(recipe)
    }

    /// The header of the clip.
    pub fn input(&self) -> &Header {
        &self.input
    }

    /// The header of what comes out.
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
        // On subsampled chroma the same distance is fewer samples; a half counts as a whole one.
        let samples = |step: u32| (radius + step / 2) / step;
        self.step(self.output.shape, |(across, down)| {
            PlaneOperation::Blur(Radius { across: samples(across), down: samples(down) })
        });
        Ok(())
    }

    fn rotate(&mut self, turn: Turn) -> Result<(), String> {
        self.refuse_interlaced()?;
        let before = self.output.shape;
        let colour = before.colour().turned();
        if turn == Turn::Half {
            let after = Shape::new(before.size(), colour).expect("a turn keeps the size");
            self.step(after, |_| PlaneOperation::Turn(turn));
            return Ok(());
        }
        let swap = |Ratio { over, under }| Ratio { over: under, under: over };
        self.output.aspect = self.output.aspect.map(swap);
        let after = Shape::new(before.size().turned(), colour).map_err(|flaw| flaw.to_string())?;
        self.luma.push(PlaneStage {
            step: PlaneOperation::Turn(turn),
            from: before.size(),
            to: after.size(),
        });
        let (lying, standing) = (before.chroma_size(), before.chroma_size().turned());
        self.chroma.push(PlaneStage { step: PlaneOperation::Turn(turn), from: lying, to: standing });
        if standing != after.chroma_size() {
            // 4:2:2 on its side is halved downwards, for which Y4M has no word: chroma is scaled back to 4:2:2.
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
            return Err(format!("it reaches beyond the picture, which is {} there", before.size()));
        }
        let chroma = before.colour().chroma();
        let (across, down) = chroma.steps();
        // Chroma rows of interlaced frames take turns, so two of them belong together.
        let down = if self.output.is_interlaced() && down == 2 { 4 } else { down };
        if !x.is_multiple_of(across) || !y.is_multiple_of(down) {
            return Err(format!("in {chroma} it can only begin at multiples of {across} and {down}"));
        }
        if self.output.is_interlaced() && !y.is_multiple_of(2) {
            self.output.interlacing = Some(self.other_field_first()?);
        }
        let after = Shape::new(size, before.colour()).expect("a part is not larger than the whole");
        self.step(after, |(across, down)| PlaneOperation::Crop { x: x / across, y: y / down });
        Ok(())
    }

    /// Adds a stage to all planes; `step` gets the luma samples for one sample of the plane, across and down.
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
                "the clip is interlaced, rows of two moments would be mixed; deinterlace it first".into()
            );
        }
        Ok(())
    }

    /// What becomes of the interlacing when the first row goes.
    fn other_field_first(&self) -> Result<Interlacing, String> {
        match self.output.interlacing {
            Some(Interlacing::TopFirst) => Ok(Interlacing::BottomFirst),
            Some(Interlacing::BottomFirst) => Ok(Interlacing::TopFirst),
            _ => Err("in a clip of mixed interlacing it can only begin at an even row".into()),
        }
    }
}

/// The shape of a pixel once the picture was squeezed: the picture keeps its shape on the screen.
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
        // Nothing that a player could use; unknown is true.
        _ => Ratio { over: 0, under: 0 },
    }
}

#[cfg(test)]
mod tests;

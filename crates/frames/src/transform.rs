//! Runs frames through the stages of a recipe: the only code that processes samples.
//!
//! Each plane goes through its stages by itself, between two buffers that are reused from frame to frame. The result
//! for a frame depends only on that frame and the recipe. Driven by `range_run.rs` and `stream.rs`.

use crate::colour::Depth;
use crate::frame::Frame;
use crate::plane::blur::{Scratch, blur};
use crate::plane::rotate::rotate;
use crate::plane::scale::Scaler;
use crate::plane::{Sample, crop};
use crate::recipe::{PlaneOperation, PlaneStage, Recipe};
use crate::shape::Shape;

/// A recipe with the memory that its stages need.
#[derive(Debug)]
pub struct FrameTransform<'a> {
    recipe: &'a Recipe,
    pipeline: DepthPipeline,
}

/// The pipeline for samples of the clip's depth.
#[derive(Debug)]
enum DepthPipeline {
    Eight(PlanePipeline<u8>),
    Ten(PlanePipeline<u16>),
}

impl<'a> FrameTransform<'a> {
    /// Prepares the memory for this recipe.
    pub fn new(recipe: &'a Recipe) -> Self {
        let pipeline = match recipe.input().shape.colour().depth() {
            Depth::Eight => DepthPipeline::Eight(PlanePipeline::default()),
            Depth::Ten => DepthPipeline::Ten(PlanePipeline::default()),
        };
        Self { recipe, pipeline }
    }

    /// Transforms `input` into `output`. It may overwrite `input`. Both must have the sizes of the recipe.
    pub fn apply(&mut self, input: &mut Frame, output: &mut Frame) {
        let recipe = self.recipe;
        match &mut self.pipeline {
            DepthPipeline::Eight(pipeline) => pipeline.frame(recipe, input.bytes(), output.bytes_mut()),
            DepthPipeline::Ten(pipeline) => {
                for word in input.words_mut() {
                    *word = u16::from_le(*word).min(<u16 as Sample>::MAX);
                }
                pipeline.frame(recipe, input.words(), output.words_mut());
                output.words_mut().iter_mut().for_each(|word| *word = word.to_le());
            }
        }
    }
}

/// The stages and buffers for samples of one depth.
#[derive(Debug)]
struct PlanePipeline<S> {
    /// The result of the last stage, which the next one reads.
    between: Vec<S>,
    /// The buffer that the next stage writes; the two are swapped after each stage.
    beside: Vec<S>,
    scaler: Scaler<S>,
    blur: Scratch,
}

impl<S> Default for PlanePipeline<S> {
    fn default() -> Self {
        Self { between: Vec::new(), beside: Vec::new(), scaler: Scaler::default(), blur: Scratch::default() }
    }
}

impl<S: Sample> PlanePipeline<S> {
    fn frame(&mut self, recipe: &Recipe, input: &[S], output: &mut [S]) {
        let mut input = Planes { rest: input, shape: recipe.input().shape };
        let (luma, mut rest) = output.split_at_mut(recipe.output().shape.size().samples());
        self.plane(recipe.luma(), input.take(true), luma);
        if !recipe.needs_chroma() {
            rest.fill(S::NEUTRAL);
            return;
        }
        let samples = recipe.output().shape.chroma_size().samples();
        while !rest.is_empty() {
            let (plane, after) = rest.split_at_mut(samples);
            self.plane(recipe.chroma(), input.take(false), plane);
            rest = after;
        }
    }

    /// Runs one plane through its stages.
    fn plane(&mut self, stages: &[PlaneStage], from: &[S], into: &mut [S]) {
        let Some((last, before)) = stages.split_last() else {
            into.copy_from_slice(from);
            return;
        };
        let mut between = std::mem::take(&mut self.between);
        let mut beside = std::mem::take(&mut self.beside);
        for (index, stage) in before.iter().enumerate() {
            beside.resize(stage.to.samples(), S::NEUTRAL);
            self.stage(*stage, if index == 0 { from } else { &between }, &mut beside);
            std::mem::swap(&mut between, &mut beside);
        }
        self.stage(*last, if before.is_empty() { from } else { &between }, into);
        (self.between, self.beside) = (between, beside);
    }

    fn stage(&mut self, stage: PlaneStage, from: &[S], into: &mut [S]) {
        let PlaneStage { step, from: size, to } = stage;
        match step {
            PlaneOperation::Scale(filter) => self.scaler.scale(filter, (from, size), (into, to)),
            PlaneOperation::Blur(radius) => blur(&mut self.blur, radius, from, size, into),
            PlaneOperation::Rotate(turn) => rotate(turn, from, size, into),
            PlaneOperation::Crop { x, y } => crop(from, size, (x, y), into, to),
        }
    }
}

/// The planes of a frame, one after the other.
struct Planes<'a, S> {
    rest: &'a [S],
    shape: Shape,
}

impl<'a, S> Planes<'a, S> {
    fn take(&mut self, is_luma: bool) -> &'a [S] {
        let size = if is_luma { self.shape.size() } else { self.shape.chroma_size() };
        let (plane, rest) = self.rest.split_at(size.samples());
        self.rest = rest;
        plane
    }
}

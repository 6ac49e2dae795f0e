//! Jobs to be submitted, and how they are split into requests.
//!
//! A batch holds jobs of one output mode, at most as many as one request may carry, and always fits a frame; a job with
//! files has a batch to itself. If the daemon accepts only the first jobs of a batch, the rest becomes the next batch.
//! Driven by `run.rs` and `submit.rs`.

use bulkhead_proto::client::message::Submit;
use bulkhead_proto::job::{OutputMode, Payload, Policy};
use bulkhead_proto::limits::{BATCH_MAX, FRAME_MAX_BYTES, INLINE_MAX_BYTES};

use crate::arena::InputBlock;
use crate::error::Error;
use crate::file::JobFile;
use crate::new_context::{ContextNumber, uses};

/// A batch with this many bytes of input is full. It leaves room for the rest of the frame.
pub(crate) const BATCH_BYTES: usize = FRAME_MAX_BYTES / 2;

const _: () =
    assert!(BATCH_BYTES + INLINE_MAX_BYTES + BATCH_MAX * 8 < FRAME_MAX_BYTES, "a full batch fits a frame");

/// The kind and the policy of the jobs of one submit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The kind's name.
    pub kind: String,
    /// The policy of each job. Its `output` is ignored: each [`JobInput`] has its own.
    pub policy: Policy,
    /// Which of the kind's tasks these are, as far as their duration goes: a number of the caller's choice, 0 for none. A kind
    /// that runs many functions has a flavour for each, so that a slow one does not make the workers hold fewer of a
    /// quick one. See [`Submit::flavour`].
    pub flavour: u32,
    /// Contexts that the jobs use, in this order; registered on the same connection.
    pub contexts: Vec<ContextNumber>,
}

impl Spec {
    /// Jobs of this kind under the default policy.
    pub fn new(kind: impl Into<String>) -> Self {
        Self { kind: kind.into(), policy: Policy::default(), flavour: 0, contexts: Vec::new() }
    }

    pub(crate) fn submit(&self, batch: &JobBatch) -> Submit {
        Submit {
            kind: self.kind.clone(),
            policy: Policy { output: batch.output, ..self.policy.clone() },
            flavour: self.flavour,
            files: batch.files.iter().map(JobFile::to_use).collect(),
            inputs: batch.inputs.clone(),
            registered: uses(None, &self.contexts),
            ..Submit::default()
        }
    }
}

/// One job to be submitted.
#[derive(Clone, Debug, Default)]
pub struct JobInput {
    /// The input that the kind's handler gets, at most [`INLINE_MAX_BYTES`].
    pub bytes: Vec<u8>,
    /// Where its output goes: inline, into a descriptor if it may be longer than [`INLINE_MAX_BYTES`], or into the
    /// job's own file named `out`. [`OutputMode::Auto`] if nobody knows how long it will be: a result comes inline where it
    /// fits, else in a descriptor for which its task asks while it runs. Where most results are long,
    /// [`OutputMode::Descriptor`] is better: its job waits for room before it is begun, and is not refused.
    pub output: OutputMode,
    /// Files that the job reads or writes, at most 8.
    pub files: Vec<JobFile>,
    /// The input in an arena of the session; `bytes` is empty then. A job without a session cannot have one.
    pub block: Option<InputBlock>,
}

impl From<InputBlock> for JobInput {
    fn from(block: InputBlock) -> Self {
        Self { block: Some(block), ..Self::default() }
    }
}

impl From<Vec<u8>> for JobInput {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, ..Self::default() }
    }
}

/// Jobs that go into one request.
#[derive(Debug)]
pub(crate) struct JobBatch {
    /// The index of the first job among all inputs, from 0.
    pub(crate) first_index: u64,
    /// Where their outputs go.
    pub(crate) output: OutputMode,
    /// Their inputs.
    pub(crate) inputs: Vec<Payload>,
    /// The files of its job, if it has only one.
    pub(crate) files: Vec<JobFile>,
}

impl JobBatch {
    /// The batch without its first `count` jobs, which the daemon accepted; `None` if none is left.
    pub(crate) fn rest(mut self, count: usize) -> Option<Self> {
        self.inputs.drain(..count);
        self.first_index += count as u64;
        (!self.inputs.is_empty()).then_some(self)
    }
}

/// Splits the inputs into batches.
#[derive(Debug)]
pub(crate) struct Batcher<I: Iterator<Item = JobInput>> {
    inputs: std::iter::Peekable<I>,
    returned: Option<JobBatch>,
    next_index: u64,
}

impl<I: Iterator<Item = JobInput>> Batcher<I> {
    pub(crate) fn new(inputs: I) -> Self {
        Self { inputs: inputs.peekable(), returned: None, next_index: 0 }
    }

    /// How many inputs the daemon has been offered and not refused so far.
    pub(crate) fn taken(&self) -> u64 {
        self.returned.as_ref().map_or(self.next_index, |batch| batch.first_index)
    }

    /// Where the output of the next job goes; `None` when there is none.
    pub(crate) fn next_output(&mut self) -> Option<OutputMode> {
        match &self.returned {
            Some(batch) => Some(batch.output),
            None => self.inputs.peek().map(|input| input.output),
        }
    }

    /// The next batch of at most `jobs_max` jobs.
    pub(crate) fn next_batch(&mut self, jobs_max: usize) -> Result<Option<JobBatch>, Error> {
        if let Some(batch) = self.returned.take() {
            return Ok(Some(batch));
        }
        let Some(output) = self.next_output() else { return Ok(None) };
        let mut batch =
            JobBatch { first_index: self.next_index, output, inputs: Vec::new(), files: Vec::new() };
        let mut bytes = 0;
        while batch.inputs.len() < jobs_max && bytes < BATCH_BYTES && batch.files.is_empty() {
            let is_first = batch.inputs.is_empty();
            let fits = |input: &JobInput| is_first || (input.output == output && input.files.is_empty());
            let Some(input) = self.inputs.next_if(fits) else { break };
            if input.block.is_some() {
                return Err(Error::InputInArena { index: self.next_index });
            }
            batch.files = input.files;
            bytes += input.bytes.len();
            let payload = Payload::from(input.bytes);
            if !payload.fits() {
                let bytes = payload.as_bytes().len();
                return Err(Error::InputTooLong { index: self.next_index, bytes });
            }
            batch.inputs.push(payload);
            self.next_index += 1;
        }
        Ok(Some(batch))
    }

    /// Takes back the jobs of a batch that the daemon did not accept; [`Self::next_batch`] returns them first.
    pub(crate) fn give_back(&mut self, rest: Option<JobBatch>) {
        self.returned = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(bytes: usize, output: OutputMode) -> JobInput {
        JobInput { bytes: vec![b'x'; bytes], output, ..JobInput::default() }
    }

    #[test]
    fn a_job_with_files_is_alone_in_its_batch() {
        let file = std::sync::Arc::new(tempfile::tempfile().unwrap());
        let with_file = |count: usize| JobInput {
            files: vec![JobFile::read("in", std::sync::Arc::clone(&file)); count],
            ..input(1, OutputMode::Inline)
        };
        let mut batcher = Batcher::new([0, 0, 2, 1, 0].map(with_file).into_iter());
        let mut sizes = Vec::new();
        while let Some(batch) = batcher.next_batch(7).unwrap() {
            sizes.push((batch.inputs.len(), batch.files.len()));
        }
        assert_eq!(sizes, [(2, 0), (1, 2), (1, 1), (1, 0)]);
    }

    #[test]
    fn batches_are_cut_by_count_by_bytes_and_by_output() {
        let small = (0..10).map(|_| input(1, OutputMode::Inline));
        let large = (0..300).map(|_| input(INLINE_MAX_BYTES, OutputMode::Descriptor));
        let mut batcher = Batcher::new(small.chain(large));
        let mut sizes = Vec::new();
        while let Some(batch) = batcher.next_batch(7).unwrap() {
            assert_eq!(batch.first_index, sizes.iter().sum::<usize>() as u64);
            sizes.push(batch.inputs.len());
            if sizes.len() == 2 {
                break;
            }
        }
        assert_eq!(sizes, [7, 3]);
        assert_eq!(batcher.next_output(), Some(OutputMode::Descriptor));
        let batch = batcher.next_batch(BATCH_MAX).unwrap().unwrap();
        assert_eq!(batch.inputs.len(), BATCH_BYTES / INLINE_MAX_BYTES);
        assert_eq!(batch.first_index, 10);
    }

    #[test]
    fn the_rest_of_a_batch_comes_first_and_keeps_its_places() {
        let mut batcher = Batcher::new((0..5).map(|_| input(1, OutputMode::Inline)));
        let batch = batcher.next_batch(3).unwrap().unwrap();
        batcher.give_back(batch.rest(1));
        assert_eq!(batcher.taken(), 1);
        let again = batcher.next_batch(3).unwrap().unwrap();
        assert_eq!((again.first_index, again.inputs.len()), (1, 2));
        batcher.give_back(again.rest(2));
        assert_eq!(batcher.next_batch(3).unwrap().unwrap().first_index, 3);
    }

    #[test]
    fn an_input_that_is_too_long_is_named() {
        let inputs = [input(1, OutputMode::Inline), input(INLINE_MAX_BYTES + 1, OutputMode::Inline)];
        let error = Batcher::new(inputs.into_iter()).next_batch(9).unwrap_err();
        assert!(matches!(error, Error::InputTooLong { index: 1, bytes } if bytes == INLINE_MAX_BYTES + 1));
    }
}

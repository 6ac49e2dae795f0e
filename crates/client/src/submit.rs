//! Submits jobs that outlive the connection and returns their numbers.
//!
//! Batches are sent one at a time: a round trip takes some ten microseconds and a batch has up to 4096 jobs, so the
//! daemon never runs out of work. With `wait_when_busy`, the rest of a batch that a busy daemon refused is sent again
//! after the time that the daemon gave. A durable batch that had no answer, because the connection was lost, is sent again on
//! another one under the same key (`submit_keys.rs`).

use std::ops::Range;
use std::time::{Duration, Instant};

use bulkhead_proto::client::message::{DurableSubmit, Reply, Request, Submit};
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::ids::JobId;
use bulkhead_proto::limits::BATCH_MAX;

use crate::batch::{Batcher, JobBatch, JobInput, Spec};
use crate::client::{DaemonClient, Until};
use crate::error::{Error, ProtocolError};
use crate::submit_keys::SubmitKeys;

/// Longest wait before a batch is sent to a busy daemon again, whatever the daemon asks for.
const RETRY_AFTER_MAX_MS: u64 = 60_000;

/// The options of a submit.
#[derive(Clone, Debug, Default)]
pub struct SubmitOptions {
    /// Whether to wait while the daemon is busy, instead of returning its refusal.
    pub wait_when_busy: bool,
    /// Set for durable jobs: they are accepted once the daemon's journal has them, and outlive the daemon. `None`: they are volatile.
    ///
    /// A repeated submit with the same key, kind, policy and inputs is the same jobs. Without a key, one is made for this submit:
    /// [`Submission::key`]. A submit that is sent in several requests numbers their keys, so it needs a key of at most 107 bytes.
    pub durable: Option<DurableSubmit>,
}

/// Iterates over the numbers of the accepted jobs, a range at a time in the order of the inputs, and ends after the
/// first error.
#[derive(Debug)]
pub struct Submission<'c, I: Iterator<Item = JobInput>> {
    client: &'c mut DaemonClient,
    spec: Spec,
    options: SubmitOptions,
    batcher: Batcher<I>,
    /// Of durable jobs, from the first request on.
    keys: Option<SubmitKeys>,
    refused: Option<Refusal>,
    not_before: Option<Instant>,
    over: bool,
}

impl DaemonClient {
    /// Submits one job for each input. The daemon keeps the jobs for `wait` and `result` after this connection ends. Volatile jobs end
    /// with the daemon, durable ones outlive it: [`SubmitOptions::durable`].
    pub fn submit<I: IntoIterator<Item = JobInput>>(
        &mut self,
        spec: Spec,
        inputs: I,
        options: SubmitOptions,
    ) -> Submission<'_, I::IntoIter> {
        Submission {
            client: self,
            spec,
            options,
            batcher: Batcher::new(inputs.into_iter()),
            keys: None,
            refused: None,
            not_before: None,
            over: false,
        }
    }
}

impl<I: Iterator<Item = JobInput>> Submission<'_, I> {
    fn advance(&mut self) -> Result<Option<Range<u64>>, Error> {
        loop {
            if let Some(refusal) = self.refused.take() {
                return Err(Error::Refused(refusal));
            }
            if let Some(moment) = self.not_before.take() {
                // No request is open: this waits for the moment, or for the end of the connection.
                self.client.receive(|_| false, Until::Moment(moment))?;
            }
            let Some(batch) = self.batcher.next_batch(BATCH_MAX)? else { return Ok(None) };
            let accepted = self.offer(batch)?;
            if !accepted.is_empty() {
                return Ok(Some(accepted));
            }
        }
    }

    /// The key of the whole submit, which repeats it. `None`: the jobs are volatile, or nothing was sent yet.
    pub fn key(&self) -> Option<&[u8]> {
        self.keys.as_ref().map(SubmitKeys::base)
    }

    /// Goes on over another connection after an error with [`Error::is_lost_connection`]: first come the jobs of the request that
    /// had no answer, under the same key, so that none of them is accepted twice. Interrupts go with it.
    ///
    /// # Panics
    /// If the jobs are volatile: nobody knows whether the daemon had accepted them.
    pub fn resume(&mut self, mut client: DaemonClient) {
        assert!(self.options.durable.is_some(), "only a durable submit can be repeated");
        let interrupts = self.client.set_interrupts(None);
        client.set_interrupts(interrupts);
        *self.client = client;
        self.over = false;
    }

    /// The request for a batch.
    fn request(&mut self, batch: &JobBatch) -> Result<Submit, Error> {
        let mut submit = self.spec.submit(batch);
        if let Some(DurableSubmit { key }) = &self.options.durable {
            let keys = match &mut self.keys {
                Some(keys) => keys,
                none => none.insert(SubmitKeys::new(key.clone())?),
            };
            let is_last = self.batcher.next_output().is_none();
            submit.durable = Some(Box::new(DurableSubmit { key: Some(keys.current(is_last)?) }));
        }
        Ok(submit)
    }

    fn offer(&mut self, batch: JobBatch) -> Result<Range<u64>, Error> {
        let request = Request::Submit(self.request(&batch)?);
        let reply = match self.client.ask_with(request, &batch.files) {
            Ok(reply) => reply,
            Err(Error::Refused(refusal)) => {
                Reply::Accepted { first: JobId(0), count: 0, refused: Some(refusal) }
            }
            Err(other) => {
                self.batcher.give_back(Some(batch));
                return Err(other);
            }
        };
        let acceptance = Acceptance::of(reply, batch.inputs.len(), self.client)?;
        if let Some(keys) = self.keys.as_mut().filter(|_| acceptance.count > 0) {
            keys.advance();
        }
        self.batcher.give_back(batch.rest(acceptance.count));
        if let Some(refusal) = acceptance.refused {
            match retry_after(&refusal).filter(|_| self.options.wait_when_busy) {
                Some(wait) => self.not_before = Some(Instant::now() + wait),
                None => self.refused = Some(refusal),
            }
        }
        Ok(acceptance.first..acceptance.first + acceptance.count as u64)
    }
}

impl<I: Iterator<Item = JobInput>> Iterator for Submission<'_, I> {
    type Item = Result<Range<u64>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let next = self.advance().transpose();
        self.over = !matches!(next, Some(Ok(_)));
        next
    }
}

/// How long to wait before the next try; `None` for a refusal that does not go away by waiting.
pub(crate) fn retry_after(refusal: &Refusal) -> Option<Duration> {
    match refusal {
        Refusal::Busy { retry_after_ms, .. } => {
            Some(Duration::from_millis((*retry_after_ms).clamp(1, RETRY_AFTER_MAX_MS)))
        }
        _ => None,
    }
}

/// A [`Reply::Accepted`] that was checked against its request.
#[derive(Debug)]
pub(crate) struct Acceptance {
    /// The number of the first job.
    pub(crate) first: u64,
    /// How many jobs were accepted.
    pub(crate) count: usize,
    /// Why the other jobs were refused.
    pub(crate) refused: Option<Refusal>,
}

impl Acceptance {
    pub(crate) fn of(reply: Reply, asked: usize, client: &mut DaemonClient) -> Result<Self, Error> {
        let Reply::Accepted { first, count, refused } = reply else { return Err(client.unexpected(&reply)) };
        let counted = usize::try_from(count).ok().filter(|count| *count <= asked);
        match counted {
            Some(count) if (count == asked || refused.is_some()) && first.0 <= u64::MAX - asked as u64 => {
                Ok(Self { first: first.0, count, refused })
            }
            _ => Err(client.give_up(ProtocolError::Count { asked, answered: u64::from(count) })),
        }
    }
}

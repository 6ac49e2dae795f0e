//! Attached jobs: submitted and streamed back on one connection, any number of them.
//!
//! A window bounds the jobs in flight: while it is full no more are submitted, so neither side holds results that the
//! caller does not take. At most one batch waits to be accepted; any number of accepted batches have running jobs. If
//! the daemon is busy, results keep arriving, and the rest of the batch is sent again after the time that the daemon
//! gave.
//!
//! | state of a batch | leaves it when |
//! |---|---|
//! | in the batcher | the window has room, and no other batch waits for its answer |
//! | asked | the daemon accepted it: running; refused jobs go back into the batcher |
//! | running | its last job has ended |
//!
//! In a held run the daemon keeps each result until [`Run::received`] reports it: a caller that dies, or whose disk is
//! full, has lost nothing.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use bulkhead_proto::client::message::{Reply, Request, Submit};
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::ids::{JobId, Tag};
use bulkhead_proto::job::OutputMode;
use bulkhead_proto::limits::BATCH_MAX;

use crate::accepted_batch::AcceptedBatch;
use crate::batch::{Batcher, JobBatch, JobInput, Spec};
use crate::client::{DaemonClient, Until};
use crate::error::{Error, ProtocolError};
use crate::inbox::{Answer, ReceivedReply};
use crate::output::JobEnd;
use crate::progress::{JobProgress, ProgressListener};
use crate::reorder_buffer::ReorderBuffer;
use crate::submit::{Acceptance, retry_after};

/// The limits of jobs in flight.
#[derive(Debug)]
pub(crate) struct Window {
    /// Jobs of one batch.
    pub(crate) batch: u64,
    /// Jobs that have not ended. More would only make the daemon's table too large for its cache.
    pub(crate) unended: u64,
    /// Jobs whose ends the caller has not got yet: in an ordered run, one slow job holds back all later ends.
    kept: u64,
}

const INLINE: Window = Window { batch: 1024, unended: 8 * 1024, kept: 64 * 1024 };
/// For jobs of which any may have an output in a descriptor: all of them fit the usual limit of 1024 open files.
const AUTO: Window = Window { batch: 256, unended: 768, kept: 768 };
/// For jobs with outputs in descriptors: this process may have only a few hundred descriptors open.
const DESCRIPTOR: Window = Window { batch: 16, unended: 64, kept: 64 };

impl Window {
    /// The limits for jobs with this output.
    pub(crate) fn of(output: OutputMode) -> Self {
        match output {
            OutputMode::Inline | OutputMode::File => INLINE,
            OutputMode::Auto | OutputMode::Arena => AUTO,
            OutputMode::Descriptor => DESCRIPTOR,
        }
    }
}

/// The options of a run.
#[derive(Clone, Copy, Debug)]
pub struct RunOptions {
    /// Whether to return the ends in the order of the inputs, instead of the order in which the jobs end.
    pub ordered: bool,
    /// Whether to wait while the daemon is busy, instead of returning its refusal.
    pub wait_when_busy: bool,
    /// Whether the daemon keeps each result until [`Run::received`] or [`DaemonClient::received`] reports it, within the
    /// bounds of kept results. Otherwise a result that was sent is forgotten.
    pub held: bool,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self { ordered: true, wait_when_busy: true, held: false }
    }
}

/// The end of one job of a run.
#[derive(Debug)]
pub struct RunItem {
    /// The index of its input, from 0.
    pub index: u64,
    /// How it ended.
    pub end: JobEnd,
}

/// The end of one job, until the caller gets it.
#[derive(Debug)]
struct ArrivedEnd {
    item: RunItem,
    /// Its number, if the daemon holds the result.
    number: Option<u64>,
}

/// Iterates over the ends of attached jobs. After a refusal it still returns the ends of the accepted jobs, then the
/// refusal.
#[derive(Debug)]
pub struct Run<'c, I: Iterator<Item = JobInput>> {
    client: &'c mut DaemonClient,
    spec: Spec,
    options: RunOptions,
    batcher: Batcher<I>,
    asked: Option<(Tag, JobBatch)>,
    accepted: BTreeMap<Tag, AcceptedBatch>,
    unended: u64,
    not_before: Option<Instant>,
    refused: Option<Refusal>,
    ready: VecDeque<ArrivedEnd>,
    early: ReorderBuffer<ArrivedEnd>,
    progress: ProgressListener<'c>,
    over: bool,
}

impl DaemonClient {
    /// Submits one attached job for each input and streams their ends back. The daemon cancels the jobs some time after
    /// this connection has ended; [`Run::cancel_rest`] cancels them at once.
    pub fn run<I: IntoIterator<Item = JobInput>>(
        &mut self,
        spec: Spec,
        inputs: I,
        options: RunOptions,
    ) -> Run<'_, I::IntoIter> {
        Run {
            client: self,
            spec,
            options,
            batcher: Batcher::new(inputs.into_iter()),
            asked: None,
            accepted: BTreeMap::new(),
            unended: 0,
            not_before: None,
            refused: None,
            ready: VecDeque::new(),
            early: ReorderBuffer::new(),
            progress: ProgressListener::default(),
            over: false,
        }
    }
}

impl<'c, I: Iterator<Item = JobInput>> Run<'c, I> {
    /// Calls `hear` with the progress of the jobs that are submitted from now on, while the run waits for their ends.
    /// Without it the daemon is not asked for progress.
    pub fn on_progress(&mut self, hear: impl FnMut(JobProgress) + 'c) {
        self.progress.set(hear);
    }

    /// Cancels the jobs that have not ended, waits until the daemon has done so, and returns how many it cancelled.
    /// Nothing more is submitted. Ends that arrive during the wait are for [`Run::next_arrived`].
    ///
    /// # Errors
    /// As every request; a watched signal ends the wait too.
    pub fn cancel_rest(&mut self) -> Result<u64, Error> {
        self.over = true;
        while self.asked.is_some() {
            self.receive_one()?;
        }
        let jobs: Vec<JobId> = self.accepted.values().flat_map(AcceptedBatch::jobs_left).collect();
        let mut open = Vec::new();
        for some in jobs.chunks(BATCH_MAX) {
            open.push(self.client.send(Request::Cancel { jobs: some.to_vec() })?);
        }
        let mut cancelled = 0;
        while !open.is_empty() {
            let mine = |tag: Tag| self.accepted.contains_key(&tag) || open.contains(&tag);
            match self.client.receive(mine, Until::Silence)? {
                Some(ReceivedReply { tag, answer: Answer::Plain(Reply::Changed { count, .. }), .. }) => {
                    self.client.close(tag);
                    open.retain(|one| *one != tag);
                    cancelled += u64::from(count);
                }
                Some(ReceivedReply { tag, answer: Answer::Ended(ends), .. }) => {
                    self.ended(tag, None, ends)?
                }
                Some(ReceivedReply { tag, answer: Answer::Held(first, ends), .. }) => {
                    self.ended(tag, Some(first), ends)?;
                }
                Some(ReceivedReply { answer: Answer::Plain(Reply::Progress { .. }), .. }) => {}
                Some(ReceivedReply { answer: Answer::Plain(other), .. }) => {
                    return Err(self.client.unexpected(&other));
                }
                Some(ReceivedReply { answer: Answer::Log(_), .. }) => {
                    return Err(self.client.give_up(ProtocolError::Reply("logs")));
                }
                None => return Err(self.client.silence()),
            }
        }
        Ok(cancelled)
    }

    /// An end that has arrived and was not returned yet, in the order of the inputs, whether or not those before it have
    /// arrived: for a caller that gives up the run. It waits for nothing.
    pub fn next_arrived(&mut self) -> Option<RunItem> {
        let arrived = if self.options.ordered { self.early.pop_early() } else { self.ready.pop_front() };
        arrived.map(|arrived| self.returned(arrived))
    }

    /// The ends that have arrived and were not returned. In a held run the daemon keeps their results.
    pub fn not_returned(&self) -> impl Iterator<Item = &RunItem> {
        self.early.iter().chain(&self.ready).map(|arrived| &arrived.item)
    }

    /// Reports that every result which this run has returned so far is where the caller wants it, see
    /// [`DaemonClient::received`]. Without [`RunOptions::held`] it does nothing.
    pub fn received(&mut self) {
        self.client.received();
    }

    /// How many accepted jobs have not ended.
    pub fn unended(&self) -> u64 {
        self.unended
    }

    /// Whether `next` has an item without waiting. If not, it is a good moment to flush an output.
    pub fn is_ready(&self) -> bool {
        if self.options.ordered { self.early.is_ready() } else { !self.ready.is_empty() }
    }

    fn advance(&mut self) -> Result<Option<RunItem>, Error> {
        loop {
            let ready = if self.options.ordered { self.early.pop() } else { self.ready.pop_front() };
            if let Some(arrived) = ready {
                return Ok(Some(self.returned(arrived)));
            }
            self.submit_some()?;
            if self.asked.is_none() && self.accepted.is_empty() && self.not_before.is_none() {
                return self.refused.take().map_or(Ok(None), |refusal| Err(Error::Refused(refusal)));
            }
            self.receive_one()?;
        }
    }

    /// The caller gets this end.
    fn returned(&mut self, arrived: ArrivedEnd) -> RunItem {
        if let Some(number) = arrived.number {
            self.client.returned(number);
        }
        arrived.item
    }

    /// Sends the next batch, if there is one and the window has room for it.
    fn submit_some(&mut self) -> Result<(), Error> {
        if self.not_before.is_some_and(|moment| moment <= Instant::now()) {
            self.not_before = None;
        }
        if self.asked.is_some() || self.not_before.is_some() || self.refused.is_some() {
            return Ok(());
        }
        let window = match self.batcher.next_output() {
            Some(output) => Window::of(output),
            None => return Ok(()),
        };
        if self.unended + window.batch > window.unended || self.kept() + window.batch > window.kept {
            return Ok(());
        }
        if let Some(batch) = self.batcher.next_batch(usize::try_from(window.batch).unwrap_or(BATCH_MAX))? {
            let submit = Submit {
                attached: true,
                held: self.options.held,
                progress: self.progress.is_there(),
                ..self.spec.submit(&batch)
            };
            let tag = self.client.send_with(Request::Submit(submit), &batch.files)?;
            self.asked = Some((tag, batch));
        }
        Ok(())
    }

    /// How many jobs were submitted whose ends the caller has not got.
    fn kept(&self) -> u64 {
        if self.options.ordered {
            self.batcher.taken() - self.early.next()
        } else {
            self.unended + self.ready.len() as u64
        }
    }

    fn receive_one(&mut self) -> Result<(), Error> {
        let asked = self.asked.as_ref().map(|(tag, _)| *tag);
        let until = match (asked, self.not_before) {
            (Some(_), _) => Until::Silence,
            (None, Some(moment)) => Until::Moment(moment),
            (None, None) => Until::Closed,
        };
        let accepted = &self.accepted;
        match self.client.receive(|tag| Some(tag) == asked || accepted.contains_key(&tag), until)? {
            None if asked.is_some() => Err(self.client.silence()),
            None => Ok(()),
            Some(ReceivedReply { tag, answer: Answer::Ended(ends), .. }) => self.ended(tag, None, ends),
            Some(ReceivedReply { tag, answer: Answer::Held(first, ends), .. }) => {
                self.ended(tag, Some(first), ends)
            }
            Some(ReceivedReply { answer: Answer::Log(_), .. }) => {
                Err(self.client.give_up(ProtocolError::Reply("logs")))
            }
            Some(ReceivedReply { tag, answer: Answer::Plain(reply), .. }) if Some(tag) == asked => {
                self.answered(reply)
            }
            Some(ReceivedReply {
                tag, answer: Answer::Plain(Reply::Progress { job, done, total }), ..
            }) => self.progressed(tag, job, done, total),
            Some(ReceivedReply { answer: Answer::Plain(reply), .. }) => Err(self.client.unexpected(&reply)),
        }
    }

    fn progressed(&mut self, tag: Tag, job: JobId, done: u64, total: u64) -> Result<(), Error> {
        match self.accepted.get(&tag).and_then(|accepted| accepted.index_of(job)) {
            Some(index) => self.progress.hear(JobProgress { index, job, done, total }),
            None => return Err(self.client.give_up(ProtocolError::Job(job))),
        }
        Ok(())
    }

    /// Handles the answer to the batch that was sent last.
    fn answered(&mut self, reply: Reply) -> Result<(), Error> {
        let (tag, batch) = self.asked.take().expect("called only while a batch is asked");
        let reply = match reply {
            Reply::Refused(refusal) => Reply::Accepted { first: JobId(0), count: 0, refused: Some(refusal) },
            other => other,
        };
        let acceptance = Acceptance::of(reply, batch.inputs.len(), self.client)?;
        if acceptance.count > 0 {
            self.accepted
                .insert(tag, AcceptedBatch::new(batch.first_index, acceptance.first, acceptance.count));
            self.unended += acceptance.count as u64;
        } else {
            self.client.close(tag);
        }
        self.batcher.give_back(batch.rest(acceptance.count));
        if let Some(refusal) = acceptance.refused {
            match retry_after(&refusal).filter(|_| self.options.wait_when_busy) {
                Some(wait) => self.not_before = Some(Instant::now() + wait),
                None => self.refused = Some(refusal),
            }
        }
        Ok(())
    }

    /// Takes ends; `first`: the number of the first one, if they are held.
    fn ended(&mut self, tag: Tag, first: Option<u64>, ends: Vec<JobEnd>) -> Result<(), Error> {
        let Some(accepted) = self.accepted.get_mut(&tag) else {
            return Err(self.client.give_up(ProtocolError::Reply("ended before accepted")));
        };
        for (end, next) in ends.into_iter().zip(0..) {
            let Some(index) = accepted.end(end.job) else {
                return Err(self.client.give_up(ProtocolError::Job(end.job)));
            };
            self.unended -= 1;
            let number = first.map(|first| first.saturating_add(next));
            let arrived = ArrivedEnd { item: RunItem { index, end }, number };
            if self.options.ordered { self.early.push(index, arrived) } else { self.ready.push_back(arrived) }
        }
        if accepted.is_over() {
            self.accepted.remove(&tag);
            self.client.close(tag);
        }
        Ok(())
    }
}

impl<I: Iterator<Item = JobInput>> Iterator for Run<'_, I> {
    type Item = Result<RunItem, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let next = self.advance().transpose();
        // A signal ends this call, not the run: the caller goes on or cancels the rest.
        self.over = !matches!(next, Some(Ok(_) | Err(Error::Interrupted)));
        next
    }
}

impl<I: Iterator<Item = JobInput>> Drop for Run<'_, I> {
    fn drop(&mut self) {
        let asked = self.asked.take().map(|(tag, _)| tag);
        for tag in asked.into_iter().chain(std::mem::take(&mut self.accepted).into_keys()) {
            self.client.close(tag);
        }
    }
}

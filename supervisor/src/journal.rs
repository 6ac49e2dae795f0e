//! The daemon's end of the journal: facts of the core go to the thread that writes, and what the threads tell becomes events.
//!
//! It hands facts over in their order and drops none; it decides nothing about jobs, and nothing here waits for the disk but the start.
//! The thread `journal` stores facts and reserves numbers, the thread `journal-reader` reads unfinished jobs of earlier runs and answers
//! questions about jobs that are not in the core's table. A daemon without a journal has neither. Driven by `turn.rs` and `perform.rs`.

mod fact_outbox;
mod look_ups;
mod news;
mod number_blocks;
mod reader_thread;
pub(crate) mod start;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use anyhow::{Context, Result};
use bulkhead_core::config::{self, JournalUse, RunNumbers};
use bulkhead_core::event::{Event, ReloadedJobs};
use bulkhead_facts::Misfit;
use bulkhead_facts::fact::{Fact, FactNo};
use bulkhead_journal::answer::JournalAnswer;
use bulkhead_journal::bounds::BLOCK;
use bulkhead_journal::numbers::{NextNumbers, NumberKind};
use bulkhead_journal::opening::OpenJournal;
use bulkhead_journal::reloading::{ChunkToRun, SubmitToRun};
use bulkhead_journal::writer::JournalWriter;
use bulkhead_proto::ids::JobId;
use mio::Waker;

use crate::journal::fact_outbox::FactOutbox;
pub(crate) use crate::journal::look_ups::LookUpQuestion;
use crate::journal::look_ups::OpenLookUps;
use crate::journal::news::{JournalNews, NewsQueue};
use crate::journal::number_blocks::NumberBlocks;
use crate::journal::reader_thread::{ReaderAnswer, ReaderRequest};
use crate::settings::JournalChoice;

/// The journal of this daemon, if it has one.
#[derive(Debug)]
pub(crate) struct DaemonJournal(Option<Box<RunningJournal>>);

#[derive(Debug)]
struct RunningJournal {
    writer: JournalWriter,
    reader: Sender<ReaderRequest>,
    look_ups: OpenLookUps,
    /// Whether all unfinished jobs of earlier runs are loaded.
    is_loaded: bool,
    news: Arc<NewsQueue>,
    outbox: FactOutbox,
    numbers: NumberBlocks,
    end: RunEnd,
}

/// A journal whose threads run, or none.
pub(crate) struct StartedJournal {
    pub(crate) journal: DaemonJournal,
    /// What the core has of it.
    pub(crate) given: JournalUse,
    /// The first numbers of this run.
    pub(crate) numbers: GivenNumbers,
}

/// Numbers that go on over the runs of the daemon, beside those of jobs: of each the first that was not given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GivenNumbers {
    /// Those that the core gives out.
    pub(crate) core: RunNumbers,
    /// Of outputs, which the shell numbers.
    pub(crate) output: u64,
}

impl Default for GivenNumbers {
    fn default() -> Self {
        Self { core: RunNumbers::default(), output: 1 }
    }
}

impl GivenNumbers {
    /// The same as the journal has them.
    fn next(self, job: JobId) -> NextNumbers {
        let RunNumbers { worker, record, scratch, log } = self.core;
        let mut next = NextNumbers::default();
        for (kind, number) in [
            (NumberKind::Job, job.0),
            (NumberKind::Worker, worker),
            (NumberKind::Record, record),
            (NumberKind::Output, self.output),
            (NumberKind::Scratch, scratch),
            (NumberKind::Log, log),
        ] {
            next.set(kind, number);
        }
        next
    }
}

/// How far the end of the run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RunEnd {
    /// It has not begun.
    Running,
    /// The writer is to end once it has taken all facts.
    Asked(NextNumbers),
    /// The writer is told to end.
    Closing,
    /// The writer has ended.
    Closed {
        /// Whether everything is stored.
        is_clean: bool,
    },
}

impl DaemonJournal {
    /// Opens the journal that the settings choose and starts its threads, which wake the loop.
    ///
    /// # Errors
    /// The daemon does not start without the journal, or a thread cannot be started.
    pub(crate) fn start(choice: JournalChoice, waker: Arc<Waker>) -> Result<StartedJournal> {
        let (facts_max, fact_bytes_max) = match &choice {
            JournalChoice::In { settings, .. } => (settings.queue_facts_max, settings.queue_bytes_max),
            JournalChoice::None(_) => (0, 0),
        };
        let journal = match start::open(choice)? {
            Ok(journal) => journal,
            Err(why) => {
                let (given, numbers) = (JournalUse::None(why), GivenNumbers::default());
                return Ok(StartedJournal { journal: Self(None), given, numbers });
            }
        };
        let first = *journal.first_numbers();
        let first_job = JobId(first.of(NumberKind::Job));
        let given = config::JournalTerms {
            jobs: (first_job, JobId(first_job.0 + BLOCK)),
            facts_max: facts_max as u64,
            fact_bytes_max: fact_bytes_max as u64,
            was_unclean: journal.before().is_some_and(|run| run.ended_us.is_none()),
        };
        let running = RunningJournal::start(journal, first, waker)?;
        let numbers = GivenNumbers {
            core: RunNumbers {
                worker: first.of(NumberKind::Worker),
                record: first.of(NumberKind::Record),
                scratch: first.of(NumberKind::Scratch),
                log: first.of(NumberKind::Log),
            },
            output: first.of(NumberKind::Output),
        };
        Ok(StartedJournal { journal: Self(Some(Box::new(running))), given: JournalUse::Open(given), numbers })
    }

    /// Hands over the facts of a turn.
    ///
    /// # Panics
    /// If there are facts and no journal: the core was told so.
    pub(crate) fn store(&mut self, facts: &mut Vec<Fact>) {
        if facts.is_empty() {
            return;
        }
        let running = self.0.as_mut().expect("the core makes no facts without a journal");
        let RunningJournal { writer, outbox, .. } = &mut **running;
        outbox.add(facts.drain(..), |number, fact| writer.push(number, fact));
    }

    /// Has numbers of jobs below this one reserved.
    pub(crate) fn reserve_jobs(&self, end: JobId) {
        if let Some(running) = &self.0 {
            running.writer.reserve(NumberKind::Job, end.0);
        }
    }

    /// Has jobs looked up. Returns the answer if nobody can read them.
    pub(crate) fn look_up(&mut self, question: LookUpQuestion) -> Option<Event> {
        let (number, client) = (question.number, question.client);
        match &mut self.0 {
            Some(running) if running.reader.send(ReaderRequest::LookUp(question)).is_ok() => {
                running.look_ups.add(number, client);
                None
            }
            _ => Some(look_ups::unanswerable(number, client)),
        }
    }

    /// Turns what the threads have told into events.
    pub(crate) fn hear(&mut self, events: &mut Vec<Event>) {
        if let Some(running) = &mut self.0 {
            running.hear(events);
        }
    }

    /// Has more numbers reserved where half of a block is left. `next` has those that are given out next.
    pub(crate) fn reserve_numbers(&mut self, next: impl FnOnce() -> GivenNumbers) {
        if let Some(running) = &mut self.0 {
            let RunningJournal { numbers, writer, .. } = &mut **running;
            numbers.look(&next().next(JobId(0)), |kind, end| writer.reserve(kind, end));
        }
    }

    /// Asks for the end of the run, after all facts so far. `next` has the first numbers that were not given out.
    pub(crate) fn ask_for_end(&mut self, next_job: JobId, next: GivenNumbers) {
        // A writer that has ended already is not waited for.
        if let Some(running) = &mut self.0
            && running.end == RunEnd::Running
        {
            running.end = RunEnd::Asked(next.next(next_job));
            running.close_when_handed_over();
        }
    }

    /// Whether the run has ended, or there is no journal.
    pub(crate) fn has_ended(&self) -> bool {
        self.0.as_ref().is_none_or(|running| matches!(running.end, RunEnd::Closed { .. }))
    }

    /// Waits for the threads of a run that has ended; says what is not stored of one that has not.
    pub(crate) fn leave(self) {
        let Some(running) = self.0 else { return };
        match running.end {
            RunEnd::Closed { is_clean: true } => running.writer.join(),
            RunEnd::Closed { is_clean: false } => {
                log::error!("the journal has no end of this run: the next start finds what is stored");
            }
            RunEnd::Running | RunEnd::Asked(_) | RunEnd::Closing => log::error!(
                "the journal did not store its last facts in time: the next start finds what is stored facts={}",
                running.outbox.unsettled()
            ),
        }
    }
}

impl RunningJournal {
    fn start(journal: OpenJournal, first: NextNumbers, waker: Arc<Waker>) -> Result<Self> {
        let news = Arc::new(NewsQueue::new(waker));
        let folder = journal.folder().to_owned();
        let told = Arc::clone(&news);
        let writer = JournalWriter::start(journal, move |answer| told.put(JournalNews::Writer(answer)))
            .context("cannot start the thread that writes the journal")?;
        let reader = reader_thread::start(folder, JobId(first.of(NumberKind::Job)), Arc::clone(&news))
            .context("cannot start the thread that reads the journal")?;
        let running = Self {
            writer,
            reader,
            look_ups: OpenLookUps::default(),
            is_loaded: false,
            news,
            outbox: FactOutbox::default(),
            numbers: NumberBlocks::new(first),
            end: RunEnd::Running,
        };
        running.load_more();
        Ok(running)
    }

    /// Asks for the next unfinished jobs.
    fn load_more(&self) {
        // A thread that has ended has told so.
        let _ = self.reader.send(ReaderRequest::LoadMore);
    }

    fn hear(&mut self, events: &mut Vec<Event>) {
        let news = self.news.take();
        if news.is_empty() {
            return;
        }
        for one in news {
            match one {
                JournalNews::Writer(answer) => self.hear_writer(answer, events),
                JournalNews::Reader(answer) => self.hear_reader(answer, events),
            }
        }
        let Self { outbox, writer, .. } = self;
        outbox.hand_over(|number, fact| writer.push(number, fact));
        self.close_when_handed_over();
    }

    fn close_when_handed_over(&mut self) {
        if let RunEnd::Asked(unused) = self.end
            && !self.outbox.has_kept()
        {
            self.writer.close(unused);
            self.end = RunEnd::Closing;
        }
    }

    fn hear_reader(&mut self, answer: ReaderAnswer, events: &mut Vec<Event>) {
        match answer {
            ReaderAnswer::Loaded(chunk) => {
                self.is_loaded = chunk.is_last;
                // The loop takes this chunk before it hears of the next one.
                if !chunk.is_last {
                    self.load_more();
                }
                events.push(reloaded(chunk));
            }
            ReaderAnswer::LookedUp { number, client, found } => {
                self.look_ups.remove(number);
                events.push(Event::LookedUp { number, client, found });
            }
            ReaderAnswer::Panicked => {
                log::error!(
                    "the thread that reads the journal has panicked, questions about its jobs are refused: restart the daemon"
                );
                if !self.is_loaded {
                    log::error!(
                        "no more unfinished jobs of earlier runs are loaded before a restart, they stay in the journal"
                    );
                }
                events.extend(self.look_ups.give_up());
            }
        }
    }

    fn hear_writer(&mut self, answer: JournalAnswer, events: &mut Vec<Event>) {
        match answer {
            JournalAnswer::Stored { up_to, .. } => {
                events.push(Event::Stored { up_to: self.outbox.stored(up_to) });
            }
            JournalAnswer::NotStored { from, to, why } => {
                events.push(Event::NotStored { from, to, why });
                events.extend(self.outbox.not_stored(from, to).map(|up_to| Event::Stored { up_to }));
            }
            JournalAnswer::DoesNotFit { fact, misfit } => events.extend(misfit_event(fact, misfit)),
            JournalAnswer::Reserved { kind: NumberKind::Job, next } => {
                events.push(Event::JobsReserved { end: JobId(next) });
            }
            JournalAnswer::Reserved { kind, next } => self.numbers.reserved(kind, next),
            JournalAnswer::Evicted { jobs } => events.push(Event::JournalEvicted { jobs }),
            JournalAnswer::ClockJumped => {
                log::warn!("the wall clock has jumped: for a day, no ended job is removed by its age");
            }
            JournalAnswer::Degraded { why } => {
                log::error!("the journal can store nothing now, will retry every second error={why:?}");
                events.push(Event::JournalFailed { why });
            }
            JournalAnswer::Recovered => {
                log::info!("the journal stores facts again");
                events.push(Event::JournalRecovered);
            }
            JournalAnswer::Closed { is_clean } => {
                if self.end == RunEnd::Running {
                    let why = "the thread of the journal has ended: restart the daemon".to_owned();
                    log::error!("{why}");
                    events.push(Event::JournalFailed { why });
                }
                self.end = RunEnd::Closed { is_clean };
            }
        }
    }
}

/// The event of a fact that does not fit what is stored. Retention may have removed its job meanwhile: then there is none.
fn misfit_event(fact: FactNo, misfit: Misfit) -> Option<Event> {
    if let Misfit::KeyTaken { first, count, is_same } = misfit {
        return Some(Event::KeyKnown { fact, first, count, is_same });
    }
    log::warn!(
        "the journal has not stored a fact that does not fit fact={fact} why={:?}",
        misfit.to_string()
    );
    None
}

fn reloaded(chunk: ChunkToRun) -> Event {
    let of_submit = |SubmitToRun { submit, jobs }| ReloadedJobs { submit: Rc::new(submit), jobs };
    let jobs = chunk.submits.into_iter().map(of_submit).collect();
    Event::Reloaded { jobs, is_all: chunk.is_last }
}

#[cfg(test)]
mod tests;

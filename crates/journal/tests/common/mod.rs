//! A journal under test: a writer with its answers, the fold of what it was told, and a comparison of both.
//!
//! Random facts come from a seed alone, so that a child process and its parent make the same ones. Driven by the tests of this crate.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test program uses a part of it; a test that cannot go on panics

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bulkhead_facts::Misfit;
use bulkhead_facts::fact::{ATTEMPT_ENDS, AcceptedJobs, AttemptEnd, DurableEnd, EndedAttempt, Fact, FactNo};
use bulkhead_facts::fold::DurableState;
use bulkhead_facts::submit_key::{SubmitDigest, SubmitKey};
use bulkhead_journal::answer::JournalAnswer;
use bulkhead_journal::numbers::NextNumbers;
use bulkhead_journal::opening::OpenJournal;
use bulkhead_journal::reader::{EndedFilter, JournalReader};
use bulkhead_journal::settings::JournalSettings;
use bulkhead_journal::writer::JournalWriter;
use bulkhead_proto::client::outcome::{Outcome, Survivor, TimeLimit};
use bulkhead_proto::client::view::JobDeath;
use bulkhead_proto::client::why::Canceller;
use bulkhead_proto::death::Death;
use bulkhead_proto::ids::{Fence, JobId, WorkerId};
use bulkhead_proto::job::{Payload, Policy};
use rusqlite::{Connection, OpenFlags};

/// No answer takes so long on a machine that works.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// In the year 2096: what ends then is not old enough to go.
pub const FAR_US: u64 = 4_000_000_000_000_000;

/// Settings that fit a small disk.
pub fn settings(folder: &Path) -> JournalSettings {
    JournalSettings { room_min_bytes: 1 << 20, ..JournalSettings::new(folder, "0.0.0-test") }
}

/// A writer with its answers.
pub struct Desk {
    pub writer: JournalWriter,
    pub answers: Receiver<JournalAnswer>,
    pub folder: PathBuf,
    pub pushed: u64,
    pub first_numbers: NextNumbers,
}

impl Desk {
    /// Opens the journal in a folder and starts its writer.
    pub fn open(folder: &Path) -> Self {
        Self::start(OpenJournal::open(settings(folder)).unwrap())
    }

    /// Starts the writer of an open journal.
    pub fn start(journal: OpenJournal) -> Self {
        let (tell, answers) = channel();
        let (folder, first_numbers) = (journal.folder().to_owned(), *journal.first_numbers());
        // The test may be over before the writer.
        let writer = JournalWriter::start(journal, move |answer| drop(tell.send(answer))).unwrap();
        Self { writer, answers, folder, pushed: 0, first_numbers }
    }

    /// Hands over a fact; its number.
    pub fn push(&mut self, fact: Fact) -> FactNo {
        self.pushed += 1;
        self.writer.push(FactNo(self.pushed), fact).unwrap();
        FactNo(self.pushed)
    }

    /// The next answer.
    pub fn answer(&self) -> JournalAnswer {
        self.answers.recv_timeout(PATIENCE).expect("the writer answers")
    }

    /// Takes answers until everything that was pushed is stored; those that say something else.
    pub fn await_stored(&self) -> Vec<JournalAnswer> {
        self.answers_until(
            |answer| matches!(answer, JournalAnswer::Stored { up_to, .. } if up_to.0 == self.pushed),
        )
    }

    /// Takes answers until this one; those before it that are not `Stored`.
    pub fn answers_until(&self, is_it: impl Fn(&JournalAnswer) -> bool) -> Vec<JournalAnswer> {
        let mut others = Vec::new();
        loop {
            let answer = self.answer();
            if is_it(&answer) {
                return others;
            }
            if !matches!(answer, JournalAnswer::Stored { .. }) {
                others.push(answer);
            }
        }
    }

    /// Waits until nothing can be stored; why.
    pub fn await_degraded(&self) -> String {
        loop {
            if let JournalAnswer::Degraded { why } = self.answer() {
                return why;
            }
        }
    }

    /// Ends the run; whether it ended clean.
    pub fn close(self) -> bool {
        self.writer.close(self.first_numbers);
        let mut is_clean = None;
        while is_clean.is_none() {
            if let JournalAnswer::Closed { is_clean: clean } = self.answer() {
                is_clean = Some(clean);
            }
        }
        self.writer.join();
        is_clean.unwrap()
    }
}

/// The journal in a folder holds this state, field by field.
pub fn assert_holds(folder: &Path, state: &DurableState) {
    let reader = JournalReader::open(folder).unwrap();
    for (job, folded) in &state.jobs {
        let stored = reader.job(*job).unwrap().unwrap_or_else(|| panic!("job {job} is not stored"));
        let (shared, count) = &state.submits[&folded.submit];
        assert_eq!((&stored.submit.shared, stored.submit.count), (shared, *count), "job {job}");
        let is_open = folded.durable.is_open && folded.end.is_none();
        assert_eq!((stored.counts, stored.counts.is_open), (folded.durable, is_open), "job {job}");
        assert_eq!(stored.input, folded.input, "job {job}");
        assert_eq!(stored.end.as_ref().map(|end| &end.end), folded.end.as_ref(), "job {job}");
        assert_eq!(stored.attempts, folded.ended_attempts, "job {job}");
        if folded.end.is_none() {
            assert_eq!(stored.expires_us, folded.expires_us, "job {job}");
        }
        if let Some(key) = &shared.key {
            assert_eq!(reader.submit_of_key(shared.uid, key).unwrap().as_ref(), Some(&stored.submit));
        }
    }
    let inputs = state.jobs.values().filter(|folded| folded.input.is_some()).count();
    let connection =
        Connection::open_with_flags(folder.join("journal.db"), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let rows: usize = connection.query_row("SELECT count(*) FROM input", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, inputs, "inputs of jobs that are not done");
    let ended = state.jobs.values().filter(|folded| folded.end.is_some()).count();
    let unfinished = reader.count_unfinished(JobId(1 << 60)).unwrap();
    assert_eq!(unfinished, (state.jobs.len() - ended) as u64, "unfinished jobs");
    assert_eq!(all_ended(&reader, EndedFilter::default()).len(), ended, "ended jobs");
}

/// All ended jobs, page by page.
pub fn all_ended(reader: &JournalReader, filter: EndedFilter) -> Vec<JobId> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = reader.ended(filter, after, 7).unwrap();
        found.extend(page.rows.iter().map(|row| row.job));
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

/// A submit.
pub fn submit(first: u64, uid: u32, key: Option<&str>, inputs: Vec<Payload>) -> AcceptedJobs {
    let policy = Policy { priority: (first % 10) as u8, timeout_ms: Some(first), ..Policy::default() };
    AcceptedJobs {
        first: JobId(first),
        uid,
        key: key.map(|key| SubmitKey::new(key.as_bytes()).unwrap()),
        digest: SubmitDigest::of("a", 0, &Policy::default(), &inputs),
        kind: "a".to_owned(),
        pool: "default".to_owned(),
        flavour: 3,
        policy,
        accepted_us: 1_000_000 * first,
        expires_us: first.is_multiple_of(3).then_some(5 + first),
        inputs,
    }
}

/// An input, or an output, of a text.
pub fn payload(text: &str) -> Payload {
    Payload::from(text.as_bytes().to_vec())
}

/// The submit of one job as a fact.
pub fn accept(first: u64) -> Fact {
    Fact::Accepted(Box::new(submit(first, 1000, None, vec![payload("x")])))
}

/// The end of a job at this moment.
pub fn end(job: u64, fence: Option<u32>, outcome: Outcome, at_us: u64) -> Fact {
    let is_done = outcome == Outcome::Done;
    Fact::Ended(Box::new(DurableEnd {
        job: JobId(job),
        fence: fence.map(Fence),
        by: (outcome == Outcome::Cancelled).then_some(Canceller::Owner { uid: 7 }),
        survivors: if is_done {
            Vec::new()
        } else {
            vec![Survivor { pid: 9, uid: None, name: "x".to_owned() }]
        },
        outcome,
        output: is_done.then(|| payload("result")),
        at_us,
        started_us: fence.map(|fence| at_us - u64::from(fence)),
        waited_us: 5,
        ran_us: 7,
    }))
}

/// The end of an attempt, with a death if it was charged.
pub fn attempt(job: u64, fence: u32, how: AttemptEnd) -> Fact {
    let death = JobDeath {
        at_us: 9,
        part: None,
        attempt: fence,
        worker: WorkerId(4),
        pid: 99,
        death: Death::Fault { signal: 11, core: false, address: 16 },
        charged: true,
        evidence: Default::default(),
    };
    Fact::AttemptEnded(Box::new(EndedAttempt {
        job: JobId(job),
        fence: Fence(fence),
        // As if the first offer had been given back.
        number: fence.max(2) - 1,
        how,
        at_us: FAR_US,
        message: (how == AttemptEnd::Failed).then(|| "it said no".to_owned()),
        death: matches!(how, AttemptEnd::Charged | AttemptEnd::Uncharged).then(|| Box::new(death)),
    }))
}

/// Random numbers from a seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// Random facts, each next one about what the facts before have left; most fit.
pub struct FactMill {
    dice: Dice,
    next_job: u64,
    pub state: DurableState,
}

impl FactMill {
    pub fn new(seed: u64) -> Self {
        Self { dice: Dice(seed | 1), next_job: 1, state: DurableState::default() }
    }

    /// The next fact, already folded, and whether it fits.
    pub fn next(&mut self) -> (Fact, Result<(), Misfit>) {
        let fact = self.fact();
        let fits = self.state.add(&fact);
        (fact, fits)
    }

    fn fact(&mut self) -> Fact {
        let sort = self.dice.below(10);
        let known = self.state.jobs.len() as u64;
        if known < 4 || sort < 3 {
            let count = 1 + self.dice.below(5);
            let first = self.next_job;
            self.next_job += count + self.dice.below(2);
            let key = format!("key {}", self.dice.below(200));
            let inputs = (0..count).map(|_| payload(&"x".repeat(self.dice.below(300) as usize))).collect();
            let key = (self.dice.below(3) == 0).then_some(key.as_str());
            return Fact::Accepted(Box::new(submit(first, 1000 + (first % 3) as u32, key, inputs)));
        }
        let at = self.dice.below(known) as usize;
        let (job, folded) = self.state.jobs.iter().nth(at).expect("there are so many");
        let (job, fence, has_ended) = (job.0, folded.durable.fence.0, folded.end.is_some());
        let fence = fence + u32::from(self.dice.below(8) > 1);
        let id = JobId(job);
        match (has_ended, self.dice.below(8)) {
            (true, 0) => Fact::Retried { job: id, at_us: 5, expires_us: Some(77 + job) },
            (true, 1) => Fact::Forgotten { job: id },
            (true, 2) => Fact::Evicted { jobs: Box::new([id]) },
            (_, 3) => Fact::Started { job: id, fence: Fence(fence), at_us: 3 },
            (_, 4 | 5) => attempt(job, fence, ATTEMPT_ENDS[self.dice.below(5) as usize]),
            _ => {
                let outcomes = [
                    Outcome::Done,
                    Outcome::Done,
                    Outcome::Failed { message: "no".to_owned(), code: Some(3) },
                    Outcome::Crashed { crashes: 3, last: "SIGSEGV".to_owned() },
                    Outcome::TimedOut { limit: TimeLimit::Cpu, limit_ms: 4, part: None },
                    Outcome::Cancelled,
                    Outcome::Lost { reason: "power".to_owned() },
                ];
                let outcome = outcomes[self.dice.below(7) as usize].clone();
                let at_us = FAR_US + self.dice.below(50);
                let fence = (outcome != Outcome::Cancelled).then_some(fence);
                end(job, fence, outcome, at_us)
            }
        }
    }
}

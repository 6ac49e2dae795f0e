//! What the writer's thread does: sessions one after the other, each with one connection, until the run ends.
//!
//! What a failed transaction held stands in `left`, and is the first thing that the next session writes. Whether the transaction got
//! into the database nevertheless is known by the count of transactions in the row of the run. A submit that may have got there is
//! never refused: it has its answer when it is durable. Driven by `writer.rs`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bulkhead_facts::Misfit;
use bulkhead_facts::fact::{Fact, FactNo};
use bulkhead_proto::ids::JobId;
use bulkhead_sys::clock;
use bulkhead_sys::file_system::FileSeen;
use bulkhead_sys::lock::InstanceLock;
use rusqlite::{Connection, params};

use crate::answer::JournalAnswer;
use crate::answer_door::AnswerDoor;
use crate::apply::{Applier, ApplyError};
use crate::bounds::{COMMIT_BYTES_MAX, COMMIT_FACTS_MAX, EVICT_STEP, RETRY_AFTER, VACUUM_PAGES};
use crate::clock_rule::ClockRule;
use crate::connection;
use crate::fact_queue::{FactQueue, TakenWork, WaitingFact};
use crate::numbers::{self, NUMBER_KINDS, NextNumbers, NumberKind};
use crate::opening::OpenJournal;
use crate::place::JournalPlace;
use crate::retention::{self, NextToGo};
use crate::session::{FailedCommit, LogPages, WriteSession, in_words};
use crate::settings::KeepRules;
use crate::watched_files::{WatchedFiles, is_same, look};

/// Jobs that come of age are looked for at most so often.
const AGE_STEP: Duration = Duration::from_secs(60);
/// While facts are stored, jobs beyond the bounds are looked for so often.
const LOOK_AFTER: Duration = Duration::from_secs(1);

/// The state of the thread.
pub(crate) struct WriterThread {
    queue: Arc<FactQueue>,
    door: AnswerDoor,
    place: JournalPlace,
    keep: KeepRules,
    clock: ClockRule,
    epoch: u64,
    /// Transactions of this run that are durable.
    commits: u64,
    /// What identifies the database, once it was seen.
    database: Option<FileSeen>,
    /// The first numbers that this run may give out.
    first: NextNumbers,
    reserved: NextNumbers,
    left: LeftWork,
    /// Whether the last transaction failed so late that it may be in the database.
    is_unsure: bool,
    /// Why nothing can be stored, as it was told last.
    degraded: Option<String>,
    /// Held until the thread ends.
    _lock: InstanceLock,
}

/// What a failed transaction held.
#[derive(Debug, Default)]
struct LeftWork {
    facts: Vec<WaitingFact>,
    reserve: Vec<(NumberKind, u64)>,
    /// Jobs that it removed.
    evicted: Vec<JobId>,
    /// Which of the facts did not fit, if the transaction is in the database after all.
    misfits: Vec<(FactNo, Misfit)>,
    /// Whether the database may have all of this, so that its submits are kept like all else.
    is_held: bool,
    /// Whether all of this is in the database, and only has to be synced.
    is_in: bool,
}

impl WriterThread {
    pub(crate) fn new(journal: OpenJournal, queue: Arc<FactQueue>, door: AnswerDoor) -> (Self, Connection) {
        let (epoch, first) = (journal.epoch().number, *journal.first_numbers());
        let OpenJournal { place, lock, settings, connection, clock, reserved, .. } = journal;
        let writer = Self {
            queue,
            door,
            place,
            keep: settings.keep,
            clock,
            epoch,
            commits: 0,
            database: None,
            first,
            reserved,
            left: LeftWork::default(),
            is_unsure: false,
            degraded: None,
            _lock: lock,
        };
        (writer, connection)
    }

    /// Serves until the run ends.
    pub(crate) fn run(mut self, connection: Connection) {
        let mut next = Ok(connection);
        loop {
            let is_last = self.queue.is_closing();
            let result = next.and_then(|connection| self.serve(connection));
            let Err(why) = result else { return self.door.tell(JournalAnswer::Closed { is_clean: true }) };
            self.fail(why);
            // One session more is tried for what is left.
            if is_last {
                return self.door.tell(JournalAnswer::Closed { is_clean: false });
            }
            self.queue.rest(RETRY_AFTER);
            next = self.reopen();
        }
    }

    /// Opens the database again, if it is the one that this run began with: another one is left as it is.
    fn reopen(&self) -> Result<Connection, String> {
        let (path, seen) = (self.place.database.display(), look(&self.place.database)?);
        if self.database.is_some_and(|first| !is_same(&first, &seen)) {
            return Err(format!("{path} is not the file that the daemon began with: restart the daemon"));
        }
        connection::to_write(&self.place.database, false).map_err(in_words)
    }

    /// One session: returns when the run has ended.
    fn serve(&mut self, mut connection: Connection) -> Result<(), String> {
        let pages = LogPages::default();
        connection::keep_log(&connection).map_err(in_words)?;
        pages.count(&mut connection).map_err(in_words)?;
        let commits = self.commits_in(&connection)?;
        let files = WatchedFiles::new(&self.place)?;
        self.database.get_or_insert(files.database());
        let mut session =
            WriteSession::new(&connection, files, pages, (self.epoch, commits)).map_err(in_words)?;
        self.write_left(&mut session)?;
        let mut next_look = self.evict(&mut session)?;
        loop {
            let work = self.queue.take(COMMIT_FACTS_MAX, COMMIT_BYTES_MAX);
            let close = work.close;
            let is_idle = work.facts.is_empty() && work.reserve.is_empty();
            let stored = work.facts.len();
            if !is_idle {
                self.commit(&mut session, work)?;
                session.copy_long_log()?;
                // What was stored may be too much, or the first that is to go one day.
                let soon = Instant::now() + LOOK_AFTER;
                next_look = Some(next_look.map_or(soon, |next_look| next_look.min(soon)));
            }
            if let Some(unused) = close {
                return self.end(&mut session, unused);
            }
            let left = next_look.map(|next_look| next_look.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                next_look = self.pay_back(&mut session, stored)?;
            } else if is_idle {
                self.queue.wait(left);
            }
        }
    }

    /// The transactions of this run that the database has. It is the database of this run, and lacks none.
    fn commits_in(&mut self, connection: &Connection) -> Result<u64, String> {
        let sql = "SELECT commits FROM epoch WHERE number = ?";
        let found: Result<u64, _> = connection.query_row(sql, [self.epoch], |row| row.get(0));
        let path = self.place.database.display();
        let found = found.map_err(|error| {
            format!("{path} has no row of this run, restart the daemon: {}", in_words(error))
        })?;
        if std::mem::take(&mut self.is_unsure) && found == self.commits + 1 {
            self.commits = found;
            self.left.is_in = true;
        }
        if !self.left.is_in {
            self.left.misfits.clear();
            self.left.evicted.clear();
        }
        let known = self.commits;
        match found {
            _ if found == known => Ok(found),
            _ if found < known => Err(format!(
                "{path} lacks {} transactions that were stored: restart the daemon",
                known - found
            )),
            _ => Err(format!("{path} has transactions of another program: restart the daemon")),
        }
    }

    /// Writes anew what a failed transaction held; also if that is nothing, because only a commit of new bytes shows that the disk
    /// takes them.
    fn write_left(&mut self, session: &mut WriteSession<'_>) -> Result<(), String> {
        if self.degraded.is_none() {
            return Ok(());
        }
        // After a failed sync, pages of the log may be in memory alone, although the kernel does not write them any more. Copying the
        // log writes them anew into the database; commits behind such a hole would be lost with it.
        session.empty_log()?;
        self.reserved = reserve_in_file(&self.place, self.reserved, &self.left.reserve)?;
        let Self { left, reserved, clock, .. } = self;
        let LeftWork { facts, reserve, misfits, is_in, .. } = left;
        let written = session.transaction(clock, |applier| {
            write_numbers(applier, reserved, reserve)?;
            if !*is_in {
                *misfits = apply_all(applier, facts)?;
            }
            Ok(())
        });
        self.settle(session, written)?;
        self.degraded = None;
        self.door.tell(JournalAnswer::Recovered);
        let LeftWork { facts, reserve, evicted, misfits, .. } = std::mem::take(&mut self.left);
        self.answer(misfits, &facts, &reserve);
        if !evicted.is_empty() {
            self.door.tell(JournalAnswer::Evicted { jobs: evicted });
        }
        Ok(())
    }

    /// Counts a transaction that succeeded, or remembers whether the failed one may be in the database.
    fn settle<T>(
        &mut self,
        session: &WriteSession<'_>,
        written: Result<T, FailedCommit>,
    ) -> Result<T, String> {
        match written {
            Ok(value) => {
                self.commits = session.commits();
                Ok(value)
            }
            Err(failed) => {
                self.is_unsure = failed.is_unsure;
                Err(failed.why)
            }
        }
    }

    /// Stores what was taken, in one transaction, and answers.
    fn commit(&mut self, session: &mut WriteSession<'_>, work: TakenWork) -> Result<(), String> {
        self.left = LeftWork { facts: work.facts, reserve: work.reserve, ..LeftWork::default() };
        self.reserved = reserve_in_file(&self.place, self.reserved, &self.left.reserve)?;
        let Self { left: LeftWork { facts, reserve, misfits, .. }, reserved, clock, .. } = self;
        let written = session.transaction(clock, |applier| {
            write_numbers(applier, reserved, reserve)?;
            *misfits = apply_all(applier, facts)?;
            Ok(())
        });
        self.settle(session, written)?;
        let LeftWork { facts, reserve, misfits, .. } = std::mem::take(&mut self.left);
        self.answer(misfits, &facts, &reserve);
        Ok(())
    }

    /// Tells what is durable now.
    fn answer(
        &mut self,
        misfits: Vec<(FactNo, Misfit)>,
        facts: &[WaitingFact],
        reserve: &[(NumberKind, u64)],
    ) {
        self.queue.answered(facts.len(), facts.iter().map(|fact| fact.bytes).sum());
        for (fact, misfit) in misfits {
            self.door.tell(JournalAnswer::DoesNotFit { fact, misfit });
        }
        if let Some(last) = facts.last() {
            self.door.tell(JournalAnswer::Stored { up_to: last.number, commits: self.commits });
        }
        for (kind, _) in reserve {
            self.door.tell(JournalAnswer::Reserved { kind: *kind, next: self.reserved.of(*kind) });
        }
    }

    /// A session has ended by an error: submits are refused unless the database may have them, all else is kept.
    fn fail(&mut self, why: String) {
        let (mut refused, last) = self.queue.take_submits();
        self.left.is_held |= self.is_unsure;
        let mut first = refused.first().map(|fact| fact.number);
        if !self.left.is_held {
            first = self.left.facts.first().map(|fact| fact.number).or(first);
            let (submits, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.left.facts)
                .into_iter()
                .partition(|fact| matches!(fact.fact, Fact::Accepted(_)));
            self.left.facts = kept;
            refused.extend(submits);
        }
        self.queue.answered(refused.len(), refused.iter().map(|fact| fact.bytes).sum());
        let is_first = self.degraded.is_none();
        if let Some(from) = first.filter(|_| is_first || !refused.is_empty()) {
            self.door.tell(JournalAnswer::NotStored { from, to: last, why: why.clone() });
        }
        if self.degraded.as_ref() != Some(&why) {
            self.degraded = Some(why.clone());
            self.door.tell(JournalAnswer::Degraded { why });
        }
    }

    /// Removes rows after a commit of so many facts: up to twice as many, so that what is beyond the bounds is paid back also
    /// while facts go on to arrive, and one step at least; when to look again, if anything is left.
    fn pay_back(&mut self, session: &mut WriteSession<'_>, stored: usize) -> Result<Option<Instant>, String> {
        for _ in 1..(2 * stored).div_ceil(EVICT_STEP) {
            let next_look = self.evict(session)?;
            if next_look.is_none_or(|next_look| next_look > Instant::now()) {
                return Ok(next_look);
            }
        }
        self.evict(session)
    }

    /// Removes one step of ended jobs or attempts; when to look again, if anything is left.
    fn evict(&mut self, session: &mut WriteSession<'_>) -> Result<Option<Instant>, String> {
        let (now, wall_us) = (Instant::now(), clock::wall_us());
        self.clock.look(wall_us, clock::boot_us());
        if self.clock.take_jump() {
            self.door.tell(JournalAnswer::ClockJumped);
        }
        let believed_us = self.clock.is_believed().then_some(wall_us);
        let found = retention::next_to_go(session.connection(), &self.keep, believed_us, EVICT_STEP);
        let Some(next) = found.map_err(in_words)? else {
            let oldest_us = retention::oldest_us(session.connection()).map_err(in_words)?;
            let due_us = oldest_us.map(|oldest_us| oldest_us.saturating_add(self.keep.age_max_us));
            let left = due_us.map(|due_us| Duration::from_micros(due_us.saturating_sub(wall_us)));
            return Ok(left.and_then(|left| now.checked_add(left.max(AGE_STEP))));
        };
        if let NextToGo::Jobs(jobs) = &next {
            self.left.evicted.clone_from(jobs);
        }
        let removed = session.transaction(&mut self.clock, |applier| match next {
            NextToGo::Jobs(jobs) => applier.apply(&Fact::Evicted { jobs: jobs.into() }),
            NextToGo::Attempts(ids) => Ok(applier.drop_attempts(&ids)?),
        });
        self.settle(session, removed)?;
        let jobs = std::mem::take(&mut self.left.evicted);
        if !jobs.is_empty() {
            self.door.tell(JournalAnswer::Evicted { jobs });
        }
        session.vacuum(VACUUM_PAGES)?;
        session.copy_long_log()?;
        Ok(Some(now))
    }

    /// Ends the run: the next one begins with the first numbers that this one did not use.
    fn end(&mut self, session: &mut WriteSession<'_>, unused: NextNumbers) -> Result<(), String> {
        let at_us = clock::wall_us();
        let all = NUMBER_KINDS.map(|kind| (kind, 0));
        // Numbers that were given out stay used, whatever the daemon says.
        let mut next = unused.max(self.first).min(self.reserved);
        next.set(NumberKind::Epoch, self.epoch + 1);
        let written = session.transaction(&mut self.clock, |applier| {
            write_numbers(applier, &next, &all)?;
            applier.apply(&Fact::EpochEnded { at_us })
        });
        self.settle(session, written)?;
        // A log that cannot be emptied is left to the next run.
        drop(session.empty_log());
        numbers::write(&self.place.folder, &self.place.numbers, &next).map_err(|error| error.to_string())
    }
}

/// Applies facts in their order; those that do not fit.
fn apply_all(applier: &mut Applier<'_>, facts: &[WaitingFact]) -> Result<Vec<(FactNo, Misfit)>, ApplyError> {
    let mut misfits = Vec::new();
    for WaitingFact { number, fact, .. } in facts {
        match applier.apply(fact) {
            Err(ApplyError::Misfit(misfit)) => misfits.push((*number, misfit)),
            result => result?,
        }
    }
    Ok(misfits)
}

/// Reserves numbers in the file, which goes first; the numbers that are reserved then.
fn reserve_in_file(
    place: &JournalPlace,
    mut reserved: NextNumbers,
    reserve: &[(NumberKind, u64)],
) -> Result<NextNumbers, String> {
    if reserve.is_empty() {
        return Ok(reserved);
    }
    for (kind, next) in reserve {
        reserved.set(*kind, reserved.of(*kind).max(*next));
    }
    let written = numbers::write(&place.folder, &place.numbers, &reserved);
    written.map_err(|error| format!("cannot write {}: {error}", place.numbers.display()))?;
    Ok(reserved)
}

fn write_numbers(
    applier: &mut Applier<'_>,
    next: &NextNumbers,
    kinds: &[(NumberKind, u64)],
) -> Result<(), ApplyError> {
    for (kind, _) in kinds {
        applier.statements.set_number.execute(params![kind.name(), next.of(*kind)])?;
    }
    Ok(())
}

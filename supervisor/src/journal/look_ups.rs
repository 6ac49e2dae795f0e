//! Questions about jobs that only the journal may have: users take turns, and each question is read at once.
//!
//! It maps rows to values of the core and decides nothing: whether the client may see a job, the core knows. Driven by
//! `reader_thread.rs`, in its thread.

use std::collections::{BTreeMap, VecDeque};

use bulkhead_core::action::LookUpNo;
use bulkhead_core::event::{Event, JournalJob, LookUpAnswer};
use bulkhead_journal::looking_up::SoughtJob;
use bulkhead_journal::reader::{JournalReader, StoredJob};
use bulkhead_proto::ids::{ClientId, JobId};

/// A question.
#[derive(Debug)]
pub(crate) struct LookUpQuestion {
    /// Which.
    pub(crate) number: LookUpNo,
    /// For whom.
    pub(crate) client: ClientId,
    /// The user of the client.
    pub(crate) uid: u32,
    /// The jobs.
    pub(crate) jobs: Vec<JobId>,
}

/// Questions without an answer. A connection has one at a time, so connections bound them.
#[derive(Debug, Default)]
pub(super) struct LookUpTurns {
    of: BTreeMap<u32, VecDeque<LookUpQuestion>>,
    /// Users with questions; the first has its turn.
    turns: VecDeque<u32>,
}

impl LookUpTurns {
    /// Adds a question.
    pub(super) fn add(&mut self, question: LookUpQuestion) {
        let of_user = self.of.entry(question.uid).or_default();
        if of_user.is_empty() {
            self.turns.push_back(question.uid);
        }
        of_user.push_back(question);
    }

    /// Takes the first question of the user whose turn it is.
    pub(super) fn next(&mut self) -> Option<LookUpQuestion> {
        let uid = self.turns.pop_front()?;
        let of_user = self.of.get_mut(&uid)?;
        let question = of_user.pop_front();
        if of_user.is_empty() {
            self.of.remove(&uid);
        } else {
            self.turns.push_back(uid);
        }
        question
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }
}

/// Questions that the thread was asked and has not answered, each with its client.
#[derive(Debug, Default)]
pub(super) struct OpenLookUps(BTreeMap<LookUpNo, ClientId>);

impl OpenLookUps {
    /// Adds a question.
    pub(super) fn add(&mut self, number: LookUpNo, client: ClientId) {
        self.0.insert(number, client);
    }

    /// Removes a question that is answered.
    pub(super) fn remove(&mut self, number: LookUpNo) {
        self.0.remove(&number);
    }

    /// Answers them all: the thread has ended.
    pub(super) fn give_up(&mut self) -> impl Iterator<Item = Event> {
        std::mem::take(&mut self.0).into_iter().map(|(number, client)| unanswerable(number, client))
    }
}

/// The answer to a question when the thread that reads has ended.
pub(super) fn unanswerable(number: LookUpNo, client: ClientId) -> Event {
    let why = "the thread that reads the journal has ended: restart the daemon".to_owned();
    Event::LookedUp { number, client, found: Err(why) }
}

/// What the journal has of these jobs, in their order.
///
/// # Errors
/// Why nothing can be read, as a text for people.
pub(super) fn read(reader: &JournalReader, jobs: &[JobId]) -> Result<Vec<LookUpAnswer>, String> {
    let found = reader.look_up(jobs).map_err(|error| error.to_string())?;
    Ok(found.into_iter().map(answer_of).collect())
}

fn answer_of(SoughtJob { job, run }: SoughtJob) -> LookUpAnswer {
    LookUpAnswer {
        found: job.map(|stored| stored.map(|stored| Box::new(of_stored(*stored)))),
        run_until_us: run.map(|run| run.ended_us.unwrap_or(run.seen_us)),
    }
}

fn of_stored(stored: StoredJob) -> JournalJob {
    let StoredJob { job, submit, counts, expires_us, input, end, attempts } = stored;
    let end = end.map(|end| end.end);
    JournalJob { job, submit: submit.shared, counts, expires_us, input, end, attempts }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_take_turns_and_each_has_its_questions_in_order() {
        let mut turns = LookUpTurns::default();
        for (number, uid) in [(1, 7), (2, 7), (3, 7), (4, 8), (5, 9), (6, 8)] {
            let client = ClientId(number);
            turns.add(LookUpQuestion { number: LookUpNo(number), client, uid, jobs: vec![JobId(1)] });
        }
        let order: Vec<u64> = std::iter::from_fn(|| turns.next()).map(|question| question.number.0).collect();
        assert_eq!(order, [1, 4, 5, 2, 6, 3]);
        assert!(turns.is_empty() && turns.of.is_empty());
    }
}

//! What waits for the writer: facts, and requests for numbers, within bounds of number and bytes.
//!
//! The daemon's loop puts in and never waits; the writer takes, and waits for more. What the writer has taken counts until it is
//! answered. Submits are refused above three quarters of the bounds, so that what becomes of accepted jobs has room; the daemon
//! stops offering durable jobs before that room is used up.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bulkhead_facts::fact::{Fact, FactNo};

use crate::numbers::{NextNumbers, NumberKind};

/// A fact that waits.
#[derive(Debug)]
pub(crate) struct WaitingFact {
    pub(crate) number: FactNo,
    pub(crate) fact: Fact,
    pub(crate) bytes: usize,
}

/// The queue.
#[derive(Debug)]
pub(crate) struct FactQueue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    facts_max: usize,
    bytes_max: usize,
}

/// What the writer takes at once.
#[derive(Debug, Default)]
pub(crate) struct TakenWork {
    pub(crate) facts: Vec<WaitingFact>,
    /// Numbers that are to be reserved up to this one.
    pub(crate) reserve: Vec<(NumberKind, u64)>,
    /// The run ends; the first numbers that it did not use.
    pub(crate) close: Option<NextNumbers>,
}

#[derive(Debug, Default)]
struct Waiting {
    work: VecDeque<WaitingFact>,
    reserve: Vec<(NumberKind, u64)>,
    close: Option<NextNumbers>,
    /// Facts and bytes in `work`, and those that the writer has taken and not answered.
    facts: usize,
    bytes: usize,
    last: FactNo,
}

/// A fact that was not taken.
#[derive(Debug)]
pub enum NotQueued {
    /// It has no room.
    Full(Fact),
    /// The end of the run was asked for before.
    Closing(Fact),
}

impl FactQueue {
    pub(crate) fn new(facts_max: usize, bytes_max: usize) -> Self {
        Self { waiting: Mutex::default(), wake: Condvar::new(), facts_max, bytes_max }
    }

    /// Adds a fact; the next one in number.
    ///
    /// # Errors
    /// [`NotQueued`]: the fact, whose number stays free.
    ///
    /// # Panics
    /// If it is not the next one.
    pub(crate) fn push(&self, number: FactNo, fact: Fact) -> Result<(), NotQueued> {
        let bytes = fact.memory_bytes();
        let mut waiting = self.lock();
        assert_eq!(number.0, waiting.last.0 + 1, "facts are numbered without a gap");
        if waiting.close.is_some() {
            return Err(NotQueued::Closing(fact));
        }
        let share = |bound: usize| if matches!(fact, Fact::Accepted(_)) { bound / 4 * 3 } else { bound };
        let (facts, all) = (waiting.facts + 1, waiting.bytes + bytes);
        if facts > share(self.facts_max) || all > share(self.bytes_max) {
            return Err(NotQueued::Full(fact));
        }
        (waiting.facts, waiting.bytes, waiting.last) = (facts, all, number);
        waiting.work.push_back(WaitingFact { number, fact, bytes });
        self.wake.notify_one();
        Ok(())
    }

    /// Asks for numbers up to this one.
    pub(crate) fn reserve(&self, kind: NumberKind, up_to: u64) {
        self.lock().reserve.push((kind, up_to));
        self.wake.notify_one();
    }

    /// Asks for the end of the run, after all that waits.
    pub(crate) fn close(&self, unused: NextNumbers) {
        self.lock().close = Some(unused);
        self.wake.notify_one();
    }

    /// Whether the end of the run is asked for.
    pub(crate) fn is_closing(&self) -> bool {
        self.lock().close.is_some()
    }

    /// How many facts have no answer yet, and the bytes that they take.
    pub(crate) fn unanswered(&self) -> (usize, usize) {
        let waiting = self.lock();
        (waiting.facts, waiting.bytes)
    }

    /// Waits until there is work, for so long at most; `None`: for ever.
    pub(crate) fn wait(&self, patience: Option<Duration>) {
        self.wait_while(patience, |waiting| {
            waiting.work.is_empty() && waiting.reserve.is_empty() && waiting.close.is_none()
        });
    }

    /// Waits for so long, or until the run ends.
    pub(crate) fn rest(&self, patience: Duration) {
        self.wait_while(Some(patience), |waiting| waiting.close.is_none());
    }

    fn wait_while(&self, patience: Option<Duration>, is_idle: impl Fn(&mut Waiting) -> bool) {
        let waiting = self.lock();
        match patience {
            Some(patience) => drop(self.wake.wait_timeout_while(waiting, patience, is_idle)),
            None => drop(self.wake.wait_while(waiting, is_idle)),
        }
    }

    /// Takes what waits, within these bounds. The end of the run comes with the last facts.
    pub(crate) fn take(&self, facts_max: usize, bytes_max: usize) -> TakenWork {
        let mut waiting = self.lock();
        let mut taken = TakenWork { reserve: std::mem::take(&mut waiting.reserve), ..TakenWork::default() };
        let mut bytes = 0;
        while taken.facts.len() < facts_max && bytes < bytes_max {
            let Some(next) = waiting.work.pop_front() else { break };
            bytes += next.bytes;
            taken.facts.push(next);
        }
        if waiting.work.is_empty() {
            taken.close = waiting.close;
        }
        taken
    }

    /// Takes the submits among all that waits, because they are refused, and the number of the last fact of all.
    pub(crate) fn take_submits(&self) -> (Vec<WaitingFact>, FactNo) {
        let mut waiting = self.lock();
        let all = std::mem::take(&mut waiting.work);
        let (submits, rest): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|waiting| matches!(waiting.fact, Fact::Accepted(_)));
        waiting.work = rest.into();
        (submits, waiting.last)
    }

    /// These facts and bytes have their answer.
    pub(crate) fn answered(&self, facts: usize, bytes: usize) {
        let mut waiting = self.lock();
        waiting.facts -= facts;
        waiting.bytes -= bytes;
    }

    /// No code panics between two changes that belong together.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_proto::ids::JobId;

    use bulkhead_facts::fact::AcceptedJobs;
    use bulkhead_facts::submit_key::SubmitDigest;
    use bulkhead_proto::job::{Payload, Policy};

    use super::*;

    fn accepted(first: u64, input: &str) -> Fact {
        Fact::Accepted(Box::new(AcceptedJobs {
            first: JobId(first),
            uid: 1000,
            key: None,
            digest: SubmitDigest([0; 32]),
            kind: "a".to_owned(),
            pool: "default".to_owned(),
            flavour: 0,
            policy: Policy::default(),
            accepted_us: 1,
            expires_us: None,
            inputs: vec![Payload::from(input.as_bytes().to_vec())],
        }))
    }

    fn forget(job: u64) -> Fact {
        Fact::Forgotten { job: JobId(job) }
    }

    #[test]
    fn submits_are_refused_before_the_rest() {
        let queue = FactQueue::new(4, 1 << 20);
        for number in 1..=3 {
            queue.push(FactNo(number), accepted(number, "x")).unwrap();
        }
        assert!(matches!(queue.push(FactNo(4), accepted(4, "x")), Err(NotQueued::Full(Fact::Accepted(_)))));
        queue.push(FactNo(4), forget(1)).unwrap();
        assert!(queue.push(FactNo(5), forget(1)).is_err());
        let taken = queue.take(2, usize::MAX);
        assert_eq!(taken.facts.len(), 2);
        assert!(queue.push(FactNo(5), forget(1)).is_err(), "what has no answer counts");
        queue.answered(2, taken.facts.iter().map(|fact| fact.bytes).sum());
        queue.push(FactNo(5), forget(1)).unwrap();
        assert_eq!(queue.take_submits().0.len(), 1);
        assert_eq!(queue.take(9, usize::MAX).facts.len(), 2);
    }

    #[test]
    fn bytes_are_bounded_too_and_the_end_comes_last() {
        let queue = FactQueue::new(100, 64 << 10);
        let long = "x".repeat(4096);
        let mut number = 0;
        while queue.push(FactNo(number + 1), accepted(number + 1, &long)).is_ok() {
            number += 1;
        }
        assert!((9..=11).contains(&number), "{number} of 4.6 KiB in three quarters of 64 KiB");
        queue.close(NextNumbers::default());
        assert!(matches!(queue.push(FactNo(number + 1), forget(1)), Err(NotQueued::Closing(_))));
        let first = queue.take(100, 4096);
        assert!(first.facts.len() == 1 && first.close.is_none());
        let rest = queue.take(100, usize::MAX);
        assert!(rest.facts.len() as u64 == number - 1 && rest.close.is_some());
    }

    #[test]
    #[should_panic(expected = "without a gap")]
    fn a_gap_in_the_numbers_is_a_defect() {
        let queue = FactQueue::new(4, 1 << 20);
        drop(queue.push(FactNo(2), forget(1)));
    }
}

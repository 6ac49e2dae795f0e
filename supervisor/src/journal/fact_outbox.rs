//! Facts on their way to the journal's writer: their numbers, those that the writer has no room for yet, and which of them are settled.
//!
//! A fact is settled when it is stored, or when the writer has said that it never will be. The writer counts up to the last fact that it
//! stored; the refused submits behind that one are settled too, and nothing else tells so. Pure; driven by `journal.rs`.

use std::collections::VecDeque;

use bulkhead_facts::fact::{Fact, FactNo};
use bulkhead_journal::NotQueued;

/// The facts of this run.
#[derive(Debug, Default)]
pub(crate) struct FactOutbox {
    /// The last fact that was numbered.
    last: FactNo,
    /// All facts up to this one are settled.
    settled: FactNo,
    /// Submits that are not settled, in their order, each with whether it was refused.
    submits: VecDeque<(FactNo, bool)>,
    /// Facts that the writer had no room for, in their order.
    kept: VecDeque<(FactNo, Fact)>,
}

impl FactOutbox {
    /// Numbers facts and hands them over. Those that find no room are kept: nothing is dropped, and nothing overtakes.
    pub(crate) fn add(
        &mut self,
        facts: impl Iterator<Item = Fact>,
        mut push: impl FnMut(FactNo, Fact) -> Result<(), NotQueued>,
    ) {
        for fact in facts {
            self.last.0 += 1;
            if matches!(fact, Fact::Accepted(_)) {
                self.submits.push_back((self.last, false));
            }
            self.kept.push_back((self.last, fact));
        }
        self.hand_over(&mut push);
    }

    /// Hands over what was kept, as far as there is room.
    pub(crate) fn hand_over(&mut self, mut push: impl FnMut(FactNo, Fact) -> Result<(), NotQueued>) {
        while let Some((number, fact)) = self.kept.pop_front() {
            if let Err(NotQueued::Full(fact) | NotQueued::Closing(fact)) = push(number, fact) {
                self.kept.push_front((number, fact));
                return;
            }
        }
    }

    /// The writer has stored all facts up to this one. Returns up to which they are settled.
    pub(crate) fn stored(&mut self, up_to: FactNo) -> FactNo {
        self.settled = self.settled.max(up_to);
        while let Some((number, is_refused)) = self.submits.front().copied() {
            if number > self.settled && !(is_refused && number.0 == self.settled.0 + 1) {
                break;
            }
            self.settled = self.settled.max(number);
            self.submits.pop_front();
        }
        self.settled
    }

    /// The writer has refused the submits among these facts. Returns up to which facts are settled, if these are more than before.
    pub(crate) fn not_stored(&mut self, from: FactNo, to: FactNo) -> Option<FactNo> {
        let refused = self.submits.iter_mut().filter(|(number, _)| (from..=to).contains(number));
        refused.for_each(|(_, is_refused)| *is_refused = true);
        let before = self.settled;
        Some(self.stored(before)).filter(|settled| *settled > before)
    }

    /// How many facts are not settled.
    pub(crate) fn unsettled(&self) -> u64 {
        self.last.0 - self.settled.0
    }

    /// Whether facts wait until the writer has room.
    pub(crate) fn has_kept(&self) -> bool {
        !self.kept.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use bulkhead_facts::fact::AcceptedJobs;
    use bulkhead_facts::submit_key::SubmitDigest;
    use bulkhead_proto::ids::JobId;
    use bulkhead_proto::job::{Payload, Policy};

    use super::*;

    fn submit() -> Fact {
        Fact::Accepted(Box::new(AcceptedJobs {
            first: JobId(1),
            uid: 1000,
            key: None,
            digest: SubmitDigest([0; 32]),
            kind: "a".to_owned(),
            pool: "default".to_owned(),
            flavour: 0,
            policy: Policy::default(),
            accepted_us: 1,
            expires_us: None,
            inputs: vec![Payload::from(Vec::new())],
        }))
    }

    fn forget() -> Fact {
        Fact::Forgotten { job: JobId(1) }
    }

    /// An outbox whose facts the writer has all taken.
    fn taken(facts: Vec<Fact>) -> FactOutbox {
        let mut outbox = FactOutbox::default();
        outbox.add(facts.into_iter(), |_, _| Ok(()));
        outbox
    }

    #[test]
    fn what_finds_no_room_is_handed_over_later_in_its_order() {
        let mut outbox = FactOutbox::default();
        let (room, mut got) = (Cell::new(1), Vec::new());
        let mut push = |number: FactNo, fact| {
            if room.get() == 0 {
                return Err(NotQueued::Full(fact));
            }
            room.set(room.get() - 1);
            got.push(number.0);
            Ok(())
        };
        outbox.add([forget(), submit()].into_iter(), &mut push);
        outbox.add([forget()].into_iter(), &mut push);
        assert!(outbox.has_kept());
        room.set(9);
        outbox.hand_over(&mut push);
        assert_eq!(got, [1, 2, 3]);
        assert!(!outbox.has_kept());
        assert_eq!(outbox.unsettled(), 3);
    }

    #[test]
    fn a_refused_submit_behind_the_last_stored_fact_is_settled() {
        let mut outbox = taken(vec![forget(), submit(), submit(), forget(), submit()]);
        assert_eq!(outbox.not_stored(FactNo(1), FactNo(5)), None, "fact 1 is still to be stored");
        assert_eq!(outbox.stored(FactNo(1)), FactNo(3));
        assert_eq!(outbox.stored(FactNo(4)), FactNo(5));
        assert_eq!(outbox.unsettled(), 0);
    }

    #[test]
    fn a_refused_submit_alone_is_settled_at_once() {
        let mut outbox = taken(vec![submit(), submit()]);
        assert_eq!(outbox.not_stored(FactNo(1), FactNo(1)), Some(FactNo(1)));
        assert_eq!(outbox.unsettled(), 1, "the second submit is not refused");
        assert_eq!(outbox.stored(FactNo(2)), FactNo(2));
        assert_eq!(outbox.not_stored(FactNo(1), FactNo(2)), None);
    }
}

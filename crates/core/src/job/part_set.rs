//! Part sets: the parts of one job from its plan to its end, and the table of all jobs that have parts.
//!
//! A part is an entry of the job table and goes through the same states, with its own budgets, limits and blame. It
//! is no job: clients cannot name its number, it is counted apart, its input is its job's, and it is removed at its
//! end. It never outlives its job.
//!
//! | its job is | its parts are |
//! |---|---|
//! | at its plan: queued, waiting, solo, running | not known yet |
//! | parted | done, or queued, waiting, solo, running (a window of them at a time), or not made yet |
//! | at its merge: queued, waiting, solo, running | all done, their results kept |
//! | ended | removed; a worker may still hold an offer of one, whose result is dropped |
//!
//! Plain data. `parts.rs` drives it; nothing here looks at a job.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bulkhead_proto::ids::{ClientId, JobId, PoolId};
use bulkhead_proto::job::Payload;
use bulkhead_proto::limits::PARTS_MAX;

use crate::job::list::Key;

/// Parts have numbers from here on. Jobs are numbered from 1 and never reach it.
pub(crate) const FIRST_PART: JobId = JobId(1 << 63);
/// The lowest bits of a part's number count the parts of its job.
const PART_BITS: u32 = 16;
const _: () = assert!(PARTS_MAX <= 1 << PART_BITS, "every part has its number");

/// The number of a part set; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PartSetId(u64);

/// The parts of one job.
#[derive(Debug)]
pub(crate) struct PartSet {
    /// The place of the job.
    pub(super) job: Key,
    /// The number of the job.
    pub(super) id: JobId,
    pub(super) client: ClientId,
    pub(super) uid: u32,
    /// The pool that runs them.
    pub(super) pool: PoolId,
    /// The batch of the parts; the part set counts as one user of it.
    pub(super) batch: u32,
    /// How many parts the plan has.
    pub(super) parts: u32,
    /// The next part to be made.
    pub(super) next: u32,
    pub(super) done: u32,
    /// Parts that were made and are not done.
    pub(super) live: BTreeSet<Key>,
    /// The result of each part. Shared with an offer only at the merge.
    pub(super) results: Rc<Vec<Payload>>,
    /// Bytes of all results.
    pub(super) bytes: u64,
    /// The most attempts that one part took.
    pub(super) attempts: u32,
}

impl PartSet {
    /// Keeps the result of a part; returns the bytes of all results.
    ///
    /// # Panics
    /// If every part that was made is done, or an offer shares the results.
    pub(crate) fn keep(&mut self, part: u32, result: Payload) -> u64 {
        assert!(self.done < self.next, "part {part} of job {} was made and is not done", self.id);
        self.done += 1;
        self.bytes += result.as_bytes().len() as u64;
        let results = Rc::get_mut(&mut self.results).expect("no offer has the results before the merge");
        results[part as usize] = result;
        self.bytes
    }
}

/// The part sets of all jobs.
#[derive(Debug, Default)]
pub(crate) struct PartSets {
    map: BTreeMap<PartSetId, PartSet>,
    last: u64,
    of: BTreeMap<(ClientId, PoolId), usize>,
    of_user: BTreeMap<(u32, PoolId), usize>,
}

impl PartSets {
    /// Adds a part set.
    pub(crate) fn open(&mut self, part_set: PartSet) -> PartSetId {
        self.last += 1;
        *self.of.entry((part_set.client, part_set.pool)).or_default() += 1;
        *self.of_user.entry((part_set.uid, part_set.pool)).or_default() += 1;
        self.map.insert(PartSetId(self.last), part_set);
        PartSetId(self.last)
    }

    /// Removes a part set.
    ///
    /// # Panics
    /// If it was removed before.
    pub(crate) fn close(&mut self, id: PartSetId) -> PartSet {
        let part_set = self.map.remove(&id).expect("the parts of a job are closed once");
        count_out(&mut self.of, (part_set.client, part_set.pool));
        count_out(&mut self.of_user, (part_set.uid, part_set.pool));
        part_set
    }

    /// The part set of this number.
    pub(crate) fn get(&self, id: PartSetId) -> Option<&PartSet> {
        self.map.get(&id)
    }

    /// The part set of this number, to be changed.
    pub(super) fn get_mut(&mut self, id: PartSetId) -> Option<&mut PartSet> {
        self.map.get_mut(&id)
    }

    /// Jobs of one client that have parts in one pool.
    pub(crate) fn count_of(&self, client: ClientId, pool: PoolId) -> usize {
        self.of.get(&(client, pool)).copied().unwrap_or(0)
    }

    /// Jobs that have parts.
    pub(crate) fn count(&self) -> usize {
        self.map.len()
    }

    /// Jobs of one user that have parts in one pool.
    pub(crate) fn count_of_user(&self, uid: u32, pool: PoolId) -> usize {
        self.of_user.get(&(uid, pool)).copied().unwrap_or(0)
    }

    /// All part sets.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (PartSetId, &PartSet)> {
        self.map.iter().map(|(id, part_set)| (*id, part_set))
    }
}

fn count_out<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) {
    let count = counts.get_mut(&key).expect("jobs with parts are counted");
    *count -= 1;
    if *count == 0 {
        counts.remove(&key);
    }
}

impl PartSetId {
    /// The number of one of its parts in the job table.
    pub(crate) fn number(self, part: u32) -> JobId {
        JobId(FIRST_PART.0 | self.0 << PART_BITS | u64::from(part))
    }
}

/// The part set and the index of the part of this number; `None` if it is a job's.
pub(crate) fn part_of(number: JobId) -> Option<(PartSetId, u32)> {
    let part = number.0 & ((1 << PART_BITS) - 1);
    let part_set = (number.0 & !FIRST_PART.0) >> PART_BITS;
    (number >= FIRST_PART).then_some((PartSetId(part_set), part as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_a_number_of_its_own() {
        for (part_set, part) in [(1, 0), (1, PARTS_MAX - 1), (2, 0), (1 << 40, 77)] {
            assert_eq!(part_of(PartSetId(part_set).number(part)), Some((PartSetId(part_set), part)));
        }
        assert_ne!(PartSetId(1).number(PARTS_MAX - 1), PartSetId(2).number(0));
        assert_eq!(part_of(JobId(u64::from(u32::MAX))), None);
    }
}

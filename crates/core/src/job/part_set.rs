//! The parts of one job, from its plan to its end, and the table of all jobs that have parts.
//!
//! A part stands in the same table as jobs and goes the same ways, with budgets, limits and blame of its own, but it is
//! no job: its number lies beyond all that clients can name, it is counted apart, it has no input but its job's, and at
//! its end it is gone. It never outlives its job.
//!
//! | its job is | its parts are |
//! |---|---|
//! | at its plan: queued, waiting, solo, running | not known yet |
//! | parted | done, or queued, waiting, solo, running (a window of them at a time), or not made yet |
//! | at its merge: queued, waiting, solo, running | all done, their results kept |
//! | ended | gone; a worker may still hold an offer of one, which nobody wants |
//!
//! Plain data; driven by `parts.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bulkhead_proto::ids::{ClientId, JobId, PoolId};
use bulkhead_proto::job::Payload;
use bulkhead_proto::limits::PARTS_MAX;

use crate::job::list::Key;

/// Numbers from here on name parts; jobs count up from 1 and never come here.
pub(crate) const FIRST_PART: JobId = JobId(1 << 63);
/// Parts of one job share all but so many bits of their numbers.
const PART_BITS: u32 = 16;
const _: () = assert!(PARTS_MAX <= 1 << PART_BITS, "every part has its number");

/// Names the parts of one job; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PartSetId(u64);

/// The parts of one job.
#[derive(Debug)]
pub(crate) struct PartSet {
    /// The job's place.
    pub(super) job: Key,
    /// The job.
    pub(super) id: JobId,
    pub(super) client: ClientId,
    pub(super) uid: u32,
    /// Whose workers do them.
    pub(super) pool: PoolId,
    /// The batch that its parts share; the part_set holds it too.
    pub(super) batch: u32,
    /// How many parts there are.
    pub(super) parts: u32,
    /// The next one that is to be made.
    pub(super) next: u32,
    pub(super) done: u32,
    /// Those that were made and are not done.
    pub(super) live: BTreeSet<Key>,
    /// What each left. Nobody else has it before the merge.
    pub(super) results: Rc<Vec<Payload>>,
    /// Bytes of that.
    pub(super) bytes: u64,
    /// The most attempts that one task of the job took so far.
    pub(super) attempts: u32,
}

impl PartSet {
    /// Keeps what a part left. Gives the bytes of all of them.
    ///
    /// # Panics
    /// If all parts are done, or somebody has the results already.
    pub(crate) fn keep(&mut self, part: u32, result: Payload) -> u64 {
        assert!(self.done < self.next, "part {part} of job {} was made and is not done", self.id);
        self.done += 1;
        self.bytes += result.as_bytes().len() as u64;
        let results = Rc::get_mut(&mut self.results).expect("nobody has the results before the merge");
        results[part as usize] = result;
        self.bytes
    }
}

/// All jobs that have parts.
#[derive(Debug, Default)]
pub(crate) struct PartSets {
    map: BTreeMap<PartSetId, PartSet>,
    last: u64,
    of: BTreeMap<(ClientId, PoolId), usize>,
    of_user: BTreeMap<(u32, PoolId), usize>,
}

impl PartSets {
    /// Adds one.
    pub(crate) fn open(&mut self, part_set: PartSet) -> PartSetId {
        self.last += 1;
        *self.of.entry((part_set.client, part_set.pool)).or_default() += 1;
        *self.of_user.entry((part_set.uid, part_set.pool)).or_default() += 1;
        self.map.insert(PartSetId(self.last), part_set);
        PartSetId(self.last)
    }

    /// Removes one.
    ///
    /// # Panics
    /// If it was removed before.
    pub(crate) fn close(&mut self, id: PartSetId) -> PartSet {
        let part_set = self.map.remove(&id).expect("the parts of a job are closed once");
        count_out(&mut self.of, (part_set.client, part_set.pool));
        count_out(&mut self.of_user, (part_set.uid, part_set.pool));
        part_set
    }

    /// One of them.
    pub(crate) fn get(&self, id: PartSetId) -> Option<&PartSet> {
        self.map.get(&id)
    }

    /// One of them, to be changed.
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

    /// All of them.
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
    /// The number of one of its parts.
    pub(crate) fn number(self, part: u32) -> JobId {
        JobId(FIRST_PART.0 | self.0 << PART_BITS | u64::from(part))
    }
}

/// Whose part has this number, and which it is; `None` if it is a job's.
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

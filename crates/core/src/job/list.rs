//! Doubly linked lists through the slab of jobs: eight bytes a job, and a job leaves from the middle in O(1).
//!
//! A job is in at most one list at a time, and its links say whether it is in one. Pushing asserts that it is in
//! none, unlinking that it is in one.

use crate::job::entry::Job;
use crate::job::paged_slab::PagedSlab;

/// A job's place in the slab.
pub(crate) type Key = u32;
/// No place: the end of a list.
pub(crate) const NONE: Key = Key::MAX;
/// Both links of a job that is in no list.
const OUT: Key = Key::MAX - 1;

/// The neighbours of a job in its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JobLinks {
    pub(super) next: Key,
    pub(super) prev: Key,
}

impl Default for JobLinks {
    fn default() -> Self {
        Self { next: OUT, prev: OUT }
    }
}

impl JobLinks {
    /// Whether the job is in no list. One that is alone in a list has [`NONE`] on both sides.
    pub(crate) fn are_loose(&self) -> bool {
        *self == Self::default()
    }
}

/// The two ends of a list; the links of its jobs hold it together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IntrusiveList {
    head: Key,
    tail: Key,
}

impl Default for IntrusiveList {
    fn default() -> Self {
        Self { head: NONE, tail: NONE }
    }
}

impl IntrusiveList {
    /// The first job, if any.
    pub(crate) fn head(&self) -> Option<Key> {
        (self.head != NONE).then_some(self.head)
    }

    /// Puts a job at the end.
    ///
    /// # Panics
    /// If it is in a list.
    pub(crate) fn push_back(&mut self, slab: &mut PagedSlab<Job>, key: Key) {
        assert_loose(&slab[key as usize]);
        slab[key as usize].links = JobLinks { next: NONE, prev: self.tail };
        match self.tail {
            NONE => self.head = key,
            tail => slab[tail as usize].links.next = key,
        }
        self.tail = key;
    }

    /// Puts a job at the front.
    ///
    /// # Panics
    /// If it is in a list.
    pub(crate) fn push_front(&mut self, slab: &mut PagedSlab<Job>, key: Key) {
        assert_loose(&slab[key as usize]);
        slab[key as usize].links = JobLinks { next: self.head, prev: NONE };
        match self.head {
            NONE => self.tail = key,
            head => slab[head as usize].links.prev = key,
        }
        self.head = key;
    }

    /// Puts the jobs of another list behind its own.
    pub(crate) fn append(&mut self, slab: &mut PagedSlab<Job>, other: Self) {
        match (self.tail, other.head) {
            (_, NONE) => {}
            (NONE, _) => *self = other,
            (tail, head) => {
                join(slab, tail, head);
                self.tail = other.tail;
            }
        }
    }

    /// A list of one job.
    ///
    /// # Panics
    /// If it is in a list.
    pub(crate) fn of(slab: &mut PagedSlab<Job>, key: Key) -> Self {
        let mut list = Self::default();
        list.push_back(slab, key);
        list
    }

    /// Takes a job of this list out of it.
    ///
    /// # Panics
    /// If it is in no list, or at the end of another one.
    pub(crate) fn unlink(&mut self, slab: &mut PagedSlab<Job>, key: Key) {
        let job = &mut slab[key as usize];
        assert!(!job.links.are_loose(), "job {} leaves a list that it is in", job.id);
        let JobLinks { next, prev } = std::mem::take(&mut job.links);
        match prev {
            NONE => {
                assert_eq!(self.head, key, "a job without a predecessor heads its list");
                self.head = next;
            }
            prev => slab[prev as usize].links.next = next,
        }
        match next {
            NONE => {
                assert_eq!(self.tail, key, "a job without a successor ends its list");
                self.tail = prev;
            }
            next => slab[next as usize].links.prev = prev,
        }
    }

    /// Counts the jobs before this one in its list, up to `most`.
    pub(crate) fn before(slab: &PagedSlab<Job>, key: Key, most: u64) -> u64 {
        let (mut count, mut at) = (0, slab[key as usize].links.prev);
        while at != NONE && count < most {
            count += 1;
            at = slab[at as usize].links.prev;
        }
        count
    }

    /// All jobs, from the first; checks the links on the way.
    pub(crate) fn walk<'a>(&'a self, slab: &'a PagedSlab<Job>) -> impl Iterator<Item = Key> + 'a {
        let mut prev = NONE;
        let mut key = self.head;
        std::iter::from_fn(move || {
            if key == NONE {
                assert_eq!(prev, self.tail, "the last job of a list is its tail");
                return None;
            }
            let links = slab[key as usize].links;
            assert_eq!(links.prev, prev, "a job knows its predecessor");
            prev = key;
            key = links.next;
            Some(prev)
        })
    }
}

fn join(slab: &mut PagedSlab<Job>, before: Key, behind: Key) {
    slab[before as usize].links.next = behind;
    slab[behind as usize].links.prev = before;
}

fn assert_loose(job: &Job) {
    assert!(job.links.are_loose(), "job {} enters a list and is in none", job.id);
}

//! The last records, for `events`. Each keeps its owner, because the job that it is about may be forgotten before its
//! records are. A ring waits for no reader.
//!
//! At the end of a turn, what is beyond their bound is dropped from the account that holds most, the oldest first
//! (`machine/evict.rs`), so what is left has gaps. The service's account has a line of its own for workers that come and go,
//! because a task that dies again and again makes such records too: of its three lines, the longest goes first.
//!
//! | records | account | line |
//! |---|---|---|
//! | of a user | that user's | that user's |
//! | of all users, but for the next row | the service's | service |
//! | `spawned`, `ready`, `placed` | the service's | workers |
//! | of administrators, because they are of several users | the service's | administrators |
//!
//! What a client may see is counted, so that a reader can be told how many of those it missed (`client/followers.rs`).

use std::collections::BTreeMap;

use bulkhead_proto::client::record::{Record, What};

use crate::event::Peer;
use crate::turn::Owner;
use crate::turn::fair_ring::FairRing;

/// Counts of users without records are forgotten, when nobody reads, beyond so many counts.
const COUNTS_MAX: usize = 1024;

/// What a record makes room for: records of its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum RecordLine {
    Service,
    Workers,
    Administrators,
    User(u32),
}

/// The lines of the service's account.
const SERVICE_LINES: [RecordLine; 3] = [RecordLine::Service, RecordLine::Administrators, RecordLine::Workers];

impl RecordLine {
    fn of(what: &What, owner: Owner) -> Self {
        match (what, owner) {
            (_, Owner::User(uid)) => Self::User(uid),
            (What::Spawned { .. } | What::Ready { .. } | What::Placed { .. }, _) => Self::Workers,
            (_, Owner::Administrators) => Self::Administrators,
            (_, Owner::Service) => Self::Service,
        }
    }

    /// The user of its account; `None`: it is the service's.
    fn uid(self) -> Option<u32> {
        match self {
            Self::User(uid) => Some(uid),
            Self::Service | Self::Workers | Self::Administrators => None,
        }
    }
}

/// How many records of some sort were made and dropped since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RecordCount {
    made: u64,
    dropped: u64,
    /// The greatest index that was dropped.
    dropped_to: u64,
}

impl RecordCount {
    fn drop_one(&mut self, index: u64) {
        self.dropped += 1;
        self.dropped_to = self.dropped_to.max(index);
    }

    /// The count of both sorts.
    fn and(self, other: Self) -> Self {
        Self {
            made: self.made + other.made,
            dropped: self.dropped + other.dropped,
            dropped_to: self.dropped_to.max(other.dropped_to),
        }
    }

    /// How many were made.
    pub(crate) fn made(self) -> u64 {
        self.made
    }

    /// How many of them were dropped.
    pub(crate) fn dropped(self) -> u64 {
        self.dropped
    }

    /// The greatest index of those that were dropped.
    pub(crate) fn dropped_to(self) -> u64 {
        self.dropped_to
    }

    /// How many are left.
    pub(crate) fn left(self) -> u64 {
        self.made - self.dropped
    }
}

/// The ring of records.
#[derive(Debug, Default)]
pub(crate) struct RecentRecords {
    ring: FairRing<RecordLine, (Record, Owner)>,
    all: RecordCount,
    /// Deaths of workers, whoever owns them.
    deaths: RecordCount,
    /// All others, by owner.
    of: BTreeMap<Owner, RecordCount>,
    /// Records made since they were last charged, by the user of their account.
    uncharged: Vec<(Option<u32>, u64)>,
}

impl RecentRecords {
    /// No records; their indices begin at `first`, at 1 if that is 0.
    pub(crate) fn new(first: u64) -> Self {
        Self { ring: FairRing::new(first), ..Self::default() }
    }

    /// Whether no record was ever made.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.made() == 0
    }

    /// The index of the next record.
    pub(crate) fn next_index(&self) -> u64 {
        self.ring.last() + 1
    }

    /// The index of the oldest kept record, or of the next one.
    pub(crate) fn first_index(&self) -> u64 {
        self.ring.first().unwrap_or_else(|| self.next_index())
    }

    /// How many are kept.
    pub(crate) fn count(&self) -> u64 {
        self.ring.count()
    }

    /// Adds a record.
    ///
    /// # Panics
    /// If its index is not the next one.
    pub(crate) fn push(&mut self, record: Record, owner: Owner) {
        assert_eq!(record.index, self.next_index(), "records are numbered without a gap");
        let line = RecordLine::of(&record.what, owner);
        self.all.made += 1;
        count_of((&mut self.deaths, &mut self.of), &record.what, owner).made += 1;
        match self.uncharged.last_mut().filter(|(uid, _)| *uid == line.uid()) {
            Some((_, count)) => *count += 1,
            None => self.uncharged.push((line.uid(), 1)),
        }
        self.ring.push(line, (record, owner));
    }

    /// How many records were made since the last call, by the user of their account; `None`: by the service's. A user may
    /// come more than once.
    pub(crate) fn take_uncharged(&mut self) -> impl Iterator<Item = (Option<u32>, u64)> + '_ {
        self.uncharged.drain(..)
    }

    /// Drops the oldest record of a user's account, or of the longest line of the service's.
    ///
    /// # Panics
    /// If the account has none.
    pub(crate) fn drop_oldest(&mut self, uid: Option<u32>) {
        let longest = || SERVICE_LINES.into_iter().max_by_key(|line| self.ring.count_of(*line));
        let line = uid.map(RecordLine::User).or_else(longest).unwrap_or(RecordLine::Service);
        let Self { ring, all, deaths, of, .. } = self;
        let dropped = ring.drop_oldest(line, |index, (record, owner)| {
            all.drop_one(index);
            count_of((deaths, of), &record.what, *owner).drop_one(index);
        });
        dropped.expect("an account that holds records has an oldest one");
    }

    /// How many records a client may see were made and dropped: those that `client/sight.rs` shows it.
    pub(crate) fn seen_by(&self, peer: Peer) -> RecordCount {
        if peer.admin {
            return self.all;
        }
        let of = |owner| self.of.get(&owner).copied().unwrap_or_default();
        self.deaths.and(of(Owner::Service)).and(of(Owner::User(peer.uid)))
    }

    /// Nobody reads: counts of users who have no records are forgotten once there are many.
    pub(crate) fn forget_counts(&mut self) {
        if self.of.len() > COUNTS_MAX {
            self.of.retain(|_, count| count.left() > 0);
        }
    }

    /// The kept records, newest first.
    pub(crate) fn newest(&self) -> impl Iterator<Item = &Record> {
        self.ring.from(0).rev().map(|(record, _)| record)
    }

    /// The kept records from this index on.
    pub(crate) fn from(&self, index: u64) -> impl Iterator<Item = &(Record, Owner)> {
        self.ring.from(index)
    }

    /// Checks what must always hold.
    pub(crate) fn audit(&self) {
        self.ring.audit();
        assert_eq!(self.all.left(), self.count(), "all records that are left are counted");
        let of_owners: u64 = self.of.values().map(|count| count.left()).sum();
        assert_eq!(self.all.left(), self.deaths.left() + of_owners, "a record is in one count");
        assert!(self.uncharged.is_empty(), "records are charged in their turn");
    }
}

/// The count that a record is in, beside that of all: that of deaths, or of its owner.
fn count_of<'a>(
    (deaths, of): (&'a mut RecordCount, &'a mut BTreeMap<Owner, RecordCount>),
    what: &What,
    owner: Owner,
) -> &'a mut RecordCount {
    if matches!(what, What::Died { .. }) { deaths } else { of.entry(owner).or_default() }
}

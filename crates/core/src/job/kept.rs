//! Ended jobs that are kept: for `wait`, `result` and `job`, within what the configuration allows.
//!
//! Three shelves. *Untold*: an attached job whose client has not taken its end; it is neither dropped for its
//! age nor for the space, its client's next jobs wait instead. *Kept*: dropped by age, number, bytes and held
//! outputs, the oldest first. *Quarantine*: crashed jobs, dropped by number alone.

use std::collections::BTreeMap;

use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::record::What;
use bulkhead_proto::ids::OutputId;

use crate::job::entry::{Phase, Shelf};
use crate::job::list::{Key, List};
use crate::machine::Core;
use crate::turn::{Tally, ms};

/// Jobs dropped for their age in one turn.
const AGED_PER_TURN: usize = 4096;
/// Shortest time between two records that say that results were dropped early.
const SAY_EVERY_MS: u64 = 10_000;

/// The shelves.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    list: List,
    count: u64,
    bytes: u64,
    /// Held outputs by their number, so that the oldest can be found: they are bounded by descriptors, not by bytes.
    outputs: BTreeMap<OutputId, Key>,
    quarantine: List,
    quarantined: u64,
    /// Bytes of what waits for its client.
    pub(crate) untold_bytes: u64,
    /// Dropped early and not said yet.
    unsaid: u32,
    say_from_ns: u64,
}

impl Kept {
    /// Bytes of everything that is kept.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes + self.untold_bytes
    }

    /// Quarantined jobs.
    pub(crate) fn quarantined(&self) -> u64 {
        self.quarantined
    }

    /// Checks what must always hold.
    pub(crate) fn audit(&self, jobs: &crate::job::table::Jobs) {
        let (mut count, mut bytes) = (0, 0);
        for key in self.list.walk(&jobs.slab) {
            assert_eq!(jobs[key].end().map(|end| end.shelf), Some(Shelf::Kept));
            count += 1;
            bytes += jobs[key].kept_bytes();
        }
        let quarantined = self.quarantine.walk(&jobs.slab).count() as u64;
        assert_eq!((count, bytes, quarantined), (self.count, self.bytes, self.quarantined));
        let (mut untold, mut untold_bytes) = (0, 0);
        for (_, job) in
            jobs.slab.iter().filter(|(_, job)| job.end().is_some_and(|end| end.shelf == Shelf::Untold))
        {
            untold += 1;
            untold_bytes += job.kept_bytes();
        }
        assert_eq!(untold_bytes, self.untold_bytes);
        assert_eq!(jobs.count(Phase::Ended), count + quarantined + untold, "every ended job is on a shelf");
    }
}

impl Core {
    /// Keeps an ended job that nobody is going to take away.
    pub(crate) fn shelve(&mut self, key: Key) {
        let crashed = self.jobs[key].end().is_some_and(|end| matches!(end.outcome, Outcome::Crashed { .. }));
        let shelf = if crashed { Shelf::Quarantine } else { Shelf::Kept };
        if let Some(end) = self.jobs[key].end_mut() {
            end.shelf = shelf;
        }
        let kept = &mut self.kept;
        // Evidence is wanted long after ordinary results are not, and is small: so it has a bound of its own.
        if crashed {
            kept.quarantine.push_back(&mut self.jobs.slab, key);
            kept.quarantined += 1;
        } else {
            kept.list.push_back(&mut self.jobs.slab, key);
            kept.count += 1;
            kept.bytes += self.jobs[key].kept_bytes();
            if let Some(output) = self.jobs[key].held() {
                kept.outputs.insert(output, key);
            }
        }
    }

    /// Takes an ended job from its shelf.
    pub(crate) fn unshelve(&mut self, key: Key) {
        let Some(shelf) = self.jobs[key].end().map(|end| end.shelf) else { return };
        let kept = &mut self.kept;
        match shelf {
            Shelf::Untold => self.count_untold(key, false),
            Shelf::Quarantine => {
                kept.quarantine.unlink(&mut self.jobs.slab, key);
                kept.quarantined -= 1;
            }
            Shelf::Kept => {
                kept.list.unlink(&mut self.jobs.slab, key);
                kept.count -= 1;
                kept.bytes -= self.jobs[key].kept_bytes();
                if let Some(output) = self.jobs[key].held() {
                    kept.outputs.remove(&output);
                }
            }
        }
    }

    /// Drops what is too old or too much.
    pub(crate) fn evict(&mut self) {
        // A bounded number, for a million results may have grown old at once; the deadline brings the next turn.
        for _ in 0..AGED_PER_TURN {
            let Some(key) = self.kept.list.head() else { break };
            if self.aged_ns(key) > self.turn.now_ns() {
                break;
            }
            self.forget(key);
        }
        let mut limit = "";
        while let Some((key, met)) = self.one_too_many() {
            limit = met;
            self.forget(key);
            self.kept.unsaid += 1;
            self.turn.count(Tally::Evicted, 1);
        }
        // Said now and then and not each time: under a flood every end drops an older one.
        if !limit.is_empty() && self.turn.now_ns() >= self.kept.say_from_ns {
            self.kept.say_from_ns = self.turn.now_ns() + ms(SAY_EVERY_MS);
            let count = std::mem::take(&mut self.kept.unsaid);
            self.turn.record(What::Evicted { count, limit: limit.to_owned() }, None);
        }
    }

    fn one_too_many(&self) -> Option<(Key, &'static str)> {
        let (kept, config) = (&self.kept, self.turn.config());
        if kept.quarantined > config.quarantine_max {
            Some((kept.quarantine.head()?, "quarantined jobs"))
        } else if kept.outputs.len() as u64 > config.keep_outputs_max {
            Some((*kept.outputs.first_key_value()?.1, "held outputs"))
        } else if kept.count > config.keep_jobs_max {
            Some((kept.list.head()?, "kept jobs"))
        } else if kept.bytes > config.keep_bytes_max {
            Some((kept.list.head()?, "bytes of kept results"))
        } else {
            None
        }
    }

    fn aged_ns(&self, key: Key) -> u64 {
        let ended_ns = self.jobs[key].end().map_or(0, |end| end.at_ns);
        ended_ns.saturating_add(ms(self.turn.config().keep_ms))
    }

    /// When the next results have grown too old; a little later than that, so that many go at one waking.
    pub(crate) fn next_eviction_ns(&self) -> Option<u64> {
        let aged_ns = self.aged_ns(self.kept.list.head()?);
        Some(aged_ns.saturating_add(ms(self.turn.config().keep_ms / 16)))
    }
}

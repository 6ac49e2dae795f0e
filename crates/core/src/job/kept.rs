//! Ended jobs that are kept for `wait`, `result` and `job`, within the bounds of the configuration.
//!
//! Three retentions. *Untold*: an attached job whose client has not read its end; no bound drops it, its client's
//! next jobs wait instead. *Kept*: dropped by age, number, bytes and held outputs, the oldest first. *Quarantine*:
//! crashed jobs, dropped by number alone.

use std::collections::BTreeMap;

use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::record::What;
use bulkhead_proto::ids::OutputId;

use crate::job::list::{IntrusiveList, Key};
use crate::job::run::TaskRun;
use crate::job::state::{Phase, Retention};
use crate::job::table::JobTable;
use crate::job::{Jobs, Untold};
use crate::turn::{Counter, Owner, Resource, Turn, count_down, ms};

/// Shortest time between two records about results that were dropped early, in milliseconds.
const SAY_EVERY_MS: u64 = 10_000;

/// The ended jobs of each retention, and their counts.
#[derive(Debug, Default)]
pub(crate) struct KeptJobs {
    list: IntrusiveList,
    pub(super) count: u64,
    bytes: u64,
    /// Jobs by their held outputs, the oldest first: descriptors have a bound of their own.
    outputs: BTreeMap<OutputId, Key>,
    quarantine: IntrusiveList,
    quarantined: u64,
    /// Bytes of untold ends.
    untold_bytes: u64,
    /// Results dropped early since the last record about them.
    unsaid: u32,
    say_from_ns: u64,
}

impl KeptJobs {
    /// Counts an end that became untold.
    pub(super) fn add_untold(&mut self, bytes: u64) {
        self.untold_bytes += bytes;
    }

    /// Counts an end that is untold no more.
    ///
    /// # Panics
    /// If so many bytes were not counted.
    pub(super) fn remove_untold(&mut self, bytes: u64) {
        count_down(&mut self.untold_bytes, bytes, "bytes of ends that wait for clients");
    }

    /// Checks what must always hold.
    pub(crate) fn audit(&self, jobs: &JobTable) {
        let (mut count, mut bytes) = (0, 0);
        for key in self.list.walk(&jobs.slab) {
            assert_eq!(jobs[key].end().map(|end| end.retention), Some(Retention::Kept));
            count += 1;
            bytes += jobs[key].kept_bytes();
        }
        let quarantined = self.quarantine.walk(&jobs.slab).count() as u64;
        assert_eq!((count, bytes, quarantined), (self.count, self.bytes, self.quarantined));
        // An end that is not announced is in no retention, so the sum of these would be too small.
        let (mut untold, mut untold_bytes) = (0, 0);
        for (_, job) in jobs
            .slab
            .iter()
            .filter(|(_, job)| job.end().is_some_and(|end| end.retention == Retention::Untold))
        {
            untold += 1;
            untold_bytes += job.kept_bytes();
        }
        assert_eq!(untold_bytes, self.untold_bytes);
        assert_eq!(jobs.count(Phase::Ended), count + quarantined + untold, "every ended job is on a shelf");
    }
}

impl Jobs {
    /// Keeps an ended job: in quarantine if it crashed.
    ///
    /// # Panics
    /// If it has not ended, or is kept already.
    pub(super) fn keep_ended(&mut self, key: Key) {
        let end = self.table[key].end_mut().expect("only ended jobs are kept");
        assert!(
            matches!(end.retention, Retention::Unannounced | Retention::Untold),
            "an ended job is put on one shelf"
        );
        let crashed = matches!(end.outcome, Outcome::Crashed { .. });
        end.retention = if crashed { Retention::Quarantine } else { Retention::Kept };
        let kept = &mut self.kept;
        // Evidence is wanted much longer than ordinary results and is small, so it has a bound of its own.
        if crashed {
            kept.quarantine.push_back(&mut self.table.slab, key);
            kept.quarantined += 1;
        } else {
            kept.list.push_back(&mut self.table.slab, key);
            kept.count += 1;
            kept.bytes += self.table[key].kept_bytes();
            if let Some(output) = self.table[key].held() {
                let other = kept.outputs.insert(output, key);
                assert!(other.is_none(), "output {output} is held for one job");
            }
        }
    }

    /// Takes an ended job out of its retention; returns its weight if it was untold.
    ///
    /// # Panics
    /// If it has not ended, or was not announced.
    pub(super) fn stop_keeping(&mut self, key: Key) -> Option<Untold> {
        let retention =
            self.table[key].end().map(|end| end.retention).expect("only ended jobs are on a shelf");
        let kept = &mut self.kept;
        match retention {
            Retention::Unannounced => {
                panic!("job {} was announced before it leaves its shelf", self.table[key].id)
            }
            Retention::Untold => {
                let untold = self.weigh_untold(key);
                self.kept.remove_untold(untold.bytes);
                let account = self.table.batch(key).account;
                self.table.charges.release(account, Resource::UnreadResults, untold.bytes);
                return Some(untold);
            }
            Retention::Quarantine => {
                kept.quarantine.unlink(&mut self.table.slab, key);
                count_down(&mut kept.quarantined, 1, "quarantined jobs");
            }
            Retention::Kept => {
                kept.list.unlink(&mut self.table.slab, key);
                count_down(&mut kept.count, 1, "kept jobs");
                count_down(&mut kept.bytes, self.table[key].kept_bytes(), "bytes of kept jobs");
                if let Some(output) = self.table[key].held() {
                    let was_held = kept.outputs.remove(&output);
                    assert_eq!(was_held, Some(key), "output {output} is held for one job");
                }
            }
        }
        None
    }

    /// The oldest kept job, if it is older than `keep_ms`.
    pub(crate) fn too_old(&self, turn: &Turn) -> Option<TaskRun> {
        let key = self.kept.list.head()?;
        (self.aged_ns(turn, key) <= turn.now_ns()).then(|| self.table.run(key))
    }

    /// The next job to be dropped because a bound is exceeded, and the name of that bound.
    pub(crate) fn too_many(&self, turn: &Turn) -> Option<(TaskRun, &'static str)> {
        let (kept, config) = (&self.kept, turn.config());
        let (key, bound) = if kept.quarantined > config.quarantine_max {
            (kept.quarantine.head()?, "quarantined jobs")
        } else if kept.outputs.len() as u64 > config.keep_outputs_max {
            (*kept.outputs.first_key_value()?.1, "held outputs")
        } else if kept.count > config.keep_jobs_max {
            (kept.list.head()?, "kept jobs")
        } else if kept.bytes > config.keep_bytes_max {
            (kept.list.head()?, "bytes of kept results")
        } else {
            return None;
        };
        Some((self.table.run(key), bound))
    }

    /// Counts results that were dropped early, the last one for this bound. At most one record in `SAY_EVERY_MS`: in
    /// a flood every end drops an older one.
    pub(crate) fn note_evicted(&mut self, turn: &mut Turn, count: u32, bound: &str) {
        self.kept.unsaid += count;
        turn.count(Counter::Evicted, u64::from(count));
        if count > 0 && turn.now_ns() >= self.kept.say_from_ns {
            self.kept.say_from_ns = turn.after_ms(SAY_EVERY_MS);
            let count = std::mem::take(&mut self.kept.unsaid);
            turn.record(What::Evicted { count, limit: bound.to_owned() }, Owner::Service);
        }
    }

    fn aged_ns(&self, turn: &Turn, key: Key) -> u64 {
        let ended_ns = self.table[key].end().map_or(0, |end| end.at_ns);
        ended_ns.saturating_add(ms(turn.config().keep_ms))
    }

    /// When [`Jobs::too_old`] is to be asked next: a little after the oldest has grown too old, so that many go in
    /// one turn.
    pub(crate) fn next_eviction_ns(&self, turn: &Turn) -> Option<u64> {
        let aged_ns = self.aged_ns(turn, self.kept.list.head()?);
        Some(aged_ns.saturating_add(ms(turn.config().keep_ms / 16)))
    }

    /// Bytes of all ended jobs outside quarantine.
    pub(crate) fn kept_bytes(&self) -> u64 {
        self.kept.bytes + self.kept.untold_bytes
    }

    /// Quarantined jobs.
    pub(crate) fn quarantined(&self) -> u64 {
        self.kept.quarantined
    }
}

//! Ended jobs that are kept for `wait`, `result` and `job`, within the bounds of the configuration.
//!
//! Three retentions. *Untold*: an attached job whose client has not read its end; no bound drops it, its client's
//! next jobs wait instead. *Kept*: dropped by age, number and bytes; their outputs in memory go before them and alone
//! (`held_outputs.rs`). *Quarantine*: crashed jobs, dropped by number alone.
//!
//! Each account has a list of its own of either, the oldest first: at a bound the machine drops the oldest of the account
//! that holds most (`machine/evict.rs`). By age, the oldest of all goes: `heads` has the first of each list in that order.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_proto::client::outcome::Outcome;

use crate::job::list::{IntrusiveList, Key};
use crate::job::run::TaskRun;
use crate::job::state::{Phase, Retention};
use crate::job::table::JobTable;
use crate::job::{Jobs, Untold};
use crate::turn::{AccountId, Resource, Turn, count_down, ms};

/// The ended jobs of one account.
#[derive(Debug, Default)]
struct KeptOfAccount {
    list: IntrusiveList,
    quarantine: IntrusiveList,
}

impl KeptOfAccount {
    fn is_empty(&self) -> bool {
        self.list.head().is_none() && self.quarantine.head().is_none()
    }
}

/// The ended jobs of each retention, and their counts.
#[derive(Debug, Default)]
pub(crate) struct KeptJobs {
    /// Of each account that keeps any.
    of: BTreeMap<AccountId, KeptOfAccount>,
    /// When the first job of each account's list ended, nanoseconds on the clock of the turns.
    heads: BTreeSet<(u64, AccountId)>,
    pub(super) count: u64,
    bytes: u64,
    quarantined: u64,
    /// Bytes of untold ends.
    untold_bytes: u64,
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
        let (mut count, mut bytes, mut quarantined) = (0, 0, 0);
        let mut heads = BTreeSet::new();
        for (account, of) in &self.of {
            for key in of.list.walk(&jobs.slab) {
                assert_eq!(jobs[key].end().map(|end| end.retention), Some(Retention::Kept));
                assert_eq!(jobs.batch(key).account, *account, "a job is kept by the account of its user");
                count += 1;
                bytes += jobs[key].kept_bytes();
            }
            heads.extend(of.list.head().map(|key| (ended_ns(jobs, key), *account)));
            quarantined += of.quarantine.walk(&jobs.slab).count() as u64;
            assert!(!of.is_empty(), "an account that keeps nothing goes");
        }
        assert_eq!(heads, self.heads, "the first of each list is known by its age");
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
        let account = self.table.batch(key).account;
        let kept = &mut self.kept;
        let of = kept.of.entry(account).or_default();
        // Evidence is wanted much longer than ordinary results and is small, so it has a bound of its own.
        if crashed {
            of.quarantine.push_back(&mut self.table.slab, key);
            kept.quarantined += 1;
            self.table.charges.charge(account, Resource::Quarantined, 1);
        } else {
            if of.list.head().is_none() {
                kept.heads.insert((ended_ns(&self.table, key), account));
            }
            of.list.push_back(&mut self.table.slab, key);
            let bytes = self.table[key].kept_bytes();
            kept.count += 1;
            kept.bytes += bytes;
            self.table.charges.charge(account, Resource::Kept, 1);
            self.table.charges.charge(account, Resource::KeptBytes, bytes);
            self.keep_output(key);
        }
    }

    /// Takes an ended job out of its retention; returns its weight if it was untold.
    ///
    /// # Panics
    /// If it has not ended, or was not announced.
    pub(super) fn stop_keeping(&mut self, key: Key) -> Option<Untold> {
        let retention =
            self.table[key].end().map(|end| end.retention).expect("only ended jobs are on a shelf");
        match retention {
            Retention::Unannounced => {
                panic!("job {} was announced before it leaves its shelf", self.table[key].id)
            }
            Retention::Untold => {
                let untold = self.weigh_untold(key);
                self.kept.remove_untold(untold.bytes);
                let account = self.table.batch(key).account;
                let bytes = untold.bytes + self.output_bytes_of(key);
                self.table.charges.release(account, Resource::UnreadResults, bytes);
                return Some(untold);
            }
            Retention::Quarantine => self.take_from_list(key, retention),
            Retention::Kept => {
                self.take_from_list(key, retention);
                self.unkeep_output(key);
            }
        }
        None
    }

    fn take_from_list(&mut self, key: Key, retention: Retention) {
        let account = self.table.batch(key).account;
        let kept = &mut self.kept;
        let of = kept.of.get_mut(&account).expect("the account of a kept job has a list of them");
        if retention == Retention::Quarantine {
            of.quarantine.unlink(&mut self.table.slab, key);
            count_down(&mut kept.quarantined, 1, "quarantined jobs");
            self.table.charges.release(account, Resource::Quarantined, 1);
        } else {
            let was_head = of.list.head() == Some(key);
            if was_head {
                kept.heads.remove(&(ended_ns(&self.table, key), account));
            }
            of.list.unlink(&mut self.table.slab, key);
            if let Some(head) = of.list.head().filter(|_| was_head) {
                kept.heads.insert((ended_ns(&self.table, head), account));
            }
            let bytes = self.table[key].kept_bytes();
            count_down(&mut kept.count, 1, "kept jobs");
            count_down(&mut kept.bytes, bytes, "bytes of kept jobs");
            self.table.charges.release(account, Resource::Kept, 1);
            self.table.charges.release(account, Resource::KeptBytes, bytes);
        }
        if of.is_empty() {
            kept.of.remove(&account);
        }
    }

    /// The oldest kept job, if it is older than `keep_ms`.
    pub(crate) fn too_old(&self, turn: &Turn) -> Option<TaskRun> {
        let (ended_ns, account) = *self.kept.heads.first()?;
        let key = self.kept.of.get(&account)?.list.head()?;
        (aged_ns(turn, ended_ns) <= turn.now_ns()).then(|| self.table.run(key))
    }

    /// The job that an account drops first at this bound.
    ///
    /// # Panics
    /// If it keeps none.
    pub(crate) fn oldest_kept(&self, account: AccountId, bound: Resource) -> TaskRun {
        let of = self.kept.of.get(&account).expect("an account that holds kept jobs has a list of them");
        let list = if bound == Resource::Quarantined { &of.quarantine } else { &of.list };
        self.table.run(list.head().expect("an account that holds kept jobs has an oldest one"))
    }

    /// When [`Jobs::too_old`] and [`Jobs::tell_evicted`] are to be asked next: of results a little after the oldest has
    /// grown too old, so that many go in one turn.
    pub(crate) fn next_eviction_ns(&self, turn: &Turn) -> Option<u64> {
        let head = self.kept.heads.first();
        let aged_ns =
            head.map(|(ended_ns, _)| aged_ns(turn, *ended_ns).saturating_add(ms(turn.config().keep_ms / 16)));
        aged_ns.into_iter().chain(self.next_told_ns()).min()
    }

    /// What each account keeps, a row for each job and resource.
    pub(super) fn kept_by_account(&self) -> impl Iterator<Item = (AccountId, Resource, u64)> + '_ {
        self.kept.of.iter().flat_map(|(account, of)| {
            let rows = of.list.walk(&self.table.slab).flat_map(|key| {
                [
                    (Resource::Kept, 1),
                    (Resource::KeptBytes, self.table[key].kept_bytes() + self.output_bytes_of(key)),
                ]
            });
            let quarantined = of.quarantine.walk(&self.table.slab).map(|_| (Resource::Quarantined, 1));
            rows.chain(quarantined).map(|(resource, held)| (*account, resource, held))
        })
    }

    /// Bytes of all ended jobs outside quarantine, and of their outputs.
    pub(crate) fn kept_bytes(&self) -> u64 {
        let outputs = self.all_outputs();
        self.kept.bytes + self.kept.untold_bytes + outputs.kept + outputs.unread()
    }

    /// Quarantined jobs.
    pub(crate) fn quarantined(&self) -> u64 {
        self.kept.quarantined
    }
}

fn ended_ns(jobs: &JobTable, key: Key) -> u64 {
    jobs[key].end().map_or(0, |end| end.at_ns)
}

fn aged_ns(turn: &Turn, ended_ns: u64) -> u64 {
    ended_ns.saturating_add(ms(turn.config().keep_ms))
}

//! Shares out the daemon's file descriptors.
//!
//! A daemon without a free descriptor can neither replace a worker nor prove its death. So descriptors for workers
//! are set aside, and clients, outputs and files of clients share the rest, each with a limit of its own. Room for
//! one whole message from a client is set aside too: the kernel closes descriptors that it cannot install while the
//! loop receives, and that close can block. Computed once, by `daemon.rs`, from RLIMIT_NOFILE.

use anyhow::{Result, ensure};
use bulkhead_core::config::PoolSize;
use bulkhead_proto::limits::FILES_MAX;
use bulkhead_sys::untrusted::ATTACHED_MAX;

use crate::spawn::LEFT_MAX;

/// The daemon's own: standard streams, socket, lock, poll, signals, those that a spawn or a sweep uses for a moment,
/// and those that dead workers left in their channels (two each).
const OWN: u64 = 64 + 2 * LEFT_MAX as u64;
/// A worker's: lane, pidfd, doorbell, channel (twice), two files of /proc, and one more while it starts.
const PER_WORKER: u64 = 8;
/// What one message of a client can carry beyond what may stay.
const PER_MESSAGE: u64 = ATTACHED_MAX as u64;
/// The minimum for clients, and for outputs.
const LEAST: u64 = 64;
/// The minimum for files of clients.
const LEAST_FILES: u64 = 4 * FILES_MAX as u64;
/// No more than this are used: the kernel's descriptor table is grown to this size at the start.
pub(crate) const MOST: u64 = 1 << 17;

/// Descriptors for all uses but the workers'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DescriptorBudget {
    /// Open connections.
    pub(crate) clients: usize,
    /// Open output files: of running tasks, of stored results, and in queued replies.
    pub(crate) outputs: usize,
    /// Of these, for stored results.
    pub(crate) kept_outputs: u64,
    /// Open files of clients: of jobs, of submits that are incomplete, and those that wait to be closed.
    pub(crate) files: usize,
    /// Of these, for jobs.
    pub(crate) kept_files: u64,
    /// Descriptors that were sent to clients and not read. They are not open, and the kernel's limit of them is the same.
    pub(crate) unread: u64,
}

impl DescriptorBudget {
    /// Shares out `limit` descriptors. Each slot of `pools` may have a worker and a stuck one; a slot that is lent has one of
    /// both.
    ///
    /// # Errors
    /// They are too few for so many workers.
    pub(crate) fn share(limit: u64, pools: impl Iterator<Item = PoolSize>, wanted: &Self) -> Result<Self> {
        let (slots, spares, lent) = pools.fold((0, 0, 0), |(slots, spares, lent), pool| {
            let spares = spares + u64::from(pool.spares_most());
            (slots + u64::from(pool.slots), spares, lent + u64::from(pool.lend_max))
        });
        // Users who hold little may go an eighth beyond it (`core/account`), and half of the limit is for workers.
        let unread = (limit / 2 / 9 * 8).min(wanted.unread);
        let limit = limit.min(MOST);
        let set_aside = OWN + PER_MESSAGE + PER_WORKER * (2 * slots + spares + lent);
        let needed = set_aside + with_eighth(LEAST) + LEAST + with_eighth(LEAST_FILES);
        ensure!(
            limit >= needed,
            "the limit of open files is {limit}, but {slots} workers, and {lent} more that pools may lend, need {needed}: \
             raise it (LimitNOFILE in a unit, ulimit -n in a shell) or choose fewer --workers or a lower lend_max"
        );
        let rest = limit - set_aside;
        let files = (rest / 4).max(LEAST_FILES).min(wanted.files as u64);
        let clients = ((rest - with_eighth(files)) * 4 / 9).min(wanted.clients as u64);
        let outputs = rest - with_eighth(files) - with_eighth(clients);
        let outputs = outputs.min(wanted.outputs as u64);
        Ok(Self {
            clients: usize::try_from(clients).unwrap_or(usize::MAX),
            outputs: usize::try_from(outputs).unwrap_or(usize::MAX),
            kept_outputs: wanted.kept_outputs.min(outputs / 2),
            files: usize::try_from(files).unwrap_or(usize::MAX),
            kept_files: wanted.kept_files.min(files - files / 4),
            unread,
        })
    }
}

impl DescriptorBudget {
    /// The bound of open outputs and logs of all users: beyond it, those who hold little may have an eighth of it.
    pub(crate) fn counted_outputs(&self) -> u64 {
        self.outputs as u64 / 9 * 8
    }
}

/// A bound, and what users who hold little may hold beyond it (`bulkhead_core::account`).
fn with_eighth(bound: u64) -> u64 {
    bound + bound / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: DescriptorBudget = DescriptorBudget {
        clients: 4096,
        outputs: usize::MAX,
        kept_outputs: 1024,
        files: usize::MAX,
        kept_files: u64::MAX,
        unread: u64::MAX,
    };

    /// Two pools with these slots and spares together. A pool that is to have none may start one.
    fn pools(slots: u16, spares: u16) -> impl Iterator<Item = PoolSize> {
        let size = |slots, spares| PoolSize { slots, spares, ..PoolSize::default() };
        [size(slots - 1, 1), size(1, spares - 1)].into_iter()
    }

    #[test]
    fn plenty_gives_what_was_asked_for() {
        let budget = DescriptorBudget::share(524_288, pools(64, 2), &WANTED).unwrap();
        assert_eq!((budget.clients, budget.kept_outputs), (4096, 1024));
        assert!(budget.outputs > 85_000 && budget.files > 30_000);
    }

    #[test]
    fn little_is_shared_so_that_workers_have_theirs() {
        let budget = DescriptorBudget::share(1024, pools(8, 1), &WANTED).unwrap();
        let shared = 1024 - OWN - PER_MESSAGE - PER_WORKER * 18;
        let (clients, files) = (budget.clients as u64, budget.files as u64);
        assert_eq!(with_eighth(clients) + budget.outputs as u64 + with_eighth(files), shared);
        assert!(budget.kept_files < budget.files as u64, "what waits for its close needs room as well");
        assert_eq!(budget.kept_outputs, budget.outputs as u64 / 2);
        assert_eq!(budget.unread + budget.unread / 8, 504, "half of the limit");
    }

    #[test]
    fn a_slot_that_may_be_lent_has_its_descriptors_set_aside() {
        let lending = |lend_max| std::iter::once(PoolSize { slots: 8, lend_max, ..PoolSize::default() });
        let least = |lend_max| {
            let mut limits = 256..4096;
            limits.find(|limit| DescriptorBudget::share(*limit, lending(lend_max), &WANTED).is_ok()).unwrap()
        };
        assert_eq!(least(8) - least(0), 8 * PER_WORKER);
        let error = DescriptorBudget::share(512, lending(60), &WANTED).unwrap_err().to_string();
        assert!(error.contains("60 more that pools may lend") && error.contains("lend_max"), "{error}");
    }

    #[test]
    fn too_little_is_an_error_that_says_what_to_do() {
        let error = DescriptorBudget::share(256, pools(64, 2), &WANTED).unwrap_err().to_string();
        assert!(error.contains("256") && error.contains("--workers"), "{error}");
    }
}

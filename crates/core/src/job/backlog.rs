//! The backlog of one client in a pool's queue: two lists of jobs for each priority.
//!
//! A turn of the client takes the most urgent of the list heads. Urgency is `priority * ageing + waited`, so that
//! waiting outweighs priority in the end, and only heads are compared. `queue.rs` drives this file and decides whose
//! turn it is.

use bulkhead_proto::ids::ClientId;
use bulkhead_proto::limits::PRIORITY_MAX;

use crate::job::list::{IntrusiveList, Key};
use crate::job::state::TaskKind;
use crate::job::table::JobTable;

/// Lists of jobs that have not begun, one for each priority...
const LEVELS: usize = PRIORITY_MAX as usize + 1;
/// ...and as many lists of parts and of merges.
const LISTS: usize = 2 * LEVELS;
/// The bits of the lists of jobs that have not begun.
const JOBS: u32 = (1 << LEVELS) - 1;

/// The machine's answer about the run whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TakeChoice {
    /// Take this run.
    Take,
    /// Look at the next list; this run keeps its place.
    Skip,
    /// Take nothing: no run may overtake this one.
    Stop,
}

/// The result of a search in a part of the queue.
pub(crate) enum Picked {
    Job(Key),
    Nothing,
    Stopped,
}

/// The clock of one search: now, and the waiting time that weighs as much as one priority.
#[derive(Clone, Copy)]
pub(crate) struct Ageing {
    pub(super) now_ns: u64,
    pub(super) step_ns: u64,
}

impl Ageing {
    /// The urgency of a job in the list of this priority.
    fn urgency(self, jobs: &JobTable, list: usize, key: Key) -> u64 {
        let waited = self.now_ns.saturating_sub(jobs.batch(key).since_ns);
        ((list % LEVELS) as u64).saturating_mul(self.step_ns).saturating_add(waited)
    }
}

/// The user, the client and the list of a queued job.
#[derive(Clone, Copy)]
pub(crate) struct QueuePlace {
    pub(super) uid: u32,
    pub(super) client: ClientId,
    pub(super) list: usize,
}

/// The queued jobs of one client.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    pub(super) lists: [IntrusiveList; LISTS],
    /// One bit for each list that is not empty.
    pub(super) filled: u32,
    /// Whether the last turn took a part or a merge.
    was_part: bool,
    /// Whether the client is in the turn order of its user.
    pub(super) listed: bool,
}

impl Backlog {
    /// Takes the most urgent job for which `judge` answers `Take`.
    pub(crate) fn take(
        &mut self,
        jobs: &mut JobTable,
        ageing: Ageing,
        judge: &mut dyn FnMut(&JobTable, Key) -> TakeChoice,
    ) -> Picked {
        let mut left = self.filled;
        while let Some((list, key)) = self.next(jobs, ageing, left) {
            match judge(jobs, key) {
                TakeChoice::Take => {
                    self.was_part = list >= LEVELS;
                    self.unlink(jobs, key, list);
                    return Picked::Job(key);
                }
                TakeChoice::Skip => left &= !(1 << list),
                TakeChoice::Stop => return Picked::Stopped,
            }
        }
        Picked::Nothing
    }

    /// The most urgent head of the lists in `mask`. Parts and jobs of one priority take turns, so that neither a job
    /// of many parts nor a row of jobs holds up the other.
    fn next(&self, jobs: &JobTable, ageing: Ageing, mask: u32) -> Option<(usize, Key)> {
        let job = self.most_urgent(jobs, ageing, mask & JOBS);
        let part = self.most_urgent(jobs, ageing, mask & !JOBS);
        let ((_, (job_list, _)), (_, (part_list, _))) = match (job, part) {
            (Some(job), Some(part)) => (job, part),
            (job, part) => return job.or(part).map(|(_, found)| found),
        };
        let part_first = match job_list == part_list - LEVELS {
            true => !self.was_part,
            false => part > job,
        };
        if part_first { part } else { job }.map(|(_, found)| found)
    }

    /// The most urgent head of the lists in `mask`, with its urgency; of equal ones the higher priority.
    fn most_urgent(&self, jobs: &JobTable, ageing: Ageing, mut mask: u32) -> Option<(u64, (usize, Key))> {
        let mut best = None;
        while mask != 0 {
            let list = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            let key = self.lists[list].head()?;
            let urgency = ageing.urgency(jobs, list, key);
            if best.is_none_or(|(most, _)| urgency >= most) {
                best = Some((urgency, (list, key)));
            }
        }
        best
    }

    /// Counts jobs of this client that go before one of its jobs, up to `most`: those before it in its list, and
    /// those of other lists that are at least as urgent.
    pub(crate) fn before(&self, jobs: &JobTable, ageing: Ageing, (own, key): (usize, Key), most: u64) -> u64 {
        let urgency = ageing.urgency(jobs, own, key);
        let mut count = IntrusiveList::before(&jobs.slab, key, most);
        // Parts are no jobs and take turns with them, so they are not counted.
        for (list, others) in self.lists[..LEVELS].iter().enumerate().filter(|(list, _)| *list != own) {
            let goes_first = |other: &Key| {
                let urgency_of_other = ageing.urgency(jobs, list, *other);
                urgency_of_other > urgency || urgency_of_other == urgency && list > own
            };
            let left = usize::try_from(most - count).unwrap_or(usize::MAX);
            count += others.walk(&jobs.slab).take(left).take_while(goes_first).count() as u64;
        }
        count
    }

    /// Takes a job out of the middle of one of its lists.
    pub(crate) fn unlink(&mut self, jobs: &mut JobTable, key: Key, list: usize) {
        self.lists[list].unlink(&mut jobs.slab, key);
        if self.lists[list].is_empty() {
            self.filled &= !(1 << list);
        }
    }
}

/// The user, client and list in which this job is queued.
pub(crate) fn place_of(jobs: &JobTable, key: Key) -> QueuePlace {
    let batch = jobs.batch(key);
    let has_begun = matches!(jobs[key].task_kind, TaskKind::Run | TaskKind::Merge);
    let list = usize::from(batch.policy.priority) + if has_begun { LEVELS } else { 0 };
    QueuePlace { uid: batch.uid, client: batch.client, list }
}

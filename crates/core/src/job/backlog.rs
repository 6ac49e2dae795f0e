//! One client's place in the queue: a list of jobs for each priority.
//!
//! Its turn takes the most urgent of the heads: `priority * ageing + waited`, so that waiting outweighs priority
//! in the end and only ten heads are compared. Driven by `queue.rs`, which knows whose turn it is.

use bulkhead_proto::ids::ClientId;
use bulkhead_proto::limits::PRIORITY_MAX;

use crate::job::list::{JobList, Key};
use crate::job::state::TaskKind;
use crate::job::table::JobTable;

/// Lists of jobs, one for each priority...
const LEVELS: usize = PRIORITY_MAX as usize + 1;
/// ...and as many of parts and merges of jobs that have begun.
const LISTS: usize = 2 * LEVELS;
/// The lists of jobs in a mask.
const JOBS: u32 = (1 << LEVELS) - 1;

/// What the machine wants done about the run whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Take it.
    Take,
    /// Look at others; it keeps its place in its list.
    Skip,
    /// Take nothing: it must not be overtaken.
    Stop,
}

/// What one look through a part of the queue came to.
pub(crate) enum Picked {
    Job(Key),
    Nothing,
    Stopped,
}

/// The clock of one look: now, and how much waiting weighs as much as one priority.
#[derive(Clone, Copy)]
pub(crate) struct Ageing {
    pub(super) now_ns: u64,
    pub(super) step_ns: u64,
}

impl Ageing {
    /// How urgent a job is that stands in the list of this priority.
    fn urgency(self, jobs: &JobTable, list: usize, key: Key) -> u64 {
        let waited = self.now_ns.saturating_sub(jobs.batch(key).since_ns);
        ((list % LEVELS) as u64).saturating_mul(self.step_ns).saturating_add(waited)
    }
}

/// Where a queued job stands.
#[derive(Clone, Copy)]
pub(crate) struct QueuePlace {
    pub(super) uid: u32,
    pub(super) client: ClientId,
    pub(super) list: usize,
}

/// The jobs of one client that wait.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    pub(super) lists: [JobList; LISTS],
    /// A bit for each list that is not empty.
    pub(super) filled: u32,
    /// Whether its last turn went to a part.
    was_part: bool,
    /// Whether it has its place among its user's turns.
    pub(super) listed: bool,
}

impl Backlog {
    /// Takes its most urgent job that `judge` wants.
    pub(crate) fn take(
        &mut self,
        jobs: &mut JobTable,
        ageing: Ageing,
        judge: &mut dyn FnMut(&JobTable, Key) -> Verdict,
    ) -> Picked {
        let mut left = self.filled;
        while let Some((list, key)) = self.next(jobs, ageing, left) {
            match judge(jobs, key) {
                Verdict::Take => {
                    self.was_part = list >= LEVELS;
                    self.unlink(jobs, key, list);
                    return Picked::Job(key);
                }
                Verdict::Skip => left &= !(1 << list),
                Verdict::Stop => return Picked::Stopped,
            }
        }
        Picked::Nothing
    }

    /// The most urgent head among the lists in `mask`. Parts and jobs of one priority take turns: a job of many parts
    /// does not hold up the jobs behind it, nor these it.
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

    /// The most urgent head among the lists in `mask`, and how urgent it is; among equals the higher priority.
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

    /// Jobs of this client that go before one of its own, counted up to `most`: those before it in its list, and those
    /// of other lists that are as urgent.
    pub(crate) fn before(&self, jobs: &JobTable, ageing: Ageing, (own, key): (usize, Key), most: u64) -> u64 {
        let urgency = ageing.urgency(jobs, own, key);
        let mut count = JobList::before(&jobs.slab, key, most);
        // Parts are no jobs, and take turns with them.
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

/// Where this job stands.
pub(crate) fn place_of(jobs: &JobTable, key: Key) -> QueuePlace {
    let batch = jobs.batch(key);
    let has_begun = matches!(jobs[key].task_kind, TaskKind::Run | TaskKind::Merge);
    let list = usize::from(batch.policy.priority) + if has_begun { LEVELS } else { 0 };
    QueuePlace { uid: batch.uid, client: batch.client, list }
}

//! Which look-ups are open, and which of their answers are out of date: see `look_up.rs`.
//!
//! An answer is out of date for a job of which a fact was made, or that the journal has removed, after its look-up was begun. Only
//! changes that an open look-up may not have seen are kept.

use std::collections::{BTreeSet, VecDeque};

use bulkhead_proto::ids::JobId;

use crate::action::LookUpNo;

/// The look-ups that were begun, and the jobs whose rows have changed since.
#[derive(Debug, Default)]
pub(super) struct LookUpLog {
    /// The last number of one.
    last: LookUpNo,
    /// Those that are not answered.
    open: BTreeSet<LookUpNo>,
    /// Jobs that were changed, each with the last look-up before that; in the order of these.
    changes: VecDeque<(LookUpNo, JobId)>,
}

impl LookUpLog {
    /// The number of the next one.
    pub(super) fn next(&self) -> LookUpNo {
        LookUpNo(self.last.0 + 1)
    }

    /// It is begun.
    pub(super) fn begin(&mut self) -> LookUpNo {
        self.last = self.next();
        self.open.insert(self.last);
        self.last
    }

    /// A fact about a job was made after which it is not in the table, or may be there anew; or the journal has removed it.
    pub(super) fn changed(&mut self, job: JobId) {
        if !self.open.is_empty() {
            self.changes.push_back((self.last, job));
        }
    }

    /// A look-up is answered, or never will be: the jobs whose answers may be out of date.
    pub(super) fn answered(&mut self, number: LookUpNo) -> BTreeSet<JobId> {
        let stale =
            self.changes.iter().filter(|(before, _)| *before >= number).map(|(_, job)| *job).collect();
        self.open.remove(&number);
        let oldest = self.open.first().copied();
        while let Some((before, _)) = self.changes.front()
            && oldest.is_none_or(|oldest| *before < oldest)
        {
            self.changes.pop_front();
        }
        stale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: JobId = JobId(7);

    fn asked(log: &mut LookUpLog) -> LookUpNo {
        log.last.0 += 1;
        log.begin()
    }

    #[test]
    fn an_answer_that_is_older_than_a_change_is_stale() {
        let mut log = LookUpLog::default();
        log.changed(JOB);
        assert!(log.changes.is_empty(), "nothing is asked");
        let (first, second) = (asked(&mut log), asked(&mut log));
        log.changed(JOB);
        let third = asked(&mut log);
        assert_eq!(log.answered(third), BTreeSet::new());
        assert_eq!(log.answered(second), BTreeSet::from([JOB]));
        assert_eq!(log.answered(first), BTreeSet::from([JOB]));
        assert!(log.changes.is_empty(), "no look-up is that old");
    }
}

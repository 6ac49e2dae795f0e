//! `fairness`: while one user floods, another user's single job is among the next to be dispatched.
//!
//! Counts the flood's offers between the acceptance of a single job and its own first offer. Only the flood
//! profile has single jobs.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_core::event::Event;
use bulkhead_proto::ids::JobId;

use crate::report::{Verdict, broken};
use crate::scenario::Profile;

/// The user who has one job at a time.
pub const SINGLE_UID: u32 = 1100;

/// Counts the flood jobs that go before single jobs.
#[derive(Debug)]
pub struct FairnessOracle {
    active: bool,
    bound: u64,
    /// Single jobs that wait for their first offer, and how many flood jobs went first.
    waiting: BTreeMap<JobId, u64>,
    flood: BTreeSet<JobId>,
    /// The greatest such number.
    pub most: u64,
}

impl FairnessOracle {
    /// With so many slots, each may take one more of the flood before the single job's turn.
    pub fn new(profile: Profile, slots: u16) -> Self {
        Self {
            active: profile == Profile::Flood,
            bound: u64::from(slots) + 2,
            waiting: BTreeMap::new(),
            flood: BTreeSet::new(),
            most: 0,
        }
    }

    /// A drained or stopped daemon need not offer anything.
    pub fn told(&mut self, event: &Event) {
        self.active &= !matches!(event, Event::Drain { .. } | Event::Stop);
    }

    /// Jobs were accepted.
    pub fn accepted(&mut self, uid: u32, first: JobId, count: u32) {
        let jobs = (0..u64::from(count)).map(|next| JobId(first.0 + next));
        if uid == SINGLE_UID {
            self.waiting.extend(jobs.map(|job| (job, 0)));
        } else {
            self.flood.extend(jobs);
        }
    }

    /// A job is dispatched.
    ///
    /// # Errors
    /// Too many of the flood went before a single job.
    pub fn offered(&mut self, job: JobId) -> Verdict {
        self.waiting.remove(&job);
        if !self.active || !self.flood.contains(&job) {
            return Ok(());
        }
        for (single, passed) in &mut self.waiting {
            *passed += 1;
            self.most = self.most.max(*passed);
            if *passed > self.bound {
                let bound = self.bound;
                return broken(
                    "fairness",
                    format!("{passed} flood jobs went before job {single}, not {bound}"),
                );
            }
        }
        Ok(())
    }
}

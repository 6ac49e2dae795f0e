//! The durable state of all jobs, fact by fact: what a journal that stored these facts must hold.
//!
//! An oracle: it is compared with the core's own state and with the journal's rows. It keeps everything in memory, so no daemon
//! uses it. A fact that does not fit changes nothing.

use std::collections::BTreeMap;

use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::Payload;

use crate::Misfit;
use crate::durable_job::DurableJob;
use crate::fact::{AcceptedJobs, AttemptEnd, DurableEnd, EndedAttempt, Epoch, Fact};
use crate::submit_key::SubmitKey;

/// Everything that facts have left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DurableState {
    /// The last run of the daemon, and when it ended, if it said so.
    pub epoch: Option<(Epoch, Option<u64>)>,
    /// Submits of which a job is left, by their first job. Their `inputs` are empty: see [`FoldedJob::input`].
    pub submits: BTreeMap<JobId, (AcceptedJobs, u32)>,
    /// All jobs.
    pub jobs: BTreeMap<JobId, FoldedJob>,
    keys: BTreeMap<(u32, SubmitKey), JobId>,
}

/// One job, ended or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoldedJob {
    /// The first job of its submit.
    pub submit: JobId,
    /// Its counts.
    pub durable: DurableJob,
    /// When it expires if it has no attempt until then.
    pub expires_us: Option<u64>,
    /// Its input; `None` once it is done.
    pub input: Option<Payload>,
    /// How it ended.
    pub end: Option<DurableEnd>,
    /// Its attempts that ended without it, oldest first.
    pub ended_attempts: Vec<EndedAttempt>,
}

impl DurableState {
    /// Adds one fact.
    ///
    /// # Errors
    /// [`Misfit`]: it does not fit, and the state is as it was.
    pub fn add(&mut self, fact: &Fact) -> Result<(), Misfit> {
        match fact {
            Fact::Epoch(epoch) => self.epoch = Some((epoch.clone(), None)),
            Fact::EpochEnded { at_us } => {
                if let Some((_, ended_us)) = &mut self.epoch {
                    *ended_us = Some(*at_us);
                }
            }
            Fact::Accepted(accepted) => self.accept(accepted)?,
            Fact::Started { job, fence, .. } => self.going_on(*job)?.durable.start(*job, *fence)?,
            Fact::AttemptEnded(ended) => {
                let folded = match ended.how {
                    AttemptEnd::Uncharged => {
                        self.jobs.get_mut(&ended.job).ok_or(Misfit::Unknown(ended.job))?
                    }
                    _ => self.going_on(ended.job)?,
                };
                folded.durable.end_attempt(ended.job, ended.fence, ended.how)?;
                folded.ended_attempts.push(EndedAttempt::clone(ended));
            }
            Fact::Ended(end) => {
                let folded = self.going_on(end.job)?;
                folded.durable.end(end.job, end.fence)?;
                if end.outcome == Outcome::Done {
                    folded.input = None;
                }
                folded.end = Some(DurableEnd::clone(end));
            }
            Fact::Retried { job, expires_us, .. } => {
                let folded = self.ended(*job)?;
                if folded.input.is_none() {
                    return Err(Misfit::IsDone(*job));
                }
                folded.end = None;
                folded.expires_us = *expires_us;
                folded.durable.retry();
            }
            Fact::Forgotten { job } => {
                self.ended(*job)?;
                self.remove(*job);
            }
            Fact::Evicted { jobs } => {
                for job in jobs {
                    self.ended(*job)?;
                }
                jobs.iter().for_each(|job| self.remove(*job));
            }
        }
        Ok(())
    }

    fn accept(&mut self, accepted: &AcceptedJobs) -> Result<(), Misfit> {
        let numbers = accepted.first.0..accepted.first.0 + u64::from(accepted.count());
        let key = accepted.key.clone().map(|key| (accepted.uid, key));
        if let Some(first) = key.as_ref().and_then(|key| self.keys.get(key)) {
            let (known, count) = &self.submits[first];
            let is_same = known.digest == accepted.digest;
            return Err(Misfit::KeyTaken { first: *first, count: *count, is_same });
        }
        let known = self.jobs.range(JobId(numbers.start)..JobId(numbers.end)).next();
        if let Some((job, _)) = known {
            return Err(Misfit::Known(*job));
        }
        for (number, input) in numbers.zip(&accepted.inputs) {
            let folded = FoldedJob {
                submit: accepted.first,
                durable: DurableJob::default(),
                expires_us: accepted.expires_us,
                input: Some(input.clone()),
                end: None,
                ended_attempts: Vec::new(),
            };
            self.jobs.insert(JobId(number), folded);
        }
        if let Some(key) = key {
            self.keys.insert(key, accepted.first);
        }
        let shared = AcceptedJobs { inputs: Vec::new(), ..accepted.clone() };
        self.submits.insert(accepted.first, (shared, accepted.count()));
        Ok(())
    }

    /// The submit with this first job could not be stored: it never was. Nothing else may have been added about its jobs.
    pub fn withdraw(&mut self, first: JobId) {
        if let Some((_, count)) = self.submits.get(&first) {
            (first.0..first.0 + u64::from(*count)).for_each(|job| self.remove(JobId(job)));
        }
    }

    fn going_on(&mut self, job: JobId) -> Result<&mut FoldedJob, Misfit> {
        let folded = self.jobs.get_mut(&job).ok_or(Misfit::Unknown(job))?;
        if folded.end.is_none() { Ok(folded) } else { Err(Misfit::HasEnded(job)) }
    }

    fn ended(&mut self, job: JobId) -> Result<&mut FoldedJob, Misfit> {
        let folded = self.jobs.get_mut(&job).ok_or(Misfit::Unknown(job))?;
        if folded.end.is_some() { Ok(folded) } else { Err(Misfit::NotEnded(job)) }
    }

    /// Removes a job, and its submit with the last one of it: the key is free then.
    fn remove(&mut self, job: JobId) {
        let Some(folded) = self.jobs.remove(&job) else { return };
        let (accepted, count) = &self.submits[&folded.submit];
        let end = JobId(folded.submit.0 + u64::from(*count));
        if self.jobs.range(folded.submit..end).next().is_none() {
            if let Some(key) = &accepted.key {
                self.keys.remove(&(accepted.uid, key.clone()));
            }
            self.submits.remove(&folded.submit);
        }
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_proto::ids::Fence;
    use bulkhead_proto::job::Policy;

    use super::*;
    use crate::submit_key::SubmitDigest;

    fn accepted(first: u64, key: Option<&str>, inputs: &[&str]) -> AcceptedJobs {
        let inputs: Vec<Payload> = inputs.iter().map(|one| Payload::from(one.as_bytes().to_vec())).collect();
        let policy = Policy::default();
        AcceptedJobs {
            first: JobId(first),
            uid: 1000,
            key: key.map(|key| SubmitKey::new(key.as_bytes()).unwrap()),
            digest: SubmitDigest::of("a", 0, &policy, &inputs),
            kind: "a".to_owned(),
            pool: "default".to_owned(),
            flavour: 0,
            policy,
            accepted_us: 5,
            expires_us: Some(9),
            inputs,
        }
    }

    fn end(job: u64, fence: Option<u32>, outcome: Outcome) -> Fact {
        Fact::Ended(Box::new(DurableEnd {
            job: JobId(job),
            fence: fence.map(Fence),
            outcome,
            output: None,
            at_us: 8,
            started_us: None,
            waited_us: 1,
            ran_us: 2,
            by: None,
            survivors: Vec::new(),
        }))
    }

    fn accept(accepted: AcceptedJobs) -> Fact {
        Fact::Accepted(Box::new(accepted))
    }

    #[test]
    fn a_key_names_one_submit_as_long_as_a_job_of_it_is_left() {
        let mut state = DurableState::default();
        state.add(&accept(accepted(1, Some("k"), &["x", "y"]))).unwrap();
        let taken = |is_same| Err(Misfit::KeyTaken { first: JobId(1), count: 2, is_same });
        assert_eq!(state.add(&accept(accepted(3, Some("k"), &["x", "y"]))), taken(true));
        assert_eq!(state.add(&accept(accepted(3, Some("k"), &["x"]))), taken(false));
        assert_eq!(state.add(&accept(AcceptedJobs { uid: 2, ..accepted(3, Some("k"), &["x"]) })), Ok(()));
        assert_eq!(state.add(&accept(accepted(2, None, &["x"]))), Err(Misfit::Known(JobId(2))));
        for (job, left) in [(1, 3), (2, 1)] {
            state.add(&end(job, Some(1), Outcome::Done)).unwrap();
            assert_eq!(state.jobs[&JobId(job)].input, None);
            state.add(&Fact::Forgotten { job: JobId(job) }).unwrap();
            assert_eq!(state.jobs.len(), left - usize::from(job == 1));
        }
        assert_eq!(state.submits.len(), 1);
        assert_eq!(state.add(&accept(accepted(7, Some("k"), &["other"]))), Ok(()));
    }

    #[test]
    fn an_ended_job_only_goes_on_by_a_retry() {
        let mut state = DurableState::default();
        state.add(&accept(accepted(1, None, &["x"]))).unwrap();
        let evict = Fact::Evicted { jobs: Box::new([JobId(1)]) };
        assert_eq!(state.add(&evict), Err(Misfit::NotEnded(JobId(1))));
        state.add(&end(1, None, Outcome::Cancelled)).unwrap();
        let start = Fact::Started { job: JobId(1), fence: Fence(1), at_us: 1 };
        assert_eq!(state.add(&start), Err(Misfit::HasEnded(JobId(1))));
        assert_eq!(state.add(&end(1, None, Outcome::Done)), Err(Misfit::HasEnded(JobId(1))));
        let death = |job, how| {
            let (job, fence) = (JobId(job), Fence(1));
            Fact::AttemptEnded(Box::new(EndedAttempt {
                job,
                fence,
                number: 1,
                how,
                at_us: 8,
                message: None,
                death: None,
            }))
        };
        let before = state.jobs[&JobId(1)].durable;
        assert_eq!(state.add(&death(1, AttemptEnd::Lost)), Err(Misfit::HasEnded(JobId(1))));
        state.add(&death(1, AttemptEnd::Uncharged)).unwrap();
        assert_eq!(state.add(&death(9, AttemptEnd::Uncharged)), Err(Misfit::Unknown(JobId(9))));
        assert_eq!((state.jobs[&JobId(1)].durable, state.jobs[&JobId(1)].ended_attempts.len()), (before, 1));
        state.add(&Fact::Retried { job: JobId(1), at_us: 9, expires_us: None }).unwrap();
        assert_eq!(state.jobs[&JobId(1)].expires_us, None);
        assert_eq!(state.jobs[&JobId(1)].input, Some(Payload::from(b"x".to_vec())), "it can run again");
        state.add(&start).unwrap();
        state.add(&end(1, Some(1), Outcome::Done)).unwrap();
        let again = Fact::Retried { job: JobId(1), at_us: 9, expires_us: None };
        assert_eq!(state.add(&again), Err(Misfit::IsDone(JobId(1))));
        state.add(&evict).unwrap();
        assert!(state.jobs.is_empty() && state.submits.is_empty());
        assert_eq!(state.add(&evict), Err(Misfit::Unknown(JobId(1))));
    }
}

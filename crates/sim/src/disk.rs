//! The fake journal and its disk: it takes facts in their order, and commits what is there, sooner or later.
//!
//! | the disk | what the core hears |
//! |---|---|
//! | commits | `Stored`; before it `KeyKnown` for a submit whose key names another one |
//! | cannot write | `JournalFailed`, and `NotStored` for all that waits; other facts than submits stay |
//! | writes again | `JournalRecovered` with the next commit |
//! | stalls | nothing, for seconds |
//!
//! It has two folds of the facts: of all that the core has made, with which the core's own durable state is compared after every step
//! (`facts`), and of what is stored: nothing that a crash could take back is told, or run (`stored`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bulkhead_core::Core;
use bulkhead_core::action::{Action, Output};
use bulkhead_core::config::{Config, JournalTerms, JournalUse};
use bulkhead_core::event::{Event, JournalJob, LookUpAnswer};
use bulkhead_facts::Misfit;
use bulkhead_facts::durable_job::DurableJob;
use bulkhead_facts::fact::{AttemptEnd, Fact, FactNo};
use bulkhead_facts::fold::DurableState;
use bulkhead_proto::client::message::{DurableSubmit, Reply};
use bulkhead_proto::client::outcome::JobEnded;
use bulkhead_proto::ids::{Fence, JobId};
use bulkhead_proto::job::{OutputMode, Payload, Policy};

use crate::agenda::Move;
use crate::clock::{MS, S, US};
use crate::report::{Verdict, broken};
use crate::rng::SimRng;
use crate::sabotage::Sabotage;
use crate::scenario::PROFILES;
use crate::world::World;

/// How often the disk goes wrong, in a thousand commits, and how long a commit takes.
#[derive(Clone, Copy, Debug)]
pub struct DiskFaults {
    /// The longest usual commit, in nanoseconds.
    pub commit_ns: u64,
    /// A commit takes up to ten seconds.
    pub stall: u32,
    /// A commit fails.
    pub fail: u32,
}

/// A third of the seeds of each profile have a journal.
pub(crate) fn keep(seed: u64, config: &mut Config) -> Option<DiskFaults> {
    if seed / PROFILES.len() as u64 % 3 != 2 {
        return None;
    }
    let mut rng = SimRng::new(seed ^ 0xd15c_0a11);
    let block = *rng.pick(&[10_000, 1_000_000]);
    config.journal = JournalUse::Open(JournalTerms {
        jobs: (JobId(1), JobId(1 + block)),
        facts_max: *rng.pick(&[16, 300, 100_000]),
        fact_bytes_max: *rng.pick(&[20_000, 1 << 30]),
        was_unclean: false,
    });
    Some(DiskFaults {
        commit_ns: *rng.pick(&[20 * US, MS, 30 * MS]),
        stall: *rng.pick(&[0, 0, 20, 200]),
        fail: *rng.pick(&[0, 0, 20, 200]),
    })
}

/// The journal.
#[derive(Debug, Default)]
pub(crate) struct FakeDisk {
    made: DurableState,
    stored: DurableState,
    waiting: VecDeque<(FactNo, Fact)>,
    last: FactNo,
    commits: bool,
    has_failed: bool,
    /// Submits that are not stored and never will be, by their first job, and how many jobs they had.
    refused: BTreeMap<JobId, u32>,
    /// Jobs that were forgotten.
    forgotten: BTreeSet<JobId>,
    keys: u32,
}

impl FakeDisk {
    /// Judges a turn of the core: it offers, accepts and tells only jobs whose facts are stored.
    pub(crate) fn decided(&mut self, out: &Output) -> Verdict {
        for action in &out.actions {
            match action {
                Action::Offer { task, .. }
                    if self.made.jobs.contains_key(&task.job)
                        && !self.stored.jobs.contains_key(&task.job) =>
                {
                    return broken("stored", format!("job {} is offered, and not stored", task.job));
                }
                Action::Reply { reply: Reply::Accepted { first, count, .. }, .. }
                    if self.made.submits.contains_key(first) =>
                {
                    let last = JobId(first.0 + u64::from(*count) - 1);
                    let is_known =
                        |job: &JobId| self.stored.jobs.contains_key(job) || self.forgotten.contains(job);
                    if !is_known(first) || !is_known(&last) {
                        return broken(
                            "stored",
                            format!("jobs {first} to {last} are accepted, and not stored"),
                        );
                    }
                }
                Action::Reply { reply: Reply::Ended(ends) | Reply::Held { ended: ends, .. }, .. } => {
                    ends.iter().try_for_each(|ended| self.told(ended))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn told(&self, ended: &JobEnded) -> Verdict {
        let Some(stored) = self.stored.jobs.get(&ended.job) else { return Ok(()) };
        match &stored.end {
            Some(end) if end.outcome == ended.outcome => Ok(()),
            end => broken("stored", format!("{ended:?} is told, and stored is {end:?}")),
        }
    }

    /// What the journal has of a job.
    pub(crate) fn look_up(&self, job: JobId) -> LookUpAnswer {
        let Some(folded) = self.stored.jobs.get(&job) else {
            return LookUpAnswer { found: Ok(None), run_until_us: None };
        };
        let found = JournalJob {
            job,
            submit: self.stored.submits[&folded.submit].0.clone(),
            counts: folded.durable,
            expires_us: folded.expires_us,
            input: folded.input.clone(),
            end: folded.end.clone(),
            attempts: folded.ended_attempts.clone(),
        };
        LookUpAnswer { found: Ok(Some(Box::new(found))), run_until_us: None }
    }

    /// Whether a fact may be about a job that the journal does not have.
    fn may_be_unknown(&self, job: JobId) -> bool {
        let of = self.refused.range(..=job).next_back();
        of.is_some_and(|(first, count)| job.0 < first.0 + u64::from(*count)) || self.forgotten.contains(&job)
    }

    fn made(&mut self, fact: &Fact) -> Verdict {
        match self.made.add(fact) {
            Ok(()) => {}
            Err(Misfit::KeyTaken { .. }) => {}
            Err(Misfit::Unknown(job)) if self.may_be_unknown(job) && is_of_late_death(fact) => {}
            Err(misfit) => return broken("facts", format!("{misfit}: {fact:?}")),
        }
        if let Fact::Forgotten { job } = fact {
            self.forgotten.insert(*job);
        }
        self.last.0 += 1;
        Ok(())
    }

    /// A submit never was.
    fn refuse(&mut self, fact: &Fact) {
        if let Fact::Accepted(accepted) = fact {
            self.refused.insert(accepted.first, accepted.count());
            self.made.withdraw(accepted.first);
        }
    }

    /// A submit is stored whose key was that of another one, which is not.
    fn make_up(&mut self, fact: &Fact) {
        if let Fact::Accepted(accepted) = fact
            && !self.made.submits.contains_key(&accepted.first)
        {
            self.made.add(fact).expect("the key is free");
        }
    }

    /// What the core knows of its durable jobs is what its facts add up to.
    fn compare(&self, core: &Core) -> Verdict {
        for (job, counts, input, is_ended) in core.durable_states() {
            let Some(made) = self.made.jobs.get(&job) else {
                return broken("facts", format!("the core has job {job}, of which there is no fact"));
            };
            let known = DurableJob { fence: Fence(0), is_open: false, lost_since: 0, ..made.durable };
            if (known, made.end.is_some()) != (counts, is_ended) {
                return broken(
                    "facts",
                    format!("job {job} is {counts:?}, {is_ended}, and by its facts {made:?}"),
                );
            }
            if made.input.as_ref().unwrap_or(&Payload::default()) != input {
                return broken("facts", format!("job {job} has another input than its facts"));
            }
        }
        Ok(())
    }
}

/// Whether a fact is about a death that may be proven after its job was forgotten.
fn is_of_late_death(fact: &Fact) -> bool {
    matches!(fact, Fact::AttemptEnded(ended) if ended.how == AttemptEnd::Uncharged)
}

impl Sabotage {
    /// Breaks the facts of the core.
    pub(crate) fn spoil_facts(self, facts: &mut Vec<Fact>) {
        match self {
            Self::LoseFacts => facts.retain(|fact| !matches!(fact, Fact::Ended(_))),
            Self::ChargeTwice => {
                let again = facts.iter().filter(|fact| matches!(fact, Fact::AttemptEnded(_))).cloned();
                facts.extend(again.collect::<Vec<_>>());
            }
            Self::WrongFence => facts.iter_mut().for_each(|fact| {
                if let Fact::Ended(end) = fact
                    && let Some(fence) = &mut end.fence
                {
                    fence.0 -= 1;
                }
            }),
            Self::ReuseNumbers => facts.iter_mut().for_each(|fact| {
                if let Fact::Accepted(accepted) = fact {
                    accepted.first = JobId(1);
                }
            }),
            _ => {}
        }
    }
}

impl World {
    /// A part of the submits that may be durable is.
    pub(crate) fn some_durable(
        &mut self,
        policy: &mut Policy,
        may_be: bool,
        attached: bool,
    ) -> Option<Box<DurableSubmit>> {
        let may_be = may_be && !attached;
        if self.scenario.disk.is_none() || !self.rng.chance(700) || !(may_be || self.rng.chance(50)) {
            return None;
        }
        if may_be {
            policy.output = OutputMode::Inline;
        }
        let has_key = !attached && self.rng.chance(400);
        self.disk.keys += u32::from(has_key && self.rng.chance(700));
        let key = has_key.then(|| self.disk.keys.max(1).to_le_bytes().to_vec());
        Some(Box::new(DurableSubmit { key }))
    }

    /// The core has made these facts.
    pub(crate) fn add_facts(&mut self, facts: Vec<Fact>) -> Verdict {
        for fact in facts {
            self.trace.note(self.clock.ns(), "fact", &fact);
            self.disk.made(&fact)?;
            self.disk.waiting.push_back((self.disk.last, fact));
        }
        if self.report.steps.is_multiple_of(1 + self.disk.made.jobs.len() as u64 / 50) {
            self.disk.compare(&self.core)?;
        }
        self.begin_commit();
        Ok(())
    }

    fn begin_commit(&mut self) {
        let Some(faults) = self.scenario.disk.filter(|_| !self.disk.commits && !self.disk.waiting.is_empty())
        else {
            return;
        };
        self.disk.commits = true;
        if self.sabotage == Some(Sabotage::EarlyStored) {
            self.told_back.push(Event::Stored { up_to: self.disk.last });
        }
        let is_stalled = !self.calm && self.rng.chance(faults.stall);
        let span = self.rng.span(if is_stalled { 10 * S } else { faults.commit_ns });
        self.plan(span, Move::Commit);
    }

    /// A commit ends, of all that waits or of a part of it.
    pub(crate) fn commit(&mut self) -> Verdict {
        self.disk.commits = false;
        let fail = self.scenario.disk.map_or(0, |faults| faults.fail);
        if !self.calm && self.rng.chance(fail) {
            self.fail_commit();
        } else if let Some(part) = std::num::NonZeroU64::new(self.disk.waiting.len() as u64) {
            let count = self.rng.between(1, part.get());
            self.store(count as usize)?;
        }
        self.begin_commit();
        Ok(())
    }

    fn fail_commit(&mut self) {
        let why = "no space left on device".to_owned();
        if !std::mem::replace(&mut self.disk.has_failed, true) {
            self.told_back.push(Event::JournalFailed { why: why.clone() });
        }
        let Some((from, to)) =
            self.disk.waiting.front().zip(self.disk.waiting.back()).map(|(a, b)| (a.0, b.0))
        else {
            return;
        };
        self.told_back.push(Event::NotStored { from, to, why });
        let (submits, rest): (VecDeque<_>, VecDeque<_>) =
            self.disk.waiting.drain(..).partition(|(_, fact)| matches!(fact, Fact::Accepted(_)));
        if self.sabotage != Some(Sabotage::TrustLaterSync) {
            self.disk.waiting = rest;
        }
        submits.iter().for_each(|(_, fact)| self.disk.refuse(fact));
    }

    fn store(&mut self, count: usize) -> Verdict {
        if std::mem::take(&mut self.disk.has_failed) {
            self.told_back.push(Event::JournalRecovered);
        }
        let mut up_to = FactNo(0);
        let facts: Vec<(FactNo, Fact)> = self.disk.waiting.drain(..count).collect();
        for (number, fact) in facts {
            up_to = number;
            if self.sabotage == Some(Sabotage::SkipWrites) && self.rng.chance(300) {
                continue;
            }
            match self.disk.stored.add(&fact) {
                Ok(()) => self.disk.make_up(&fact),
                Err(Misfit::KeyTaken { first, count, is_same }) => {
                    self.told_back.push(Event::KeyKnown { fact: number, first, count, is_same });
                    self.disk.refuse(&fact);
                }
                Err(Misfit::Unknown(_)) if is_of_late_death(&fact) => {}
                Err(misfit) => return broken("facts", format!("stored: {misfit}: {fact:?}")),
            }
        }
        self.told_back.push(Event::Stored { up_to });
        Ok(())
    }
}

//! Durable jobs over several runs: what a drain leaves, what the next run makes of it, and the numbers that it gives.

use std::rc::Rc;

use bulkhead_core::config::{Config, JournalTerms, JournalUse};
use bulkhead_core::event::{Event, ReloadedJobs};
use bulkhead_facts::fold::DurableState;
use bulkhead_facts::job_to_run::JobToRun;
use bulkhead_proto::client::message::{Reply, Request, Submit};
use bulkhead_proto::client::outcome::{JobOutput, Outcome};
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::Policy;

use crate::durable::{durable_config, journal, stalled, submit};
use crate::rig::{ADMIN, ALICE, Rig, config};

/// What a later run finds of a user's unfinished jobs.
fn unfinished(durable: &DurableState) -> Vec<ReloadedJobs> {
    let of_submit = |(first, (submit, _)): (&JobId, &(bulkhead_facts::fact::AcceptedJobs, u32))| {
        let jobs = durable.jobs.iter().filter(|(_, job)| job.submit == *first && job.end.is_none());
        let jobs = jobs.map(|(number, job)| JobToRun {
            job: *number,
            counts: job.durable,
            expires_us: job.expires_us,
            input: job.input.clone().expect("an unfinished job has its input"),
            deaths: job.ended_attempts.iter().filter_map(|one| one.death.as_deref().cloned()).collect(),
        });
        ReloadedJobs { submit: Rc::new(submit.clone()), jobs: jobs.collect() }
    };
    durable.submits.iter().map(of_submit).filter(|left| !left.jobs.is_empty()).collect()
}

/// The next run of the daemon, with what its journal has.
pub(crate) fn next_run(before: &Rig, slots: u16) -> Rig {
    let mut rig = Rig::cold(Config { journal: journal(1001, 1000), ..config(slots) });
    rig.durable.clone_from(&before.durable);
    rig.now.wall_us = before.now.wall_us + 1_000_000;
    rig.start();
    rig.tell(Event::Reloaded { jobs: unfinished(&before.durable), is_all: true });
    rig
}

#[test]
fn a_drain_puts_durable_jobs_off() {
    let mut rig = stalled(1);
    let (first, second) = (rig.durable(Policy::default()), rig.durable(Policy::default()));
    rig.finish(first);
    rig.store();
    let (third, facts) = (rig.durable(Policy::default()), rig.facts.len());
    assert!(rig.holder(second).is_some());
    let wait = rig.ask(ALICE, Request::Wait { jobs: vec![second, third] });
    let late = rig.ask(ALICE, Request::Submit(submit(None, &["9"])));
    rig.tell(Event::Drain { grace_ms: Some(1000) });
    rig.store();
    assert_eq!(rig.replies_to(late).len(), 1, "it was accepted, and the next run begins with it");
    rig.sleep(2000);
    assert_eq!(rig.facts.len(), facts + 1, "they have not ended: {:?}", rig.last_facts(2));
    assert!(rig.told(ALICE, Some(wait)).is_empty(), "nobody is told of an end");
    let mut next = next_run(&rig, 4);
    for job in [second, third, JobId(third.0 + 1)] {
        next.finish(job);
        assert_eq!(next.outcome(job), Some(Outcome::Done));
    }
    assert!(next.durable.jobs.values().all(|job| job.end.is_some()));
}

#[test]
fn a_later_run_goes_on_with_what_is_unfinished() {
    let mut rig = Rig::with(durable_config(2));
    let policy = Policy { retries_max: Some(3), crashes_max: Some(3), ..Policy::default() };
    let ask = rig.ask(ALICE, Request::Submit(Submit { policy, ..submit(Some("k"), &["1", "2", "3", "4"]) }));
    assert_eq!(rig.replies_to(ask).len(), 1);
    let [first, second, third, fourth] = [1, 2, 3, 4].map(JobId);
    rig.finish(first);
    rig.crash(second);
    rig.sleep(1000);
    rig.fail(third);
    let mut next = next_run(&rig, 2);
    let answer = next.answer(ADMIN, Request::Job { job: first });
    assert!(
        matches!(answer, Reply::Job(detail) if detail.outcome == Some(Outcome::Done)),
        "from the journal"
    );
    let detail = next.detail(second);
    assert_eq!((detail.row.attempts, detail.deaths.len()), (2, 1), "it runs again");
    assert_eq!(next.recorded(|what| matches!(what, What::Reloaded { jobs: 3, kindless: 0 })), 1);
    for job in [second, third, fourth] {
        while next.holder(job).is_none() {
            next.sleep(100);
        }
        next.finish(job);
        let [ended] = &next.told_of(job)[..] else { panic!("{job}") };
        assert_eq!(ended, &Outcome::Done);
    }
    let first_new = next.durable(Policy::default());
    assert!(first_new >= JobId(1001), "no number is given twice");
    let counts = next.durable.jobs[&second].durable;
    assert_eq!((counts.attempts, counts.crashes), (2, 1));
}

#[test]
fn a_job_that_has_left_the_table_does_not_come_back_with_an_older_chunk() {
    let mut rig = Rig::with(durable_config(1));
    let (job, other) = (rig.durable(Policy::default()), rig.durable(Policy::default()));
    let chunk = unfinished(&rig.durable);
    let mut next = Rig::cold(Config { journal: journal(1001, 1000), ..config(1) });
    next.durable.clone_from(&rig.durable);
    next.start();
    assert_eq!(next.change(ALICE, Request::Cancel { jobs: vec![job] }), (1, vec![]));
    assert_eq!(next.change(ALICE, Request::Forget { jobs: vec![job] }), (1, vec![]));
    // The next chunk may have been read before the core took this one.
    next.tell(Event::Reloaded { jobs: Vec::new(), is_all: false });
    next.tell(Event::Reloaded { jobs: chunk, is_all: true });
    assert!(next.holder(job).is_none() && next.holder(other).is_some());
}

#[test]
fn jobs_without_a_kind_stay_in_the_journal() {
    let mut rig = Rig::with(durable_config(1));
    let job = rig.durable(Policy::default());
    let mut jobs = unfinished(&rig.durable);
    let mut gone = (*jobs[0].submit).clone();
    gone.kind = "gone".to_owned();
    jobs[0].submit = Rc::new(gone);
    let mut next = Rig::with(Config { journal: journal(1001, 1000), ..config(1) });
    next.tell(Event::Reloaded { jobs, is_all: true });
    let waits = |what: &What| matches!(what, What::Kindless { first, count: 1, kind } if *first == job && kind == "gone");
    assert_eq!(next.recorded(waits), 1);
    assert_eq!(next.status().queued, 0);
}

#[test]
fn numbers_are_reserved_ahead_and_never_used_up_unsaid() {
    let jobs = (JobId(1), JobId(9));
    let open = JournalTerms { jobs, facts_max: 100, fact_bytes_max: 1 << 20, was_unclean: false };
    let mut rig = Rig::with(Config { journal: JournalUse::Open(open), ..config(1) });
    rig.submit(3);
    assert_eq!(rig.reserve, [], "more than half of the block is left");
    rig.submit(3);
    assert_eq!(rig.reserve, [JobId(17)], "volatile jobs use them, too");
    rig.submit(2);
    let busy = rig.answer(ALICE, Request::Submit(Submit { durable: None, ..submit(None, &["7"]) }));
    assert!(
        matches!(&busy, Reply::Refused(Refusal::Busy { what, .. }) if what.contains("numbers of jobs")),
        "{busy:?}"
    );
    rig.tell(Event::JobsReserved { end: JobId(17) });
    assert_eq!(rig.submit(1), JobId(9));
    assert_eq!(rig.reserve, [JobId(17)]);
}

impl Rig {
    /// The outcomes that were told of a job, asked for now.
    fn told_of(&mut self, job: JobId) -> Vec<Outcome> {
        let tag = self.ask(ADMIN, Request::Result { job });
        let ends = self.told(ADMIN, Some(tag));
        assert!(ends.iter().all(|end| !matches!(end.output, JobOutput::Descriptor { .. })));
        ends.into_iter().map(|end| end.outcome).collect()
    }
}

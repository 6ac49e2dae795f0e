//! Jobs that only the journal has: what is answered about them, by whom it is seen, and what may be changed.

use bulkhead_core::action::{LOOK_UP_PAGE, LookUpNo};
use bulkhead_core::event::{Event, LookUpAnswer};
use bulkhead_facts::fact::Fact;
use bulkhead_proto::client::message::{Reply, Request, Submit};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::refusal::{EarlierNumbers, Refusal, UnknownJobs};
use bulkhead_proto::ids::{ClientId, JobId, Tag};
use bulkhead_proto::job::Policy;
use bulkhead_proto::limits::{BATCH_MAX, LOOK_UPS_MAX};

use crate::durable::{durable_config, submit};
use crate::durable_runs::next_run;
use crate::rig::{ADMIN, ALICE, BOB, Rig};

/// A job of Alice for each way to end.
fn every_end() -> (Rig, Vec<JobId>) {
    let mut rig = Rig::with(durable_config(1));
    let policy =
        Policy { retries_max: Some(1), crashes_max: Some(1), expires_ms: Some(60_000), ..Policy::default() };
    // The disk takes its time: what the journal has is what the client was told.
    rig.stores = false;
    rig.ask(ALICE, Request::Submit(Submit { policy: policy.clone(), ..submit(None, &["7"]) }));
    rig.sleep(20);
    rig.stores = true;
    rig.store();
    let done = JobId(1);
    rig.finish(done);
    let failed = rig.durable(policy.clone());
    rig.fail(failed);
    rig.sleep(10_000);
    rig.fail(failed);
    let crashed = rig.durable(policy.clone());
    rig.crash(crashed);
    rig.sleep(10_000);
    let blocker = rig.submit_as(ALICE, "foreign", 1, Policy::default(), false);
    rig.claim(blocker);
    let [cancelled, expired] = [(); 2].map(|()| rig.durable(policy.clone()));
    assert_eq!(rig.change(ALICE, Request::Cancel { jobs: vec![cancelled] }), (1, vec![]));
    rig.sleep(70_000);
    rig.finish(blocker);
    let jobs = vec![done, failed, crashed, cancelled, expired];
    let words = ["done", "failed", "crashed", "cancelled", "expired"];
    for (job, word) in jobs.iter().zip(words) {
        assert_eq!(rig.outcome(*job).map(|outcome| outcome.word()), Some(word));
    }
    (rig, jobs)
}

/// A later run, and a job of the run before that has ended.
pub(crate) fn after(outcome: &str) -> (Rig, JobId) {
    let (rig, jobs) = every_end();
    let mut next = next_run(&rig, 1);
    next.forget_past();
    let is_it =
        |job: &&JobId| rig.durable.jobs[*job].end.as_ref().is_some_and(|end| end.outcome.word() == outcome);
    let job = *jobs.iter().find(is_it).expect("a job for each end");
    (next, job)
}

fn forgotten(rig: &Rig) -> Vec<JobId> {
    let jobs = rig.facts.iter().filter_map(|fact| match fact {
        Fact::Forgotten { job } => Some(*job),
        _ => None,
    });
    jobs.collect()
}

impl Rig {
    /// All replies to a request.
    pub(crate) fn answers(&mut self, client: ClientId, request: Request) -> Vec<Reply> {
        let tag = self.ask(client, request);
        self.replies_to(tag)
    }

    /// What the journal has goes: by its age, for example.
    fn evict(&mut self, job: JobId) {
        self.durable.add(&Fact::Evicted { jobs: Box::new([job]) }).expect("it has ended");
        self.tell(Event::JournalEvicted { jobs: vec![job] });
    }
}

#[test]
fn each_answer_is_the_same_from_the_table_and_from_the_journal() {
    let (mut rig, jobs) = every_end();
    let mut next = next_run(&rig, 1);
    for job in jobs {
        let requests = [
            Request::Result { job },
            Request::Job { job },
            Request::Why { job },
            Request::Wait { jobs: vec![job] },
            Request::Cancel { jobs: vec![job] },
        ];
        for request in requests {
            for client in [ALICE, ADMIN] {
                let table = rig.answers(client, request.clone());
                assert_eq!(table.len(), 1);
                assert_eq!(next.answers(client, request.clone()), table, "{request:?}");
            }
        }
        let log = next.answers(ALICE, Request::Logs { job, follow: true });
        assert!(matches!(&log[..], [Reply::Refused(Refusal::NoLog { .. })]), "{log:?}");
    }
}

#[test]
fn a_job_of_another_user_is_a_job_that_is_gone() {
    let (mut rig, job) = after("failed");
    let until_us = Some(77);
    let refusal = Refusal::OfEarlierRun { job, others: true, until_us };
    for request in [Request::Result { job }, Request::Job { job }, Request::Why { job }] {
        assert_eq!(rig.answers(BOB, request), [Reply::Refused(refusal.clone())]);
    }
    for request in [
        Request::Cancel { jobs: vec![job] },
        Request::Retry { jobs: vec![job] },
        Request::Forget { jobs: vec![job] },
    ] {
        assert_eq!(rig.change(BOB, request), (0, vec![refusal.clone()]));
    }
    assert_eq!(rig.facts, [], "nothing has changed");
    rig.evict(job);
    assert_eq!(rig.answers(BOB, Request::Job { job }), [Reply::Refused(refusal)], "in the same words");
    let refusal = Refusal::OfEarlierRun { job, others: false, until_us };
    assert_eq!(rig.answers(ADMIN, Request::Job { job }), [Reply::Refused(refusal)]);
}

#[test]
fn a_number_that_neither_has_is_of_an_earlier_run_or_gone() {
    let (mut rig, old) = after("done");
    let volatile = rig.submit(1);
    rig.finish(volatile);
    assert_eq!(rig.change(ALICE, Request::Forget { jobs: vec![volatile] }).0, 1);
    let (earlier, never) = (JobId(500), JobId(volatile.0 + 1));
    let jobs = vec![volatile, earlier, old, never, earlier];
    let tag = rig.ask(ALICE, Request::Wait { jobs });
    let unknown = |jobs: &[JobId], earlier| {
        Reply::Unknown(UnknownJobs { jobs: jobs.to_vec(), last: volatile, others: true, earlier })
    };
    let replies = rig.replies_to(tag);
    let [first, Reply::Ended(ends), third, fourth] = &replies[..] else { panic!("{replies:?}") };
    assert_eq!(*first, unknown(&[never], None), "it is known at once");
    assert_eq!((ends.len(), ends[0].job), (1, old));
    let run = EarlierNumbers { until_us: Some(77) };
    assert_eq!([third, fourth], [&unknown(&[volatile], None), &unknown(&[earlier, earlier], Some(run))]);
    let gone = rig.answers(ALICE, Request::Result { job: volatile });
    assert_eq!(gone, [Reply::Refused(Refusal::Gone { job: volatile, others: true })]);
    let gone = rig.answers(ALICE, Request::Result { job: never });
    assert!(matches!(gone[..], [Reply::Refused(Refusal::NeverWas { .. })]));
}

#[test]
fn without_a_journal_nothing_is_looked_up() {
    let mut rig = Rig::new(1);
    let job = rig.submit(1);
    rig.finish(job);
    rig.change(ALICE, Request::Forget { jobs: vec![job] });
    rig.reads = false;
    let gone = Refusal::Gone { job, others: true };
    assert_eq!(rig.answers(ALICE, Request::Why { job }), [Reply::Refused(gone.clone())]);
    assert_eq!(rig.change(ALICE, Request::Forget { jobs: vec![job] }), (0, vec![gone]));
}

#[test]
fn forget_is_answered_once_it_is_stored() {
    let (mut rig, job) = after("crashed");
    let volatile = rig.submit(1);
    rig.finish(volatile);
    rig.stores = false;
    let tag = rig.ask(ALICE, Request::Forget { jobs: vec![job, volatile, job] });
    assert_eq!((rig.replies_to(tag), forgotten(&rig)), (vec![], vec![job]));
    rig.store();
    let replies = rig.replies_to(tag);
    let [Reply::Changed { count: 2, refused }] = &replies[..] else { panic!("{replies:?}") };
    assert_eq!(refused.iter().flat_map(|same| same.jobs()).collect::<Vec<_>>(), [&job], "the second time");
    let answer = rig.answers(ALICE, Request::Job { job });
    assert!(matches!(answer[..], [Reply::Refused(Refusal::OfEarlierRun { .. })]));
}

#[test]
fn what_two_clients_forget_is_forgotten_once() {
    let (mut rig, job) = after("failed");
    rig.reads = false;
    let tags = [ALICE, ADMIN].map(|client| rig.ask(client, Request::Forget { jobs: vec![job] }));
    assert_eq!(rig.look_ups.len(), 2, "both are read before either has changed anything");
    rig.reads = true;
    rig.read();
    rig.turn();
    assert_eq!(forgotten(&rig), [job]);
    let counts = tags.map(|tag| match &rig.replies_to(tag)[..] {
        [Reply::Changed { count, .. }] => *count,
        other => panic!("{other:?}"),
    });
    assert_eq!(counts, [1, 0]);
}

#[test]
fn an_answer_that_is_older_than_a_removal_changes_nothing() {
    let (mut rig, job) = after("failed");
    rig.reads = false;
    let tag = rig.ask(ALICE, Request::Retry { jobs: vec![job] });
    rig.read();
    rig.durable.add(&Fact::Evicted { jobs: Box::new([job]) }).expect("it has ended");
    rig.batch.insert(0, Event::JournalEvicted { jobs: vec![job] });
    rig.reads = true;
    rig.turn();
    let replies = rig.replies_to(tag);
    assert!(matches!(&replies[..], [Reply::Changed { count: 0, .. }]), "{replies:?}");
    assert_eq!(rig.facts, []);
}

#[test]
fn retry_brings_a_job_back_with_fresh_budgets() {
    let (mut rig, job) = after("crashed");
    rig.stores = false;
    let tag = rig.ask(ALICE, Request::Retry { jobs: vec![job] });
    assert!(matches!(rig.last_facts(1), [Fact::Retried { .. }]));
    assert_eq!(rig.replies_to(tag), []);
    rig.store();
    assert!(matches!(&rig.replies_to(tag)[..], [Reply::Changed { count: 1, refused }] if refused.is_empty()));
    let why = rig.why(ALICE, job);
    assert_eq!((why.past.crashes, why.past.asked, why.past.deaths.len()), (0, 1, 1));
    while rig.holder(job).is_none() {
        rig.sleep(100);
    }
    rig.finish(job);
    rig.store();
    assert_eq!(rig.outcome(job), Some(Outcome::Done));
    assert_eq!(rig.durable.jobs[&job].durable.attempts, 2);
}

#[test]
fn a_retry_that_cannot_be_is_refused_in_the_words_of_the_table() {
    let (mut rig, job) = after("done");
    let (count, refused) = rig.change(ALICE, Request::Retry { jobs: vec![job] });
    assert!(matches!(&refused[..], [Refusal::WrongState { needed, .. }] if needed.contains("it is done")));
    assert_eq!((count, rig.facts.len()), (0, 0));
    let (mut rig, job) = after("failed");
    rig.durable.submits.values_mut().for_each(|(submit, _)| submit.kind = "gone".to_owned());
    let (_, refused) = rig.change(ALICE, Request::Retry { jobs: vec![job] });
    assert!(matches!(&refused[..], [Refusal::WrongState { needed, .. }] if needed.contains("its kind gone")));
    let (mut rig, job) = after("failed");
    rig.submit(1);
    rig.tell(Event::Drain { grace_ms: None });
    assert_eq!(rig.change(ALICE, Request::Retry { jobs: vec![job] }), (0, vec![Refusal::Draining]));
}

#[test]
fn a_job_that_is_not_loaded_yet_is_loaded_for_a_command_about_it() {
    let mut before = Rig::with(durable_config(1));
    let jobs = [(); 3].map(|()| before.durable(Policy::default()));
    let mut rig = next_run(&before, 1);
    let mut empty = Rig::cold(bulkhead_core::config::Config {
        journal: crate::durable::journal(1001, 1000),
        ..crate::rig::config(1)
    });
    empty.durable.clone_from(&before.durable);
    empty.start();
    assert!(rig.holder(jobs[0]).is_some() && empty.holder(jobs[0]).is_none(), "nothing is loaded there");
    let tag = empty.ask(ALICE, Request::Wait { jobs: vec![jobs[1]] });
    assert_eq!(empty.answers(ALICE, Request::Job { job: jobs[1] }).len(), 1);
    empty.finish(jobs[1]);
    assert_eq!(empty.told(ALICE, Some(tag)).len(), 1);
    assert_eq!(empty.outcome(jobs[2]), None);
    assert!(empty.holder(jobs[2]).is_some(), "it runs");
    assert_eq!(empty.change(ALICE, Request::Cancel { jobs: vec![jobs[0]] }), (1, vec![]));
    assert_eq!(rig.change(ALICE, Request::Forget { jobs: vec![jobs[0]] }).1.len(), 1, "it has not ended");
}

#[test]
fn one_page_of_a_connection_is_read_at_a_time() {
    let (mut rig, done) = after("done");
    rig.reads = false;
    let jobs: Vec<JobId> = (1..=70).map(JobId).collect();
    let wait = rig.ask(ALICE, Request::Wait { jobs });
    let result = rig.ask(ALICE, Request::Result { job: done });
    let others = rig.ask(ADMIN, Request::Result { job: done });
    let mut pages = Vec::new();
    while !rig.look_ups.is_empty() {
        let of_alice = rig.look_ups.iter().filter(|(_, client, _)| *client == ALICE);
        let of_alice: Vec<usize> = of_alice.map(|(_, _, jobs)| jobs.len()).collect();
        assert!(of_alice.len() <= 1, "one at a time");
        pages.extend(of_alice);
        rig.read();
        rig.turn();
    }
    assert_eq!(pages, [LOOK_UP_PAGE, LOOK_UP_PAGE, 70 - 2 * LOOK_UP_PAGE, 1]);
    let told: usize = rig
        .replies_to(wait)
        .iter()
        .map(|reply| match reply {
            Reply::Ended(ends) => ends.len(),
            Reply::Unknown(unknown) => unknown.jobs.len(),
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!((told, rig.replies_to(result).len(), rig.replies_to(others).len()), (70, 1, 1));
}

#[test]
fn a_client_without_credit_is_read_nothing() {
    let (mut rig, done) = after("done");
    rig.reads = false;
    let spend = |rig: &mut Rig| while !rig.ask(ALICE, Request::Kinds).0.is_multiple_of(2000) {};
    spend(&mut rig);
    let tag = rig.ask(ALICE, Request::Result { job: done });
    assert!(rig.look_ups.is_empty(), "its replies are not read");
    assert!(rig.core.awaits_flush(ALICE));
    rig.tell(Event::ClientFlushed { client: ALICE });
    assert_eq!(rig.look_ups.len(), 1);
    rig.read();
    rig.turn();
    assert_eq!(rig.replies_to(tag).len(), 1);
}

#[test]
fn more_than_a_user_may_have_looked_up_is_busy() {
    let (mut rig, done) = after("done");
    rig.reads = false;
    let ask = |rig: &mut Rig, from: u64| {
        let jobs = (from..from + BATCH_MAX as u64).map(|job| JobId(1 + job % 1000)).collect();
        rig.answers(ALICE, Request::Wait { jobs })
    };
    // A thousand numbers of the run before, each named about four times.
    let fit = (0..LOOK_UPS_MAX).take_while(|_| ask(&mut rig, 0).is_empty()).count() as u64;
    assert!((LOOK_UPS_MAX / 1001 / 2..=LOOK_UPS_MAX / 1001).contains(&fit), "{fit}");
    let busy = ask(&mut rig, 0);
    let [Reply::Refused(Refusal::Busy { what, .. })] = &busy[..] else { panic!("{busy:?}") };
    assert_eq!(what, "jobs to be looked up in the journal");
    let change = rig.answers(ALICE, Request::Forget { jobs: (1..=1000).map(JobId).collect() });
    assert!(matches!(change[..], [Reply::Refused(Refusal::Busy { .. })]));
    let tag = rig.ask(BOB, Request::Result { job: done });
    rig.tell(Event::ClientGone { client: ALICE });
    rig.read();
    rig.turn();
    assert_eq!(rig.replies_to(tag).len(), 1);
    rig.connect(ALICE_AGAIN, 1, false);
    assert_eq!(rig.answers(ALICE_AGAIN, Request::Ping).len(), 1);
    let again = rig.ask(ALICE_AGAIN, Request::Result { job: done });
    rig.read();
    rig.turn();
    assert_eq!(rig.replies_to(again).len(), 1, "what was hers is free again");
}

const ALICE_AGAIN: ClientId = ClientId(9);

#[test]
fn a_client_that_leaves_before_its_answer_changes_nothing() {
    for is_asked in [true, false] {
        let (mut rig, job) = after("failed");
        rig.reads = false;
        rig.stores = is_asked;
        if !is_asked {
            rig.ask(ALICE, Request::Submit(submit(None, &["7"])));
        }
        let facts = rig.facts.len();
        rig.ask(ALICE, Request::Forget { jobs: vec![job] });
        assert_eq!(rig.look_ups.len(), usize::from(is_asked), "facts that are not stored come first");
        rig.tell(Event::ClientGone { client: ALICE });
        rig.read();
        rig.store();
        assert_eq!((rig.facts.len(), rig.look_ups.len()), (facts, 0));
    }
}

#[test]
fn a_journal_that_cannot_be_read_is_said() {
    let (mut rig, job) = after("failed");
    let other = JobId(job.0 + 1);
    rig.reads = false;
    let why = "the disk is gone".to_owned();
    for is_one in [false, true] {
        let tags = [
            rig.ask(ALICE, Request::Result { job }),
            rig.ask(ALICE, Request::Wait { jobs: vec![job, other] }),
            rig.ask(ALICE, Request::Forget { jobs: vec![job] }),
        ];
        while let Some((number, client, jobs)) = rig.look_ups.pop() {
            let unreadable = LookUpAnswer { found: Err(why.clone()), run_until_us: None };
            let found = if is_one { Ok(vec![unreadable; jobs.len()]) } else { Err(why.clone()) };
            rig.tell(Event::LookedUp { number, client, found });
        }
        for tag in tags {
            let replies = rig.replies_to(tag);
            let [reply] = &replies[..] else { panic!("{replies:?}") };
            assert!(
                format!("{reply:?}").contains("the journal cannot be read: the disk is gone"),
                "{reply:?}"
            );
        }
    }
    assert_eq!(rig.facts, []);
}

#[test]
fn an_answer_to_nobody_is_dropped() {
    let (mut rig, job) = after("failed");
    rig.tell(Event::LookedUp { number: LookUpNo(700), client: ALICE, found: Err("late".to_owned()) });
    let tag: Tag = rig.ask(ALICE, Request::Submit(Submit { durable: None, ..submit(None, &["7"]) }));
    assert_eq!(rig.replies_to(tag).len(), 1);
    assert_eq!(rig.answers(ALICE, Request::Result { job }).len(), 1);
}

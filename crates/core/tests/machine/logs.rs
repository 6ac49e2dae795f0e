//! Logs of jobs: one for each attempt, the latest kept, who may read it, and which are dropped when there are too many.

use bulkhead_core::action::TaskFile;
use bulkhead_core::config::Config;
use bulkhead_core::event::Event;
use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::record::What;
use bulkhead_proto::ids::{ClientId, JobId, LogId};
use bulkhead_proto::job::Policy;
use bulkhead_proto::kind::Kind;
use bulkhead_proto::limits::READERS_MAX;

use crate::rig::{ADMIN, ALICE, BOB, Rig, config};

fn rig(keep_logs_max: u64) -> Rig {
    let mut config = Config { keep_logs_max, ..config(1) };
    config.kinds.push(Kind { name: "talks".to_owned(), ring: 1, logs: true, ..Kind::default() });
    Rig::with(config)
}

fn submit(rig: &mut Rig, retries_max: u8) -> JobId {
    let policy = Policy { retries_max: Some(retries_max), ..Policy::default() };
    rig.submit_as(ALICE, "talks", 1, policy, false)
}

/// The log that the offer of a job carries.
fn offered(rig: &Rig, job: JobId) -> Option<LogId> {
    let (worker, seq) = rig.holder(job)?;
    let held = rig.workers[&worker].iter().find(|held| held.seq == seq)?;
    held.task.files.iter().find_map(|file| match file {
        TaskFile::Log { log } => Some(*log),
        _ => None,
    })
}

fn ask(rig: &mut Rig, client: ClientId, job: JobId, follow: bool) {
    rig.ask(client, Request::Logs { job, follow });
}

fn refusal(rig: &mut Rig, client: ClientId, job: JobId, follow: bool) -> String {
    match rig.answer(client, Request::Logs { job, follow }) {
        Reply::Refused(refusal) => refusal.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_log_of_the_latest_attempt_is_there_while_the_job_is() {
    let mut rig = rig(10);
    let job = submit(&mut rig, 1);
    let first = offered(&rig, job).expect("its kind keeps a log");
    ask(&mut rig, ALICE, job, false);
    ask(&mut rig, ADMIN, job, false);
    let reply = Reply::Logs { job, attempt: 1, is_there: true };
    assert_eq!(rig.logs_shown, [(ALICE, reply.clone(), first), (ADMIN, reply, first)]);
    rig.fail(job);
    ask(&mut rig, ALICE, job, false);
    assert_eq!((rig.logs_shown.len(), rig.logs_dropped.len()), (3, 0), "it stays between two attempts");
    rig.sleep(5000);
    let second = offered(&rig, job).expect("its kind keeps a log");
    assert_eq!(rig.logs_dropped, [first]);
    rig.finish(job);
    ask(&mut rig, ALICE, job, false);
    let (_, reply, log) = rig.logs_shown.last().unwrap();
    assert_eq!((reply, *log), (&Reply::Logs { job, attempt: 2, is_there: true }, second));
    rig.change(ALICE, Request::Forget { jobs: vec![job] });
    assert_eq!(rig.logs_dropped, [first, second]);
}

#[test]
fn whoever_follows_is_given_each_attempt_as_it_begins() {
    let mut rig = rig(10);
    let before = submit(&mut rig, 0);
    let job = submit(&mut rig, 1);
    assert!(refusal(&mut rig, ALICE, job, false).contains("has not run yet"));
    ask(&mut rig, ALICE, job, true);
    ask(&mut rig, ALICE, job, true);
    assert!(rig.logs_shown.is_empty());
    rig.finish(before);
    rig.fail(job);
    rig.sleep(5000);
    let shown: Vec<_> = rig.logs_shown.iter().map(|(client, reply, _)| (*client, reply.clone())).collect();
    let attempt = |attempt| (ALICE, Reply::Logs { job, attempt, is_there: true });
    assert_eq!(shown, [attempt(1), attempt(2)], "one client follows once");
    rig.finish(job);
    rig.logs_shown.clear();
    ask(&mut rig, ALICE, job, true);
    assert_eq!(rig.logs_shown.len(), 1, "one that has ended has its log at once");
}

#[test]
fn nobody_else_and_no_other_kind_has_a_log() {
    let mut rig = rig(10);
    let job = submit(&mut rig, 0);
    assert!(refusal(&mut rig, BOB, job, true).contains("is not yours"));
    rig.finish(job);
    let silent = rig.submit_as(ALICE, "quick", 1, Policy::default(), false);
    assert_eq!(offered(&rig, silent), None);
    assert!(refusal(&mut rig, ALICE, silent, true).contains("kind quick keep no log"));
    let never = submit(&mut rig, 0);
    rig.change(ALICE, Request::Cancel { jobs: vec![never] });
    assert!(refusal(&mut rig, ALICE, never, true).contains("it never ran"));
}

#[test]
fn the_oldest_logs_make_room_and_that_is_said() {
    let mut rig = rig(2);
    let jobs: Vec<JobId> = (0..4).map(|_| submit(&mut rig, 0)).collect();
    for job in &jobs {
        rig.finish(*job);
    }
    assert_eq!(rig.logs_dropped, [LogId(1), LogId(2)]);
    assert!(refusal(&mut rig, ALICE, jobs[0], false).contains("make room: 2 logs are kept"));
    ask(&mut rig, ALICE, jobs[2], false);
    assert_eq!(rig.logs_shown.len(), 1);
    assert_eq!(
        rig.detail(jobs[0]).outcome,
        Some(bulkhead_proto::client::outcome::Outcome::Done),
        "the job stays"
    );
    let said = |what: &What| matches!(what, What::Evicted { limit, .. } if limit == "kept logs");
    assert_eq!(rig.records.iter().filter(|what| said(what)).count(), 1);
}

#[test]
fn a_log_that_cannot_be_made_is_not_tried_for_at_once_again() {
    let mut rig = rig(10);
    let job = submit(&mut rig, 0);
    let (worker, seq) = rig.holder(job).expect("it is offered");
    rig.workers.get_mut(&worker).expect("it lives").clear();
    let shortage = Some("no descriptors".to_owned());
    rig.tell(Event::OfferFailed { worker, seq, taken: true, shortage });
    assert_eq!((offered(&rig, job), rig.logs_dropped.len()), (None, 1));
    rig.sleep(200);
    assert!(offered(&rig, job).is_some());
}

#[test]
fn an_offer_that_never_began_leaves_no_log() {
    let mut rig = rig(10);
    let job = submit(&mut rig, 0);
    let log = offered(&rig, job).expect("its kind keeps a log");
    let (worker, seq) = rig.holder(job).expect("it is offered");
    rig.take_back(worker, seq);
    rig.turn();
    assert_eq!(rig.logs_dropped, [log]);
    assert_ne!(offered(&rig, job), Some(log));
}

/// No later attempt makes a log in place of this one.
#[test]
fn an_offer_that_never_began_leaves_no_log_while_its_job_waits() {
    let mut rig = rig(10);
    let job = submit(&mut rig, 0);
    let log = offered(&rig, job).expect("its kind keeps a log");
    let (worker, _) = rig.holder(job).expect("it is offered");
    rig.tell(Event::Suspended { worker, signal: 19 });
    assert_eq!((offered(&rig, job), rig.logs_dropped.as_slice()), (None, &[log][..]));
    assert!(refusal(&mut rig, ALICE, job, false).contains("has not run yet"));
}

/// One user follows at most three quarters of all that may be followed, over however many jobs and connections. What was
/// followed is given back when its job ends or its client is gone.
#[test]
fn followers_of_logs_are_bounded_by_user() {
    let mut rig = rig(10);
    let share = READERS_MAX - READERS_MAX / 4;
    let policy = || Policy { retries_max: Some(1), ..Policy::default() };
    let first = rig.submit_as(ALICE, "talks", share as usize + 2, policy(), false);
    let job = |number: u64| JobId(first.0 + number);
    let second = ClientId(100);
    rig.connect(second, 1, false);
    for number in 0..share {
        ask(&mut rig, if number % 2 == 0 { ALICE } else { second }, job(number), true);
    }
    let refused = refusal(&mut rig, ALICE, job(share), true);
    assert!(refused.contains("running events and logs requests"), "{refused}");
    rig.forget_past();
    ask(&mut rig, ALICE, job(0), true);
    ask(&mut rig, ADMIN, job(share), true);
    assert!(rig.replies.is_empty(), "it follows already, and others have theirs: {:?}", rig.replies);
    rig.finish(job(0));
    ask(&mut rig, ALICE, job(share), true);
    assert!(rig.replies.is_empty(), "one that has ended is followed no more: {:?}", rig.replies);
    assert!(refusal(&mut rig, ALICE, job(share + 1), true).contains("requests"));
    rig.tell(Event::ClientGone { client: second });
    rig.forget_past();
    ask(&mut rig, ALICE, job(share + 1), true);
    assert!(rig.replies.is_empty(), "{:?}", rig.replies);
}

/// A client that followed a job was told of its end: a retry by somebody sends it nothing that it has not asked for.
#[test]
fn a_retry_is_not_followed_by_those_who_followed_before() {
    let mut rig = rig(10);
    let job = submit(&mut rig, 0);
    ask(&mut rig, ALICE, job, true);
    rig.fail(job);
    rig.logs_shown.clear();
    assert_eq!(rig.change(ADMIN, Request::Retry { jobs: vec![job] }).0, 1);
    assert!(offered(&rig, job).is_some());
    assert_eq!(rig.logs_shown, []);
    ask(&mut rig, ALICE, job, true);
    assert_eq!(rig.logs_shown.len(), 1);
}

//! Registrations: what a daemon takes, which workers get it and forget it, and when clients are told that a block is free.

use bulkhead_core::action::TaskFile;
use bulkhead_core::config::{Config, Users};
use bulkhead_core::event::{Event, TaskResult};
use bulkhead_proto::client::message::{Register, RegisteredUse, Reply, Request, Submit};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::file::{FileUse, Way};
use bulkhead_proto::ids::{ClientId, FileId, JobId, RegistrationId, Tag};
use bulkhead_proto::job::{Payload, Policy};
use bulkhead_proto::limits::{CONTEXT_BYTES_MAX, REGISTERED_MAX, WORKER_REGISTRATIONS_MAX};
use bulkhead_proto::registration::RegistrationKind;

use crate::rig::{ALICE, BOB, Rig, SEGV, config};

fn of_one(slots: u16) -> Config {
    Config { users: Users::One, ..config(slots) }
}

fn arena(number: u32) -> Register {
    let files = vec![FileUse::new("arena", Way::In)];
    Register { number, kind: RegistrationKind::Arena, bytes: Payload::default(), files }
}

fn context(number: u32, bytes: &[u8]) -> Register {
    let bytes = Payload::from(bytes.to_vec());
    Register { number, kind: RegistrationKind::Context, bytes, files: Vec::new() }
}

fn files(number: u32) -> Register {
    let files = vec![FileUse::new("a", Way::In), FileUse::new("b", Way::Out)];
    Register { number, kind: RegistrationKind::Files, bytes: Payload::default(), files }
}

impl Rig {
    fn register(&mut self, client: ClientId, register: Register, pinned: u64) -> Vec<FileId> {
        let (came, number) = (register.files.len(), register.number);
        match self.send(client, Request::Register(register), came, pinned) {
            (files, Reply::Registered { number: said }) if said == number => files,
            (_, other) => panic!("not registered: {other:?}"),
        }
    }

    fn not_registered(&mut self, client: ClientId, register: Register, pinned: u64) -> String {
        let came = register.files.len();
        match self.send(client, Request::Register(register), came, pinned) {
            (files, Reply::Refused(refusal)) => {
                assert!(self.let_go.ends_with(&files), "what is refused is let go");
                refusal.to_string()
            }
            (_, other) => panic!("registered: {other:?}"),
        }
    }

    fn using(&mut self, client: ClientId, arena: Option<u32>, contexts: &[u32], count: usize) -> Reply {
        let registered = Some(Box::new(RegisteredUse { arena, contexts: contexts.to_vec() }));
        let inputs = vec![Payload::from(vec![0; 16]); count];
        let kind = "quick".to_owned();
        let submit = Submit { kind, attached: true, registered, inputs, ..Submit::default() };
        self.answer(client, Request::Submit(submit))
    }

    fn using_now(&mut self, arena: Option<u32>, contexts: &[u32], count: usize) -> JobId {
        match self.using(ALICE, arena, contexts, count) {
            Reply::Accepted { first, refused: None, .. } => first,
            other => panic!("not accepted: {other:?}"),
        }
    }

    fn freed(&self) -> Vec<JobId> {
        let mut all = Vec::new();
        for (_, tag, reply, _) in &self.replies {
            if let Reply::Freed { jobs } = reply {
                assert_eq!(*tag, Tag(0), "it is no answer");
                all.extend(jobs);
            }
        }
        all
    }

    fn drop_registration(&mut self, number: u32) {
        self.ask(ALICE, Request::DropRegistration { number });
    }

    fn named(&self, job: JobId) -> Vec<RegistrationId> {
        let held = self.workers.values().flatten().find(|held| held.task.job == job).expect("it is offered");
        let named = held.task.files.iter().filter_map(|file| match file {
            TaskFile::Registered { registration, .. } => Some(*registration),
            _ => None,
        });
        named.collect()
    }
}

#[test]
fn what_is_registered_goes_with_each_task_that_names_it_and_is_let_go_when_dropped() {
    let mut rig = Rig::with(of_one(1));
    let arena_file = rig.register(ALICE, arena(7), 4096);
    rig.register(ALICE, context(3, b"code"), 0);
    let first = rig.using_now(Some(7), &[3], 2);
    assert_eq!(rig.named(first), [RegistrationId(1), RegistrationId(2)], "the arena is the first");
    rig.finish(first);
    rig.finish(JobId(first.0 + 1));
    assert!(rig.forgotten.is_empty() && rig.let_go.is_empty(), "it is kept between tasks");
    assert!(rig.freed().is_empty(), "the end of a done job says it");
    rig.drop_registration(7);
    assert_eq!(rig.let_go, arena_file);
    assert_eq!(rig.forgotten.iter().map(|(_, id)| *id).collect::<Vec<_>>(), [RegistrationId(1)]);
    assert!(matches!(rig.using(ALICE, Some(7), &[], 1), Reply::Refused(_)), "it is dropped");
    rig.register(ALICE, arena(7), 4096);
    let again = rig.using_now(Some(7), &[], 1);
    assert_eq!(
        rig.named(again),
        [RegistrationId(3)],
        "the number is free, and the daemon's is never used again"
    );
}

#[test]
fn one_that_is_dropped_while_jobs_name_it_is_kept_until_the_last_of_them() {
    let mut rig = Rig::with(of_one(1));
    let files = rig.register(ALICE, arena(1), 4096);
    let first = rig.using_now(Some(1), &[], 2);
    let worker = rig.claim(first);
    rig.drop_registration(1);
    rig.finish(first);
    assert!(rig.let_go.is_empty(), "one is left");
    let second = JobId(first.0 + 1);
    rig.claim(second);
    rig.change(ALICE, Request::Cancel { jobs: vec![second] });
    assert!(rig.let_go.is_empty() && rig.freed().is_empty(), "its worker lives, and may read it");
    rig.die(worker, SEGV);
    assert_eq!((rig.let_go.clone(), rig.freed()), (files, vec![second]));
    assert!(rig.forgotten.is_empty(), "nobody is there to forget it");
}

#[test]
fn a_client_is_told_that_a_block_is_free_once_nobody_holds_the_offer() {
    let mut rig = Rig::with(of_one(1));
    rig.register(ALICE, arena(1), 4096);
    let (blocker, queued) = (rig.using_now(Some(1), &[], 1), rig.using_now(Some(1), &[], 1));
    let worker = rig.claim(blocker);
    rig.change(ALICE, Request::Cancel { jobs: vec![queued] });
    assert_eq!(rig.freed(), [queued], "no worker had begun it");
    rig.change(ALICE, Request::Cancel { jobs: vec![blocker] });
    assert_eq!(rig.outcome(blocker), Some(Outcome::Cancelled));
    assert_eq!(rig.freed(), [queued], "its worker is killed, and that is not proven");
    rig.die(worker, SEGV);
    assert_eq!(rig.freed(), [queued, blocker]);
    let failed = rig.using_now(Some(1), &[], 1);
    rig.fail(failed);
    assert_eq!(rig.freed(), [queued, blocker], "the end of a failed job says it");
}

#[test]
fn a_job_that_crashed_frees_its_block_once() {
    let mut rig = Rig::with(of_one(1));
    rig.register(ALICE, arena(1), 4096);
    let job = rig.using_now(Some(1), &[], 1);
    for _ in 0..3 {
        assert!(rig.freed().is_empty(), "it is run again");
        rig.crash(job);
        rig.sleep(1000);
    }
    assert!(matches!(rig.outcome(job), Some(Outcome::Crashed { .. })));
    assert_eq!(rig.freed(), [job]);
}

/// `Ended` frees the block. The answer to a `Wait`, which is sent after it, sends no `Freed` beside it.
#[test]
fn an_end_that_frees_a_block_is_followed_by_no_other_word_of_it() {
    let mut rig = Rig::with(Config { client_credit_bytes: 10_000, ..of_one(1) });
    rig.register(ALICE, arena(1), 4096);
    let large = rig.submit(1);
    rig.finish_with(large, TaskResult::Inline(Payload::from(vec![1; 4000])), 1000);
    let job = rig.using_now(Some(1), &[], 1);
    for _ in 0..3 {
        rig.ask(ALICE, Request::Result { job: large });
    }
    rig.finish(job);
    let asked = rig.ask(ALICE, Request::Wait { jobs: vec![job] });
    assert!(rig.told(ALICE, Some(asked)).is_empty(), "it waits for credit behind the end of the submit");
    rig.forget_past();
    rig.tell(Event::ClientFlushed { client: ALICE });
    assert_eq!(rig.told(ALICE, None).len(), 2, "the submit and the wait are answered");
    assert!(rig.freed().is_empty(), "the first of them says it");
}

#[test]
fn a_client_that_vanishes_leaves_nothing_behind_once_its_jobs_are_over() {
    let mut rig = Rig::with(of_one(2));
    let files = [rig.register(ALICE, arena(1), 4096), rig.register(ALICE, files(2), 0)].concat();
    let job = rig.using_now(Some(1), &[2], 1);
    let worker = rig.claim(job);
    rig.tell(Event::ClientGone { client: ALICE });
    assert!(rig.let_go.is_empty(), "its job runs on");
    rig.sleep(30_001);
    rig.die(worker, SEGV);
    let mut let_go = rig.let_go.clone();
    let_go.sort_unstable();
    assert_eq!(let_go, files);
    assert!(rig.freed().is_empty(), "nobody is there to be told");
}

#[test]
fn a_worker_forgets_what_it_used_longest_ago_and_never_what_a_task_names() {
    let mut rig = Rig::with(of_one(1));
    for number in 0..=WORKER_REGISTRATIONS_MAX as u32 {
        rig.register(ALICE, context(number, b"x"), 0);
    }
    for number in 0..WORKER_REGISTRATIONS_MAX as u32 {
        let job = rig.using_now(None, &[number], 1);
        rig.finish(job);
    }
    assert!(rig.forgotten.is_empty());
    let job = rig.using_now(None, &[WORKER_REGISTRATIONS_MAX as u32, 0], 1);
    assert!(rig.forgotten.is_empty(), "as many as its tasks name are beyond the bound");
    rig.finish(job);
    assert_eq!(rig.forgotten.iter().map(|(_, id)| id.0).collect::<Vec<_>>(), [2], "the first was used again");
}

#[test]
fn a_daemon_of_several_users_takes_files_alone_and_for_workers_of_one_user() {
    let mut rig = Rig::new(1);
    for (register, what) in [(arena(1), "an arena is not taken"), (context(1, b"x"), "may be code")] {
        let why = rig.not_registered(BOB, register, 4096);
        assert!(why.contains(what) && why.contains("one user"), "{why}");
    }
    rig.register(BOB, files(1), 0);
    let Reply::Refused(refusal) = rig.using(BOB, None, &[1], 1) else {
        panic!("it is kept in shared workers")
    };
    assert!(refusal.to_string().contains("serve several users"), "{refusal}");
    let mut rig = Rig::with(Config { one_user: true, ..config(1) });
    rig.register(BOB, files(1), 0);
    assert!(matches!(rig.using(BOB, None, &[1], 1), Reply::Accepted { .. }));
    assert!(matches!(rig.using(ALICE, None, &[1], 1), Reply::Refused(_)), "a number is of one connection");
}

#[test]
fn what_is_too_much_or_wrong_is_refused_with_its_bound() {
    let mut rig = Rig::with(Config { arena_bytes_max: 10_000, files_max: 4, ..of_one(1) });
    rig.register(ALICE, arena(1), 8000);
    let refused = |rig: &mut Rig, register, pinned, why: &str| {
        let said = rig.not_registered(ALICE, register, pinned);
        assert!(said.contains(why), "{said}");
    };
    refused(&mut rig, arena(2), 2048, "(limit 10000, set by arena_bytes_max)");
    refused(&mut rig, arena(2), 100, "100 bytes, no multiple of 64");
    refused(&mut rig, arena(1), 128, "registration 1 is there already");
    refused(&mut rig, arena(2), 0, "at least one byte");
    refused(&mut rig, Register { files: Vec::new(), ..arena(2) }, 0, "one memfd, and 0 files");
    refused(&mut rig, context(2, &[0; CONTEXT_BYTES_MAX + 1]), 0, "3073 bytes, at most 3072");
    refused(&mut rig, Register { bytes: Payload::from(vec![1]), ..files(2) }, 0, "as a context");
    rig.register(ALICE, files(2), 0);
    refused(&mut rig, files(3), 0, "(limit 4");
    rig.drop_registration(1);
    rig.register(ALICE, arena(1), 9984);
}

#[test]
fn a_submit_that_names_what_it_may_not_is_refused() {
    let mut rig = Rig::with(of_one(1));
    rig.register(ALICE, arena(1), 4096);
    for number in 2..12 {
        rig.register(ALICE, context(number, b"x"), 0);
    }
    let refused =
        |rig: &mut Rig, arena, contexts: &[u32], why: &str| match rig.using(ALICE, arena, contexts, 1) {
            Reply::Refused(refusal) => assert!(refusal.to_string().contains(why), "{refusal}"),
            other => panic!("not refused: {other:?}"),
        };
    refused(&mut rig, Some(2), &[], "registration 2 is no arena");
    refused(&mut rig, None, &[1], "registration 1 is an arena");
    refused(&mut rig, None, &[99], "no registration 99");
    refused(&mut rig, None, &[2, 2], "twice");
    refused(&mut rig, None, &(2..3 + REGISTERED_MAX as u32).collect::<Vec<_>>(), "at most 8");
    let registered = Some(Box::new(RegisteredUse { arena: Some(1), contexts: Vec::new() }));
    let inputs = vec![Payload::default()];
    let detached = Submit { kind: "quick".to_owned(), registered, inputs, ..Submit::default() };
    let Reply::Refused(why) = rig.answer(ALICE, Request::Submit(detached.clone())) else { panic!("taken") };
    assert!(why.to_string().contains("attached"), "{why}");
    let fan = Submit { kind: "fan".to_owned(), attached: true, ..detached };
    let Reply::Refused(why) = rig.answer(ALICE, Request::Submit(fan)) else { panic!("taken") };
    assert!(why.to_string().contains("done in parts"), "{why}");
}

#[test]
fn a_job_that_used_a_registration_is_not_run_again() {
    let mut rig = Rig::with(of_one(1));
    rig.register(ALICE, context(1, b"x"), 0);
    let job = rig.using_now(None, &[1], 1);
    rig.change(ALICE, Request::Cancel { jobs: vec![job] });
    let (count, refused) = rig.change(ALICE, Request::Retry { jobs: vec![job] });
    assert_eq!(count, 0);
    assert!(refused[0].to_string().contains("registered"), "{refused:?}");
}

#[test]
fn tasks_that_name_registrations_share_a_ring() {
    let mut rig = Rig::with(of_one(1));
    rig.register(ALICE, arena(1), 4096);
    let policy = Policy::default();
    for _ in 0..20 {
        let job = rig.submit_as(ALICE, "quick", 1, policy.clone(), false);
        rig.finish(job);
    }
    rig.using_now(Some(1), &[], 10);
    assert!(rig.workers.values().flatten().count() > 1, "short ones are offered ahead");
}

#[test]
fn a_busy_worker_is_sent_no_registration() {
    let mut rig = Rig::with(of_one(1));
    rig.register(ALICE, arena(1), 4096);
    for _ in 0..20 {
        let job = rig.submit_as(ALICE, "quick", 1, Policy::default(), false);
        rig.finish(job);
    }
    let held = |rig: &Rig| rig.workers.values().flatten().count();
    let busy = rig.submit_as(ALICE, "quick", 1, Policy::default(), false);
    rig.using_now(Some(1), &[], 1);
    assert_eq!(held(&rig), 1, "its descriptor would lie in the lane");
    rig.finish(busy);
    assert_eq!(held(&rig), 1, "the worker was idle");
    rig.using_now(Some(1), &[], 1);
    assert_eq!(held(&rig), 2, "the worker has it");
}

/// Else it would be offered again and again, because the descriptor goes with the first offer to each worker.
#[test]
fn a_shortage_pauses_jobs_that_name_a_registration_and_no_others() {
    let mut rig = Rig::with(of_one(2));
    rig.register(ALICE, context(1, b"x"), 0);
    let job = rig.using_now(None, &[1], 1);
    let (worker, seq) = rig.holder(job).unwrap();
    rig.workers.get_mut(&worker).unwrap().clear();
    rig.tell(Event::OfferFailed { worker, seq, taken: true, shortage: Some("no descriptors".into()) });
    assert!(rig.holder(job).is_none(), "it is not offered at once again");
    let plain = rig.submit_as(BOB, "quick", 1, Policy::default(), false);
    assert!(rig.holder(plain).is_some(), "it needs none");
    assert!(rig.holder(job).is_none(), "it is not offered with the next one either");
    rig.finish(plain);
    assert!(rig.holder(job).is_none(), "a worker without work changes nothing");
    rig.sleep(200);
    assert!(rig.holder(job).is_some());
}

#[test]
fn the_numbers_of_two_connections_name_different_things() {
    let mut rig = Rig::with(of_one(2));
    rig.register(ALICE, context(1, b"of one"), 0);
    rig.register(BOB, context(1, b"of another"), 0);
    let job = |rig: &mut Rig, client| match rig.using(client, None, &[1], 1) {
        Reply::Accepted { first, refused: None, .. } => first,
        other => panic!("not accepted: {other:?}"),
    };
    let (first, second) = (job(&mut rig, ALICE), job(&mut rig, BOB));
    assert_eq!((rig.named(first), rig.named(second)), (vec![RegistrationId(1)], vec![RegistrationId(2)]));
    rig.finish(first);
    rig.finish(second);
    rig.drop_registration(1);
    assert!(matches!(rig.using(ALICE, None, &[1], 1), Reply::Refused(_)));
    let third = job(&mut rig, BOB);
    assert_eq!(rig.named(third), [RegistrationId(2)], "that of the other is there");
}

//! Waits and readers of records: one for each client and job, a bound for each user, and the turns in which they are told.

use bulkhead_core::config::{Config, Users};
use bulkhead_core::event::Event;
use bulkhead_proto::client::message::{Reply, Request, Submit};
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::ids::{ClientId, JobId, Tag};
use bulkhead_proto::job::{Payload, Policy};
use bulkhead_proto::limits::{READERS_MAX, WAITS_MAX};

use crate::rig::{ADMIN, ALICE, BOB, Rig, config};

#[test]
fn readers_of_one_client_are_bounded() {
    let mut rig = Rig::new(1);
    for _ in 0..16 {
        rig.ask(ALICE, Request::Events { after: u64::MAX - 1, follow: true });
    }
    let reply = rig.answer(ALICE, Request::Events { after: 0, follow: true });
    assert!(matches!(reply, Reply::Refused(Refusal::Busy { .. })));
}

/// One user gets three quarters of all readers over however many connections, and a turn sends a bounded number of pages,
/// by user first.
#[test]
fn readers_of_one_user_are_bounded_and_take_turns() {
    const PAGES: usize = 64;
    let mut rig = Rig::new(1);
    let share = READERS_MAX - READERS_MAX / 4;
    let crowd: Vec<ClientId> = (0..share).map(|number| ClientId(100 + number)).collect();
    let follow = || Request::Events { after: 0, follow: true };
    for client in &crowd {
        rig.connect(*client, 1, false);
        rig.ask(*client, follow());
    }
    assert!(matches!(rig.answer(ALICE, follow()), Reply::Refused(Refusal::Busy { .. })));
    rig.ask(BOB, follow());
    rig.tell(Event::ClientGone { client: crowd[0] });
    rig.ask(ALICE, follow());
    rig.forget_past();
    for client in [ALICE, BOB] {
        let inputs = vec![Payload::default()];
        let submit = Submit { kind: "quick".to_owned(), inputs, ..Submit::default() };
        let (tag, request) = (Tag(9), Request::Submit(submit));
        rig.batch.push(Event::ClientSaid { client, tag, request, files: Vec::new() });
    }
    let pages = |rig: &Rig, of: Option<ClientId>| {
        let is_page = |reply: &Reply| matches!(reply, Reply::Events { .. });
        let of_it = |id| of.is_none_or(|of| of == id);
        rig.replies.iter().filter(|(id, _, reply, _)| is_page(reply) && of_it(*id)).count()
    };
    rig.step();
    assert!((1..=PAGES).contains(&pages(&rig, None)), "{} pages in a turn", pages(&rig, None));
    assert_eq!(pages(&rig, Some(BOB)), 1, "a neighbour is told in the first turn");
    assert!(rig.is_due());
    rig.turn();
    assert!(crowd[1..].iter().chain([&ALICE]).all(|client| pages(&rig, Some(*client)) >= 1));
}

/// Its request and the end of its connection may be in one turn: nothing is left to be sent.
#[test]
fn a_reader_that_leaves_in_the_turn_of_its_request_leaves_the_daemon_idle() {
    let mut rig = Rig::new(1);
    let request = Request::Events { after: 0, follow: false };
    rig.batch.push(Event::ClientSaid { client: ALICE, tag: Tag(9), request, files: Vec::new() });
    rig.batch.push(Event::ClientGone { client: ALICE });
    rig.step();
    assert!(rig.batch.is_empty() && !rig.is_due(), "no further turn is asked for");
}

/// However often a client asks for a job, it waits once; its latest request is answered, with one entry.
#[test]
fn a_client_waits_for_a_job_once() {
    let mut rig = Rig::new(1);
    let job = rig.submit(1);
    let first = rig.ask(ALICE, Request::Wait { jobs: vec![job; 4096] });
    let other = rig.ask(ADMIN, Request::Wait { jobs: vec![job] });
    let latest = rig.ask(ALICE, Request::Wait { jobs: vec![job; 4096] });
    rig.finish(job);
    let told = |rig: &Rig, client, tag| rig.told(client, Some(tag)).len();
    assert_eq!((told(&rig, ALICE, first), told(&rig, ALICE, latest), told(&rig, ADMIN, other)), (0, 1, 1));
    let late = rig.ask(ALICE, Request::Wait { jobs: vec![job] });
    assert_eq!(told(&rig, ALICE, late), 1, "a wait that is over is no wait");
}

/// One user gets three quarters of all waits, over however many connections; a hung-up connection gives its own back.
#[test]
fn waits_of_one_user_are_bounded() {
    const EACH: u64 = 4096;
    let mut rig = Rig::new(1);
    let first = rig.submit(EACH as usize);
    let jobs: Vec<JobId> = (0..EACH).map(|number| JobId(first.0 + number)).collect();
    let share = (WAITS_MAX - WAITS_MAX / 4) / EACH;
    let clients: Vec<ClientId> = (0..share).map(|number| ClientId(100 + number)).collect();
    for client in &clients {
        rig.connect(*client, 1, false);
        rig.ask(*client, Request::Wait { jobs: jobs.clone() });
    }
    let refused = |rig: &mut Rig, client| {
        let tag = rig.ask(client, Request::Wait { jobs: jobs[..1].to_vec() });
        rig.replies.iter().any(|(_, of, reply, _)| *of == tag && matches!(reply, Reply::Refused(_)))
    };
    assert!(!refused(&mut rig, clients[0]), "it waits already");
    assert!(refused(&mut rig, ALICE), "the share of the user is used up");
    assert!(!refused(&mut rig, ADMIN), "others have theirs");
    rig.tell(Event::ClientGone { client: clients[1] });
    assert!(!refused(&mut rig, ALICE));
}

/// 3000 connections of one user wait for one job: each turn tells a bounded number of them, and a neighbour at once.
#[test]
fn the_end_of_a_job_is_told_over_several_turns_by_user() {
    const CROWD: u64 = 3000;
    const MOST: usize = 1024;
    let mut rig = Rig::new(1);
    let job = rig.submit(1);
    let bobs = rig.submit_as(BOB, "quick", 1, Policy::default(), false);
    for client in (0..CROWD).map(|number| ClientId(100 + number)) {
        rig.connect(client, 1, false);
        rig.ask(client, Request::Wait { jobs: vec![job] });
    }
    rig.ask(BOB, Request::Wait { jobs: vec![bobs] });
    rig.forget_past();
    for (client, jobs) in [(ALICE, vec![job]), (BOB, vec![bobs])] {
        let (tag, request) = (Tag(9), Request::Cancel { jobs });
        rig.batch.push(Event::ClientSaid { client, tag, request, files: Vec::new() });
    }
    let told = |rig: &Rig| rig.replies.iter().filter(|(.., reply, _)| reply.ends().is_some()).count();
    let (mut before, mut steps) = (0, 0);
    loop {
        rig.step();
        steps += 1;
        let so_far = told(&rig);
        assert!(so_far - before <= MOST, "{} letters in a turn", so_far - before);
        if steps == 1 {
            assert_eq!(rig.told(BOB, None).len(), 1, "a neighbour is told in the first turn");
        }
        before = so_far;
        if rig.batch.is_empty() && !rig.is_due() {
            break;
        }
    }
    assert_eq!(told(&rig), CROWD as usize + 1, "after {steps} turns");
    assert!((0..CROWD).all(|number| rig.told(ClientId(100 + number), None).len() == 1));
}

/// A turn also tells one client no more than that, and the rest at once in the next.
#[test]
fn the_ends_that_one_client_waits_for_are_told_over_several_turns() {
    let mut rig = Rig::new(1);
    let first = rig.submit(4096);
    let jobs: Vec<JobId> = (0..4096).map(|number| JobId(first.0 + number)).collect();
    let wait = rig.ask(ALICE, Request::Wait { jobs: jobs.clone() });
    let (tag, request) = (Tag(9), Request::Cancel { jobs });
    rig.batch.push(Event::ClientSaid { client: ALICE, tag, request, files: Vec::new() });
    rig.step();
    assert_eq!((rig.told(ALICE, Some(wait)).len(), rig.is_due()), (1024, true));
    rig.turn();
    assert_eq!((rig.told(ALICE, Some(wait)).len(), rig.is_due()), (4096, false));
}

/// The bound is for ends that are not told yet: it takes one whole batch at a time, as often as one likes.
#[test]
fn a_wait_that_is_over_does_not_count() {
    let mut rig = Rig::with(Config { queue_max: 4096, users: Users::One, ..config(1) });
    for _ in 0..3 {
        let first = rig.submit(4096);
        let jobs: Vec<JobId> = (0..4096).map(|number| JobId(first.0 + number)).collect();
        let wait = rig.ask(ALICE, Request::Wait { jobs: jobs.clone() });
        rig.change(ALICE, Request::Cancel { jobs });
        rig.tell(Event::ClientFlushed { client: ALICE });
        assert_eq!(rig.told(ALICE, Some(wait)).len(), 4096);
    }
}

//! What is kept goes by user: results, quarantined jobs, logs, deaths and records of a user who makes many of them make
//! room, and those of others stay.
//!
//! In each test Bob has one thing, Alice makes more than the bound, and what goes is her oldest.

use bulkhead_core::config::Config;
use bulkhead_core::event::{Event, TaskResult};
use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::record::{Record, What};
use bulkhead_proto::ids::{ClientId, JobId};
use bulkhead_proto::job::{Payload, Policy};
use bulkhead_proto::kind::Kind;
use bulkhead_proto::limits::DEATHS_KEPT;

use crate::rig::{ADMIN, ALICE, BOB, Rig, config};

fn is_there(rig: &mut Rig, job: JobId) -> bool {
    matches!(rig.answer(ADMIN, Request::Job { job }), Reply::Job(_))
}

/// One job of a client, done.
fn done(rig: &mut Rig, client: ClientId, kind: &str, result: usize) -> JobId {
    let job = rig.submit_as(client, kind, 1, Policy::default(), false);
    rig.finish_with(job, TaskResult::Inline(Payload::from(vec![0; result])), 2_000_000);
    job
}

/// All records that a client may see.
fn events(rig: &mut Rig, client: ClientId) -> Vec<Record> {
    rig.tell(Event::ClientFlushed { client });
    let tag = rig.ask(client, Request::Events { after: 0, follow: false });
    let mut all = Vec::new();
    loop {
        let replies = rig.replies.iter().filter(|reply| reply.1 == tag).map(|reply| reply.2.clone());
        let replies: Vec<Reply> = replies.collect();
        rig.replies.retain(|reply| reply.1 != tag);
        for reply in replies {
            let Reply::Events { records, missed: 0, caught_up } = reply else { panic!("{reply:?}") };
            all.extend(records);
            if caught_up {
                return all;
            }
        }
        rig.tell(Event::ClientFlushed { client });
    }
}

/// How many things this client is told that it lost to a bound.
fn lost(rig: &mut Rig, client: ClientId, bound: &str) -> u32 {
    let of_bound = |record: &Record| match &record.what {
        What::Evicted { count, limit } if limit == bound => *count,
        _ => 0,
    };
    events(rig, client).iter().map(of_bound).sum()
}

#[test]
fn a_flood_of_results_drops_the_flooders_oldest() {
    let mut rig = Rig::with(Config { keep_jobs_max: 20, ..config(1) });
    let bobs = done(&mut rig, BOB, "quick", 1);
    let hers: Vec<JobId> = (0..100).map(|_| done(&mut rig, ALICE, "quick", 1)).collect();
    assert!(is_there(&mut rig, bobs), "he has one of 20");
    let left: Vec<JobId> = hers.iter().copied().filter(|job| is_there(&mut rig, *job)).collect();
    assert_eq!(left, hers[81..], "the last 19 of hers");
    rig.sleep(10_000);
    assert_eq!(lost(&mut rig, ALICE, "kept jobs"), 81);
    assert_eq!(lost(&mut rig, BOB, "kept jobs"), 0, "it is not his");
    assert_eq!(rig.status().totals.evicted, 81);
}

#[test]
fn two_who_flood_share_and_the_oldest_by_age_goes_first() {
    let mut rig = Rig::with(Config { keep_jobs_max: 20, keep_ms: 60_000, ..config(1) });
    for _ in 0..30 {
        done(&mut rig, BOB, "quick", 1);
    }
    let last = (0..30).map(|_| done(&mut rig, ALICE, "quick", 1)).last();
    let rows = |rig: &mut Rig, client| {
        let request = Request::Jobs {
            state: None,
            walk: bulkhead_proto::client::message::Walk::Up(JobId(0)),
            limit: 4096,
        };
        match rig.answer(client, request) {
            Reply::Jobs { rows, .. } => rows.len(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((rows(&mut rig, BOB), rows(&mut rig, ALICE)), (10, 10));
    rig.sleep(70_000);
    assert_eq!((rows(&mut rig, BOB), rows(&mut rig, ALICE)), (0, 0), "all are too old, of both users");
    assert!(!is_there(&mut rig, last.expect("she had some")));
}

#[test]
fn large_results_make_room_for_small_ones() {
    let mut rig = Rig::with(Config { keep_bytes_max: 20_000, ..config(1) });
    let bobs: Vec<JobId> = (0..5).map(|_| done(&mut rig, BOB, "quick", 10)).collect();
    for _ in 0..20 {
        done(&mut rig, ALICE, "quick", 4000);
    }
    assert!(
        bobs.iter().all(|job| is_there(&mut rig, *job)),
        "she has most bytes, though he may have more jobs"
    );
    assert!(rig.status().kept_bytes <= 20_000);
    assert!(lost(&mut rig, ALICE, "bytes of kept results") > 0);
}

#[test]
fn the_quarantine_is_shared() {
    let mut rig = Rig::with(Config { quarantine_max: 4, restart_intensity: 1000, ..config(1) });
    let policy = Policy { crashes_max: Some(1), ..Policy::default() };
    let crashed = |rig: &mut Rig, client| {
        let job = rig.submit_as(client, "quick", 1, policy.clone(), false);
        rig.sleep(10);
        rig.crash(job);
        rig.sleep(10);
        job
    };
    let bobs = crashed(&mut rig, BOB);
    let hers: Vec<JobId> = (0..8).map(|_| crashed(&mut rig, ALICE)).collect();
    assert!(is_there(&mut rig, bobs) && rig.status().quarantined == 4);
    assert!(!is_there(&mut rig, hers[4]) && is_there(&mut rig, hers[5]));
    rig.sleep(10_000);
    assert_eq!(lost(&mut rig, ALICE, "quarantined jobs"), 5);
}

fn with_logs(keep_logs_max: u64, slots: u16) -> Rig {
    let mut config = Config { keep_logs_max, ..config(slots) };
    config.kinds.push(Kind { name: "talks".to_owned(), ring: 1, logs: true, ..Kind::default() });
    Rig::with(config)
}

fn log_shown(rig: &mut Rig, client: ClientId, job: JobId) -> bool {
    rig.logs_shown.clear();
    rig.ask(client, Request::Logs { job, follow: false });
    !rig.logs_shown.is_empty()
}

#[test]
fn a_flood_of_logs_drops_the_flooders_oldest() {
    let mut rig = with_logs(3, 1);
    let bobs = done(&mut rig, BOB, "talks", 1);
    let hers: Vec<JobId> = (0..6).map(|_| done(&mut rig, ALICE, "talks", 1)).collect();
    assert!(log_shown(&mut rig, BOB, bobs));
    assert!(!log_shown(&mut rig, ALICE, hers[3]) && log_shown(&mut rig, ALICE, hers[4]));
    rig.sleep(10_000);
    assert_eq!((lost(&mut rig, ALICE, "kept logs"), lost(&mut rig, BOB, "kept logs")), (4, 0));
}

/// Logs of running jobs are as many as workers, and take no room from those that are kept.
#[test]
fn logs_of_running_jobs_push_no_log_out() {
    let mut rig = with_logs(2, 4);
    let bobs = done(&mut rig, BOB, "talks", 1);
    let hers: Vec<JobId> =
        (0..4).map(|_| rig.submit_as(ALICE, "talks", 1, Policy::default(), false)).collect();
    assert!(log_shown(&mut rig, BOB, bobs));
    for job in &hers {
        assert!(log_shown(&mut rig, ALICE, *job), "it runs");
        rig.finish(*job);
    }
    assert!(log_shown(&mut rig, BOB, bobs));
    assert_eq!(hers.iter().filter(|job| log_shown(&mut rig, ALICE, **job)).count(), 1);
}

#[test]
fn a_flood_of_records_pushes_no_crash_out() {
    let mut rig = Rig::with(Config { records_max: 200, ..config(1) });
    let job = rig.submit_as(BOB, "quick", 1, Policy::default(), false);
    rig.crash(job);
    rig.sleep(10);
    rig.finish(job);
    let before = events(&mut rig, ADMIN);
    for _ in 0..1000 {
        done(&mut rig, ALICE, "quick", 1);
    }
    let after = events(&mut rig, ADMIN);
    assert_eq!(after.len(), 200);
    assert!(before.iter().all(|record| after.contains(record)), "the crash, and the start of the service");
    let died = |records: &[Record]| records.iter().any(|record| matches!(record.what, What::Died { .. }));
    let bobs = events(&mut rig, BOB);
    assert!(died(&after) && died(&bobs));
}

/// Each crash of hers makes records of workers that come and go, which are the service's.
#[test]
fn a_flood_of_crashes_pushes_no_record_of_the_service_out() {
    let mut rig = Rig::with(Config { records_max: 100, restart_intensity: 10_000, ..config(1) });
    rig.turn();
    let started =
        |rig: &mut Rig| events(rig, BOB).iter().any(|record| matches!(record.what, What::Started { .. }));
    assert!(started(&mut rig));
    let policy = Policy { crashes_max: Some(1), ..Policy::default() };
    for _ in 0..200 {
        let job = rig.submit_as(ALICE, "quick", 1, policy.clone(), false);
        rig.sleep(10);
        rig.crash(job);
        rig.sleep(10);
    }
    assert!(started(&mut rig));
    assert_eq!(events(&mut rig, ADMIN).len(), 100);
}

#[test]
fn a_flood_of_deaths_pushes_no_death_of_another_user_out() {
    let mut rig = Rig::with(Config { restart_intensity: 1_000_000, ..config(1) });
    let bobs = rig.submit_as(BOB, "quick", 1, Policy::default(), false);
    rig.crash(bobs);
    rig.sleep(10);
    rig.finish(bobs);
    let policy = Policy { crashes_max: Some(255), ..Policy::default() };
    let mut hers = JobId(0);
    for _ in 0..DEATHS_KEPT / 255 + 1 {
        hers = rig.submit_as(ALICE, "quick", 1, policy.clone(), false);
        for _ in 0..255 {
            rig.crash(hers);
            rig.sleep(10);
        }
    }
    let Reply::Deaths(rows) = rig.answer(ADMIN, Request::Deaths { limit: 4096 }) else { panic!("no deaths") };
    assert_eq!(rows.len(), DEATHS_KEPT);
    assert_eq!((rows[0].job, rows[DEATHS_KEPT - 1].job), (hers, bobs), "his is the oldest, and stays");
}

/// In a flood one is told at once and the others together, to their owner.
#[test]
fn what_was_dropped_is_told_now_and_summed_up_later() {
    let mut rig = Rig::with(Config { keep_jobs_max: 5, ..config(1) });
    for _ in 0..25 {
        done(&mut rig, ALICE, "quick", 1);
    }
    let told = |rig: &Rig| -> Vec<u32> {
        let of = |what: &What| if let What::Evicted { count, .. } = what { Some(*count) } else { None };
        rig.records.iter().filter_map(of).collect()
    };
    assert_eq!(told(&rig), [1]);
    rig.sleep(10_000);
    assert_eq!(told(&rig), [1, 19]);
    rig.sleep(30_000);
    done(&mut rig, ALICE, "quick", 1);
    assert_eq!(told(&rig), [1, 19, 1]);
}

/// What a reader was sent and what it is told to have missed is all that it may see, whatever goes in between.
#[test]
fn a_reader_is_told_exactly_what_it_missed() {
    let mut rig = Rig::with(Config {
        records_max: 40,
        client_credit_bytes: 2000,
        restart_intensity: 1_000_000,
        ..config(1)
    });
    let carol = ClientId(70);
    rig.connect(carol, 3, false);
    let start = events(&mut rig, ADMIN).len();
    let of_service = events(&mut rig, carol).len();
    rig.forget_past();
    let readers = [(ADMIN, start), (BOB, of_service), (carol, of_service)];
    let tags = readers.map(|(client, _)| rig.ask(client, Request::Events { after: 0, follow: true }));
    let mut random = 7_u64;
    for step in 0..1000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        match (random >> 33) % 12 {
            0 => {
                let job = rig.submit_as(BOB, "quick", 1, Policy::default(), false);
                rig.crash(job);
                rig.sleep(10);
                rig.finish(job);
            }
            1..=3 => _ = done(&mut rig, BOB, "quick", 1),
            4 => rig.tell(Event::ClientFlushed { client: readers[step % 3].0 }),
            _ => _ = done(&mut rig, ALICE, "quick", 1),
        }
    }
    // Everything is read to its end.
    for _ in 0..100 {
        readers.iter().for_each(|(client, _)| rig.tell(Event::ClientFlushed { client: *client }));
    }
    let made = |uid: Option<u32>| {
        rig.recorded(|what| match (what, uid) {
            (What::Died { .. }, _) | (_, None) => true,
            (What::Accepted { uid: of, .. }, Some(uid)) => *of == uid,
            (What::Placed { .. }, _) => true,
            // Only Bob's jobs have trouble.
            (What::Blamed { .. } | What::Retried { .. } | What::Ended { .. }, Some(uid)) => uid == 2,
            _ => false,
        })
    };
    let wanted = [made(None), made(Some(2)), made(Some(3))];
    for (((_, start), tag), made) in readers.iter().zip(tags).zip(wanted) {
        let (mut sent, mut missed_all) = (0, 0);
        for (_, of, reply, _) in &rig.replies {
            if let Reply::Events { records, missed, .. } = reply
                && *of == tag
            {
                sent += records.len() as u64;
                missed_all += missed;
            }
        }
        assert_eq!(sent + missed_all, (start + made) as u64, "{sent} sent, {missed_all} missed");
        assert!(missed_all > 0, "the test has to make it miss some");
    }
}

#[test]
fn a_reader_goes_on_where_the_newest_record_is_the_first_that_is_dropped() {
    let mut rig = Rig::with(Config { records_max: 1, ..config(1) });
    let tag = rig.ask(ADMIN, Request::Events { after: 0, follow: true });
    for client in [ALICE, BOB, ALICE, BOB] {
        done(&mut rig, client, "quick", 1);
        rig.sleep(10_000);
    }
    let pages = rig.replies.iter().filter(|reply| reply.1 == tag).map(|reply| match &reply.2 {
        Reply::Events { records, missed, .. } => {
            (records.last().map(|record| record.index), records.len() as u64 + missed)
        }
        other => panic!("{other:?}"),
    });
    let (last, told): (Vec<_>, Vec<u64>) = pages.unzip();
    // The daemon's start was recorded before the rest.
    let made = 1 + rig.recorded(|_| true) as u64;
    assert_eq!(told.iter().sum::<u64>(), made, "each record is shown or missed: {last:?} {told:?}");
}

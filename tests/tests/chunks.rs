//! Chunks of items with real daemons: whatever ends a worker, each item has one result, or had begun and fails, or never ran and is
//! submitted again. The runs of each item are counted in a file.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

mod chunk_bench;

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_client::{
    ChunkStop, JobInput, NotChunked, Session, SessionEnd, SessionOptions, Spec, connect, one_item,
};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::job::{OutputMode, Policy};
use bulkhead_tests::chunks::{HANGING, ITEMS, STEP_NAMES, STEPS, result_of, runs};
use bulkhead_tests::daemon::{Daemon, Setup, binary, send_signal};
use chunk_bench::{all_done_but, ends, failure, long, names, outcome, start, told_of};

#[test]
fn chunks_of_every_length_come_whole_and_their_regions_are_used_again() {
    let bench = start(2, 64 << 10);
    let spec = Arc::new(bench.store.spec(Spec::new(ITEMS)));
    let mut under_way = BTreeMap::new();
    let (mut made, mut read, mut was_full, mut all) = (0, 0, false, Vec::new());
    while read < 150 {
        let items: Vec<String> = (0..made % 60).map(|at| format!("c{made}i{at}")).collect();
        let made_one = if made < 150 {
            bench.store.chunk(bench.head().as_bytes(), &items, 40 * items.len())
        } else {
            Err(NotChunked::StoreFull)
        };
        match made_one {
            Ok((input, chunk)) => {
                bench.session.submit(made, &spec, input).unwrap();
                under_way.insert(made, (items, chunk));
                made += 1;
                continue;
            }
            Err(refused) => assert!(refused.is_for_now(), "{refused}"),
        }
        was_full |= made < 150;
        for (token, end) in ends(&bench.session, 1) {
            let (items, chunk) = under_way.remove(&token).unwrap();
            let found = chunk.read(&end);
            assert_eq!((outcome(&end), found.stop()), (&Outcome::Done, ChunkStop::AllDelivered));
            assert!(found.delivered().map(told_of).eq(items.iter().map(|item| Ok(result_of(item)))));
            all.extend(items);
            read += 1;
        }
    }
    assert!(was_full, "the store was full once");
    bench.each_ran_once(&all);
    bench.all_free();
}

#[test]
fn an_item_that_fails_fails_alone() {
    let bench = start(1, 16 << 10);
    let mut items = names(5);
    items[0] += " fail";
    items[3] += " fail";
    let mut wanted = all_done_but(&items, 0, "item0 says no");
    wanted[3] = Err("item3 says no".to_owned());
    assert_eq!(bench.run_all(&items), wanted);
    bench.each_ran_once(&items);
    let jobs = bench.daemon.ok(&["status", "--json"]);
    assert!(jobs.contains("\"failed\":0"), "no job has failed: {jobs}");
}

/// A worker that dies in the first, a middle and the last item, in every way.
#[test]
fn a_death_takes_the_item_that_had_begun_and_no_other() {
    let bench = start(2, 16 << 10);
    for deed in ["kill", "abort", "fault", "exit", "panic"] {
        for at in [0, 4, 8] {
            let mut items: Vec<String> = names(9).iter().map(|name| format!("{deed}{at}{name}")).collect();
            items[at] += &format!(" {deed}");
            drop(std::fs::remove_file(bench.folder.path().join("runs")));
            let word = if deed == "panic" { "failed" } else { "crashed" };
            assert_eq!(bench.run_all(&items), all_done_but(&items, at, word), "{deed} at {at}");
            bench.each_ran_once(&items);
        }
    }
    bench.all_free();
}

/// Between the steps of the writer: what is counted is delivered, and what had not begun has not run.
#[test]
fn a_death_between_two_steps_loses_and_repeats_nothing() {
    let bench = start(2, 16 << 10);
    let items = names(3);
    for step in STEP_NAMES {
        for at in 0..3 {
            drop(std::fs::remove_file(bench.folder.path().join("runs")));
            let chunk = bench.submit(STEPS, &format!("{} {step} {at}", bench.head()), &items);
            let end = bench.end();
            let found = chunk.read(&end);
            assert_eq!(outcome(&end).word(), "crashed");
            let (delivered, stop) = match step {
                "before" => (at, ChunkStop::Unbegun),
                "begun" | "ran" => (at, ChunkStop::Begun),
                _ if at == 2 => (3, ChunkStop::AllDelivered),
                _ => (at + 1, ChunkStop::Unbegun),
            };
            assert_eq!((found.delivered().len(), found.stop()), (delivered, stop), "{step} {at}");
            let ran = delivered + usize::from(step == "ran");
            bench.each_ran_once(&items[..ran]);
            assert!(found.rest().all(|left| !runs(bench.folder.path()).contains_key(&items[left])));
        }
    }
    bench.all_free();
}

#[test]
fn a_worker_that_is_killed_from_outside_a_limit_of_time_and_a_cancel_leave_what_is_counted() {
    let bench = start(2, 16 << 10);
    let ways =
        [("kill", None, "crashed"), ("timeout", Some(1000), "timed-out"), ("cancel", None, "cancelled")];
    for (way, timeout_ms, word) in ways {
        let mut items: Vec<String> = names(5).iter().map(|name| format!("{way}{name}")).collect();
        items[2] += " hang";
        drop(std::fs::remove_file(bench.folder.path().join("runs")));
        drop(std::fs::remove_file(bench.folder.path().join(HANGING)));
        let policy = Policy { timeout_ms, ..Policy::default() };
        let chunk = bench.submit_with(ITEMS, &bench.head(), &items, policy, 1000);
        let pid = bench.hanging();
        match way {
            "kill" => send_signal(pid, "KILL"),
            "cancel" => bench.session.cancel(&[1]),
            _ => {}
        }
        let end = bench.end();
        let found = chunk.read(&end);
        assert_eq!(outcome(&end).word(), word);
        assert_eq!((found.stop(), found.rest()), (ChunkStop::Begun, 3..5));
        assert_eq!(found.delivered().len(), 2);
        bench.each_ran_once(&items[..3]);
        let left: Vec<_> = found.rest().map(|at| items[at].clone()).collect();
        assert!(bench.run_all(&left).iter().all(Result::is_ok));
        bench.each_ran_once(&items);
    }
    bench.all_free();
}

/// The end of the job is told at once, and its worker lives on: the item that runs may end before the chunk is read or after, and
/// no other begins.
#[test]
fn a_worker_that_lives_on_after_a_cancel_begins_no_further_item() {
    let bench = start(1, 16 << 10);
    let mut items = names(3);
    items[1] += " linger";
    let policy = Policy { grace_ms: Some(10_000), ..Policy::default() };
    let chunk = bench.submit_with(ITEMS, &bench.head(), &items, policy, 1000);
    let pid = bench.hanging();
    bench.session.cancel(&[1]);
    let end = bench.end();
    assert_eq!(outcome(&end), &Outcome::Cancelled);
    let found = chunk.read(&end);
    let stop = if found.delivered().len() == 2 { ChunkStop::Unbegun } else { ChunkStop::Begun };
    assert_eq!((found.stop(), found.rest()), (stop, 2..3), "{found:?}");
    // The region is free when the worker has ended the task.
    bench.all_free();
    bench.each_ran_once(&items[..2]);
    assert!(bench.daemon.workers().iter().any(|row| row.pid == Some(pid)), "its worker was not killed");
    assert_eq!(bench.run_all(&items[2..]), [Ok(result_of("item2"))]);
    bench.each_ran_once(&items);
}

#[test]
fn what_is_cancelled_while_it_waits_has_run_nothing() {
    let bench = start(1, 16 << 10);
    let mut items = names(1);
    items[0] += " hang";
    let spec = Arc::new(bench.store.spec(Spec::new(ITEMS)));
    let mut chunks = Vec::new();
    for token in 0..3 {
        let (input, chunk) = bench.store.chunk(bench.head().as_bytes(), &items, 100).unwrap();
        bench.session.submit(token, &spec, input).unwrap();
        chunks.push(chunk);
        items[0] = format!("later{token}");
    }
    bench.hanging();
    bench.session.cancel(&[1, 2]);
    let mut ended = ends(&bench.session, 2);
    bench.session.cancel(&[0]);
    ended.extend(ends(&bench.session, 1));
    let found: Vec<_> = chunks.into_iter().zip(ended.values()).map(|(chunk, end)| chunk.read(end)).collect();
    let stops = [ChunkStop::Begun, ChunkStop::Unbegun, ChunkStop::Unbegun];
    assert!(found.iter().map(|one| one.stop()).eq(stops), "{found:?}");
    assert_eq!(found[1].rest(), 0..1);
    bench.each_ran_once(&names(1));
    bench.all_free();
}

#[test]
fn when_the_daemon_is_killed_what_is_counted_is_there() {
    let mut bench = start(1, 16 << 10);
    let mut items = names(4);
    items[2] += " hang";
    let chunk = bench.submit(ITEMS, &bench.head(), &items);
    bench.hanging();
    bench.daemon.end("KILL");
    let end = bench.end();
    assert!(matches!(end, SessionEnd::Lost), "{end:?}");
    let found = chunk.read(&end);
    assert!(found.delivered().map(told_of).eq([Ok(result_of("item0")), Ok(result_of("item1"))]));
    assert_eq!((found.stop(), found.rest()), (ChunkStop::Begun, 3..4));
    bench.each_ran_once(&items[..3]);
}

#[test]
fn a_result_without_room_ends_its_chunk_and_comes_as_the_output_whatever_its_length() {
    let bench = start(1, 64 << 10);
    for bytes in [1000, 4096, 4097, 10 << 20] {
        for at in [0, 1, 2] {
            let mut items: Vec<String> =
                names(3).iter().map(|name| format!("of{bytes}at{at}{name}")).collect();
            items[at] += &format!(" long:{bytes}");
            drop(std::fs::remove_file(bench.folder.path().join("runs")));
            let chunk = bench.submit_with(ITEMS, &bench.head(), &items, Policy::default(), 200);
            let end = bench.end();
            let found = chunk.read(&end);
            assert_eq!(found.stop(), ChunkStop::LongResult { is_failed: false }, "{end:?}");
            assert_eq!((found.delivered().len(), found.rest()), (at, at + 1..3));
            let text = long(end, false).unwrap();
            assert!(text.len() == bytes && text.bytes().all(|byte| byte == b'o'));
            let left: Vec<_> = found.rest().map(|at| items[at].clone()).collect();
            assert!(bench.run_all(&left).iter().all(Result::is_ok));
            bench.each_ran_once(&items);
        }
    }
    bench.all_free();
}

#[test]
fn a_job_with_one_item_needs_no_store() {
    let bench = start(1, 16 << 10);
    let spec = Arc::new(Spec::new(ITEMS));
    let items = ["a", "b fail", "c long:100000", "d write"];
    for (token, item) in (1..).zip(items) {
        let bytes = one_item(bench.head().as_bytes(), item.as_bytes()).unwrap();
        let input = JobInput { output: OutputMode::Auto, ..JobInput::from(bytes) };
        bench.session.submit(token, &spec, input).unwrap();
    }
    let mut ended = ends(&bench.session, 4);
    assert_eq!(failure(&ended[&2]), "b says no");
    assert!(failure(&ended[&4]).contains("must return its result"));
    assert_eq!(long(ended.remove(&1).unwrap(), false).unwrap(), "a is done");
    assert_eq!(long(ended.remove(&3).unwrap(), false).unwrap().len(), 100_000);
}

/// The example of the worker library; that of the client library sends it the same.
#[test]
fn the_example_squares_each_number_but_the_one_that_kills_its_worker() {
    let program = binary("examples/squares").display().to_string();
    let config = format!("worker_program = {program:?}\nbuiltin_kinds = false\n[kinds.squares]\nring = 16\n");
    let daemon = Daemon::start_with(&Setup { config, chaos: false, ..Setup::default() });
    let session =
        Session::over(connect::connect(&daemon.socket()).unwrap(), SessionOptions::default()).unwrap();
    let arena = session.register_arena(64 << 10).unwrap();
    let store = session.register_item_store(&arena, 64 << 10).unwrap();
    let spec = Arc::new(store.spec(Spec::new("squares")));
    let items: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    let (input, chunk) = store.chunk(b"", &items, 400).unwrap();
    session.submit(1, &spec, input).unwrap();
    let end = ends(&session, 1).remove(&1).unwrap();
    let found = chunk.read(&end);
    assert!(found.delivered().map(told_of).eq((0..13).map(|number: u32| Ok((number * number).to_string()))));
    assert_eq!((found.stop(), found.rest()), (ChunkStop::Begun, 14..20), "{end:?}");
    let (input, chunk) = store.chunk(b"", &items[found.rest()], 400).unwrap();
    session.submit(1, &spec, input).unwrap();
    let found = chunk.read(&ends(&session, 1)[&1]);
    assert!(found.delivered().map(told_of).eq((14..20).map(|number: u32| Ok((number * number).to_string()))));
}

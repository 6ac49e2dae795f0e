//! Chunks whose worker lies about results, writes over the region of another, or takes none; clients that lie about regions; and a
//! daemon that takes no chunks.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

mod chunk_bench;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bulkhead_client::{
    ChunkStop, JobInput, Session, SessionEnd, SessionEvent, SessionOptions, Spec, connect,
};
use bulkhead_proto::chunk::{ChunkInput, ChunkRegion};
use bulkhead_tests::chunks::{HANGING, ITEMS, LIARS, LIES, result_of, runs};
use bulkhead_tests::daemon::{DEADLINE, send_signal};
use bulkhead_tests::or_skip;
use bulkhead_tests::other_users::system_daemon;
use bulkhead_tests::raid::may_become_others;
use chunk_bench::{ends, failure, names, outcome, start, told_of};

#[test]
fn what_is_no_chunk_of_this_kind_is_said() {
    let bench = start(1, 16 << 10);
    let chunk = bench.submit("noop", "", &names(2));
    let end = bench.end();
    let ChunkStop::Fault(fault) = chunk.read(&end).stop() else { panic!("{end:?}") };
    assert!(fault.to_string().contains("0 of its 2 items have a result: does its kind take chunks?"));
    let (input, chunk) = bench.store.chunk(bench.head().as_bytes(), &names(2), 100).unwrap();
    bench.session.submit(1, &Arc::new(Spec::new(ITEMS)), input).unwrap();
    let end = bench.end();
    assert!(failure(&end).contains("names no item store"), "{end:?}");
    let found = chunk.read(&end);
    assert_eq!((found.stop(), found.rest()), (ChunkStop::Unbegun, 0..2));
    let chunk = bench.submit(ITEMS, &bench.head(), &["a write".to_owned(), "b".to_owned()]);
    let end = bench.end();
    assert!(failure(&end).contains("must return its result"), "{end:?}");
    assert_eq!(chunk.read(&end).stop(), ChunkStop::Begun);
    bench.session.submit(1, &Arc::new(Spec::new(ITEMS)), JobInput::from(b"text".to_vec())).unwrap();
    assert!(failure(&bench.end()).contains("the input of 4 bytes is no chunk of items: it is too short"));
}

/// Every lie ends what is delivered before it, reads nothing that is not there, and lets nothing run again.
#[test]
fn a_worker_that_lies_about_its_results_harms_its_own_chunk_alone() {
    let bench = start(2, 16 << 10);
    for (lie, is_done) in LIES {
        drop(std::fs::remove_file(bench.folder.path().join("runs")));
        let items = names(5);
        let chunk = bench.submit(LIARS, &format!("{} {lie}", bench.head()), &items);
        let end = bench.end();
        assert_eq!(outcome(&end).word(), if is_done { "done" } else { "crashed" }, "{lie}");
        let found = chunk.read(&end);
        assert!(matches!(found.stop(), ChunkStop::Fault(_)), "{lie}: {found:?}");
        assert!(found.rest().is_empty(), "{lie}: {found:?}");
        let wanted = ["item0", "item1"].map(|name| Ok(result_of(name)));
        let told: Vec<_> = found.delivered().map(told_of).collect();
        assert!(wanted.starts_with(&told), "{lie}: {told:?}");
        bench.each_ran_once(&items[..2]);
    }
    assert!(bench.run_all(&["after".to_owned()])[0].is_ok());
}

#[test]
fn a_worker_that_writes_over_the_region_of_another_chunk_leaves_it_in_error_and_nothing_runs_twice() {
    let bench = start(2, 64 << 10);
    for lie in ["zeroes-all", "copies-itself"] {
        let mut items: Vec<String> = names(4).iter().map(|name| format!("{lie}{name}")).collect();
        items[2] += " hang";
        drop(std::fs::remove_file(bench.folder.path().join("runs")));
        drop(std::fs::remove_file(bench.folder.path().join(HANGING)));
        let spec = Arc::new(bench.store.spec(Spec::new(ITEMS)));
        let (input, victim) = bench.store.chunk(bench.head().as_bytes(), &items, 1000).unwrap();
        bench.session.submit(7, &spec, input).unwrap();
        let pid = bench.hanging();
        let liar = bench.submit(LIARS, &format!("{} {lie}", bench.head()), &names(1));
        assert_eq!(outcome(&bench.end()).word(), "done");
        drop(liar);
        send_signal(pid, "KILL");
        let end = ends(&bench.session, 1).remove(&7).unwrap();
        let found = victim.read(&end);
        assert!(matches!(found.stop(), ChunkStop::Fault(_)), "{lie}: {found:?}");
        assert_eq!((found.delivered().len(), found.rest().len()), (0, 0), "nothing of it is run again");
        bench.each_ran_once(&items[..3]);
    }
}

#[test]
fn a_client_that_lies_about_its_region_harms_its_own_jobs_alone() {
    let bench = start(1, 16 << 10);
    let spec = Arc::new(bench.store.spec(Spec::new(ITEMS)));
    let chunk = |key: u64, offset: u64, length: u64| {
        let region = ChunkRegion { key, offset, length };
        ChunkInput::encode(Some(region), bench.head().as_bytes(), &["a"]).unwrap()
    };
    let pids = || bench.daemon.workers().iter().filter_map(|row| row.pid).collect::<BTreeSet<_>>();
    let before = pids();
    let mut cut = chunk(1, 0, 64);
    cut.truncate(50);
    let lies = [
        (chunk(1, 0, 128), "is that of another one"),
        (chunk(0, 16 << 10, 64), "of a store of 16384 bytes"),
        (chunk(0, u64::MAX - 63, 128), "of a store of 16384 bytes"),
        (chunk(0, 32, 64), "of a store of 16384 bytes"),
        (cut, "no chunk of items"),
    ];
    for (bytes, wanted) in lies {
        bench.session.submit(1, &spec, bench.arena.block(&bytes).unwrap().into()).unwrap();
        let end = bench.end();
        assert!(failure(&end).contains(wanted), "{end:?}");
    }
    assert!(before.is_subset(&pids()), "no worker had to go");
    assert!(runs(Path::new(&bench.head())).is_empty());
}

/// As arenas are refused; a job that names one then says so too.
#[test]
fn a_daemon_of_several_users_takes_no_chunks_and_says_why() {
    or_skip!(may_become_others());
    let daemon = system_daemon("");
    let client = connect::connect(&daemon.socket()).unwrap();
    let session = Session::over(client, SessionOptions::default()).unwrap();
    let arena = session.register_arena(4096).unwrap();
    let store = session.register_item_store(&arena, 4096).unwrap();
    let (input, chunk) = store.chunk(b"", &["a"], 10).unwrap();
    session.submit(1, &Arc::new(store.spec(Spec::new("noop"))), input).unwrap();
    let (mut refusals, mut events, mut ended) = (Vec::new(), Vec::new(), None);
    while ended.is_none() {
        session.lead().turn(Some(Instant::now() + DEADLINE), None, &mut events).unwrap();
        for event in events.drain(..) {
            match event {
                SessionEvent::NotRegistered { refusal, .. } => refusals.push(refusal.to_string()),
                SessionEvent::Job { end, .. } => ended = Some(end),
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(
        matches!(&refusals[..], [one] if one.contains("an arena is not taken by one that serves several"))
    );
    let end = ended.unwrap();
    assert!(matches!(&end, SessionEnd::Refused(_)), "{end:?}");
    assert_eq!(chunk.read(&end).rest(), 0..1);
}

/// With another policy than that of the store's spec the daemon tries again; no item runs a second time.
#[test]
fn a_retry_of_a_chunk_of_which_an_item_has_begun_runs_nothing() {
    let bench = start(2, 16 << 10);
    let mut items = names(3);
    items[1] += " abort";
    let mut spec = bench.store.spec(Spec::new(ITEMS));
    spec.policy.crashes_max = Some(3);
    let (input, chunk) = bench.store.chunk(bench.head().as_bytes(), &items, 300).unwrap();
    bench.session.submit(1, &Arc::new(spec), input).unwrap();
    let end = bench.end();
    assert!(failure(&end).contains("2 items of the chunk have begun in an earlier attempt"), "{end:?}");
    let found = chunk.read(&end);
    assert_eq!((found.delivered().len(), found.stop(), found.rest()), (1, ChunkStop::Begun, 2..3));
    bench.each_ran_once(&items[..2]);
}

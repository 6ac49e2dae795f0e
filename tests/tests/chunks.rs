//! Chunks of items with real daemons: whatever ends a worker, each item has one result, or had begun and fails, or never ran and is
//! submitted again. The runs of each item are counted in a file.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulkhead_client::{
    Arena, Chunk, ChunkStop, ItemResult, ItemStore, JobEnd, JobInput, NotChunked, ReceivedOutput, Session,
    SessionEnd, SessionEvent, SessionOptions, Spec, connect, one_item,
};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::job::{OutputMode, Policy};
use bulkhead_tests::chunks::{HANGING, ITEMS, LIARS, LIES, STEP_NAMES, STEPS, config, result_of, runs};
use bulkhead_tests::daemon::{DEADLINE, Daemon, Setup, binary, eventually, send_signal};
use bulkhead_tests::or_skip;
use bulkhead_tests::other_users::system_daemon;
use bulkhead_tests::raid::may_become_others;
use tempfile::TempDir;

/// A daemon, a session with an arena and a store, and the folder in which runs are counted.
struct Bench {
    session: Session,
    arena: Arena,
    store: ItemStore,
    folder: TempDir,
    daemon: Daemon,
}

fn start(workers: u16, store_bytes: usize) -> Bench {
    let daemon =
        Daemon::start_with(&Setup { workers, config: config(&binary("chunk-worker")), ..Setup::default() });
    let client = connect::connect(&daemon.socket()).unwrap();
    let session = Session::over(client, SessionOptions::default()).unwrap();
    let arena = session.register_arena(1 << 20).unwrap();
    let store = session.register_item_store(&arena, store_bytes).unwrap();
    Bench { session, arena, store, folder: tempfile::tempdir().unwrap(), daemon }
}

/// The next ends, as many as these.
fn ends(session: &Session, count: usize) -> BTreeMap<u64, SessionEnd> {
    let (mut told, mut events, until) = (BTreeMap::new(), Vec::new(), Instant::now() + DEADLINE);
    while told.len() < count {
        let turn = session.lead().turn(Some(until), None, &mut events);
        for event in events.drain(..) {
            match event {
                SessionEvent::Job { token, end } => drop(told.insert(token, end)),
                SessionEvent::NotRegistered { refusal, .. } => panic!("{refusal}"),
                _ => {}
            }
        }
        assert!(turn.is_ok() || told.len() == count, "{turn:?}: {} of {count} are told", told.len());
        assert!(Instant::now() < until, "{} of {count} are told", told.len());
    }
    told
}

fn outcome(end: &SessionEnd) -> &Outcome {
    let SessionEnd::Ended(JobEnd { outcome, .. }) = end else { panic!("{end:?}") };
    outcome
}

fn failure(end: &SessionEnd) -> &str {
    let Outcome::Failed { message, .. } = outcome(end) else { panic!("{end:?}") };
    message
}

impl Bench {
    fn head(&self) -> String {
        self.folder.path().display().to_string()
    }

    fn submit(&self, kind: &str, head: &str, items: &[String]) -> Chunk {
        self.submit_with(kind, head, items, Policy::default(), 4096)
    }

    fn submit_with(&self, kind: &str, head: &str, items: &[String], policy: Policy, room: usize) -> Chunk {
        let spec = self.store.spec(Spec { policy, ..Spec::new(kind) });
        let (input, chunk) = self.store.chunk(head.as_bytes(), items, room).unwrap();
        self.session.submit(1, &Arc::new(spec), input).unwrap();
        chunk
    }

    fn end(&self) -> SessionEnd {
        ends(&self.session, 1).remove(&1).unwrap()
    }

    /// Runs items until each has a result or has failed with its job, as a client does: what never began is submitted again.
    fn run_all(&self, items: &[String]) -> Vec<Result<String, String>> {
        let (mut told, mut from) = (Vec::new(), 0);
        while from < items.len() {
            let chunk = self.submit(ITEMS, &self.head(), &items[from..]);
            let end = self.end();
            let found = chunk.read(&end);
            told.extend(found.delivered().map(told_of));
            match found.stop() {
                ChunkStop::AllDelivered => {}
                ChunkStop::Begun => told.push(Err(outcome(&end).word().to_owned())),
                ChunkStop::LongResult { is_failed } => told.push(long(end, is_failed)),
                other => panic!("{other:?} with {end:?}"),
            }
            assert_eq!(from + found.rest().start, told.len());
            from = told.len();
        }
        told
    }

    /// Each of these items has run once, and no other.
    fn each_ran_once(&self, items: &[String]) {
        let names: BTreeMap<String, u32> = items.iter().map(|item| (name(item), 1)).collect();
        assert_eq!(runs(self.folder.path()), names);
    }

    /// Waits, as a leader does, until all of the arena and all of the store is free.
    fn all_free(&self) {
        let (mut events, until) = (Vec::new(), Instant::now() + DEADLINE);
        let whole = vec![0; self.arena.length()];
        let is_free = || {
            let room = self.store.length() - 2 * 64;
            self.store.chunk(b"", &["x"], room).is_ok() && self.arena.block(&whole).is_some()
        };
        while !is_free() {
            assert!(Instant::now() < until, "a region is never free");
            let soon = Instant::now() + Duration::from_millis(20);
            self.session.lead().turn(Some(soon), None, &mut events).unwrap();
        }
    }

    /// The process that hangs in an item.
    fn hanging(&self) -> u32 {
        let file = self.folder.path().join(HANGING);
        eventually("an item hangs", || std::fs::read_to_string(&file).ok()?.parse().ok())
    }
}

fn told_of(result: ItemResult<'_>) -> Result<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match result {
        ItemResult::Done(bytes) => Ok(text(bytes)),
        ItemResult::Failed(bytes) => Err(text(bytes)),
    }
}

/// The output of a job that is the result of one item.
fn long(end: SessionEnd, is_failed: bool) -> Result<String, String> {
    let SessionEnd::Ended(end) = end else { panic!("{end:?}") };
    let mut text = String::new();
    match end.output {
        ReceivedOutput::Inline(bytes) => text = String::from_utf8(bytes).unwrap(),
        ReceivedOutput::File(file) => drop(file.reader().read_to_string(&mut text).unwrap()),
        other => panic!("{other:?}"),
    }
    if is_failed { Err(text) } else { Ok(text) }
}

fn name(item: &str) -> String {
    item.split(' ').next().unwrap_or_default().to_owned()
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|at| format!("item{at}")).collect()
}

/// What [`Bench::run_all`] gives when all are done but this one.
fn all_done_but(items: &[String], at: usize, word: &str) -> Vec<Result<String, String>> {
    let done = items.iter().map(|item| Ok(result_of(&name(item))));
    let mut all: Vec<_> = done.collect();
    all[at] = Err(word.to_owned());
    all
}

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
        assert!(told.is_empty() || told == wanted, "{lie}: {told:?}");
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
        let region = bulkhead_proto::chunk::ChunkRegion { key, offset, length };
        bulkhead_proto::chunk::ChunkInput::encode(Some(region), bench.head().as_bytes(), &["a"]).unwrap()
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

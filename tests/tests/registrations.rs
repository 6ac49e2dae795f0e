//! Arenas, contexts and files that a connection registers, with real daemons: what tasks get, who is charged for a loader, and what a
//! lying or vanished client leaves behind.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Instant;

use bulkhead_client::{
    Arena, ContextNumber, JobFile, JobInput, NewContext, ReceivedOutput, RunOptions, Session, SessionEnd,
    SessionEvent, SessionOptions, Spec, connect,
};
use bulkhead_proto::client::message::{Register, RegisteredUse, Reply, Request, Submit};
use bulkhead_proto::client::outcome::{JobEnded, JobOutput, Outcome};
use bulkhead_proto::file::{FileUse, Way};
use bulkhead_proto::job::{Payload, Policy};
use bulkhead_proto::registration::{ArenaBlock, RegistrationKind};
use bulkhead_sys::shared_page::SharedPage;
use bulkhead_sys::{memfd, socket};
use bulkhead_tests::contexts::{CRASH, FAIL, HANG, READ, SHOW, STAY, summed};
use bulkhead_tests::daemon::{DEADLINE, Daemon, Setup, binary, eventually};
use bulkhead_tests::or_skip;
use bulkhead_tests::other_users::{ALICE, BOB, connect_as, system_daemon};
use bulkhead_tests::raid::{frame, may_become_others};
use bulkhead_tests::wire::Wire;

fn config() -> String {
    format!("worker_program = {:?}\n", binary("context-worker").display().to_string())
}

fn start(workers: u16, more: &str) -> Daemon {
    Daemon::start_with(&Setup { workers, config: config() + more, ..Setup::default() })
}

fn open(daemon: &Daemon) -> Session {
    Session::over(connect::connect(&daemon.socket()).unwrap(), SessionOptions::default()).unwrap()
}

/// Turns until each of so many jobs is told: its output, or the word for its outcome with its text.
fn ends(session: &Session, count: usize) -> BTreeMap<u64, String> {
    let (mut told, mut events, until) = (BTreeMap::new(), Vec::new(), Instant::now() + DEADLINE);
    while told.len() < count {
        session.lead().turn(Some(until), None, &mut events).unwrap();
        assert!(Instant::now() < until, "{} of {count} are told", told.len());
        for event in events.drain(..) {
            if let SessionEvent::Job { token, end } = event {
                told.insert(token, word(end));
            }
        }
    }
    told
}

fn word(end: SessionEnd) -> String {
    match end {
        SessionEnd::Ended(end) => match (end.outcome, end.output) {
            (Outcome::Done, ReceivedOutput::Inline(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
            (Outcome::Failed { message, .. }, _) => format!("failed: {message}"),
            (outcome, _) => outcome.word().to_owned(),
        },
        SessionEnd::Refused(refusal) => format!("refused: {refusal}"),
        other => format!("{other:?}"),
    }
}

/// Waits, as a leader does, until all of an arena is free.
fn all_free(session: &Session, arena: &Arena) {
    let (mut events, until) = (Vec::new(), Instant::now() + DEADLINE);
    let whole = vec![0; arena.length()];
    while arena.block(&whole).is_none() {
        assert!(Instant::now() < until, "a block of the arena is never free");
        let soon = Instant::now() + std::time::Duration::from_millis(20);
        session.lead().turn(Some(soon), None, &mut events).unwrap();
    }
}

fn spec(contexts: &[ContextNumber], policy: Policy) -> Arc<Spec> {
    Arc::new(Spec { contexts: contexts.to_vec(), policy, ..Spec::new("noop") })
}

#[test]
fn inputs_of_any_length_come_through_an_arena_and_its_blocks_are_used_again() {
    let daemon = start(2, "");
    let session = open(&daemon);
    let arena = session.register_arena(4 << 20).unwrap();
    let spec = spec(&[], Policy::default());
    let (mut wanted, mut told) = (BTreeMap::new(), BTreeMap::new());
    for token in 0..400_u64 {
        let length = [0, 1, 4096, 4097, 8192, 65_536, 1 << 20][token as usize % 7];
        let input: Vec<u8> = (0..length).map(|at| (at as u64 * 7 + token) as u8).collect();
        let block = loop {
            match arena.block(&input) {
                Some(block) => break block,
                None => told.extend(ends(&session, 1)),
            }
        };
        session.submit(token, &spec, JobInput::from(block)).unwrap();
        wanted.insert(token, summed(&input));
    }
    told.extend(ends(&session, wanted.len() - told.len()));
    assert_eq!(told, wanted);
    all_free(&session, &arena);
}

#[test]
fn the_block_of_a_job_that_is_cancelled_while_it_runs_is_free_in_the_end() {
    let daemon = start(1, "");
    let session = open(&daemon);
    let arena = session.register_arena(4096).unwrap();
    let spec = spec(&[], Policy::default());
    for token in [1, 2] {
        session.submit(token, &spec, arena.block(STAY.as_bytes()).unwrap().into()).unwrap();
    }
    let mut events = Vec::new();
    eventually("a worker has begun it", || {
        let soon = Instant::now() + std::time::Duration::from_millis(10);
        session.lead().turn(Some(soon), None, &mut events).unwrap();
        daemon.workers().iter().any(|row| row.job.is_some()).then_some(())
    });
    session.cancel(&[1, 2]);
    let told = ends(&session, 2);
    assert!(told.values().all(|word| word == "cancelled"), "{told:?}");
    all_free(&session, &arena);
}

#[test]
fn a_context_is_loaded_once_in_each_worker() {
    let daemon = start(2, "");
    let session = open(&daemon);
    let [first, second] =
        ["one", "two"].map(|text| session.register_context(NewContext::loaded(text, Vec::new())).unwrap());
    let both = spec(&[second, first], Policy::default());
    for token in 0..60 {
        session.submit(token, &both, JobInput::from(SHOW.as_bytes().to_vec())).unwrap();
    }
    let told = ends(&session, 60);
    let shown: BTreeSet<_> = told.values().map(|text| text.rsplit_once(" in ").unwrap()).collect();
    assert!(shown.len() <= 2 && shown.iter().all(|(text, _)| *text == "two:1 one:2"), "{shown:?}");
    session.drop_context(first);
    session.submit(99, &both, JobInput::from(SHOW.as_bytes().to_vec())).unwrap();
    let refused = &ends(&session, 1)[&99];
    assert!(refused.contains("register it first"), "{refused}");
    let again = session.register_context(NewContext::loaded("one", Vec::new())).unwrap();
    session.submit(1, &spec(&[again], Policy::default()), JobInput::from(SHOW.as_bytes().to_vec())).unwrap();
    let shown = &ends(&session, 1)[&1];
    // The third time in a worker that has loaded both, the first in one that had no task.
    assert!(shown.starts_with("one:3 in ") || shown.starts_with("one:1 in "), "it is loaded anew: {shown}");
}

#[test]
fn a_loader_that_hangs_crashes_or_fails_does_so_within_the_task_that_loads_it() {
    let daemon = start(2, "");
    let session = open(&daemon);
    let once = |timeout_ms| Policy { crashes_max: Some(1), timeout_ms, ..Policy::default() };
    let [hang, crash, fail, good] = [HANG, CRASH, FAIL, "good"]
        .map(|text| session.register_context(NewContext::loaded(text, Vec::new())).unwrap());
    let show = || JobInput::from(SHOW.as_bytes().to_vec());
    session.submit(1, &spec(&[good, hang], once(Some(500))), show()).unwrap();
    session.submit(2, &spec(&[crash], once(None)), show()).unwrap();
    session.submit(3, &spec(&[fail], once(None)), show()).unwrap();
    for token in 4..40 {
        session.submit(token, &spec(&[good], once(None)), show()).unwrap();
    }
    let told = ends(&session, 39);
    assert_eq!((told[&1].as_str(), told[&2].as_str()), ("timed-out", "crashed"));
    assert!(told[&3].contains("context 0 of the job cannot be loaded: this context says no"), "{}", told[&3]);
    assert!((4..40).all(|token| told[&token].starts_with("good:")), "{told:?}");
}

#[test]
fn files_are_read_as_they_are_and_the_blocking_client_has_contexts_too() {
    let daemon = start(2, "");
    let file = File::from(memfd::output_file("a").unwrap());
    file.write_all_at(b"what is in it", 0).unwrap();
    let mut client = connect::connect(&daemon.socket()).unwrap();
    let files = client.register_context(NewContext::of_files(vec![JobFile::read("a", file)])).unwrap();
    let run = |client: &mut bulkhead_client::DaemonClient, input: &str| {
        let spec = Spec { contexts: vec![files], ..Spec::new("noop") };
        let inputs = vec![JobInput::from(input.as_bytes().to_vec()); 9];
        let ends = client.run(spec, inputs, RunOptions::default()).map(|item| item.unwrap().end.output);
        let texts = ends.map(|output| match output {
            ReceivedOutput::Inline(bytes) => String::from_utf8(bytes).unwrap(),
            other => panic!("{other:?}"),
        });
        texts.collect::<Vec<_>>()
    };
    assert_eq!(run(&mut client, READ), vec!["what is in it"; 9]);
    assert!(
        run(&mut client, SHOW).iter().all(|text| text.starts_with("not loaded in ")),
        "no code is called"
    );
    client.drop_context(files).unwrap();
    eventually("nothing of it counts", || {
        (held(&mut client.status().unwrap(), "registrations") == 0).then_some(())
    });
}

/// What this user holds of a resource.
fn held(status: &mut bulkhead_proto::client::view::Status, resource: &str) -> u64 {
    let rows = status.accounts.iter().flat_map(|account| &account.holds);
    rows.filter(|row| row.resource == resource).map(|row| row.held).sum()
}

/// A client by hand, which may lie.
struct Liar(Wire);

impl Liar {
    fn register(&mut self, number: u32, descriptor: BorrowedFd<'_>) -> Reply {
        let files = vec![FileUse::new("arena", Way::In)];
        let kind = RegistrationKind::Arena;
        let request = Request::Register(Register { number, kind, bytes: Payload::default(), files });
        let bytes = frame(900 + number, request);
        assert_eq!(
            socket::send_with_fd(self.0.socket.as_fd(), &bytes, Some(descriptor)).unwrap(),
            bytes.len()
        );
        self.0.next_reply().unwrap().reply
    }

    fn run(&mut self, arena: u32, inputs: Vec<Payload>) -> Vec<JobEnded> {
        let registered = Some(Box::new(RegisteredUse { arena: Some(arena), contexts: Vec::new() }));
        let kind = "noop".to_owned();
        self.0.run_submit(Submit { kind, attached: true, registered, inputs, ..Submit::default() })
    }
}

fn arena_of(bytes: usize) -> (SharedPage, OwnedFd) {
    SharedPage::create_arena("a test", bytes).unwrap()
}

#[test]
fn an_arena_without_its_seals_is_refused_and_a_place_that_lies_fails_its_task_alone() {
    let daemon = start(1, "");
    let mut liar = Liar(Wire::connect(&daemon.socket()));
    let open = File::from(memfd::output_file("open").unwrap());
    open.set_len(8192).unwrap();
    let fixed = File::from(memfd::output_file("fixed").unwrap());
    fixed.set_len(8192).unwrap();
    memfd::fix_size(fixed.as_fd()).unwrap();
    for unsealed in [open.as_fd(), fixed.as_fd(), File::open("/dev/zero").unwrap().as_fd()] {
        let reply = liar.register(1, unsealed);
        assert!(
            matches!(&reply, Reply::Refused(why) if why.to_string().contains("F_SEAL_FUTURE_WRITE")),
            "{reply:?}"
        );
    }
    let (page, descriptor) = arena_of(8192);
    page.write_bytes(64, b"an input");
    assert_eq!(liar.register(1, descriptor.as_fd()), Reply::Registered { number: 1 });
    let workers = |liar: &mut Liar| liar.0.workers().iter().map(|row| row.pid).collect::<BTreeSet<_>>();
    let before = workers(&mut liar);
    let place = |offset, length| Payload::from(ArenaBlock { offset, length }.to_bytes().to_vec());
    let lies = [
        place(8192, 1),
        place(8128, 65),
        place(u64::MAX - 63, 64),
        place(0, u64::MAX),
        place(1, 8),
        Payload::from(b"short".to_vec()),
    ];
    let mut inputs: Vec<Payload> = lies.into_iter().collect();
    inputs.push(place(64, 8));
    let mut ends = liar.run(1, inputs);
    ends.sort_unstable_by_key(|end| end.job);
    let (good, lies) = ends.split_last().unwrap();
    assert!(lies.iter().all(|end| matches!(end.outcome, Outcome::Failed { .. })), "{lies:?}");
    assert_eq!(good.output, JobOutput::Inline(Payload::from(summed(b"an input").into_bytes())));
    assert!(before.is_subset(&workers(&mut liar)), "no worker had to go");
}

#[test]
fn a_client_that_vanishes_leaves_nothing_and_one_that_drops_while_jobs_name_it_changes_nothing() {
    let daemon = start(1, "");
    let mut liar = Liar(Wire::connect(&daemon.socket()));
    let (page, descriptor) = arena_of(8192);
    page.write_bytes(0, STAY.as_bytes());
    page.write_bytes(64, b"an input");
    assert_eq!(liar.register(1, descriptor.as_fd()), Reply::Registered { number: 1 });
    let place = |offset, length| Payload::from(ArenaBlock { offset, length }.to_bytes().to_vec());
    let registered = || Some(Box::new(RegisteredUse { arena: Some(1), contexts: Vec::new() }));
    let kind = || "noop".to_owned();
    let submit = Submit {
        kind: kind(),
        attached: true,
        registered: registered(),
        inputs: vec![place(64, 8); 50],
        ..Submit::default()
    };
    let tag = liar.0.ask(Request::Submit(submit));
    liar.0.ask(Request::DropRegistration { number: 1 });
    let mut ended = Vec::new();
    while ended.len() < 50 {
        match liar.0.next_reply().unwrap() {
            frame if frame.tag != tag => panic!("{frame:?}"),
            frame => {
                if let Reply::Ended(some) = frame.reply {
                    ended.extend(some)
                }
            }
        }
    }
    assert!(ended.iter().all(|end| end.outcome == Outcome::Done), "{ended:?}");
    let reply = liar.0.call(Request::DropRegistration { number: 1 });
    assert!(
        matches!(&reply, Reply::Refused(why) if why.to_string().contains("no registration 1")),
        "{reply:?}"
    );

    assert_eq!(liar.register(2, descriptor.as_fd()), Reply::Registered { number: 2 });
    let registered = Some(Box::new(RegisteredUse { arena: Some(2), contexts: Vec::new() }));
    let inputs = vec![place(0, STAY.len() as u64)];
    liar.0.ask(Request::Submit(Submit {
        kind: kind(),
        attached: true,
        registered,
        inputs,
        ..Submit::default()
    }));
    let mut other = Wire::connect(&daemon.socket());
    eventually("it is accepted", || {
        (held(&mut other.status(), "bytes of memory in arenas") == 8192).then_some(())
    });
    let jobs = eventually("it runs", || {
        let jobs: Vec<_> = other.workers().iter().filter_map(|row| row.job).collect();
        (!jobs.is_empty()).then_some(jobs)
    });
    drop(liar);
    other.call(Request::Cancel { jobs });
    eventually("nothing of it counts", || {
        (held(&mut other.status(), "bytes of memory in arenas") == 0).then_some(())
    });
}

#[test]
fn too_many_registrations_and_too_much_memory_are_refused_with_the_bound() {
    let daemon = start(1, "arena_bytes_max = 1048576\n");
    let mut liar = Liar(Wire::connect(&daemon.socket()));
    let (_page, descriptor) = arena_of(1 << 20);
    assert_eq!(liar.register(1, descriptor.as_fd()), Reply::Registered { number: 1 });
    let reply = liar.register(2, descriptor.as_fd());
    assert!(
        matches!(&reply, Reply::Refused(why) if why.to_string().contains("arena_bytes_max")),
        "{reply:?}"
    );
    let context = |number| {
        let kind = RegistrationKind::Context;
        Request::Register(Register { number, kind, bytes: Payload::default(), files: Vec::new() })
    };
    let mut refused = None;
    for number in 2..5000 {
        match liar.0.call(context(number)) {
            Reply::Registered { .. } => {}
            other => {
                refused = Some((number, other));
                break;
            }
        }
    }
    let (number, reply) = refused.unwrap();
    assert!(
        matches!(&reply, Reply::Refused(why) if why.to_string().contains("registrations (limit 4096")),
        "{reply:?}"
    );
    assert_eq!(number, 4097);
    drop(liar);
    let mut other = Wire::connect(&daemon.socket());
    eventually("nothing of it counts", || (held(&mut other.status(), "registrations") == 0).then_some(()));
}

#[test]
fn a_daemon_of_several_users_takes_neither_arenas_nor_contexts() {
    or_skip!(may_become_others());
    let daemon = system_daemon("");
    for uid in [ALICE, BOB] {
        let mut liar = Liar(connect_as(&daemon, uid).welcome());
        let (_page, descriptor) = arena_of(8192);
        let reply = liar.register(1, descriptor.as_fd());
        assert!(matches!(&reply, Reply::Refused(why) if why.to_string().contains("one user")), "{reply:?}");
        let kind = RegistrationKind::Context;
        let context = Register { number: 1, kind, bytes: Payload::from(b"code".to_vec()), files: Vec::new() };
        let reply = liar.0.call(Request::Register(context));
        assert!(
            matches!(&reply, Reply::Refused(why) if why.to_string().contains("may be code")),
            "{reply:?}"
        );
        let files = Register {
            number: 1,
            kind: RegistrationKind::Files,
            bytes: Payload::default(),
            files: Vec::new(),
        };
        assert_eq!(liar.0.call(Request::Register(files)), Reply::Registered { number: 1 });
        let registered = Some(Box::new(RegisteredUse { arena: None, contexts: vec![1] }));
        let inputs = vec![Payload::default()];
        let submit = Submit { kind: "noop".to_owned(), registered, inputs, ..Submit::default() };
        let reply = liar.0.call(Request::Submit(submit));
        assert!(
            matches!(&reply, Reply::Refused(why) if why.to_string().contains("serve several users")),
            "{reply:?}"
        );
    }
}

/// The example of the worker library; that of the client library sends it the same.
#[test]
fn the_example_counts_words_of_a_list_that_each_worker_loads_once() {
    let program = binary("examples/words").display().to_string();
    let config =
        format!("worker_program = {program:?}\nbuiltin_kinds = false\n[kinds.words]\nusage = \"TEXT\"\n");
    let daemon = Daemon::start_with(&Setup { config, chaos: false, ..Setup::default() });
    let session = open(&daemon);
    let arena = session.register_arena(512 << 10).unwrap();
    let list = session.register_context(NewContext::loaded("whale sea ship", Vec::new())).unwrap();
    let spec = Arc::new(Spec { contexts: vec![list], ..Spec::new("words") });
    let text = "the whale and the ship ".repeat(2849);
    for token in 0..7 {
        session.submit(token, &spec, arena.block(text.as_bytes()).unwrap().into()).unwrap();
    }
    assert!(arena.block(text.as_bytes()).is_some() && arena.block(&[0; 128 << 10]).is_none());
    assert!(ends(&session, 7).values().all(|found| found == "5698"));
    all_free(&session, &arena);
}

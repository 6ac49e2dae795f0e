//! Results in arenas of workers, with a real daemon: whose they are, when a block is free, and every way in which a client or a
//! worker breaks the rules of it.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulkhead_client::{
    DaemonClient, JobInput, ReceivedOutput, RunOptions, Session, SessionEnd, SessionEvent, SessionOptions,
    Spec, connect,
};
use bulkhead_proto::client::message::{Reply, Request, Submit};
use bulkhead_proto::client::outcome::{JobEnded, JobOutput, Outcome, ResultBlock};
use bulkhead_proto::job::{OutputMode, Policy};
use bulkhead_proto::limits::{ARENA_BLOCKS_MAX, ARENA_BYTES, BLOCK_MAX_BYTES, FREED_MAX, INLINE_MAX_BYTES};
use bulkhead_tests::daemon::{DEADLINE, Daemon, Setup, binary, eventually, send_signal};
use bulkhead_tests::odd::letter_of;
use bulkhead_tests::wire::{Wire, submit};

fn daemon(workers: u16, more: &str) -> Daemon {
    let program = binary("odd-worker").display().to_string();
    let config = format!("worker_program = {program:?}\n{more}\n[kinds.letters]\nring = 64\n");
    Daemon::start_with(&Setup { workers, config, ..Setup::default() })
}

fn arena() -> Policy {
    Policy { output: OutputMode::Arena, ..Policy::default() }
}

/// Submits attached jobs, each of which makes so many letters.
fn letters(wire: &mut Wire, lengths: &[usize]) {
    let texts: Vec<String> = lengths.iter().map(ToString::to_string).collect();
    let inputs: Vec<&str> = texts.iter().map(String::as_str).collect();
    wire.ask(Request::Submit(Submit { policy: arena(), ..submit("letters", &inputs, true) }));
}

/// The next ends, as many as these.
fn ends(wire: &mut Wire, count: usize) -> Vec<JobEnded> {
    let mut all = Vec::new();
    while all.len() < count {
        match wire.next_reply().unwrap().reply {
            Reply::Ended(ended) => all.extend(ended),
            Reply::Accepted { refused: None, .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(all.iter().all(|end| end.outcome == Outcome::Done), "{all:?}");
    all
}

fn block(end: &JobEnded) -> Option<ResultBlock> {
    if let JobOutput::Block(block) = end.output { Some(block) } else { None }
}

/// The result of a job of so many letters is that.
fn checked(output: &ReceivedOutput, wanted: usize) {
    match output {
        ReceivedOutput::Inline(bytes) => {
            assert_eq!(bytes.len(), wanted);
            assert!(bytes.iter().all(|byte| *byte == letter_of(wanted)), "{wanted} bytes are its own");
        }
        ReceivedOutput::File(file) => assert_eq!(file.bytes(), wanted as u64),
        other => panic!("{other:?}"),
    }
}

fn client(daemon: &Daemon) -> DaemonClient {
    connect::connect(&daemon.socket()).unwrap()
}

/// Nothing is held in arenas or descriptors any more.
fn settled(daemon: &Daemon) {
    let mut wire = Wire::connect(&daemon.socket());
    eventually("no result is held", || {
        let status = wire.status();
        let in_arenas = status
            .accounts
            .iter()
            .flat_map(|row| &row.holds)
            .any(|row| row.held > 0 && row.resource.contains("arenas"));
        (!in_arenas && status.outputs.held == 0).then_some(())
    });
}

/// Kills the worker of an arena; returns when the daemon knows.
fn kill(daemon: &Daemon, arena: u64) {
    let pid = || daemon.workers().iter().find(|row| row.worker.0 == arena)?.pid;
    send_signal(pid().unwrap(), "KILL");
    eventually("the worker is gone", || pid().is_none().then_some(()));
}

#[test]
fn results_of_every_length_come_whole_through_the_blocking_client_and_the_session() {
    let daemon = daemon(2, "");
    let lengths =
        [0, 1, INLINE_MAX_BYTES, INLINE_MAX_BYTES + 1, 8192, 65_537, BLOCK_MAX_BYTES, BLOCK_MAX_BYTES + 1];
    let input = |bytes: usize| JobInput {
        output: OutputMode::Arena,
        ..JobInput::from(bytes.to_string().into_bytes())
    };
    let mut one = client(&daemon);
    for _ in 0..50 {
        let inputs = lengths.map(input);
        for (item, wanted) in one.run(Spec::new("letters"), inputs, RunOptions::default()).zip(lengths) {
            checked(&item.unwrap().end.output, wanted);
        }
    }
    let session = Session::over(client(&daemon), SessionOptions::default()).unwrap();
    let spec = Arc::new(Spec::new("letters"));
    let (mut leader, mut events, mut told) = (session.lead(), Vec::new(), BTreeSet::new());
    for round in 0..50 {
        for (place, bytes) in (0..).zip(lengths) {
            session.submit(round * 8 + place, &spec, input(bytes)).unwrap();
        }
        while told.len() < (round as usize + 1) * lengths.len() {
            leader.turn(None, None, &mut events).unwrap();
            for event in events.drain(..) {
                let SessionEvent::Job { token, end: SessionEnd::Ended(end) } = event else {
                    panic!("{event:?}")
                };
                checked(&end.output, lengths[token as usize % 8]);
                assert!(told.insert(token));
            }
        }
    }
    drop(leader);
    drop((one, session));
    settled(&daemon);
}

#[test]
fn an_arena_is_sent_once_and_a_block_is_used_again_only_after_it_was_freed() {
    let daemon = daemon(1, "");
    let mut wire = Wire::connect(&daemon.socket());
    letters(&mut wire, &[8192; 40]);
    let blocks: Vec<_> = ends(&mut wire, 40).iter().map(|end| block(end).unwrap()).collect();
    assert_eq!(blocks.iter().filter(|block| block.is_attached).count(), 1);
    let places: BTreeSet<_> = blocks.iter().map(|block| block.offset).collect();
    assert_eq!(places.len(), 40, "no two lie in one place");
    wire.ask(Request::Freed { blocks: blocks[..10].iter().map(|block| block.block).collect() });
    letters(&mut wire, &[8192; 10]);
    let again: BTreeSet<_> = ends(&mut wire, 10).iter().map(|end| block(end).unwrap().offset).collect();
    assert_eq!(again, blocks[..10].iter().map(|block| block.offset).collect(), "those that were freed");
}

#[test]
fn a_client_that_never_frees_gets_files_and_stops_nobody_else() {
    let daemon = daemon(1, "");
    let mut greedy = Wire::connect(&daemon.socket());
    let (mut blocks, mut files) = (0, 0);
    while files < 20 {
        letters(&mut greedy, &[8192; 16]);
        for end in ends(&mut greedy, 16) {
            match end.output {
                JobOutput::Block(_) => blocks += 1,
                JobOutput::Descriptor { bytes: 8192 } => files += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(blocks, ARENA_BLOCKS_MAX, "a whole arena is its own");
    let input = || JobInput { output: OutputMode::Arena, ..JobInput::from(b"9000".to_vec()) };
    for item in client(&daemon).run(Spec::new("letters"), (0..100).map(|_| input()), RunOptions::default()) {
        checked(&item.unwrap().end.output, 9000);
    }
    drop(greedy);
    settled(&daemon);
    let mut next = Wire::connect(&daemon.socket());
    letters(&mut next, &[8192]);
    assert!(block(&ends(&mut next, 1)[0]).is_some(), "the arena is free again");
}

#[test]
fn the_bound_of_bytes_sends_results_by_file() {
    let daemon = daemon(1, "arena_bytes_max = 30000");
    let mut wire = Wire::connect(&daemon.socket());
    let mut blocks = Vec::new();
    for _ in 0..8 {
        letters(&mut wire, &[8192]);
        blocks.extend(ends(&mut wire, 1).iter().filter_map(block));
    }
    assert_eq!(blocks.len(), 4, "8192 bytes four times are over 30,000 bytes");
    wire.ask(Request::Freed { blocks: blocks.iter().map(|block| block.block).collect() });
    eventually("there is room again", || {
        letters(&mut wire, &[8192]);
        block(&ends(&mut wire, 1)[0])
    });
}

#[test]
fn what_was_never_told_or_is_freed_twice_is_refused_and_harms_nothing() {
    let daemon = daemon(1, "");
    let (mut wire, mut other) = (Wire::connect(&daemon.socket()), Wire::connect(&daemon.socket()));
    letters(&mut wire, &[8192]);
    let told = block(&ends(&mut wire, 1)[0]).unwrap();
    let refused = |wire: &mut Wire, blocks: Vec<u64>| match wire.call(Request::Freed { blocks }) {
        Reply::Refused(why) => why.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(refused(&mut other, vec![told.block]).contains("does not hold it"), "it is another's");
    assert!(refused(&mut wire, vec![0, u64::MAX]).contains("does not hold it"));
    assert!(refused(&mut wire, vec![told.block, told.block]).contains("does not hold it"), "the second time");
    assert!(refused(&mut wire, vec![told.block]).contains("does not hold it"));
    assert!(refused(&mut wire, vec![1; FREED_MAX + 1]).contains("limit"));
    letters(&mut wire, &[8192]);
    assert_eq!(block(&ends(&mut wire, 1)[0]).unwrap().offset, told.offset);
}

#[test]
fn the_blocks_of_a_dead_worker_stay_until_they_are_freed_and_then_the_arena_is_gone() {
    let daemon = daemon(1, "");
    let mut wire = Wire::connect(&daemon.socket());
    letters(&mut wire, &[8192, 8192]);
    let blocks: Vec<_> = ends(&mut wire, 2).iter().map(|end| block(end).unwrap()).collect();
    kill(&daemon, blocks[0].arena);
    letters(&mut wire, &[8192]);
    let fresh = block(&ends(&mut wire, 1)[0]).unwrap();
    assert!(fresh.is_attached && fresh.arena != blocks[0].arena, "it has an arena of its own");
    wire.ask(Request::Freed { blocks: vec![blocks[0].block] });
    wire.call(Request::Ping);
    wire.ask(Request::Freed { blocks: vec![blocks[1].block] });
    let gone = wire.next_reply().unwrap().reply;
    assert_eq!(gone, Reply::ArenaGone { arena: blocks[0].arena });
    // An arena of which nothing is held goes with its worker.
    wire.ask(Request::Freed { blocks: vec![fresh.block] });
    wire.call(Request::Ping);
    kill(&daemon, fresh.arena);
    assert_eq!(wire.next_reply().unwrap().reply, Reply::ArenaGone { arena: fresh.arena });
}

/// Runs so many jobs of so many letters; the blocks in which their results lie.
fn blocks_of(wire: &mut Wire, count: usize, length: usize) -> Vec<ResultBlock> {
    letters(wire, &vec![length; count]);
    ends(wire, count).iter().filter_map(block).collect()
}

fn free(wire: &mut Wire, blocks: &[ResultBlock]) {
    wire.ask(Request::Freed { blocks: blocks.iter().map(|block| block.block).collect() });
    wire.call(Request::Ping);
}

/// The memory of all arenas of a daemon, in bytes, and what is counted for them.
fn arena_bytes(daemon: &Daemon, wire: &mut Wire) -> (u64, u64) {
    let files = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().flatten();
    let arenas = files.filter(|file| {
        let link = std::fs::read_link(file.path()).unwrap_or_default();
        link.to_string_lossy().contains("bulkhead-arena")
    });
    // The closer may have a second descriptor of one.
    let found = arenas.filter_map(|file| std::fs::metadata(file.path()).ok());
    let memory: BTreeMap<u64, u64> = found.map(|file| (file.ino(), file.blocks() * 512)).collect();
    let status = wire.status();
    let rows = status.accounts.iter().flat_map(|row| &row.holds);
    let counted = rows.filter(|row| row.resource.contains("arenas")).map(|row| row.held).max();
    (memory.values().sum(), counted.unwrap_or(0))
}

/// Waits until the arenas take what is counted for them, which is this.
fn all_counted(daemon: &Daemon, wire: &mut Wire, bytes: usize) {
    let mut last = (0, 0);
    let wanted = (bytes as u64, bytes as u64);
    let told = eventually_or(|| {
        last = arena_bytes(daemon, wire);
        last == wanted
    });
    assert!(told, "memory and count are {last:?}, not {wanted:?}");
}

/// Whether it happens before the deadline.
fn eventually_or(mut happens: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + DEADLINE;
    while Instant::now() < until {
        if happens() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

/// Of each arena, 16 MiB of which the worker has touched, the client keeps two blocks.
#[test]
fn arenas_of_dead_workers_take_what_their_unread_blocks_count() {
    let daemon = daemon(1, "arena_bytes_max = 67108864");
    let (mut wire, mut kept) = (Wire::connect(&daemon.socket()), Vec::new());
    for round in 1..=6 {
        let blocks = blocks_of(&mut wire, ARENA_BYTES / BLOCK_MAX_BYTES, BLOCK_MAX_BYTES);
        assert_eq!(blocks.len(), ARENA_BYTES / BLOCK_MAX_BYTES, "round {round}");
        let (two, rest) = blocks.split_at(2);
        free(&mut wire, rest);
        kept.extend_from_slice(two);
        kill(&daemon, two[0].arena);
        all_counted(&daemon, &mut wire, 2 * round * BLOCK_MAX_BYTES);
    }
    let (first, second): (Vec<_>, Vec<_>) = kept.iter().partition(|block| block.offset == 0);
    free(&mut wire, &first);
    all_counted(&daemon, &mut wire, second.len() * BLOCK_MAX_BYTES);
    drop(wire);
    settled(&daemon);
}

/// What a user pins who never frees a block, and whose workers die, is what `arena_bytes_max` allows and the offers of one ring.
#[test]
fn who_never_frees_a_block_pins_no_more_than_the_bound_however_many_workers_die() {
    const BOUND: usize = 4 << 20;
    let daemon = daemon(1, &format!("arena_bytes_max = {BOUND}"));
    let (mut wire, mut all) = (Wire::connect(&daemon.socket()), 0);
    for round in 0..12 {
        let blocks = blocks_of(&mut wire, 100, 8192);
        all += blocks.len() * 8192;
        assert_eq!(blocks.is_empty(), round > 5, "round {round}: {all} bytes");
        if let Some(block) = blocks.first() {
            kill(&daemon, block.arena);
        }
        all_counted(&daemon, &mut wire, all);
    }
    assert!(all <= BOUND + 64 * 8192, "{all} bytes");
    drop(wire);
    settled(&daemon);
}

#[test]
fn an_idle_worker_gives_the_memory_of_its_arena_back() {
    let daemon = daemon(1, "");
    let mut wire = Wire::connect(&daemon.socket());
    let blocks = blocks_of(&mut wire, 100, BLOCK_MAX_BYTES);
    free(&mut wire, &blocks);
    eventually("it keeps one MiB", || {
        // The worker may have been idle for its second before its blocks were freed.
        let blocks = blocks_of(&mut wire, 1, 8192);
        free(&mut wire, &blocks);
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            let (memory, _) = arena_bytes(&daemon, &mut wire);
            if memory <= 1 << 20 {
                return Some(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    });
    let again = blocks_of(&mut wire, 100, BLOCK_MAX_BYTES);
    assert_eq!(again.len(), 100, "it is used on");
}

/// Resident memory of the only worker that has a slot, in bytes.
fn resident_bytes(daemon: &Daemon) -> u64 {
    let rows = daemon.workers();
    let pid = rows.iter().find(|row| row.slot.is_some()).and_then(|row| row.pid).unwrap();
    let line = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Results that nobody has freed are resident memory of their worker: it is recycled for them, and no task is charged with those of others.
#[test]
fn results_that_are_held_count_for_recycling_and_not_against_the_limit_of_the_next_task() {
    const ROOM: u64 = 8 << 20;
    let limited = |wire: &mut Wire| {
        let policy = Policy { memory_bytes: Some(ROOM), crashes_max: Some(1), ..arena() };
        let length = BLOCK_MAX_BYTES.to_string();
        wire.ask(Request::Submit(Submit { policy, ..submit("letters", &[length.as_str(); 100], true) }));
        ends(wire, 100).iter().filter_map(block).count()
    };
    let first = daemon(1, "");
    let mut wire = Wire::connect(&first.socket());
    // The page tables and buffers of a first result are no matter.
    assert_eq!(blocks_of(&mut wire, 1, 8192).len(), 1);
    let before = resident_bytes(&first);
    assert_eq!(limited(&mut wire), 100, "none of them met its limit");
    let held = resident_bytes(&first) - before;
    assert!((100 * BLOCK_MAX_BYTES as u64..ARENA_BYTES as u64 + ROOM).contains(&held), "{held} bytes more");
    let bound = before + ROOM;
    let second = daemon(1, &format!("recycle_resident_bytes = {bound}"));
    let mut wire = Wire::connect(&second.socket());
    assert_eq!(limited(&mut wire), 100);
    let recycled = eventually("the worker is recycled", || {
        // The size of a worker is looked at after a task, at most once in a second.
        blocks_of(&mut wire, 1, 8192);
        second.events_named("recycled").pop()
    });
    assert!(recycled["why"]["bytes"].as_u64().is_some_and(|bytes| bytes >= bound), "{recycled}");
    assert_eq!(second.events_named("blamed"), Vec::<serde_json::Value>::new());
}

/// The client may have received the reply and be about to copy the block.
#[test]
fn what_a_connection_was_told_of_is_not_used_again_as_soon_as_the_daemon_ends_it() {
    let daemon = daemon(1, "");
    let (mut faulty, mut other) = (Wire::connect(&daemon.socket()), Wire::connect(&daemon.socket()));
    let told = blocks_of(&mut faulty, 1, 8192)[0];
    faulty.send(&[0xff; 64]);
    faulty.goodbye();
    let others = blocks_of(&mut other, 40, 8192);
    assert!(others.iter().all(|block| block.offset != told.offset), "{told:?} is one of {others:?}");
    free(&mut other, &others);
    eventually("it is used again when its time is over", || {
        let blocks = blocks_of(&mut other, 1, 8192);
        free(&mut other, &blocks);
        (blocks[0].offset == told.offset).then_some(())
    });
}

#[test]
fn workers_that_come_and_go_leave_no_arena_open() {
    let daemon = daemon(2, "recycle_tasks = 20");
    let mut one = client(&daemon);
    let input = || JobInput { output: OutputMode::Arena, ..JobInput::from(b"9000".to_vec()) };
    for item in one.run(Spec::new("letters"), (0..2000).map(|_| input()), RunOptions::default()) {
        checked(&item.unwrap().end.output, 9000);
    }
    let arenas = || {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|line| line.contains("bulkhead-arena")).count()
    };
    // Another test of this process may map some.
    eventually("the client unmaps what is gone", || {
        one.ping().unwrap();
        (arenas() < 40).then_some(())
    });
    drop(one);
    settled(&daemon);
}

#[test]
fn a_daemon_of_several_users_has_no_arenas() {
    let more = "mode = \"system\"\ngroup = \"nogroup\"\nadmin_group = \"bulkhead-test-none\"\narena_bytes_max = 1073741824";
    let daemon = daemon(1, more);
    let mut wire = Wire::connect(&daemon.socket());
    letters(&mut wire, &[5, 8192]);
    let outputs: Vec<_> = ends(&mut wire, 2).into_iter().map(|end| end.output).collect();
    assert_eq!(outputs[1], JobOutput::Descriptor { bytes: 8192 });
    let input = || JobInput { output: OutputMode::Arena, ..JobInput::from(b"9000".to_vec()) };
    for item in client(&daemon).run(Spec::new("letters"), (0..20).map(|_| input()), RunOptions::default()) {
        let item = item.unwrap();
        assert!(matches!(item.end.output, ReceivedOutput::File(_)));
        checked(&item.end.output, 9000);
    }
}

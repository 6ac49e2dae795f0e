//! The real worker program under a supervisor that a test plays: bootstrap, claims, results, doorbells, ends.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

#[allow(dead_code, reason = "each test program uses its own part")]
mod played;
#[macro_use]
#[path = "../../tests/src/skip.rs"]
pub mod skip;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use bulkhead_link::supervisor::FinishedResult;
use bulkhead_proto::codec;
use bulkhead_proto::death::Death;
use bulkhead_proto::ids::Seq;
use bulkhead_proto::job::OutputMode;
use bulkhead_proto::limits::{OUTPUTS_KEY, RING};
use bulkhead_proto::worker::message::{LEFT_AFTER_PANIC, LaneDown, LaneUp, OutputRoom, TaskMessage};
use bulkhead_sys::exit::ExitStatus;
use bulkhead_sys::lane::Lane;
use bulkhead_sys::memfd::{output_file, sealed_size};
use bulkhead_sys::poll::wait_readable;
use played::{Born, CHAOS, FACTORIAL, KINDS, NOOP, PATIENCE, Played, UNKNOWN, failed, inline};

#[test]
fn tasks_are_run_and_a_retired_worker_leaves_without_a_trace() {
    let mut played = Played::up(false);
    assert_eq!(inline(&played.run(NOOP, "seven")), b"seven");
    assert_eq!(inline(&played.run(FACTORIAL, "20")), b"2432902008176640000");
    let task = played.offer(NOOP, "last");
    played.send(&[task]);
    played.sender = None;
    let last = played.wait_for(1).remove(0);
    assert_eq!(inline(&last.result), b"last", "what was sent before the channel closed is lost");
    assert_eq!(played.born.end(), ExitStatus::Code(0));
    assert_eq!(
        std::fs::read_dir(played.born.folder.path()).unwrap().count(),
        0,
        "its boot folder is not empty"
    );
}

/// The kernel's out-of-memory killer judges by this score and by size.
#[test]
fn a_worker_is_killed_before_its_supervisor_when_memory_runs_out() {
    let played = Played::up(false);
    let score = |process: &str| -> i32 {
        let text = std::fs::read_to_string(format!("/proc/{process}/oom_score_adj")).unwrap();
        text.trim().parse().unwrap()
    };
    let worker = score(&played.born.tree.process().pid().to_string());
    assert_eq!(worker, (score("self") + 200).min(1000));
}

#[test]
fn a_full_ring_is_run_in_order_with_one_doorbell_for_the_nap() {
    let mut played = Played::up(false);
    let tasks: Vec<_> = (0..RING).map(|number| played.offer(NOOP, &number.to_string())).collect();
    played.ring.nap(true);
    played.send(&tasks);
    let (status, doorbells) = played.retire();
    assert_eq!((status, doorbells), (ExitStatus::Code(0), 1));
    let mut found = Vec::new();
    played.ring.poll(&mut found).unwrap();
    let results: Vec<_> =
        found.iter().map(|found| String::from_utf8(inline(&found.result).to_vec()).unwrap()).collect();
    assert_eq!(results, (0..RING).map(|number| number.to_string()).collect::<Vec<_>>());
    assert!(found.iter().all(|found| found.elapsed_ns > 0));
}

#[test]
fn a_supervisor_that_is_awake_is_not_rung_for() {
    let mut played = Played::up(false);
    let tasks: Vec<_> = (0..8).map(|_| played.offer(NOOP, "x")).collect();
    played.send(&tasks);
    assert_eq!(played.retire(), (ExitStatus::Code(0), 0));
    let mut found = Vec::new();
    played.ring.poll(&mut found).unwrap();
    assert_eq!(found.len(), 8);
}

#[test]
fn results_keep_coming_nap_after_nap() {
    let mut played = Played::up(false);
    for round in 0..500 {
        let tasks: Vec<_> = (0..round % 7 + 1).map(|_| played.offer(NOOP, "x")).collect();
        played.send(&tasks);
        assert_eq!(played.wait_for(tasks.len()).len(), tasks.len());
    }
}

#[test]
fn what_was_taken_back_is_not_run() {
    let mut played = Played::up(false);
    let tasks: Vec<_> = (0..4).map(|number| played.offer(NOOP, &number.to_string())).collect();
    assert!(played.ring.take_back(Seq(1)).unwrap() && played.ring.take_back(Seq(3)).unwrap());
    played.ring.settle(Seq(1));
    played.send(&tasks);
    let seqs: Vec<_> = played.wait_for(2).iter().map(|found| found.seq.0).collect();
    assert_eq!(seqs, [2, 4]);
    assert!(!played.ring.has_outstanding());
}

#[test]
fn large_output_goes_to_its_descriptor_and_small_output_to_the_box() {
    let mut played = Played::up(false);
    let (large, output) = played.offer_with_output(FACTORIAL, "20000");
    let (taken, _) = played.offer_with_output(FACTORIAL, "20000");
    assert!(played.ring.take_back(taken.seq).unwrap());
    let (unsent, _) = played.offer_with_output(FACTORIAL, "20000");
    assert!(played.ring.take_back(unsent.seq).unwrap());
    let (small, _) = played.offer_with_output(FACTORIAL, "5");
    played.send(&[large, taken, small]);
    let found = played.wait_for(2);
    assert_eq!(found[0].result, FinishedResult::Descriptor { bytes: 77_338 });
    assert_eq!(inline(&found[1].result), b"120");
    assert_eq!(sealed_size(output.as_fd()).unwrap(), Some(77_338));
    let mut digits = [0; 20];
    File::from(output).read_exact_at(&mut digits, 0).unwrap();
    assert_eq!(&digits, b"18192063202303451348");
}

#[test]
fn output_over_the_limit_fails_with_advice() {
    let mut played = Played::up(false);
    let result = played.run(FACTORIAL, "20000");
    let text = failed(&result);
    assert!(text.contains("4096 bytes") && text.contains("ask for an output descriptor"), "{text}");
}

#[test]
fn output_above_its_room_fails_by_the_name_of_the_key_and_the_next_one_has_its_own() {
    let mut played = Played::up(false);
    for (bytes, fits) in [(77_337, false), (77_338, true), (10, false), (1 << 30, true)] {
        let (task, _output) = played.offer_with_output(FACTORIAL, "20000");
        let room = OutputRoom { own_bytes: bytes, shared_bytes: 0 };
        played.send(&[TaskMessage { room, ..task }]);
        let result = played.wait_for(1).remove(0).result;
        if fits {
            assert_eq!(result, FinishedResult::Descriptor { bytes: 77_338 });
        } else {
            let text = failed(&result);
            assert!(text.contains(&format!("the {bytes} bytes")) && text.contains(OUTPUTS_KEY), "{text}");
        }
    }
}

#[test]
fn descriptors_without_tasks_neither_fill_the_lane_nor_the_worker() {
    let mut played = Played::up(false);
    let output = output_file("stray").unwrap();
    for seq in 0..2000 {
        played.send_output(Seq(seq % 2), &output);
        if seq % 500 == 0 {
            assert_eq!(inline(&played.run(NOOP, "x")), b"x");
        }
    }
}

#[test]
fn output_descriptors_are_closed_after_their_task() {
    let mut played = Played::up(false);
    // Once it has answered, its bootstrap is behind it.
    assert_eq!(inline(&played.run(NOOP, "x")), b"x");
    let folder = format!("/proc/{}/fd", played.born.tree.process().pid());
    let Ok(open) = std::fs::read_dir(&folder).map(Iterator::count) else {
        skip!("only root may look into a worker");
    };
    for _ in 0..20 {
        let (task, _output) = played.offer_with_output(FACTORIAL, "20000");
        played.send(&[task]);
        played.wait_for(1);
    }
    assert_eq!(inline(&played.run(NOOP, "x")), b"x");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), open);
}

#[test]
fn a_failure_is_told_and_the_worker_goes_on_and_a_panic_is_told_and_it_leaves() {
    let mut played = Played::up(true);
    let bad = played.run(FACTORIAL, "-3");
    assert!(failed(&bad).contains("negative"), "{bad:?}");
    assert_eq!(inline(&played.run(NOOP, "on")), b"on");
    assert_eq!(played.ring.last_breath_ns(), None);
    let panicked = played.run(CHAOS, "panic");
    let text = failed(&panicked);
    assert!(text.starts_with("panicked at ") && text.contains("chaos.rs:"), "{text}");
    assert_eq!(played.born.end(), ExitStatus::Code(LEFT_AFTER_PANIC.into()));
    assert!(played.ring.last_breath_ns().is_some());
}

#[test]
fn kinds_that_it_cannot_run_are_named_and_fail() {
    let mut played = Played::up(false);
    assert_eq!(played.missing, [CHAOS, UNKNOWN]);
    let beyond = bulkhead_proto::ids::KindId(KINDS.len() as u16);
    for kind in [CHAOS, UNKNOWN, beyond] {
        let result = played.run(kind, "kill");
        assert!(failed(&result).contains("no kind"), "{result:?}");
    }
    assert_eq!(Played::up(true).missing, [UNKNOWN]);
}

#[test]
fn every_death_keeps_its_cause_its_moment_and_its_claim() {
    let signal =
        |signal| move |status| matches!(status, ExitStatus::Signal { signal: seen, .. } if seen == signal);
    let code = |code| move |status| status == ExitStatus::Code(code);
    let deaths: [(&str, &dyn Fn(ExitStatus) -> bool); 5] = [
        ("segv", &signal(11)),
        ("abort", &signal(6)),
        ("kill", &signal(9)),
        ("exit:0", &code(0)),
        ("exit:7", &code(7)),
    ];
    for (mode, is_it) in deaths {
        let mut played = Played::up(true);
        let tasks = [played.offer(NOOP, "before"), played.offer(CHAOS, mode), played.offer(NOOP, "after")];
        played.send(&tasks);
        let status = played.born.end();
        assert!(is_it(status), "{mode}: {status:?}");
        let mut found = Vec::new();
        played.ring.poll(&mut found).unwrap();
        assert_eq!(found.len(), 1);
        assert!(played.ring.last_breath_ns().is_some(), "{mode}");
        assert_eq!(played.ring.remains(), [(Seq(2), true), (Seq(3), false)], "{mode}");
    }
}

#[test]
fn a_kill_in_the_middle_of_a_task_is_seen_at_the_pidfd() {
    let mut played = Played::up(true);
    let tasks = [played.offer(CHAOS, "loop"), played.offer(NOOP, "behind")];
    played.send(&tasks);
    assert_eq!(played.wait_for_claim(), Seq(1));
    assert!(!played.ring.take_back(Seq(1)).unwrap());
    played.born.tree.kill().unwrap();
    assert_eq!(played.born.end(), ExitStatus::Signal { signal: 9, core: false });
    assert_eq!(played.ring.remains(), [(Seq(1), true), (Seq(2), false)]);
    assert_eq!(played.ring.last_breath_ns(), None);
}

#[test]
fn a_lane_that_hangs_up_ends_an_idle_worker() {
    let mut played = Played::up(false);
    let (other, _) = Lane::pair().unwrap();
    drop(std::mem::replace(&mut played.born.lane, other));
    assert_eq!(played.born.end(), ExitStatus::Code(0));
}

#[test]
fn a_supervisor_that_leaves_early_is_no_failure_and_nonsense_is() {
    let mut left = Born::new();
    let (other, _) = Lane::pair().unwrap();
    drop(std::mem::replace(&mut left.lane, other));
    assert_eq!(left.end(), ExitStatus::Code(0));

    let mut confused = Born::new();
    confused.lane.send(b"\xff nonsense", &[]).unwrap();
    assert_eq!(confused.end(), ExitStatus::Code(1));

    let null = File::open("/dev/null").unwrap();
    let (lane, _) = Lane::pair().unwrap();
    assert_eq!(Born::with_stdin(lane, null.into()).end(), ExitStatus::Code(1));
}

#[test]
fn a_worker_that_waits_for_its_supervisor_can_be_killed() {
    let mut waiting = Born::new();
    assert!(!wait_readable(waiting.tree.process().as_fd(), std::time::Duration::ZERO).unwrap());
    waiting.tree.kill().unwrap();
    assert!(wait_readable(waiting.lane.as_fd(), PATIENCE).unwrap(), "its lane did not hang up");
    assert!(waiting.hear().is_none());
    assert_eq!(waiting.end(), ExitStatus::Signal { signal: 9, core: false });
}

/// A memory limit is for one task: what is above it is refused, by name and size, and what is below it, or without a
/// limit, is not.
#[test]
fn a_memory_limit_holds_for_one_task() {
    let mut played = Played::up(true);
    let offer = |played: &mut Played, input: &str, memory_bytes| {
        let task = played.offer(CHAOS, input);
        TaskMessage { memory_bytes, ..task }
    };
    for (input, memory_bytes) in [("eat:64", Some(128 << 20)), ("eat:256", None), ("eat:96", Some(128 << 20))]
    {
        let task = offer(&mut played, input, memory_bytes);
        played.send(&[task]);
        let done = played.wait_for(1).remove(0);
        assert!(inline(&done.result).ends_with(b" MiB"), "{input}: {done:?}");
    }
    let task = offer(&mut played, "eat:256", Some(128 << 20));
    played.send(&[task]);
    assert_eq!(played.born.end(), ExitStatus::Signal { signal: 6, core: false });
    let death = played.ring.death_by(6, false, played.born.tree.process().pid());
    assert!(matches!(death, Death::AllocationFailed { bytes: 1_048_576, .. }), "{death:?}");
}

/// What GMP cannot have is told like any other refusal, with its size.
#[test]
fn a_factorial_that_needs_more_than_its_limit_dies_by_name() {
    let mut played = Played::up(false);
    let task = played.offer(FACTORIAL, "10000000 bits");
    played.send(&[TaskMessage { memory_bytes: Some(16 << 20), ..task }]);
    assert_eq!(played.born.end(), ExitStatus::Signal { signal: 6, core: false });
    let death = played.ring.death_by(6, false, played.born.tree.process().pid());
    assert!(matches!(death, Death::AllocationFailed { bytes: 1_000_000.., .. }), "{death:?}");
}

/// Offers a task that may ask for its output, and waits until it does.
fn offer_until_it_asks(played: &mut Played, input: &str) -> Seq {
    let task = TaskMessage { output: OutputMode::Auto, ..played.offer(FACTORIAL, input) };
    let seq = task.seq;
    played.send(&[task]);
    assert_eq!(played.born.hear(), Some(LaneUp::NeedOutput { seq }));
    assert!(played.ring.is_claimed(seq), "it asks for what it has claimed");
    seq
}

fn answer(played: &Played, frame: &LaneDown, output: &[BorrowedFd<'_>]) {
    played.born.lane.send(&codec::encode(frame), output).unwrap();
}

#[test]
fn a_task_asks_for_its_output_and_files_of_later_offers_may_come_before_the_answer() {
    let mut played = Played::up(false);
    let seq = offer_until_it_asks(&mut played, "20000");
    let (later, later_output) = played.offer_with_output(FACTORIAL, "20000");
    let output = output_file("output").unwrap();
    answer(&played, &LaneDown::Output { seq, room_bytes: 77_338 }, &[output.as_fd()]);
    assert_eq!(played.wait_for(1).remove(0).result, FinishedResult::Descriptor { bytes: 77_338 });
    assert_eq!(sealed_size(output.as_fd()).unwrap(), Some(77_338));
    played.send(&[later]);
    assert_eq!(played.wait_for(1).remove(0).result, FinishedResult::Descriptor { bytes: 77_338 });
    assert_eq!(sealed_size(later_output.as_fd()).unwrap(), Some(77_338));
    let short = TaskMessage { output: OutputMode::Auto, ..played.offer(FACTORIAL, "5") };
    played.send(&[short]);
    assert_eq!(inline(&played.wait_for(1).remove(0).result), b"120");
    assert_eq!(played.retire().0, ExitStatus::Code(0));
}

#[test]
fn a_task_that_gets_no_output_fails_with_the_cause_and_the_worker_lives() {
    let mut played = Played::up(false);
    let seq = offer_until_it_asks(&mut played, "20000");
    // A cancel wakes it, and it waits on.
    played.ring.request_cancel(seq);
    played.born.tree.process().kill(bulkhead_sys::signals::URG).unwrap();
    answer(&played, &LaneDown::NoOutput { seq, why: "outputs_bytes_max is met".to_owned() }, &[]);
    let result = played.wait_for(1).remove(0).result;
    let text = failed(&result);
    assert!(text.contains("4096 bytes") && text.contains("outputs_bytes_max is met"), "{text}");
    assert_eq!(inline(&played.run(NOOP, "next")), b"next");
}

/// The answer to another offer, or a file that is none: the lane is broken, and the task stays claimed.
#[test]
fn an_answer_that_is_none_ends_the_worker_in_its_task() {
    for wrong in [
        LaneDown::NoOutput { seq: Seq(9), why: String::new() },
        LaneDown::Output { seq: Seq(1), room_bytes: 1 },
    ] {
        let mut played = Played::up(false);
        let seq = offer_until_it_asks(&mut played, "20000");
        answer(&played, &wrong, &[]);
        assert!(!matches!(played.born.end(), ExitStatus::Code(0)));
        assert_eq!(played.ring.remains(), [(seq, true)]);
    }
}

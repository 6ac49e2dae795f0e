//! Tests of a task's output, against real pages and real files.

use std::cell::Cell;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use bulkhead_link::supervisor::{ProgramChange, Ring};
use bulkhead_proto::file::{FileUse, OUT, Way};
use bulkhead_proto::ids::{Fence, JobId, Seq};
use bulkhead_proto::limits::OUTPUT_MAX_BYTES;
use bulkhead_proto::worker::message::{FileRole, OutputRoom};
use bulkhead_sys::memfd::{output_file, sealed_size};

use super::*;

mod reserve;

const MERGE: Stage = Stage::Merge { parts: 2 };
const RUN: Stage = Stage::Run { part: 0, parts: 2 };

fn rings() -> (Ring, WorkerRing) {
    let (ours, descriptors) = Ring::create().unwrap();
    (ours, WorkerRing::map(&[descriptors.box_page, descriptors.orders_page]).unwrap())
}

/// A file for this role, and another hold on it.
fn file_for(role: FileRole) -> ((FileRole, OwnedFd), File) {
    let file = File::from(output_file("out").unwrap());
    let kept = file.try_clone().unwrap();
    ((role, file.into()), kept)
}

fn clients_out() -> ((FileRole, OwnedFd), File) {
    let file = tempfile::tempfile().unwrap();
    let kept = file.try_clone().unwrap();
    ((FileRole::Named(FileUse::new(OUT, Way::Out)), file.into()), kept)
}

fn bytes_of(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn output(
    ring: &WorkerRing,
    files: Vec<(FileRole, OwnedFd)>,
    stage: Stage,
    mode: OutputMode,
) -> TaskOutput<'_> {
    TaskOutput::new(ring, TaskFiles::new(files, OutputRoom::LARGEST), stage, mode)
}

#[test]
fn short_output_stays_inline_even_with_a_descriptor() {
    let (_, ring) = rings();
    let (file, _kept) = file_for(FileRole::Output);
    let mut output = output(&ring, vec![file], Stage::Whole, OutputMode::Descriptor);
    output.write_all(&[7; INLINE_MAX_BYTES]).unwrap();
    assert_eq!(output.finish().unwrap(), TaskEnd::Inline(vec![7; INLINE_MAX_BYTES]));
}

#[test]
fn long_output_goes_to_the_descriptor_whole_and_in_order() {
    let (_, ring) = rings();
    let expected: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    for (role, stage) in [(FileRole::Output, Stage::Whole), (FileRole::Shared, MERGE)] {
        let (file, kept) = file_for(role);
        let mut output = output(&ring, vec![file], stage, OutputMode::Descriptor);
        expected.chunks(1000).for_each(|piece| output.write_all(piece).unwrap());
        assert_eq!(output.finish().unwrap(), TaskEnd::Descriptor { bytes: 3_000_000 });
        assert_eq!(sealed_size(kept.as_fd()).unwrap(), Some(3_000_000));
        assert!(bytes_of(&kept) == expected);
    }
}

#[test]
fn a_plan_goes_to_its_descriptor_however_short() {
    let (_, ring) = rings();
    let (file, kept) = file_for(FileRole::Output);
    let mut output = output(&ring, vec![file], Stage::Plan, OutputMode::Descriptor);
    output.write_all(b"plan").unwrap();
    assert_eq!(output.finish().unwrap(), TaskEnd::Descriptor { bytes: 4 });
    assert_eq!(sealed_size(kept.as_fd()).unwrap(), Some(4));
}

#[test]
fn too_long_output_names_the_limit_and_fails_the_task_even_if_nobody_looks() {
    let (_, ring) = rings();
    for (stage, advice) in
        [(Stage::Whole, "ask for an output descriptor"), (RUN, "the output that all parts share")]
    {
        let mut output = output(&ring, Vec::new(), stage, OutputMode::Inline);
        output.write_all(&[7; INLINE_MAX_BYTES]).unwrap();
        let error = output.write_all(b"x").unwrap_err().to_string();
        assert!(error.contains("4096 bytes") && error.contains(advice), "{error}");
        assert!(output.write(b"").is_err(), "an output that failed takes more");
        assert_eq!(output.finish().unwrap_err().to_string(), format!("output: {error}"));
    }
}

#[test]
fn the_limit_of_a_descriptor_is_met_before_the_kernel_kills() {
    let (_, ring) = rings();
    let (file, kept) = file_for(FileRole::Output);
    let mut output = output(&ring, vec![file], Stage::Whole, OutputMode::Descriptor);
    let shared = output.shared().unwrap();
    for error in [
        shared.set_length(OUTPUT_MAX_BYTES + 1).unwrap_err(),
        shared.write_all_at(b"x", OUTPUT_MAX_BYTES).unwrap_err(),
        shared.write_all_at(b"x", u64::MAX).unwrap_err(),
    ] {
        assert!(error.to_string().contains(&OUTPUT_MAX_BYTES.to_string()), "{error}");
    }
    assert_eq!(kept.metadata().unwrap().len(), 0);
    assert!(output.finish().unwrap_err().to_string().contains("the limit of"), "it is forgotten");
}

/// The client's file gets all of it, short or long, and nothing of what stood there before stays.
#[test]
fn output_into_a_clients_file_replaces_what_was_there() {
    let (_, ring) = rings();
    for bytes in [&b""[..], b"short", &[9; 100_000]] {
        let (file, kept) = clients_out();
        kept.write_all_at(&[1; 50_000], 0).unwrap();
        let mut output = output(&ring, vec![file], Stage::Whole, OutputMode::File);
        output.write_all(bytes).unwrap();
        assert_eq!(output.finish().unwrap(), TaskEnd::Inline(Vec::new()));
        assert!(bytes_of(&kept) == bytes, "{} bytes", bytes.len());
    }
}

#[test]
fn what_parts_wrote_in_place_is_the_output_unless_the_merge_writes_another() {
    let (_, ring) = rings();
    let (file, kept) = clients_out();
    kept.write_all_at(b"by the parts", 0).unwrap();
    let mut merge = output(&ring, vec![file], MERGE, OutputMode::File);
    assert_eq!(merge.finish().unwrap(), TaskEnd::Inline(Vec::new()));
    assert_eq!(bytes_of(&kept), b"by the parts");

    let (file, kept) = file_for(FileRole::Shared);
    kept.write_all_at(b"by the parts", 0).unwrap();
    let mut merge = output(&ring, vec![file], MERGE, OutputMode::Descriptor);
    assert_eq!(merge.finish().unwrap(), TaskEnd::Descriptor { bytes: 12 });
    assert_eq!(sealed_size(kept.as_fd()).unwrap(), Some(12));

    let (file, _kept) = file_for(FileRole::Shared);
    let mut merge = output(&ring, vec![file], MERGE, OutputMode::Descriptor);
    merge.write_all(b"in short").unwrap();
    assert_eq!(merge.finish().unwrap(), TaskEnd::Inline(b"in short".to_vec()));
}

#[test]
fn a_part_writes_in_place_and_has_a_result_beside_it_and_seals_nothing() {
    let (_, ring) = rings();
    let (file, kept) = file_for(FileRole::Shared);
    let mut part = output(&ring, vec![file], RUN, OutputMode::Inline);
    part.write_all(b"resu").unwrap();
    part.shared().unwrap().write_all_at(b"in place", 4).unwrap();
    part.write_all(b"lt").unwrap();
    assert_eq!(part.finish().unwrap(), TaskEnd::Inline(b"result".to_vec()));
    assert_eq!(bytes_of(&kept), b"\0\0\0\0in place");
    assert_eq!(sealed_size(kept.as_fd()).unwrap(), None);
}

#[test]
fn a_whole_task_writes_either_in_place_or_in_order() {
    let (_, ring) = rings();
    let (file, kept) = file_for(FileRole::Output);
    let mut task = output(&ring, vec![file], Stage::Whole, OutputMode::Descriptor);
    task.shared().unwrap().write_all_at(b"end", 3).unwrap();
    assert!(task.write_all(b"x").unwrap_err().to_string().contains("in place"));
    assert!(task.finish().is_err());
    assert_eq!(bytes_of(&kept), b"\0\0\0end");

    let mut task = output(&ring, vec![file_for(FileRole::Output).0], Stage::Whole, OutputMode::Descriptor);
    task.write_all(b"x").unwrap();
    assert!(task.shared().err().unwrap().to_string().contains("written output already"));
    let none = output(&ring, Vec::new(), Stage::Whole, OutputMode::Inline).shared().err().unwrap();
    assert!(none.to_string().contains("no place for an output"), "{none}");
}

/// A full disk fails the task by name, even if its handler does not look.
#[test]
fn a_disk_that_is_full_is_named() {
    let (_, ring) = rings();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let file = CheckedFile::new(OUT, Way::Out, full);
    let error = file.write_all_at(b"x", 0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    let failure = TaskFailure::from(error).to_string();
    assert!(failure.starts_with("no space left where the output goes: file \"out\""), "{failure}");
    assert_eq!(file.fault().unwrap().to_string(), failure);

    let fd = File::options().write(true).open("/dev/full").unwrap();
    let role = FileRole::Named(FileUse::new(OUT, Way::Out));
    let mut task = output(&ring, vec![(role, fd.into())], Stage::Whole, OutputMode::File);
    task.write_all(b"x").unwrap();
    let failure = task.finish().unwrap_err().to_string();
    assert!(failure.starts_with("file \"out\" is a device"), "{failure}");
}

#[test]
fn a_death_that_did_not_come_is_taken_back() {
    let (ours, ring) = rings();
    let mut output = output(&ring, Vec::new(), Stage::Whole, OutputMode::Inline);
    output.last_breath();
    assert!(ours.last_breath_ns().is_some());
    output.announce_alive();
    assert_eq!(ours.last_breath_ns(), None);
}

#[test]
fn what_a_failed_task_wrote_is_kept_where_it_fits() {
    let (_, ring) = rings();
    let told = |written: usize, files, failure: TaskFailure| {
        let mut output = output(&ring, files, Stage::Whole, OutputMode::Descriptor);
        output.write_all(&vec![7; written]).unwrap();
        let TaskEnd::Failed { text, inline, spilled, .. } = output.end(Err(failure)) else {
            panic!("it failed")
        };
        assert_eq!(text, "no");
        (inline, spilled)
    };
    let no = || TaskFailure::new("no").with_output();
    assert_eq!(told(0, Vec::new(), no()), (Vec::new(), 0));
    assert_eq!(told(5, Vec::new(), no()), (vec![7; 5], 0));
    assert_eq!(told(5, Vec::new(), TaskFailure::new("no")), (Vec::new(), 0));
    for length in [INLINE_MAX_BYTES - 1, INLINE_MAX_BYTES, 10_000] {
        let (file, kept) = file_for(FileRole::Output);
        assert_eq!(told(length, vec![file], no()), (Vec::new(), length as u64));
        assert_eq!(sealed_size(kept.as_fd()).unwrap(), Some(length as u64));
    }
    assert_eq!(told(INLINE_MAX_BYTES - 1, Vec::new(), no()), (Vec::new(), 0));
    let (shared, kept) = file_for(FileRole::Shared);
    let mut merge = output(&ring, vec![shared], MERGE, OutputMode::Descriptor);
    merge.write_all(&[7; 10_000]).unwrap();
    let TaskEnd::Failed { inline, spilled, .. } = merge.end(Err(no())) else { panic!("it failed") };
    assert_eq!((inline, spilled, sealed_size(kept.as_fd()).unwrap()), (Vec::new(), 0, None));
}

#[test]
fn a_stopped_program_is_told_and_rung_for() {
    let (mut ours, ring) = rings();
    ours.offer(Seq(1), JobId(1), Fence(1));
    assert!(ring.claim(Seq(1)));
    let rung = Cell::new(0);
    let bell = || rung.set(rung.get() + 1);
    let mut output = TaskOutput::new(
        &ring,
        TaskFiles::new(Vec::new(), OutputRoom::LARGEST),
        Stage::Whole,
        OutputMode::Inline,
    )
    .with_bell(&bell);
    output.program_stopped(913, 19);
    let stop = ProgramStop { pid: 913, signal: 19 };
    assert_eq!(ours.program_change(), Some(ProgramChange::Stopped { seq: Seq(1), stop }));
    output.program_continued();
    assert_eq!(ours.program_change(), Some(ProgramChange::Continued { seq: Seq(1) }));
    assert_eq!(rung.get(), 2);
}

/// A task of this mode that may ask, and how it is answered: with a file of so many bytes, or not.
fn asking(ring: &WorkerRing, ask: &dyn Fn() -> io::Result<(File, u64)>, test: impl FnOnce(TaskOutput<'_>)) {
    test(TaskOutput::new(ring, TaskFiles::default(), Stage::Whole, OutputMode::Auto).with_ask(ask));
}

#[test]
fn a_task_asks_once_and_only_for_what_does_not_fit_inline() {
    let (_, ring) = rings();
    let (asked, kept) = (Cell::new(0), Cell::new(None));
    let give = || {
        asked.set(asked.get() + 1);
        let file = File::from(output_file("out").unwrap());
        kept.set(Some(file.try_clone().unwrap()));
        Ok((file, 20_000))
    };
    asking(&ring, &give, |mut output| {
        output.write_all(&[7; INLINE_MAX_BYTES]).unwrap();
        assert_eq!(output.finish().unwrap(), TaskEnd::Inline(vec![7; INLINE_MAX_BYTES]));
    });
    assert_eq!(asked.get(), 0);
    asking(&ring, &give, |mut output| {
        output.write_all(&[7; INLINE_MAX_BYTES]).unwrap();
        output.write_all(&[8; INLINE_MAX_BYTES]).unwrap();
        output.write_all(&[9; 100]).unwrap();
        assert_eq!(
            output.finish().unwrap(),
            TaskEnd::Descriptor { bytes: 2 * INLINE_MAX_BYTES as u64 + 100 }
        );
    });
    let file = kept.take().unwrap();
    let expected = [vec![7; INLINE_MAX_BYTES], vec![8; INLINE_MAX_BYTES], vec![9; 100]].concat();
    assert_eq!((asked.get(), bytes_of(&file) == expected), (1, true));
    assert_eq!(sealed_size(file.as_fd()).unwrap(), Some(expected.len() as u64));
    asking(&ring, &give, |mut output| {
        output.write_all(&[7; 20_001]).unwrap();
        let failure = output.finish().unwrap_err().to_string();
        assert!(failure.contains("20000 bytes"), "the room that it was told is its limit: {failure}");
    });
}

#[test]
fn a_long_output_is_asked_for_and_written_in_place() {
    let (_, ring) = rings();
    let kept = Cell::new(None);
    let give = || {
        let file = File::from(output_file("out").unwrap());
        kept.set(Some(file.try_clone().unwrap()));
        Ok((file, 20_000))
    };
    asking(&ring, &give, |mut output| {
        let file = output.long_output(10_000).unwrap();
        file.set_length(10_000).unwrap();
        file.write_all_at(&[7; 100], 9900).unwrap();
        let too_long = file.set_length(20_001).unwrap_err().to_string();
        assert!(too_long.contains("20000 bytes"), "{too_long}");
    });
    asking(&ring, &give, |mut output| {
        let file = output.long_output(10_000).unwrap();
        file.set_length(10_000).unwrap();
        file.write_all_at(&[7; 100], 9900).unwrap();
        assert_eq!(output.finish().unwrap(), TaskEnd::Descriptor { bytes: 10_000 });
    });
    let bytes = bytes_of(&kept.take().unwrap());
    assert_eq!((bytes.len(), &bytes[9899..9901]), (10_000, &[0, 7][..]));
    asking(&ring, &give, |mut output| {
        output.write_all(b"short").unwrap();
        let failure = output.long_output(10_000).map(drop).unwrap_err().to_string();
        assert!(failure.contains("has written output already"), "{failure}");
        assert_eq!(output.finish().unwrap(), TaskEnd::Inline(b"short".to_vec()));
    });
    assert!(kept.take().is_none(), "it asks for none then");
    asking(&ring, &|| Err(io::Error::other("no room (outputs_bytes_max)")), |mut output| {
        let failure = output.long_output(10_000).map(drop).unwrap_err().to_string();
        assert!(failure.contains("no room (outputs_bytes_max)"), "{failure}");
    });
}

#[test]
fn reports_by_a_handle_pass_while_the_task_runs_and_not_after() {
    let (mut ours, descriptors) = Ring::create().unwrap();
    let ring = Arc::new(WorkerRing::map(&[descriptors.box_page, descriptors.orders_page]).unwrap());
    ours.offer(Seq(1), JobId(1), Fence(1));
    assert!(ring.claim(Seq(1)));
    let gate = Arc::new(ReportGate::new(Arc::clone(&ring)));
    let task = |seq| {
        let output = TaskOutput::new(&ring, TaskFiles::default(), Stage::Whole, OutputMode::Inline);
        output.with_gate(&gate, seq)
    };
    let done = || ours.progress().map(|progress| progress.done);
    let first = task(1);
    let reporter = first.reporter();
    reporter.progress(1, 9);
    assert_eq!(done(), Some(1));
    first.end(Ok(()));
    reporter.progress(2, 9);
    assert_eq!(done(), Some(1), "its task has ended");
    let second = task(2);
    reporter.progress(3, 9);
    let own = second.reporter();
    reporter.progress(4, 9);
    assert!(done() == Some(1) && !reporter.is_cancelled(), "another task runs");
    std::thread::scope(|scope| scope.spawn(|| own.progress(5, 9)).join().unwrap());
    assert_eq!(done(), Some(5), "any thread may report");
}

/// Two reports at once would mix their words.
#[test]
fn a_task_reports_only_between_the_reports_of_its_handles() {
    let (_, ring) = rings();
    let (ring, said) = (Arc::new(ring), AtomicBool::new(false));
    let gate = Arc::new(ReportGate::new(Arc::clone(&ring)));
    let output = TaskOutput::new(&ring, TaskFiles::default(), Stage::Whole, OutputMode::Inline);
    let mut output = output.with_gate(&gate, 1);
    let (enter, entered) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let (gate, said) = (&gate, &said);
        let other = scope.spawn(move || {
            gate.report(|_| {
                enter.send(()).unwrap();
                // It proves nothing if the task is late, and cannot fail then.
                (0..10_000).for_each(|_| std::thread::yield_now());
                assert!(!said.load(Ordering::SeqCst), "both report at once");
            });
        });
        entered.recv().unwrap();
        output.say("words of the task");
        said.store(true, Ordering::SeqCst);
        other.join().unwrap();
    });
}

#[test]
fn a_task_that_is_refused_fails_with_the_cause_and_asks_no_more() {
    let (_, ring) = rings();
    let asked = Cell::new(0);
    let refuse = || {
        asked.set(asked.get() + 1);
        Err(io::Error::other("no room (outputs_bytes_max)"))
    };
    asking(&ring, &refuse, |mut output| {
        for _ in 0..3 {
            let text = output.write_all(&[7; INLINE_MAX_BYTES + 1]).unwrap_err().to_string();
            assert!(text.contains("4096") && text.contains("no room (outputs_bytes_max)"), "{text}");
        }
        match output.end(Ok(())) {
            TaskEnd::Failed { text, spilled: 0, .. } => assert!(text.contains("no room"), "{text}"),
            other => panic!("{other:?}"),
        }
    });
    assert_eq!(asked.get(), 1);
}

#[test]
fn what_a_failed_task_wrote_is_kept_in_an_output_that_it_asks_for() {
    let (_, ring) = rings();
    let give = || Ok((File::from(output_file("out").unwrap()), OUTPUT_MAX_BYTES));
    let kept = |answer: &dyn Fn() -> io::Result<(File, u64)>| {
        let end = Cell::new(None);
        asking(&ring, answer, |mut output| {
            output.write_all(&[7; INLINE_MAX_BYTES]).unwrap();
            end.set(Some(output.end(Err(TaskFailure::new("it went wrong").with_output()))));
        });
        end.take().unwrap()
    };
    match kept(&give) {
        TaskEnd::Failed { spilled, inline, .. } => {
            assert_eq!((spilled, inline.len()), (INLINE_MAX_BYTES as u64, 0));
        }
        other => panic!("{other:?}"),
    }
    match kept(&|| Err(io::Error::other("no room"))) {
        TaskEnd::Failed { text, spilled: 0, .. } => assert_eq!(text, "it went wrong"),
        other => panic!("{other:?}"),
    }
}

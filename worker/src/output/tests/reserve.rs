//! Tests of a reserve: used without a question, left for an output that outgrows it, and gone with a refusal.

use super::*;

/// The room of the reserve of these tests.
const RESERVE: u64 = 30_000;
const LONG: usize = RESERVE as usize;

/// A task that may ask has a reserve; gives the file of that.
fn with_reserve(
    ring: &WorkerRing,
    ask: &dyn Fn() -> io::Result<(File, u64)>,
    mode: OutputMode,
    test: impl FnOnce(TaskOutput<'_>),
) -> File {
    let (file, kept) = file_for(FileRole::Output);
    let files = TaskFiles::new(vec![file], OutputRoom { own_bytes: RESERVE, shared_bytes: 0 });
    test(TaskOutput::new(ring, files, Stage::Whole, mode).with_ask(ask));
    kept
}

fn never() -> io::Result<(File, u64)> {
    panic!("the reserve is enough")
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

#[test]
fn what_fits_the_reserve_is_not_asked_for() {
    let (_, ring) = rings();
    for mode in [OutputMode::Auto, OutputMode::Arena] {
        let kept = with_reserve(&ring, &never, mode, |mut output| {
            output.write_all(&pattern(LONG)).unwrap();
            assert_eq!(output.finish().unwrap(), TaskEnd::Descriptor { bytes: RESERVE });
        });
        assert_eq!(bytes_of(&kept), pattern(LONG));
        let kept = with_reserve(&ring, &never, mode, |mut output| {
            output.write_all(b"short").unwrap();
            assert_eq!(output.finish().unwrap(), TaskEnd::Inline(b"short".to_vec()));
        });
        assert!(bytes_of(&kept).is_empty());
    }
    let kept = with_reserve(&ring, &never, OutputMode::Auto, |mut output| {
        let file = output.long_output(10_000).unwrap();
        file.set_length(10_000).unwrap();
        assert_eq!(output.finish().unwrap(), TaskEnd::Descriptor { bytes: 10_000 });
    });
    assert_eq!(bytes_of(&kept).len(), 10_000);
}

#[test]
fn an_output_that_outgrows_the_reserve_is_whole_in_the_file_that_is_asked_for() {
    let (_, ring) = rings();
    let given = Cell::new(None);
    let give = || {
        let file = File::from(output_file("out").unwrap());
        assert!(given.replace(Some(file.try_clone().unwrap())).is_none(), "it asks once");
        Ok((file, 4 * RESERVE))
    };
    let whole = pattern(3 * LONG);
    for piece in [1000, LONG, LONG + 1, 3 * LONG] {
        with_reserve(&ring, &give, OutputMode::Auto, |mut output| {
            whole.chunks(piece).for_each(|bytes| output.write_all(bytes).unwrap());
            assert_eq!(output.finish().unwrap(), TaskEnd::Descriptor { bytes: 3 * RESERVE });
        });
        assert!(bytes_of(&given.take().unwrap()) == whole, "in pieces of {piece}");
    }
    with_reserve(&ring, &give, OutputMode::Auto, |mut output| {
        output.long_output(RESERVE + 1).unwrap().set_length(RESERVE + 1).unwrap();
        assert_eq!(output.finish().unwrap(), TaskEnd::Descriptor { bytes: RESERVE + 1 });
    });
    assert_eq!(bytes_of(&given.take().unwrap()).len(), LONG + 1);
}

#[test]
fn a_refusal_fails_the_task_and_a_failed_task_keeps_its_output_in_the_reserve() {
    let (_, ring) = rings();
    let refuse = || Err(io::Error::other("no room (outputs_bytes_max)"));
    with_reserve(&ring, &refuse, OutputMode::Auto, |mut output| {
        output.write_all(&pattern(LONG)).unwrap();
        let failure = output.write_all(b"more").unwrap_err().to_string();
        assert!(failure.contains("no room (outputs_bytes_max)"), "{failure}");
        assert!(output.files.output.is_none(), "with the question the reserve is gone");
        let end = output.end(Err(TaskFailure::new("it did not look").with_output()));
        assert!(
            matches!(end, TaskEnd::Failed { spilled: 0, ref inline, .. } if inline.is_empty()),
            "{end:?}"
        );
    });
    let kept = with_reserve(&ring, &never, OutputMode::Auto, |mut output| {
        output.write_all(&pattern(LONG)).unwrap();
        let end = output.end(Err(TaskFailure::new("no").with_output()));
        assert!(matches!(end, TaskEnd::Failed { spilled: RESERVE, .. }), "{end:?}");
    });
    assert_eq!(bytes_of(&kept), pattern(LONG));
}

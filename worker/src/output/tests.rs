//! Tests of a task's output, against real pages and a real memfd.

use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use bulkhead_link::supervisor::Ring;
use bulkhead_sys::memfd::{output_file, sealed_size};

use super::*;

fn rings() -> (Ring, WorkerRing) {
    let (ours, descriptors) = Ring::create().unwrap();
    (ours, WorkerRing::map(&[descriptors.box_page, descriptors.orders_page]).unwrap())
}

#[test]
fn short_output_stays_inline_even_with_a_descriptor() {
    let (_, ring) = rings();
    let file = File::from(output_file("out").unwrap());
    let mut output = TaskOutput::new(&ring, Some(file));
    output.write_all(&[7; INLINE_MAX_BYTES]).unwrap();
    assert_eq!(output.finish().unwrap(), Finish::Inline(&[7; INLINE_MAX_BYTES]));
}

#[test]
fn long_output_goes_to_the_descriptor_whole_and_in_order() {
    let (_, ring) = rings();
    let file = File::from(output_file("out").unwrap());
    let kept = file.try_clone().unwrap();
    let mut output = TaskOutput::new(&ring, Some(file));
    let expected: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    for piece in expected.chunks(1000) {
        output.write_all(piece).unwrap();
    }
    assert_eq!(output.finish().unwrap(), Finish::Descriptor { bytes: 3_000_000 });
    assert_eq!(sealed_size(kept.as_fd()).unwrap(), Some(3_000_000));
    let mut bytes = vec![0; 3_000_000];
    kept.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == expected);
}

#[test]
fn too_long_output_names_the_limit_and_fails_the_task_even_if_nobody_looks() {
    let (_, ring) = rings();
    let mut output = TaskOutput::new(&ring, None);
    output.write_all(&[7; INLINE_MAX_BYTES]).unwrap();
    let error = output.write_all(b"x").unwrap_err().to_string();
    assert!(error.contains("4096 bytes") && error.contains("ask for an output descriptor"), "{error}");
    assert!(output.write(b"").is_err(), "an output that failed takes more");
    assert_eq!(output.finish().unwrap_err().to_string(), error);
}

#[test]
fn the_limit_of_a_descriptor_is_met_before_the_kernel_kills() {
    let (_, ring) = rings();
    let mut output = TaskOutput::new(&ring, Some(File::from(output_file("out").unwrap())));
    output.spilled = OUTPUT_MAX_BYTES - 1;
    output.write_all(b"x").unwrap();
    let error = output.write_all(b"x").unwrap_err().to_string();
    assert!(error.contains(&OUTPUT_MAX_BYTES.to_string()), "{error}");
}

#[test]
fn a_death_that_did_not_come_is_taken_back() {
    let (ours, ring) = rings();
    let mut output = TaskOutput::new(&ring, None);
    output.last_breath();
    assert!(ours.last_breath_ns().is_some());
    output.outlive();
    assert_eq!(ours.last_breath_ns(), None);
}

#[test]
fn what_a_failed_task_wrote_is_kept_where_it_fits() {
    let (_, ring) = rings();
    let mut nothing = TaskOutput::new(&ring, None);
    assert_eq!(nothing.keep("no"), Kept::Nothing);
    let mut short = TaskOutput::new(&ring, None);
    short.write_all(b"short").unwrap();
    assert_eq!(short.keep("no"), Kept::Inline(b"short"));
    for length in [INLINE_MAX_BYTES - 1, INLINE_MAX_BYTES, 10_000] {
        let file = File::from(output_file("out").unwrap());
        let kept = file.try_clone().unwrap();
        let mut output = TaskOutput::new(&ring, Some(file));
        output.write_all(&vec![7; length]).unwrap();
        assert_eq!(output.keep("no"), Kept::Descriptor { bytes: length as u64 });
        assert_eq!(sealed_size(kept.as_fd()).unwrap(), Some(length as u64));
        let mut homeless = TaskOutput::new(&ring, None);
        homeless.write_all(&[7; INLINE_MAX_BYTES - 1]).unwrap();
        assert_eq!(homeless.keep("no"), Kept::Nothing);
    }
}

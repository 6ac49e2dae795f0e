//! Payloads: 64 MiB that are in the client's memory go to a job, which reads them all and gives 64 MiB of new bytes
//! back, which the client reads all.
//!
//! Both sides take the same checksums; the client makes its file anew each time, as a pool pickles anew. Not pinned.

use std::fs::File;
use std::io::{Read, Write};

use bulkhead_client::{DaemonClient, JobFile, JobInput, ReceivedOutput, RunOptions, Spec};
use bulkhead_proto::job::OutputMode;
use bulkhead_sys::memfd;
use bulkhead_tests::daemon::{Setup, binary};
use simd_adler32::Adler32;

use crate::figures::{Aim, Figures, median, median_seconds};
use crate::layout;
use crate::peers;

const MEBIBYTES: u64 = 64;
const ROUNDS: usize = 7;
const PIECE: usize = 256 << 10;

pub(crate) fn run(figures: &mut Figures) {
    let worker = binary("bench-worker").display().to_string();
    let config = format!("worker_program = {worker:?}\n");
    let daemon = layout::daemon(&Setup { config, ..Setup::default() });
    let mut client = bulkhead_client::discovery::find(Some(&daemon.socket())).expect("the daemon listens");
    let data: Vec<u8> = (0..MEBIBYTES << 20).map(|at| ((at * 31) >> 3) as u8).collect();
    // What comes back is made of the sum of what went there.
    let sum = simd_adler32::adler32(&data.as_slice());
    let expected = simd_adler32::adler32(&vec![sum as u8; data.len()].as_slice());
    once(&mut client, &data, expected);
    // Alternately, so that a change of the machine's load meets both.
    let (mut ours, mut theirs, mut missing) = (Vec::new(), Vec::new(), None);
    for _ in 0..ROUNDS {
        ours.push(2.0 * MEBIBYTES as f64 / median_seconds(1, || once(&mut client, &data, expected)));
        match peers::python("payload", &[MEBIBYTES, 1], None) {
            Ok(found) => theirs.extend(peers::figure(&found, "ppe_mib_per_s")),
            Err(why) => missing = Some(why),
        }
    }
    let ours = median(ours);
    figures.add("payload_mib_per_s", ours, Aim::None);
    if let Some(why) = missing {
        return figures.note(&format!("no Python peer: {why}"));
    }
    let theirs = median(theirs);
    figures.add("payload_ppe_mib_per_s", theirs, Aim::None);
    figures.add("payload_ratio_ppe", ours / theirs, Aim::AtLeast(4.0));
}

fn once(client: &mut DaemonClient, data: &[u8], expected: u32) {
    let mut file = File::from(memfd::output_file("payload").expect("a memfd"));
    file.write_all(data).expect("there is memory");
    let input = JobInput {
        output: OutputMode::Descriptor,
        files: vec![JobFile::read("in", file)],
        ..JobInput::default()
    };
    let mut run = client.run(Spec::new("noop"), [input], RunOptions::default());
    let end = run.next().expect("one job, one end").expect("the daemon answers").end;
    let ReceivedOutput::File(output) = &end.output else { panic!("{end:?}") };
    assert_eq!(output.bytes(), data.len() as u64);
    let (mut reader, mut piece, mut found) = (output.reader(), vec![0; PIECE], Adler32::new());
    loop {
        match reader.read(&mut piece).expect("it can be read") {
            0 => break,
            count => found.write(&piece[..count]),
        }
    }
    assert_eq!(found.finish(), expected, "all was read there and here");
}

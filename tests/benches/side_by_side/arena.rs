//! Results in arenas of workers beside the same results with a descriptor each, of several lengths.
//!
//! The two take turns in this run, on one daemon and one connection, with several jobs in flight as a client runs them. The kind
//! makes the bytes, so what is compared is the way back alone, until this
//! process has the bytes in memory of its own. The lengths around the bound say where it should be
//! (`BLOCK_MAX_BYTES` in `proto/src/limits.rs`): beyond it a result costs more by its copies than by its descriptor.

use std::io::Read;

use bulkhead_client::{DaemonClient, JobInput, ReceivedOutput, RunOptions, Spec};
use bulkhead_proto::job::OutputMode;

use crate::figures::{Aim, Figures, median, median_seconds};
use crate::on_demand::begin;

const ROUNDS: usize = 7;

/// Name, length, jobs, aim of the ratio.
const CASES: [(&str, usize, usize, Aim); 5] = [
    ("arena_8k", 8 << 10, 8000, Aim::AtLeast(4.0)),
    ("arena_64k", 64 << 10, 3000, Aim::AtLeast(2.0)),
    ("arena_128k", 128 << 10, 1500, Aim::None),
    ("arena_256k", 256 << 10, 800, Aim::None),
    ("arena_1m", 1 << 20, 200, Aim::None),
];

pub(crate) fn run(figures: &mut Figures) {
    let (_daemon, mut client) = begin("inline");
    for (name, bytes, jobs, aim) in CASES {
        let run = |client: &mut DaemonClient, mode| all(client, mode, bytes, jobs);
        run(&mut client, OutputMode::Arena);
        run(&mut client, OutputMode::Descriptor);
        let (mut by_arena, mut by_file) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            by_file.push(median_seconds(1, || run(&mut client, OutputMode::Descriptor)));
            by_arena.push(median_seconds(1, || run(&mut client, OutputMode::Arena)));
        }
        figures.add(&format!("{name}_per_s"), jobs as f64 / median(by_arena.clone()), Aim::None);
        figures.add(&format!("{name}_descriptor_per_s"), jobs as f64 / median(by_file.clone()), Aim::None);
        let ratios = by_file.iter().zip(&by_arena).map(|(file, arena)| file / arena);
        figures.add(&format!("{name}_ratio"), median(ratios.collect()), aim);
    }
}

/// Runs jobs with results of so many bytes, and has the bytes of each.
fn all(client: &mut DaemonClient, output: OutputMode, bytes: usize, jobs: usize) {
    let inputs = (0..jobs).map(|_| JobInput { output, ..JobInput::from(bytes.to_string().into_bytes()) });
    let mut seen = 0;
    for item in client.run(Spec::new("letters"), inputs, RunOptions::default()) {
        let found = match item.expect("the daemon answers").end.output {
            ReceivedOutput::Inline(found) => found,
            ReceivedOutput::File(file) => {
                let mut found = Vec::with_capacity(bytes);
                file.reader().read_to_end(&mut found).expect("it can be read");
                found
            }
            other => panic!("{other:?}"),
        };
        assert_eq!((found.len(), found.last()), (bytes, Some(&b'x')));
        seen += 1;
    }
    assert_eq!(seen, jobs);
}

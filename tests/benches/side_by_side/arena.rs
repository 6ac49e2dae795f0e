//! Results in arenas of workers beside the same results with a descriptor each, of several lengths; then echoes: inputs and results in
//! arenas, inputs alone, and a descriptor for each.
//!
//! The two take turns in this run, on one daemon and one connection, with several jobs in flight as a client runs them. The kind
//! makes the bytes, so what is compared is the way back alone, until this
//! process has the bytes in memory of its own. The lengths around the bound say where it should be
//! (`BLOCK_MAX_BYTES` in `proto/src/limits.rs`): beyond it a result costs more by its copies than by its descriptor. An echo is
//! counted from the bytes in this process's memory to the bytes in its memory; a longer result than the bound goes by descriptor.

use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;

use bulkhead_client::{
    Arena, DaemonClient, JobFile, JobInput, ReceivedOutput, RunOptions, Session, SessionEnd, SessionEvent,
    SessionOptions, Spec,
};
use bulkhead_proto::job::OutputMode;
use bulkhead_sys::memfd;

use crate::figures::{Aim, Figures, median, median_ratio, median_seconds, seconds};
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
    results(figures);
    echoes(figures);
}

fn results(figures: &mut Figures) {
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
        check(item.expect("the daemon answers").end.output, bytes);
        seen += 1;
    }
    assert_eq!(seen, jobs);
}

/// Has the bytes of a result in memory.
fn check(output: ReceivedOutput, bytes: usize) {
    let found = match output {
        ReceivedOutput::Inline(found) => found,
        ReceivedOutput::File(file) => {
            let mut found = Vec::with_capacity(bytes);
            file.reader().read_to_end(&mut found).expect("it can be read");
            found
        }
        other => panic!("{other:?}"),
    };
    assert_eq!((found.len(), found.last()), (bytes, Some(&b'x')));
}

/// Name, length, echoes.
const ECHOES: [(&str, usize, u64); 5] = [
    ("echo_8k", 8 << 10, 6000),
    ("echo_64k", 64 << 10, 2000),
    ("echo_128k", 128 << 10, 1200),
    ("echo_256k", 256 << 10, 600),
    ("echo_1m", 1 << 20, 150),
];
/// Bytes of the arena for inputs, and most echoes that are under way.
const INPUTS_BYTES: usize = 64 << 20;
const UNDER_WAY: u64 = 64;

/// How the bytes of an echo go.
#[derive(Clone, Copy)]
enum EchoWay {
    Descriptors,
    InputByArena,
    Arenas,
}

fn echoes(figures: &mut Figures) {
    let (_daemon, client) = begin("inline");
    let session = Session::over(client, SessionOptions::default()).expect("a new connection");
    let arena = session.register_arena(INPUTS_BYTES).expect("there is memory");
    for (name, bytes, count) in ECHOES {
        let rate = |way| count as f64 / seconds(|| echo((&session, &arena), way, bytes, count));
        let ways = [EchoWay::Descriptors, EchoWay::InputByArena, EchoWay::Arenas];
        ways.iter().for_each(|way| _ = rate(*way));
        let mut rates = [const { Vec::new() }; 3];
        for _ in 0..ROUNDS {
            rates.iter_mut().zip(ways).for_each(|(rates, way)| rates.push(rate(way)));
        }
        let [descriptors, input, both] = rates;
        figures.add(&format!("{name}_input_ratio"), median_ratio(&input, &descriptors), Aim::None);
        figures.add(&format!("{name}_ratio"), median_ratio(&both, &descriptors), Aim::None);
        figures.add(&format!("{name}_per_s"), median(both), Aim::None);
        figures.add(&format!("{name}_descriptors_per_s"), median(descriptors), Aim::None);
    }
}

fn echo((session, arena): (&Session, &Arena), way: EchoWay, bytes: usize, count: u64) {
    let (spec, data) = (Arc::new(Spec::new("echo")), vec![b'x'; bytes]);
    let (mut leader, mut events, mut sent, mut seen) = (session.lead(), Vec::new(), 0, 0);
    while seen < count {
        while sent < count
            && sent - seen < UNDER_WAY
            && let Some(input) = input(arena, way, &data)
        {
            session.submit(sent, &spec, input).expect("it has room");
            sent += 1;
        }
        leader.turn(None, None, &mut events).expect("the daemon answers");
        for event in events.drain(..) {
            let SessionEvent::Job { end: SessionEnd::Ended(end), .. } = event else { panic!("{event:?}") };
            check(end.output, bytes);
            seen += 1;
        }
    }
}

/// `None`: the arena is full.
fn input(arena: &Arena, way: EchoWay, data: &[u8]) -> Option<JobInput> {
    let by_arena = |output| Some(JobInput { output, ..JobInput::from(arena.block(data)?) });
    match way {
        EchoWay::InputByArena => by_arena(OutputMode::Descriptor),
        EchoWay::Arenas => by_arena(OutputMode::Arena),
        EchoWay::Descriptors => {
            let mut file = File::from(memfd::output_file("input").expect("a memfd"));
            file.write_all(data).expect("there is memory");
            let files = vec![JobFile::read("in", file)];
            Some(JobInput { output: OutputMode::Descriptor, files, ..JobInput::default() })
        }
    }
}

//! What a job costs: nanoseconds and bytes, printed and not judged. Run by hand, with optimisation:
//! `cargo test --release -p bulkhead-core -- --ignored --nocapture speed`.
//!
//! It judges nothing: the figures depend on the machine and on who else uses it.

#![allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::time::Instant;

use bulkhead_core::Core;
use bulkhead_core::action::{Action, Output};
use bulkhead_core::event::{Event, Now, Peer, Report, TaskResult};
use bulkhead_proto::client::message::{Request, Submit};
use bulkhead_proto::ids::{ClientId, Tag};
use bulkhead_proto::job::{Payload, Policy};

use crate::rig::config;

fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

fn say(client: u64, tag: u32, attached: bool, count: usize) -> Event {
    let inputs = vec![Payload::default(); count];
    let submit =
        Submit { kind: "quick".to_owned(), policy: Policy::default(), attached, inputs, ..Submit::default() };
    Event::ClientSaid {
        client: ClientId(client),
        tag: Tag(tag),
        request: Request::Submit(submit),
        files: Vec::new(),
    }
}

/// Answers everything that was offered; gives how much that was.
fn work(out: &mut Output, batch: &mut Vec<Event>) -> usize {
    let mut ended = 0;
    for action in out.actions.drain(..) {
        match action {
            Action::Spawn { worker, .. } => {
                batch.extend([
                    Event::WorkerSpawned { worker, pid: 1 },
                    Event::WorkerReady { worker, writes_stack: false },
                ]);
            }
            Action::Offer { worker, seq, .. } => {
                let report = Report {
                    result: TaskResult::Inline(Payload::default()),
                    elapsed_ns: 1000,
                    output_bytes: 0,
                    survivors: Vec::new(),
                };
                batch.push(Event::Finished { worker, seq, report });
                ended += 1;
            }
            Action::TakeBack { worker, seq } => batch.push(Event::TookBack { worker, seq, won: false }),
            _ => {}
        }
    }
    out.records.clear();
    ended
}

#[test]
#[ignore = "a measurement, to be read by people"]
fn speed_of_a_million_jobs() {
    const FRAME: usize = 256;
    const JOBS: usize = 3900 * FRAME;
    let mut core = Core::new(config(2), Now::default());
    let (mut out, mut batch) = (Output::default(), Vec::new());
    for _ in 0..3 {
        core.step(Now::default(), &mut batch, &mut out);
        work(&mut out, &mut batch);
    }
    batch.push(Event::ClientConnected { client: ClientId(1), peer: Peer { uid: 0, admin: true } });
    core.step(Now::default(), &mut batch, &mut out);
    let before = resident_bytes();
    let frames: Vec<Event> = (0..JOBS / FRAME).map(|tag| say(1, tag as u32, true, FRAME)).collect();
    let made = resident_bytes();
    let start = Instant::now();
    for frame in frames {
        batch.push(frame);
        core.step(Now::default(), &mut batch, &mut out);
        out.records.clear();
    }
    let submit = start.elapsed();
    println!("submit: {} ns a job", submit.as_nanos() / JOBS as u128);
    println!("memory: {} B a job (inputs are empty)", (resident_bytes() - before) / JOBS as u64);
    println!("frames: {} B a job before they were taken in", (made - before) / JOBS as u64);
    let start = Instant::now();
    let mut ended = 0;
    let mut turns = 0;
    while ended < JOBS {
        ended += work(&mut out, &mut batch);
        batch.push(Event::ClientFlushed { client: ClientId(1) });
        core.step(Now { mono_ns: turns, wall_us: 0 }, &mut batch, &mut out);
        turns += 1;
    }
    println!(
        "dispatch + finish + deliver: {} ns a job, {turns} turns",
        start.elapsed().as_nanos() / JOBS as u128
    );
}

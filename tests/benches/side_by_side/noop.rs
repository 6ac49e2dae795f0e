//! No-op jobs: a client that submits each, collects each result, and checks it. The library batches.
//!
//! Nothing is pinned: everybody has the whole machine, two workers each. The aim is against
//! `ProcessPoolExecutor.submit`, which is what the same loop in Python does.

use bulkhead_client::{DaemonClient, JobInput, ReceivedOutput, RunOptions, Spec};
use bulkhead_tests::daemon::{Daemon, Setup};
use rayon::prelude::*;

use crate::figures::{Aim, Figures, median, median_seconds};
use crate::{layout, peers};

const JOBS: u64 = 1_000_000;
const PYTHON_JOBS: u64 = 20_000;
const ROUNDS: usize = 5;

pub(crate) fn run(figures: &mut Figures) {
    let daemon = layout::daemon(&Setup::default());
    let mut client = bulkhead_client::discovery::find(Some(&daemon.socket())).expect("the daemon listens");
    all(&mut client, JOBS / 10);
    // Alternately, so that a change of the machine's load meets both.
    let (mut ours, mut theirs, mut others) = (Vec::new(), Vec::new(), None);
    let before = processor_ms(&daemon);
    for round in 0..ROUNDS {
        ours.push(JOBS as f64 / median_seconds(1, || all(&mut client, JOBS)));
        match peers::python("noop", &[PYTHON_JOBS, 1], None) {
            Ok(found) => {
                theirs.extend(peers::figure(&found, "ppe_submit"));
                others = Some(found);
            }
            Err(why) if round == 0 => figures.note(&format!("no Python peer: {why}")),
            Err(_) => {}
        }
    }
    let used_ms = processor_ms(&daemon) - before;
    let ours = median(ours);
    figures.add("noop_jobs_per_s", ours, Aim::None);
    figures.add("noop_supervisor_us_per_job", used_ms * 1000.0 / (JOBS * ROUNDS as u64) as f64, Aim::None);
    if !theirs.is_empty() {
        let theirs = median(theirs);
        figures.add("noop_ppe_submit_per_s", theirs, Aim::None);
        figures.add("noop_ratio_ppe", ours / theirs, Aim::AtLeast(150.0));
    }
    for (name, value) in others.into_iter().flatten().filter(|(name, _)| name != "ppe_submit") {
        figures.add(&format!("noop_{name}_per_s"), value, Aim::None);
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("two threads");
    let rayon = median_seconds(ROUNDS, || {
        let found: Vec<String> =
            pool.install(|| (0..JOBS).into_par_iter().map(|index| index.to_string()).collect());
        assert!(found.iter().enumerate().all(|(index, text)| *text == index.to_string()));
    });
    figures.add("noop_rayon_per_s", JOBS as f64 / rayon, Aim::None);
    layout::unpin();
}

/// Runs so many jobs and checks that each gives its own number back.
fn all(client: &mut DaemonClient, jobs: u64) {
    let inputs = (0..jobs).map(|index| JobInput::from(index.to_string().into_bytes()));
    let mut seen = 0;
    for item in client.run(Spec::new("noop"), inputs, RunOptions::default()) {
        let item = item.expect("the daemon answers");
        assert!(
            matches!(&item.end.output, ReceivedOutput::Inline(bytes) if *bytes == seen.to_string().into_bytes())
        );
        assert_eq!(item.index, seen);
        seen += 1;
    }
    assert_eq!(seen, jobs);
}

/// Processor time of the supervisor so far, in milliseconds.
fn processor_ms(daemon: &Daemon) -> f64 {
    let stat =
        std::fs::read_to_string(format!("/proc/{}/schedstat", daemon.pid())).expect("the daemon lives");
    stat.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).expect("nanoseconds") / 1e6
}

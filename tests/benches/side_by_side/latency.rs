//! One job at a time: from the call to its checked answer, in two layouts.
//!
//! Beside it, in the same layout, two round trips over a raw socket, which is the least that two processes in a row
//! can do, and `ProcessPoolExecutor.submit(...).result()`.

use std::time::{Duration, Instant};

use bulkhead_client::{DaemonClient, JobInput, ReceivedOutput, RunOptions, Spec};
use bulkhead_proto::client::view::WorkerState;
use bulkhead_tests::daemon::Setup;

use crate::figures::{Aim, Figures, median, median_ratio, quantile_us};
use crate::layout::{self, Echo, Layout};
use crate::peers;

const JOBS: usize = 2000;
const PYTHON_JOBS: u64 = 3000;
/// Each has its jobs in each round, so that a change of the machine's load meets all.
const ROUNDS: usize = 9;
const PYTHON_ROUNDS: usize = 3;

pub(crate) fn run(figures: &mut Figures) {
    for (layout, word) in Layout::ALL {
        let daemon = layout::daemon(&Setup::default());
        daemon.await_worker(WorkerState::Spare);
        layout.apply(&daemon);
        let mut client =
            bulkhead_client::discovery::find(Some(&daemon.socket())).expect("the daemon listens");
        one_by_one(&mut client, JOBS);
        let mut echo = Echo::on(layout.worker_core());
        let (mut ours, mut raw, mut spans) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            raw.push(quantile_us(&mut echo.two_round_trips(JOBS), 500));
            let mut round = one_by_one(&mut client, JOBS);
            ours.push(quantile_us(&mut round, 500));
            spans.extend(round);
        }
        let p50 = quantile_us(&mut spans, 500);
        figures.add(&format!("latency_{word}_p50_us"), p50, Aim::None);
        figures.add(&format!("latency_{word}_p99_us"), quantile_us(&mut spans, 990), Aim::None);
        let ratio = median_ratio(&ours, &raw);
        figures.add(&format!("latency_{word}_raw_socket_p50_us"), median(raw), Aim::None);
        figures.add(&format!("latency_{word}_p50_ratio_socket"), ratio, Aim::AtMost(1.6));
        match python(layout) {
            Ok(theirs) => {
                figures.add(&format!("latency_{word}_ppe_p50_us"), theirs, Aim::None);
                figures.add(&format!("latency_{word}_p50_ratio_ppe"), p50 / theirs, Aim::AtMost(0.33));
            }
            Err(why) => figures.note(&format!("no Python peer: {why}")),
        }
        layout::unpin();
    }
}

/// The middle one of what a process pool of Python takes, in microseconds.
fn python(layout: Layout) -> Result<f64, String> {
    let arguments = [PYTHON_JOBS, layout.worker_core().into()];
    let rounds: Result<Vec<f64>, String> = (0..PYTHON_ROUNDS)
        .map(|_| {
            let found = peers::python("latency", &arguments, Some(0))?;
            Ok(peers::figure(&found, "p50_us").unwrap_or(f64::NAN))
        })
        .collect();
    rounds.map(median)
}

/// The span of each of so many jobs.
pub(crate) fn one_by_one(client: &mut DaemonClient, jobs: usize) -> Vec<Duration> {
    let spec = Spec::new("noop");
    let mut spans = Vec::with_capacity(jobs);
    for _ in 0..jobs {
        let begun = Instant::now();
        let mut run = client.run(spec.clone(), [JobInput::from(b"word".to_vec())], RunOptions::default());
        let end = run.next().expect("one job, one end").expect("the daemon answers").end;
        spans.push(begun.elapsed());
        assert!(matches!(end.output, ReceivedOutput::Inline(bytes) if bytes == b"word"));
    }
    spans
}

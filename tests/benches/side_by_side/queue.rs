//! A long queue: what a queued job costs in memory, whether submits slow down behind a million of them, and what a
//! neighbour sees beside a flood. Not pinned.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use bulkhead_client::{DaemonClient, JobInput, RunOptions, Spec, SubmitOptions};
use bulkhead_tests::daemon::{Daemon, Setup};

use crate::figures::{Aim, Figures, median, quantile_us, seconds};
use crate::latency::one_by_one;
use crate::layout;

const QUEUED: u64 = 1_000_000;
const BATCH: u64 = 1000;
const FEW: u64 = 1000;
const SAMPLES: u64 = 40;
const NEIGHBOUR_JOBS: usize = 3000;
const ROUNDS: usize = 5;

pub(crate) fn run(figures: &mut Figures) {
    depth(figures);
    flood(figures);
}

/// Two daemons, one with a short queue and one with a long one, and the same submits to both by turns.
fn depth(figures: &mut Figures) {
    let (short, long) = (Queue::of(FEW), Queue::of(0));
    let before = resident_bytes(&long.daemon);
    long.fill(QUEUED);
    let bytes = (resident_bytes(&long.daemon) - before) / QUEUED as f64;
    let pairs = (0..SAMPLES).map(|_| [&short, &long].map(|queue| seconds(|| queue.fill(BATCH))));
    let (ratios, many) = pairs.map(|[few, many]| (many / few, many)).unzip();
    figures.add("queued_bytes_per_job", bytes, Aim::AtMost(180.0));
    figures.add("submit_us_per_job_at_1m", median(many) * 1e6 / BATCH as f64, Aim::None);
    figures.add("submit_cost_ratio_1m_1k", median(ratios), Aim::AtMost(1.3));
}

/// A daemon whose workers are all held for as long as this takes: what is submitted is queued.
struct Queue {
    daemon: Daemon,
    client: RefCell<DaemonClient>,
}

impl Queue {
    fn of(jobs: u64) -> Self {
        let config = format!("queue_max = {}\n", 2 * QUEUED);
        let daemon = layout::daemon(&Setup { config, ..Setup::default() });
        let client = RefCell::new(connect(&daemon));
        submit(&mut client.borrow_mut(), "sleep", 2, b"86400000");
        let queue = Self { daemon, client };
        queue.fill(jobs);
        queue
    }

    fn fill(&self, jobs: u64) {
        submit(&mut self.client.borrow_mut(), "sleep", jobs, b"1");
    }
}

/// Alone and beside a flood, by turns; of each the middle one of the rounds.
fn flood(figures: &mut Figures) {
    let daemon = layout::daemon(&Setup::default());
    let mut neighbour = connect(&daemon);
    one_by_one(&mut neighbour, NEIGHBOUR_JOBS / 10);
    let (mut alone, mut p50, mut p99, mut rates) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.push(quantile_us(&mut one_by_one(&mut neighbour, NEIGHBOUR_JOBS), 990) / 1000.0);
        let flood = Flood::begin(&daemon);
        one_by_one(&mut neighbour, NEIGHBOUR_JOBS / 10);
        let mut beside = one_by_one(&mut neighbour, NEIGHBOUR_JOBS);
        rates.push(flood.end());
        p50.push(quantile_us(&mut beside, 500) / 1000.0);
        p99.push(quantile_us(&mut beside, 990) / 1000.0);
    }
    figures.add("flood_jobs_per_s", median(rates), Aim::None);
    figures.add("flood_alone_p99_ms", median(alone), Aim::None);
    figures.add("flood_p50_ms", median(p50), Aim::None);
    figures.add("flood_p99_ms", median(p99), Aim::AtMost(1.0));
}

/// A client that has as many jobs under way as the library lets it, until it is ended.
struct Flood {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
    begun: Instant,
}

impl Flood {
    fn begin(daemon: &Daemon) -> Self {
        let mut client = connect(daemon);
        let stop = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let inputs = std::iter::repeat_with(|| JobInput::from(b"flood".to_vec()));
            let inputs = inputs.take_while(|_| !over.load(Ordering::Relaxed));
            let run = client.run(Spec::new("noop"), inputs, RunOptions::default());
            run.inspect(|item| assert!(item.is_ok(), "the daemon answers")).count()
        });
        Self { stop, thread, begun: Instant::now() }
    }

    /// Jobs that it ran in each second.
    fn end(self) -> f64 {
        self.stop.store(true, Ordering::Relaxed);
        let jobs = self.thread.join().expect("the flood ends");
        jobs as f64 / self.begun.elapsed().as_secs_f64()
    }
}

fn connect(daemon: &Daemon) -> DaemonClient {
    bulkhead_client::discovery::find(Some(&daemon.socket())).expect("the daemon listens")
}

fn submit(client: &mut DaemonClient, kind: &str, count: u64, input: &[u8]) {
    let inputs = (0..count).map(|_| JobInput::from(input.to_vec()));
    let accepted: u64 = client
        .submit(Spec::new(kind), inputs, SubmitOptions::default())
        .map(|range| range.expect("there is room"))
        .map(|range| range.end - range.start)
        .sum();
    assert_eq!(accepted, count);
}

/// Resident memory of the supervisor.
pub(crate) fn resident_bytes(daemon: &Daemon) -> f64 {
    resident_of(daemon.pid())
}

/// Resident memory of a process.
pub(crate) fn resident_of(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number of KiB") * 1024.0
}

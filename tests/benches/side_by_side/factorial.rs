//! Factorials: the comparison that people read about, against gmpy2 in a pool of two, and CPython by hand.
//!
//! Each gives the number of bits, so that the arithmetic is compared and not the printing. The two-worker speed-up is
//! against a daemon with one worker, and beside what the machine itself can gain (`ceiling.rs`). All take turns, round by
//! round, and ratios are of one round each, since the machine's other load changes. Not pinned.

use bulkhead_client::{DaemonClient, JobInput, RunOptions, Spec};
use bulkhead_tests::daemon::Setup;

use crate::ceiling::Ceiling;
use crate::figures::{Aim, Figures, median, median_ratio, seconds};
use crate::{layout, peers};

const ROUNDS: usize = 9;
/// CPython's own arithmetic takes seconds.
const PYTHON_ROUNDS: u64 = 3;
/// How many of which: few long ones, and many short ones.
const LOADS: [(&str, usize, u64); 2] = [("big", 8, 200_000), ("small", 200, 20_000)];

/// What the rounds of one load gave.
#[derive(Default)]
struct Rounds {
    one: Vec<f64>,
    two: Vec<f64>,
    gains: Vec<f64>,
    gmpy2: Vec<f64>,
}

pub(crate) fn run(figures: &mut Figures) {
    let daemons = [1, 2].map(|workers| layout::daemon(&Setup { workers, ..Setup::default() }));
    let mut clients = [&daemons[0], &daemons[1]]
        .map(|daemon| bulkhead_client::discovery::find(Some(&daemon.socket())).expect("the daemon listens"));
    let (mut speedups, mut ratios, mut gains) = (Vec::new(), Vec::new(), Vec::new());
    for (word, count, number) in LOADS {
        let rounds = measure(&mut clients, count, number);
        speedups.push(median_ratio(&rounds.one, &rounds.two));
        gains.push(median(rounds.gains));
        if !rounds.gmpy2.is_empty() {
            ratios.push(median_ratio(&rounds.two, &rounds.gmpy2));
            figures.add(&format!("factorial_{word}_gmpy2_s"), median(rounds.gmpy2), Aim::None);
        }
        figures.add(&format!("factorial_{word}_1_worker_s"), median(rounds.one), Aim::None);
        figures.add(&format!("factorial_{word}_2_workers_s"), median(rounds.two), Aim::None);
    }
    let least = |values: Vec<f64>| values.into_iter().fold(f64::INFINITY, f64::min);
    figures.add("factorial_ceiling_2", least(gains), Aim::None);
    figures.add("factorial_speedup_2", least(speedups), Aim::AtLeast(1.9));
    match ratios.as_slice() {
        [] => figures.note("no gmpy2: `pip install gmpy2` brings the peer"),
        _ => figures.add(
            "factorial_ratio_gmpy2",
            ratios.iter().copied().fold(0.0, f64::max),
            Aim::AtMost(1.08),
        ),
    }
    for (name, value) in peers::python("factorial", &[PYTHON_ROUNDS], None).into_iter().flatten() {
        figures.add(&format!("factorial_big_{name}"), value, Aim::None);
    }
}

/// One worker, two, bare processes and the peer, by turns.
fn measure(clients: &mut [DaemonClient; 2], count: usize, number: u64) -> Rounds {
    let input = format!("{number} bits");
    let mut bare = Ceiling::start(&["factorial", &count.to_string(), &input]);
    let mut rounds = Rounds::default();
    for round in 0..=ROUNDS {
        let [one, two] = clients.each_mut().map(|client| seconds(|| all(client, count, &input)));
        let gain = bare.gain();
        // The first of each fills caches; the peer warms itself up.
        if round > 0 {
            rounds.one.push(one);
            rounds.two.push(two);
            rounds.gains.push(gain);
            let found = peers::python("gmpy2", &[number, count as u64], None).unwrap_or_default();
            rounds.gmpy2.extend(peers::figure(&found, "gmpy2_s"));
        }
    }
    rounds
}

fn all(client: &mut DaemonClient, count: usize, input: &str) {
    let inputs = (0..count).map(|_| JobInput::from(input.as_bytes().to_vec()));
    let ended = client.run(Spec::new("factorial"), inputs, RunOptions::default());
    assert_eq!(
        ended
            .map(|item| item.expect("the daemon answers").end.output.bytes())
            .filter(|bytes| *bytes > 0)
            .count(),
        count
    );
}

//! Factorials: the comparison that people read about, against gmpy2 in a pool of two, and CPython by hand.
//!
//! Each gives the number of bits, so that the arithmetic is compared and not the printing. The two-worker speed-up is
//! against a daemon with one worker, and beside what the machine itself can gain (`ceiling.rs`). Not pinned.

use bulkhead_client::{Client, JobInput, RunOptions, Spec};
use bulkhead_tests::daemon::Setup;

use crate::figures::{Aim, Figures, median, seconds};
use crate::layout;
use crate::{ceiling, peers};

const ROUNDS: usize = 5;
/// How many of which: few long ones, and many short ones.
const LOADS: [(&str, usize, &str); 2] = [("big", 8, "200000 bits"), ("small", 200, "20000 bits")];

pub(crate) fn run(figures: &mut Figures) {
    let daemons = [1, 2].map(|workers| layout::daemon(&Setup { workers, ..Setup::default() }));
    let mut clients = [&daemons[0], &daemons[1]]
        .map(|daemon| bulkhead_client::places::find(Some(&daemon.socket())).expect("the daemon listens"));
    let peer = peers::python("factorial", &[ROUNDS as u64], None);
    let mut speedups = Vec::new();
    let mut ratios = Vec::new();
    let mut ceilings = Vec::new();
    // Workers that have run nothing pay for their first pages; the peers' have been warmed up too.
    for client in &mut clients {
        LOADS.iter().for_each(|(_, count, input)| all(client, *count, input));
    }
    for (word, count, input) in LOADS {
        let (mut one, mut two) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            one.push(seconds(|| all(&mut clients[0], count, input)));
            two.push(seconds(|| all(&mut clients[1], count, input)));
        }
        let (one, two) = (median(one), median(two));
        figures.add(&format!("factorial_{word}_1_worker_s"), one, Aim::None);
        figures.add(&format!("factorial_{word}_2_workers_s"), two, Aim::None);
        speedups.push(one / two);
        ceilings.push(ceiling::of(&["factorial", &count.to_string(), input]));
        if let Ok(found) = &peer
            && let Some(theirs) = peers::figure(found, &format!("gmpy2_{word}_s"))
        {
            figures.add(&format!("factorial_{word}_gmpy2_s"), theirs, Aim::None);
            ratios.push(two / theirs);
        }
    }
    let least = |values: Vec<f64>| values.into_iter().fold(f64::INFINITY, f64::min);
    figures.add("factorial_ceiling_2", least(ceilings), Aim::None);
    figures.add("factorial_speedup_2", least(speedups), Aim::AtLeast(1.9));
    match ratios.as_slice() {
        [] => figures.note("no gmpy2: `pip install gmpy2` brings the peer"),
        _ => figures.add(
            "factorial_ratio_gmpy2",
            ratios.iter().copied().fold(0.0, f64::max),
            Aim::AtMost(1.08),
        ),
    }
    for (name, value) in peer.into_iter().flatten().filter(|(name, _)| name.starts_with("cpython")) {
        figures.add(&format!("factorial_big_{name}"), value, Aim::None);
    }
}

fn all(client: &mut Client, count: usize, input: &str) {
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

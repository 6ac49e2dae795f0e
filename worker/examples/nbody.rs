//! A worker program for an ensemble of n-body runs: each job is one run with its own seed, so the runs spread over
//! the workers and one that dies takes no other with it.
//!
//! Input: `{"seed": 7, "bodies": 40, "steps": 2000}`. Output: the energy at both ends and how far it drifted, which
//! tells whether the steps were small enough. Bodies start in a ball at rest and attract each other; the method is
//! velocity Verlet with softened forces. Deterministic: the same seed gives the same bits on the same machine.
//!
//! Shows what a longer kind does: types for input and output, progress, last words, errors in its own words, and an end
//! of its own when its job is cancelled, for which `[kinds.nbody]` gives it time: `cancel_grace_ms = 1000`.

use std::process::ExitCode;

use bulkhead_worker::{Registry, TaskContext, TrackingAllocator, run};
use serde::{Deserialize, Serialize};

/// So that a run that wants too much memory dies with the number of bytes it wanted.
#[global_allocator]
static ALLOCATOR: TrackingAllocator = TrackingAllocator;

const STEP: f64 = 1e-3;
/// Keeps two bodies that meet from throwing each other out; in the unit of length.
const SOFTENING: f64 = 0.05;
/// Steps between two reports of progress.
const REPORT_EVERY: u64 = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ensemble {
    seed: u64,
    bodies: usize,
    steps: u64,
}

#[derive(Serialize)]
struct EnsembleResult {
    seed: u64,
    energy_before: f64,
    energy_after: f64,
    drift: f64,
}

#[derive(Clone, Copy, Default)]
struct Body {
    at: [f64; 3],
    speed: [f64; 3],
    pull: [f64; 3],
}

fn simulate(ensemble: Ensemble, task: &mut dyn TaskContext) -> Result<EnsembleResult, String> {
    let Ensemble { seed, bodies, steps } = ensemble;
    if !(2..=10_000).contains(&bodies) {
        return Err(format!("{bodies} bodies are not from 2 to 10000"));
    }
    let mut bodies = ball(seed, bodies);
    attract(&mut bodies);
    let energy_before = energy(&bodies);
    for step in 0..steps {
        advance(&mut bodies);
        if step % REPORT_EVERY == 0 {
            if task.is_cancelled() {
                return Err(format!("cancelled at step {step}"));
            }
            task.progress(step, steps);
            task.say(&format!("seed {seed}: step {step}"));
        }
    }
    let energy_after = energy(&bodies);
    let drift = ((energy_after - energy_before) / energy_before).abs();
    if drift.is_finite() {
        Ok(EnsembleResult { seed, energy_before, energy_after, drift })
    } else {
        Err(format!("seed {seed} has lost its energy after {steps} steps: use fewer bodies"))
    }
}

/// Bodies at rest in a ball around the origin.
fn ball(seed: u64, count: usize) -> Vec<Body> {
    let mut state = seed;
    // SplitMix64 (Steele, Lea and Flood, 2014), the upper bits as a number from -1 to 1.
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    };
    let mut bodies = Vec::with_capacity(count);
    while bodies.len() < count {
        let at = [next(), next(), next()];
        if square(at) <= 1.0 {
            bodies.push(Body { at, ..Body::default() });
        }
    }
    bodies
}

/// One step of velocity Verlet.
fn advance(bodies: &mut [Body]) {
    for body in bodies.iter_mut() {
        for axis in 0..3 {
            body.speed[axis] += body.pull[axis] * STEP / 2.0;
            body.at[axis] += body.speed[axis] * STEP;
        }
    }
    attract(bodies);
    for body in bodies.iter_mut() {
        for axis in 0..3 {
            body.speed[axis] += body.pull[axis] * STEP / 2.0;
        }
    }
}

/// What each body feels of all the others; their masses add up to 1.
fn attract(bodies: &mut [Body]) {
    let mass = 1.0 / bodies.len() as f64;
    let places: Vec<[f64; 3]> = bodies.iter().map(|body| body.at).collect();
    for body in bodies.iter_mut() {
        body.pull = [0.0; 3];
        for other in &places {
            let way = [other[0] - body.at[0], other[1] - body.at[1], other[2] - body.at[2]];
            let squared = square(way) + SOFTENING * SOFTENING;
            let strength = mass / (squared * squared.sqrt());
            for (pull, part) in body.pull.iter_mut().zip(way) {
                *pull += part * strength;
            }
        }
    }
}

/// Kinetic and potential energy of all bodies together.
fn energy(bodies: &[Body]) -> f64 {
    let mass = 1.0 / bodies.len() as f64;
    let mut sum = 0.0;
    for (index, body) in bodies.iter().enumerate() {
        sum += mass * square(body.speed) / 2.0;
        for other in &bodies[index + 1..] {
            let way = [other.at[0] - body.at[0], other.at[1] - body.at[1], other.at[2] - body.at[2]];
            sum -= mass * mass / (square(way) + SOFTENING * SOFTENING).sqrt();
        }
    }
    sum
}

fn square(vector: [f64; 3]) -> f64 {
    vector.iter().map(|part| part * part).sum()
}

fn main() -> ExitCode {
    run(&Registry::new().typed("nbody", simulate))
}

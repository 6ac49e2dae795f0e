//! Outputs on demand: what a long result costs for which its task asks while it runs, and what a kind whose tasks may ask
//! pays when they do not.
//!
//! Both sides of each ratio are measured by turns in this run. Long results come from one daemon, with several in flight, as a
//! client runs them; how long one takes alone is only reported, because a question is one way more to the daemon and back. Short
//! results come from two daemons that differ in the `output` of their kind alone.

use bulkhead_client::{DaemonClient, JobInput, ReceivedOutput, RunOptions, Spec};
use bulkhead_proto::job::OutputMode;
use bulkhead_tests::daemon::{Daemon, Setup, binary};

use crate::figures::{Aim, Figures, median, median_seconds};
use crate::layout;

/// A result of 64 KiB.
const LONG: usize = 64 << 10;
const LONG_JOBS: usize = 3000;
const SHORT: usize = 10;
const SHORT_JOBS: usize = 500_000;
const ROUNDS: usize = 9;

pub(crate) fn run(figures: &mut Figures) {
    long(figures);
    short(figures);
}

/// A daemon whose kinds `letters` and `echo` have this output, and a client of it.
pub(crate) fn begin(output: &str) -> (Daemon, DaemonClient) {
    let worker = binary("bench-worker").display().to_string();
    let config = format!("worker_program = {worker:?}\n\n");
    let kinds = ["letters", "echo"].map(|kind| format!("[kinds.{kind}]\nring = 256\noutput = {output:?}\n"));
    let config = config + &kinds.concat();
    let daemon = layout::daemon(&Setup { config, ..Setup::default() });
    let client = bulkhead_client::discovery::find(Some(&daemon.socket())).expect("the daemon listens");
    (daemon, client)
}

fn long(figures: &mut Figures) {
    let (_daemon, mut client) = begin("inline");
    let mut run = |mode, at_once: usize| {
        (0..LONG_JOBS / at_once).for_each(|_| all(&mut client, mode, LONG, at_once));
    };
    for (at_once, name, aim) in
        [(LONG_JOBS, "on_demand_64k", Aim::AtMost(1.2)), (1, "on_demand_64k_alone", Aim::None)]
    {
        run(OutputMode::Descriptor, at_once);
        let (mut asked, mut before) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            before.push(median_seconds(1, || run(OutputMode::Descriptor, at_once)));
            asked.push(median_seconds(1, || run(OutputMode::Auto, at_once)));
        }
        let per_job_us = |seconds: &[f64]| median(seconds.to_vec()) * 1e6 / LONG_JOBS as f64;
        figures.add(&format!("{name}_us"), per_job_us(&asked), Aim::None);
        figures.add(&format!("{name}_beforehand_us"), per_job_us(&before), Aim::None);
        let costs = asked.iter().zip(&before).map(|(asked, before)| asked / before);
        figures.add(&format!("{name}_cost"), median(costs.collect()), aim);
    }
}

fn short(figures: &mut Figures) {
    let ((_first, mut plain), (_second, mut auto)) = (begin("inline"), begin("auto"));
    let run = |client: &mut DaemonClient| all(client, OutputMode::Inline, SHORT, SHORT_JOBS);
    run(&mut plain);
    run(&mut auto);
    let (mut may_ask, mut never) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        never.push(median_seconds(1, || run(&mut plain)));
        may_ask.push(median_seconds(1, || run(&mut auto)));
    }
    figures.add("on_demand_short_per_s", SHORT_JOBS as f64 / median(may_ask.clone()), Aim::None);
    let rates = never.iter().zip(&may_ask).map(|(never, may_ask)| never / may_ask);
    figures.add("on_demand_short_ratio", median(rates.collect()), Aim::AtLeast(0.95));
}

/// Runs jobs with results of so many bytes, and checks how long each is.
fn all(client: &mut DaemonClient, output: OutputMode, bytes: usize, jobs: usize) {
    let input = || JobInput { output, ..JobInput::from(bytes.to_string().into_bytes()) };
    let inputs = (0..jobs).map(|_| input());
    let mut seen = 0;
    for item in client.run(Spec::new("letters"), inputs, RunOptions::default()) {
        let item = item.expect("the daemon answers");
        let length = match &item.end.output {
            ReceivedOutput::Inline(found) => found.len() as u64,
            ReceivedOutput::File(found) => found.bytes(),
            other => panic!("{other:?}"),
        };
        assert_eq!(length, bytes as u64);
        seen += 1;
    }
    assert_eq!(seen, jobs);
}

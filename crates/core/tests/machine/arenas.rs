//! Results in arenas: who may put one there, and how their bytes count until nobody holds them.

use bulkhead_core::config::Config;
use bulkhead_core::event::{Event, TaskResult};
use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::outcome::JobOutput;
use bulkhead_proto::ids::{JobId, OutputId};
use bulkhead_proto::job::{OutputMode, Policy};

use crate::rig::{ALICE, Rig, config};

/// A bound of which Alice has 30,000 bytes.
const BOUND: u64 = 40_000;

fn rig(change: impl FnOnce(&mut Config)) -> Rig {
    let mut config = Config { arena_bytes_max: BOUND, ..config(1) };
    change(&mut config);
    Rig::with(config)
}

/// Submits a job with [`OutputMode::Arena`]; gives the mode in the offer of its task.
fn submit(rig: &mut Rig, attached: bool) -> (JobId, OutputMode) {
    let policy = Policy { output: OutputMode::Arena, ..Policy::default() };
    let job = rig.submit_as(ALICE, "quick", 1, policy, attached);
    let mut held = rig.workers.values().flatten();
    let mode = held.find(|held| held.task.job == job).map(|held| held.task.output);
    (job, mode.expect("it is offered"))
}

fn bring(rig: &mut Rig, job: JobId, output: u64, bytes: u64) {
    rig.finish_with(job, TaskResult::InArena { output: OutputId(output), bytes }, 2_000_000);
}

#[test]
fn a_user_with_a_full_share_asks_for_outputs_until_blocks_are_freed() {
    let mut rig = rig(|_| ());
    rig.free = false;
    for output in 1..=4 {
        let (job, mode) = submit(&mut rig, true);
        assert_eq!(mode, OutputMode::Arena, "{output}");
        bring(&mut rig, job, output, 8000);
    }
    // Each was told and dropped, and its client reads on: it counts until the shell says that it is freed.
    assert_eq!(rig.dropped, [1, 2, 3, 4].map(OutputId));
    let (job, mode) = submit(&mut rig, true);
    assert_eq!(mode, OutputMode::Auto, "32,000 bytes are held of 30,000");
    rig.finish(job);
    rig.tell(Event::OutputFreed { output: OutputId(2) });
    let (job, mode) = submit(&mut rig, true);
    assert_eq!(mode, OutputMode::Arena);
    bring(&mut rig, job, 5, 8000);
    let held = rig.status().outputs.held;
    assert_eq!(held, 0, "none of it is memory for outputs");
}

#[test]
fn a_block_is_told_as_an_output_that_is_held() {
    let mut rig = rig(|_| ());
    let (job, _) = submit(&mut rig, false);
    bring(&mut rig, job, 7, 5000);
    let reply = rig.answer(ALICE, Request::Result { job });
    assert!(
        matches!(&reply, Reply::Ended(ended) if ended[0].output == JobOutput::Descriptor { bytes: 5000 })
    );
    rig.change(ALICE, Request::Forget { jobs: vec![job] });
    assert_eq!(rig.dropped, [OutputId(7)]);
}

#[test]
fn without_a_bound_there_are_no_arenas() {
    let mut rig = rig(|config| config.arena_bytes_max = 0);
    assert_eq!(submit(&mut rig, true).1, OutputMode::Auto);
}

/// The output of a kept job that lies in an arena gives no memory for outputs back, so it does not go for that.
#[test]
fn a_kept_block_goes_for_the_bounds_of_kept_outputs_alone() {
    let mut rig = rig(|config| config.keep_outputs_max = 2);
    for output in 1..=3 {
        let (job, mode) = submit(&mut rig, false);
        assert_eq!(mode, OutputMode::Arena);
        bring(&mut rig, job, output, 5000);
    }
    assert_eq!(rig.dropped, [OutputId(1)], "the oldest");
}

//! Deliberate defects of time and number, for `sabotage.rs`: the core is told of other limits than those that hold.
//!
//! The oracles see each request, and the configuration, as they are.

use bulkhead_core::action::Action;
use bulkhead_core::config::Config;
use bulkhead_core::event::Event;
use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::ids::WorkerId;
use bulkhead_proto::job::{JobState, Policy};
use bulkhead_proto::limits::UNCLOSED_MAX;

use crate::sabotage::Sabotage;

/// The configuration as the core gets it.
pub(crate) fn slacken(config: &mut Config, sabotage: Sabotage) {
    match sabotage {
        Sabotage::AllFirst => config.one_first = false,
        Sabotage::EndlessBootstrap => config.bootstrap_ms = u64::from(u32::MAX),
        Sabotage::EndlessLeaving => config.retire_ms = u64::from(u32::MAX),
        Sabotage::EndlessStops => config.stopped_ms = u64::from(u32::MAX),
        Sabotage::PatientWithVanished => config.vanished_ms = config.vanished_ms * 3 + 1000,
        Sabotage::HastyRetries => config.backoff_min_ms = config.backoff_min_ms.div_ceil(20),
        Sabotage::PatientRetries => config.backoff_min_ms *= 5,
        Sabotage::ShallowRings => config.kinds.iter_mut().for_each(|kind| kind.ring = kind.ring.min(16)),
        Sabotage::LongKeep => config.keep_ms = config.keep_ms * 3 + 1000,
        Sabotage::ShortKeep => config.keep_ms /= 2,
        Sabotage::EndlessKeep => {
            let bounds = [&mut config.keep_jobs_max, &mut config.quarantine_max];
            bounds.into_iter().for_each(|bound| *bound = u64::MAX);
        }
        _ => {}
    }
}

/// The policy of a job as the core gets it.
fn slacken_policy(policy: &mut Policy, sabotage: Sabotage) {
    let longer = |limit_ms: u64| limit_ms * 2 + 1000;
    match sabotage {
        Sabotage::LateTimeout => policy.timeout_ms = policy.timeout_ms.map(longer),
        Sabotage::LateNoProgress => policy.no_progress_ms = policy.no_progress_ms.map(longer),
        Sabotage::LateCpu => policy.cpu_ms = policy.cpu_ms.map(longer),
        Sabotage::LateMemory => policy.memory_bytes = policy.memory_bytes.map(|bytes| bytes * 64),
        Sabotage::LateExpiry => policy.expires_ms = policy.expires_ms.map(longer),
        Sabotage::EarlyExpiry => policy.expires_ms = policy.expires_ms.map(|limit_ms| limit_ms.div_ceil(2)),
        _ => {}
    }
}

/// The events as the core gets them.
pub(crate) fn slacken_batch(batch: &mut [Event], sabotage: Sabotage) {
    for event in batch {
        match (sabotage, &mut *event) {
            // As if tasks took no time.
            (Sabotage::HastyDepths, Event::Finished { report, .. }) => report.elapsed_ns /= 100,
            // As if the worker that was spawned before had left them.
            (Sabotage::StrangeStrays, Event::LiveOn { left }) => left.iter_mut().for_each(|left| {
                left.worker = left.worker.map(|worker| WorkerId(worker.0 + 1));
            }),
            _ => {}
        }
        if let Event::ClientSaid { request: Request::Submit(submit), .. } = event {
            slacken_policy(&mut submit.policy, sabotage);
        }
    }
}

/// Whether an event is about files that a worker has to close: any number, or no more than it may have.
pub(crate) fn is_about_files(event: &Event, sabotage: Sabotage) -> bool {
    let Event::Unclosed { files, .. } = event else { return false };
    sabotage == Sabotage::DeafToUnclosed || *files <= UNCLOSED_MAX
}

/// Lists of jobs without the newest of those that have ended, as if it had gone first.
pub(crate) fn hide_newest(actions: &mut [Action]) {
    for action in actions {
        let Action::Reply { reply: Reply::Jobs { rows, .. }, .. } = action else { continue };
        if let Some(at) = rows.iter().rposition(|row| row.state == JobState::Ended) {
            rows.remove(at);
        }
    }
}

//! Deliberate defects of time and number, for `sabotage.rs`: the core is told of other limits than those that hold.
//!
//! The oracles see each request, and the configuration, as they are.

use bulkhead_core::config::Config;
use bulkhead_core::event::Event;
use bulkhead_proto::client::message::Request;
use bulkhead_proto::job::Policy;

use crate::sabotage::Sabotage;

/// The configuration as the core gets it.
pub(crate) fn slacken(config: &mut Config, sabotage: Sabotage) {
    match sabotage {
        Sabotage::EndlessBootstrap => config.bootstrap_ms = u64::from(u32::MAX),
        Sabotage::EndlessLeaving => config.retire_ms = u64::from(u32::MAX),
        Sabotage::EndlessStops => config.stopped_ms = u64::from(u32::MAX),
        Sabotage::PatientWithVanished => config.vanished_ms = config.vanished_ms * 3 + 1000,
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
        if let Event::ClientSaid { request: Request::Submit(submit), .. } = event {
            slacken_policy(&mut submit.policy, sabotage);
        }
    }
}

//! Limits of the configuration: the limits of a job that asks for none, and the most that a job may ask for.

use bulkhead_core::config::{Bound, Config, KindLimits};
use bulkhead_proto::client::message::{Reply, Request, Submit};
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::ids::ClientId;
use bulkhead_proto::job::{Payload, Policy};

use crate::rig::{ADMIN, ALICE, Rig, config};

fn rig() -> Rig {
    let limits = KindLimits {
        timeout_ms: Bound { usual: Some(500), most: Some(2000) },
        no_progress_ms: Bound { usual: None, most: Some(300) },
        cpu_ms: Bound { usual: Some(900), most: None },
        memory_bytes: Bound { usual: Some(8 << 20), most: Some(4 << 20) },
    };
    Rig::with(Config { limits, ..config(1) })
}

/// The limits that a job has: wall, no progress, processor time, memory.
fn granted(rig: &mut Rig, client: ClientId, asked: Policy) -> [Option<u64>; 4] {
    let job = rig.submit_as(client, "quick", 1, asked, false);
    let policy = rig.detail(job).policy;
    [policy.timeout_ms, policy.no_progress_ms, policy.cpu_ms, policy.memory_bytes]
}

#[test]
fn a_job_that_asks_for_nothing_gets_the_usual_limits_within_the_most() {
    let mut rig = rig();
    let got = granted(&mut rig, ALICE, Policy::default());
    assert_eq!(got, [Some(500), Some(300), Some(900), Some(4 << 20)]);
    let got = granted(&mut rig, ADMIN, Policy::default());
    assert_eq!(got, [Some(500), None, Some(900), Some(8 << 20)]);
}

#[test]
fn a_job_may_ask_for_less_and_for_more_up_to_the_most() {
    let mut rig = rig();
    let asked = Policy { timeout_ms: Some(2000), cpu_ms: Some(1 << 30), ..Policy::default() };
    let got = granted(&mut rig, ALICE, Policy { no_progress_ms: Some(7), ..asked });
    assert_eq!(got, [Some(2000), Some(7), Some(1 << 30), Some(4 << 20)]);
}

fn asked(policy: &Policy) -> Option<u64> {
    policy.timeout_ms.or(policy.no_progress_ms).or(policy.memory_bytes)
}

#[test]
fn more_than_the_most_is_for_administrators() {
    let mut rig = rig();
    for (name, policy) in [
        ("timeout_ms 2001 is above 2000", Policy { timeout_ms: Some(2001), ..Policy::default() }),
        ("no_progress_ms 301 is above 300", Policy { no_progress_ms: Some(301), ..Policy::default() }),
        (
            "memory_bytes 5242880 is above 4194304",
            Policy { memory_bytes: Some(5 << 20), ..Policy::default() },
        ),
    ] {
        let inputs = vec![Payload::from(vec![1])];
        let submit = Submit {
            kind: "quick".to_owned(),
            policy: policy.clone(),
            attached: false,
            inputs,
            ..Submit::default()
        };
        let reply = rig.answer(ALICE, Request::Submit(submit));
        let Reply::Refused(Refusal::Denied { needed }) = reply else { panic!("{reply:?}") };
        assert!(needed.contains(name) && needed.contains("administrator"), "{needed}");
        assert!(granted(&mut rig, ADMIN, policy.clone()).contains(&asked(&policy)), "{policy:?}");
    }
}

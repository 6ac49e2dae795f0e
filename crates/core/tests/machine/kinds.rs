//! The rules of a kind for its jobs: limits over the daemon's, budgets, required files, where the output goes.
//!
//! The kind `ruled` has rules of its own; `quick` has those of the daemon.

use bulkhead_core::config::{Bound, Config, KindLimits};
use bulkhead_proto::client::message::{Reply, Request, Submit};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::file::{FileUse, Way};
use bulkhead_proto::ids::ClientId;
use bulkhead_proto::job::{OutputMode, Payload, Policy};
use bulkhead_proto::kind::Kind;

use crate::rig::{ADMIN, ALICE, Rig, SEGV, config};

fn rig_with(ruled: Kind) -> Rig {
    let timeout_ms = Bound { usual: Some(100), most: Some(1000) };
    let mut config = Config { limits: KindLimits { timeout_ms, ..KindLimits::default() }, ..config(1) };
    config.kinds.push(Kind { name: "ruled".to_owned(), ring: 1, ..ruled });
    Rig::with(config)
}

fn submit(rig: &mut Rig, client: ClientId, kind: &str, policy: Policy, files: &[FileUse]) -> Reply {
    let (kind, files) = (kind.to_owned(), files.to_vec());
    let inputs = vec![Payload::default()];
    rig.answer(client, Request::Submit(Submit { kind, policy, files, inputs, ..Submit::default() }))
}

fn granted(rig: &mut Rig, client: ClientId, kind: &str, policy: Policy) -> Policy {
    match submit(rig, client, kind, policy, &[]) {
        Reply::Accepted { first, .. } => rig.detail(first).policy,
        other => panic!("{other:?}"),
    }
}

fn refused(rig: &mut Rig, kind: &str, policy: Policy, files: &[FileUse]) -> String {
    match submit(rig, ALICE, kind, policy, files) {
        Reply::Refused(refusal) => refusal.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn limits_of_a_kind_go_over_those_of_the_daemon() {
    let limits = KindLimits {
        timeout_ms: Bound { usual: Some(5000), most: Some(9000) },
        cpu_ms: Bound { usual: Some(50), most: None },
        ..KindLimits::default()
    };
    let mut rig = rig_with(Kind { limits, ..Kind::default() });
    let got = |policy: &Policy| (policy.timeout_ms, policy.cpu_ms);
    assert_eq!(got(&granted(&mut rig, ALICE, "quick", Policy::default())), (Some(100), None));
    assert_eq!(got(&granted(&mut rig, ALICE, "ruled", Policy::default())), (Some(5000), Some(50)));
    let asked = |timeout_ms| Policy { timeout_ms: Some(timeout_ms), ..Policy::default() };
    assert_eq!(granted(&mut rig, ALICE, "ruled", asked(9000)).timeout_ms, Some(9000));
    assert_eq!(granted(&mut rig, ADMIN, "ruled", asked(9001)).timeout_ms, Some(9001));
    assert!(refused(&mut rig, "ruled", asked(9001), &[]).contains("timeout_ms 9001 is above 9000"));
    assert!(refused(&mut rig, "quick", asked(1001), &[]).contains("timeout_ms 1001 is above 1000"));
    match rig.answer(ALICE, Request::Kinds) {
        Reply::Kinds(kinds) => {
            let shown: Vec<_> = kinds.iter().map(|kind| kind.limits.timeout_ms.most).collect();
            assert_eq!(shown, [Some(1000), Some(1000), Some(1000), Some(9000)], "what holds is shown");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn budgets_of_a_kind_hold_for_jobs_that_name_none() {
    let mut rig = rig_with(Kind { crashes_max: Some(1), retries_max: Some(2), ..Kind::default() });
    let usual = granted(&mut rig, ALICE, "ruled", Policy::default());
    assert_eq!((usual.crashes_max, usual.retries_max), (Some(1), Some(2)));
    let own = Policy { crashes_max: Some(7), retries_max: Some(0), ..Policy::default() };
    let own = granted(&mut rig, ALICE, "ruled", own);
    assert_eq!((own.crashes_max, own.retries_max), (Some(7), Some(0)));
    let other = granted(&mut rig, ALICE, "quick", Policy::default());
    assert_eq!((other.crashes_max, other.retries_max), (Some(3), Some(0)));
}

#[test]
fn one_death_quarantines_a_job_of_a_kind_that_says_so() {
    let mut rig = rig_with(Kind { crashes_max: Some(1), ..Kind::default() });
    let job = rig.submit_as(ALICE, "ruled", 1, Policy::default(), false);
    let worker = rig.claim(job);
    rig.die(worker, SEGV);
    assert!(matches!(rig.outcome(job), Some(Outcome::Crashed { crashes: 1, .. })));
}

#[test]
fn a_job_without_a_file_that_its_kind_needs_is_refused_with_its_name() {
    let needs = vec![FileUse::new("clip", Way::In), FileUse::new("report", Way::Out)];
    let mut rig = rig_with(Kind { needs, ..Kind::default() });
    let clip = FileUse::new("clip", Way::In);
    let said = refused(&mut rig, "ruled", Policy::default(), &[]);
    assert!(said.contains("a ruled job needs a file \"clip\" to read, and none of that name came"), "{said}");
    let said = refused(&mut rig, "ruled", Policy::default(), std::slice::from_ref(&clip));
    assert!(said.contains("needs a file \"report\" to write, and none of that name came"), "{said}");
    let said =
        refused(&mut rig, "ruled", Policy::default(), &[clip.clone(), FileUse::new("report", Way::In)]);
    assert!(said.contains("needs a file \"report\" to write, and it came the other way"), "{said}");
    let made = [clip, FileUse::new("report", Way::Folder)];
    let said = refused(&mut rig, "ruled", Policy::default(), &made);
    assert!(said.contains("names 2 files and 0 came"), "a folder for it does: {said}");
}

#[test]
fn jobs_of_a_kind_with_large_output_get_a_descriptor() {
    let mut rig = rig_with(Kind { output: OutputMode::Descriptor, ..Kind::default() });
    assert_eq!(granted(&mut rig, ALICE, "ruled", Policy::default()).output, OutputMode::Descriptor);
    assert_eq!(granted(&mut rig, ALICE, "quick", Policy::default()).output, OutputMode::Inline);
}

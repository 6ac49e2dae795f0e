//! A thousand hostile workers, one after the other: in the end the daemon has what it had in the beginning.

use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::job::Policy;
use bulkhead_tests::siege::Siege;
use bulkhead_tests::wire::Wire;

/// Attacks that end at once and are charged to their job, so that no backoff stands between them.
const ATTACKS: [&str; 14] = [
    "doorbell-flood-in-a-task",
    "claimed-to-settled",
    "box-of-zeros",
    "box-of-garbage",
    "status-0",
    "length-all-ones",
    "text-that-is-none",
    "descriptor-without-one",
    "kill-in-a-task",
    "fault-in-a-task",
    "child-holds-everything",
    "child-in-a-group-of-its-own",
    "twenty-children",
    "folder-that-nobody-may-read",
];

/// Workers that have attacked when the memory is looked at for the first time, and in the end.
const ATTACKERS: [usize; 2] = [100, 1000];
/// Pages that the daemon may have gained since then, 6 MiB: the 10,000 events and 1,000 deaths that it keeps. Beyond those
/// it gains nothing (ten pages from the 1300th attacker to the 2300th); a box left mapped is more for each than this.
const GAIN_PAGES: u64 = 1536;

/// Baits until so many workers have attacked. A hostile worker may hide what it had begun, or blame a job that it had ended: then
/// the bait is done by an honest one.
fn attack(siege: &Siege, attackers: usize) {
    let once = Policy { crashes_max: Some(1), ..Policy::default() };
    let mut wire = Wire::connect(&siege.daemon.socket());
    while siege.armoury.attacker(attackers - 1).is_none() {
        let ended = siege.run_bait(50, once.clone());
        for end in &ended {
            assert!(matches!(end.outcome, Outcome::Done | Outcome::Crashed { crashes: 1, .. }), "{end:?}");
        }
        // The daemon keeps a thousand quarantined jobs with all that is known of them: nobody asks for these.
        let jobs = ended.iter().map(|end| end.job).collect();
        assert!(matches!(wire.call(Request::Forget { jobs }), Reply::Changed { .. }));
    }
}

#[test]
fn a_thousand_attackers_leave_nothing_behind() {
    // What ended jobs leave is kept, up to a limit that must be met before the memory is looked at first.
    let mut siege = Siege::begin_with(&ATTACKS, ATTACKERS[1], "keep_jobs_max = 500");
    siege.beside_a_neighbour(|siege| {
        attack(siege, ATTACKERS[0]);
        let before = siege.resident_pages();
        attack(siege, ATTACKERS[1]);
        let after = siege.resident_pages();
        println!("resident pages: {before} after {} attackers, {after} after {}", ATTACKERS[0], ATTACKERS[1]);
        assert!(after <= before + GAIN_PAGES, "resident pages: {before} before, {after} after");
    });
    siege.assert_nothing_left();
}

//! Seeds that once failed, and what they found. They stay, although the same seed may come to mean another run
//! when the simulation changes.

use bulkhead_sim::run;

/// The seed, and the bug that it found.
const FOUND: &[(u64, &str)] = &[
    (51_596, "work ahead is given and taken back in one instant, for ever"),
    (15, "work ahead is given and taken back in one instant, for ever"),
    (424, "an old job behind younger ones keeps the deadline in the past"),
];

#[test]
fn what_was_found_once_stays_fixed() {
    for (seed, bug) in FOUND {
        if let Err(failure) = run(*seed) {
            panic!("{bug}: is back, or something like it\n{failure}");
        }
    }
}

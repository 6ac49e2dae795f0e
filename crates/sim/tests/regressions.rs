//! Seeds that once failed, and what they found. They stay, although the same seed may come to mean another run
//! when the simulation changes.

use bulkhead_sim::run;

/// The seed, and the bug that it found.
const FOUND: &[(u64, &str)] = &[];

#[test]
fn what_was_found_once_stays_fixed() {
    for (seed, bug) in FOUND {
        if let Err(failure) = run(*seed) {
            panic!("{bug}: is back, or something like it\n{failure}");
        }
    }
}

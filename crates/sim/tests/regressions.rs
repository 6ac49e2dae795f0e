//! Seeds that once failed, and what they found. They stay, although the same seed may come to mean another run
//! when the simulation changes.

use bulkhead_sim::run;

/// The seed, and the bug that it found.
const FOUND: &[(u64, &str)] = &[
    (13_519, "a worker that goes on in the turn that kills it is taken for one that could hear"),
    (51_596, "work ahead is given and taken back in one instant, for ever"),
    (15, "work ahead is given and taken back in one instant, for ever"),
    (424, "an old job behind younger ones keeps the deadline in the past"),
    (40_766, "a worker that steps back after a lost take-back is looked at for ever"),
    (104_882, "a worker that steps back after a lost take-back is looked at for ever"),
    (10_486, "a client whose end was taken by another one stays parked"),
    (16_234, "a client whose end was taken by another one stays parked"),
    (102_736, "a client whose end was taken by another one stays parked"),
    (1606, "a worker that was told to stop before its spawn failed is waited for"),
    (339, "a turn ends with more logs than may be held, after a late offer"),
    (31, "a job whose log cannot be made is offered in turn after turn"),
    (40, "a job whose log cannot be made is offered in turn after turn"),
    (178, "a job is timed out for time in which nothing ran"),
    (268, "a job is timed out for time in which nothing ran"),
    (24_694, "a list of records that ends with those of others has no end"),
];

#[test]
fn what_was_found_once_stays_fixed() {
    for (seed, bug) in FOUND {
        if let Err(failure) = run(*seed) {
            panic!("{bug}: is back, or something like it\n{failure}");
        }
    }
}

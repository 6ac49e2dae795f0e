//! The fuzz target `lane`: whatever travels on a lane and down a channel. What it does
//! and what must hold stands in `tests/src/fuzz.rs`; nothing is
//! here but the binding to libFuzzer, and `cargo xtask fuzz lane` runs it.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bulkhead_tests::fuzz::lane(data));

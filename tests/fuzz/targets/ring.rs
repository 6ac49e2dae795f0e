//! The fuzz target `ring`: whatever a worker may write into its box. What it does
//! and what must hold stands in `tests/src/fuzz.rs`; nothing is
//! here but the binding to libFuzzer, and `cargo xtask fuzz ring` runs it.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bulkhead_tests::fuzz::ring(data));

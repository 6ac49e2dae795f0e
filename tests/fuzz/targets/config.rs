//! The fuzz target `config`: whatever stands in a config file. What it does
//! and what must hold stands in `tests/src/fuzz.rs`; nothing is
//! here but the binding to libFuzzer, and `cargo xtask fuzz config` runs it.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bulkhead_tests::fuzz::config(data));

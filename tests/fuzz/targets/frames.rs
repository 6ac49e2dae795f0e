//! The fuzz target `frames`: whatever a client sends, and what a daemon answers. What it does
//! and what must hold stands in `tests/src/fuzz.rs`; nothing is
//! here but the binding to libFuzzer, and `cargo xtask fuzz frames` runs it.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bulkhead_tests::fuzz::frames(data));

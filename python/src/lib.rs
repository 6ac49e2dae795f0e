//! The native half of the Python package: `bulkhead._native`.
//!
//! Two halves that share nothing but this file: `Session` in the program that submits calls (`session.rs`, `connection.rs`), and `serve`
//! in the workers that run them (`serve.rs`). It moves bytes and never looks into them. What Python sees of it, with the
//! contract of each name, is `python/bulkhead/_native.pyi`.

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
compile_error!("the Python package bulkhead is for Linux with glibc only");

mod call_rules;
mod call_task;
mod certificates;
mod chunk_places;
mod chunk_task;
mod connection;
mod deliver;
mod input_places;
mod lead_turns;
mod left_threads;
mod long_bytes;
mod memory_file;
mod plain_values;
mod serve;
mod session;
mod told;
mod wait;

use bulkhead_proto::limits::{CONTEXT_BYTES_MAX, INLINE_MAX_BYTES, LAST_WORDS_MAX_BYTES};
use bulkhead_worker::STACK_SIGNAL;
use pyo3::prelude::*;

/// The native half of the package `bulkhead`.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("VERSION", env!("CARGO_PKG_VERSION"))?;
    module.add("INLINE_MAX_BYTES", INLINE_MAX_BYTES)?;
    module.add("INPUT_BLOCK_MAX_BYTES", input_places::INPUT_BLOCK_MAX_BYTES)?;
    module.add("CONTEXT_BYTES_MAX", CONTEXT_BYTES_MAX)?;
    module.add("FILES_MAX", input_places::FILES_MAX)?;
    module.add("LAST_WORDS_MAX_BYTES", LAST_WORDS_MAX_BYTES)?;
    module.add("STACK_SIGNAL", STACK_SIGNAL)?;
    module.add_class::<memory_file::MemoryFile>()?;
    module.add_class::<long_bytes::LongBytes>()?;
    module.add_class::<session::CallSession>()?;
    module.add_class::<call_task::CallTask>()?;
    module.add_class::<chunk_places::ChunkTicket>()?;
    module.add_class::<chunk_places::ChunkEnd>()?;
    module.add_class::<chunk_places::ChunkValues>()?;
    module.add_class::<chunk_task::ChunkResults>()?;
    module.add_function(wrap_pyfunction!(left_threads::join_left, module)?)?;
    module.add_function(wrap_pyfunction!(serve::take_lane, module)?)?;
    module.add_function(wrap_pyfunction!(serve::serve, module)?)
}

//! Where a worker copies files of jobs whose programs cannot reach them under the client's path, and how much.
//!
//! The supervisor puts both into the environment of its workers, and removes the folders of dead workers. A worker gives
//! neither to the programs that it runs.

/// The variable with the folder in which a worker makes its folders.
pub const PLACE_VARIABLE: &str = "BULKHEAD_COPIES";
/// The variable with the most bytes that the copies of one job's inputs, or one copied output, may have.
pub const MAX_VARIABLE: &str = "BULKHEAD_COPIES_MAX";
/// What the names of the folders begin with; a number follows.
pub const FOLDER_PREFIX: &str = ".bulkhead-copies-";
/// The key of the limit in the daemon's configuration.
pub const MAX_KEY: &str = "copies_bytes_max";
/// Its default, in bytes.
pub const MAX_BYTES_USUAL: u64 = 64 << 30;

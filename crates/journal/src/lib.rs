//! The journal: facts on the disk, in one SQLite database in a folder of the daemon's own.
//!
//! | file | what |
//! |---|---|
//! | `opening.rs`, `place.rs`, `fault.rs`, `numbers.rs`, `clock_rule.rs` | the start of a run, and why there is none |
//! | `writer.rs`, `writer_thread.rs`, `session.rs`, `fact_queue.rs`, `answer.rs`, `answer_door.rs` | the thread that writes |
//! | `schema.rs`, `statements.rs`, `apply.rs`, `rows.rs` | tables, the view for people, one fact as statements |
//! | `reader.rs`, `looking_up.rs`, `loading.rs`, `reloading.rs` | what is stored: one job, pages of ended jobs and deaths, unfinished jobs |
//! | `watched_files.rs`, `retention.rs` | what happens to the files, and which ended jobs go |
//!
//! It stores facts and decides nothing about jobs. Only the thread that writes ever waits for the disk.

mod answer_door;
mod apply;
mod clock_rule;
mod connection;
mod fact_queue;
mod place;
mod retention;
mod rows;
mod schema;
mod session;
mod statements;
mod watched_files;
mod writer_thread;

pub mod answer;
pub mod bounds;
pub mod fault;
pub mod loading;
pub mod looking_up;
pub mod numbers;
pub mod opening;
pub mod reader;
pub mod reloading;
pub mod settings;
pub mod writer;

pub use fact_queue::NotQueued;
pub use rows::StoredEnd;

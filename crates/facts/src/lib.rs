//! What is durable of a job: facts, each one change of the durable state, and the state that they add up to.
//!
//! | file | what |
//! |---|---|
//! | `fact.rs` | all facts |
//! | `submit_key.rs` | the key and the digest of a submit |
//! | `durable_job.rs` | a job that has not ended, and what each fact does to it |
//! | `job_to_run.rs` | an unfinished job of an earlier run, as the journal gives it to the core |
//! | `fold.rs` | the durable state of all jobs, fact by fact |
//!
//! Pure: no clock, no I/O, no threads. The journal stores facts and uses the steps of `durable_job.rs` on its rows; the fold
//! is the oracle that its rows are compared with. A fact that does not fit the state changes nothing: [`Misfit`].

pub mod durable_job;
pub mod fact;
pub mod fold;
pub mod job_to_run;
mod misfit;
pub mod submit_key;

pub use misfit::Misfit;

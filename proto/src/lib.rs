//! Every byte that leaves a Bulkhead process, and every limit.
//!
//! Clients, supervisor and workers share these types and nothing else. The crate does no I/O and knows no
//! policy: it says what the words mean and how they look on the wire. A change here is a change of protocol:
//! raise [`limits::PROTOCOL_VERSION`].
//!
//! | modules | spoken by |
//! |---|---|
//! | [`client`] | clients and supervisor: requests, replies, outcomes, rows, records, `why`, exit codes |
//! | [`worker`] | supervisor and workers: messages, the shared pages, the stages of a job |
//! | all others | both: numbers, jobs, kinds, files, registrations, chunks, deaths, limits, logs, the `exec` program, the codec |
//!
//! Neither [`client`] nor [`worker`] knows of the other, and no other module knows of either.

pub mod bound;
pub mod chunk;
pub mod client;
pub mod codec;
pub mod death;
pub mod exec;
pub mod file;
pub mod ids;
pub mod job;
pub mod kind;
pub mod limits;
pub mod log;
pub mod plain;
pub mod registration;
pub mod utc;
pub mod worker;

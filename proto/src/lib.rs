//! Every byte that leaves a Bulkhead process, and every limit.
//!
//! Clients, supervisor and workers share these types and nothing else. The crate does no I/O and knows no
//! policy: it says what the words mean and how they look on the wire. A change here is a change of protocol:
//! raise [`limits::PROTOCOL_VERSION`].

pub mod bound;
pub mod boxes;
pub mod client;
pub mod codec;
pub mod death;
pub mod evidence;
pub mod exec;
pub mod exit;
pub mod file;
pub mod frame;
pub mod ids;
pub mod job;
pub mod kind;
pub mod limits;
pub mod log;
pub mod outcome;
pub mod places;
pub mod plain;
pub mod record;
pub mod record_text;
pub mod refusal;
pub mod stage;
pub mod view;
pub mod why;
mod why_text;
pub mod worker;

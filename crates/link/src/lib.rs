//! The worker channel: what the supervisor and one of its workers share, both halves of it.
//!
//! Tasks go down an ipc channel (this is the only crate that names the library), results come up in the box,
//! and one claim word per offer decides who has a task. The supervisor's half trusts nothing that it reads in
//! a box; it never blocks, except [`supervisor::connect`], which runs in a thread of its own. The worker's
//! half trusts its supervisor.
//!
//! Nothing here knows a job or decides anything: the supervisor's loop and the worker's runtime drive it.

mod ipc_connect;
pub mod supervisor;
mod wire;
pub mod worker;

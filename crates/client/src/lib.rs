//! The blocking client of the Bulkhead daemon: [`discovery::find`] or [`connect::connect`] returns a [`DaemonClient`],
//! whose methods are the daemon's requests.
//!
//! It must never hang on a dead daemon (every wait is a `poll` with a deadline, or ends when the socket closes), never
//! block on a write while the daemon blocks on a write to it (one wait both reads and writes), and never grow without a
//! bound (jobs in flight, buffered replies and unsent bytes each have a limit).
//!
//! ```no_run
//! use bulkhead_client::{JobInput, RunOptions, Spec, discovery};
//! let mut client = discovery::find(None)?;
//! for item in client.run(Spec::new("factorial"), [JobInput::from(b"20".to_vec())], RunOptions::default()) {
//!     println!("{}", item?.end.outcome);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(test)]
#[macro_use]
#[path = "../../../tests/src/skip.rs"]
pub mod skip;

mod accepted_batch;
mod arena;
mod atomic_file;
mod batch;
mod block_allocator;
mod chunk;
mod chunk_outcome;
mod client;
mod closed_gate;
pub mod connect;
mod destination;
pub mod discovery;
mod error;
mod events;
mod file;
mod frame_halves;
mod frame_socket;
mod hidden_folder;
mod inbox;
mod inheritance;
pub mod input_file;
mod interrupt;
mod job_list;
mod kept_file;
mod listener_trust;
mod logs;
mod new_context;
mod notices;
mod output;
mod own_folder;
mod permission;
mod progress;
mod read_arenas;
mod receipts;
mod reorder_buffer;
mod requests;
mod run;
mod session;
mod submit;
mod submit_keys;
mod wait;

pub use arena::{Arena, InputBlock};
pub use atomic_file::AtomicFile;
pub use batch::{JobInput, Spec};
pub use bulkhead_sys::process::umask;
pub use chunk::{Chunk, ItemStore, NotChunked, one_item};
pub use chunk_outcome::{ChunkFault, ChunkOutcome, ChunkStop, CountedResults, ItemResult};
pub use client::DaemonClient;
pub use closed_gate::ClosedGate;
pub use destination::{Destination, FinishedFile, NotPlaced};
pub use error::{ConnectFailure, Error, ProtocolError};
pub use events::{EventBatch, Events};
pub use file::JobFile;
pub use hidden_folder::HiddenFolder;
pub use inheritance::{NotKept, NotKeptKind};
pub use interrupt::{
    InterruptFd, Interrupted, Interrupts, file_size_remedy, start_clean, wait_readable, wait_writable,
};
pub use job_list::JobList;
pub use kept_file::keep_finished;
pub use listener_trust::ListenerTrust;
pub use logs::{JobLog, LOOK_EVERY, LogItem};
pub use new_context::{ContextNumber, NewContext};
pub use output::{JobEnd, OutputReader, ReceivedFile, ReceivedOutput};
pub use own_folder::OwnFolder;
pub use permission::name_user;
pub use progress::JobProgress;
pub use requests::{CancelledWaiting, Changed, Draining, Pong};
pub use run::{Run, RunItem, RunOptions};
pub use session::{
    LeadWait, NotSubmitted, Session, SessionAnswer, SessionEnd, SessionEvent, SessionLeader, SessionOptions,
    SessionQuestion, SessionTurn, SessionWaker, SubmitFault,
};
pub use submit::{Submission, SubmitOptions};
pub use wait::{AwaitedJobs, WaitItem};

/// The modules of the protocol whose types appear in this crate's requests and answers.
///
/// The modules that only workers use, such as the layout of their shared pages, are left out.
pub mod proto {
    pub use bulkhead_proto::{bound, client, death, exec, file, ids, job, kind, limits, log};
}

//! The blocking client of the Bulkhead daemon: [`places::find`] or [`connect::connect`] give a [`Client`], whose
//! methods are the daemon's requests, typed.
//!
//! Three things it must never do: hang on a daemon that is dead (every wait is a `poll` with a deadline, or ends
//! when the socket does), block on a write while the daemon is blocked on us (one wait both reads and writes), and
//! grow without a bound (jobs in flight, held answers and unsent bytes all have a limit).
//!
//! ```no_run
//! use bulkhead_client::{JobInput, RunOptions, Spec, places};
//! let mut client = places::find(None)?;
//! for item in client.run(Spec::new("factorial"), [JobInput::from(b"20".to_vec())], RunOptions::default()) {
//!     println!("{}", item?.end.outcome);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod batch;
mod client;
pub mod connect;
mod denied;
mod draft;
mod error;
mod events;
mod file;
mod inbox;
pub mod intake;
mod interrupt;
mod jobs;
mod live;
mod logs;
mod notices;
mod output;
pub mod places;
mod progress;
mod reorder;
mod requests;
mod run;
mod submit;
mod wait;
mod wire;

pub use batch::{JobInput, Spec};
pub use client::Client;
pub use denied::name_user;
pub use draft::Draft;
pub use error::{ConnectError, Error, Fault};
pub use events::{EventBatch, Events};
pub use file::JobFile;
pub use interrupt::{Bell, Interrupted, Interrupts, wait_readable, wait_writable};
pub use jobs::Jobs;
pub use logs::{JobLog, LOOK_EVERY, LogItem};
pub use output::{JobEnd, Output, OutputFile, OutputReader};
pub use progress::Progress;
pub use requests::{Changed, Draining, Pong};
pub use run::{Run, RunItem, RunOptions};
pub use submit::{Submission, SubmitOptions};
pub use wait::{WaitItem, Waiting};

/// The words of the protocol that this crate's answers are made of, by name.
///
/// What only workers speak, such as the layout of their shared pages, is not among them.
pub mod proto {
    pub use bulkhead_proto::{bound, client, death, exec, file, ids, job, kind, limits, log};
}

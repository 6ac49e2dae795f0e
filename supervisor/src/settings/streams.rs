//! Where the workers' standard output and standard error go.
//!
//! Workers write there themselves: the daemon reads nothing of it and keeps nothing, so a flood costs it neither time nor
//! memory. A pipe that nobody reads blocks the worker that writes. A descriptor that the parent of a private daemon passed goes
//! before the keys of the config. Called by `lib.rs` (`claim`, first of all) and by `settings.rs`.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use bulkhead_sys::passed_descriptor;
use bulkhead_sys::spawner::{ChildStream, ChildStreams};
use serde::Deserialize;

use crate::args::DaemonArgs;

/// The values of the keys `worker_stdout` and `worker_stderr`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum StreamSetting {
    /// To /dev/null.
    Null,
    /// To the daemon's own standard error.
    Stderr,
}

/// Copies of the descriptors that the parent passed for the workers' streams.
#[derive(Debug, Default)]
pub(crate) struct PassedStreams {
    out: Option<OwnedFd>,
    err: Option<OwnedFd>,
}

impl PassedStreams {
    /// Claims the descriptors that the command line names. To be called before the process opens anything.
    ///
    /// # Errors
    /// One is not open, or nothing that programs can write their output to.
    pub(crate) fn claim(args: &DaemonArgs) -> Result<Self> {
        let of = |option: &str, number: Option<i32>| {
            let claimed = number.map(|number| {
                passed_descriptor::claim(number).with_context(|| {
                    format!("{option} {number} is no descriptor for the output of workers: pass one that is open for writing")
                })
            });
            claimed.transpose()
        };
        Ok(Self {
            out: of("--worker-stdout-fd", args.worker_stdout_fd)?,
            err: of("--worker-stderr-fd", args.worker_stderr_fd)?,
        })
    }

    /// Where both streams go; `otherwise` says so for those that no descriptor was passed for.
    pub(super) fn or(self, [out, err]: [StreamSetting; 2]) -> ChildStreams {
        ChildStreams { out: stream(self.out, out), err: stream(self.err, err) }
    }
}

fn stream(passed: Option<OwnedFd>, otherwise: StreamSetting) -> ChildStream {
    match (passed, otherwise) {
        (Some(file), _) => ChildStream::File(file),
        (None, StreamSetting::Null) => ChildStream::Null,
        (None, StreamSetting::Stderr) => ChildStream::OwnStderr,
    }
}

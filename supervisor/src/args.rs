//! The command line of the daemon.
//!
//! Options that are not given come from the config file, then from the defaults: `settings.rs` merges the three. This
//! file decides nothing.

use std::path::PathBuf;

use clap::Parser;

/// Crash-proof process pool: runs jobs in isolated worker processes.
#[derive(Debug, Default, Parser)]
#[command(name = "bulkhead-supervisor", version)]
pub(crate) struct DaemonArgs {
    /// Config file; the files of `conf.d` beside it are read after it, in the order of their names
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Say whether a daemon would start with this config file and its `conf.d`, and end. Its worker programs are asked for
    /// their kinds, one worker of each pool at a time; no daemon is started
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub(crate) check_config: Option<PathBuf>,
    /// Socket to listen on [default: bulkhead.sock in the first folder that the user can have of $XDG_RUNTIME_DIR/bulkhead,
    /// /tmp/bulkhead-UID and $XDG_STATE_HOME/bulkhead]
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Folder for what must outlive the daemon [default: $XDG_STATE_HOME/bulkhead]
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// Workers that run tasks at the same time [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(bulkhead_proto::limits::WORKERS_MAX)))]
    pub(crate) workers: Option<u16>,
    /// Offer the `chaos` kind, whose jobs kill their own workers
    #[arg(long)]
    pub(crate) enable_chaos: bool,
    /// Serve one parent: print `ready` when jobs are taken, stop when standard input ends
    #[arg(long)]
    pub(crate) private: bool,
    /// With --private: an open descriptor of the parent's for the standard output of the workers
    #[arg(long, value_name = "N", requires = "private")]
    pub(crate) worker_stdout_fd: Option<i32>,
    /// With --private: an open descriptor of the parent's for their standard error
    #[arg(long, value_name = "N", requires = "private")]
    pub(crate) worker_stderr_fd: Option<i32>,
    /// With --private: the folder of the socket is for this daemon alone, and goes with it when its parent was killed
    #[arg(long, requires = "private", requires = "socket")]
    pub(crate) own_folder: bool,
    /// With --private: print `ready` when a client can connect. Without it the daemon waits for its first worker
    #[arg(long, requires = "private")]
    pub(crate) ready_when_listening: bool,
}

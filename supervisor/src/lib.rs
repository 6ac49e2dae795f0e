//! The daemon `bulkhead-supervisor`, as a library. [`run`] is the whole program; [`check_config`] checks the text of
//! a config file, for tests and the fuzzer.
//!
//! It reads sockets, lanes, boxes, signals and pidfds, turns what it reads into events for the core, and performs the
//! actions that the core returns. It decides nothing about jobs, and it never waits for a worker, a client or the
//! reader of its log. `turn.rs` is the loop.

mod access_control;
mod args;
mod background_closer;
mod boot_folder;
mod bootstrap;
mod client_files;
mod client_socket;
mod client_table;
mod config_check;
mod connection;
mod daemon;
mod deferred_close;
mod descriptor_budget;
mod log_writer;
mod offer_files;
mod outbox;
mod output_store;
mod partial_frames;
mod perform;
mod poll_source;
mod rate_limit;
mod sampling;
mod service_notifier;
mod settings;
mod setup;
mod spawn;
mod spin_before_sleep;
mod turn;
mod user_quota;
mod worker_process;
mod worker_table;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;

/// Runs the daemon as its command line says. Returns the exit code of the program.
pub fn run() -> ExitCode {
    let args = args::DaemonArgs::parse();
    if args.check_config.is_some() {
        return print_check(args);
    }
    log_writer::install();
    let result = settings::Settings::gather(args).and_then(daemon::serve);
    let code = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("cannot go on: {error:#}");
            ExitCode::FAILURE
        }
    };
    log_writer::finish();
    code
}

/// `--check-config FILE`: checks everything that a start with `--config FILE` checks before it touches the system,
/// and that a worker of each pool starts.
fn print_check(mut args: args::DaemonArgs) -> ExitCode {
    let path = args.check_config.take();
    let shown = path.clone().unwrap_or_default();
    let checked =
        settings::Settings::gather(args::DaemonArgs { config: path, ..args }).and_then(|settings| {
            config_check::check_workers(&settings)
                .with_context(|| format!("{} is not in order", shown.display()))
        });
    match checked {
        Ok(()) => {
            println!("{} is in order", shown.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bulkhead-supervisor: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Parses the text of a config file and returns the core's configuration for a machine with one core. Reads nothing
/// but the text: no file, no clock, no environment.
///
/// # Errors
/// A message that names the fault: the text is no TOML, a key is unknown, a value is out of its range.
pub fn check_config(text: &str) -> Result<bulkhead_core::config::Config, String> {
    settings::core_config_of(text).map_err(|error| format!("{error:#}"))
}

//! The daemon, as a library with two doors: [`run`] for the program, [`check_config`] for whoever has the text of a config.
//!
//! Ears and hands: it reads sockets, lanes, boxes, signals and process ends, tells the core what it saw, and
//! does what the core decides. It draws no conclusion about a job of its own, and never waits for a worker, a
//! client or a log reader.

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

/// Does what the command line says; gives the exit code of the program.
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

/// `--check-config FILE`: all that a start with `--config FILE` would refuse before it touches anything, and whether its
/// workers come up.
fn print_check(mut args: args::DaemonArgs) -> ExitCode {
    let path = args.check_config.take();
    let shown = path.clone().unwrap_or_default();
    let checked = settings::Settings::gather(args::DaemonArgs { config: path, ..args }).and_then(|settings| {
        config_check::check_workers(&settings).with_context(|| format!("{} is not in order", shown.display()))
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

/// What the core would be told by a daemon whose config file has this text, on a machine with one core. Looks at
/// nothing but the text: no file, no clock, no environment.
///
/// # Errors
/// What is wrong with it, in words: no TOML, an unknown key, a value out of its range.
pub fn check_config(text: &str) -> Result<bulkhead_core::config::Config, String> {
    settings::core_config_of(text).map_err(|error| format!("{error:#}"))
}

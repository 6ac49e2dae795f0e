//! `bulkhead-supervisor`: the daemon.
//!
//! Ears and hands: it reads sockets, lanes, boxes, signals and process ends, tells the core what it saw, and
//! does what the core decides. It draws no conclusion about a job of its own, and never waits for a worker, a
//! client or a log reader.

mod args;
mod boot_folder;
mod bootstrap;
mod budget;
mod caller;
mod clients;
mod connection;
mod daemon;
mod door;
mod fleet;
mod held;
mod log_writer;
mod outbox;
mod perform;
mod pulse;
mod restraint;
mod seats;
mod settings;
mod setup;
mod spawn;
mod tell;
mod tokens;
mod turn;
mod unfinished;
mod worker;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    log_writer::install();
    let result = settings::Settings::gather(args::Args::parse()).and_then(daemon::serve);
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

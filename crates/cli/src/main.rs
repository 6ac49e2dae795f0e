//! The `bulkhead` command: one verb for each request that a client can send to the daemon.
//!
//! This file parses the command line, runs the verb and turns its result into an exit code. The verbs stand in `verb/`,
//! one file each, and stay thin: code that they share (inputs, results, texts) stands beside this file. Nothing here
//! decides anything about a job.

mod args;
mod bytes;
mod durability_args;
mod duration;
mod evidence;
mod exec_args;
mod exit;
mod factorial_size;
mod failure_report;
mod index_ranges;
mod inputs;
mod job_args;
mod job_files;
mod job_ids;
mod numbers;
mod output;
mod output_target;
mod plural;
mod private_daemon;
mod private_place;
mod progress;
mod state_names;
mod stdio;
mod symbols;
mod table;
mod time;
mod transform_args;
mod unwritten;
mod verb;
mod write_wait;
mod written_results;

use std::process::ExitCode;

use args::Cli;
use clap::Parser;

fn main() -> ExitCode {
    if let Err(error) = bulkhead_client::start_clean() {
        eprintln!("bulkhead: cannot reset the signals that it was started with: {error}");
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let error = args::name_non_utf8_argument(error);
            // A failed write to stderr is ignored; the exit code still tells.
            drop(error.print());
            let code = if error.use_stderr() {
                bulkhead_proto::client::exit::USAGE
            } else {
                bulkhead_proto::client::exit::DONE
            };
            return ExitCode::from(code);
        }
    };
    start_log(cli.global.verbose);
    match cli.verb.perform(&cli.global) {
        Ok(code) => ExitCode::from(code),
        Err(error) => ExitCode::from(exit::report(&error)),
    }
}

/// Starts the log at the level of `BULKHEAD_LOG`, else of `-v` (info) or `-vv` (debug).
fn start_log(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    env_logger::Builder::from_env(env_logger::Env::new().filter_or("BULKHEAD_LOG", level)).init();
}

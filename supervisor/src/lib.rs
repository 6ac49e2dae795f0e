//! The daemon `bulkhead-supervisor`, as a library. [`run`] is the whole program; [`check_config`] checks the text of
//! a config file, for tests and the fuzzer.
//!
//! It reads sockets, lanes, boxes, signals and pidfds, turns what it reads into events for the core, and performs the
//! actions that the core returns. It decides nothing about jobs, and it never waits for a worker, a client or the
//! reader of its log. `turn.rs` is the loop.

//! # When a resource runs out
//!
//! Each operation that can fail for lack of a resource is refused or waits, reports the resource with its limit, and is
//! retried without help. Running jobs go on. `tests/tests/shortage_*.rs` take these resources away from a running daemon
//! and give them back.
//!
//! | short | where | reported as | retried |
//! |---|---|---|---|
//! | descriptors | accept4(2) (`client_table.rs`) | logged once; clients wait in the listener's queue | every 100 ms |
//! | | output file of a task (`offer_files.rs`) | event, `status`, notice to waiting clients; jobs with large results wait, others run | every 100 ms |
//! | | lane, box, process, channel of a worker (`spawn.rs`) | event `worker did not start` | by the restart policy |
//! | | sweep for strays (`worker_table/reaping.rs`) | logged once; no death is proven, so no job is retried and no slot refilled | every 100 ms |
//! | descriptors in flight | lane of a worker (`spawn.rs`) | event `worker did not start` with the limit and what fills it | by the restart policy |
//! | | output file and files of a task (`offer_files.rs`) | as a shortage of descriptors | every 100 ms |
//! | | reply to a client (`outbox.rs`) | logged once; the reply waits | every 100 ms |
//! | processes, threads | spawner thread, threads of the journal, at the start | the daemon exits with an error | by its service manager |
//! | | worker process, bootstrap thread | event | by the restart policy |
//! | | thread that removes a boot folder | logged | with the next folder |
//! | | thread that removes copies of dead workers | logged | at the next death of a worker |
//! | | background closer's thread | logged once; descriptors count for their users until closed | every 100 ms |
//! | disk space, permission | boot folder full or read-only | event; the worker sends its reason on its lane | by the restart policy |
//! | | boot folder or its parents removed | nothing: they are created again | - |
//! | | lock, state folder, at the start | the daemon exits with an error | - |
//! | | journal (`journal.rs`): full, failing, locked, removed | logged; durable submits are refused with the reason, all else goes on | every second |
//! | | journal at the start (`journal/start.rs`) | its header says when the daemon exits with an error, and when it starts without | - |
//! | | journal at the end | logged with how many facts are not stored, after 10 s | - |
//! | worker program | missing, not executable, ends at once | event with its path, or with how it ended | by the restart policy |
//! | | sends no hello | killed after 10 s, event | by the restart policy |
//! | budgets | queue, its bytes, clients, files of jobs, memory that those pin | refused: `busy` with the limit and when to retry | as jobs end |
//! | | descriptors of clients that are not closed yet | goodbye `busy`, before anything is received | as they are closed |
//! | | descriptors of ours that lie unread in clients' sockets (`unread_descriptors.rs`) | nothing: that connection's replies wait | as they are read |
//! | | stored results, their bytes, their descriptors | event; the oldest are dropped | - |
//! | reader of the log | slow or gone | dropped lines are counted; no thread waits, not even in a panic | - |
//!
//! The restart policy is the core's: a failure delays the next try by at least 0.1 s. Beyond the restart intensity, or when
//! as many workers in a row failed to start as the pool has places, the pool is degraded: `status` gives the latest reason,
//! the delay doubles up to 30 s, and each waiting client gets one notice, and another when the pool is healthy again.
//! The lock keeps a second daemon out, and if the lock file was removed, the answer at the socket does (`setup.rs`). A socket
//! file that was removed is not created again.

#![deny(clippy::wildcard_enum_match_arm)] // a new action, request or record is considered in every match

#[cfg(test)]
#[path = "../../tests/src/shells.rs"]
pub mod shells;
#[cfg(test)]
#[macro_use]
#[path = "../../tests/src/skip.rs"]
pub mod skip;
#[cfg(test)]
#[path = "../../tests/src/state_tables.rs"]
pub mod state_tables;

mod access_control;
mod args;
mod background_closer;
mod boot_folder;
mod bootstrap;
mod client_bytes;
mod client_files;
mod client_socket;
mod client_table;
mod config_check;
mod connection;
mod connection_state;
mod copies_cleaner;
mod daemon;
mod deferred_close;
mod descriptor_budget;
mod heap_trimmer;
mod journal;
mod log_writer;
mod offer_files;
mod outbox;
mod output_store;
mod perform;
mod poll_source;
mod rate_limit;
mod reading_turns;
mod request_share;
mod result_arena;
mod sampling;
mod service_notifier;
mod settings;
mod setup;
mod shell_ledger;
mod socket_place;
mod socket_watch;
mod spawn;
mod spin_before_sleep;
mod turn;
mod unread_descriptors;
mod worker_budget;
mod worker_process;
mod worker_stage;
mod worker_table;

use std::process::ExitCode;

use anyhow::Context;
use bulkhead_sys::heap;
use bulkhead_sys::inherited_signals;
use bulkhead_sys::outer::{self, SplitSide};
use clap::Parser;

/// Runs the daemon as its command line says. Returns the exit code of the program.
pub fn run() -> ExitCode {
    let clean = inherited_signals::start_clean().and_then(|()| inherited_signals::survive_file_size_limit());
    if let Err(error) = clean {
        eprintln!("bulkhead-supervisor: cannot reset the signals that it was started with: {error}");
        return ExitCode::FAILURE;
    }
    let args = args::DaemonArgs::parse();
    if args.check_config.is_some() {
        return print_check(args);
    }
    // Nothing of this process is open yet: a number of the command line is the parent's or nobody's.
    let passed = settings::PassedStreams::claim(&args);
    // A fork copies the calling thread alone, so this comes before the log writer's thread.
    let outer = match outer::split() {
        Ok(SplitSide::Whole) => None,
        Ok(SplitSide::Inner(outer)) => Some(outer),
        Ok(SplitSide::Ended(code)) => return ExitCode::from(code),
        Err(error) => {
            eprintln!("bulkhead-supervisor: cannot start the process that keeps other children: {error}");
            return ExitCode::FAILURE;
        }
    };
    // Before the log writer's thread, see there.
    let descriptors = setup::make_room_for_descriptors();
    log_writer::install();
    if !heap::return_large_blocks() {
        log::debug!("the C library keeps large blocks that are freed");
    }
    let is_private = args.private;
    let result = passed
        .and_then(|passed| settings::Settings::gather(args, passed))
        .and_then(|settings| daemon::serve(settings, descriptors?, outer));
    let code = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("cannot go on: {error:#}");
            if is_private {
                service_notifier::tell_parent(&error);
            }
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
    let args = args::DaemonArgs { config: path, ..args };
    let passed = settings::PassedStreams::claim(&args);
    let settings = passed.and_then(|passed| settings::Settings::gather(args, passed));
    let checked = settings.and_then(|settings| {
        config_check::check_workers(settings).with_context(|| format!("{} is not in order", shown.display()))
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

//! The command line as clap parses it: the global options and the table of verbs.
//!
//! Help texts, usage errors and examples come from these definitions. A usage error ends the command with exit code 2
//! before anything is sent to a daemon. Driven by `main.rs`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use bulkhead_client::discovery::{self, FoundDaemon, SkippedPlace};
use bulkhead_client::{ConnectFailure, DaemonClient, connect};
use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory, Parser, Subcommand};

use crate::exit;
use crate::stdio;
use crate::verb;

/// Runs CPU-bound jobs in isolated worker processes: a job that crashes takes down its own worker and nothing else.
#[derive(Debug, Parser)]
#[command(name = "bulkhead", version, after_help = exit::TABLE, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Adds the argument that is not UTF-8 to a usage error, because clap's message does not name it.
pub(crate) fn name_non_utf8_argument(error: clap::Error) -> clap::Error {
    let odd = |(_, argument): &(usize, OsString)| argument.to_str().is_none();
    match std::env::args_os().enumerate().find(odd) {
        Some((place, argument)) if error.kind() == ErrorKind::InvalidUtf8 => Cli::command().error(
            ErrorKind::InvalidUtf8,
            format!(
                "argument {place} is not UTF-8 text: {argument:?}. Redirect a file with such a name to standard input \
                 or output and write -"
            ),
        ),
        _ => error,
    }
}

/// The options that every verb accepts.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct GlobalArgs {
    /// Socket of the daemon, whoever listens there [default: $BULKHEAD_SOCKET, else your own daemon's, else the system's]
    #[arg(long, value_name = "PATH", global = true)]
    pub(crate) socket: Option<PathBuf>,
    /// Print JSON: one object a line, with stable field names
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print no progress and no line about a job that did not end done
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Log what this command does; twice for more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

impl GlobalArgs {
    /// Connects to the daemon that this command talks to.
    pub(crate) fn connect(&self) -> Result<DaemonClient, ConnectFailure> {
        self.find().map(|found| found.client)
    }

    /// As [`Self::connect`], with the place where the daemon listens, for a command that may have to connect there once more.
    pub(crate) fn find(&self) -> Result<FoundDaemon, ConnectFailure> {
        let found = self.find_within(connect::HELLO_TIMEOUT)?;
        log::info!("connected");
        Ok(found)
    }

    /// As [`Self::connect`], with this deadline for the hello and for each answer.
    pub(crate) fn connect_within(&self, patience: Duration) -> Result<DaemonClient, ConnectFailure> {
        let mut client = self.find_within(patience)?.client;
        client.set_reply_timeout(patience);
        Ok(client)
    }

    fn find_within(&self, patience: Duration) -> Result<FoundDaemon, ConnectFailure> {
        let found = discovery::find_within(self.socket.as_deref(), patience)?;
        self.tell_of(&found.skipped);
        Ok(found)
    }

    /// Says which places for a daemon were passed over, and why.
    pub(crate) fn tell_of(&self, skipped: &[SkippedPlace]) {
        skipped
            .iter()
            .filter(|_| !self.quiet)
            .for_each(|place| stdio::say(format_args!("bulkhead: {place}")));
    }
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Run(verb::run::Args),
    Submit(verb::submit::Args),
    Wait(verb::wait::Args),
    Result(verb::result::Args),
    Logs(verb::logs::Args),
    Cancel(verb::cancel::Args),
    Retry(verb::retry::Args),
    Forget(verb::forget::Args),
    Jobs(verb::jobs::Args),
    Job(verb::job::Args),
    Why(verb::why::Args),
    Deaths(verb::deaths::Args),
    Workers(verb::workers::Args),
    Status(verb::status::Args),
    Events(verb::events::Args),
    Kinds(verb::kinds::Args),
    Drain(verb::drain::Args),
    Ping(verb::ping::Args),
}

impl Verb {
    /// Runs the verb and returns the exit code.
    pub(crate) fn perform(&self, global: &GlobalArgs) -> anyhow::Result<u8> {
        match self {
            Self::Run(args) => args.perform(global),
            Self::Submit(args) => args.perform(global),
            Self::Wait(args) => args.perform(global),
            Self::Result(args) => args.perform(global),
            Self::Logs(args) => args.perform(global),
            Self::Cancel(args) => args.perform(global),
            Self::Retry(args) => args.perform(global),
            Self::Forget(args) => args.perform(global),
            Self::Jobs(args) => args.perform(global),
            Self::Job(args) => args.perform(global),
            Self::Why(args) => args.perform(global),
            Self::Deaths(args) => args.perform(global),
            Self::Workers(args) => args.perform(global),
            Self::Status(args) => args.perform(global),
            Self::Events(args) => args.perform(global),
            Self::Kinds(args) => args.perform(global),
            Self::Drain(args) => args.perform(global),
            Self::Ping(args) => args.perform(global),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_agree_with_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_has_an_example_and_a_line_about_itself() {
        for verb in Cli::command().get_subcommands_mut() {
            let help = verb.render_long_help().to_string();
            let name = verb.get_name().to_owned();
            assert!(help.contains(&format!("bulkhead {name}")), "no example in the help of {name}");
            assert!(verb.get_about().is_some(), "{name} says nothing of itself");
        }
    }

    #[test]
    fn options_may_stand_before_and_behind_the_verb_and_its_kind() {
        for line in [
            "bulkhead --json submit --count 1000 noop",
            "bulkhead submit --count 1000 noop --json",
            "bulkhead submit noop --count 1000 --json",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert!(cli.global.json, "{line}");
            assert!(matches!(cli.verb, Verb::Submit(_)));
        }
    }

    #[test]
    fn a_negative_number_is_an_argument_and_not_an_option() {
        assert!(Cli::try_parse_from(["bulkhead", "run", "factorial", "-3"]).is_ok());
        assert!(Cli::try_parse_from(["bulkhead", "run", "factorial", "--nonsense"]).is_err());
    }
}

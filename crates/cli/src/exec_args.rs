//! The flags of the kind `exec`: the environment and the standard input of its program.
//!
//! They are checked before the command looks for a daemon; standard input is read only with `--stdin`. Driven by
//! `job_args.rs`.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use bulkhead_client::umask;
use bulkhead_proto::exec::Program;
use bulkhead_proto::limits::INLINE_MAX_BYTES;

use crate::exit::UsageError;

/// The flags for the program's environment and standard input.
#[derive(Debug, clap::Args)]
pub(crate) struct ExecArgs {
    /// A variable for the program's environment, which has none of yours; may be repeated
    #[arg(long, help_heading = "Exec", value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// The program gets this command's standard input: a pipe or a file
    #[arg(long, help_heading = "Exec")]
    stdin: bool,
}

/// The encoded input of a job that runs a program.
#[derive(Debug)]
pub(crate) struct ExecInput {
    /// Its input.
    pub(crate) input: Vec<u8>,
    /// The beginning of a standard input that is too long to be part of the input; the rest is still unread.
    pub(crate) stdin: Option<Vec<u8>>,
}

impl ExecArgs {
    /// Encodes these words, the environment, standard input, and the paths of the job's files with their names.
    pub(crate) fn input(
        &self,
        words: &[String],
        paths: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> Result<ExecInput, String> {
        let mut argv: Vec<Vec<u8>> = words.iter().map(|word| word.clone().into_bytes()).collect();
        if let (Some(name), Some(first)) = (words.first(), argv.first_mut()) {
            *first = from_here(name)?;
        }
        let env = self.env.iter().map(|pair| variable(pair)).collect::<Result<_, _>>()?;
        // A missing program is reported before standard input is read.
        let mut program = Program { argv, env, stdin: Vec::new(), paths, umask: umask() };
        let input = program.to_input().map_err(|error| error.to_string())?;
        if !self.stdin {
            return Ok(ExecInput { input, stdin: None });
        }
        program.stdin = read_stdin()?;
        // A standard input that leaves no room for the paths becomes a file too.
        Ok(match program.to_input() {
            Ok(input) if program.fits() => ExecInput { input, stdin: None },
            _ => ExecInput { input, stdin: Some(program.stdin) },
        })
    }

    /// Whether the program gets this command's standard input.
    pub(crate) fn takes_stdin(&self) -> bool {
        self.stdin
    }

    /// Refuses the flags for any kind but `exec`.
    pub(crate) fn refuse_for(&self, kind: &str) -> Result<(), UsageError> {
        if self.stdin || !self.env.is_empty() {
            return Err(UsageError(format!("--env and --stdin are for exec, not for {kind}")));
        }
        Ok(())
    }
}

/// Makes a path with a slash absolute, because the program runs in another folder.
fn from_here(name: &str) -> Result<Vec<u8>, String> {
    if !name.contains('/') {
        return Ok(name.as_bytes().to_vec());
    }
    let path = std::path::absolute(name).map_err(|error| format!("bad path {name:?}: {error}"))?;
    Ok(path.as_os_str().as_bytes().to_vec())
}

fn variable(pair: &str) -> Result<(Vec<u8>, Vec<u8>), String> {
    let (name, value) = pair.split_once('=').ok_or_else(|| format!("--env {pair} is no NAME=VALUE"))?;
    Ok((name.as_bytes().to_vec(), value.as_bytes().to_vec()))
}

/// Reads all of standard input if it fits a job's input, else one byte more than fits.
fn read_stdin() -> Result<Vec<u8>, String> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Err("--stdin: standard input is a terminal: give a pipe or a file".to_owned());
    }
    let mut bytes = Vec::new();
    let read = stdin
        .as_fd()
        .try_clone_to_owned()
        .and_then(|stdin| File::from(stdin).take(INLINE_MAX_BYTES as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|error| format!("--stdin: cannot read standard input: {error}"))?;
    Ok(bytes)
}

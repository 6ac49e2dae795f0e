//! The arguments that describe jobs, shared by `run` and `submit`: kind, inputs, files, policy.
//!
//! All of them are checked before the command looks for a daemon.

use std::path::PathBuf;
use std::time::Duration;

use bulkhead_client::Spec;
use bulkhead_proto::exec::STDIN;
use bulkhead_proto::file;
use bulkhead_proto::job::Policy;
use bulkhead_proto::kind::{CHAOS, EXEC, FACTORIAL, Form, NOOP, SLEEP, TRANSFORM};
use bulkhead_proto::limits::SLEEP_MAX_MS;
use clap::ValueEnum;
use clap::builder::PossibleValuesParser;

use crate::bytes;
use crate::duration;
use crate::exec_args::ExecArgs;
use crate::exit::UsageError;
use crate::inputs::Inputs;
use crate::job_files::{FileArg, InputFileArgs};
use crate::numbers;
use crate::transform_args::TransformArgs;

/// The kind, the inputs and the policy of the jobs.
#[derive(Debug, clap::Args)]
pub(crate) struct JobArgs {
    /// Kind of the jobs; `bulkhead kinds` lists them
    #[arg(value_name = "KIND")]
    kind: String,
    /// Input. For factorial: numbers, ranges such as 1..200 (both ends included), @FILE of them; one job each.
    /// For exec: a program and its arguments, behind --. For transform: a clip, or - for stdin. For other kinds: the
    /// words, joined by blanks, are the input of one job
    #[arg(value_name = "INPUT", allow_negative_numbers = true)]
    inputs: Vec<String>,
    /// Each INPUT is the input of a job of its own, for any kind
    #[arg(long)]
    each: bool,
    /// The form in which a factorial is printed
    #[arg(long = "as", value_name = "FORM", value_parser = PossibleValuesParser::new(Form::NAMES.map(|(name, _)| name)))]
    form: Option<String>,
    /// File of numbers and ranges for factorial, one or many a line, # begins a comment; - is stdin
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The same inputs N times over; noop without an input gets 0, 1, 2, ... instead
    #[arg(long, value_name = "N", default_value_t = 1)]
    count: u64,
    /// The results may be longer than 4096 bytes, up to 1 GiB each; factorial needs no flag for this
    #[arg(long)]
    large: bool,
    /// Number of your choice for jobs of this kind that take about the same time: how many of them wait in a worker then does not
    /// depend on how long others of the kind take; 0 is none
    #[arg(long, value_name = "N", default_value_t = 0)]
    flavour: u32,
    #[command(flatten)]
    chain: TransformArgs,
    #[command(flatten)]
    program: ExecArgs,
    #[command(flatten)]
    files: InputFileArgs,
    #[command(flatten)]
    policy: PolicyArgs,
}

/// The policy of the jobs.
#[derive(Debug, clap::Args)]
struct PolicyArgs {
    /// 0 (last) to 9 (first) among your own jobs; waiting raises it
    #[arg(long, help_heading = "Policy", value_name = "0-9", default_value_t = Policy::default().priority)]
    priority: u8,
    /// Wall time that one attempt may take, such as 5s; then the job is timed out
    #[arg(long, help_heading = "Policy", value_name = "TIME", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// How long one attempt may go without reporting progress, such as 30s; then the job is timed out
    #[arg(long, help_heading = "Policy", value_name = "TIME", value_parser = duration::parse)]
    no_progress: Option<Duration>,
    /// Processor time that one attempt may use, such as 5m; then the job is timed out
    #[arg(long, help_heading = "Policy", value_name = "TIME", value_parser = duration::parse)]
    cpu_time: Option<Duration>,
    /// Memory that one attempt may take, such as 512M; one that takes more crashes
    #[arg(long, help_heading = "Policy", value_name = "SIZE", value_parser = bytes::parse)]
    memory: Option<u64>,
    /// How long a task may take to end by itself after a cancel, a time limit or a stop, at most 60s; 0s kills it at
    /// once [default: its kind's, 2s for programs]
    #[arg(long, help_heading = "Policy", value_name = "TIME", value_parser = duration::parse)]
    grace: Option<Duration>,
    /// How long the job may wait to be started, such as 10m; then it is expired
    #[arg(long, help_heading = "Policy", value_name = "TIME", value_parser = duration::parse)]
    expires: Option<Duration>,
    /// Workers that the job may kill before it is quarantined [default: its kind's, else 3]
    #[arg(long, help_heading = "Policy", value_name = "N")]
    crashes_max: Option<u8>,
    /// Failures of the job's own code that are tried again, with backoff [default: its kind's, else 0]
    #[arg(long, help_heading = "Policy", value_name = "N")]
    retries_max: Option<u8>,
}

/// What to do while the daemon's queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum WhenBusy {
    /// Wait as long as the daemon asks, and go on
    Wait,
    /// End with code 75; jobs that were accepted before stay accepted
    Fail,
}

impl JobArgs {
    /// The kind and the policy that all jobs share.
    pub(crate) fn spec(&self) -> Result<Spec, UsageError> {
        let ms =
            |limit: Option<Duration>| limit.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        let policy = Policy {
            priority: self.policy.priority,
            timeout_ms: ms(self.policy.timeout),
            no_progress_ms: ms(self.policy.no_progress),
            cpu_ms: ms(self.policy.cpu_time),
            memory_bytes: self.policy.memory,
            grace_ms: self.policy.grace.map(|grace| u32::try_from(grace.as_millis()).unwrap_or(u32::MAX)),
            expires_ms: ms(self.policy.expires),
            crashes_max: self.policy.crashes_max,
            retries_max: self.policy.retries_max,
            ..Policy::default()
        };
        match policy.fault() {
            Some(fault) => Err(UsageError(fault)),
            None => Ok(Spec { policy, flavour: self.flavour, ..Spec::new(self.kind.clone()) }),
        }
    }

    /// The grace that the jobs ask for.
    pub(crate) fn grace(&self) -> Duration {
        self.policy.grace.unwrap_or_default()
    }

    /// The kind's name.
    pub(crate) fn kind(&self) -> &str {
        &self.kind
    }

    /// The inputs of the jobs.
    pub(crate) fn inputs(&self) -> Result<Inputs, UsageError> {
        let inputs = self.read_inputs()?;
        Ok(if self.large { inputs.with_large_outputs() } else { inputs })
    }

    /// The files that each job reads.
    pub(crate) fn ins(&self) -> Vec<FileArg> {
        match self.inputs.first() {
            Some(clip) if self.transforms() => vec![FileArg::new(file::IN, clip)],
            _ => self.files.ins.clone(),
        }
    }

    /// Most bytes to copy from a pipe or device.
    pub(crate) fn input_max(&self) -> u64 {
        self.files.input_max
    }

    fn read_inputs(&self) -> Result<Inputs, UsageError> {
        if self.transforms() {
            return self.transform();
        }
        self.chain.refuse_for(&self.kind)?;
        if self.kind == FACTORIAL {
            return self.factorials().map_err(UsageError);
        }
        if self.form.is_some() || self.file.is_some() {
            return Err(UsageError(format!("--as and --file are for factorial, not for {}", self.kind)));
        }
        if self.runs_programs() {
            return self.programs().map_err(UsageError);
        }
        self.program.refuse_for(&self.kind)?;
        if self.each {
            if self.inputs.is_empty() {
                return Err(UsageError(
                    "--each is given without an input: give an input for each job".to_owned(),
                ));
            }
            return Inputs::texts(self.inputs.clone(), self.count).map_err(UsageError);
        }
        let text = self.inputs.join(" ");
        match self.kind.as_str() {
            NOOP if self.inputs.is_empty() => Inputs::places(self.count),
            CHAOS if text.is_empty() => {
                Err("chaos needs a mode as its input: `bulkhead kinds` lists the modes".to_owned())
            }
            SLEEP => check_sleep(&text).and_then(|()| Inputs::text(text, self.count)),
            _ => Inputs::text(text, self.count),
        }
        .map_err(UsageError)
    }

    /// Whether the jobs run programs, whose output is printed as it is.
    pub(crate) fn runs_programs(&self) -> bool {
        self.kind == EXEC
    }

    /// Whether the job transforms a clip: its files then come from INPUT and -o.
    pub(crate) fn transforms(&self) -> bool {
        self.kind == TRANSFORM
    }

    fn transform(&self) -> Result<Inputs, UsageError> {
        self.program.refuse_for(&self.kind)?;
        if self.inputs.len() != 1 {
            return Err(UsageError(
                "transform needs one clip as its input: give a file, or - for standard input".to_owned(),
            ));
        }
        let wrong = [
            (self.form.is_some() || self.file.is_some(), "--as and --file are for factorial"),
            (self.each || self.count != 1, "--each and --count make several jobs: transform makes one"),
            (!self.files.ins.is_empty(), "--in is not for transform: its only input file is the clip"),
        ];
        match wrong.into_iter().find(|(is_so, _)| *is_so) {
            Some((_, said)) => Err(UsageError(said.to_owned())),
            // A clip is too long to be inline. So unless the job writes into a file of the client, its output goes into
            // a descriptor.
            None => Inputs::text(self.chain.text()?, 1).map(Inputs::with_large_outputs).map_err(UsageError),
        }
    }

    fn programs(&self) -> Result<Inputs, String> {
        if self.each {
            return Err("--each is not for exec: its words are one program and its arguments".to_owned());
        }
        if self.program.takes_stdin() && self.files.ins.iter().any(|one| one.name == STDIN) {
            return Err(
                "--stdin and --in stdin=PATH both give the program a standard input: give only one of them"
                    .to_owned(),
            );
        }
        let paths = self.files.ins.iter().filter_map(FileArg::named_path).collect();
        Inputs::program(self.inputs.join(" "), self.program.input(&self.inputs, paths)?, self.count)
    }

    fn factorials(&self) -> Result<Inputs, String> {
        let mut ranges = Vec::new();
        for input in &self.inputs {
            if Form::named(input).is_some() {
                return Err(format!("{input:?} is a form, not a number: write --as {input}"));
            }
            numbers::parse_argument(input, &mut ranges)?;
        }
        if let Some(path) = &self.file {
            numbers::read_file(path, &mut ranges)?;
        }
        if ranges.is_empty() {
            return Err(
                "factorial needs a number as its input: give numbers, ranges such as 1..200, or --file FILE"
                    .to_owned(),
            );
        }
        let form = self.form.as_deref().and_then(Form::named).unwrap_or_default();
        Inputs::numbers(&ranges, form, self.count)
    }
}

fn check_sleep(text: &str) -> Result<(), String> {
    match text.parse::<u64>() {
        Ok(ms) if ms <= SLEEP_MAX_MS => Ok(()),
        _ => Err(format!("sleep of {text:?}: give whole milliseconds from 0 to {SLEEP_MAX_MS}")),
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_proto::exec::Program;
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct JobArgsCommand {
        #[command(flatten)]
        jobs: JobArgs,
    }

    fn read(line: &str) -> Result<Vec<String>, String> {
        let words = std::iter::once("x").chain(line.split_whitespace());
        let jobs = JobArgsCommand::try_parse_from(words).map_err(|error| error.to_string())?.jobs;
        jobs.spec().map_err(|usage| usage.0)?;
        let inputs = jobs.inputs().map_err(|usage| usage.0)?;
        Ok(inputs.jobs().map(|job| String::from_utf8(job.bytes).unwrap()).collect())
    }

    #[test]
    fn each_kind_has_its_inputs() {
        for (line, inputs) in [
            ("factorial 20 --as sha256", vec!["20 sha256"]),
            ("factorial 1..3 9", vec!["1 decimal", "2 decimal", "3 decimal", "9 decimal"]),
            ("noop --count 3", vec!["0", "1", "2"]),
            ("noop", vec!["0"]),
            ("noop hello world --count 2", vec!["hello world", "hello world"]),
            ("sleep 100", vec!["100"]),
            ("chaos exit:3", vec!["exit:3"]),
            ("own-kind a b", vec!["a b"]),
            ("transform --rotate 90 in.y4m --gray", vec!["rotate=90,gray"]),
        ] {
            assert_eq!(read(line).unwrap(), inputs, "{line}");
        }
        let program =
            Program { argv: vec![b"true".to_vec()], umask: bulkhead_client::umask(), ..Program::default() };
        let encoded = String::from_utf8(program.to_input().unwrap()).unwrap();
        assert_eq!(read("exec -- true").unwrap(), [encoded]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, fault) in [
            ("factorial", "factorial needs a number as its input"),
            ("factorial -3", "negative"),
            ("factorial 2.5", "whole number"),
            ("factorial 10000001", "from 0 to 10000000"),
            ("factorial 5 --as roman", "possible values"),
            ("factorial 5 hex", "write --as hex"),
            ("chaos", "chaos needs a mode as its input"),
            ("noop --as hex", "for factorial"),
            ("sleep", "sleep of \"\""),
            ("sleep 5s", "sleep of \"5s\""),
            ("sleep 86400001", "86400000"),
            ("exec", "exec of what"),
            ("exec --each a b", "--each is not for exec"),
            ("exec --stdin --in stdin=a true", "give only one of them"),
            ("exec --env PATH true", "--env PATH is no NAME=VALUE"),
            ("noop --env A=b", "for exec, not for noop"),
            ("sleep --stdin 5", "for exec, not for sleep"),
            ("transform --gray", "transform needs one clip as its input"),
            ("transform a b --gray", "transform needs one clip as its input"),
            ("transform a", "no operation is given for transform"),
            ("transform a --scale 5", "give scale a size"),
            ("transform a --gray --in b=c", "--in is not for transform"),
            ("transform a --gray --count 2", "transform makes one"),
            ("transform a --gray --env A=b", "for exec, not for transform"),
            ("noop a --gray", "gray is an operation of transform and cannot be used with noop"),
            ("noop --in b", "NAME=PATH"),
            ("noop --count 0", "--count 0 makes no job"),
            ("noop --priority 10", "priority 10"),
            ("noop --crashes-max 0", "crashes_max 0"),
            ("noop --timeout 5", "needs a unit"),
            ("noop --timeout 0s", "time limit"),
            ("noop --no-progress 0s", "time limit"),
            ("noop --cpu-time 31d", "time limit"),
            ("noop --memory 512", "needs a unit"),
            ("noop --memory 512K", "memory limit"),
            ("noop --expires 31d", "time limit"),
            ("noop --grace 2", "needs a unit"),
            ("noop --grace 61s", "a grace of 61000 ms is not from 0 to 60000 ms"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.contains(fault), "{line}: {error}");
        }
    }
}

//! `bulkhead run`: submits jobs, prints their results as they arrive, and ends when all jobs have ended.
//!
//! The jobs are attached: they belong to this command. Ctrl-C cancels the jobs that have not ended. If no daemon runs,
//! the command starts a private one that ends with it. If the command ends before all jobs have, the results of `-o` are
//! kept beside their file, and a line names the jobs that are missing.
//!
//! The daemon holds each result until it is reported as received: after the flush that wrote it to stdout or a pipe, or
//! when the file of `-o` has its name. So a command that is killed, or cannot write, leaves its results for
//! `bulkhead result`. A closed stdout says nothing, and leaves them too. A result that the job itself writes into the
//! file of `-o` never is with the daemon, and is not held.

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use bulkhead_client::{
    ConnectFailure, DaemonClient, Error, InterruptFd, Interrupts, JobInput, ReceivedOutput, Run, RunItem,
    RunOptions,
};
use bulkhead_proto::client::exit;
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_views::end;

use crate::args::GlobalArgs;
use crate::exit::{CombinedExit, DaemonNotStarted, UsageError, first_error, is_quiet, while_waiting};
use crate::failure_report::{self, CrashedJobs};
use crate::inputs::Inputs;
use crate::job_args::{JobArgs, WhenBusy};
use crate::job_files::{FileRequest, JobFiles, OutputFileArgs, OutputFiles};
use crate::output;
use crate::output_target::OutputTarget;
use crate::private_daemon::{PrivateDaemon, PrivateOptions};
use crate::progress::{ProgressDisplay, ProgressMode};
use crate::stdio::{StdoutWriter, say};
use crate::unwritten::UnwrittenResults;
use crate::write_wait;
use crate::written_results::WrittenResults;

const EXAMPLES: &str = "\
Examples:
  bulkhead run factorial 20000 --as sha256
  bulkhead run factorial 1..200 --as digits --with-input
  bulkhead run factorial 1000000 -o digits.txt
  bulkhead run factorial --file numbers.txt --unordered
  bulkhead run noop --count 1000
  bulkhead run --timeout 5s sleep 1000
  bulkhead run transform in.y4m -o out.y4m --scale 320x180 --gray --blur 2 --rotate 90
  ffmpeg -i in.mp4 -f yuv4mpegpipe - | bulkhead run transform - -o - --gray | ffmpeg -i - out.mp4
  bulkhead run exec -- sh -c 'echo hello; exit 3'
  echo text | bulkhead run exec --stdin --env LANG=C -- tr a-z A-Z";

/// Results are written, and reported as received, at least once for so many.
const UNWRITTEN_MAX: u64 = 1024;

/// Runs jobs and prints their results, one a line, in the order of the inputs; for exec, the output of its program
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    jobs: JobArgs,
    /// Print results in the order in which the jobs end
    #[arg(long)]
    unordered: bool,
    /// Print each input and a tab before its result
    #[arg(long)]
    with_input: bool,
    /// Write the results to a file, which appears when all jobs have ended and at least one was done; until then an
    /// older file stays; - is stdout. The result of a single job is written byte for byte. If the command ends before all
    /// jobs have, what was done is kept as FILE.partial
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    outs: OutputFileArgs,
    /// Print the progress of a single job on stderr, also if that is no terminal; as JSON objects with --json
    #[arg(long)]
    progress: bool,
    /// What to do while the daemon is full
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = WhenBusy::Wait)]
    when_busy: WhenBusy,
}

impl Args {
    pub(crate) fn perform(&self, global: &GlobalArgs) -> Result<u8> {
        let spec = self.jobs.spec()?;
        let inputs = self.jobs.inputs()?;
        let wanted = self.wanted(global, &inputs)?;
        let mut interrupts = None;
        let shown = self.shown(global);
        // The output is opened first, as those of the job are: opening a FIFO may block, and signals must not be
        // watched then.
        let file = wanted.results.as_deref().map(OutputTarget::create).transpose()?;
        let files = wanted.open(self.jobs.input_max(), shown, &mut interrupts)?;
        let interrupts = interrupts.map_or_else(Interrupts::new, Ok)?;
        let interrupt_fds = [interrupts.fd()?, interrupts.fd()?];
        let options =
            PrivateOptions { show_log: global.verbose > 0, quiet: global.quiet, grace: self.jobs.grace() };
        let (mut client, mut private) = connect_or_start(global, interrupts, options)?;
        let files = if client.has_our_user() { files } else { files.without_folders()? };
        let JobFiles { attached, outs } = files;
        let mut sink = ResultSink::open(self, global, &inputs, (file, outs), interrupt_fds)?;
        if !global.quiet {
            client.on_notice(sink.progress.notices());
        }
        let options = RunOptions {
            ordered: !self.unordered,
            wait_when_busy: self.when_busy == WhenBusy::Wait,
            held: private.is_none() && !sink.takes_result,
        };
        let jobs = inputs.jobs().map(|job| attached.to(job));
        let mut run = client.run(spec, jobs, options);
        if let Some(hear) = sink.progress.steps() {
            run.on_progress(hear);
        }
        let ended = follow(run, &mut sink);
        // The output is finished even if the run failed: results that arrived are kept.
        let out = sink.finish(&mut client);
        let code = *ended.as_ref().unwrap_or(&exit::DONE);
        let ended = first_error([ended.map(drop), out]);
        let told = self.tell_fate(global, ended, || sink.unwritten.fate(&mut client, private.is_some()));
        if told.is_ok() && !global.quiet {
            sink.crashed.tell(&mut client, private.is_none());
        }
        // After a failed write too: its daemon may wait for the grace of programs.
        if let Some(private) = &mut private {
            private.heed(client.set_interrupts(None));
        }
        told.map(|()| code)
    }

    /// Says what became of results that are not written: as a part of the error, if there is one. A closed stdout is a
    /// quiet end.
    fn tell_fate(
        &self,
        global: &GlobalArgs,
        ended: Result<()>,
        fate: impl FnOnce() -> Option<String>,
    ) -> Result<()> {
        let is_told = ended.as_ref().map_or_else(|error| !is_quiet(error), |()| !global.quiet);
        match (ended, is_told.then(fate).flatten()) {
            (Err(error), Some(fate)) => return Err(error.context(fate)),
            (Ok(()), Some(fate)) => say(format_args!("bulkhead: {fate}")),
            (ended, None) => return ended,
        }
        Ok(())
    }

    fn shown(&self, global: &GlobalArgs) -> ProgressMode {
        ProgressMode { bar: !global.quiet, lines: self.progress && !global.quiet, json: global.json }
    }

    /// The files that the jobs get.
    fn wanted(&self, global: &GlobalArgs, inputs: &Inputs) -> Result<FileRequest, UsageError> {
        let (ins, outs) = (self.jobs.ins(), self.outs.outs.clone());
        let stdin = inputs.stdin().map(<[u8]>::to_vec);
        let transforms = self.jobs.transforms();
        if transforms && self.output.is_none() {
            return Err(UsageError(
                "transform needs an output: give -o FILE, or -o - for standard output".to_owned(),
            ));
        }
        if transforms && !outs.is_empty() {
            return Err(UsageError(
                "--out is not for transform: it writes the file that -o names".to_owned(),
            ));
        }
        if !outs.is_empty() && inputs.total() > 1 {
            return Err(UsageError(
                "--out is for a single job: several would write into the same file".to_owned(),
            ));
        }
        // A job with files and a program may write long outputs, so the job itself writes into the file of -o.
        let is_plain = inputs.total() == 1 && !global.json && !self.with_input;
        let writes_much = self.jobs.runs_programs() || !(ins.is_empty() && outs.is_empty());
        let takes_result = transforms || (is_plain && writes_much);
        let (result, results) =
            if takes_result { (self.output.clone(), None) } else { (None, self.output.clone()) };
        let wanted =
            FileRequest { ins, outs, result, makes_files: self.jobs.runs_programs(), results, stdin };
        wanted.check()?;
        if wanted.takes_stdout() && (global.json || self.output.is_none()) {
            return Err(UsageError(
                "a file and the results both go to standard output: give -o FILE".to_owned(),
            ));
        }
        Ok(wanted)
    }
}

/// Connects to the running daemon, or starts a private one.
fn connect_or_start(
    global: &GlobalArgs,
    mut interrupts: Interrupts,
    options: PrivateOptions,
) -> Result<(DaemonClient, Option<PrivateDaemon>)> {
    let (mut client, private) = match global.connect() {
        Ok(client) => (client, None),
        Err(ConnectFailure::NoDaemon { skipped, .. }) => {
            global.tell_of(&skipped);
            let daemon = PrivateDaemon::start(&mut interrupts, options).context(DaemonNotStarted)?;
            (daemon.connect()?, Some(daemon))
        }
        Err(error) => return Err(error.into()),
    };
    client.set_interrupts(Some(interrupts));
    Ok((client, private))
}

/// Takes the ends of all jobs and returns the exit code.
fn follow<I: Iterator<Item = JobInput>>(mut run: Run<'_, I>, sink: &mut ResultSink<'_>) -> Result<u8> {
    let code = take_all(&mut run, sink);
    for item in run.not_returned() {
        if sink.is_to_write(item) {
            sink.unwritten.note_left(item.end.job);
        }
    }
    code
}

fn take_all<I: Iterator<Item = JobInput>>(run: &mut Run<'_, I>, sink: &mut ResultSink<'_>) -> Result<u8> {
    loop {
        if !run.is_ready() || sink.has_many_unwritten() {
            sink.flush(run)?;
        }
        match run.next() {
            None => return Ok(sink.combined_exit.code()),
            Some(Ok(item)) => {
                if let Err(error) = sink.take(&item) {
                    cancel_rest_after_failed_write(run, &error);
                    return Err(error);
                }
            }
            Some(Err(Error::Interrupted)) => {
                cancel_rest_or_log(run);
                sink.take_arrived(run);
                return Ok(exit::CANCELLED);
            }
            Some(Err(error)) => {
                sink.take_arrived(run);
                return Err(while_waiting(error, run.unended()));
            }
        }
    }
}

/// Cancels the jobs that have not ended. A failure is only logged, because the command ends anyway.
fn cancel_rest_or_log<I: Iterator<Item = JobInput>>(run: &mut Run<'_, I>) {
    match run.cancel_rest() {
        Ok(count) => log::info!("jobs taken back count={count}"),
        Err(error) => log::warn!("jobs could not be taken back, the daemon will do it error={error}"),
    }
}

/// As [`cancel_rest_or_log`], after a failed write. If a signal ended the write, the client has not taken that signal
/// yet, and it ends the first cancel too; then a second one follows.
fn cancel_rest_after_failed_write<I: Iterator<Item = JobInput>>(run: &mut Run<'_, I>, error: &anyhow::Error) {
    if error.downcast_ref().is_some_and(write_wait::is_interrupted) && run.cancel_rest().is_ok() {
        return;
    }
    cancel_rest_or_log(run);
}

/// Prints the ends of jobs: results to stdout or a file, failures to stderr.
struct ResultSink<'a> {
    args: &'a Args,
    global: &'a GlobalArgs,
    inputs: &'a Inputs,
    out: StdoutWriter,
    file: Option<BufWriter<OutputTarget>>,
    /// The files that the job writes, and whether its result is one of them.
    outs: OutputFiles,
    takes_result: bool,
    /// Whether the file has a result in it, so that it gets its name.
    has_results: bool,
    /// Whether a job has ended `done`, so that the files that it wrote get their names.
    has_done: bool,
    written: WrittenResults,
    /// Results that are not in the caller's output, or in a file that has no name yet.
    unwritten: UnwrittenResults,
    write_failed: bool,
    progress: ProgressDisplay,
    combined_exit: CombinedExit,
    crashed: CrashedJobs,
}

impl<'a> ResultSink<'a> {
    fn open(
        args: &'a Args,
        global: &'a GlobalArgs,
        inputs: &'a Inputs,
        (file, outs): (Option<OutputTarget>, OutputFiles),
        [interrupt_fd, other]: [InterruptFd; 2],
    ) -> Result<Self> {
        let takes_result = args.output.is_some() && file.is_none();
        let (mut file, mut out) = (file, StdoutWriter::new());
        out.heed(interrupt_fd)?;
        file.as_mut().map_or(Ok(()), |file| file.heed(other))?;
        Ok(Self {
            args,
            global,
            inputs,
            out,
            file: file.map(BufWriter::new),
            outs,
            takes_result,
            has_results: false,
            has_done: false,
            written: WrittenResults::default(),
            unwritten: UnwrittenResults::default(),
            write_failed: false,
            progress: ProgressDisplay::new(inputs.total(), args.shown(global)),
            combined_exit: CombinedExit::default(),
            crashed: CrashedJobs::default(),
        })
    }

    fn take(&mut self, item: &RunItem) -> Result<()> {
        let done = item.end.outcome == Outcome::Done;
        self.has_results |= done || self.global.json;
        self.has_done |= done;
        self.progress.ended(done);
        self.combined_exit.add(item.index, exit::of(&item.end.outcome));
        self.crashed.note(&item.end);
        if !done && !self.global.quiet {
            let what = format!("{} {}", self.args.jobs.kind(), self.inputs.label(item.index));
            self.progress.with_bar_hidden(false, || say(failure_report::line(&item.end, what.trim_end())));
        }
        if !item.end.survivors.is_empty() {
            self.progress.with_bar_hidden(false, || failure_report::survivor_lines(&item.end).for_each(say));
        }
        if self.takes_result && !self.global.json {
            return Ok(());
        }
        if self.is_to_write(item) {
            self.unwritten.note(item.end.job);
        }
        let written = self.write(item, done);
        self.write_failed |= written.is_err();
        written?;
        if let Some(file) = &self.file {
            let written = file.get_ref().written();
            self.written.note(item.index, done, written + file.buffer().len() as u64);
            self.written.reached(written);
        }
        Ok(())
    }

    /// Whether an end has a result that this command writes, or what a program had written before it failed.
    fn is_to_write(&self, item: &RunItem) -> bool {
        let is_left = item.end.output.bytes() > 0 && (self.global.json || self.args.output.is_none());
        !self.takes_result && (item.end.outcome == Outcome::Done || is_left)
    }

    fn has_many_unwritten(&self) -> bool {
        self.is_written_through() && self.unwritten.count() >= UNWRITTEN_MAX
    }

    /// Whether results are where they are to go once they are flushed.
    fn is_written_through(&self) -> bool {
        self.file.as_ref().is_none_or(|file| file.get_ref().is_written_through())
    }

    fn write(&mut self, item: &RunItem, done: bool) -> Result<()> {
        if self.global.json {
            let in_file = (done && self.takes_result).then(|| self.outs.result_bytes()).transpose()?;
            let fields = end::of_input(item.index, &self.inputs.label(item.index));
            return match &mut self.file {
                Some(file) => output::write_json(fields, &item.end, in_file, file),
                None => output::write_json(fields, &item.end, in_file, self.out.writer()),
            };
        }
        match &mut self.file {
            Some(file) => print(self.args, self.inputs, item, file),
            None => print(self.args, self.inputs, item, self.out.writer()),
        }
    }

    /// Takes what has arrived out of turn, for a file that will not be complete. It is printed on stdout only with its
    /// input: else the order is all that tells the results apart.
    fn take_arrived<I: Iterator<Item = JobInput>>(&mut self, run: &mut Run<'_, I>) {
        let is_labelled = self.global.json || self.args.with_input;
        while (self.file.is_some() || is_labelled)
            && let Some(item) = run.next_arrived()
        {
            // A job that this command has cancelled is no news.
            if item.end.outcome != Outcome::Cancelled && self.take(&item).is_err() {
                return;
            }
        }
    }

    /// Writes what is buffered. If that fails because the reader is gone, the rest of the run is cancelled.
    fn flush<I: Iterator<Item = JobInput>>(&mut self, run: &mut Run<'_, I>) -> Result<()> {
        let file = self.file.as_mut();
        let flushed = self.progress.with_bar_hidden(true, || match file {
            Some(file) => file.flush().map_err(anyhow::Error::from),
            None => self.out.flush(),
        });
        if let Err(error) = &flushed {
            self.write_failed = true;
            cancel_rest_after_failed_write(run, error);
        } else if self.is_written_through() {
            self.unwritten.clear();
            run.received();
        }
        flushed
    }

    /// Finishes the output. The file of the results gets its name only if all jobs have ended and there is a result, and
    /// is kept beside it else; the files of the job get theirs only if it is done.
    fn finish(&mut self, client: &mut DaemonClient) -> Result<()> {
        // The command has reported a write that failed.
        let mut ends = Vec::from_iter((!self.write_failed).then(|| self.out.flush()));
        ends.extend(self.file.take().filter(|_| self.has_results).map(|file| self.finish_file(file)));
        if !self.write_failed && ends.iter().all(Result::is_ok) {
            self.unwritten.clear();
            client.received();
        }
        if self.has_done && self.combined_exit.code() == exit::DONE {
            let mut interrupts = client.set_interrupts(None);
            ends.extend(self.outs.finish(interrupts.as_mut()));
            // They are needed again: dropped, they would leave the signals caught and heard by nobody.
            drop(client.set_interrupts(interrupts));
        }
        first_error(ends)
    }

    /// Names the file of the results if all jobs have theirs in it.
    fn finish_file(&mut self, mut file: BufWriter<OutputTarget>) -> Result<()> {
        let flushed = if self.write_failed { Ok(()) } else { file.flush() };
        let file = file.into_parts().0;
        self.written.reached(file.written());
        match self.written.settled() == self.inputs.total() {
            true => file.finish(None),
            false => self.written.keep(file, self.inputs).and(flushed.map_err(anyhow::Error::from)),
        }
    }
}

fn print(args: &Args, inputs: &Inputs, item: &RunItem, into: &mut impl Write) -> Result<()> {
    if item.end.outcome != Outcome::Done {
        // Prints what a program had written before it failed; a file gets results only.
        let left = if args.output.is_none() { &item.end.output } else { &ReceivedOutput::None };
        return output::write_exact(left, into);
    }
    if args.with_input {
        write!(into, "{}\t", inputs.label(item.index))?;
    }
    let is_alone = args.output.is_some() && inputs.total() == 1;
    if (is_alone || args.jobs.runs_programs()) && !args.with_input {
        output::write_exact(&item.end.output, into)
    } else {
        output::write_line(&item.end.output, into)
    }
}

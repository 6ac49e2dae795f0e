//! `bulkhead logs`: the log of a job, its standard output to stdout and its standard error to stderr, while it runs and
//! after.
//!
//! The bytes are printed as they were written. Gaps of a full log are reported on stderr. With `--follow`, so are
//! further attempts and the end of the job, whose outcome gives the exit code.

use std::io::{self, Write};

use anyhow::Result;
use bulkhead_client::{Error, Interrupts, LogItem};
use bulkhead_proto::client::exit;
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::ids::JobId;
use bulkhead_proto::log::{LogFound, LogStream};
use bulkhead_views::log;
use bulkhead_views::time::utc;

use crate::args::GlobalArgs;
use crate::exit::while_waiting;
use crate::failure_report;
use crate::job_ids;
use crate::output;
use crate::stdio::{StdoutWriter, say};

const EXAMPLES: &str = "\
Examples:
  bulkhead logs 17
  bulkhead logs 17 --follow
  bulkhead logs 17 --stderr --timestamps
  bulkhead logs 17 --json | jq -r .text

A log keeps the first 128 KiB and the last 896 KiB that the job's latest attempt wrote.";

/// Shows what a job writes, while it runs and after
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The job's number
    #[arg(value_name = "JOB", value_parser = job_ids::one)]
    job: JobId,
    /// Go on until the job has ended, and end with its exit code; wait for it if it has not started
    #[arg(short, long)]
    follow: bool,
    /// Only its standard output
    #[arg(long, conflicts_with = "stderr")]
    stdout: bool,
    /// Only its standard error
    #[arg(long)]
    stderr: bool,
    /// Print the time, in UTC, before each piece of the log
    #[arg(short, long)]
    timestamps: bool,
}

impl Args {
    pub(crate) fn perform(&self, global: &GlobalArgs) -> Result<u8> {
        let mut client = global.connect()?;
        if !self.follow {
            let mut printer = LogPrinter::new(self, global);
            client.log(self.job, &mut |item| printer.show(item))?;
            printer.out.flush()?;
            return Ok(exit::DONE);
        }
        let interrupts = Interrupts::new()?;
        let mut printer = LogPrinter::new(self, global);
        printer.out.heed(interrupts.fd()?)?;
        client.set_interrupts(Some(interrupts));
        match client.follow_log(self.job, &mut |item| printer.show(item)) {
            // Ctrl-C ends this command and not the job.
            Err(Error::Interrupted) => printer.code = exit::CANCELLED,
            followed => followed.map_err(|error| while_waiting(error, 1))?,
        }
        printer.out.flush()?;
        Ok(printer.code)
    }
}

/// Prints the items of a log.
struct LogPrinter<'a> {
    args: &'a Args,
    global: &'a GlobalArgs,
    out: StdoutWriter,
    begun: bool,
    code: u8,
}

impl<'a> LogPrinter<'a> {
    fn new(args: &'a Args, global: &'a GlobalArgs) -> Self {
        Self { args, global, out: StdoutWriter::new(), begun: false, code: exit::DONE }
    }

    fn show(&mut self, item: LogItem) -> io::Result<()> {
        match item {
            LogItem::Attempt(attempt) => {
                if self.begun && !self.global.quiet && !self.global.json {
                    say(format_args!("bulkhead: job {} starts again, attempt {attempt}", self.args.job));
                }
                self.begun = true;
            }
            LogItem::Found(LogFound::Dropped(bytes)) if self.global.json => {
                self.json(&log::dropped(self.args.job, bytes))?;
            }
            LogItem::Found(LogFound::Dropped(bytes)) => {
                self.out.writer().flush()?;
                say(format_args!("bulkhead: {bytes} bytes are missing here, because the log is full"));
            }
            LogItem::Found(LogFound::Entry(entry)) => {
                self.entry(entry.wall_us, entry.stream, &entry.bytes)?
            }
            LogItem::Ended(end) => {
                self.code = exit::of(&end.outcome);
                self.out.writer().flush()?;
                if self.global.json {
                    self.json(&output::view(&end).fields().into())?;
                } else if end.outcome != Outcome::Done && !self.global.quiet {
                    say(failure_report::line(&end, ""));
                }
            }
        }
        // With --follow each item is printed at once.
        if self.args.follow { self.out.writer().flush() } else { Ok(()) }
    }

    fn entry(&mut self, wall_us: u64, stream: LogStream, bytes: &[u8]) -> io::Result<()> {
        let is_out = stream == LogStream::Out;
        if (self.args.stdout && !is_out) || (self.args.stderr && is_out) {
            return Ok(());
        }
        if self.global.json {
            return self.json(&log::entry(self.args.job, wall_us, stream, bytes));
        }
        let name = log::stream_name(stream);
        let mut line =
            if self.args.timestamps { format!("{} {name} ", utc(wall_us)).into_bytes() } else { Vec::new() };
        line.extend_from_slice(bytes);
        if self.args.timestamps && line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        if is_out {
            return self.out.writer().write_all(&line);
        }
        self.out.writer().flush()?;
        // A failed write to stderr is ignored, as in `say`.
        drop(io::stderr().lock().write_all(&line));
        Ok(())
    }

    fn json(&mut self, value: &serde_json::Value) -> io::Result<()> {
        writeln!(self.out.writer(), "{value}")
    }
}

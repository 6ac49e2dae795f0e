//! `bulkhead ping`: checks that the daemon answers, and measures how quickly.
//!
//! Its deadline is shorter than that of the other verbs, because it asks whether the daemon answers now. The round trip
//! is that of one request on an open connection; the hello before it is not counted.

use std::time::Duration;

use anyhow::Result;
use bulkhead_proto::client::exit;
use bulkhead_proto::client::record_text::Span;
use bulkhead_views::answer;

use crate::args::GlobalArgs;
use crate::duration;
use crate::stdio::StdoutWriter;

const EXAMPLES: &str = "\
Examples:
  bulkhead ping
  bulkhead ping -q && echo up
  bulkhead ping --timeout 500ms";

/// Checks that the daemon answers
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// How long the daemon may take for its hello, and for its answer
    #[arg(long, value_name = "TIME", value_parser = duration::parse, default_value = "5s")]
    timeout: Duration,
}

impl Args {
    pub(crate) fn perform(&self, global: &GlobalArgs) -> Result<u8> {
        let pong = global.connect_within(self.timeout)?.ping()?;
        let round_trip_us = u64::try_from(pong.round_trip.as_micros()).unwrap_or(u64::MAX);
        let mut out = StdoutWriter::new();
        if global.json {
            out.json(&answer::pong(pong.pid, round_trip_us))?;
        } else if !global.quiet {
            out.line(format_args!("pid {} answered in {}", pong.pid, Span::us(round_trip_us)))?;
        }
        out.flush()?;
        Ok(exit::DONE)
    }
}

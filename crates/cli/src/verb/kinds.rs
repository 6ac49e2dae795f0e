//! `bulkhead kinds`: the kinds of jobs that the daemon's workers can run, with the rules of its configuration.
//!
//! The list comes from the running daemon, so `chaos` is in it only if that daemon was started with it.

use anyhow::Result;
use bulkhead_proto::bound::Bound;
use bulkhead_proto::client::exit;
use bulkhead_proto::file::Way;
use bulkhead_proto::job::OutputMode;
use bulkhead_proto::kind::{DEFAULT_POOL, Kind};

use crate::args::GlobalArgs;
use crate::stdio::StdoutWriter;
use crate::{bytes, duration, table};

const EXAMPLES: &str = "\
Examples:
  bulkhead kinds
  bulkhead kinds --json | jq .name";

/// Lists the kinds of jobs that the daemon offers
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {}

impl Args {
    pub(crate) fn perform(&self, global: &GlobalArgs) -> Result<u8> {
        let kinds = global.connect()?.kinds()?;
        let mut out = StdoutWriter::new();
        if global.json {
            kinds.iter().try_for_each(|kind| out.json(kind))?;
        } else {
            let row = |kind: Kind| {
                let rules = rules(&kind);
                [kind.name, kind.usage, kind.summary, rules]
            };
            let rows: Vec<_> = kinds.into_iter().map(row).collect();
            table::lay_out(["KIND", "INPUT", "WHAT IT DOES", "RULES FOR ITS JOBS"], &rows)
                .iter()
                .try_for_each(|line| out.line(line))?;
        }
        out.flush()?;
        Ok(exit::DONE)
    }
}

/// The rules for jobs of a kind, in words; empty for a kind without rules of its own.
fn rules(kind: &Kind) -> String {
    let mut said = Vec::new();
    if !kind.pool.is_empty() && kind.pool != DEFAULT_POOL {
        said.push(format!("pool {}", kind.pool));
    }
    for file in &kind.needs {
        said.push(format!(
            "needs file {} to {}",
            file.name,
            if file.way == Way::In { "read" } else { "write" }
        ));
    }
    if kind.plans {
        said.push("runs in parts".to_owned());
    }
    if kind.output == OutputMode::Descriptor {
        said.push("large output".to_owned());
    }
    if kind.output == OutputMode::Auto {
        said.push("output of any length".to_owned());
    }
    let limits = &kind.limits;
    said.extend(limit("timeout", limits.timeout_ms, duration::exact));
    said.extend(limit("no progress", limits.no_progress_ms, duration::exact));
    said.extend(limit("cpu time", limits.cpu_ms, duration::exact));
    said.extend(limit("memory", limits.memory_bytes, bytes::exact));
    said.extend(kind.crashes_max.map(|deaths| format!("crashes_max {deaths}")));
    said.extend(kind.retries_max.map(|failures| format!("retries_max {failures}")));
    if kind.cancel_grace_ms > 0 {
        said.push(format!("cancel grace {}", duration::exact(u64::from(kind.cancel_grace_ms))));
    }
    said.join(", ")
}

/// The default of a limit, and the most that users may ask for.
fn limit(name: &str, bound: Bound, shown: impl Fn(u64) -> String) -> Option<String> {
    match (bound.usual, bound.most) {
        (None, None) => None,
        (Some(usual), None) => Some(format!("{name} {}", shown(usual))),
        (None, Some(most)) => Some(format!("{name} {0} (most {0})", shown(most))),
        (Some(usual), Some(most)) => Some(format!("{name} {} (most {})", shown(usual), shown(most))),
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_proto::bound::KindLimits;
    use bulkhead_proto::file::FileUse;

    use super::*;

    #[test]
    fn rules_are_told_in_words() {
        assert_eq!(rules(&Kind::default()), "");
        assert_eq!(rules(&Kind { pool: DEFAULT_POOL.to_owned(), ..Kind::default() }), "");
        assert_eq!(rules(&Kind { output: OutputMode::Auto, ..Kind::default() }), "output of any length");
        let bound = |usual, most| Bound { usual, most };
        let limits = KindLimits {
            timeout_ms: bound(Some(60_000), Some(3_600_000)),
            cpu_ms: bound(None, Some(5000)),
            memory_bytes: bound(Some(1 << 30), None),
            ..KindLimits::default()
        };
        let needs = vec![FileUse::new("in", Way::In), FileUse::new("out", Way::Out)];
        let output = OutputMode::Descriptor;
        let kind = Kind {
            needs,
            pool: "heavy".to_owned(),
            plans: true,
            output,
            limits,
            crashes_max: Some(1),
            cancel_grace_ms: 300,
            ..Kind::default()
        };
        assert_eq!(
            rules(&kind),
            "pool heavy, needs file in to read, needs file out to write, runs in parts, large output, timeout 1m (most 1h), \
             cpu time 5s (most 5s), memory 1G, crashes_max 1, cancel grace 300ms"
        );
    }
}

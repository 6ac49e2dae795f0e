//! The table of kinds: the built-in ones and those that the config file declares.
//!
//! The daemon relies on the declarations. A worker whose program lacks a kind of its pool says so in its hello and is
//! not used. For a built-in kind a table may set limits and budgets, but no property of its code. Called by
//! `policy.rs`.

use anyhow::{Context, Result, ensure};
use bulkhead_proto::bound::KindLimits;
use bulkhead_proto::file::{self, FileUse, Way};
use bulkhead_proto::job::OutputMode;
use bulkhead_proto::kind::{self, Kind};
use bulkhead_proto::limits::{
    CANCEL_GRACE_MAX_MS, KIND_NAME_MAX_BYTES, KIND_OUTPUT_KEY, OUTPUT_MAX_BYTES, OUTPUT_MIN_BYTES, RING,
    TEXT_MAX_BYTES,
};
use serde::Deserialize;

use super::bounds::{self, LimitKeys};
use super::pools::OwnPool;
use super::{File, Mode};

/// A table `[kinds.NAME]` of the config file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct OwnKind {
    /// The form of its input, as `bulkhead kinds` shows it.
    usage: Option<String>,
    /// One line on what it does.
    summary: Option<String>,
    /// The most tasks of it that one worker may hold. Default: [`usual_ring`].
    ring: Option<u16>,
    /// Whether its jobs are split: planned, run in parts and merged.
    plans: Option<bool>,
    /// Whether its jobs keep a log of their output.
    logs: Option<bool>,
    /// Names of the input files that a job must attach.
    files_in: Option<Vec<String>>,
    /// Names of the output files that a job must attach.
    files_out: Option<Vec<String>>,
    /// The output mode of a job that does not set it.
    output: Option<OutputSetting>,
    /// The most bytes of one output in memory.
    output_max_bytes: Option<u64>,
    /// `crashes_max` of a job that does not set it.
    crashes_max: Option<u8>,
    /// `retries_max` of a job that does not set it.
    retries_max: Option<u8>,
    /// The pool of workers that runs it.
    pool: Option<String>,
    /// How long a cancelled task may take to end by itself.
    cancel_grace_ms: Option<u32>,
    timeout_seconds: Option<u64>,
    timeout_max_seconds: Option<u64>,
    no_progress_seconds: Option<u64>,
    no_progress_max_seconds: Option<u64>,
    cpu_seconds: Option<u64>,
    cpu_max_seconds: Option<u64>,
    memory_bytes: Option<u64>,
    memory_max_bytes: Option<u64>,
}

/// The values of the key `output`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum OutputSetting {
    /// At most 4 KiB, in the reply.
    Inline,
    /// Up to 1 GiB, as a descriptor attached to the reply.
    Descriptor,
    /// In the reply up to 4 KiB; a task with a longer one asks for a descriptor while it runs.
    Auto,
}

/// The ring of a kind of others in a private daemon.
const RING_PRIVATE: u16 = 64;

const _: () = assert!(RING_PRIVATE as usize <= RING, "it is a ring that a kind may have");

/// How many tasks one worker may hold of a kind that does not say.
///
/// Code that is not ours may crash, and every task that its worker holds then waits for another worker: elsewhere that may be another
/// user's task, so it is 1. In a private daemon all tasks are those of one parent, and with one task at a time short ones ran at
/// a half to a sixth of the rate.
fn usual_ring(file: &File, is_private: bool, pool: Option<&str>) -> u16 {
    let own = pool.and_then(|pool| file.pools.get(pool));
    let is_foreign = file.worker_program.is_some() || own.is_some_and(OwnPool::has_program);
    let serves_one_parent = is_private && file.mode.unwrap_or_default() == Mode::User;
    if serves_one_parent && is_foreign { RING_PRIVATE } else { 1 }
}

/// Builds the table of kinds; `limits` are the daemon's own.
pub(super) fn table(
    file: &File,
    (enable_chaos, is_private): (bool, bool),
    limits: &KindLimits,
) -> Result<Vec<Kind>> {
    let mut kinds = if file.builtin_kinds.unwrap_or(true) { kind::builtin(enable_chaos) } else { Vec::new() };
    // In system mode programs of clients would run as the daemon's own user, so `exec` needs user mode until there is
    // a sandbox.
    let mode = file.mode.unwrap_or_default();
    kinds.retain(|kind| mode == Mode::User || kind.name != kind::EXEC);
    for (name, own) in &file.kinds {
        ensure!(
            is_name(name),
            "kind name {name:?} is not valid: use 1 to {KIND_NAME_MAX_BYTES} of a-z, 0-9 and -"
        );
        if kind::builtin(true).iter().any(|known| known.name == *name) {
            let known = kinds.iter_mut().find(|kind| kind.name == *name);
            let known = known.with_context(|| {
                format!("kind {name:?} is built in, and this daemon does not offer it: choose another name for yours")
            })?;
            own.check_builtin(name)?;
            own.set_rules(known, limits)?;
        } else {
            let usual_ring = usual_ring(file, is_private, own.pool.as_deref());
            kinds.push(own.declare(name, limits, usual_ring)?);
        }
    }
    ensure!(!kinds.is_empty(), "there are no kinds: builtin_kinds = false needs a table [kinds.NAME]");
    Ok(kinds)
}

impl OwnKind {
    /// Rejects keys that describe the code of a built-in kind.
    fn check_builtin(&self, name: &str) -> Result<()> {
        for (key, is_said) in [
            ("usage", self.usage.is_some()),
            ("summary", self.summary.is_some()),
            ("ring", self.ring.is_some()),
            ("plans", self.plans.is_some()),
            ("logs", self.logs.is_some()),
            ("files_in", self.files_in.is_some()),
            ("files_out", self.files_out.is_some()),
            ("output", self.output.is_some()),
        ] {
            ensure!(
                !is_said,
                "kinds.{name}.{key}: {name:?} is built in, so that only pool, limits, output_max_bytes, \
                 crashes_max, retries_max and cancel_grace_ms can be set"
            );
        }
        Ok(())
    }

    /// Builds a kind that the config file declares.
    fn declare(&self, name: &str, limits: &KindLimits, usual_ring: u16) -> Result<Kind> {
        let ring = self.ring.unwrap_or(usual_ring);
        ensure!(
            (1..=RING).contains(&usize::from(ring)),
            "kinds.{name}.ring = {ring} is not from 1 to {RING}"
        );
        let text = |text: &Option<String>, key| {
            let text = text.clone().unwrap_or_default();
            let length = text.len();
            ensure!(
                length <= TEXT_MAX_BYTES,
                "kinds.{name}.{key} is {length} bytes long, the limit is {TEXT_MAX_BYTES}"
            );
            Ok(text)
        };
        let (plans, logs) = (self.plans.unwrap_or(false), self.logs.unwrap_or(false));
        ensure!(
            !(plans && logs),
            "kinds.{name}.logs = true: a kind that plans keeps no log, its parts run side by side; drop one of both"
        );
        let mut kind = Kind {
            name: name.to_owned(),
            usage: text(&self.usage, "usage")?,
            summary: text(&self.summary, "summary")?,
            ring,
            plans,
            logs,
            needs: self.needs(name)?,
            output: match self.output {
                Some(OutputSetting::Descriptor) => OutputMode::Descriptor,
                Some(OutputSetting::Auto) => OutputMode::Auto,
                Some(OutputSetting::Inline) | None => OutputMode::Inline,
            },
            ..Kind::default()
        };
        self.set_rules(&mut kind, limits)?;
        Ok(kind)
    }

    fn needs(&self, kind: &str) -> Result<Vec<FileUse>> {
        let of_way = |names: &Option<Vec<String>>, way| {
            names.iter().flatten().map(move |name| FileUse::new(name, way)).collect::<Vec<_>>()
        };
        let needs = [of_way(&self.files_in, Way::In), of_way(&self.files_out, Way::Out)].concat();
        match file::fault(&needs) {
            Some(fault) => anyhow::bail!("kinds.{kind}.files_in and files_out: {fault}"),
            None => Ok(needs),
        }
    }

    /// Sets the limits and budgets of its jobs.
    fn set_rules(&self, kind: &mut Kind, limits: &KindLimits) -> Result<()> {
        let table = format!("kinds.{}.", kind.name);
        ensure!(
            self.crashes_max != Some(0),
            "{table}crashes_max = 0 is not from 1 to 255: it would allow no attempt"
        );
        let keys = LimitKeys {
            timeout: (self.timeout_seconds, self.timeout_max_seconds),
            no_progress: (self.no_progress_seconds, self.no_progress_max_seconds),
            cpu: (self.cpu_seconds, self.cpu_max_seconds),
            memory: (self.memory_bytes, self.memory_max_bytes),
        };
        kind.limits = keys.read(&table)?;
        bounds::check_over(&table, &kind.limits, limits)?;
        kind.cancel_grace_ms = self.cancel_grace_ms.unwrap_or(kind.cancel_grace_ms);
        ensure!(
            kind.cancel_grace_ms <= CANCEL_GRACE_MAX_MS,
            "{table}cancel_grace_ms = {} is not from 0 to {CANCEL_GRACE_MAX_MS}",
            kind.cancel_grace_ms
        );
        let output_max = self.output_max_bytes.or(kind.output_max_bytes);
        if let Some(bytes) = output_max {
            ensure!(
                (OUTPUT_MIN_BYTES..=OUTPUT_MAX_BYTES).contains(&bytes),
                "{table}{KIND_OUTPUT_KEY} = {bytes} is not from {OUTPUT_MIN_BYTES} to {OUTPUT_MAX_BYTES}"
            );
        }
        kind.output_max_bytes = output_max;
        (kind.crashes_max, kind.retries_max) = (self.crashes_max, self.retries_max);
        kind.pool = self.pool.clone().unwrap_or_default();
        Ok(())
    }
}

/// Whether this is a valid name of a kind or pool.
pub(super) fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=KIND_NAME_MAX_BYTES).contains(&name.len()) && !name.starts_with('-') && name.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use bulkhead_proto::bound::Bound;

    use super::*;

    fn read(text: &str) -> Result<Vec<Kind>, String> {
        read_as(false, text)
    }

    fn read_as(is_private: bool, text: &str) -> Result<Vec<Kind>, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        let limits = file.limits().read("").map_err(|error| error.to_string())?;
        table(&file, (false, is_private), &limits).map_err(|error| error.to_string())
    }

    #[test]
    fn a_kind_says_how_long_its_outputs_become() {
        let read_one = |text: &str| Ok::<_, String>(read(text)?.pop().unwrap().output_max_bytes);
        assert_eq!(read_one("[kinds.square]\n"), Ok(None));
        assert_eq!(read_one("[kinds.square]\noutput_max_bytes = 4096\n"), Ok(Some(4096)));
        let error = read_one("[kinds.square]\noutput_max_bytes = 4095\n").unwrap_err();
        assert!(
            error.contains("kinds.square.output_max_bytes = 4095 is not from 4096 to 1073741824"),
            "{error}"
        );
        let kinds = read("[kinds.factorial]\noutput_max_bytes = 1000000\n").unwrap();
        let factorial = kinds.iter().find(|kind| kind.name == "factorial").unwrap();
        assert_eq!(factorial.output_max_bytes, Some(1_000_000));
    }

    #[test]
    fn kinds_of_ones_own_stand_beside_the_built_in_ones_or_alone() {
        let both = read("[kinds.square]\nusage = \"N\"\nring = 256\n").unwrap();
        let own = both.last().unwrap();
        assert_eq!((own.name.as_str(), own.usage.as_str(), own.ring), ("square", "N", 256));
        assert_eq!(both.len(), kind::builtin(false).len() + 1);
        assert_eq!(read("builtin_kinds = false\n[kinds.square]\n").unwrap().len(), 1);
    }

    #[test]
    fn kinds_of_others_may_wait_in_the_workers_of_a_private_daemon() {
        let all = "[kinds.a]\n[kinds.b]\nring = 1\n[kinds.c]\nring = 256\n[kinds.d]\npool = \"other\"\n";
        let rings = |is_private, keys: &str, tables: &str| {
            let kinds =
                read_as(is_private, &format!("{keys}\nbuiltin_kinds = false\n{all}{tables}")).unwrap();
            kinds.iter().map(|kind| kind.ring).collect::<Vec<_>>()
        };
        let (program, plain, own) =
            ("worker_program = \"/x\"", "[pools.other]", "[pools.other]\nworker_program = \"/x\"");
        assert_eq!(rings(true, program, plain), [64, 1, 256, 64]);
        assert_eq!(rings(true, "", own), [1, 1, 256, 64], "the default pool runs our program");
        assert_eq!(rings(true, "", plain), [1, 1, 256, 1]);
        for (is_private, keys) in [(false, ""), (true, "mode = \"system\""), (false, "mode = \"system\"")] {
            assert_eq!(rings(is_private, &format!("{keys}\n{program}"), own), [1, 1, 256, 1], "{keys}");
        }
        let built_in = read_as(true, program).unwrap();
        assert_eq!(
            built_in.iter().find(|kind| kind.name == "exec").unwrap().ring,
            1,
            "their rings are their own"
        );
    }

    #[test]
    fn a_kind_declares_its_rules_and_a_built_in_one_takes_others() {
        let text = "timeout_max_seconds = 5\n[kinds.noop]\ntimeout_seconds = 2\nretries_max = 4\n[kinds.x]\n\
                    timeout_seconds = 6\ntimeout_max_seconds = 7\nmemory_bytes = 1048576\nplans = true\n\
                    files_in = [\"in\"]\nfiles_out = [\"a\", \"b\"]\noutput = \"descriptor\"\ncrashes_max = 1\n";
        let kinds = read(text).unwrap();
        let noop = kinds.iter().find(|kind| kind.name == "noop").unwrap();
        assert_eq!((noop.limits.timeout_ms.usual, noop.retries_max, noop.ring), (Some(2000), Some(4), 256));
        let own = kinds.last().unwrap();
        let bound = |usual, most| Bound { usual, most };
        let limits = KindLimits {
            timeout_ms: bound(Some(6000), Some(7000)),
            memory_bytes: bound(Some(1 << 20), None),
            ..KindLimits::default()
        };
        assert_eq!(own.limits, limits);
        let needs = [("in", Way::In), ("a", Way::Out), ("b", Way::Out)];
        assert_eq!(own.needs, needs.map(|(name, way)| FileUse::new(name, way)));
        assert_eq!((own.plans, own.output, own.crashes_max), (true, OutputMode::Descriptor, Some(1)));
    }

    #[test]
    fn a_kind_keeps_a_log_if_it_does_not_plan() {
        assert!(read("[kinds.x]\nlogs = true\n").unwrap().last().unwrap().logs);
        assert!(!read("[kinds.x]\n").unwrap().last().unwrap().logs);
        assert!(read("[kinds.x]\nlogs = true\nplans = true\n").unwrap_err().contains("kinds.x.logs = true"));
        assert!(read("[kinds.noop]\nlogs = true\n").unwrap_err().contains("kinds.noop.logs"));
    }

    #[test]
    fn programs_run_in_user_mode_alone() {
        let offers = |text| read(text).unwrap().iter().any(|kind| kind.name == "exec");
        assert!(offers("") && offers("mode = \"user\"") && !offers("mode = \"system\""));
    }

    #[test]
    fn a_kind_that_cannot_be_is_named() {
        for (text, fault) in [
            ("[kinds.noop]\nring = 1", "kinds.noop.ring: \"noop\" is built in"),
            ("[kinds.chaos]", "\"chaos\" is built in, and this daemon does not offer it"),
            ("builtin_kinds = false\n[kinds.noop]", "\"noop\" is built in, and"),
            ("mode = \"system\"\n[kinds.exec]", "\"exec\" is built in, and"),
            ("[kinds.Square]", "kind name \"Square\" is not valid"),
            ("[kinds.-x]", "kind name \"-x\" is not valid"),
            ("[kinds.x]\nring = 0", "kinds.x.ring = 0 is not from 1 to 256"),
            ("[kinds.x]\nrnig = 1", "unknown field `rnig`"),
            ("builtin_kinds = false", "there are no kinds"),
            ("[kinds.x]\nfiles_in = [\"a b\"]", "kinds.x.files_in and files_out: \"a b\" cannot name a file"),
            ("[kinds.x]\nfiles_in = [\"a\"]\nfiles_out = [\"a\"]", "two files of the job are named \"a\""),
            ("[kinds.x]\noutput = \"file\"", "unknown variant `file`"),
            ("[kinds.x]\ncrashes_max = 0", "kinds.x.crashes_max = 0 is not from 1 to 255"),
            ("[kinds.x]\ncancel_grace_ms = 60001", "kinds.x.cancel_grace_ms = 60001 is not from 0 to 60000"),
            ("[kinds.x]\nretries_max = 256", "invalid value: integer `256`"),
            ("[kinds.noop]\ncpu_seconds = 0", "kinds.noop.cpu_seconds = 0 is not from 1 to 2592000"),
            ("[kinds.x]\nmemory_max_bytes = 1", "kinds.x.memory_max_bytes = 1 is not from 1048576"),
            (
                "timeout_max_seconds = 5\n[kinds.x]\ntimeout_seconds = 6",
                "kinds.x.timeout_seconds = 6 is above timeout_max_seconds = 5: set kinds.x.timeout_max_seconds too",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(fault), "{text}: {error}");
        }
    }
}

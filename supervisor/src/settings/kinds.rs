//! The table of kinds: the built-in ones, and those that the config file declares for a worker program of its own.
//!
//! What is declared here the daemon believes; whether the worker program has the code is checked at its hello, and a
//! worker that lacks a kind of the table does not come up.

use anyhow::{Result, ensure};
use bulkhead_proto::kind::{self, Kind};
use bulkhead_proto::limits::{KIND_NAME_MAX_BYTES, RING, TEXT_MAX_BYTES};
use serde::Deserialize;

use super::{File, Mode};

/// A table `[kinds.NAME]` of the config file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct OwnKind {
    /// Its input, as `bulkhead kinds` shows it.
    usage: String,
    /// What it does, in one line.
    summary: String,
    /// Most tasks of it that one worker may hold. 1 unless told: code of one's own may be foreign code.
    ring: Option<u16>,
}

/// The kinds that this daemon offers.
pub(super) fn table(file: &File, enable_chaos: bool) -> Result<Vec<Kind>> {
    let mut kinds = if file.builtin_kinds.unwrap_or(true) { kind::builtin(enable_chaos) } else { Vec::new() };
    // Programs of others would run under the daemon's own user: not before workers have a sandbox.
    let mode = file.mode.unwrap_or_default();
    kinds.retain(|kind| mode == Mode::User || kind.name != kind::EXEC);
    for (name, own) in &file.kinds {
        ensure!(
            is_name(name),
            "kind {name:?} has no name for a command line: use 1 to {KIND_NAME_MAX_BYTES} of a-z, 0-9 and -"
        );
        ensure!(
            kind::builtin(true).iter().all(|known| known.name != *name),
            "kind {name:?} is built in: choose another name for yours"
        );
        let ring = own.ring.unwrap_or(1);
        ensure!(
            (1..=RING).contains(&usize::from(ring)),
            "kinds.{name}.ring = {ring} is not from 1 to {RING}"
        );
        for (text, key) in [(&own.usage, "usage"), (&own.summary, "summary")] {
            let length = text.len();
            ensure!(
                length <= TEXT_MAX_BYTES,
                "kinds.{name}.{key} is {length} bytes long, the limit is {TEXT_MAX_BYTES}"
            );
        }
        let (usage, summary) = (own.usage.clone(), own.summary.clone());
        kinds.push(Kind { name: name.clone(), usage, summary, ring, plans: false, chaos: false });
    }
    ensure!(!kinds.is_empty(), "there are no kinds: builtin_kinds = false needs a table [kinds.NAME]");
    Ok(kinds)
}

fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=KIND_NAME_MAX_BYTES).contains(&name.len()) && !name.starts_with('-') && name.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Kind>, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        table(&file, false).map_err(|error| error.to_string())
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
    fn programs_run_in_user_mode_alone() {
        let offers = |text| read(text).unwrap().iter().any(|kind| kind.name == "exec");
        assert!(offers("") && offers("mode = \"user\"") && !offers("mode = \"system\""));
    }

    #[test]
    fn a_kind_that_cannot_be_is_named() {
        for (text, fault) in [
            ("[kinds.noop]", "\"noop\" is built in"),
            ("[kinds.Square]", "\"Square\" has no name for a command line"),
            ("[kinds.-x]", "\"-x\" has no name"),
            ("[kinds.x]\nring = 0", "kinds.x.ring = 0 is not from 1 to 256"),
            ("[kinds.x]\nrnig = 1", "unknown field `rnig`"),
            ("builtin_kinds = false", "there are no kinds"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(fault), "{text}: {error}");
        }
    }
}

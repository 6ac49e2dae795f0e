//! The flags of `submit` that say whether its jobs outlive the daemon, and their key.
//!
//! Checked before the command looks for a daemon. Whether the daemon can keep these jobs, it says itself.

use bulkhead_proto::client::message::DurableSubmit;
use bulkhead_proto::limits::KEY_MAX_BYTES;

use crate::exit::UsageError;

/// Whether jobs are durable without a flag.
const DURABLE_BY_DEFAULT: bool = false;

/// Whether the jobs are durable.
#[derive(Debug, clap::Args)]
pub(crate) struct DurabilityArgs {
    /// The jobs are on the disk before their numbers are printed, and outlive the daemon. Their inputs and results have at most 4096
    /// bytes each
    #[arg(long, help_heading = "Durability", conflicts_with = "volatile")]
    durable: bool,
    /// The jobs end with the daemon
    #[arg(long, help_heading = "Durability")]
    volatile: bool,
    /// Name of your choice for durable jobs, at most 128 bytes: the same command with the same key submits no job twice, and
    /// prints the numbers that the jobs have
    #[arg(long, help_heading = "Durability", value_name = "TEXT")]
    key: Option<String>,
}

impl DurabilityArgs {
    /// What the submit says of its durability. `None`: the jobs are volatile.
    pub(crate) fn read(&self) -> Result<Option<DurableSubmit>, UsageError> {
        let is_durable = self.durable || (DURABLE_BY_DEFAULT && !self.volatile);
        let Some(key) = &self.key else {
            return Ok(is_durable.then(DurableSubmit::default));
        };
        if !is_durable {
            let advice = if self.volatile { "leave out one of the two" } else { "give --durable too" };
            return Err(UsageError(format!("--key is for durable jobs, and these are volatile: {advice}")));
        }
        if !(1..=KEY_MAX_BYTES).contains(&key.len()) {
            let bytes = key.len();
            return Err(UsageError(format!("--key has {bytes} bytes, give from 1 to {KEY_MAX_BYTES} bytes")));
        }
        Ok(Some(DurableSubmit { key: Some(key.as_bytes().to_vec()) }))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct DurabilityCommand {
        #[command(flatten)]
        durability: DurabilityArgs,
    }

    fn read(line: &str) -> Result<Option<DurableSubmit>, String> {
        let words = std::iter::once("x").chain(line.split_whitespace());
        let command = DurabilityCommand::try_parse_from(words).map_err(|error| error.to_string())?;
        command.durability.read().map_err(|usage| usage.0)
    }

    #[test]
    fn a_key_is_for_durable_jobs() {
        assert_eq!(read("--durable").unwrap(), Some(DurableSubmit { key: None }));
        assert_eq!(read("--volatile").unwrap(), None);
        assert_eq!(read("").unwrap().is_some(), DURABLE_BY_DEFAULT);
        let key = Some(b"night".to_vec());
        assert_eq!(read("--durable --key night").unwrap(), Some(DurableSubmit { key }));
        assert!(read("--volatile --key night").unwrap_err().contains("leave out one of the two"));
        assert!(read("--volatile --durable").unwrap_err().contains("cannot be used with"));
    }

    #[test]
    fn a_key_has_a_length() {
        let of = |bytes: usize| read(&format!("--durable --key={}", "k".repeat(bytes)));
        assert_eq!(of(KEY_MAX_BYTES).unwrap().unwrap().key.unwrap().len(), KEY_MAX_BYTES);
        assert_eq!(of(129).unwrap_err(), "--key has 129 bytes, give from 1 to 128 bytes");
        assert_eq!(of(0).unwrap_err(), "--key has 0 bytes, give from 1 to 128 bytes");
    }
}

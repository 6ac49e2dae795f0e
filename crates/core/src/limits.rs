//! The limits that a job gets: what it asks for, what the configuration gives when it asks for nothing, and how much
//! an ordinary user may ask for.
//!
//! Decided once, at admission; from then on the policy of the job says it all. Driven by `admit.rs`.

use bulkhead_proto::job::Policy;
use bulkhead_proto::refusal::Refusal;

use crate::config::{Bound, Limits};

impl Bound {
    /// What a job gets that asks for this; `Err` is the most that it may ask for. Who asks for nothing gets the usual
    /// limit, and an ordinary user at most the most.
    fn grant(self, asked: Option<u64>, admin: bool) -> Result<Option<u64>, u64> {
        let most = self.most.filter(|_| !admin);
        match (asked, most) {
            (Some(asked), Some(most)) if asked > most => Err(most),
            (Some(asked), _) => Ok(Some(asked)),
            (None, Some(most)) => Ok(Some(self.usual.unwrap_or(most).min(most))),
            (None, None) => Ok(self.usual),
        }
    }
}

impl Limits {
    /// Writes the limits that a job gets into its policy.
    ///
    /// # Errors
    /// A refusal that names the first limit that is above what the user may ask for.
    pub(crate) fn grant(&self, policy: &mut Policy, admin: bool) -> Result<(), Refusal> {
        let sorts = [
            ("timeout_ms", self.timeout_ms, &mut policy.timeout_ms),
            ("no_progress_ms", self.no_progress_ms, &mut policy.no_progress_ms),
            ("cpu_ms", self.cpu_ms, &mut policy.cpu_ms),
            ("memory_bytes", self.memory_bytes, &mut policy.memory_bytes),
        ];
        for (name, bound, value) in sorts {
            let asked = *value;
            *value = bound.grant(asked, admin).map_err(|most| {
                let asked = asked.unwrap_or(most);
                let needed = format!(
                    "{name} {asked} is above {most}, the most that users may ask for: ask for less, or let an administrator submit it"
                );
                Refusal::Denied { needed }
            })?;
        }
        Ok(())
    }
}

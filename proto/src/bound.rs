//! Limits of jobs as administrators set them: what a job has that asks for none, and the most that it may ask for.
//!
//! Set for the whole daemon and for single kinds; what a kind says goes over what the daemon says. They come from the
//! config file and are shown with the kinds; what a single job asks for stands in its policy.

use serde::{Deserialize, Serialize};

use crate::codec::{Decode, Encode};

/// Limits for each attempt of a job, of each sort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Limits {
    /// Wall time, in milliseconds.
    pub timeout_ms: Bound,
    /// Time without progress, in milliseconds.
    pub no_progress_ms: Bound,
    /// Processor time, in milliseconds.
    pub cpu_ms: Bound,
    /// Memory beyond what the worker had before, in bytes.
    pub memory_bytes: Bound,
}

/// One sort of limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Bound {
    /// What a job has that asks for nothing; `None`: no limit.
    pub usual: Option<u64>,
    /// What users may ask for at most; administrators may ask for more. `None`: for anything.
    pub most: Option<u64>,
}

impl Limits {
    /// These limits where they say something, and the daemon's where they do not.
    #[must_use]
    pub fn over(self, daemon: Limits) -> Limits {
        Limits {
            timeout_ms: self.timeout_ms.over(daemon.timeout_ms),
            no_progress_ms: self.no_progress_ms.over(daemon.no_progress_ms),
            cpu_ms: self.cpu_ms.over(daemon.cpu_ms),
            memory_bytes: self.memory_bytes.over(daemon.memory_bytes),
        }
    }
}

impl Bound {
    /// Where a kind says the most alone, the daemon's usual limit is cut to it: one table, one bound.
    fn over(self, daemon: Bound) -> Bound {
        let cut = |usual: u64| self.most.map_or(usual, |most| usual.min(most));
        Bound { usual: self.usual.or(daemon.usual.map(cut)), most: self.most.or(daemon.most) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kind_says_goes_over_what_the_daemon_says() {
        let bound = |usual, most| Bound { usual, most };
        let daemon = bound(Some(60), Some(600));
        for (kind, both) in [
            (bound(None, None), daemon),
            (bound(Some(5), None), bound(Some(5), Some(600))),
            (bound(None, Some(7000)), bound(Some(60), Some(7000))),
            (bound(None, Some(7)), bound(Some(7), Some(7))),
            (bound(Some(900), Some(9000)), bound(Some(900), Some(9000))),
        ] {
            assert_eq!(kind.over(daemon), both, "{kind:?}");
        }
        assert_eq!(bound(Some(5), None).over(Bound::default()), bound(Some(5), None));
    }
}

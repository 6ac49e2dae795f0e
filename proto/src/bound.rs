//! The limits that an administrator sets for jobs: the default of each limit, and the highest value that a job may ask for.
//!
//! The config file sets them for the whole daemon and for single kinds; the value of a kind takes precedence. The
//! supervisor reads them, the core applies them, and `bulkhead kinds` shows them. The limits that one job asks for
//! never stand here but in its [`crate::job::Policy`].

use serde::{Deserialize, Serialize};

use crate::codec::{Decode, Encode};

/// The bounds of every limit that an attempt of a job can have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct KindLimits {
    /// Wall time, in milliseconds.
    pub timeout_ms: Bound,
    /// Time without progress, in milliseconds.
    pub no_progress_ms: Bound,
    /// Processor time, in milliseconds.
    pub cpu_ms: Bound,
    /// Memory beyond what the worker had before, in bytes.
    pub memory_bytes: Bound,
}

/// The default and the maximum of one limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Bound {
    /// The limit of a job that asks for none; `None`: no limit.
    pub usual: Option<u64>,
    /// The highest value that a user may ask for; administrators may ask for more. `None`: any value.
    pub most: Option<u64>,
}

impl KindLimits {
    /// These limits, with the daemon's in place of those that are not set.
    #[must_use]
    pub fn over(self, daemon: KindLimits) -> KindLimits {
        KindLimits {
            timeout_ms: self.timeout_ms.over(daemon.timeout_ms),
            no_progress_ms: self.no_progress_ms.over(daemon.no_progress_ms),
            cpu_ms: self.cpu_ms.over(daemon.cpu_ms),
            memory_bytes: self.memory_bytes.over(daemon.memory_bytes),
        }
    }
}

impl Bound {
    /// If a kind sets only `most`, the daemon's `usual` is lowered to it.
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

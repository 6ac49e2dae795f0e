//! Workers: pools, slots, rings, restart, recycling, limits and prefetch.

pub(crate) mod balance;
pub(crate) mod claims;
pub(crate) mod entry;
pub(crate) mod kill;
pub(crate) mod pools;
pub(crate) mod prefetch;
pub(crate) mod recycle;
pub(crate) mod restart;
pub(crate) mod shortage;
pub(crate) mod spawn;
pub(crate) mod stopped;
pub(crate) mod unwanted;
pub(crate) mod watch;

//! The numbers that name jobs, workers, clients and what the supervisor keeps for them.
//!
//! The core gives them out; clients and workers only repeat them. All but the places (slots, pools, kinds) count up
//! from 1 and must never be reused while the daemon lives: a stale number then names nothing, not something else.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::codec::{Decode, Encode};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(out)
            }
        }

        impl FromStr for $name {
            type Err = ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

id! {
    /// A job, as its client knows it. The jobs of one submit have consecutive numbers.
    JobId(u64)
}
id! {
    /// One incarnation of a worker process.
    WorkerId(u64)
}
id! {
    /// A worker's place, counted from 0 over all pools; the place outlives the worker.
    SlotId(u16)
}
id! {
    /// A pool of workers, by its place in the daemon's list; 0 is the default one.
    PoolId(u16)
}
id! {
    /// One client connection.
    ClientId(u64)
}
id! {
    /// One offer to one worker; the entry of the ring is `seq mod ring`. Starts at 1, so 0 names no offer.
    Seq(u64)
}
id! {
    /// Grows with each offer of a task. An answer with an older fence is dropped and counted.
    Fence(u32)
}
id! {
    /// A client's own number for a request; every reply to that request carries it.
    Tag(u32)
}
id! {
    /// A place in the daemon's table of kinds.
    KindId(u16)
}
id! {
    /// A client's descriptor that the supervisor holds for a job.
    FileId(u64)
}
id! {
    /// What a connection registered, as the supervisor and its workers name it.
    RegistrationId(u64)
}
id! {
    /// A file that the tasks of one job share; the supervisor makes it with the first offer that needs it.
    ScratchId(u64)
}
id! {
    /// The log of one attempt of a job, which the supervisor holds and never reads.
    LogId(u64)
}
id! {
    /// An output descriptor that the supervisor holds for a finished task.
    OutputId(u64)
}

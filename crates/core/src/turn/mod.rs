//! One turn of the machine as every room sees it: alarms, records, randomness.

pub(crate) mod alarms;
pub(crate) mod random;
pub(crate) mod records;

//! The stages of a job: one task, or plan, run and merge.
//!
//! A kind that plans has three sorts of tasks, all of which run in workers. The **plan** task reads the job's input and
//! writes the plan; each **run** task does one part, in any order, and more than once if a worker dies; the **merge** task
//! joins their results. The plan is a file for workers; the supervisor must read only its first eight bytes. The results
//! of the parts reach the merge task in a file of the same form.
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | number of parts `n`, little endian, at most [`crate::limits::PARTS_MAX`] |
//! | 8..8+8(n+1) | `n + 1` offsets from the start of the file, little endian, rising: part `i` lies between `i` and `i + 1` |
//! | then | the parts |
//! | after the last part | only in a plan: its [`Brief`] |

use crate::codec::{Decode, Encode};
use crate::limits::PARTS_MAX;

/// Which task of its job a task is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum Stage {
    /// The only task.
    #[default]
    Whole,
    /// Writes how the job is split.
    Plan,
    /// Does one part.
    Run {
        /// The part, counted from 0.
        part: u32,
        /// The number of parts.
        parts: u32,
    },
    /// Joins the results of the parts.
    Merge {
        /// The number of parts.
        parts: u32,
    },
}

/// What the plan task passes to every later task of its job. Only workers write and read it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Brief {
    /// The files that the job reads, as they were when it was planned.
    pub seen: Vec<PlannedFile>,
    /// Bytes that the kind passes to all of them.
    pub common: Vec<u8>,
}

/// A file as the plan task found it: a later task that finds other values knows that the file was changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct PlannedFile {
    /// The name that the job uses for it.
    pub name: String,
    /// Its length in bytes.
    pub length: u64,
    /// When its contents were last changed: seconds and nanoseconds since 1970.
    pub modified: (i64, i64),
}

/// Bytes at the start of a plan that hold the number of its parts.
pub const COUNT_BYTES: usize = 8;

/// The number of parts of a plan of `length` bytes that begins with `head`; `None` if it is no valid plan.
pub fn parts_of(head: [u8; COUNT_BYTES], length: u64) -> Option<u32> {
    let parts = u32::try_from(u64::from_le_bytes(head)).ok().filter(|parts| *parts <= PARTS_MAX)?;
    (length >= table_bytes(parts)).then_some(parts)
}

/// Bytes of count and offsets before the first part.
pub fn table_bytes(parts: u32) -> u64 {
    COUNT_BYTES as u64 * (u64::from(parts) + 2)
}

/// The contents of a file with these parts.
pub fn pack<P: AsRef<[u8]>>(parts: &[P]) -> Vec<u8> {
    let mut at = COUNT_BYTES as u64 * (parts.len() as u64 + 2);
    let mut bytes = (parts.len() as u64).to_le_bytes().to_vec();
    bytes.extend(at.to_le_bytes());
    for part in parts {
        at += part.as_ref().len() as u64;
        bytes.extend(at.to_le_bytes());
    }
    for part in parts {
        bytes.extend_from_slice(part.as_ref());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_plan_says_how_many_parts_it_has_and_where() {
        let packed = pack(&[&b"one"[..], b"", b"three"]);
        let word = |place: usize| u64::from_le_bytes(*packed[8 * place..].first_chunk().unwrap());
        assert_eq!(parts_of(*packed.first_chunk().unwrap(), packed.len() as u64), Some(3));
        assert_eq!((word(1), word(2), word(3), word(4)), (40, 43, 43, 48));
        assert_eq!(&packed[40..43], b"one");
        assert_eq!(packed.len(), 48);
        assert_eq!(parts_of(*pack::<&[u8]>(&[]).first_chunk().unwrap(), 16), Some(0));
    }

    #[test]
    fn what_is_too_short_or_too_many_is_no_plan() {
        assert_eq!(parts_of(3_u64.to_le_bytes(), 39), None);
        assert_eq!(parts_of(3_u64.to_le_bytes(), 40), Some(3));
        assert_eq!(parts_of((u64::from(PARTS_MAX) + 1).to_le_bytes(), u64::MAX), None);
        assert_eq!(parts_of([255; 8], u64::MAX), None);
    }
}

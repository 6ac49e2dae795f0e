//! The true nature of a job, hidden in its input, where the fake worker reads it.
//!
//! The daemon must never look into an input. A nonce makes every input different, so that a mixed-up one is noticed.

use bulkhead_proto::job::Payload;
use bulkhead_proto::worker::stage::Stage;

/// The nature of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// Done after so many microseconds.
    Harmless(u16),
    /// Done after so many milliseconds.
    Slow(u16),
    /// Kills its worker, so many times in a thousand.
    Poison(u16),
    /// Fails so many times, then is done.
    Fails(u16),
    /// Never ends by itself.
    Loops,
    /// Is done in so many parts; each of its tasks is in trouble so many times in 256.
    Fan(u8, u8),
}

impl Truth {
    /// As an input.
    pub fn hide(self, nonce: u64) -> Payload {
        let (code, value) = match self {
            Self::Harmless(us) => (0, us),
            Self::Slow(ms) => (1, ms),
            Self::Poison(per_mille) => (2, per_mille),
            Self::Fails(times) => (3, times),
            Self::Loops => (4, 0),
            Self::Fan(parts, trouble) => (5, u16::from_le_bytes([parts, trouble])),
        };
        let mut bytes = vec![code];
        bytes.extend_from_slice(&value.to_le_bytes());
        bytes.extend_from_slice(&nonce.to_le_bytes());
        Payload::from(bytes)
    }

    /// Out of an input; what is no input of ours is harmless.
    pub fn find(input: &Payload) -> Self {
        let Some(([code, low, high], _)) = input.as_bytes().split_first_chunk::<3>() else {
            return Self::Harmless(1);
        };
        let value = u16::from_le_bytes([*low, *high]);
        match code {
            1 => Self::Slow(value),
            2 => Self::Poison(value),
            3 => Self::Fails(value),
            4 => Self::Loops,
            5 => Self::Fan(*low, *high),
            _ => Self::Harmless(value),
        }
    }

    /// Parts of a job that is done in parts.
    pub fn parts(input: &Payload) -> u32 {
        if let Self::Fan(parts, _) = Self::find(input) { u32::from(parts) } else { 0 }
    }

    /// The nature of one task of a job.
    pub fn of_task(input: &Payload, stage: Stage) -> Self {
        let Self::Fan(_, trouble) = Self::find(input) else { return Self::find(input) };
        let number = match stage {
            Stage::Whole | Stage::Plan => 0,
            Stage::Merge { .. } => 1,
            Stage::Run { part, .. } => u64::from(part) + 2,
        };
        // FNV-1a over the input, stirred with the task: the same each time.
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let bytes = input.as_bytes().iter().copied().chain(number.to_le_bytes());
        let draw = bytes.fold(0xcbf2_9ce4_8422_2325, mix) >> 16;
        if draw % 256 >= u64::from(trouble) {
            return Self::Harmless((draw >> 8) as u16 % 3000);
        }
        match (draw >> 8) % 6 {
            0 => Self::Slow((draw >> 16) as u16 % 20_000),
            1 => Self::Poison(1000),
            2 | 3 => Self::Poison(500),
            4 => Self::Fails(1 + (draw >> 16) as u16 % 3),
            _ => Self::Loops,
        }
    }

    /// Whether a job, or a task of it, never ends by itself.
    pub fn loops(input: &Payload) -> bool {
        let parts = Self::parts(input);
        let runs = (0..parts).map(|part| Stage::Run { part, parts });
        let mut all = runs.chain([Stage::Plan, Stage::Merge { parts }]);
        all.any(|stage| Self::of_task(input, stage) == Self::Loops)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_found() {
        use Truth::{Fails, Fan, Harmless, Loops, Poison, Slow};
        for truth in [Harmless(9), Slow(300), Poison(1000), Fails(2), Loops, Fan(7, 200)] {
            assert_eq!(Truth::find(&truth.hide(5)), truth);
        }
        assert!(Truth::loops(&Loops.hide(1)) && !Truth::loops(&Fan(200, 0).hide(1)));
    }
}

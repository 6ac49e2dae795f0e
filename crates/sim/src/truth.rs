//! What a job truly is, whatever the daemon believes: hidden in its input, where the fake worker reads it.
//!
//! The daemon must never look inside; a nonce makes every input different, so that a mixed-up one is seen.

use bulkhead_proto::job::Payload;

/// The nature of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// Done after so many microseconds.
    Harmless(u16),
    /// Done after so many milliseconds.
    Slow(u16),
    /// Kills its worker, so many times in a thousand.
    Poison(u16),
    /// Says no so many times, then is done.
    Fails(u16),
    /// Never ends by itself.
    Loops,
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
            _ => Self::Harmless(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_found() {
        for truth in
            [Truth::Harmless(9), Truth::Slow(300), Truth::Poison(1000), Truth::Fails(2), Truth::Loops]
        {
            assert_eq!(Truth::find(&truth.hide(5)), truth);
        }
    }
}

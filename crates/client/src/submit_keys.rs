//! The keys of a durable submit: one for each request that it is split into.
//!
//! The first request has the caller's key, or one made of 16 random bytes, as digits that people can type. The requests after it
//! have that key with `#1`, `#2` and so on. A submit that is repeated is split in the same way, so each of its requests has the key
//! that it had before, and the daemon answers with the jobs that it has accepted. Driven by `submit.rs`.

use std::fmt::Write as _;
use std::io;

use bulkhead_proto::limits::KEY_MAX_BYTES;

use crate::error::Error;

/// Bytes of a key that the library makes, before they become two digits each.
const RANDOM_BYTES: usize = 16;

/// The key of the next request of one submit.
#[derive(Debug)]
pub(crate) struct SubmitKeys {
    base: Vec<u8>,
    /// The requests that the daemon has answered.
    answered: u64,
}

impl SubmitKeys {
    /// The keys of a submit; `key` is the caller's.
    ///
    /// # Errors
    /// Those of getrandom(2), if the caller gave none.
    pub(crate) fn new(key: Option<Vec<u8>>) -> io::Result<Self> {
        let base = match key {
            Some(key) => key,
            None => random_key()?.into_bytes(),
        };
        Ok(Self { base, answered: 0 })
    }

    /// The key of the whole submit, as the caller gives it to repeat it.
    pub(crate) fn base(&self) -> &[u8] {
        &self.base
    }

    /// The key of the next request; `is_last`: no further request follows. A request without an answer has the same key when it is
    /// sent again.
    ///
    /// # Errors
    /// [`Error::KeyTooLong`] before the first of several requests, if the key has no room for their numbers.
    pub(crate) fn current(&self, is_last: bool) -> Result<Vec<u8>, Error> {
        let is_alone = self.answered == 0 && is_last;
        let most = if is_alone { KEY_MAX_BYTES } else { KEY_MAX_BYTES - numbered(u64::MAX).len() };
        if self.base.is_empty() || self.base.len() > most {
            return Err(Error::KeyTooLong { bytes: self.base.len(), limit: most });
        }
        let number = if self.answered == 0 { String::new() } else { numbered(self.answered) };
        Ok([self.base.as_slice(), number.as_bytes()].concat())
    }

    /// The daemon has accepted jobs of the request with the current key.
    pub(crate) fn advance(&mut self) {
        self.answered += 1;
    }
}

/// What the key of a request has behind that of the first one.
fn numbered(number: u64) -> String {
    format!("#{number}")
}

fn random_key() -> io::Result<String> {
    let mut bytes = [0; RANDOM_BYTES];
    bulkhead_sys::random::fill(&mut bytes)?;
    Ok(bytes.iter().fold(String::new(), |mut digits, byte| {
        let _ = write!(digits, "{byte:02x}");
        digits
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_has_a_key_of_its_own_until_it_is_answered() {
        let mut keys = SubmitKeys::new(Some(b"night".to_vec())).unwrap();
        assert_eq!(keys.current(false).unwrap(), b"night");
        assert_eq!(keys.current(false).unwrap(), b"night", "it was not answered");
        keys.advance();
        assert_eq!(keys.current(false).unwrap(), b"night#1");
        keys.advance();
        assert_eq!(keys.current(true).unwrap(), b"night#2");
        assert_eq!(keys.base(), b"night");
    }

    #[test]
    fn a_key_that_the_library_makes_is_new_and_can_be_typed() {
        let keys = || SubmitKeys::new(None).unwrap();
        let (one, other) = (keys().current(true).unwrap(), keys().current(true).unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), 2 * RANDOM_BYTES);
        assert!(one.iter().all(u8::is_ascii_hexdigit));
    }

    #[test]
    fn a_key_has_room_for_the_numbers_of_several_requests() {
        let keys = |bytes| SubmitKeys::new(Some(vec![b'k'; bytes])).unwrap();
        assert_eq!(keys(KEY_MAX_BYTES).current(true).unwrap().len(), KEY_MAX_BYTES);
        let limit = KEY_MAX_BYTES - "#18446744073709551615".len();
        let too_long = |bytes, is_last| keys(bytes).current(is_last).unwrap_err().to_string();
        assert!(
            too_long(limit + 1, false).contains(&format!("{} bytes", limit + 1)),
            "{}",
            too_long(limit + 1, false)
        );
        keys(limit).current(false).unwrap();
        assert!(too_long(KEY_MAX_BYTES + 1, true).contains("from 1 to 128 bytes"));
        assert!(too_long(0, true).contains("0 bytes"));
    }
}

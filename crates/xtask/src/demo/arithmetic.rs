//! Checks a factorial without GMP: compares its digits with the product 1 * 2 * ... * n, both modulo a prime.
//!
//! Two different numbers are equal modulo 2^61 - 1 by chance once in 2 * 10^18, so a result that passes was neither
//! cut, corrupted, nor mixed up with another one.

/// A Mersenne prime: 2^61 - 1.
const PRIME: u64 = (1 << 61) - 1;

/// Digits that are read at a time: 10^18 is less than 2^61.
const GROUP_DIGITS: usize = 18;

/// n! modulo the prime, by multiplying.
pub(crate) fn factorial(n: u64) -> u64 {
    (1..=n).fold(1, multiply)
}

/// The number with these decimal digits, modulo the prime; `None` if a character is no digit.
pub(crate) fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let group = |bytes: &[u8]| bytes.iter().fold(0_u64, |value, byte| value * 10 + u64::from(byte - b'0'));
    let fold = |value: u64, bytes: &[u8]| {
        let shift = 10_u64.pow(u32::try_from(bytes.len()).expect("a group has at most 18 digits"));
        (multiply(value, shift) + group(bytes)) % PRIME
    };
    Some(text.as_bytes().chunks(GROUP_DIGITS).fold(0, fold))
}

fn multiply(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b) % u128::from(PRIME);
    u64::try_from(product).expect("a remainder of the prime fits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn right_digits_pass() {
        assert_eq!(digits("2432902008176640000"), Some(factorial(20)));
        let hundred = "93326215443944152681699238856266700490715968264381621468592963895217599993229915\
                       608941463976156518286253697920827223758251185210916864000000000000000000000000";
        assert_eq!(digits(hundred), Some(factorial(100)));
        assert_eq!(digits("1"), Some(factorial(0)));
    }

    #[test]
    fn a_cut_torn_or_foreign_text_does_not() {
        assert_ne!(digits("243290200817664000"), Some(factorial(20)));
        assert_ne!(digits("2432902008176640001"), Some(factorial(20)));
        assert_ne!(digits("51090942171709440000"), Some(factorial(20)));
        assert_eq!(digits(""), None);
        assert_eq!(digits("12x"), None);
    }
}

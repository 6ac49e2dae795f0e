//! How many decimal digits a huge number has, without converting it: for 10,000,000! the conversion takes six
//! times as long as the factorial itself.
//!
//! Exact for every number, also right beside a power of ten, where a logarithm alone would be a guess.

use rug::{Complete, Integer};

/// How many decimal digits a number above 0 has: exact, and without converting it.
///
/// The logarithm decides, unless the number is so close to a power of ten that its rounding could be wrong;
/// then the two are compared.
pub(crate) fn count(number: &Integer) -> u64 {
    let (mantissa, exponent) = number.to_f64_exp();
    let log = mantissa.log10() + f64::from(exponent) * std::f64::consts::LOG10_2;
    let nearest = log.round();
    // The product is off by less than 2^-52 of its value, about 1e-8 for the largest factorial.
    if (log - nearest).abs() > 1e-6 {
        return log.floor() as u64 + 1;
    }
    let power = nearest as u32;
    if *number >= power_of_ten(power) { u64::from(power) + 1 } else { u64::from(power) }
}

fn power_of_ten(exponent: u32) -> Integer {
    Integer::u_pow_u(10, exponent).complete()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_counted_exactly_beside_powers_of_ten() {
        for exponent in (0..400).chain([10_000, 65_536]) {
            let power = power_of_ten(exponent);
            assert_eq!(count(&power), u64::from(exponent) + 1);
            assert_eq!(count(&(power.clone() + 1_u32)), u64::from(exponent) + 1);
            if exponent > 0 {
                assert_eq!(count(&(power - 1_u32)), u64::from(exponent));
            }
        }
    }
}

//! Counts the decimal digits of a huge number without converting it to text: for 10,000,000! the conversion takes six
//! times as long as the factorial itself.
//!
//! The count is exact for every number, also next to a power of ten, where a logarithm alone could be wrong by one.
//! Used by `factorial.rs`.

use rug::{Complete, Integer};

/// The number of decimal digits of a number above 0.
///
/// It computes the logarithm. If the number is so close to a power of ten that rounding could be wrong, it compares the
/// two numbers instead.
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

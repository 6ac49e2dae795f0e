//! Decimal digits of huge numbers, in a stream: what was written need not be held.
//!
//! GMP converts a number to text in one piece, and for 10,000,000! that piece and its work space are hundreds
//! of megabytes. Here the number is split at powers of ten until the parts are small; each part is written
//! and dropped before the next is converted. The digits are the same, byte for byte, however it is split.

use std::io::{self, Write};

use rug::{Complete, Integer};

/// Digits of a part that is converted in one piece.
const PIECE_DIGITS: u32 = 1 << 20;

/// Writes all decimal digits of a number that is not negative.
///
/// # Errors
/// Those of `out`.
pub(crate) fn write(number: Integer, out: &mut dyn Write) -> io::Result<()> {
    write_in_pieces(number, PIECE_DIGITS, out)
}

fn write_in_pieces(number: Integer, piece_digits: u32, out: &mut dyn Write) -> io::Result<()> {
    // powers[i] is 10^(piece_digits * 2^i): the last is the greatest that the number is not less than.
    let mut powers = vec![power_of_ten(piece_digits)];
    while let Some(last) = powers.last()
        && last.significant_bits() * 2 <= number.significant_bits() + 1
    {
        powers.push(last.square_ref().complete());
    }
    write_split(number, &powers, None, piece_digits as usize, out)
}

/// Writes `number`, padded with zeros to `width` if given: a part that is not the first has all its digits.
fn write_split(
    number: Integer,
    powers: &[Integer],
    width: Option<usize>,
    piece_digits: usize,
    out: &mut dyn Write,
) -> io::Result<()> {
    let Some((power, smaller)) = powers.split_last() else {
        let text = number.to_string_radix(10);
        drop(number);
        write_zeros(width.unwrap_or(0).saturating_sub(text.len()), out)?;
        return out.write_all(text.as_bytes());
    };
    if width.is_none() && number < *power {
        return write_split(number, smaller, None, piece_digits, out);
    }
    let low_width = piece_digits << smaller.len();
    let (high, low): (Integer, Integer) = number.div_rem_ref(power).complete();
    drop(number);
    write_split(high, smaller, width.map(|width| width - low_width), piece_digits, out)?;
    write_split(low, smaller, Some(low_width), piece_digits, out)
}

fn write_zeros(mut count: usize, out: &mut dyn Write) -> io::Result<()> {
    const ZEROS: [u8; 4096] = [b'0'; 4096];
    while count > 0 {
        let part = count.min(ZEROS.len());
        out.write_all(&ZEROS[..part])?;
        count -= part;
    }
    Ok(())
}

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

    fn text(number: Integer, piece_digits: u32) -> String {
        let mut out = Vec::new();
        write_in_pieces(number, piece_digits, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn pieces_join_to_what_one_piece_gives() {
        for n in [0_u32, 1, 5, 20, 100, 1000, 3249] {
            let number: Integer = Integer::factorial(n).complete();
            let whole = number.to_string_radix(10);
            for piece_digits in [1, 2, 3, 7, 64, 5000, 100_000] {
                assert_eq!(text(number.clone(), piece_digits), whole, "{n}! in pieces of {piece_digits}");
            }
        }
    }

    #[test]
    fn zeros_inside_and_around_powers_of_ten_are_kept() {
        for exponent in 0..40 {
            for offset in [-1, 0, 1] {
                let number: Integer = power_of_ten(exponent) + offset;
                let whole = number.to_string_radix(10);
                for piece_digits in [1, 3, 8] {
                    assert_eq!(text(number.clone(), piece_digits), whole);
                }
            }
        }
        assert_eq!(text(power_of_ten(9000), 1), format!("1{}", "0".repeat(9000)));
    }

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

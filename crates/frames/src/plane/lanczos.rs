//! The Lanczos kernel with three lobes: sinc(x) sinc(x / 3) for |x| < 3, else 0.
//!
//! The scaler calls it thousands of times a frame, as often as a tenth of its work on samples. So it does not call the
//! system's sine: one series gives both sines. It also makes the result independent of the version of the system's
//! library.

use std::f64::consts::PI;

/// Lobes on each side.
pub(crate) const LOBES: f64 = 3.0;

/// The kernel at x.
///
/// With s = sin(pi x / 3), sin(pi x) is s (3 - 4 s^2), so one sine is enough for both.
pub(crate) fn kernel(x: f64) -> f64 {
    let x = x.abs();
    if x >= LOBES {
        return 0.0;
    }
    // This close to 0 the kernel is 1 - 1.83 x^2, and the quotient below would lose precision.
    if x < 1e-5 {
        return 1.0;
    }
    let sine = sine_of_half_turns(x / LOBES);
    let square = sine * sine;
    LOBES * square * (3.0 - 4.0 * square) / (PI * PI * x * x)
}

/// sin(pi u) for u from 0 to 1, as cos(pi (u - 1/2)) by its series; the first term left out is below 1e-14.
fn sine_of_half_turns(u: f64) -> f64 {
    let angle = PI * (u - 0.5);
    let square = angle * angle;
    // -1 / ((2k - 1) 2k) from the innermost factor, k = 9, outwards.
    const FACTORS: [f64; 9] = [
        -1.0 / 306.0,
        -1.0 / 240.0,
        -1.0 / 182.0,
        -1.0 / 132.0,
        -1.0 / 90.0,
        -1.0 / 56.0,
        -1.0 / 30.0,
        -1.0 / 12.0,
        -1.0 / 2.0,
    ];
    FACTORS.iter().fold(1.0, |inner, factor| 1.0 + inner * square * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(x: f64) -> f64 {
        let sinc = |x: f64| if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) };
        if x.abs() < 3.0 { sinc(x) * sinc(x / 3.0) } else { 0.0 }
    }

    #[test]
    fn it_is_the_kernel_to_nine_digits() {
        for step in -40_000..=40_000 {
            let x = f64::from(step) / 10_000.0;
            assert!((kernel(x) - definition(x)).abs() < 1e-9, "{x}: {} {}", kernel(x), definition(x));
        }
        for x in [0.0, 1e-12, 9e-6, 1e-5, 1.1e-5, 1e-4, 2.999_999_999, 3.0, f64::MAX] {
            assert!((kernel(x) - definition(x)).abs() < 1e-9, "{x}: {} {}", kernel(x), definition(x));
        }
    }
}

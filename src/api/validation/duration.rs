//! Durations as gateways read them: the strings of Go's `time.ParseDuration`.
//!
//! The schema's pattern is not enough: `9999999h` matches it and overflows the
//! 64 bits in which a gateway counts nanoseconds, so the gateway refuses the
//! whole resource.

use std::time::Duration;

/// Why a string is not a duration that gateways accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not a sequence of numbers with units.
    #[error("is not a duration")]
    Malformed,
    /// A number without a unit.
    #[error("has a number without a unit")]
    MissingUnit,
    /// A unit other than ns, us, ms, s, m, h.
    #[error("has an unknown unit")]
    UnknownUnit,
    /// More nanoseconds than 63 bits hold (about 292 years).
    #[error("is longer than 292 years")]
    TooLong,
    /// Below zero.
    #[error("is negative")]
    Negative,
}

const NANOSECOND: u64 = 1;
const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// The longest duration, in nanoseconds: what a signed 64-bit count holds.
const LONGEST: u64 = i64::MAX as u64;

/// Digits of a fraction beyond these cannot move the result by a nanosecond,
/// and more of them would overflow the arithmetic.
const FRACTION_DIGITS: u32 = 18;

/// Parses a Go duration such as `1h30m`, `1.5s` or `300ms`.
///
/// An empty string is zero, as gateways take it.
///
/// # Errors
/// [`DurationError`] for what Go refuses and for what is below zero.
pub fn parse_go_duration(text: &str) -> Result<Duration, DurationError> {
    if text.is_empty() {
        return Ok(Duration::ZERO);
    }
    let (negative, unsigned) = match text.as_bytes()[0] {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let nanoseconds = if unsigned == "0" { 0 } else { parse_unsigned(unsigned)? };
    if negative && nanoseconds > 0 {
        return Err(DurationError::Negative);
    }
    Ok(Duration::from_nanos(nanoseconds))
}

fn parse_unsigned(text: &str) -> Result<u64, DurationError> {
    if text.is_empty() {
        return Err(DurationError::Malformed);
    }
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let whole_digits = digits(rest);
        let (whole, after_whole) = rest.split_at(whole_digits);
        let (fraction, after_number) = match after_whole.strip_prefix('.') {
            Some(after_dot) => after_dot.split_at(digits(after_dot)),
            None => ("", after_whole),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(DurationError::Malformed);
        }
        let unit_end =
            after_number.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after_number.len());
        let (unit, after_unit) = after_number.split_at(unit_end);
        let scale = unit_scale(unit)?;
        total = whole_number(whole)?
            .checked_mul(scale)
            .and_then(|part| part.checked_add(fraction_of(fraction, scale)))
            .and_then(|part| total.checked_add(part))
            .filter(|sum| *sum <= LONGEST)
            .ok_or(DurationError::TooLong)?;
        rest = after_unit;
    }
    Ok(total)
}

fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

fn whole_number(digits: &str) -> Result<u64, DurationError> {
    if digits.is_empty() {
        return Ok(0);
    }
    digits.parse().map_err(|_| DurationError::TooLong)
}

/// The nanoseconds of `0.<digits>` units of `scale` nanoseconds.
fn fraction_of(digits: &str, scale: u64) -> u64 {
    let (mut value, mut divisor) = (0_u128, 1_u128);
    for digit in digits.bytes().take(FRACTION_DIGITS as usize) {
        value = value * 10 + u128::from(digit - b'0');
        divisor *= 10;
    }
    // Below `scale`, which is a u64: `value < divisor`.
    u64::try_from(value * u128::from(scale) / divisor).unwrap_or(scale)
}

fn unit_scale(unit: &str) -> Result<u64, DurationError> {
    Ok(match unit {
        "ns" => NANOSECOND,
        // Both code points that look like a micro sign.
        "us" | "\u{b5}s" | "\u{3bc}s" => MICROSECOND,
        "ms" => MILLISECOND,
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        "" => return Err(DurationError::MissingUnit),
        _ => return Err(DurationError::UnknownUnit),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<u64, DurationError>) {
        assert_eq!(parse_go_duration(text).map(|d| d.as_nanos() as u64), expected, "{text:?}");
    }

    #[test]
    fn durations_are_read_as_go_reads_them() {
        check("", Ok(0));
        check("0", Ok(0));
        check("-0", Ok(0));
        check("30s", Ok(30 * SECOND));
        check("1h30m", Ok(90 * MINUTE));
        check("1.5s", Ok(1_500_000_000));
        check(".5s", Ok(500_000_000));
        check("1.s", Ok(SECOND));
        check("300ms", Ok(300_000_000));
        check("1us1\u{b5}s1\u{3bc}s", Ok(3_000));
        check("+5m", Ok(5 * MINUTE));
        check("0.000000001s", Ok(1));
        check("0.00000000000000000000000000000001h", Ok(0));
        check("2562047h47m16.854775807s", Ok(LONGEST));
    }

    #[test]
    fn what_go_refuses_is_refused() {
        use DurationError::*;
        for (text, expected) in [
            ("5", MissingUnit),
            ("1h5", MissingUnit),
            ("s", Malformed),
            (".s", Malformed),
            ("-", Malformed),
            ("1 s", UnknownUnit),
            ("5d", UnknownUnit),
            ("5S", UnknownUnit),
            (" 5s", Malformed),
            ("9999999h", TooLong),
            ("99999999999999999999s", TooLong),
            ("2562047h47m16.854775808s", TooLong),
            ("-5s", Negative),
        ] {
            check(text, Err(expected));
        }
    }
}

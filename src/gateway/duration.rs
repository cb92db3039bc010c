//! Durations as gateways write them: Go's `time.ParseDuration`.
//!
//! A spec whose duration cannot be read is undecodable as a whole, which is
//! why this is a type of its own and not a string that is looked at later.

use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

/// A duration in Go's notation, for example `1m30s`; zero when negative, since
/// a gateway treats a negative limit as none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct GoDuration(pub(crate) Duration);

impl GoDuration {
    /// The duration, unless it is zero, which stands for "no limit".
    pub(crate) fn limit(self) -> Option<Duration> {
        (!self.0.is_zero()).then_some(self.0)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = GoDuration;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a duration such as \"30s\" or a number of nanoseconds")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<GoDuration, E> {
                parse(text).map(GoDuration).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }

            fn visit_u64<E: Error>(self, nanos: u64) -> Result<GoDuration, E> {
                Ok(GoDuration(Duration::from_nanos(nanos)))
            }

            fn visit_i64<E: Error>(self, nanos: i64) -> Result<GoDuration, E> {
                Ok(GoDuration(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))))
            }
        }

        deserializer.deserialize_any(Text)
    }
}

/// Reads a Go duration; `None` when it is none. The empty text is zero, as an
/// absent field is.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" || text.is_empty() {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        // `f64` also reads "inf" and "1e5"; only digits and a point come here.
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        nanos += number
            * match &rest[..letters] {
                "ns" => 1.0,
                "us" | "µs" | "μs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return None,
            };
        rest = &rest[letters..];
    }
    if nanos > i64::MAX as f64 {
        return None;
    }
    Some(if negative { Duration::ZERO } else { Duration::from_nanos(nanos.round() as u64) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_are_read_and_others_are_refused() {
        let check = |text: &str, expected: Option<Duration>| assert_eq!(parse(text), expected, "{text}");
        check("30s", Some(Duration::from_secs(30)));
        check("1m30s", Some(Duration::from_secs(90)));
        check("1.5h", Some(Duration::from_secs(5400)));
        check("250ms", Some(Duration::from_millis(250)));
        check("7us", Some(Duration::from_micros(7)));
        check("0", Some(Duration::ZERO));
        check("", Some(Duration::ZERO));
        check("-5s", Some(Duration::ZERO));
        check("30", None);
        check("s", None);
        check("30 s", None);
        check("1d", None);
        check("1.2.3s", None);
        check("-", None);
        check("9999999999h", None);
    }
}

//! How long ago something was, for people: two or three significant figures.

use jiff::Timestamp;
use serde_json::Value;

/// What is shown for a time that is not set.
const UNKNOWN: &str = "<unknown>";

/// The time since an RFC 3339 timestamp, `<unknown>` when it is missing and `<invalid>` when it cannot be read.
pub(super) fn since(timestamp: &Value, now: Timestamp) -> String {
    match timestamp.as_str() {
        None | Some("") => UNKNOWN.to_owned(),
        Some(text) => match text.parse::<Timestamp>() {
            Ok(then) => human(now.as_second() - then.as_second()),
            Err(_) => "<invalid>".to_owned(),
        },
    }
}

/// A duration in seconds, rounded as kubectl's users know it: `90s`, `5m30s`, `2h`, `3d4h`, `1y30d`.
fn human(seconds: i64) -> String {
    let pair = |big: i64, big_unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{big_unit}"),
        small => format!("{big}{big_unit}{small}{small_unit}"),
    };
    let (minutes, hours, days, years) =
        (seconds / 60, seconds / 3600, seconds / 86_400, seconds / 86_400 / 365);
    match seconds {
        // Clocks of different machines may differ a little.
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => pair(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => pair(years, "y", days % 365, "d"),
        _ => format!("{years}y"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ages_are_rounded_as_kubernetes_rounds_them() {
        const MINUTE: i64 = 60;
        const HOUR: i64 = 3600;
        const DAY: i64 = 86_400;
        for (seconds, expected) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (9 * MINUTE + 59, "9m59s"),
            (10 * MINUTE + 59, "10m"),
            (179 * MINUTE, "179m"),
            (3 * HOUR, "3h"),
            (7 * HOUR + 59 * MINUTE, "7h59m"),
            (8 * HOUR + MINUTE, "8h"),
            (47 * HOUR, "47h"),
            (2 * DAY, "2d"),
            (7 * DAY + 23 * HOUR, "7d23h"),
            (8 * DAY + HOUR, "8d"),
            (729 * DAY, "729d"),
            (730 * DAY, "2y"),
            (731 * DAY, "2y1d"),
            (8 * 365 * DAY, "8y"),
        ] {
            assert_eq!(human(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn times_that_are_missing_or_unreadable_are_named() {
        let now: Timestamp = "2024-01-01T00:05:00Z".parse().unwrap();
        for (value, expected) in [
            (json!("2024-01-01T00:00:00Z"), "5m"),
            (json!("2024-01-01T00:04:58.5+00:00"), "2s"),
            (json!(null), "<unknown>"),
            (json!("soon"), "<invalid>"),
        ] {
            assert_eq!(since(&value, now), expected);
        }
    }
}

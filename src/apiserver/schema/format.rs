//! The string formats that kube-apiserver enforces for custom resources.
//!
//! It enforces only these and ignores every other name, `int32` and `int64` among them: a number's range is a matter
//! of `minimum` and `maximum`. The checks follow its libraries, which are sometimes laxer than the standard a
//! format is named after.

use regex::Regex;
use std::net::Ipv6Addr;
use std::sync::LazyLock;

/// How strings of one format are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    BsonObjectId,
    Byte,
    Cidr,
    CreditCard,
    Date,
    DateTime,
    Duration,
    Email,
    HexColor,
    Hostname,
    Ipv4,
    Ipv6,
    Isbn,
    Isbn10,
    Isbn13,
    LongName,
    Mac,
    Password,
    RgbColor,
    ShortName,
    Ssn,
    Uri,
    Uuid,
    Uuid3,
    Uuid4,
    Uuid5,
}

impl Format {
    /// The format of this name, if it is enforced. Dashes do not count: `date-time` is `datetime`.
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name.replace('-', "").as_str() {
            "bsonobjectid" => Self::BsonObjectId,
            "byte" => Self::Byte,
            "cidr" => Self::Cidr,
            "creditcard" => Self::CreditCard,
            "date" => Self::Date,
            "datetime" => Self::DateTime,
            "duration" => Self::Duration,
            "email" => Self::Email,
            "hexcolor" => Self::HexColor,
            "hostname" => Self::Hostname,
            "ipv4" => Self::Ipv4,
            "ipv6" => Self::Ipv6,
            "isbn" => Self::Isbn,
            "isbn10" => Self::Isbn10,
            "isbn13" => Self::Isbn13,
            "k8slongname" => Self::LongName,
            "mac" => Self::Mac,
            "password" => Self::Password,
            "rgbcolor" => Self::RgbColor,
            "k8sshortname" => Self::ShortName,
            "ssn" => Self::Ssn,
            "uri" => Self::Uri,
            "uuid" => Self::Uuid,
            "uuid3" => Self::Uuid3,
            "uuid4" => Self::Uuid4,
            "uuid5" => Self::Uuid5,
            _ => return None,
        })
    }

    /// Whether `text` is of this format.
    pub(super) fn accepts(self, text: &str) -> bool {
        let hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
        match self {
            Self::BsonObjectId => text.len() == 24 && hex(text),
            Self::Byte => matches(&BASE64, text),
            Self::Cidr => is_cidr(text),
            Self::CreditCard => is_credit_card(text),
            Self::Date => is_date(text),
            Self::DateTime => is_date_time(text),
            Self::Duration => is_duration(text),
            Self::Email => is_email(text),
            Self::HexColor => {
                let digits = text.strip_prefix('#').unwrap_or(text);
                matches!(digits.len(), 3 | 6) && hex(digits)
            }
            Self::Hostname => {
                matches(&HOSTNAME, text)
                    && text.len() <= 255
                    && text.split('.').all(|label| label.len() <= 63)
            }
            Self::Ipv4 => text.contains('.') && is_ip(text),
            Self::Ipv6 => text.contains(':') && text.parse::<Ipv6Addr>().is_ok(),
            Self::Isbn => is_isbn(text, 10) || is_isbn(text, 13),
            Self::Isbn10 => is_isbn(text, 10),
            Self::Isbn13 => is_isbn(text, 13),
            Self::LongName => text.len() <= 253 && text.split('.').all(is_label),
            Self::Mac => is_mac(text),
            Self::Password => true,
            Self::RgbColor => matches(&RGB_COLOR, text),
            Self::ShortName => text.len() <= 63 && is_label(text),
            Self::Ssn => text.len() == 11 && matches(&SSN, text),
            Self::Uri => is_request_uri(text),
            Self::Uuid => is_uuid(text, None),
            Self::Uuid3 => is_uuid(text, Some('3')),
            Self::Uuid4 => is_uuid(text, Some('4')),
            Self::Uuid5 => is_uuid(text, Some('5')),
        }
    }
}

/// A pattern of this file. It is a constant that the tests below compile, so it is always there.
type Constant = LazyLock<Option<Regex>>;

fn matches(pattern: &Constant, text: &str) -> bool {
    pattern.as_ref().is_some_and(|regex| regex.is_match(text))
}

static BASE64: Constant = LazyLock::new(|| {
    Regex::new("^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})$").ok()
});
static HOSTNAME: Constant = LazyLock::new(|| {
    Regex::new(concat!(
        r"^([a-zA-Z0-9\p{S}\p{L}]((-?[a-zA-Z0-9\p{S}\p{L}]{0,62})?)",
        r"|([a-zA-Z0-9\p{S}\p{L}](([a-zA-Z0-9-\p{S}\p{L}]{0,61}[a-zA-Z0-9\p{S}\p{L}])?)(\.)){1,}",
        r"([a-zA-Z\p{L}]){2,63})$"
    ))
    .ok()
});
static RGB_COLOR: Constant = LazyLock::new(|| {
    const CHANNEL: &str = r"\s*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])\s*";
    Regex::new(&format!(r"^rgb\({CHANNEL},{CHANNEL},{CHANNEL}\)$")).ok()
});
static SSN: Constant = LazyLock::new(|| Regex::new("^[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}$").ok());
static TIME_OF_DAY: Constant = LazyLock::new(|| {
    Regex::new(r"^([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))$").ok()
});
static GO_DURATION: Constant =
    LazyLock::new(|| Regex::new(r"^[-+]?(0|(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$").ok());
static WORDY_DURATION: Constant = LazyLock::new(|| Regex::new("([0-9]+)\\s*([A-Za-zµ]+)").ok());
static EMAIL: Constant = LazyLock::new(|| {
    Regex::new(concat!(
        r#"^(?:[^<>"@]*|\s*"(?:[^"\\]|\\.)*"\s*)<\s*[^\s<>()\[\],;:\\"@]+@[^\s<>()\[\],;:\\"@]+\s*>\s*$"#,
        r#"|^\s*(?:"(?:[^"\\]|\\.)+"|[^\s<>()\[\],;:\\"@]+)@[^\s<>()\[\],;:\\"@]+\s*$"#
    ))
    .ok()
});
static UUID: Constant = LazyLock::new(|| {
    Regex::new("(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$").ok()
});

fn is_date(text: &str) -> bool {
    text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()
}

fn is_date_time(text: &str) -> bool {
    let lower = text.to_lowercase();
    let mut parts = lower.split('t');
    let (Some(date), Some(time)) = (parts.next(), parts.next()) else { return false };
    if !is_date(date) {
        return false;
    }
    let Some(captures) = TIME_OF_DAY.as_ref().and_then(|regex| regex.captures(time)) else { return false };
    &captures[1] <= "23" && &captures[2] <= "59" && &captures[3] <= "59"
}

/// Go's durations, and besides them Scala's such as `22 ns` or `3 days`.
fn is_duration(text: &str) -> bool {
    const WHOLE: [&str; 14] =
        ["ns", "nano", "us", "µs", "micro", "ms", "milli", "s", "m", "h", "hr", "d", "w", "wk"];
    const PREFIX: [&str; 8] = ["nano", "micro", "milli", "sec", "min", "hour", "day", "week"];
    if matches(&GO_DURATION, text) {
        return true;
    }
    let Some(regex) = WORDY_DURATION.as_ref() else { return false };
    let mut found = false;
    for captures in regex.captures_iter(text) {
        if captures[1].parse::<i64>().is_err() {
            return false;
        }
        let unit = captures[2].to_lowercase();
        found |= WHOLE.contains(&unit.as_str()) || PREFIX.iter().any(|prefix| unit.starts_with(prefix));
    }
    found
}

fn is_email(text: &str) -> bool {
    let dots = |part: &str| !part.starts_with('.') && !part.ends_with('.') && !part.contains("..");
    let address = text.rsplit('<').next().unwrap_or(text).trim().trim_end_matches('>');
    matches(&EMAIL, text)
        && address
            .rsplit_once('@')
            .is_some_and(|(local, domain)| (local.starts_with('"') || dots(local)) && dots(domain))
}

/// IPv4 with leading zeros tolerated, as Go did before 1.17, or IPv6.
fn is_ip(text: &str) -> bool {
    if text.contains(':') {
        return text.parse::<Ipv6Addr>().is_ok();
    }
    let octet = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_digit())
            && part.parse::<u32>().is_ok_and(|n| n <= 255)
    };
    text.split('.').count() == 4 && text.split('.').all(octet)
}

fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let most = if address.contains(':') { 128 } else { 32 };
    let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
    is_ip(address) && digits && length.parse::<u32>().is_ok_and(|n| n <= most)
}

fn is_mac(text: &str) -> bool {
    let groups = |separator: char, digits: usize, counts: [usize; 3]| {
        counts.contains(&text.split(separator).count())
            && text.split(separator).all(|g| g.len() == digits && g.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    groups(':', 2, [6, 8, 20]) || groups('-', 2, [6, 8, 20]) || groups('.', 4, [3, 4, 10])
}

fn is_uuid(text: &str, version: Option<char>) -> bool {
    if !matches(&UUID, text) {
        return false;
    }
    let digits: Vec<char> = text.chars().filter(|c| *c != '-').collect();
    let Some(version) = version else { return true };
    let variant = version == '3' || matches!(digits.get(16), Some('8' | '9' | 'a' | 'b' | 'A' | 'B'));
    digits.get(12) == Some(&version) && variant
}

fn is_label(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.bytes().next().is_some_and(plain)
        && text.bytes().next_back().is_some_and(plain)
        && text.bytes().all(|b| plain(b) || b == b'-')
}

fn is_isbn(text: &str, length: u32) -> bool {
    let text: Vec<u32> = {
        let compact = text.chars().filter(|c| !c.is_whitespace() && *c != '-');
        let digits: Option<Vec<u32>> = compact
            .enumerate()
            .map(|(at, c)| if length == 10 && at == 9 && c == 'X' { Some(10) } else { c.to_digit(10) })
            .collect();
        match digits {
            Some(digits) if digits.len() == length as usize => digits,
            _ => return false,
        }
    };
    if length == 10 {
        (1..).zip(&text).map(|(weight, digit)| weight * digit).sum::<u32>() % 11 == 0
    } else {
        text.iter().enumerate().map(|(at, digit)| if at % 2 == 0 { *digit } else { 3 * digit }).sum::<u32>()
            % 10
            == 0
    }
}

fn is_credit_card(text: &str) -> bool {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(10)).collect();
    let number: String = digits.iter().map(ToString::to_string).collect();
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| number.starts_with(prefix));
    let issued = match number.len() {
        13 => starts(&["4"]),
        14 => starts(&["300", "301", "302", "303", "304", "305", "36", "38"]),
        15 => starts(&["34", "37", "2131", "1800"]),
        16 => starts(&["4", "51", "52", "53", "54", "55", "6011", "65", "35"]),
        _ => false,
    };
    let luhn: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| match (at % 2, digit * 2) {
            (0, _) => *digit,
            (_, double) => double / 10 + double % 10,
        })
        .sum();
    issued && luhn.is_multiple_of(10)
}

/// What Go's `url.ParseRequestURI` takes: an absolute path, `*`, or something with a scheme.
fn is_request_uri(text: &str) -> bool {
    if text.is_empty() || text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return false;
    }
    if text == "*" {
        return true;
    }
    let (scheme, rest) = match text.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => (Some(scheme), rest),
        Some(("", _)) => return false,
        _ => (None, text),
    };
    let path = rest.split('?').next().unwrap_or(rest);
    if !path.starts_with('/') {
        return scheme.is_some();
    }
    let Some(rest) = path.strip_prefix("//").filter(|_| scheme.is_some()) else {
        return escapes_are_valid(path);
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = authority.rsplit('@').next().unwrap_or(authority);
    let (name, port) = match host.strip_prefix('[') {
        Some(literal) => match literal.split_once(']') {
            Some((name, port)) => (name, port.strip_prefix(':').or(port.is_empty().then_some(""))),
            None => return false,
        },
        None => match host.rsplit_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, Some("")),
        },
    };
    let name_is_valid =
        !name.bytes().any(|b| matches!(b, b' ' | b'"' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | b'#'));
    name_is_valid
        && port.is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()))
        && escapes_are_valid(path)
}

fn is_scheme(text: &str) -> bool {
    text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

fn escapes_are_valid(path: &str) -> bool {
    let mut parts = path.split('%');
    parts.next();
    parts.all(|part| part.len() >= 2 && part.bytes().take(2).all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constant_patterns_compile() {
        for pattern in
            [&BASE64, &HOSTNAME, &RGB_COLOR, &SSN, &TIME_OF_DAY, &GO_DURATION, &WORDY_DURATION, &EMAIL, &UUID]
        {
            assert!(pattern.is_some());
        }
    }

    #[test]
    fn formats_accept_what_kube_apiserver_accepts() {
        for (name, accepted, refused) in [
            (
                "date-time",
                &["2024-02-29T23:59:59Z", "2024-01-01t00:00:00.5+01:00"][..],
                &["2024-02-30T00:00:00Z", "2024-01-01T24:00:00Z", "2024-01-01", "2024-01-01T00:00:00"][..],
            ),
            ("date", &["2024-02-29"], &["2023-02-29", "24-1-1", "2024-01-01T00:00:00Z"]),
            ("duration", &["1h30m", "0", "-1.5s", "22 ns", "3 days"], &["", "1", "h", "5 parsecs"]),
            ("byte", &["aGk=", "aGkh"], &["", "aGk", "a_k="]),
            ("ipv4", &["10.0.0.1", "010.0.0.1", "::ffff:1.2.3.4"], &["10.0.0", "256.0.0.1", "::1"]),
            ("ipv6", &["::1", "fe80::1"], &["10.0.0.1", "::g"]),
            ("cidr", &["10.0.0.0/8", "fd00::/64"], &["10.0.0.0", "10.0.0.0/33", "x/8"]),
            ("mac", &["01:23:45:67:89:ab", "0123.4567.89ab"], &["01:23", "zz:23:45:67:89:ab"]),
            ("uuid", &["01234567-89AB-cdef-0123-456789abcdef"], &["01234567", ""]),
            (
                "uuid4",
                &["01234567-89ab-4def-8123-456789abcdef"],
                &["01234567-89ab-3def-8123-456789abcdef", "01234567-89ab-4def-c123-456789abcdef"],
            ),
            (
                "uri",
                &["https://a.example:8443/x?y", "/path", "mailto:a@b"],
                &["", "relative/x", "https://a b/", "http://a:port/", "/%zz"],
            ),
            ("email", &["a@b.example", "A B <a@b.example>"], &["a", "@b", "a@"]),
            ("hostname", &["a.example", "localhost"], &["a_b", "-a.example", ""]),
            ("isbn10", &["0321751043"], &["0321751044"]),
            ("isbn", &["978-0321751041"], &["978-0321751042"]),
            ("creditcard", &["4111 1111 1111 1111"], &["4111 1111 1111 1112"]),
            ("hexcolor", &["#FFF", "a0b1c2"], &["#FFFF"]),
            ("rgbcolor", &["rgb(255, 0,1)"], &["rgb(256,0,0)"]),
            ("ssn", &["123-45-6789"], &["123456789", "123-45-678"]),
            ("bsonobjectid", &["507f1f77bcf86cd799439011"], &["507f"]),
            ("k8s-short-name", &["a-1"], &["A", "-a", "a.b"]),
            ("k8s-long-name", &["a-1.b"], &["a..b"]),
            ("password", &["", "x"], &[]),
        ] {
            let format = Format::parse(name).unwrap();
            for text in accepted {
                assert!(format.accepts(text), "{name} should accept {text:?}");
            }
            for text in refused {
                assert!(!format.accepts(text), "{name} should refuse {text:?}");
            }
        }
    }

    #[test]
    fn formats_of_numbers_are_not_enforced() {
        for name in ["int32", "int64", "double", "no-such-format"] {
            assert_eq!(Format::parse(name), None);
        }
    }
}

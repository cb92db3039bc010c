//! What the value of an annotation may be, read strictly: whatever is not exactly that
//! is an error with a remedy, never a zero.

use std::ops::RangeInclusive;

use flotilla_api::validation::parse_go_duration;
use serde_json::Value;

use crate::vocabulary::METHODS;

/// All methods of HTTP.
const ANY: &str = "*";

/// What a value may be.
#[derive(Debug, Clone)]
pub(super) enum Reads {
    /// `true` or `false`.
    Truth,
    /// A whole number.
    Count(RangeInclusive<i64>),
    /// One of a few numbers.
    Number(&'static [i64]),
    /// A duration as Go writes it.
    Duration,
    /// A path.
    Path,
    /// A host, with or without a port.
    Authority,
    /// A media type.
    MediaType,
    /// Any text but none.
    Text,
    /// Any text, or none.
    MaybeText,
    /// One of a few words.
    Word(&'static [&'static str]),
    /// One of a few words in any of its spellings, each with the one that specs have.
    Spelt(&'static [(&'static str, &'static str)]),
    /// Some of a few words, separated by commas, which stay one text.
    Words(&'static [&'static str]),
    /// Texts separated by commas.
    List,
    /// Methods separated by commas.
    Methods,
}

/// Why a value cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bad {
    /// What is wrong with it.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
}

fn bad<T>(problem: impl Into<String>, remedy: impl Into<String>) -> Result<T, Bad> {
    Err(Bad { problem: problem.into(), remedy: remedy.into() })
}

impl Reads {
    /// The value as it stands in a spec.
    pub fn read(&self, text: &str) -> Result<Value, Bad> {
        if text.chars().any(char::is_control) {
            return bad("has a control character", "leave out line breaks, tabs and the like");
        }
        if text.is_empty() && !matches!(self, Reads::MaybeText) {
            return bad("is empty", "give a value or remove the annotation");
        }
        match self {
            Reads::Truth => match text {
                "true" => Ok(Value::Bool(true)),
                "false" => Ok(Value::Bool(false)),
                _ => bad("is neither true nor false", "give \"true\" or \"false\""),
            },
            Reads::Count(range) => count(text, range),
            Reads::Number(numbers) => match text.parse::<i64>() {
                Ok(number) if numbers.contains(&number) => Ok(Value::from(number)),
                _ => bad("is none of the numbers that this may be", format!("give one of {numbers:?}")),
            },
            Reads::Duration => match parse_go_duration(text) {
                Ok(_) => Ok(Value::from(text)),
                Err(error) => bad(
                    error.to_string(),
                    "give numbers with the units ns, us, ms, s, m or h, for example 1h30m, 1.5s or 300ms",
                ),
            },
            Reads::Path if !text.starts_with('/') => {
                bad("does not begin with /", "give a path, for example /health")
            }
            Reads::Authority if text.contains(|c: char| c.is_whitespace() || c == '/') => {
                bad("is no host", "give a host name, with or without :PORT")
            }
            Reads::MediaType if !is_media_type(text) => {
                bad("is no media type", "give TYPE/SUBTYPE, for example application/json")
            }
            Reads::Path | Reads::Authority | Reads::MediaType | Reads::Text | Reads::MaybeText => {
                Ok(Value::from(text))
            }
            Reads::Word(words) => words.contains(&text).then(|| Value::from(text)).map_or_else(
                || bad("is none of the words that this may be", format!("give one of {}", words.join(", "))),
                Ok,
            ),
            Reads::Spelt(words) => match words.iter().find(|(spelling, _)| *spelling == text) {
                Some((_, word)) => Ok(Value::from(*word)),
                None => {
                    let own: Vec<&str> =
                        words.iter().filter(|(a, b)| a == b).map(|(word, _)| *word).collect();
                    bad("is none of the words that this may be", format!("give one of {}", own.join(", ")))
                }
            },
            Reads::Words(words) => {
                let parts = list(text)?;
                match parts.iter().find(|part| !words.contains(part)) {
                    None => Ok(Value::from(parts.join(","))),
                    Some(other) => {
                        bad(format!("has {other:?}"), format!("give some of {}", words.join(", ")))
                    }
                }
            }
            Reads::List => Ok(Value::from(list(text)?)),
            Reads::Methods => {
                let methods: Vec<String> = list(text)?.iter().map(|part| part.to_ascii_uppercase()).collect();
                let known = |method: &&String| *method == ANY || METHODS.contains(&method.as_str());
                match methods.iter().find(|method| !known(method)) {
                    None => Ok(Value::from(methods)),
                    Some(other) => {
                        bad(format!("has {other:?}"), format!("give some of {}, {ANY}", METHODS.join(", ")))
                    }
                }
            }
        }
    }
}

fn count(text: &str, range: &RangeInclusive<i64>) -> Result<Value, Bad> {
    let remedy = || match *range.end() {
        i64::MAX => format!("give a whole number of at least {}", range.start()),
        most => format!("give a whole number from {} to {most}", range.start()),
    };
    // A sign or a space is a slip that others may read otherwise.
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return bad("is no whole number", remedy());
    }
    match text.parse::<i64>() {
        Ok(number) if range.contains(&number) => Ok(Value::from(number)),
        _ => bad("is out of range", remedy()),
    }
}

/// The parts of a list; none may be empty.
fn list(text: &str) -> Result<Vec<&str>, Bad> {
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    if parts.contains(&"") {
        return bad("has an empty entry", "separate entries by single commas");
    }
    Ok(parts)
}

/// `type/subtype`, perhaps with parameters.
fn is_media_type(text: &str) -> bool {
    let essence = text.split(';').next().unwrap_or_default().trim_end();
    let token = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "!#$&-^_.+*".contains(c))
    };
    essence.split_once('/').is_some_and(|(one, other)| token(one) && token(other))
}

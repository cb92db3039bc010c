//! Decoding with an error that names the field.
//!
//! `serde_json` says at which byte it stopped. Only when it did, the bytes are
//! walked once more to find which field that is: the good case pays nothing.

use serde::Deserialize;

use super::field::FieldError;

const REMEDY: &str = "give a value of the type that the field has in the schema";

pub(super) fn decode<'a, T: Deserialize<'a>>(spec: &'a [u8]) -> Result<T, FieldError> {
    plainly(spec).map_err(|error| {
        let text = error.to_string();
        // The position means nothing to a user: the field is named instead.
        let problem = text.split(" at line ").next().unwrap_or(&text).to_owned();
        FieldError {
            field: path_at(spec, offset(spec, error.line(), error.column())),
            problem,
            remedy: REMEDY.into(),
        }
    })
}

/// The same, without a field's name. A spec is one text, and looked at once whether
/// it is; where it is not, that matters only if what is wrong is read.
pub(super) fn plainly<'a, T: Deserialize<'a>>(spec: &'a [u8]) -> serde_json::Result<T> {
    match std::str::from_utf8(spec) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(spec),
    }
}

/// The byte offset of a line and column as `serde_json` counts them: lines
/// from one, columns in bytes.
fn offset(bytes: &[u8], line: usize, column: usize) -> usize {
    let line_start = bytes
        .iter()
        .enumerate()
        .filter(|(_, b)| **b == b'\n')
        .map(|(at, _)| at + 1)
        .nth(line.saturating_sub(2))
        .filter(|_| line > 1)
        .unwrap_or(0);
    line_start + column
}

enum Step<'b> {
    Object { key: Option<&'b [u8]>, key_next: bool },
    List { index: usize },
}

/// The path of the last value that starts at or before `end`: the decoder stops
/// either after the value that it minds or at its first byte.
fn path_at(bytes: &[u8], end: usize) -> String {
    let mut steps: Vec<Step<'_>> = Vec::new();
    let mut deepest = render(&steps);
    let mut at = 0;
    while at <= end && at < bytes.len() {
        let byte = bytes[at];
        at += 1;
        match byte {
            b'}' | b']' => {
                steps.pop();
            }
            b',' => match steps.last_mut() {
                Some(Step::Object { key_next, .. }) => *key_next = true,
                Some(Step::List { index }) => *index += 1,
                None => {}
            },
            b':' | b' ' | b'\t' | b'\r' | b'\n' => {}
            b'"' => {
                let start = at;
                at = string_end(bytes, start);
                match steps.last_mut() {
                    Some(Step::Object { key, key_next: key_next @ true }) => {
                        *key = bytes.get(start..at.saturating_sub(1).max(start));
                        *key_next = false;
                    }
                    _ => deepest = render(&steps),
                }
            }
            b'{' => {
                deepest = render(&steps);
                steps.push(Step::Object { key: None, key_next: true });
            }
            b'[' => {
                deepest = render(&steps);
                steps.push(Step::List { index: 0 });
            }
            _ => deepest = render(&steps),
        }
    }
    deepest
}

/// The offset after the closing quote of a string whose content starts at `start`.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    while let Some(byte) = bytes.get(at) {
        at += match byte {
            b'\\' => 2,
            b'"' => return at + 1,
            _ => 1,
        };
    }
    bytes.len()
}

fn render(steps: &[Step<'_>]) -> String {
    let mut path = String::from("spec");
    for step in steps {
        match step {
            Step::Object { key: Some(key), .. } => {
                path.push('.');
                path.push_str(&String::from_utf8_lossy(key));
            }
            Step::Object { key: None, .. } => {}
            Step::List { index } => path.push_str(&format!("[{index}]")),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::super::shape::{HttpMatch, Route};
    use super::*;

    fn check(spec: &str, field: &str) {
        let error = decode::<Route<'_, HttpMatch<'_>>>(spec.as_bytes()).expect_err(spec);
        assert_eq!(error.field, field, "{spec}: {error}");
        assert!(!error.problem.contains("line"), "{error}");
    }

    #[test]
    fn an_undecodable_field_is_named() {
        check(r#"{"timeout":5}"#, "spec.timeout");
        check(r#"{"timeout":{}}"#, "spec.timeout");
        check(r#"{"cors":{"x":"a\"b"},"timeout":[1]}"#, "spec.timeout");
        check(r#"{"route":[{"weight":1},{"weight":1.5}]}"#, "spec.route[1].weight");
        check(
            "{\n \"route\": [\n  {\"destination\": {\"port\": \"80\"}}\n ]\n}",
            "spec.route[0].destination.port",
        );
        check(r#"{"cors":{"maxAge":1e30}}"#, "spec.cors.maxAge");
        check(r#"{"match":"x"}"#, "spec.match");
        check(r#"{"match":[{"uri":"x"}]}"#, "spec.match[0].uri");
        check("[]", "spec");
        check("7", "spec");
    }

    #[test]
    fn broken_json_is_an_error_and_not_a_panic() {
        for spec in ["", "{", "{\"a", "{\"a\\", "{\"timeout\":\"\\", "nul", "{\"a\":1,}", "\u{0}"] {
            assert!(decode::<Route<'_, HttpMatch<'_>>>(spec.as_bytes()).is_err(), "{spec:?}");
        }
        assert!(decode::<Route<'_, HttpMatch<'_>>>(b"{\"timeout\":\"\xff\"}").is_err());
    }
}

//! Regular expressions as Go reads them.
//!
//! `pattern` in a schema is written for Go's regexp package. Rust's regex crate has the same engine idea (no
//! backtracking) and nearly the same syntax, but reads a few things differently: `\d`, `\w`, `\s` and `\b` are ASCII
//! in Go, `[`, `&&`, `--` and `~~` are plain characters inside a Go class, and a `{` that starts no repetition is a
//! plain character. A pattern is translated so that both servers accept the same strings.

use regex::{Regex, RegexBuilder};

/// Go refuses a repetition count above this.
const MAX_REPEAT: u32 = 1000;

/// Compiles a pattern written for Go. The error text is meant for the author of the schema.
pub(super) fn compile(pattern: &str) -> Result<Regex, String> {
    let translated = translate(pattern)?;
    RegexBuilder::new(&translated).build().map_err(|error| error.to_string())
}

fn translate(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        rest = match c {
            '\\' => escape(rest, false, &mut out)?,
            '[' => class(rest, &mut out)?,
            '{' => repetition(rest, &mut out)?,
            '}' => {
                out.push_str("\\}");
                &rest[1..]
            }
            _ => {
                out.push(c);
                &rest[c.len_utf8()..]
            }
        };
    }
    Ok(out)
}

/// `rest` starts with a backslash; returns what follows the escape.
fn escape<'a>(rest: &'a str, in_class: bool, out: &mut String) -> Result<&'a str, String> {
    let Some(c) = rest[1..].chars().next() else {
        return Err("trailing backslash at end of expression: ``".to_owned());
    };
    let after = &rest[1 + c.len_utf8()..];
    let (ascii, negated) = match c {
        'd' => ("0-9", false),
        'D' => ("0-9", true),
        'w' => ("0-9A-Za-z_", false),
        'W' => ("0-9A-Za-z_", true),
        's' => ("\\t\\n\\f\\r ", false),
        'S' => ("\\t\\n\\f\\r ", true),
        'b' | 'B' if !in_class => {
            out.push_str(&format!("(?-u:\\{c})"));
            // Without Unicode `\B` could match inside a character, which Rust refuses on strings.
            return if c == 'b' { Ok(after) } else { Err("invalid escape sequence: `\\B`".to_owned()) };
        }
        'Q' => {
            let (literal, after) = after.split_once("\\E").unwrap_or((after, ""));
            out.push_str(&regex::escape(literal));
            return Ok(after);
        }
        'A' | 'z' | 'p' | 'P' | 'x' | 'a' | 'f' | 't' | 'n' | 'r' | 'v' | '0'..='7' => {
            out.push('\\');
            out.push(c);
            return Ok(after);
        }
        c if c.is_ascii_alphanumeric() => return Err(format!("invalid escape sequence: `\\{c}`")),
        '<' | '>' | '_' => {
            out.push(c);
            return Ok(after);
        }
        c => {
            out.push_str(&regex::escape(&c.to_string()));
            return Ok(after);
        }
    };
    match (in_class, negated) {
        (true, false) => out.push_str(ascii),
        (_, true) => out.push_str(&format!("[^{ascii}]")),
        (false, false) => out.push_str(&format!("[{ascii}]")),
    }
    Ok(after)
}

/// `rest` starts with `[`; returns what follows the class.
fn class<'a>(rest: &'a str, out: &mut String) -> Result<&'a str, String> {
    out.push('[');
    let mut rest = &rest[1..];
    if let Some(after) = rest.strip_prefix('^') {
        out.push('^');
        rest = after;
    }
    let mut first = true;
    while let Some(c) = rest.chars().next() {
        match c {
            ']' if !first => {
                out.push(']');
                return Ok(&rest[1..]);
            }
            '[' if rest.starts_with("[:") && rest.contains(":]") => {
                let end = rest.find(":]").map_or(rest.len(), |at| at + 2);
                out.push_str(&rest[..end]);
                rest = &rest[end..];
            }
            '\\' => rest = escape(rest, true, out)?,
            '[' | ']' | '&' | '~' => {
                out.push('\\');
                out.push(c);
                rest = &rest[1..];
            }
            // A dash is a range only between two characters; two in a row would mean a difference to Rust.
            '-' if first || rest[1..].starts_with(']') || rest[1..].starts_with('-') => {
                out.push_str("\\-");
                rest = &rest[1..];
            }
            _ => {
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
        first = false;
    }
    Err("missing closing ]".to_owned())
}

/// `rest` starts with `{`, which is a repetition only when it looks like one.
fn repetition<'a>(rest: &'a str, out: &mut String) -> Result<&'a str, String> {
    let plain = |out: &mut String| out.push_str("\\{");
    let Some((inside, after)) = rest[1..].split_once('}') else {
        plain(out);
        return Ok(&rest[1..]);
    };
    let (low, high) = inside.split_once(',').unwrap_or((inside, ""));
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if low.is_empty() || !number(low) || !number(high) {
        plain(out);
        return Ok(&rest[1..]);
    }
    for bound in [low, high] {
        if !bound.is_empty() && bound.parse::<u32>().map_or(true, |n| n > MAX_REPEAT) {
            return Err(format!("invalid repeat count: `{{{inside}}}`"));
        }
    }
    out.push('{');
    out.push_str(inside);
    out.push('}');
    Ok(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_what_go_matches() {
        for (pattern, text, expected) in [
            (r"^\d+$", "12", true),
            (r"^\d+$", "١٢", false),
            (r"^\w+$", "é", false),
            (r"^[\w.-]+$", "a.b-c_9", true),
            (r"^[\D]$", "1", false),
            (r"^\S$", "é", true),
            (r"^[a[b]$", "[", true),
            (r"^[a&&b]+$", "&a", true),
            (r"^[a--]+$", "a-", true),
            (r"^[]a]+$", "]a", true),
            (r"^{x}$", "{x}", true),
            (r"^a{2,3}$", "aaa", true),
            (r"^a{2}$", "aaa", false),
            (r"\bfoo\b", "a foo b", true),
            (r"^a\.b\/c\_\<$", "a.b/c_<", true),
            (r"^\Qa.b\E$", "a.b", true),
            (r"^\Qa.b\E$", "axb", false),
            (r"^[[:alpha:]]+$", "ab", true),
            (r"^(?i)abc$", "ABC", true),
            (r"^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$", "1h30m", true),
            (r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", "*.a.b", true),
        ] {
            assert_eq!(compile(pattern).unwrap().is_match(text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for pattern in ["(", "[a", "a{1001}", r"\y", "a\\", "(?=x)", r"(a)\1"] {
            // Go reads `\1` as an unknown escape, Rust as a backreference; both refuse it.
            assert!(compile(pattern).is_err(), "{pattern}");
        }
    }
}

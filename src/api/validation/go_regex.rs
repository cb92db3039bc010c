//! Whether Go's `regexp.Compile` accepts a pattern.
//!
//! One pattern that a gateway cannot compile takes all routes with larger
//! names off that gateway, so this must not let one through; and refusing a
//! pattern that gateways accept would take a tenant's route away. Compiling
//! with the `regex` crate does both: it reads `/users/{id}` and `[[]` as
//! errors, and accepts `(?x)`, `\u0041` or `x{2000}`, which Go does not. So
//! this walks Go's grammar itself, in one pass and without building anything.
//! The `regex` crate is asked only for the names of Unicode classes.

use regex::Regex;

/// Go refuses a repetition above this, also when it comes from nesting.
const MOST_REPEATS: u32 = 1000;

/// Go refuses to nest deeper.
const DEEPEST: usize = 1000;

/// Why Go refuses a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegexError {
    /// `(` without `)`.
    #[error("has an opening parenthesis that is never closed")]
    UnclosedGroup,
    /// `)` without `(`.
    #[error("has a closing parenthesis that was never opened")]
    UnopenedGroup,
    /// `[` without `]`.
    #[error("has a character class that is never closed")]
    UnclosedClass,
    /// A range whose end is before its start, or an unknown named class.
    #[error("has an invalid character class `{0}`")]
    InvalidClass(String),
    /// A backslash followed by something without meaning, back references included.
    #[error("has an invalid escape `{0}`")]
    InvalidEscape(String),
    /// A backslash at the end.
    #[error("ends with a backslash")]
    TrailingBackslash,
    /// `*`, `+`, `?` or `{n}` with nothing to repeat.
    #[error("repeats nothing at `{0}`")]
    NothingToRepeat(String),
    /// A repetition of a repetition, for example `a**`.
    #[error("repeats a repetition at `{0}`")]
    RepeatedRepeat(String),
    /// More than 1,000 repetitions, or a minimum above the maximum.
    #[error("has an invalid repeat count at `{0}`; the most is 1000")]
    InvalidRepeatCount(String),
    /// `(?…` that is neither a flag, nor a name, nor a plain group.
    #[error("uses `{0}`, which RE2 does not have (look-around, for example)")]
    InvalidGroup(String),
    /// A group name that is empty or not made of word characters.
    #[error("has the invalid group name `{0}`")]
    InvalidGroupName(String),
    /// Nested too deeply.
    #[error("nests deeper than 1000 groups")]
    TooDeep,
}

/// Checks a pattern against the syntax of Go's `regexp` package.
///
/// # Errors
/// [`RegexError`] for what Go refuses to compile.
pub fn check_go_regex(pattern: &str) -> Result<(), RegexError> {
    Checker { pattern, rest: pattern, groups: Vec::new(), repeats: 1, last: None }.run()
}

struct Checker<'p> {
    pattern: &'p str,
    rest: &'p str,
    /// For each open group, the largest repetition seen in what surrounds it.
    groups: Vec<u32>,
    /// The largest repetition in the group that is being read.
    repeats: u32,
    /// The repetitions within the last thing that can be repeated, if any.
    last: Option<u32>,
}

impl<'p> Checker<'p> {
    fn run(mut self) -> Result<(), RegexError> {
        let mut after_repeat = false;
        while let Some(c) = self.rest.chars().next() {
            let mut is_repeat = false;
            match c {
                '(' => self.open()?,
                ')' => {
                    let outer = self.groups.pop().ok_or(RegexError::UnopenedGroup)?;
                    self.skip(1);
                    self.last = Some(self.repeats);
                    self.repeats = self.repeats.max(outer);
                }
                '|' => {
                    self.skip(1);
                    self.last = None;
                }
                '[' => {
                    self.class()?;
                    self.last = Some(1);
                }
                '\\' => self.escape()?,
                '*' | '+' | '?' => {
                    let before = self.rest;
                    self.skip(1);
                    self.repeat(before, 1, after_repeat)?;
                    is_repeat = true;
                }
                '{' => match counted(self.rest) {
                    Some((count, length)) => {
                        let before = self.rest;
                        self.skip(length);
                        let factor =
                            count.ok_or_else(|| RegexError::InvalidRepeatCount(excerpt(before, length)))?;
                        self.repeat(before, factor, after_repeat)?;
                        is_repeat = true;
                    }
                    // Not a count: Go takes the brace literally.
                    None => self.atom(1),
                },
                other => self.atom(other.len_utf8()),
            }
            after_repeat = is_repeat;
        }
        if self.groups.is_empty() { Ok(()) } else { Err(RegexError::UnclosedGroup) }
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
    }

    fn atom(&mut self, bytes: usize) {
        self.skip(bytes);
        self.last = Some(1);
    }

    fn repeat(&mut self, before: &str, factor: u32, after_repeat: bool) -> Result<(), RegexError> {
        if self.rest.starts_with('?') {
            self.skip(1);
        }
        let operator = || excerpt(before, before.len() - self.rest.len());
        if after_repeat {
            return Err(RegexError::RepeatedRepeat(operator()));
        }
        let inner = self.last.ok_or_else(|| RegexError::NothingToRepeat(operator()))?;
        let product = inner.saturating_mul(factor.max(1));
        if product > MOST_REPEATS {
            return Err(RegexError::InvalidRepeatCount(operator()));
        }
        self.last = Some(product);
        self.repeats = self.repeats.max(product);
        Ok(())
    }

    fn open_group(&mut self) -> Result<(), RegexError> {
        if self.groups.len() == DEEPEST {
            return Err(RegexError::TooDeep);
        }
        self.groups.push(self.repeats);
        self.repeats = 1;
        self.last = None;
        Ok(())
    }

    fn open(&mut self) -> Result<(), RegexError> {
        let Some(perl) = self.rest.strip_prefix("(?") else {
            self.skip(1);
            return self.open_group();
        };
        if let Some(named) = perl.strip_prefix("P<").or_else(|| perl.strip_prefix('<')) {
            let (name, after) = named.split_once('>').ok_or_else(|| self.invalid_group())?;
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || !name.chars().all(is_word) {
                return Err(RegexError::InvalidGroupName(name.to_owned()));
            }
            self.rest = after;
            return self.open_group();
        }
        let (mut negated, mut seen_flag) = (false, false);
        for (at, flag) in perl.char_indices() {
            match flag {
                'i' | 'm' | 's' | 'U' => seen_flag = true,
                '-' if !negated => (negated, seen_flag) = (true, false),
                ':' | ')' if !negated || seen_flag => {
                    self.rest = &perl[at + 1..];
                    return if flag == ':' { self.open_group() } else { Ok(()) };
                }
                _ => break,
            }
        }
        Err(self.invalid_group())
    }

    fn invalid_group(&self) -> RegexError {
        RegexError::InvalidGroup(excerpt(self.rest, 4))
    }

    fn escape(&mut self) -> Result<(), RegexError> {
        match self.rest.as_bytes().get(1) {
            Some(b'A' | b'b' | b'B' | b'z') => self.atom(2),
            Some(b'Q') => {
                let quoted = &self.rest[2..];
                let (literal, after) = quoted.split_once("\\E").unwrap_or((quoted, ""));
                if !literal.is_empty() {
                    self.last = Some(1);
                }
                self.rest = after;
            }
            _ => {
                if !self.class_escape()? {
                    self.single()?;
                }
                self.last = Some(1);
            }
        }
        Ok(())
    }

    /// Reads `\d`, `\pL` and their like; false when there is none here.
    fn class_escape(&mut self) -> Result<bool, RegexError> {
        let bytes = self.rest.as_bytes();
        if bytes.first() != Some(&b'\\') {
            return Ok(false);
        }
        match bytes.get(1) {
            Some(b'd' | b'D' | b's' | b'S' | b'w' | b'W') => self.skip(2),
            Some(b'p' | b'P') => {
                let invalid = |length| RegexError::InvalidClass(excerpt(self.rest, length));
                let after = &self.rest[2..];
                let (name, length) = match after.strip_prefix('{') {
                    Some(braced) => {
                        let end = braced.find('}').ok_or_else(|| invalid(12))?;
                        (&braced[..end], end + 4)
                    }
                    None => {
                        let letter = after.chars().next().ok_or_else(|| invalid(2))?;
                        (&after[..letter.len_utf8()], 2 + letter.len_utf8())
                    }
                };
                if !is_unicode_class(name.strip_prefix('^').unwrap_or(name)) {
                    return Err(invalid(length));
                }
                self.skip(length);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Reads one character that may be escaped, and returns its code point.
    fn single(&mut self) -> Result<u32, RegexError> {
        let mut chars = self.rest.chars();
        let Some(first) = chars.next() else { return Err(RegexError::UnclosedClass) };
        if first != '\\' {
            self.skip(first.len_utf8());
            return Ok(u32::from(first));
        }
        let Some(escaped) = chars.next() else { return Err(RegexError::TrailingBackslash) };
        let after = chars.as_str();
        let (value, rest) = match escaped {
            'a' => (7, after),
            'f' => (12, after),
            't' => (9, after),
            'n' => (10, after),
            'r' => (13, after),
            'v' => (11, after),
            '0'..='7' => octal(escaped, after).ok_or_else(|| self.invalid_escape())?,
            'x' => hexadecimal(after).ok_or_else(|| self.invalid_escape())?,
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => (u32::from(c), after),
            _ => return Err(self.invalid_escape()),
        };
        self.rest = rest;
        Ok(value)
    }

    fn invalid_escape(&self) -> RegexError {
        RegexError::InvalidEscape(excerpt(self.rest, 2))
    }

    fn class(&mut self) -> Result<(), RegexError> {
        self.skip(1);
        if self.rest.starts_with('^') {
            self.skip(1);
        }
        let mut first = true;
        while first || !self.rest.starts_with(']') {
            first = false;
            if self.rest.starts_with("[:")
                && let Some(end) = self.rest[2..].find(":]")
            {
                let name = &self.rest[2..end + 2];
                if !POSIX_CLASSES.contains(&name.strip_prefix('^').unwrap_or(name)) {
                    return Err(RegexError::InvalidClass(excerpt(self.rest, end + 4)));
                }
                self.skip(end + 4);
                continue;
            }
            if self.class_escape()? {
                continue;
            }
            let range = self.rest;
            let low = self.single()?;
            if self.rest.len() >= 2 && self.rest.starts_with('-') && self.rest.as_bytes()[1] != b']' {
                self.skip(1);
                if self.single()? < low {
                    let length = range.len() - self.rest.len();
                    return Err(RegexError::InvalidClass(excerpt(range, length)));
                }
            }
        }
        self.skip(1);
        debug_assert!(self.rest.len() < self.pattern.len(), "a class consumes at least its brackets");
        Ok(())
    }
}

const POSIX_CLASSES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
    "upper", "word", "xdigit",
];

/// `{n}`, `{n,}` or `{n,m}` at the start of `text`: by how much it multiplies
/// (none when the count is out of bounds) and its length. None when Go reads
/// the brace literally.
fn counted(text: &str) -> Option<(Option<u32>, usize)> {
    let (least, after) = count(text.strip_prefix('{')?)?;
    let (most, after) = match after.strip_prefix(',') {
        None => (least, after),
        Some(open) if open.starts_with('}') => (Some(least.unwrap_or(0)), open),
        Some(bounded) => count(bounded)?,
    };
    let after = after.strip_prefix('}')?;
    let factor = match (least, most) {
        (Some(least), Some(most)) if least <= most && most <= MOST_REPEATS => Some(most),
        _ => None,
    };
    Some((factor, text.len() - after.len()))
}

/// A decimal number without leading zeros; none inside when it is beyond all bounds.
fn count(text: &str) -> Option<(Option<u32>, &str)> {
    let length = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at(length);
    if digits.is_empty() || (digits.len() > 1 && digits.starts_with('0')) {
        return None;
    }
    Some((digits.parse().ok(), rest))
}

/// Up to three octal digits. One digit alone would be a back reference, unless it is `0`.
fn octal(first: char, after: &str) -> Option<(u32, &str)> {
    let more = after.bytes().take(2).take_while(|b| (b'0'..=b'7').contains(b)).count();
    if first != '0' && more == 0 {
        return None;
    }
    let mut value = first.to_digit(8)?;
    for digit in after[..more].chars() {
        value = value * 8 + digit.to_digit(8)?;
    }
    Some((value, &after[more..]))
}

/// Two hexadecimal digits, or any number of them in braces up to U+10FFFF.
fn hexadecimal(after: &str) -> Option<(u32, &str)> {
    let (digits, rest) = match after.strip_prefix('{') {
        Some(braced) => braced.split_once('}')?,
        None => (after.get(..2)?, after.get(2..)?),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let value = u32::from_str_radix(digits.trim_start_matches('0'), 16)
        .or_else(|e| if digits.bytes().all(|b| b == b'0') { Ok(0) } else { Err(e) })
        .ok()?;
    (value <= u32::from(char::MAX)).then_some((value, rest))
}

/// Whether a general category or script of that name exists.
fn is_unicode_class(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b' ' | b'-');
    !name.is_empty() && name.bytes().all(plain) && Regex::new(&format!("\\p{{{name}}}")).is_ok()
}

/// The first characters of `text`, at most `bytes` long.
fn excerpt(text: &str, bytes: usize) -> String {
    let end = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= bytes).last();
    text[..end.unwrap_or(0)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Verdicts of `regexp.Compile` (Go 1.26), recorded: `ok` or `no`, then the pattern.
    #[test]
    fn verdicts_are_those_of_go() {
        for (accepted, pattern) in include_str!("testdata/go_regex.txt").lines().filter_map(|line| {
            let (verdict, pattern) = line.split_once(' ')?;
            Some((verdict == "ok", pattern))
        }) {
            assert_eq!(
                check_go_regex(pattern).is_ok(),
                accepted,
                "{pattern:?}: {:?}",
                check_go_regex(pattern)
            );
        }
    }
}

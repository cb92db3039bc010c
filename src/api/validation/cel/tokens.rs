//! The words of CEL, one at a time and as cel-go cuts them: the longest that
//! fits. Literals are checked here, so that the grammar need not look into them.

use super::{CelProblem, excerpt};

/// One word of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'e> {
    /// Letters, digits and underscores; reserved words included.
    Name(&'e str),
    /// A name in backquotes.
    QuotedName,
    /// A signed number's digits, with what a sign before them decides.
    Int(Magnitude),
    /// A number with a point or an exponent.
    Double,
    /// A literal that takes no sign: unsigned number, string or bytes.
    Literal,
    /// An operator or a bracket.
    Sign(&'static str),
    /// Nothing is left.
    End,
}

/// How large an integer is, compared with what 64 bits hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Magnitude {
    /// It fits with and without a minus.
    Fits,
    /// It fits with a minus only: 2⁶³.
    FitsNegated,
    /// It fits in no case.
    TooLarge,
}

/// Longer ones first, as the longest wins.
const SIGNS: [&str; 24] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!", "?", ":",
    "+", "*", "/", "%",
];

/// Reads an expression from a place in it. A copy of it looks ahead.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tokens<'e> {
    text: &'e str,
    /// Where the next word starts, or the space before it.
    at: usize,
}

impl<'e> Tokens<'e> {
    pub(super) fn new(text: &'e str) -> Self {
        Self { text, at: 0 }
    }

    /// The next word and where it starts.
    pub(super) fn next(&mut self) -> Result<(Token<'e>, usize), Box<(CelProblem, usize)>> {
        self.skip_space();
        let start = self.at;
        let token = self.token().map_err(|problem| Box::new((problem, start)))?;
        Ok((token, start))
    }

    /// The word of letters and digits at a place, for messages.
    pub(super) fn word_at(&self, at: usize) -> &'e str {
        let rest = &self.text[at..];
        &rest[..length(rest, |b| b.is_ascii_alphanumeric() || b == b'_')]
    }

    fn rest(&self) -> &'e str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        loop {
            let rest = self.rest().trim_start_matches(['\t', ' ', '\r', '\n', '\u{c}']);
            self.at = self.text.len() - rest.len();
            if !rest.starts_with("//") {
                return;
            }
            self.at += rest.find('\n').unwrap_or(rest.len());
        }
    }

    fn token(&mut self) -> Result<Token<'e>, CelProblem> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Ok(Token::End) };
        if let Some(opening) = Opening::of(rest) {
            return self.string(opening);
        }
        if first.is_ascii_digit() || (first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit())) {
            return self.number();
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let name = &rest[..length(rest, |b| b.is_ascii_alphanumeric() || b == b'_')];
            self.at += name.len();
            return Ok(Token::Name(name));
        }
        if first == '`' {
            let inside = length(&rest[1..], |b| {
                b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'/' | b' ')
            });
            if inside > 0 && rest[1 + inside..].starts_with('`') {
                self.at += inside + 2;
                return Ok(Token::QuotedName);
            }
        }
        let sign = SIGNS.into_iter().find(|sign| rest.starts_with(sign));
        let sign = sign.ok_or_else(|| CelProblem::Unexpected(first.escape_debug().to_string()))?;
        self.at += sign.len();
        Ok(Token::Sign(sign))
    }

    fn number(&mut self) -> Result<Token<'e>, CelProblem> {
        let rest = self.rest();
        let digits = |text: &str| length(text, |b| b.is_ascii_digit());
        if let Some(hex) = rest.strip_prefix("0x") {
            let length = length(hex, |b| b.is_ascii_hexdigit());
            if length > 0 {
                return self.whole(&hex[..length], 16, 2);
            }
        }
        let whole = digits(rest);
        let mut end = whole;
        if let Some(fraction) = rest[end..].strip_prefix('.')
            && digits(fraction) > 0
        {
            end += 1 + digits(fraction);
        }
        if let Some(exponent) = rest[end..].strip_prefix(['e', 'E']) {
            let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits(unsigned) > 0 {
                end += 1 + (exponent.len() - unsigned.len()) + digits(unsigned);
            }
        }
        if end == whole {
            return self.whole(&rest[..whole], 10, 0);
        }
        let text = &rest[..end];
        self.at += end;
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Token::Double),
            _ => Err(CelProblem::NumberTooLarge(excerpt(text))),
        }
    }

    /// An integer of these digits, which `prefix` bytes stand before.
    fn whole(&mut self, digits: &str, radix: u32, prefix: usize) -> Result<Token<'e>, CelProblem> {
        let value = u64::from_str_radix(digits, radix);
        self.at += prefix + digits.len();
        if self.rest().starts_with(['u', 'U']) {
            self.at += 1;
            return value.map(|_| Token::Literal).map_err(|_| CelProblem::NumberTooLarge(excerpt(digits)));
        }
        Ok(Token::Int(match value {
            Ok(value) if value < 1 << 63 => Magnitude::Fits,
            Ok(value) if value == 1 << 63 => Magnitude::FitsNegated,
            _ => Magnitude::TooLarge,
        }))
    }

    fn string(&mut self, opening: Opening) -> Result<Token<'e>, CelProblem> {
        let mut rest = &self.rest()[opening.length..];
        while !rest.starts_with(opening.quotes) {
            let c = rest.chars().next().ok_or(CelProblem::UnclosedString)?;
            if !opening.is_long() && matches!(c, '\n' | '\r') {
                return Err(CelProblem::UnclosedString);
            }
            let length = match c {
                '\\' if !opening.raw => escape(rest, opening.bytes)
                    .ok_or_else(|| CelProblem::InvalidEscape(shown_escape(rest)))?,
                _ => c.len_utf8(),
            };
            rest = &rest[length..];
        }
        self.at = self.text.len() - rest.len() + opening.quotes.len();
        Ok(Token::Literal)
    }
}

/// How a string begins, which decides how it ends and what may stand in it.
#[derive(Clone, Copy)]
struct Opening {
    bytes: bool,
    raw: bool,
    quotes: &'static str,
    length: usize,
}

impl Opening {
    fn of(text: &str) -> Option<Self> {
        let after_bytes = text.strip_prefix(['b', 'B']).unwrap_or(text);
        let quoted = after_bytes.strip_prefix(['r', 'R']).unwrap_or(after_bytes);
        let quotes = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quotes| quoted.starts_with(quotes))?;
        // Three quotes that nothing closes are an empty string and a quote, which fits nowhere.
        Some(Self {
            bytes: after_bytes.len() < text.len(),
            raw: quoted.len() < after_bytes.len(),
            quotes,
            length: text.len() - quoted.len() + quotes.len(),
        })
    }

    fn is_long(self) -> bool {
        self.quotes.len() == 3
    }
}

/// The length of the escape at the start of `text`, if it is one.
fn escape(text: &str, bytes: bool) -> Option<usize> {
    let kind = *text.as_bytes().get(1)?;
    let digits = match kind {
        b'a' | b'b' | b'f' | b'n' | b'r' | b't' | b'v' | b'"' | b'\'' | b'\\' | b'?' | b'`' => {
            return Some(2);
        }
        b'0'..=b'3' => {
            let octal = text.get(2..4)?;
            return octal.bytes().all(|b| matches!(b, b'0'..=b'7')).then_some(4);
        }
        b'x' | b'X' => 2,
        // These name characters, and bytes are none.
        b'u' if !bytes => 4,
        b'U' if !bytes => 8,
        _ => return None,
    };
    let hex = text.get(2..2 + digits)?;
    if !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    char::from_u32(u32::from_str_radix(hex, 16).ok()?)?;
    Some(2 + digits)
}

/// The backslash and what follows it, on one line.
fn shown_escape(text: &str) -> String {
    let escaped = text.chars().nth(1).map(|c| c.escape_debug().to_string());
    format!("\\{}", escaped.unwrap_or_default())
}

/// How many bytes at the start of `text` are such.
fn length(text: &str, such: impl Fn(u8) -> bool) -> usize {
    text.bytes().take_while(|b| such(*b)).count()
}

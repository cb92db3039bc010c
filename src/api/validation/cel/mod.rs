//! Whether gateways compile an ABAC expression.
//!
//! A gateway that cannot compile one of a route's expressions serves the route
//! without authorization at all, or refuses every request to it, depending on
//! its version. So this must not let one through; and refusing an expression
//! that gateways compile would take a tenant's route away.
//!
//! Gateways use cel-go. The `cel` crate is no judge in its place: it overflows
//! the stack of a thread at a few dozen parentheses, takes time exponential in
//! nested `!!`, refuses `b"\n"`, `-0x10`, `r'''it's'''` and what nests deeper
//! than 96, and accepts `if` and `has()`, which cel-go does not. So this walks
//! the grammar itself, in one pass and without building anything, within the
//! bounds of length and depth that cel-go has. It resolves names and counts
//! arguments; types are followed only as far as the declared variables
//! themselves have neither fields nor elements.

use std::borrow::Cow;

mod grammar;
mod names;
mod tokens;

/// cel-go refuses more code points.
const LONGEST: usize = 100_000;

/// Why gateways do not compile an expression, and where that shows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}, at line {line}, column {column}")]
pub(super) struct CelError {
    /// What is wrong.
    problem: CelProblem,
    /// The line, counted from 1.
    line: usize,
    /// The character in the line, counted from 1.
    column: usize,
}

/// What keeps an expression from being compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CelProblem {
    /// There is nothing to compile.
    #[error("is empty")]
    Empty,
    /// More than 100,000 characters.
    #[error("is longer than 100000 characters")]
    TooLong,
    /// Nested too deeply, or a chain of too many members or operators.
    #[error("nests deeper than 250 levels")]
    TooDeep,
    /// A word in a place where it has no meaning.
    #[error("has an unexpected `{0}`")]
    Unexpected(String),
    /// Something is missing at the end.
    #[error("ends too early")]
    EndsEarly,
    /// A string without its closing quote.
    #[error("has a string that is never closed")]
    UnclosedString,
    /// A backslash followed by something without meaning.
    #[error("has an invalid escape `{0}`")]
    InvalidEscape(String),
    /// A number beyond 64 bits.
    #[error("has the number {0}, which is too large")]
    NumberTooLarge(String),
    /// A name that CEL keeps for itself.
    #[error("uses the reserved word `{0}` as a name")]
    Reserved(String),
    /// Optional selection or a name in backquotes.
    #[error("uses `{0}`, which gateways do not have")]
    Unsupported(&'static str),
    /// No such variable.
    #[error("refers to `{0}`, which does not exist")]
    UnknownVariable(String),
    /// A field or an element of what has none.
    #[error("asks for a field or an element of `{name}`, which is a {kind}")]
    NoFields {
        /// The variable.
        name: &'static str,
        /// What it is.
        kind: &'static str,
    },
    /// No such function.
    #[error("calls `{0}`, which does not exist")]
    UnknownFunction(String),
    /// A function that is called in another way than it is declared.
    #[error("calls `{called}` with {given} argument(s)")]
    WrongCall {
        /// The name, with a dot before it for a call on a value.
        called: String,
        /// How many arguments it is given.
        given: usize,
        /// How it can be called.
        usage: &'static str,
    },
    /// `has` of something else than a field.
    #[error("asks has() for something that is no field")]
    HasOfNoField,
    /// A macro whose first argument is no name.
    #[error("gives `{0}` no name for the elements as its first argument")]
    NoElementName(&'static str),
    /// A message of a type that does not exist.
    #[error("builds a message of type `{0}`, which does not exist")]
    UnknownMessage(String),
}

impl CelError {
    fn new(text: &str, (problem, at): (CelProblem, usize)) -> Self {
        let before = &text[..at];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            problem,
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    /// What to do about it.
    pub(super) fn remedy(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self.problem {
            CelProblem::WrongCall { usage, .. } => return Cow::Owned(format!("call it as {usage}")),
            CelProblem::UnknownVariable(_) => {
                "use subject, request, resource, action, environment and now, and put texts into quotes"
            }
            CelProblem::NoFields { .. } => {
                "of the variables only subject, request and environment have fields; compare the others as they are"
            }
            CelProblem::UnknownFunction(_) => {
                "use the functions and macros of the CEL standard, ip_in_range(ip, cidr) and has_role(role)"
            }
            CelProblem::HasOfNoField => "ask for a field of something, for example has(subject.email)",
            CelProblem::NoElementName(_) => {
                "name the elements first, for example subject.roles.exists(r, r == \"admin\")"
            }
            CelProblem::UnknownMessage(_) => "build a map instead, for example {\"key\": value}",
            CelProblem::TooLong | CelProblem::TooDeep => "shorten it, or make several policies of it",
            _ => "write it in the Common Expression Language (CEL), as cel-go reads it",
        })
    }
}

/// Checks that gateways compile an ABAC expression, except for its types.
///
/// # Errors
/// [`CelError`] for what cel-go refuses with the variables and functions that
/// gateways declare.
pub(super) fn check_cel(expression: &str) -> Result<(), CelError> {
    // Counting characters waits until there can be too many.
    if expression.len() > LONGEST && expression.chars().count() > LONGEST {
        return Err(CelError::new(expression, (CelProblem::TooLong, 0)));
    }
    grammar::check(expression).map_err(|found| CelError::new(expression, *found))
}

/// The first characters of `text`, so that a message stays readable.
fn excerpt(text: &str) -> String {
    const SHOWN: usize = 40;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;

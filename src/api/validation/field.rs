//! Where in an object something is wrong, what is wrong, and what to do.

use std::fmt;

/// Why a spec that passed the schema cannot be sent to gateways.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}; {remedy}")]
pub struct FieldError {
    /// Path of the field, for example `spec.match[0].uri.regex`.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

/// A path into a spec, kept on the stack as a chain to the root so that
/// nothing is written down unless there is an error to report.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Path<'p> {
    /// `spec`
    Spec,
    /// A named field below another path.
    Field(&'p Path<'p>, &'static str),
    /// An element of a list.
    Item(&'p Path<'p>, usize),
}

impl<'p> Path<'p> {
    pub(crate) fn field(&'p self, name: &'static str) -> Path<'p> {
        Path::Field(self, name)
    }

    pub(crate) fn item(&'p self, index: usize) -> Path<'p> {
        Path::Item(self, index)
    }

    pub(crate) fn error(&self, problem: impl Into<String>, remedy: impl Into<String>) -> FieldError {
        FieldError { field: self.to_string(), problem: problem.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Spec => f.write_str("spec"),
            Path::Field(parent, name) => write!(f, "{parent}.{name}"),
            Path::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

//! Match conditions: one kind of comparison each, and expressions that Go
//! compiles.

use std::collections::BTreeSet;

use super::field::{FieldError, Path};
use super::go_regex::check_go_regex;
use super::shape::{GrpcMatch, HttpMatch, NamedMatch, StringMatch, Text, content};

/// What HTTP and gRPC conditions have in common.
pub(super) trait Match {
    /// Checks one entry of `match`.
    fn check(&self, at: &Path<'_>) -> Result<(), FieldError>;
    /// Whether it holds for every request.
    fn takes_everything(&self) -> bool;
}

pub(super) fn catch_all<M: Match>(matches: &Option<Vec<M>>) -> bool {
    match matches {
        Some(entries) if !entries.is_empty() => entries.iter().any(Match::takes_everything),
        _ => true,
    }
}

impl Match for HttpMatch<'_> {
    fn check(&self, at: &Path<'_>) -> Result<(), FieldError> {
        check_string(&self.uri, &at.field("uri"))?;
        if let Some(uri) = &self.uri {
            // Gateways turn `{name}` segments of these two into named groups.
            check_path_parameters(content(&uri.exact), &at.field("uri").field("exact"))?;
            check_path_parameters(content(&uri.prefix), &at.field("uri").field("prefix"))?;
        }
        check_named(&self.headers, &at.field("headers"))?;
        check_named(&self.query_params, &at.field("queryParams"))
    }

    fn takes_everything(&self) -> bool {
        let any_path = self.uri.as_ref().is_none_or(|uri| {
            content(&uri.exact).is_empty()
                && content(&uri.regex).is_empty()
                && matches!(content(&uri.prefix), "" | "/")
        });
        any_path && none(&self.methods) && none(&self.headers) && none(&self.query_params)
    }
}

impl Match for GrpcMatch<'_> {
    fn check(&self, at: &Path<'_>) -> Result<(), FieldError> {
        check_string(&self.service, &at.field("service"))?;
        check_string(&self.method, &at.field("method"))?;
        check_string(&self.authority, &at.field("authority"))?;
        check_named(&self.metadata, &at.field("metadata"))
    }

    fn takes_everything(&self) -> bool {
        is_empty(&self.service)
            && is_empty(&self.method)
            && is_empty(&self.authority)
            && none(&self.metadata)
            && none(&self.without_headers)
    }
}

fn none<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_none_or(Vec::is_empty)
}

/// The comparisons that are set. An empty string counts as absent, as for gateways.
fn comparisons<'m>(condition: &'m StringMatch<'_>) -> impl Iterator<Item = (&'static str, &'m str)> {
    let named = |name, text: &'m Option<Text<'_>>| (name, content(text));
    [named("exact", &condition.exact), named("prefix", &condition.prefix), named("regex", &condition.regex)]
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
}

fn is_empty(condition: &Option<StringMatch<'_>>) -> bool {
    condition.as_ref().is_none_or(|condition| comparisons(condition).next().is_none())
}

fn check_string(condition: &Option<StringMatch<'_>>, at: &Path<'_>) -> Result<(), FieldError> {
    let Some(condition) = condition else { return Ok(()) };
    let mut set = comparisons(condition).map(|(name, _)| name);
    if let (Some(first), Some(second)) = (set.next(), set.next()) {
        return Err(at.error(
            format!("has both {first} and {second}"),
            "keep one of exact, prefix and regex; use further entries of match for alternatives",
        ));
    }
    check_regex(&condition.regex, &at.field("regex"))
}

fn check_named(conditions: &Option<Vec<NamedMatch<'_>>>, at: &Path<'_>) -> Result<(), FieldError> {
    for (index, condition) in conditions.iter().flatten().enumerate() {
        let at = at.item(index);
        if content(&condition.name).is_empty() {
            return Err(at.field("name").error("is empty", "name what is to be compared"));
        }
        check_regex(&condition.regex, &at.field("regex"))?;
    }
    Ok(())
}

fn check_regex(pattern: &Option<Text<'_>>, at: &Path<'_>) -> Result<(), FieldError> {
    check_go_regex(content(pattern)).map_err(|error| {
        at.error(error.to_string(), "write the expression in RE2 syntax, as Go's regexp package reads it")
    })
}

/// `{name}` as a whole segment captures it; the name must be a group name, and
/// Go's regexp package refuses two groups of one name.
fn check_path_parameters(path: &str, at: &Path<'_>) -> Result<(), FieldError> {
    let mut seen = BTreeSet::new();
    let segments = path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    for name in segments {
        let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if name.is_empty() || !name.bytes().all(is_word) {
            return Err(at.error(
                format!("has the invalid path parameter {{{name}}}"),
                "name path parameters with letters, digits and underscores",
            ));
        }
        if !seen.insert(name) {
            return Err(at.error(
                format!("has the path parameter {{{name}}} more than once"),
                "give each path parameter a name of its own",
            ));
        }
    }
    Ok(())
}

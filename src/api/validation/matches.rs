//! Match conditions: one kind of comparison each, and expressions that Go
//! compiles.

use std::collections::BTreeSet;

use super::field::{FieldError, Path};
use super::go_regex::check_go_regex;
use super::matching;
use super::shape::{GrpcMatch, HttpMatch, NamedMatch, StringMatch, content};

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
        check_uri(self.uri.as_ref().map(StringMatch::view), &at.field("uri"))?;
        check_named(self.headers.iter().flatten().map(NamedMatch::view), &at.field("headers"))?;
        check_named(self.query_params.iter().flatten().map(NamedMatch::view), &at.field("queryParams"))
    }

    fn takes_everything(&self) -> bool {
        any_path(self.uri.as_ref().map(StringMatch::view))
            && none(&self.methods)
            && none(&self.headers)
            && none(&self.query_params)
    }
}

impl Match for matching::HttpMatch<'_> {
    fn check(&self, at: &Path<'_>) -> Result<(), FieldError> {
        check_uri(self.uri.as_ref().map(matching::StringMatch::view), &at.field("uri"))?;
        check_named(self.headers.iter().map(matching::NamedMatch::view), &at.field("headers"))?;
        check_named(self.query_params.iter().map(matching::QueryParamMatch::view), &at.field("queryParams"))
    }

    fn takes_everything(&self) -> bool {
        any_path(self.uri.as_ref().map(matching::StringMatch::view))
            && self.methods.is_empty()
            && self.headers.is_empty()
            && self.query_params.is_empty()
    }
}

impl Match for GrpcMatch<'_> {
    fn check(&self, at: &Path<'_>) -> Result<(), FieldError> {
        check_string(self.service.as_ref().map(StringMatch::view), &at.field("service"))?;
        check_string(self.method.as_ref().map(StringMatch::view), &at.field("method"))?;
        check_string(self.authority.as_ref().map(StringMatch::view), &at.field("authority"))?;
        check_named(self.metadata.iter().flatten().map(NamedMatch::view), &at.field("metadata"))
    }

    fn takes_everything(&self) -> bool {
        [&self.service, &self.method, &self.authority]
            .into_iter()
            .all(|condition| is_empty(condition.as_ref().map(StringMatch::view)))
            && none(&self.metadata)
            && none(&self.without_headers)
    }
}

impl Match for matching::GrpcMatch<'_> {
    fn check(&self, at: &Path<'_>) -> Result<(), FieldError> {
        check_string(self.service.as_ref().map(matching::StringMatch::view), &at.field("service"))?;
        check_string(self.method.as_ref().map(matching::StringMatch::view), &at.field("method"))?;
        check_string(self.authority.as_ref().map(matching::StringMatch::view), &at.field("authority"))?;
        check_named(self.metadata.iter().map(matching::NamedMatch::view), &at.field("metadata"))
    }

    fn takes_everything(&self) -> bool {
        [&self.service, &self.method, &self.authority]
            .into_iter()
            .all(|condition| is_empty(condition.as_ref().map(matching::StringMatch::view)))
            && self.metadata.is_empty()
            && self.without_headers.is_empty()
    }
}

impl<M: Match> Match for matching::Object<M> {
    fn check(&self, at: &Path<'_>) -> Result<(), FieldError> {
        self.0.check(at)
    }

    fn takes_everything(&self) -> bool {
        self.0.takes_everything()
    }
}

/// What is checked of a comparison, however it was decoded.
#[derive(Clone, Copy)]
struct Comparison<'m> {
    exact: &'m str,
    prefix: &'m str,
    regex: &'m str,
}

impl StringMatch<'_> {
    fn view(&self) -> Comparison<'_> {
        Comparison { exact: content(&self.exact), prefix: content(&self.prefix), regex: content(&self.regex) }
    }
}

impl matching::StringMatch<'_> {
    fn view(&self) -> Comparison<'_> {
        Comparison { exact: content(&self.exact), prefix: content(&self.prefix), regex: content(&self.regex) }
    }
}

/// What is checked of a condition with a name: that, and the expression.
type Named<'m> = (&'m str, &'m str);

impl NamedMatch<'_> {
    fn view(&self) -> Named<'_> {
        (content(&self.name), content(&self.regex))
    }
}

impl matching::NamedMatch<'_> {
    fn view(&self) -> Named<'_> {
        (self.name.as_ref(), content(&self.regex))
    }
}

impl matching::QueryParamMatch<'_> {
    fn view(&self) -> Named<'_> {
        (self.name.as_ref(), content(&self.regex))
    }
}

fn none<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_none_or(Vec::is_empty)
}

/// The comparisons that are set. An empty string counts as absent, as for gateways.
fn comparisons(condition: Comparison<'_>) -> impl Iterator<Item = &'static str> {
    let Comparison { exact, prefix, regex } = condition;
    let set = |(name, text): (&'static str, &str)| (!text.is_empty()).then_some(name);
    [("exact", exact), ("prefix", prefix), ("regex", regex)].into_iter().filter_map(set)
}

fn is_empty(condition: Option<Comparison<'_>>) -> bool {
    condition.is_none_or(|condition| comparisons(condition).next().is_none())
}

fn any_path(condition: Option<Comparison<'_>>) -> bool {
    condition.is_none_or(|uri| uri.exact.is_empty() && uri.regex.is_empty() && matches!(uri.prefix, "" | "/"))
}

fn check_uri(condition: Option<Comparison<'_>>, at: &Path<'_>) -> Result<(), FieldError> {
    check_string(condition, at)?;
    let Some(Comparison { exact, prefix, .. }) = condition else { return Ok(()) };
    // Gateways turn `{name}` segments of these two into named groups.
    check_path_parameters(exact, &at.field("exact"))?;
    check_path_parameters(prefix, &at.field("prefix"))
}

fn check_string(condition: Option<Comparison<'_>>, at: &Path<'_>) -> Result<(), FieldError> {
    let Some(condition) = condition else { return Ok(()) };
    let mut set = comparisons(condition);
    if let (Some(first), Some(second)) = (set.next(), set.next()) {
        return Err(at.error(
            format!("has both {first} and {second}"),
            "keep one of exact, prefix and regex; use further entries of match for alternatives",
        ));
    }
    check_regex(condition.regex, &at.field("regex"))
}

fn check_named<'m>(conditions: impl Iterator<Item = Named<'m>>, at: &Path<'_>) -> Result<(), FieldError> {
    for (index, (name, regex)) in conditions.enumerate() {
        let at = at.item(index);
        if name.is_empty() {
            return Err(at.field("name").error("is empty", "name what is to be compared"));
        }
        check_regex(regex, &at.field("regex"))?;
    }
    Ok(())
}

fn check_regex(pattern: &str, at: &Path<'_>) -> Result<(), FieldError> {
    check_go_regex(pattern).map_err(|error| {
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

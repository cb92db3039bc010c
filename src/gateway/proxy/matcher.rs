//! What a request must look like to be for a route.
//!
//! Compiling is where a route can turn out to be unusable: its regular
//! expressions are compiled here, once per resource however many gateways of
//! this process hold it.

use http::{HeaderMap, Method};
use regex::Regex;

use crate::spec::{RouteMatch, StringMatch, ValueMatch};

/// A regular expression that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {place} expression {pattern:?} is no valid regular expression; correct it: {problem}")]
pub(crate) struct BadRegex {
    place: &'static str,
    pattern: String,
    problem: String,
}

/// One entry of a route's `match` list: all of it must hold.
#[derive(Debug, Clone)]
pub(crate) struct RequestMatch {
    pub(crate) path: PathMatch,
    /// Empty: any method.
    methods: Vec<String>,
    headers: Vec<ValueMatcher>,
    query: Vec<ValueMatcher>,
    /// Higher is tried first.
    pub(crate) priority: u32,
}

/// How the path is compared.
#[derive(Debug, Clone)]
pub(crate) enum PathMatch {
    /// Every path.
    Any,
    /// The whole path.
    Exact(String),
    /// The path itself or what lies below it.
    Prefix(String),
    /// Found anywhere in the path unless anchored, as in the published
    /// gateway. `{name}` segments and `*` also end up here.
    Regex(Regex),
}

impl RequestMatch {
    /// The match of a route without a `match` list.
    pub(crate) fn any() -> Self {
        RequestMatch { path: PathMatch::Any, methods: vec![], headers: vec![], query: vec![], priority: 0 }
    }

    /// Compiles one entry.
    pub(crate) fn compile(spec: &RouteMatch) -> Result<Self, BadRegex> {
        let (path, mut priority) = compile_path(spec.uri.as_ref())?;
        let methods: Vec<String> =
            spec.methods.iter().flatten().map(|method| method.to_ascii_uppercase()).collect();
        let headers = compile_values(&spec.headers, "header")?;
        let query = compile_values(&spec.query_params, "query parameter")?;
        // More conditions make a route more specific; the amounts are the
        // published gateway's, so that both choose the same route.
        priority += if methods.is_empty() { 0 } else { 50 };
        priority += 10 * headers.len() as u32 + 5 * query.len() as u32;
        Ok(RequestMatch { path, methods, headers, query, priority })
    }

    /// Whether everything but the path holds. `path` is percent-decoded.
    pub(crate) fn holds(&self, request: &RequestView<'_>) -> bool {
        self.path.holds(&request.path)
            && self.method_holds(request.method)
            && self.headers.iter().all(|header| header.holds(header_value(request.headers, &header.name)))
            && self.query.iter().all(|parameter| {
                let value = request.query.iter().find(|(name, _)| *name == parameter.name);
                parameter.holds(value.map(|(_, value)| value.as_str()))
            })
    }

    fn method_holds(&self, method: &Method) -> bool {
        self.methods.is_empty()
            || self.methods.iter().any(|allowed| {
                allowed == "*" || allowed == method.as_str() || (method == Method::HEAD && allowed == "GET")
            })
    }
}

/// What matching looks at.
#[derive(Debug)]
pub(crate) struct RequestView<'a> {
    pub(crate) method: &'a Method,
    /// Percent-decoded.
    pub(crate) path: String,
    pub(crate) headers: &'a HeaderMap,
    /// Decoded, in order.
    pub(crate) query: Vec<(String, String)>,
}

impl<'a> RequestView<'a> {
    pub(crate) fn new(method: &'a Method, uri: &http::Uri, headers: &'a HeaderMap) -> Self {
        let path = percent_encoding::percent_decode_str(uri.path()).decode_utf8_lossy().into_owned();
        let query = uri.query().map_or_else(Vec::new, |query| {
            url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()
        });
        RequestView { method, path, headers, query }
    }
}

impl PathMatch {
    fn holds(&self, path: &str) -> bool {
        match self {
            PathMatch::Any => true,
            PathMatch::Exact(exact) => path == exact,
            PathMatch::Prefix(prefix) => path
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/')),
            PathMatch::Regex(regex) => regex.is_match(path),
        }
    }
}

fn compile_path(uri: Option<&StringMatch>) -> Result<(PathMatch, u32), BadRegex> {
    let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let Some(uri) = uri else { return Ok((PathMatch::Any, 0)) };
    if let Some(exact) = set(&uri.exact) {
        let path = match template(&exact) {
            Some(pattern) => PathMatch::Regex(compile_regex("uri", &pattern)?),
            None => PathMatch::Exact(exact),
        };
        return Ok((path, 1000));
    }
    if let Some(prefix) = set(&uri.prefix) {
        let priority = 500 + u32::try_from(prefix.len()).unwrap_or(u32::MAX - 2000);
        let path = match template(&prefix).or_else(|| wildcard(&prefix)) {
            Some(pattern) => PathMatch::Regex(compile_regex("uri", &pattern)?),
            None => PathMatch::Prefix(prefix),
        };
        return Ok((path, priority));
    }
    if let Some(regex) = set(&uri.regex) {
        return Ok((PathMatch::Regex(compile_regex("uri", &regex)?), 100));
    }
    Ok((PathMatch::Any, 0))
}

/// `/users/{id}` as a regular expression with a group per parameter.
fn template(path: &str) -> Option<String> {
    if !(path.contains('{') && path.contains('}')) {
        return None;
    }
    let mut pattern = String::from("^");
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        pattern.push('/');
        match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(name) => pattern.push_str(&format!("(?P<{name}>[^/]+)")),
            None => pattern.push_str(&regex::escape(segment)),
        }
    }
    pattern.push('$');
    Some(pattern)
}

/// `/files/*/raw` or `/files/**` as a regular expression.
fn wildcard(path: &str) -> Option<String> {
    if !path.contains('*') {
        return None;
    }
    let mut pattern = String::from("^");
    let mut rest = path;
    while let Some(next) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("**") {
            pattern.push_str(".*");
            rest = after;
            continue;
        }
        match next {
            '*' => pattern.push_str("[^/]*"),
            '?' => pattern.push_str("[^/]"),
            other => pattern.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
        }
        rest = &rest[next.len_utf8()..];
    }
    pattern.push('$');
    Some(pattern)
}

/// Compiles one regular expression; `place` is for the error text.
pub(crate) fn compile_regex(place: &'static str, pattern: &str) -> Result<Regex, BadRegex> {
    Regex::new(pattern).map_err(|error| {
        // The crate's text is several lines with a marker below the pattern;
        // the last line says what is wrong.
        let text = error.to_string();
        let problem = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        BadRegex { place, pattern: pattern.to_owned(), problem }
    })
}

/// A condition on a named value.
#[derive(Debug, Clone)]
pub(crate) struct ValueMatcher {
    pub(crate) name: String,
    condition: Condition,
}

#[derive(Debug, Clone)]
enum Condition {
    Present,
    Absent,
    Exact(String),
    Prefix(String),
    Regex(Regex),
}

/// Compiles a list of conditions on named values.
pub(crate) fn compile_values(
    specs: &Option<Vec<ValueMatch>>,
    place: &'static str,
) -> Result<Vec<ValueMatcher>, BadRegex> {
    specs.iter().flatten().map(|spec| ValueMatcher::compile(spec, place)).collect()
}

impl ValueMatcher {
    fn compile(spec: &ValueMatch, place: &'static str) -> Result<Self, BadRegex> {
        let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let regex = set(&spec.regex).map(|pattern| compile_regex(place, &pattern)).transpose()?;
        let condition = match (spec.present, spec.absent) {
            (Some(true), _) | (None, Some(false)) => Condition::Present,
            (Some(false), _) | (None, Some(true)) => Condition::Absent,
            (None, None) => match (set(&spec.exact), set(&spec.prefix), regex) {
                (Some(exact), _, _) => Condition::Exact(exact),
                (None, Some(prefix), _) => Condition::Prefix(prefix),
                (None, None, Some(regex)) => Condition::Regex(regex),
                (None, None, None) => Condition::Present,
            },
        };
        Ok(ValueMatcher { name: spec.name.clone().unwrap_or_default(), condition })
    }

    /// Whether the condition holds for the value, `None` when there is none.
    pub(crate) fn holds(&self, value: Option<&str>) -> bool {
        match (&self.condition, value) {
            (Condition::Absent, value) => value.is_none(),
            (_, None) => false,
            (Condition::Present, Some(_)) => true,
            (Condition::Exact(exact), Some(value)) => value == exact,
            (Condition::Prefix(prefix), Some(value)) => value.starts_with(prefix.as_str()),
            (Condition::Regex(regex), Some(value)) => regex.is_match(value),
        }
    }
}

/// The value of a header; an empty one counts as absent, as in the published
/// gateway. HTTP/2 requests carry no `Host`: see the caller.
pub(crate) fn header_value<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok()).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(spec: &str, method: &str, target: &str, headers: &[(&str, &str)]) -> bool {
        let spec: RouteMatch = serde_json::from_str(spec).unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let method = method.parse().unwrap();
        let uri = target.parse().unwrap();
        RequestMatch::compile(&spec).unwrap().holds(&RequestView::new(&method, &uri, &map))
    }

    #[test]
    fn paths_match_exactly_by_prefix_at_segment_ends_by_regex_and_by_template() {
        let check = |uri: &str, path: &str, expected: bool| {
            assert_eq!(matches(&format!(r#"{{"uri":{uri}}}"#), "GET", path, &[]), expected, "{uri} {path}");
        };
        check(r#"{"exact":"/a"}"#, "/a", true);
        check(r#"{"exact":"/a"}"#, "/a/", false);
        check(r#"{"exact":"/a b"}"#, "/a%20b?x=1", true);
        check(r#"{"prefix":"/api"}"#, "/api", true);
        check(r#"{"prefix":"/api"}"#, "/api/v1", true);
        check(r#"{"prefix":"/api"}"#, "/apis", false);
        check(r#"{"prefix":"/api/"}"#, "/api/v1", true);
        check(r#"{"prefix":"/"}"#, "/anything", true);
        check(r#"{"regex":"^/v[0-9]+/x$"}"#, "/v12/x", true);
        check(r#"{"regex":"^/v[0-9]+/x$"}"#, "/va/x", false);
        check(r#"{"regex":"v[0-9]"}"#, "/api/v1/x", true);
        check(r#"{"exact":"/users/{id}"}"#, "/users/7", true);
        check(r#"{"exact":"/users/{id}"}"#, "/users/7/x", false);
        check(r#"{"prefix":"/files/*/raw"}"#, "/files/a/raw", true);
        check(r#"{"prefix":"/files/*/raw"}"#, "/files/a/b/raw", false);
        check(r#"{"prefix":"/files/**"}"#, "/files/a/b", true);
        check(r#"{"exact":"","prefix":"/p"}"#, "/p/q", true);
        check("null", "/any", true);
    }

    #[test]
    fn methods_match_in_any_case_and_get_includes_head() {
        assert!(matches(r#"{"methods":["get","POST"]}"#, "GET", "/", &[]));
        assert!(matches(r#"{"methods":["get"]}"#, "HEAD", "/", &[]));
        assert!(!matches(r#"{"methods":["get","POST"]}"#, "PUT", "/", &[]));
        assert!(matches(r#"{"methods":["*"]}"#, "PUT", "/", &[]));
    }

    #[test]
    fn headers_match_by_value_presence_and_absence() {
        let check = |header: &str, value: Option<&str>, expected: bool| {
            let headers: Vec<_> = value.iter().map(|value| ("x-h", *value)).collect();
            let spec = format!(r#"{{"headers":[{header}]}}"#);
            assert_eq!(matches(&spec, "GET", "/", &headers), expected, "{header} {value:?}");
        };
        check(r#"{"name":"X-H","exact":"v1"}"#, Some("v1"), true);
        check(r#"{"name":"X-H","exact":"v1"}"#, Some("v2"), false);
        check(r#"{"name":"X-H","exact":"v1"}"#, None, false);
        check(r#"{"name":"X-H","prefix":"v"}"#, Some("v2"), true);
        check(r#"{"name":"X-H","prefix":"v"}"#, Some("w2"), false);
        check(r#"{"name":"X-H","regex":"^v[12]$"}"#, Some("v2"), true);
        check(r#"{"name":"X-H","regex":"^v[12]$"}"#, Some("v3"), false);
        check(r#"{"name":"X-H","present":true}"#, Some("x"), true);
        check(r#"{"name":"X-H","present":true}"#, None, false);
        check(r#"{"name":"X-H","present":false}"#, Some("x"), false);
        check(r#"{"name":"X-H","absent":true}"#, None, true);
        check(r#"{"name":"X-H","absent":true}"#, Some("x"), false);
        check(r#"{"name":"X-H"}"#, Some("x"), true);
    }

    #[test]
    fn query_parameters_match_decoded() {
        let check = |parameter: &str, target: &str, expected: bool| {
            let spec = format!(r#"{{"queryParams":[{parameter}]}}"#);
            assert_eq!(matches(&spec, "GET", target, &[]), expected, "{parameter} {target}");
        };
        check(r#"{"name":"v","exact":"a b"}"#, "/?x=1&v=a%20b", true);
        check(r#"{"name":"v","exact":"a b"}"#, "/?v=ab", false);
        check(r#"{"name":"v","regex":"^[0-9]+$"}"#, "/?v=12", true);
        check(r#"{"name":"v","regex":"^[0-9]+$"}"#, "/?v=1x", false);
        check(r#"{"name":"v","present":true}"#, "/?v=", true);
        check(r#"{"name":"v","present":true}"#, "/", false);
        check(r#"{"name":"v","present":false}"#, "/?v", false);
    }

    #[test]
    fn a_bad_regex_is_reported_with_its_place() {
        let spec: RouteMatch = serde_json::from_str(r#"{"uri":{"regex":"[a"}}"#).unwrap();
        let error = RequestMatch::compile(&spec).unwrap_err().to_string();
        assert!(error.contains("uri") && error.contains("[a") && error.contains("unclosed"), "{error}");
        let spec: RouteMatch = serde_json::from_str(r#"{"headers":[{"name":"h","regex":"(?!x)"}]}"#).unwrap();
        assert!(RequestMatch::compile(&spec).is_err());
    }

    #[test]
    fn more_specific_matches_have_a_higher_priority() {
        let priority =
            |spec: &str| RequestMatch::compile(&serde_json::from_str(spec).unwrap()).unwrap().priority;
        assert_eq!(priority(r#"{"uri":{"exact":"/a"}}"#), 1000);
        assert_eq!(priority(r#"{"uri":{"prefix":"/api"}}"#), 504);
        assert_eq!(priority(r#"{"uri":{"regex":"/a"}}"#), 100);
        assert_eq!(priority("{}"), 0);
        assert_eq!(
            priority(r#"{"methods":["GET"],"headers":[{"name":"a"}],"queryParams":[{"name":"b"}]}"#),
            65
        );
    }
}

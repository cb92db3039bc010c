//! Where a request goes on to: rewritten paths and redirect locations.

use http::Uri;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::matcher::PathMatch;
use super::route::Redirect;

/// What has to be escaped in a path.
const PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}');

/// Path and query for the upstream. A matched prefix is replaced by the new
/// URI, a path that matched otherwise as a whole; `{name}` stands for what a
/// group of that name matched.
pub(crate) fn rewritten(original: &Uri, matched: &PathMatch, new: &str) -> String {
    let path = original.path();
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
    let mut target = match matched {
        PathMatch::Prefix(prefix) => {
            let rest = match path.strip_prefix(prefix.as_str()) {
                Some(rest) => rest.to_owned(),
                None => encode(decoded.strip_prefix(prefix.as_str()).unwrap_or_default()),
            };
            join(new, prefix, &rest)
        }
        PathMatch::Regex(regex) => {
            let mut target = new.to_owned();
            if let Some(captures) = regex.captures(&decoded) {
                for name in regex.capture_names().flatten() {
                    let value = captures.name(name).map_or("", |group| group.as_str());
                    target = target.replace(&format!("{{{name}}}"), &encode(value));
                }
            }
            target
        }
        PathMatch::Exact(_) | PathMatch::Any => new.to_owned(),
    };
    if !target.starts_with('/') {
        target.insert(0, '/');
    }
    with_query(target, original.query())
}

/// Puts the new prefix and the rest together with exactly one slash between.
fn join(new: &str, old_prefix: &str, rest: &str) -> String {
    match (new.ends_with('/'), rest.strip_prefix('/')) {
        (true, Some(rest)) => format!("{new}{rest}"),
        (false, None) if old_prefix.ends_with('/') && !rest.is_empty() => format!("{new}/{rest}"),
        _ => format!("{new}{rest}"),
    }
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, PATH).to_string()
}

fn with_query(path: String, query: Option<&str>) -> String {
    match query {
        Some(query) if path.contains('?') => format!("{path}&{query}"),
        Some(query) => format!("{path}?{query}"),
        None => path,
    }
}

/// The `Location` of a redirect. `host` is the request's authority.
pub(crate) fn location(redirect: &Redirect, original: &Uri, host: Option<&str>) -> String {
    let query = original.query().filter(|_| !redirect.strip_query);
    let uri = redirect.uri.as_deref();
    if let Some(absolute) = uri.filter(|uri| uri.starts_with("http://") || uri.starts_with("https://")) {
        return with_query(absolute.to_owned(), query);
    }
    // A path that begins with two slashes would name another host.
    let path = format!("/{}", uri.unwrap_or(original.path()).trim_start_matches('/'));
    let target = with_query(path, query);
    if redirect.scheme.is_none() && redirect.host.is_none() && redirect.port.is_none() {
        return target;
    }
    let scheme = redirect.scheme.as_deref().unwrap_or("http");
    let authority = redirect.host.as_deref().or(host).unwrap_or("localhost");
    match redirect.port {
        Some(port) => format!("{scheme}://{}:{port}{target}", without_port(authority)),
        // The request's port belongs to the scheme that it came by.
        None if redirect.host.is_none() && redirect.scheme.is_some() => {
            format!("{scheme}://{}{target}", without_port(authority))
        }
        None => format!("{scheme}://{authority}{target}"),
    }
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use regex::Regex;

    use super::*;

    #[test]
    fn a_prefix_is_replaced_and_everything_else_as_a_whole() {
        let check = |matched: PathMatch, new: &str, original: &str, expected: &str| {
            assert_eq!(rewritten(&original.parse().unwrap(), &matched, new), expected, "{matched:?} {new}");
        };
        let prefix = |text: &str| PathMatch::Prefix(text.to_owned());
        check(prefix("/api/v1"), "/v2", "/api/v1/users?x=1", "/v2/users?x=1");
        check(prefix("/api/v1"), "/", "/api/v1/users", "/users");
        check(prefix("/api/v1"), "/", "/api/v1", "/");
        check(prefix("/api/"), "/new", "/api/users", "/new/users");
        check(prefix("/api"), "/new", "/api/a%2Fb%20c", "/new/a%2Fb%20c");
        check(prefix("/a b"), "/new", "/a%20b/c%20d", "/new/c%20d");
        check(PathMatch::Exact("/a".to_owned()), "/b", "/a?q", "/b?q");
        check(PathMatch::Any, "b", "/a", "/b");
        let template = PathMatch::Regex(Regex::new("^/users/(?P<id>[^/]+)$").unwrap());
        check(template, "/people/{id}/x", "/users/a%20b", "/people/a%20b/x");
    }

    #[test]
    fn redirects_change_what_they_name_and_never_leave_the_host_by_accident() {
        let redirect = Redirect {
            code: StatusCode::FOUND,
            scheme: None,
            host: None,
            port: None,
            uri: None,
            strip_query: false,
        };
        let check = |redirect: Redirect, original: &str, expected: &str| {
            let location = location(&redirect, &original.parse().unwrap(), Some("shop.example:8080"));
            assert_eq!(location, expected);
        };
        let uri = |uri: &str| Some(uri.to_owned());
        check(Redirect { uri: uri("/new"), ..clone(&redirect) }, "/old?a=1", "/new?a=1");
        check(Redirect { uri: uri("/new"), strip_query: true, ..clone(&redirect) }, "/old?a=1", "/new");
        check(Redirect { scheme: uri("https"), ..clone(&redirect) }, "/x", "https://shop.example/x");
        check(Redirect { host: uri("h"), ..clone(&redirect) }, "/x", "http://h/x");
        check(Redirect { port: Some(9), ..clone(&redirect) }, "/x", "http://shop.example:9/x");
        check(Redirect { uri: uri("https://else/y"), ..clone(&redirect) }, "/x", "https://else/y");
        check(redirect, "//evil.example/x", "/evil.example/x");
    }

    fn clone(redirect: &Redirect) -> Redirect {
        Redirect {
            code: redirect.code,
            scheme: redirect.scheme.clone(),
            host: redirect.host.clone(),
            port: redirect.port,
            uri: redirect.uri.clone(),
            strip_query: redirect.strip_query,
        }
    }
}

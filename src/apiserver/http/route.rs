//! From a request line to what is asked for. Pure.

use http::Method;
use percent_encoding::percent_decode_str;

use crate::verb::Verb;

/// What a path asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/healthz`, `/livez`, `/readyz` and what is below them.
    Health,
    /// `/version`.
    Version,
    /// `/metrics`.
    Metrics,
    /// `/`.
    Root,
    /// `/api`.
    Core,
    /// `/apis`.
    Groups,
    /// `/apis/<group>`.
    Group(String),
    /// `/api/v1`, `/apis/<group>/<version>`.
    GroupVersion(String, String),
    /// `/openapi/v2`.
    OpenApiV2,
    /// `/openapi/v3`.
    OpenApiV3Root,
    /// `/openapi/v3/apis/<group>/<version>`, as the path of the group version.
    OpenApiV3(String),
    /// Objects.
    Objects(Place),
    /// Nothing.
    Unknown,
}

/// Where objects are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// API group, empty for core.
    pub group: String,
    /// Version.
    pub version: String,
    /// Plural name.
    pub resource: String,
    /// Namespace; empty for all and for cluster-scoped resources.
    pub namespace: String,
    /// Name; empty for a collection.
    pub name: String,
    /// Subresource; empty for the object itself.
    pub subresource: String,
}

/// Reads a path.
pub(crate) fn route(path: &str) -> Route {
    let segments: Vec<String> = path
        .split('/')
        .filter(|part| !part.is_empty())
        .map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned())
        .collect();
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    match parts.as_slice() {
        [] => Route::Root,
        ["healthz" | "livez" | "readyz", ..] => Route::Health,
        ["version"] => Route::Version,
        ["metrics"] => Route::Metrics,
        ["api"] => Route::Core,
        ["apis"] => Route::Groups,
        ["api", version] => Route::GroupVersion(String::new(), (*version).to_owned()),
        ["apis", group] => Route::Group((*group).to_owned()),
        ["apis", group, version] => Route::GroupVersion((*group).to_owned(), (*version).to_owned()),
        ["api", version, rest @ ..] => objects("", version, rest),
        ["apis", group, version, rest @ ..] => objects(group, version, rest),
        ["openapi", "v2"] => Route::OpenApiV2,
        ["openapi", "v3"] => Route::OpenApiV3Root,
        ["openapi", "v3", rest @ ..] => Route::OpenApiV3(rest.join("/")),
        _ => Route::Unknown,
    }
}

fn objects(group: &str, version: &str, rest: &[&str]) -> Route {
    let place = |namespace: &str, resource: &str, name: &str, subresource: &str| {
        Route::Objects(Place {
            group: group.to_owned(),
            version: version.to_owned(),
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: subresource.to_owned(),
        })
    };
    match rest {
        ["namespaces", name, sub @ ("status" | "finalize")] if group.is_empty() => {
            place("", "namespaces", name, sub)
        }
        ["namespaces", namespace, resource] => place(namespace, resource, "", ""),
        ["namespaces", namespace, resource, name] => place(namespace, resource, name, ""),
        ["namespaces", namespace, resource, name, sub] => place(namespace, resource, name, sub),
        [resource] => place("", resource, "", ""),
        [resource, name] => place("", resource, name, ""),
        [resource, name, sub] => place("", resource, name, sub),
        _ => Route::Unknown,
    }
}

/// What a method means at a place; `None` when it means nothing.
pub(crate) fn verb(method: &Method, place: &Place, query: &Query) -> Option<Verb> {
    let named = !place.name.is_empty();
    Some(match (method, named) {
        (&Method::GET, _) if query.flag("watch") => Verb::Watch,
        (&Method::GET, true) => Verb::Get,
        (&Method::GET, false) => Verb::List,
        (&Method::POST, false) => Verb::Create,
        (&Method::PUT, true) => Verb::Update,
        (&Method::PATCH, true) => Verb::Patch,
        (&Method::DELETE, true) => Verb::Delete,
        (&Method::DELETE, false) => Verb::DeleteCollection,
        _ => return None,
    })
}

/// What a request asks for, and where; `None` when it is not about objects. For those who stand between a client and
/// an API server.
pub fn asked(method: &Method, uri: &http::Uri) -> Option<(Verb, Place, Query)> {
    let Route::Objects(place) = route(uri.path()) else { return None };
    let query = Query::parse(uri.query().unwrap_or_default());
    Some((verb(method, &place, &query)?, place, query))
}

/// The parameters behind the question mark.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads them.
    pub fn parse(text: &str) -> Self {
        let decode = |part: &str| {
            let spaced = part.replace('+', " ");
            percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
        };
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(key), decode(value))
                })
                .collect(),
        )
    }

    /// A parameter, empty when it is missing.
    pub fn get(&self, key: &str) -> &str {
        self.0.iter().find(|(found, _)| found == key).map_or("", |(_, value)| value)
    }

    /// All values of a parameter that may be repeated.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(found, _)| found == key).map(|(_, value)| value.as_str())
    }

    /// Whether a parameter is there and not false.
    pub fn flag(&self, key: &str) -> bool {
        self.0.iter().any(|(found, value)| found == key && !matches!(value.as_str(), "false" | "0"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_objects() {
        let check = |path: &str, expected: [&str; 6]| {
            let Route::Objects(found) = route(path) else { panic!("{path}: {:?}", route(path)) };
            let Place { group, version, resource, namespace, name, subresource } = &found;
            assert_eq!([&**group, version, resource, namespace, name, subresource], expected, "{path}");
        };
        check("/api/v1/namespaces", ["", "v1", "namespaces", "", "", ""]);
        check("/api/v1/namespaces/a", ["", "v1", "namespaces", "", "a", ""]);
        check("/api/v1/namespaces/a/finalize", ["", "v1", "namespaces", "", "a", "finalize"]);
        check("/api/v1/namespaces/a/secrets", ["", "v1", "secrets", "a", "", ""]);
        check("/api/v1/namespaces/a/services/b/status", ["", "v1", "services", "a", "b", "status"]);
        check("/apis/x.io/v1/routes", ["x.io", "v1", "routes", "", "", ""]);
        check("/apis/x.io/v1/namespaces/a/routes/b%2Ec", ["x.io", "v1", "routes", "a", "b.c", ""]);
        check("/apis/x.io/v1/maps/m/status", ["x.io", "v1", "maps", "", "m", "status"]);
        assert_eq!(route("/apis/x.io/v1/"), Route::GroupVersion("x.io".into(), "v1".into()));
        assert_eq!(route("/openapi/v3/apis/x.io/v1"), Route::OpenApiV3("apis/x.io/v1".into()));
        assert_eq!(route("/readyz/ping"), Route::Health);
        assert_eq!(route("/metrics"), Route::Metrics);
        assert_eq!(route("/nothing"), Route::Unknown);
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("watch&labelSelector=a%3Db+c&dryRun=All&dryRun=x&allowWatchBookmarks=false");
        assert!(query.flag("watch") && !query.flag("allowWatchBookmarks") && !query.flag("limit"));
        assert_eq!(query.get("labelSelector"), "a=b c");
        assert_eq!(query.all("dryRun").collect::<Vec<_>>(), ["All", "x"]);
    }
}

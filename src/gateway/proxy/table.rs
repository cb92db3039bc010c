//! The table that requests are routed by. It is never changed: a new one takes
//! its place at once, and requests in flight keep the one that they began with.

use std::collections::HashMap;
use std::sync::Arc;

use flotilla_core::ids::Kind;
use http::HeaderMap;

use super::backend::BackendTable;
use super::grpc::GrpcRoute;
use super::matcher::{PathMatch, RequestMatch, RequestView};
use super::route::HttpRoute;
use crate::resource::{Content, Resource};
use crate::state::State;

/// Everything in force on one gateway.
#[derive(Debug, Default)]
pub(crate) struct ServingTable {
    /// Best first: by priority, then by name.
    http: Vec<HttpEntry>,
    /// Positions in `http` of exact paths, in order; with thousands of routes
    /// most of them are never looked at.
    exact: HashMap<String, Vec<u32>>,
    /// Positions in `http` of all others, in order.
    scanned: Vec<u32>,
    /// Best first.
    grpc: Vec<(Arc<GrpcRoute>, usize)>,
    pub(crate) backends: Arc<BackendTable>,
}

#[derive(Debug)]
struct HttpEntry {
    route: Arc<HttpRoute>,
    index: usize,
}

impl HttpEntry {
    fn matching(&self) -> &RequestMatch {
        &self.route.matches[self.index]
    }
}

impl ServingTable {
    /// The table for what is loaded. `backends` are kept if given.
    pub(crate) fn build(state: &State, backends: Option<Arc<BackendTable>>) -> Self {
        let backends = backends.unwrap_or_else(|| {
            let loaded = state.loaded(Kind::Backend).chain(state.loaded(Kind::GrpcBackend));
            Arc::new(BackendTable::build(loaded))
        });
        Self::from_resources(state.loaded(Kind::ApiRoute).chain(state.loaded(Kind::GrpcRoute)), backends)
    }

    fn from_resources<'a>(
        routes: impl Iterator<Item = &'a Arc<Resource>>,
        backends: Arc<BackendTable>,
    ) -> Self {
        let mut http = Vec::new();
        let mut grpc = Vec::new();
        for resource in routes {
            match &resource.content {
                Content::ApiRoute(loadable) => {
                    let Ok(route) = &loadable.compiled else { continue };
                    http.extend(
                        (0..route.matches.len()).map(|index| HttpEntry { route: route.clone(), index }),
                    );
                }
                Content::GrpcRoute(loadable) => {
                    let Ok(route) = &loadable.compiled else { continue };
                    grpc.extend((0..route.matches.len()).map(|index| (route.clone(), index)));
                }
                Content::Backend(_) => {}
            }
        }
        http.sort_by(|a: &HttpEntry, b| {
            let rank = |entry: &HttpEntry| std::cmp::Reverse(entry.matching().priority);
            rank(a).cmp(&rank(b)).then_with(|| a.route.name.cmp(&b.route.name))
        });
        grpc.sort_by(|a: &(Arc<GrpcRoute>, usize), b| {
            let rank =
                |(route, index): &(Arc<GrpcRoute>, usize)| std::cmp::Reverse(route.matches[*index].priority);
            rank(a).cmp(&rank(b)).then_with(|| a.0.name.cmp(&b.0.name))
        });
        let mut exact: HashMap<String, Vec<u32>> = HashMap::new();
        let mut scanned = Vec::new();
        for (position, entry) in http.iter().enumerate() {
            match &entry.matching().path {
                PathMatch::Exact(path) => exact.entry(path.clone()).or_default().push(position as u32),
                _ => scanned.push(position as u32),
            }
        }
        ServingTable { http, exact, scanned, grpc, backends }
    }

    /// The route of a request, and which of its matches it was.
    pub(crate) fn find(&self, request: &RequestView<'_>) -> Option<(&Arc<HttpRoute>, &RequestMatch)> {
        let mut exact = self.exact.get(&request.path).map_or(&[][..], Vec::as_slice).iter().peekable();
        let mut scanned = self.scanned.iter().peekable();
        loop {
            let position = match (exact.peek(), scanned.peek()) {
                (Some(a), Some(b)) if a < b => exact.next(),
                (Some(_), None) => exact.next(),
                (_, Some(_)) => scanned.next(),
                (None, None) => return None,
            }?;
            let entry = &self.http[*position as usize];
            if entry.matching().holds(request) {
                return Some((&entry.route, entry.matching()));
            }
        }
    }

    /// The route of a call to `/service/method`.
    pub(crate) fn find_call(
        &self,
        service: &str,
        method: &str,
        authority: &str,
        metadata: &HeaderMap,
    ) -> Option<&Arc<GrpcRoute>> {
        self.grpc
            .iter()
            .find(|(route, index)| route.matches[*index].holds(service, method, authority, metadata))
            .map(|(route, _)| route)
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::resource::{Incoming, ResourcePool};

    fn table(specs: &[&str]) -> ServingTable {
        let pool = ResourcePool::default();
        let resources: Vec<Arc<Resource>> = specs
            .iter()
            .enumerate()
            .map(|(index, spec)| {
                let incoming = Incoming {
                    kind: Some(Kind::ApiRoute),
                    namespace: "ns".to_owned(),
                    name: format!("r{index}"),
                    uid: String::new(),
                    generation: 1,
                    resource_version: String::new(),
                    spec_json: bytes::Bytes::copy_from_slice(spec.as_bytes()),
                };
                pool.intern(&incoming, Kind::ApiRoute).unwrap()
            })
            .collect();
        ServingTable::from_resources(resources.iter(), Arc::default())
    }

    fn find(table: &ServingTable, target: &str) -> Option<String> {
        let (method, uri, headers) = (Method::GET, target.parse().unwrap(), HeaderMap::new());
        table.find(&RequestView::new(&method, &uri, &headers)).map(|(route, _)| route.name.to_string())
    }

    #[test]
    fn exact_comes_before_long_prefix_before_short_prefix_before_regex_before_none() {
        let table = table(&[
            r#"{"name":"none"}"#,
            r#"{"name":"regex","match":[{"uri":{"regex":"^/a"}}]}"#,
            r#"{"name":"short","match":[{"uri":{"prefix":"/a"}}]}"#,
            r#"{"name":"long","match":[{"uri":{"prefix":"/a/b"}}]}"#,
            r#"{"name":"exact","match":[{"uri":{"exact":"/a/b"}}]}"#,
        ]);
        assert_eq!(find(&table, "/a/b").as_deref(), Some("exact"));
        assert_eq!(find(&table, "/a/b/c").as_deref(), Some("long"));
        assert_eq!(find(&table, "/a/c").as_deref(), Some("short"));
        assert_eq!(find(&table, "/abc").as_deref(), Some("regex"));
        assert_eq!(find(&table, "/x").as_deref(), Some("none"));
    }

    #[test]
    fn equal_priorities_are_decided_by_name() {
        let table = table(&[
            r#"{"name":"z","match":[{"uri":{"exact":"/a"}}]}"#,
            r#"{"name":"b","match":[{"uri":{"exact":"/a"}}]}"#,
        ]);
        assert_eq!(find(&table, "/a").as_deref(), Some("b"));
    }

    #[test]
    fn a_condition_that_does_not_hold_gives_way_to_the_next_best() {
        let table = table(&[
            r#"{"name":"post","match":[{"uri":{"exact":"/a"},"methods":["POST"]}]}"#,
            r#"{"name":"prefix","match":[{"uri":{"prefix":"/"}}]}"#,
        ]);
        assert_eq!(find(&table, "/a").as_deref(), Some("prefix"));
    }

    #[test]
    fn any_of_several_matches_suffices() {
        let table = table(&[r#"{"name":"r","match":[{"uri":{"exact":"/a"}},{"uri":{"prefix":"/b"}}]}"#]);
        assert_eq!(find(&table, "/a").as_deref(), Some("r"));
        assert_eq!(find(&table, "/b/c").as_deref(), Some("r"));
        assert_eq!(find(&table, "/c"), None);
    }
}

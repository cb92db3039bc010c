//! An APIRoute as the data plane uses it: compiled once, shared by every
//! gateway of the process that holds the same bytes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::matcher::{BadRegex, RequestMatch};
use super::retry::RetryPolicy;
use crate::spec::{self, ApiRouteSpec};

/// A compiled APIRoute.
#[derive(Debug)]
pub(crate) struct HttpRoute {
    /// `spec_json.name`: unique on a gateway.
    pub(crate) name: Arc<str>,
    /// Any of them suffices.
    pub(crate) matches: Vec<RequestMatch>,
    pub(crate) action: Action,
    /// For the whole exchange, retries included.
    pub(crate) timeout: Option<Duration>,
    pub(crate) retries: Option<RetryPolicy>,
    pub(crate) rewrite: Option<Rewrite>,
    pub(crate) request_headers: HeaderEdit,
    pub(crate) response_headers: HeaderEdit,
}

/// What happens to a matching request. A direct response comes before a
/// redirect, and that before destinations, if a route has several.
#[derive(Debug)]
pub(crate) enum Action {
    Respond { status: StatusCode, headers: HeaderMap, body: Bytes },
    Redirect(Redirect),
    Forward(Vec<Destination>),
}

#[derive(Debug)]
pub(crate) struct Redirect {
    pub(crate) code: StatusCode,
    pub(crate) scheme: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) uri: Option<String>,
    pub(crate) strip_query: bool,
}

/// One weighted destination.
#[derive(Debug, Clone)]
pub(crate) struct Destination {
    /// A Backend's name or a host.
    pub(crate) host: String,
    /// Used when `host` is no Backend's name.
    pub(crate) port: u16,
    /// Relative to the other destinations'.
    pub(crate) weight: u32,
}

#[derive(Debug)]
pub(crate) struct Rewrite {
    pub(crate) uri: Option<String>,
    pub(crate) authority: Option<String>,
}

/// Changes to a header map, in the order set, add, remove.
#[derive(Debug, Default)]
pub(crate) struct HeaderEdit {
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
}

impl HttpRoute {
    /// Compiles a decoded spec. Only a bad regular expression makes a route
    /// unusable; what else makes no sense is left out, as the published
    /// gateway does.
    pub(crate) fn compile(spec: &ApiRouteSpec, name: Arc<str>) -> Result<Self, BadRegex> {
        let mut matches =
            spec.matches.iter().flatten().map(RequestMatch::compile).collect::<Result<Vec<_>, _>>()?;
        if matches.is_empty() {
            matches.push(RequestMatch::any());
        }
        let headers = spec.headers.as_ref();
        Ok(HttpRoute {
            name,
            matches,
            action: compile_action(spec),
            timeout: spec.timeout.and_then(|timeout| timeout.limit()),
            retries: spec.retries.as_ref().map(RetryPolicy::compile),
            rewrite: spec.rewrite.as_ref().map(|rewrite| Rewrite {
                uri: non_empty(&rewrite.uri),
                authority: non_empty(&rewrite.authority),
            }),
            request_headers: HeaderEdit::compile(headers.and_then(|headers| headers.request.as_ref())),
            response_headers: HeaderEdit::compile(headers.and_then(|headers| headers.response.as_ref())),
        })
    }
}

fn compile_action(spec: &ApiRouteSpec) -> Action {
    if let Some(direct) = &spec.direct_response {
        let mut headers = HeaderMap::new();
        for (name, value) in header_pairs(direct.headers.as_ref()) {
            headers.append(name, value);
        }
        return Action::Respond {
            status: status_code(direct.status, StatusCode::OK),
            headers,
            body: Bytes::from(direct.body.clone().unwrap_or_default()),
        };
    }
    if let Some(redirect) = &spec.redirect {
        return Action::Redirect(Redirect {
            code: status_code(redirect.code, StatusCode::FOUND),
            scheme: non_empty(&redirect.scheme),
            host: non_empty(&redirect.host),
            port: redirect.port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0),
            uri: non_empty(&redirect.uri),
            strip_query: redirect.strip_query.unwrap_or(false),
        });
    }
    Action::Forward(compile_destinations(&spec.route))
}

/// Destinations with relative weights: 100 unless set; if all are zero, all
/// are equal.
pub(crate) fn compile_destinations(route: &Option<Vec<spec::RouteDestination>>) -> Vec<Destination> {
    let mut destinations: Vec<Destination> = route
        .iter()
        .flatten()
        .filter_map(|entry| {
            let destination = entry.destination.as_ref()?;
            Some(Destination {
                host: non_empty(&destination.host)?,
                port: u16::try_from(destination.port.unwrap_or(0)).unwrap_or(0),
                weight: u32::try_from(entry.weight.unwrap_or(100)).unwrap_or(0),
            })
        })
        .collect();
    if destinations.iter().all(|destination| destination.weight == 0) {
        destinations.iter_mut().for_each(|destination| destination.weight = 1);
    }
    destinations
}

impl HeaderEdit {
    fn compile(spec: Option<&spec::HeaderEdit>) -> Self {
        let Some(spec) = spec else { return HeaderEdit::default() };
        HeaderEdit {
            set: header_pairs(spec.set.as_ref()).collect(),
            add: header_pairs(spec.add.as_ref()).collect(),
            remove: spec.remove.iter().flatten().filter_map(|name| name.parse().ok()).collect(),
        }
    }

    /// Carries the changes out.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name.clone(), value.clone());
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }
}

/// Header pairs that are legal in HTTP; others cannot be sent and are left out.
fn header_pairs(
    map: Option<&BTreeMap<String, String>>,
) -> impl Iterator<Item = (HeaderName, HeaderValue)> + '_ {
    map.into_iter().flatten().filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)))
}

fn non_empty(text: &Option<String>) -> Option<String> {
    text.clone().filter(|text| !text.is_empty())
}

/// A status code from a number in a spec. Codes below 200 end no exchange and
/// cannot be sent as an answer.
fn status_code(number: Option<i64>, default: StatusCode) -> StatusCode {
    number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|number| *number >= 200)
        .and_then(|number| StatusCode::from_u16(number).ok())
        .unwrap_or(default)
}

//! The part of `spec_json` that this gateway acts on, decoded as leniently as
//! the published gateway does: unknown fields are ignored, `null` counts as
//! absent, and only what has the wrong type, or is a duration that cannot be
//! read, makes a spec undecodable.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::duration::GoDuration;

/// `APIRoute.spec` (A-10 … A-17).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ApiRouteSpec {
    pub(crate) name: Option<String>,
    #[serde(rename = "match")]
    pub(crate) matches: Option<Vec<RouteMatch>>,
    pub(crate) route: Option<Vec<RouteDestination>>,
    pub(crate) timeout: Option<GoDuration>,
    pub(crate) retries: Option<Retries>,
    pub(crate) redirect: Option<Redirect>,
    pub(crate) rewrite: Option<Rewrite>,
    pub(crate) direct_response: Option<DirectResponse>,
    pub(crate) headers: Option<Headers>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RouteMatch {
    pub(crate) uri: Option<StringMatch>,
    pub(crate) methods: Option<Vec<String>>,
    pub(crate) headers: Option<Vec<ValueMatch>>,
    pub(crate) query_params: Option<Vec<ValueMatch>>,
}

/// At most one of the three is set; the first one counts if there are more.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct StringMatch {
    pub(crate) exact: Option<String>,
    pub(crate) prefix: Option<String>,
    pub(crate) regex: Option<String>,
}

/// A header, metadata or query parameter.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ValueMatch {
    pub(crate) name: Option<String>,
    pub(crate) exact: Option<String>,
    pub(crate) prefix: Option<String>,
    pub(crate) regex: Option<String>,
    pub(crate) present: Option<bool>,
    pub(crate) absent: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RouteDestination {
    pub(crate) destination: Option<Destination>,
    pub(crate) weight: Option<i64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Destination {
    pub(crate) host: Option<String>,
    pub(crate) port: Option<i64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Retries {
    pub(crate) attempts: Option<i64>,
    pub(crate) per_try_timeout: Option<GoDuration>,
    pub(crate) retry_on: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Redirect {
    pub(crate) uri: Option<String>,
    pub(crate) code: Option<i64>,
    pub(crate) scheme: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) port: Option<i64>,
    pub(crate) strip_query: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Rewrite {
    pub(crate) uri: Option<String>,
    pub(crate) authority: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct DirectResponse {
    pub(crate) status: Option<i64>,
    pub(crate) body: Option<String>,
    pub(crate) headers: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Headers {
    pub(crate) request: Option<HeaderEdit>,
    pub(crate) response: Option<HeaderEdit>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct HeaderEdit {
    pub(crate) set: Option<BTreeMap<String, String>>,
    pub(crate) add: Option<BTreeMap<String, String>>,
    pub(crate) remove: Option<Vec<String>>,
}

/// `GRPCRoute.spec` (A-40 … A-42).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct GrpcRouteSpec {
    pub(crate) name: Option<String>,
    #[serde(rename = "match")]
    pub(crate) matches: Option<Vec<GrpcMatch>>,
    pub(crate) route: Option<Vec<RouteDestination>>,
    pub(crate) timeout: Option<GoDuration>,
    pub(crate) retries: Option<Retries>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct GrpcMatch {
    pub(crate) service: Option<StringMatch>,
    pub(crate) method: Option<StringMatch>,
    pub(crate) authority: Option<StringMatch>,
    pub(crate) metadata: Option<Vec<ValueMatch>>,
}

/// `Backend.spec` and `GRPCBackend.spec` (A-50 … A-58).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct BackendSpec {
    pub(crate) name: Option<String>,
    pub(crate) hosts: Option<Vec<BackendHost>>,
    pub(crate) load_balancer: Option<LoadBalancer>,
    pub(crate) tls: Option<BackendTls>,
    pub(crate) health_check: Option<HealthCheck>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct BackendHost {
    pub(crate) address: Option<String>,
    pub(crate) port: Option<i64>,
    pub(crate) weight: Option<i64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct LoadBalancer {
    pub(crate) algorithm: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct BackendTls {
    pub(crate) enabled: Option<bool>,
}

/// Health checks are not run; their durations still decide whether a spec can
/// be decoded.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct HealthCheck {
    pub(crate) interval: Option<GoDuration>,
    pub(crate) timeout: Option<GoDuration>,
}

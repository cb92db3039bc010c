//! What a gateway decodes of a spec, as far as it can go wrong there.
//!
//! Everything borrows from the spec's bytes. A gateway decodes leniently:
//! absent, null and zero are the same to it, unknown keys are ignored. Fields
//! that the schema already guards completely are left out.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// A string of a spec, borrowed unless it has escapes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

impl AsRef<str> for Text<'_> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// The string's content; empty when absent.
pub(super) fn content<'t>(text: &'t Option<Text<'_>>) -> &'t str {
    text.as_ref().map_or("", |text| text.0.as_ref())
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "M: Deserialize<'de>"))]
pub(super) struct Route<'a, M> {
    #[serde(rename = "match")]
    pub matches: Option<Vec<M>>,
    #[serde(borrow)]
    pub route: Option<Vec<WeightedDestination<'a>>>,
    pub redirect: Option<Redirect>,
    pub direct_response: Option<DirectResponse>,
    #[serde(borrow)]
    pub mirror: Option<Mirror<'a>>,
    #[serde(borrow)]
    pub timeout: Option<Text<'a>>,
    #[serde(borrow)]
    pub retries: Option<Retries<'a>>,
    #[serde(borrow)]
    pub fault: Option<Fault<'a>>,
    #[serde(borrow)]
    pub tls: Option<TlsVersions<'a>>,
    #[serde(borrow)]
    pub cache: Option<Cache<'a>>,
    #[serde(borrow)]
    pub authorization: Option<Authorization<'a>>,
    #[serde(borrow)]
    pub max_sessions: Option<MaxSessions<'a>>,
    #[serde(borrow)]
    pub rate_limit: Option<RateLimit<'a>>,
    #[expect(dead_code, reason = "decoded only to see that the numbers fit into 64 bits")]
    pub cors: Option<Cors>,
    #[expect(dead_code, reason = "decoded only to see that the numbers fit into 64 bits")]
    pub request_limits: Option<RequestLimits>,
    pub aggregate: Option<Aggregate<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HttpMatch<'a> {
    #[serde(borrow)]
    pub uri: Option<StringMatch<'a>>,
    #[serde(borrow)]
    pub methods: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    pub headers: Option<Vec<NamedMatch<'a>>>,
    #[serde(borrow)]
    pub query_params: Option<Vec<NamedMatch<'a>>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GrpcMatch<'a> {
    #[serde(borrow)]
    pub service: Option<StringMatch<'a>>,
    #[serde(borrow)]
    pub method: Option<StringMatch<'a>>,
    #[serde(borrow)]
    pub authority: Option<StringMatch<'a>>,
    #[serde(borrow)]
    pub metadata: Option<Vec<NamedMatch<'a>>>,
    #[serde(borrow)]
    pub without_headers: Option<Vec<Text<'a>>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct StringMatch<'a> {
    #[serde(borrow)]
    pub exact: Option<Text<'a>>,
    #[serde(borrow)]
    pub prefix: Option<Text<'a>>,
    #[serde(borrow)]
    pub regex: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct NamedMatch<'a> {
    #[serde(borrow)]
    pub name: Option<Text<'a>>,
    #[serde(borrow)]
    pub regex: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct WeightedDestination<'a> {
    #[serde(borrow)]
    pub destination: Option<Destination<'a>>,
    pub weight: Option<i64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Destination<'a> {
    /// Kept raw, because its place in the bytes matters.
    #[serde(borrow)]
    pub host: Option<&'a RawValue>,
    pub port: Option<i64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Mirror<'a> {
    #[serde(borrow)]
    pub destination: Option<Destination<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Redirect {
    pub port: Option<i64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct DirectResponse {
    pub status: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Retries<'a> {
    pub attempts: Option<i64>,
    #[serde(borrow)]
    pub per_try_timeout: Option<Text<'a>>,
    #[serde(borrow)]
    pub backoff_base_interval: Option<Text<'a>>,
    #[serde(borrow)]
    pub backoff_max_interval: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Fault<'a> {
    #[serde(borrow)]
    pub delay: Option<Delay<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Delay<'a> {
    #[serde(borrow)]
    pub fixed_delay: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TlsVersions<'a> {
    #[serde(borrow)]
    pub min_version: Option<Text<'a>>,
    #[serde(borrow)]
    pub max_version: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cache<'a> {
    pub max_entries: Option<i64>,
    #[serde(borrow)]
    pub ttl: Option<Text<'a>>,
    #[serde(borrow)]
    pub stale_while_revalidate: Option<Text<'a>>,
    #[serde(borrow, rename = "negativeCacheTTL")]
    pub negative_cache_ttl: Option<Text<'a>>,
    #[serde(borrow)]
    pub redis: Option<Redis<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Redis<'a> {
    pub pool_size: Option<i64>,
    #[serde(borrow)]
    pub connect_timeout: Option<Text<'a>>,
    #[serde(borrow)]
    pub read_timeout: Option<Text<'a>>,
    #[serde(borrow)]
    pub write_timeout: Option<Text<'a>>,
    #[serde(borrow)]
    pub retry: Option<RedisRetry<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RedisRetry<'a> {
    pub max_retries: Option<i64>,
    #[serde(borrow)]
    pub initial_backoff: Option<Text<'a>>,
    #[serde(borrow)]
    pub max_backoff: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Authorization<'a> {
    pub enabled: Option<bool>,
    #[serde(borrow)]
    pub abac: Option<Abac<'a>>,
    #[serde(borrow)]
    pub external: Option<ExternalAuthorization<'a>>,
    #[serde(borrow)]
    pub cache: Option<Cache<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Abac<'a> {
    pub enabled: Option<bool>,
    #[serde(borrow)]
    pub policies: Option<Vec<AbacPolicy<'a>>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct AbacPolicy<'a> {
    #[serde(borrow)]
    pub expression: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ExternalAuthorization<'a> {
    #[serde(borrow)]
    pub timeout: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MaxSessions<'a> {
    pub max_concurrent: Option<i64>,
    pub queue_size: Option<i64>,
    #[serde(borrow)]
    pub queue_timeout: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RateLimit<'a> {
    pub requests_per_second: Option<i64>,
    pub burst: Option<i64>,
    #[serde(borrow)]
    pub redis: Option<Redis<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "decoded only to see that the number fits into 64 bits")]
pub(super) struct Cors {
    pub max_age: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "decoded only to see that the numbers fit into 64 bits")]
pub(super) struct RequestLimits {
    pub max_body_size: Option<i64>,
    pub max_header_size: Option<i64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Aggregate<'a> {
    pub enabled: Option<bool>,
    #[serde(borrow)]
    pub targets: Option<Vec<AggregateTarget<'a>>>,
    #[serde(borrow)]
    pub spool: Option<Spool<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct AggregateTarget<'a> {
    #[serde(borrow)]
    pub destination: Option<Destination<'a>>,
    #[serde(borrow)]
    pub timeout: Option<Text<'a>>,
    #[serde(borrow)]
    pub tls: Option<TlsVersions<'a>>,
    #[serde(borrow)]
    pub authentication: Option<BackendAuthentication<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Spool<'a> {
    #[serde(borrow)]
    pub ttl: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Backend<'a> {
    #[serde(borrow)]
    pub hosts: Option<Vec<Host<'a>>>,
    #[serde(borrow)]
    pub health_check: Option<HealthCheck<'a>>,
    #[serde(borrow)]
    pub circuit_breaker: Option<CircuitBreaker<'a>>,
    #[serde(borrow)]
    pub connection_pool: Option<ConnectionPool<'a>>,
    #[serde(borrow)]
    pub tls: Option<TlsVersions<'a>>,
    #[serde(borrow)]
    pub authentication: Option<BackendAuthentication<'a>>,
    #[serde(borrow)]
    pub cache: Option<Cache<'a>>,
    #[serde(borrow)]
    pub max_sessions: Option<MaxSessions<'a>>,
    #[serde(borrow)]
    pub rate_limit: Option<RateLimit<'a>>,
    #[expect(dead_code, reason = "decoded only to see that the numbers fit into 64 bits")]
    pub request_limits: Option<RequestLimits>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Host<'a> {
    #[serde(borrow)]
    pub address: Option<Text<'a>>,
    pub port: Option<i64>,
    pub weight: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HealthCheck<'a> {
    #[serde(borrow)]
    pub interval: Option<Text<'a>>,
    #[serde(borrow)]
    pub timeout: Option<Text<'a>>,
    pub healthy_threshold: Option<i64>,
    pub unhealthy_threshold: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CircuitBreaker<'a> {
    pub threshold: Option<i64>,
    #[serde(borrow)]
    pub timeout: Option<Text<'a>>,
    pub half_open_requests: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConnectionPool<'a> {
    pub max_idle_conns: Option<i64>,
    pub max_conns_per_host: Option<i64>,
    #[serde(borrow)]
    pub idle_conn_timeout: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct BackendAuthentication<'a> {
    #[serde(borrow)]
    pub jwt: Option<BackendJwt<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct BackendJwt<'a> {
    #[serde(borrow)]
    pub oidc: Option<BackendOidc<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct BackendOidc<'a> {
    #[serde(borrow, rename = "tokenCacheTTL")]
    pub token_cache_ttl: Option<Text<'a>>,
}

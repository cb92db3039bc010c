//! Backend: hosts that serve HTTP.

use std::borrow::Cow;

use kube_derive::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::backend_authentication::BackendAuthentication;
use super::cache::BackendCache;
use super::encoding::BackendEncoding;
use super::health_check::HealthCheck;
use super::hosts::{CircuitBreaker, Host, LoadBalancer};
use super::limits::{MaxSessions, RateLimit, RequestLimits};
use super::status::BackendStatus;
use super::tls::BackendTls;
use super::transform::BackendTransform;
use crate::structural;

/// The hosts and how a gateway deals with them.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "avapigw.io",
    version = "v1alpha1",
    kind = "Backend",
    plural = "backends",
    singular = "backend",
    shortname = "be",
    namespaced,
    status = "BackendStatus",
    schema = "manual",
    derive = "Default",
    derive = "PartialEq",
    doc = "Hosts that serve HTTP requests.",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].status"}"#,
    printcolumn = r#"{"name":"Healthy","type":"string","jsonPath":".status.conditions[?(@.type=='Healthy')].status"}"#,
    printcolumn = r#"{"name":"Hosts","type":"string","jsonPath":".status.healthyHosts"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    crates(
        kube_core = "::kube_core",
        k8s_openapi = "::k8s_openapi",
        schemars = "::schemars",
        serde = "::serde",
        serde_json = "::serde_json"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct BackendSpec {
    /// The hosts.
    #[schemars(length(min = 1))]
    pub hosts: Vec<Host>,
    /// How hosts are checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// How requests are spread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancer>,
    /// When calls stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreaker>,
    /// TLS towards the hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<BackendTls>,
    /// How the gateway authenticates to the hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<BackendAuthentication>,
    /// Limit on requests at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_sessions: Option<MaxSessions>,
    /// Limit on requests per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Limits on the size of requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_limits: Option<RequestLimits>,
    /// Changes to bodies and headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transform: Option<BackendTransform>,
    /// Answers that are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<BackendCache>,
    /// Content types and compression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<BackendEncoding>,
}

impl JsonSchema for Backend {
    fn schema_name() -> Cow<'static, str> {
        "Backend".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        structural::object::<BackendSpec, BackendStatus>(generator, "Hosts that serve HTTP requests.")
    }
}

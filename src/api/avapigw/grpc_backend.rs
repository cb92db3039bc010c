//! GRPCBackend: hosts that serve gRPC.

use std::borrow::Cow;

use kube_derive::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::backend_authentication::BackendAuthentication;
use super::cache::BackendCache;
use super::encoding::BackendEncoding;
use super::grpc_transform::GrpcTransform;
use super::health_check::GrpcHealthCheck;
use super::hosts::{CircuitBreaker, ConnectionPool, Host, LoadBalancer};
use super::limits::{MaxSessions, RateLimit};
use super::status::BackendStatus;
use super::tls::BackendTls;
use crate::structural;

/// The hosts and how a gateway deals with them.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "avapigw.io",
    version = "v1alpha1",
    kind = "GRPCBackend",
    plural = "grpcbackends",
    singular = "grpcbackend",
    shortname = "gbe",
    namespaced,
    status = "BackendStatus",
    schema = "manual",
    derive = "Default",
    derive = "PartialEq",
    doc = "Hosts that serve gRPC calls.",
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
pub struct GrpcBackendSpec {
    /// The hosts.
    #[schemars(length(min = 1))]
    pub hosts: Vec<Host>,
    /// How hosts are checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<GrpcHealthCheck>,
    /// How calls are spread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancer>,
    /// Connections that are kept open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_pool: Option<ConnectionPool>,
    /// When calls stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreaker>,
    /// TLS towards the hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<BackendTls>,
    /// How the gateway authenticates to the hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<BackendAuthentication>,
    /// Limit on calls at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_sessions: Option<MaxSessions>,
    /// Limit on calls per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Changes to messages and metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transform: Option<GrpcTransform>,
    /// Answers that are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<BackendCache>,
    /// Content types and compression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<BackendEncoding>,
}

impl JsonSchema for GRPCBackend {
    fn schema_name() -> Cow<'static, str> {
        "GRPCBackend".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        structural::object::<GrpcBackendSpec, BackendStatus>(generator, "Hosts that serve gRPC calls.")
    }
}

//! GRPCRoute: a route for gRPC calls.

use std::borrow::Cow;

use kube_derive::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::aggregate::Aggregate;
use super::authentication::Authentication;
use super::authorization::Authorization;
use super::cache::Cache;
use super::contracts::ProtoValidation;
use super::cors::Cors;
use super::destination::{Mirror, WeightedDestination};
use super::encoding::Encoding;
use super::go_duration::GoDuration;
use super::grpc_transform::GrpcTransform;
use super::headers::Headers;
use super::limits::{MaxSessions, RateLimit, RequestLimits};
use super::matching::GrpcMatch;
use super::retries::GrpcRetries;
use super::security::Security;
use super::status::RouteStatus;
use super::tls::RouteTls;
use crate::structural;

/// What calls the route takes and what becomes of them.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "avapigw.io",
    version = "v1alpha1",
    kind = "GRPCRoute",
    plural = "grpcroutes",
    singular = "grpcroute",
    shortname = "gr",
    namespaced,
    status = "RouteStatus",
    schema = "manual",
    derive = "Default",
    derive = "PartialEq",
    doc = "Routes gRPC calls to backends.",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].status"}"#,
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
pub struct GrpcRouteSpec {
    /// Calls that the route takes: those that fulfil any entry; empty takes all.
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "match")]
    pub matches: Vec<GrpcMatch>,
    /// Where they go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub route: Vec<WeightedDestination>,
    /// Time limit of a call with all its retries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GoDuration>,
    /// When a call is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<GrpcRetries>,
    /// Changes to headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<Headers>,
    /// Where copies of calls go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
    /// Fan-out to several targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aggregate: Option<Aggregate>,
    /// Limit on calls per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Limit on calls at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_sessions: Option<MaxSessions>,
    /// Limits on the size of calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_limits: Option<RequestLimits>,
    /// Changes to messages and metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transform: Option<GrpcTransform>,
    /// Answers that are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
    /// Content types.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Encoding>,
    /// Calls from pages of other origins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
    /// Security headers of responses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<Security>,
    /// The certificate that clients see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<RouteTls>,
    /// How clients prove who they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,
    /// What clients may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<Authorization>,
    /// Descriptors that messages must fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proto_validation: Option<ProtoValidation>,
}

impl JsonSchema for GRPCRoute {
    fn schema_name() -> Cow<'static, str> {
        "GRPCRoute".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        structural::object::<GrpcRouteSpec, RouteStatus>(generator, "Routes gRPC calls to backends.")
    }
}

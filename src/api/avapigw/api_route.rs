//! APIRoute: a route for HTTP requests.

use std::borrow::Cow;

use kube_derive::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::aggregate::Aggregate;
use super::authentication::Authentication;
use super::authorization::Authorization;
use super::cache::Cache;
use super::contracts::OpenApiValidation;
use super::cors::Cors;
use super::destination::{Mirror, WeightedDestination};
use super::encoding::Encoding;
use super::fault::Fault;
use super::go_duration::GoDuration;
use super::headers::Headers;
use super::limits::{MaxSessions, RateLimit, RequestLimits};
use super::matching::HttpMatch;
use super::redirect::{DirectResponse, Redirect, Rewrite};
use super::retries::Retries;
use super::security::Security;
use super::status::RouteStatus;
use super::tls::RouteTls;
use super::transform::Transform;
use crate::structural;

/// What requests the route takes and what becomes of them.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "avapigw.io",
    version = "v1alpha1",
    kind = "APIRoute",
    plural = "apiroutes",
    singular = "apiroute",
    shortname = "ar",
    namespaced,
    status = "RouteStatus",
    schema = "manual",
    derive = "Default",
    derive = "PartialEq",
    doc = "Routes HTTP requests to backends.",
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
pub struct ApiRouteSpec {
    /// Requests that the route takes: those that fulfil any entry; empty takes all.
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "match")]
    pub matches: Vec<HttpMatch>,
    /// Where they go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub route: Vec<WeightedDestination>,
    /// Time limit of a request with all its retries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GoDuration>,
    /// When a request is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
    /// A redirect in place of a destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Redirect>,
    /// Changes to the path and host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<Rewrite>,
    /// A fixed answer in place of a destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct_response: Option<DirectResponse>,
    /// Changes to headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<Headers>,
    /// Where copies of requests go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
    /// Fan-out to several targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aggregate: Option<Aggregate>,
    /// Faults to inject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// Limit on requests per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Limit on requests at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_sessions: Option<MaxSessions>,
    /// Limits on the size of requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_limits: Option<RequestLimits>,
    /// Changes to bodies and headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transform: Option<Transform>,
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
    /// Document that requests must fit.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "openAPIValidation")]
    pub openapi_validation: Option<OpenApiValidation>,
}

impl JsonSchema for APIRoute {
    fn schema_name() -> Cow<'static, str> {
        "APIRoute".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        structural::object::<ApiRouteSpec, RouteStatus>(generator, "Routes HTTP requests to backends.")
    }
}

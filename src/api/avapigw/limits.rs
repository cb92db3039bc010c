//! Limits on what a route or backend takes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::go_duration::GoDuration;
use super::redis::{RateLimitRedis, StoreType};
use crate::structural::Integer;

/// Limit on requests per second.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Whether the limit holds.
    #[serde(default)]
    pub enabled: bool,
    /// Requests per second in the long run.
    #[schemars(range(min = 1))]
    pub requests_per_second: u64,
    /// Requests at once.
    #[schemars(range(min = 1))]
    pub burst: u64,
    /// Whether each client has a limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_client: Option<bool>,
    /// Where the count is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "memory"))]
    pub store: Option<StoreType>,
    /// Connection to Redis, for a count that gateways share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<RateLimitRedis>,
}

/// Limit on requests at the same time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MaxSessions {
    /// Whether the limit holds.
    #[serde(default)]
    pub enabled: bool,
    /// Requests at the same time.
    #[schemars(range(min = 1))]
    pub max_concurrent: u64,
    /// Requests that wait for a place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Integer")]
    pub queue_size: Option<i64>,
    /// How long a request waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_timeout: Option<GoDuration>,
}

/// Limits on the size of requests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestLimits {
    /// Bytes of the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_body_size: Option<i64>,
    /// Bytes of all headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_header_size: Option<i64>,
}

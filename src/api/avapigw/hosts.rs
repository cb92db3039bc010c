//! The hosts of a backend and how they share its requests.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::go_duration::GoDuration;
use crate::structural::Integer;

/// One host of a backend.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Host {
    /// Host name or IP address.
    #[schemars(length(min = 1))]
    pub address: String,
    /// Port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Share of the requests, relative to the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100), extend("default" = 1))]
    pub weight: Option<u8>,
}

/// How requests are spread over hosts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancer {
    /// The way to choose a host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "roundRobin"))]
    pub algorithm: Option<LoadBalancerAlgorithm>,
}

/// The way to choose a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum LoadBalancerAlgorithm {
    /// One after the other.
    RoundRobin,
    /// In proportion to the weights.
    Weighted,
    /// The one with the fewest connections.
    LeastConn,
    /// Any.
    Random,
}

/// Stops calling a backend that fails.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CircuitBreaker {
    /// Whether it does.
    #[serde(default)]
    pub enabled: bool,
    /// Failures in a row until it stops.
    #[schemars(range(min = 1))]
    pub threshold: u64,
    /// How long it waits until it tries again.
    pub timeout: GoDuration,
    /// Requests that it lets pass to try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Integer")]
    pub half_open_requests: Option<i64>,
}

/// Connections that are kept open.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionPool {
    /// Unused connections at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("default" = 10))]
    pub max_idle_conns: Option<u64>,
    /// Connections per host at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("default" = 100))]
    pub max_conns_per_host: Option<u64>,
    /// How long an unused connection is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_conn_timeout: Option<GoDuration>,
}

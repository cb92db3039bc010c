//! Where requests go.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A place to send requests to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Destination {
    /// Name of a Backend in this namespace, or else a network host.
    #[schemars(length(min = 1))]
    pub host: String,
    /// Port of the host.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
}

/// One of several places that share the requests of a route.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WeightedDestination {
    /// The place.
    pub destination: Destination,
    /// Share of the requests, relative to the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100), extend("default" = 100))]
    pub weight: Option<u8>,
}

/// A place that gets copies of requests; its answers are dropped.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mirror {
    /// The place.
    pub destination: Destination,
    /// Share of the requests that are copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100), extend("default" = 100))]
    pub percentage: Option<u8>,
}

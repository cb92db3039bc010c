//! What is said about routes and backends.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::conditions::Condition;
use crate::structural::Integer;

/// Where a route stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteStatus {
    /// What is known, by type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The generation that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The epoch of the shard map in which this was written: who acts in an
    /// earlier one writes no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// Gateways that have applied the route.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub applied_gateways: Vec<AppliedGateway>,
}

/// A gateway that has applied a route.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppliedGateway {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// When it last did.
    #[schemars(extend("format" = "date-time"))]
    pub last_applied: String,
}

/// Where a backend stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendStatus {
    /// What is known, by type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The generation that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The epoch of the shard map in which this was written: who acts in an
    /// earlier one writes no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// Hosts that answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Integer")]
    pub healthy_hosts: Option<i64>,
    /// Hosts in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Integer")]
    pub total_hosts: Option<i64>,
    /// When hosts were last checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub last_health_check: Option<String>,
}

//! How a gateway finds out whether a host answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::go_duration::GoDuration;

/// Health check by HTTP.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// Path to ask for.
    #[schemars(length(min = 1))]
    pub path: String,
    /// Time between checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<GoDuration>,
    /// Time limit of a check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GoDuration>,
    /// Successes in a row until a host counts as healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("default" = 2))]
    pub healthy_threshold: Option<u64>,
    /// Failures in a row until a host counts as unhealthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("default" = 3))]
    pub unhealthy_threshold: Option<u64>,
    /// Whether the gRPC health protocol is spoken instead.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "useGRPC")]
    pub use_grpc: Option<bool>,
    /// Service to ask about in the gRPC health protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_service: Option<String>,
    /// Port to ask at, in place of the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
}

/// Health check by gRPC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrpcHealthCheck {
    /// Whether hosts are checked.
    #[serde(default = "on")]
    pub enabled: bool,
    /// Service to ask about; empty asks about the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Time between checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<GoDuration>,
    /// Time limit of a check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GoDuration>,
    /// Successes in a row until a host counts as healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("default" = 2))]
    pub healthy_threshold: Option<u64>,
    /// Failures in a row until a host counts as unhealthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("default" = 3))]
    pub unhealthy_threshold: Option<u64>,
    /// Whether HTTP is spoken instead.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "useHTTP")]
    pub use_http: Option<bool>,
    /// Path to ask for by HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "/healthz"))]
    pub http_path: Option<String>,
    /// Port to ask at by HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub http_port: Option<u16>,
}

impl Default for GrpcHealthCheck {
    fn default() -> Self {
        Self {
            enabled: on(),
            service: None,
            interval: None,
            timeout: None,
            healthy_threshold: None,
            unhealthy_threshold: None,
            use_http: None,
            http_path: None,
            http_port: None,
        }
    }
}

fn on() -> bool {
    true
}

//! When and how often a request is tried again.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::go_duration::GoDuration;

/// Retries of HTTP requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retries {
    /// How often a request is tried again at most.
    #[serde(default = "default_attempts")]
    #[schemars(range(min = 1, max = 10))]
    pub attempts: u8,
    /// Time limit of each try; below the route's timeout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_try_timeout: Option<GoDuration>,
    /// Comma-separated conditions: 5xx, reset, connect-failure, retriable-4xx, refused-stream,
    /// retriable-status-codes, retriable-headers, gateway-error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_on: Option<String>,
}

impl Default for Retries {
    fn default() -> Self {
        Self { attempts: default_attempts(), per_try_timeout: None, retry_on: None }
    }
}

/// Retries of gRPC calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrpcRetries {
    /// How often a call is tried again at most.
    #[serde(default = "default_attempts")]
    #[schemars(range(min = 1, max = 10))]
    pub attempts: u8,
    /// Time limit of each try; below the route's timeout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_try_timeout: Option<GoDuration>,
    /// Comma-separated status names: canceled, deadline-exceeded, internal, resource-exhausted,
    /// unavailable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_on: Option<String>,
    /// Pause before the first retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_base_interval: Option<GoDuration>,
    /// Longest pause between retries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_max_interval: Option<GoDuration>,
}

impl Default for GrpcRetries {
    fn default() -> Self {
        Self {
            attempts: default_attempts(),
            per_try_timeout: None,
            retry_on: None,
            backoff_base_interval: None,
            backoff_max_interval: None,
        }
    }
}

fn default_attempts() -> u8 {
    3
}

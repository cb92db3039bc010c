//! What browsers may do on behalf of pages from elsewhere.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::structural::Integer;

/// Cross-origin resource sharing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cors {
    /// Origins whose pages may call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_origins: Vec<String>,
    /// Methods that they may use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_methods: Vec<String>,
    /// Headers that they may send.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_headers: Vec<String>,
    /// Response headers that they may read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expose_headers: Vec<String>,
    /// Seconds for which browsers keep the answer to a preflight request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Integer")]
    pub max_age: Option<i64>,
    /// Whether cookies and credentials may be sent along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_credentials: Option<bool>,
}

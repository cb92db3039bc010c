//! Descriptions of an interface against which requests are checked.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Checks requests against an OpenAPI document.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OpenApiValidation {
    /// Whether requests are checked.
    #[serde(default)]
    pub enabled: bool,
    /// File with the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec_file: Option<String>,
    /// The document itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec_inline: Option<String>,
    /// URL of the document.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "specURL")]
    pub spec_url: Option<String>,
    /// ConfigMap with the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec_config_map_ref: Option<ConfigMapRef>,
    /// Whether requests that do not fit are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_on_error: Option<bool>,
    /// Whether bodies are checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validate_request_body: Option<bool>,
    /// Whether headers are checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validate_request_headers: Option<bool>,
    /// Whether parameters are checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validate_request_params: Option<bool>,
    /// Whether security requirements are checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validate_security: Option<bool>,
}

/// Checks calls against protobuf descriptors.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProtoValidation {
    /// Whether calls are checked.
    #[serde(default)]
    pub enabled: bool,
    /// File with the descriptor set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub descriptor_file: Option<String>,
    /// The descriptor set itself, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub descriptor_inline: Option<String>,
    /// ConfigMap with the descriptor set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub descriptor_config_map_ref: Option<ConfigMapRef>,
    /// Whether calls that do not fit are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_on_error: Option<bool>,
    /// Whether request messages are checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validate_request_message: Option<bool>,
}

/// A ConfigMap of the same namespace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapRef {
    /// Its name.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Key within it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

//! Changes to messages and metadata of gRPC calls.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Changes to gRPC calls.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrpcTransform {
    /// Fields of the response that stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field_mask: Option<FieldMask>,
    /// Changes to metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<MetadataTransform>,
}

/// Fields that stay.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FieldMask {
    /// Their paths, for example `user.name`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
}

/// Metadata to add.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetadataTransform {
    /// Entries with fixed values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", rename = "static")]
    pub static_: BTreeMap<String, String>,
    /// Entries whose values are templates.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dynamic: BTreeMap<String, String>,
}

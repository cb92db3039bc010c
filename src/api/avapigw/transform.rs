//! Changes to bodies and headers of HTTP requests and responses.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::aggregate::MergeStrategy;
use super::headers::HeaderOperations;

/// Changes to requests and responses of a route.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Transform {
    /// Changes to requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestTransform>,
    /// Changes to responses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<ResponseTransform>,
}

/// Changes to requests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestTransform {
    /// Go template of the new body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Whether the body stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passthrough_body: Option<bool>,
    /// Headers with fixed values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub static_headers: BTreeMap<String, String>,
    /// Headers with values from the request's context.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dynamic_headers: Vec<DynamicHeader>,
    /// Fields put into the body.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inject_fields: Vec<FieldInjection>,
    /// Fields taken out of the body, as dotted paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove_fields: Vec<String>,
    /// Values of fields that the body lacks. Keyed by dotted path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub default_values: BTreeMap<String, Value>,
    /// Whether the request is checked before it is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validate_before_transform: Option<bool>,
}

/// A header with a value from the request's context.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DynamicHeader {
    /// Name of the header.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Where the value comes from, for example `jwt.claim.sub`.
    #[schemars(length(min = 1))]
    pub source: String,
}

/// A field put into the body.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FieldInjection {
    /// Its dotted path.
    #[schemars(length(min = 1))]
    pub field: String,
    /// Its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// Where its value comes from, in place of a fixed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// Changes to responses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResponseTransform {
    /// Go template of the new body, in place of all other changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Fields that stay; all others go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_fields: Vec<String>,
    /// Fields that go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny_fields: Vec<String>,
    /// New names of fields. Keyed by the old name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub field_mappings: BTreeMap<String, String>,
    /// Fields put together into objects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub group_fields: Vec<FieldGroup>,
    /// Objects whose fields move up into their parent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flatten_fields: Vec<String>,
    /// Changes to lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub array_operations: Vec<ArrayOperation>,
    /// How answers of several backends become one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge_strategy: Option<MergeStrategy>,
}

/// Fields put together into an object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FieldGroup {
    /// Name of the object.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Dotted paths of the fields.
    #[schemars(length(min = 1))]
    pub fields: Vec<String>,
}

/// A change to a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArrayOperation {
    /// Dotted path of the list.
    #[schemars(length(min = 1))]
    pub field: String,
    /// What is done to it.
    pub operation: ArrayOperationType,
    /// What the operation needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// CEL expression that keeps an element, for `filter`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
}

/// What is done to a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ArrayOperationType {
    /// Puts an element at the end.
    Append,
    /// Puts an element at the front.
    Prepend,
    /// Keeps some elements.
    Filter,
    /// Sorts the elements.
    Sort,
    /// Keeps the first elements.
    Limit,
    /// Drops repeated elements.
    Deduplicate,
}

/// Changes to requests to a backend and to its responses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendTransform {
    /// Changes to requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<BackendRequestTransform>,
    /// Changes to responses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<BackendResponseTransform>,
}

/// Changes to requests to a backend.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendRequestTransform {
    /// Go template of the new body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Changes to headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<HeaderOperations>,
}

/// Changes to responses of a backend.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendResponseTransform {
    /// Fields that stay; all others go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_fields: Vec<String>,
    /// Fields that go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny_fields: Vec<String>,
    /// New names of fields. Keyed by the old name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub field_mappings: BTreeMap<String, String>,
    /// Changes to headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<HeaderOperations>,
}

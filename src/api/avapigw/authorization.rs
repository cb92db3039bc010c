//! What authenticated clients of a route may do.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::go_duration::GoDuration;
use super::redis::{CacheRedis, RedisSentinel, StoreType};

/// Who may do what.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Authorization {
    /// Whether requests are authorized.
    #[serde(default)]
    pub enabled: bool,
    /// What happens when no policy applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "deny"))]
    pub default_policy: Option<PolicyEffect>,
    /// By roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rbac: Option<Rbac>,
    /// By expressions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abac: Option<Abac>,
    /// By asking someone else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalAuthorization>,
    /// Paths that need no authorization.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skip_paths: Vec<String>,
    /// Decisions that are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<AuthorizationCache>,
}

/// What a policy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PolicyEffect {
    /// Lets the request pass.
    Allow,
    /// Refuses the request.
    Deny,
}

/// Authorization by roles.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rbac {
    /// Whether it is used.
    #[serde(default)]
    pub enabled: bool,
    /// The policies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<RbacPolicy>,
    /// Roles that include others. Keyed by role.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub role_hierarchy: BTreeMap<String, Vec<String>>,
}

/// What roles may do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RbacPolicy {
    /// Name of the policy, unique in the list.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Roles that it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Paths that it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Methods that it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<String>,
    /// What it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "allow"))]
    pub effect: Option<PolicyEffect>,
    /// Higher ones are asked first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub priority: Option<u64>,
}

/// Authorization by expressions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Abac {
    /// Whether it is used.
    #[serde(default)]
    pub enabled: bool,
    /// The policies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<AbacPolicy>,
}

/// What an expression decides.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AbacPolicy {
    /// Name of the policy, unique in the list.
    #[schemars(length(min = 1))]
    pub name: String,
    /// CEL expression over the request and its caller.
    #[schemars(length(min = 1))]
    pub expression: String,
    /// Paths that it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Methods that it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<String>,
    /// What it does when the expression is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "allow"))]
    pub effect: Option<PolicyEffect>,
    /// Higher ones are asked first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub priority: Option<u64>,
}

/// Authorization by asking someone else.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalAuthorization {
    /// Whether it is used.
    #[serde(default)]
    pub enabled: bool,
    /// An Open Policy Agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opa: Option<Opa>,
    /// Time limit of the question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GoDuration>,
    /// Whether requests pass when there is no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_open: Option<bool>,
}

/// An Open Policy Agent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Opa {
    /// Its URL.
    #[schemars(length(min = 1))]
    pub url: String,
    /// Path of the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Headers to send along.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

/// Decisions that are kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuthorizationCache {
    /// Whether they are kept.
    #[serde(default)]
    pub enabled: bool,
    /// How long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<GoDuration>,
    /// Decisions at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_size: Option<u64>,
    /// Where they are kept.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "type")]
    #[schemars(extend("default" = "memory"))]
    pub type_: Option<StoreType>,
    /// Connection to Redis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<CacheRedis>,
    /// Sentinels of the Redis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentinel: Option<RedisSentinel>,
}

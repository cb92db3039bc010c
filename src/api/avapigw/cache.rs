//! Answers that a gateway keeps.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::go_duration::GoDuration;
use super::redis::{CacheRedis, RedisSentinel, StoreType};

/// Cache of answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cache {
    /// Whether answers are kept.
    #[serde(default)]
    pub enabled: bool,
    /// How long an answer is fresh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<GoDuration>,
    /// What tells answers apart, for example `path` and `query`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key_components: Vec<String>,
    /// What tells answers apart, in detail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_config: Option<CacheKey>,
    /// How long a stale answer is given while a new one is fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_while_revalidate: Option<GoDuration>,
    /// Where answers are kept.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "type")]
    #[schemars(extend("default" = "memory"))]
    pub type_: Option<StoreType>,
    /// Answers at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_entries: Option<u64>,
    /// Whether Cache-Control headers of answers are obeyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub honor_cache_control: Option<bool>,
    /// How long errors are kept.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "negativeCacheTTL")]
    pub negative_cache_ttl: Option<GoDuration>,
    /// Connection to Redis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<CacheRedis>,
}

/// What tells answers apart.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CacheKey {
    /// Whether the method does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_method: Option<bool>,
    /// Whether the path does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_path: Option<bool>,
    /// Query parameters that do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include_query_params: Vec<String>,
    /// Headers that do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include_headers: Vec<String>,
    /// Whether the body does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_body_hash: Option<bool>,
    /// Template of the key, in place of all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_template: Option<String>,
}

/// Cache of a backend's answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendCache {
    /// Whether answers are kept.
    #[serde(default)]
    pub enabled: bool,
    /// How long an answer is fresh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<GoDuration>,
    /// What tells answers apart, for example `path` and `query`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key_components: Vec<String>,
    /// How long a stale answer is given while a new one is fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_while_revalidate: Option<GoDuration>,
    /// Where answers are kept.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "type")]
    #[schemars(extend("default" = "memory"))]
    pub type_: Option<StoreType>,
    /// Sentinels of the Redis that keeps answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentinel: Option<RedisSentinel>,
    /// Vault path of the Redis password, as `mount/path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_vault_path: Option<String>,
    /// Whether keys are hashed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_keys: Option<bool>,
    /// Share, from 0 to 1, by which lifetimes vary at random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_jitter: Option<f64>,
}

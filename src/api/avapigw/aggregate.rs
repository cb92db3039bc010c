//! One request to several targets, and one answer made of theirs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::backend_authentication::BackendAuthentication;
use super::destination::Destination;
use super::go_duration::GoDuration;
use super::redis::{RedisSentinel, StoreType};
use super::tls::BackendTls;

/// Fan-out of a request to several targets.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Aggregate {
    /// Whether requests fan out.
    #[serde(default)]
    pub enabled: bool,
    /// The targets; network hosts, not Backends.
    #[schemars(length(min = 1))]
    pub targets: Vec<AggregateTarget>,
    /// Which targets must answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "all"))]
    pub fail_mode: Option<FailMode>,
    /// How many targets must answer in mode `quorum`; zero is a majority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub quorum_count: Option<u64>,
    /// How many targets are called at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024), extend("default" = 8))]
    pub max_parallel: Option<u16>,
    /// How answers are merged into one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge: Option<Merge>,
    /// Whether streams are merged message by message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_message_merge: Option<bool>,
    /// Where large answers are kept meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spool: Option<Spool>,
}

/// Which targets must answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum FailMode {
    /// All of them.
    All,
    /// One of them.
    Any,
    /// As many as the quorum.
    Quorum,
}

/// One target of a fan-out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AggregateTarget {
    /// Name of the target in the merged answer.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Where it is.
    pub destination: Destination,
    /// Time limit of a call to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GoDuration>,
    /// How often a call is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10))]
    pub retries: Option<u8>,
    /// TLS towards it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<BackendTls>,
    /// How the gateway authenticates to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<BackendAuthentication>,
}

/// How answers are merged into one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Merge {
    /// Whether they are merged; otherwise each stands under its target's name.
    #[serde(default)]
    pub enabled: bool,
    /// How they are merged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "deep"))]
    pub strategy: Option<MergeStrategy>,
    /// Field by which records of `ndjson` are sorted; `_time` when not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_field: Option<String>,
    /// Field by which duplicate records of `ndjson` are dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_field: Option<String>,
    /// Most records of `ndjson`; zero is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub limit: Option<u64>,
}

/// How several answers become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum MergeStrategy {
    /// Objects are merged at every level.
    Deep,
    /// Objects are merged at the top level.
    Shallow,
    /// The last answer wins.
    Replace,
    /// Lines of JSON are put together.
    Ndjson,
}

/// Where large answers are kept meanwhile.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Spool {
    /// Whether they are kept outside the process.
    #[serde(default)]
    pub enabled: bool,
    /// Where they are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "memory"))]
    pub backend: Option<StoreType>,
    /// Size in bytes from which on an answer is spooled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub threshold_bytes: Option<i64>,
    /// How long an answer is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<GoDuration>,
    /// Connection to Redis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis_ref: Option<SpoolRedis>,
}

/// Connection to the Redis that keeps spooled answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SpoolRedis {
    /// Address as `host:port`; not together with `sentinel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Sentinels that know the address; not together with `address`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentinel: Option<RedisSentinel>,
    /// Database number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 15))]
    pub db: Option<u8>,
    /// Password; better kept in Vault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Vault path of the password, as `mount/path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_vault_path: Option<String>,
}

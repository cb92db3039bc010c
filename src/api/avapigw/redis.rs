//! Redis, where gateways share counts and cached answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::go_duration::GoDuration;
use super::tls::TlsVersion;

/// Where something is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum StoreType {
    /// In the gateway's memory.
    Memory,
    /// In Redis.
    Redis,
}

/// Sentinels that know the master's address.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedisSentinel {
    /// Name of the master.
    #[schemars(length(min = 1))]
    pub master_name: String,
    /// Addresses of the sentinels, as `host:port`.
    #[schemars(length(min = 1))]
    pub sentinel_addrs: Vec<String>,
    /// Password of the sentinels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentinel_password: Option<String>,
    /// Vault path of the sentinels' password, as `mount/path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentinel_password_vault_path: Option<String>,
    /// Password of the master.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Vault path of the master's password, as `mount/path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_vault_path: Option<String>,
    /// Database number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 15))]
    pub db: Option<u8>,
}

/// TLS towards Redis.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedisTls {
    /// Whether TLS is used.
    #[serde(default)]
    pub enabled: bool,
    /// File with the CA certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// File with the client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<String>,
    /// File with the client's private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// Lowest TLS version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_version: Option<TlsVersion>,
    /// Highest TLS version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_version: Option<TlsVersion>,
    /// Whether the server's certificate is not verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insecure_skip_verify: Option<bool>,
}

/// How often and how fast a command is tried again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedisRetry {
    /// How often at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_retries: Option<u64>,
    /// First pause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_backoff: Option<GoDuration>,
    /// Longest pause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_backoff: Option<GoDuration>,
}

/// Connection to the Redis that keeps cached answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CacheRedis {
    /// URL of a single Redis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Sentinels, in place of a URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentinel: Option<RedisSentinel>,
    /// Vault path of the password, as `mount/path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_vault_path: Option<String>,
    /// Prefix of all keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_prefix: Option<String>,
    /// Whether keys are hashed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_keys: Option<bool>,
    /// Share, from 0 to 1, by which lifetimes vary at random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_jitter: Option<f64>,
    /// Connections at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub pool_size: Option<u64>,
    /// Time limit of connecting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<GoDuration>,
    /// Time limit of reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_timeout: Option<GoDuration>,
    /// Time limit of writing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_timeout: Option<GoDuration>,
    /// Retries of commands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RedisRetry>,
    /// TLS towards Redis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<RedisTls>,
}

/// Connection to the Redis that keeps counts of requests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitRedis {
    /// URL of a single Redis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Sentinels, in place of a URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentinel: Option<RedisSentinel>,
    /// Vault path of the password, as `mount/path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_vault_path: Option<String>,
    /// Prefix of all keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_prefix: Option<String>,
    /// Whether requests pass while Redis is away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_open: Option<bool>,
    /// Connections at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub pool_size: Option<u64>,
    /// Time limit of connecting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<GoDuration>,
    /// Time limit of reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_timeout: Option<GoDuration>,
    /// Time limit of writing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_timeout: Option<GoDuration>,
    /// Retries of commands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RedisRetry>,
    /// TLS towards Redis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<RedisTls>,
}

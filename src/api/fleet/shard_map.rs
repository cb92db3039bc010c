//! ShardMap: who owns what, published by the leader and read by every replica.
//!
//! What operators set stands in `spec`, what the leader computes in `status`.
//! Since the status is a subresource, neither can overwrite the other by
//! accident, and the status' epoch is moved by compare-and-swap on the
//! object's resourceVersion.

use std::borrow::Cow;
use std::collections::BTreeMap;

use kube_derive::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::structural;

/// The name of the only ShardMap that anyone reads.
pub const SHARD_MAP_NAME: &str = "fleet";

/// Virtual nodes per member when operators set none.
pub const DEFAULT_VIRTUAL_NODES: u16 = 512;

/// What operators set.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "fleet.flotilla.dev",
    version = "v1alpha1",
    kind = "ShardMap",
    plural = "shardmaps",
    shortname = "sm",
    status = "ShardMapStatus",
    schema = "manual",
    derive = "Default",
    derive = "PartialEq",
    doc = "Which replica owns which namespaces: operators set `spec`, the leader publishes `status`.",
    printcolumn = r#"{"name":"Epoch","type":"integer","jsonPath":".status.epoch"}"#,
    printcolumn = r#"{"name":"Leader","type":"string","jsonPath":".status.leader"}"#,
    printcolumn = r#"{"name":"Members","type":"integer","jsonPath":".status.memberCount"}"#,
    printcolumn = r#"{"name":"Away","type":"integer","jsonPath":".status.awayCount"}"#,
    printcolumn = r#"{"name":"Imbalance","type":"string","description":"The largest share of the load as a multiple of the mean.","jsonPath":".status.imbalance"}"#,
    printcolumn = r#"{"name":"Exceptions","type":"integer","description":"Namespaces at home elsewhere than the ring says.","priority":1,"jsonPath":".status.exceptionCount"}"#,
    printcolumn = r#"{"name":"Shares","type":"string","description":"Per member its namespaces and its part of the load.","priority":1,"jsonPath":".status.shares"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    crates(
        kube_core = "::kube_core",
        k8s_openapi = "::k8s_openapi",
        schemars = "::schemars",
        serde = "::serde",
        serde_json = "::serde_json"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ShardMapSpec {
    /// Namespaces that a named member owns whatever the ring says. Keyed by
    /// namespace. A pin to a member that is not there is ignored.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pins: BTreeMap<String, String>,
    /// Members that shall own nothing, for maintenance.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drained: Vec<String>,
    /// Parameters of the hash ring.
    #[serde(default)]
    pub ring: Ring,
}

/// Parameters of the hash ring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ring {
    /// Points per member on the ring: more spread namespaces more evenly and
    /// cost memory and time when the map changes.
    #[serde(default = "default_virtual_nodes")]
    #[schemars(range(min = 1, max = 4096))]
    pub virtual_nodes: u16,
}

impl Default for Ring {
    fn default() -> Self {
        Self { virtual_nodes: DEFAULT_VIRTUAL_NODES }
    }
}

fn default_virtual_nodes() -> u16 {
    DEFAULT_VIRTUAL_NODES
}

/// What the leader publishes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShardMapStatus {
    /// Number of this map: it only grows, also when the map was deleted and created again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// The member that published this epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// How many members there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_count: Option<i32>,
    /// The members, sorted by name. Owners are computed from these, from their
    /// exceptions, and from the away members, pins and virtual nodes below, and
    /// from nothing else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<MemberStatus>,
    /// Members that are gone and expected back under the same name, sorted by it.
    /// Their place is kept: others act in their namespaces meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub away: Vec<AwayStatus>,
    /// How many members are away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub away_count: Option<i32>,
    /// The largest share of the load as a multiple of the mean when this epoch
    /// was published, for example `1.08`; for people to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imbalance: Option<String>,
    /// How many namespaces are at home elsewhere than the ring says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exception_count: Option<i32>,
    /// Namespaces and part of the load of every member; for people to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<String>,
    /// The pins of this epoch, copied from the spec of `observedGeneration`: a
    /// pin that operators have just set counts from the next epoch on, so that
    /// all replicas agree within one. Keyed by namespace.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pins: BTreeMap<String, String>,
    /// Points per member on the ring of this epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4096))]
    pub virtual_nodes: Option<u16>,
    /// The generation of the spec that this epoch takes into account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When this epoch was published, by the leader's clock; for people to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub published_at: Option<String>,
}

/// One member of the fleet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// The member's name, which it keeps over restarts.
    pub name: String,
    /// Identifies one run of the member's process.
    #[serde(default)]
    pub instance: String,
    /// Where its peers reach it, as `host:port`.
    #[serde(default)]
    pub address: String,
    /// Whether it owns nothing because operators drained it.
    #[serde(default)]
    pub drained: bool,
    /// How many namespaces with objects it owned when this epoch was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<i64>,
    /// What these weighed together: one for each namespace, for each of its
    /// objects, and for each change per minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<i64>,
    /// Namespaces that are at home with this member although the ring gives them
    /// to another: for each the upper 32 bits of the XXH3 hash of its name (behind
    /// `key` and a zero byte), big-endian, ascending, all in base64. Namespaces
    /// whose names agree in these bits go together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exceptions: Option<String>,
}

/// Exceptions in favour of a member that is away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AwayStatus {
    /// The member's name.
    pub name: String,
    /// As in the members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exceptions: Option<String>,
}

impl JsonSchema for ShardMap {
    fn schema_name() -> Cow<'static, str> {
        "ShardMap".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        structural::object::<ShardMapSpec, ShardMapStatus>(
            generator,
            "Which replica owns which namespaces: operators set `spec`, the leader publishes `status`.",
        )
    }
}

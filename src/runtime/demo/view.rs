//! What the demo sees of the fleet from outside: the ShardMap, the replicas'
//! metrics, the gateways' digests and versions, the objects' statuses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use anyhow::Context as _;
use bytes::Bytes;
use flotilla_api::fleet::{SHARD_MAP_NAME, ShardMap};
use flotilla_avapigw::{AvapigwCompiler, compile_all};
use flotilla_core::ids::{Kind, ObjectKey};
use flotilla_core::object::RawObject;
use flotilla_core::shardmap::{Ownership, PublishedMap};
use flotilla_k8s::watch::list_once;
use kube::{Api, Client};
use serde::Deserialize;

use super::http;

/// The published map.
///
/// # Errors
/// When it cannot be read, or has no status yet.
pub async fn shard_map(client: &Client) -> anyhow::Result<PublishedMap> {
    let map = Api::<ShardMap>::all(client.clone()).get(SHARD_MAP_NAME).await.context("shardmap fleet")?;
    flotilla_k8s::coordination::published(&map).context("shardmap fleet has no status yet")
}

/// Namespaces by owner.
pub fn owners(map: &PublishedMap, namespaces: &[String]) -> BTreeMap<String, String> {
    let ownership = Ownership::new(map.clone());
    let owner = |namespace: &String| ownership.owner(namespace).map_or_else(String::new, ToString::to_string);
    namespaces.iter().map(|namespace| (namespace.clone(), owner(namespace))).collect()
}

/// One sample of a replica's metrics, summed over labels; zero when it is not
/// there.
///
/// # Errors
/// When the replica does not answer.
pub async fn metric(address: SocketAddr, name: &str, label: &str) -> anyhow::Result<f64> {
    let text = http::text(address, "/metrics").await?;
    let of = |line: &str| -> Option<f64> {
        let rest = line.strip_prefix(name)?;
        let ours = rest.starts_with(' ') || (rest.starts_with('{') && rest.contains(label));
        ours.then(|| rest.rsplit(' ').next()?.parse().ok()).flatten()
    };
    Ok(text.lines().filter_map(of).sum())
}

/// What one gateway counts about itself.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub struct GatewayStats {
    /// Times something went back to an older generation.
    pub regressions: u64,
    /// Things that had been removed and came back unchanged.
    pub reappeared: u64,
}

/// A gateway's counters.
///
/// # Errors
/// When the gateway does not answer.
pub async fn gateway_stats(admin: SocketAddr) -> anyhow::Result<GatewayStats> {
    serde_json::from_str(&http::text(admin, "/stats").await?).context("a gateway's counters")
}

/// A gateway's digest.
///
/// # Errors
/// When the gateway does not answer.
pub async fn digest(admin: SocketAddr) -> anyhow::Result<String> {
    Ok(http::text(admin, "/digest").await?.trim().to_owned())
}

/// All objects of the API server by kind, read without any replica.
///
/// # Errors
/// Whatever the API server answers.
pub async fn objects(client: &Client) -> anyhow::Result<Vec<RawObject>> {
    let mut all = Vec::new();
    for kind in Kind::ALL {
        all.extend(list_once(client.clone(), kind).await?.1);
    }
    Ok(all)
}

/// What gateways must hold when these are all objects: kind, key and spec.
fn compiled(objects: &[RawObject]) -> Vec<(Kind, &ObjectKey, Bytes)> {
    let compiled = compile_all(&AvapigwCompiler::default(), objects);
    compiled.into_iter().filter_map(|(object, spec)| Some((object.kind, &object.key, spec?))).collect()
}

/// The digest that a gateway must have which holds exactly these objects.
pub fn expected_digest(objects: &[RawObject]) -> String {
    let compiled = compiled(objects);
    flotilla_core::digest::digest_of(compiled.iter().map(|(kind, key, spec)| (*kind, *key, spec.as_ref())))
}

/// Kinds and keys of those objects that gateways are to hold.
pub fn delivered(objects: &[RawObject]) -> BTreeSet<(String, String)> {
    compiled(objects).into_iter().map(|(kind, key, _)| (kind.name().to_owned(), key.to_string())).collect()
}

/// How many of the objects say `Ready=True` for their generation and this
/// number of gateways; and one that does not, for messages.
pub fn ready(objects: &[RawObject], gateways: u32) -> (usize, Option<String>) {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Status {
        observed_generation: i64,
        conditions: Vec<Condition>,
    }
    #[derive(Deserialize)]
    struct Condition {
        #[serde(rename = "type")]
        type_: String,
        status: String,
        #[serde(default)]
        message: String,
    }
    let mut ready = 0;
    let mut missing = None;
    for object in objects {
        let status: Status = serde_json::from_slice(&object.status).unwrap_or_default();
        let words = format!("applied to {gateways} gateway");
        let condition = status.conditions.iter().find(|condition| condition.type_ == "Ready");
        let good = status.observed_generation == object.generation
            && condition.is_some_and(|one| one.status == "True" && one.message.contains(&words));
        if good {
            ready += 1;
        } else {
            missing = Some(format!(
                "{} {} generation {}: {}",
                object.kind,
                object.key,
                object.generation,
                condition
                    .map_or("no condition Ready".to_owned(), |one| format!("{} {}", one.status, one.message))
            ));
        }
    }
    (ready, missing)
}

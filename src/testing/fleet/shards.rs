//! Who owns what, as published in the ShardMap.

use std::collections::BTreeMap;

use flotilla_api::fleet::{SHARD_MAP_NAME, ShardMap};
use flotilla_core::shardmap::{Ownership, PublishedMap};
use kube::{Api, Client};

/// The published map.
///
/// # Errors
/// When there is none yet.
pub async fn published(client: &Client) -> Result<PublishedMap, String> {
    let map =
        Api::<ShardMap>::all(client.clone()).get(SHARD_MAP_NAME).await.map_err(|error| error.to_string())?;
    flotilla_k8s::coordination::published(&map).ok_or_else(|| "the shard map has no status yet".to_owned())
}

/// Names of a map's members.
pub fn members(map: &PublishedMap) -> Vec<String> {
    map.members.iter().map(|member| member.name.to_string()).collect()
}

/// Owners by namespace.
pub fn owners(map: &PublishedMap, namespaces: &[String]) -> BTreeMap<String, String> {
    let ownership = Ownership::new(map.clone());
    let owner = |namespace: &String| ownership.owner(namespace).map_or_else(String::new, ToString::to_string);
    namespaces.iter().map(|namespace| (namespace.clone(), owner(namespace))).collect()
}

//! The ShardMap on the wire: custom resource ↔ the core's records.

use std::collections::BTreeMap;
use std::sync::Arc;

use flotilla_api::fleet::{MemberStatus, SHARD_MAP_NAME, ShardMap, ShardMapSpec, ShardMapStatus};
use flotilla_core::coordination::{MapRecord, MapWrite};
use flotilla_core::ids::Epoch;
use flotilla_core::shardmap::{MapMember, OperatorSpec, PublishedMap};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};

use super::lease::revision_of;
use crate::Error;

/// The map's object.
#[derive(Clone)]
pub struct Maps {
    api: Api<ShardMap>,
}

impl Maps {
    /// The map of the cluster.
    pub fn new(client: Client) -> Self {
        Maps { api: Api::all(client) }
    }

    /// The API, for watching.
    pub fn api(&self) -> &Api<ShardMap> {
        &self.api
    }

    /// Reads it consistently.
    ///
    /// # Errors
    /// Whatever the API server answers.
    pub async fn read(&self) -> Result<Option<MapRecord>, Error> {
        let what = "get shardmap fleet";
        let found = self.api.get_opt(SHARD_MAP_NAME).await.map_err(|e| Error::from_kube(what, e))?;
        found.map(|map| record(&map).ok_or_else(|| unreadable(what))).transpose()
    }

    /// Writes it and returns what is there then.
    ///
    /// # Errors
    /// `Conflict` when it is not the one any more that was read.
    pub async fn write(&self, write: &MapWrite) -> Result<MapRecord, Error> {
        let what = "write shardmap fleet";
        let params = PostParams::default();
        let outcome = match write {
            MapWrite::Create => {
                let map = ShardMap::new(SHARD_MAP_NAME, ShardMapSpec::default());
                self.api.create(&params, &map).await
            }
            MapWrite::Publish { uid, revision, map } => {
                let found = self.api.get(SHARD_MAP_NAME).await.map_err(|e| Error::from_kube(what, e))?;
                // The generation that the plan was made from is that of the
                // revision it was made from.
                let unchanged = found.metadata.uid.as_deref() == Some(uid)
                    && found.metadata.resource_version.as_deref() == Some(revision.to_string().as_str());
                if !unchanged {
                    return Err(Error::Conflict { what: what.to_owned() });
                }
                let status = status(map, found.metadata.generation);
                let object = ShardMap { status: Some(status), ..found };
                self.api.replace_status(SHARD_MAP_NAME, &params, &object).await
            }
        };
        let written = outcome.map_err(|e| Error::from_kube(what, e))?;
        record(&written).ok_or_else(|| unreadable(what))
    }
}

fn unreadable(what: &str) -> Error {
    Error::Permanent { what: what.to_owned(), message: "the answer has no usable metadata".to_owned() }
}

/// What the object says; `None` without usable metadata.
pub fn record(map: &ShardMap) -> Option<MapRecord> {
    let spec = OperatorSpec {
        pins: names(&map.spec.pins),
        drained: map.spec.drained.iter().map(|name| name.as_str().into()).collect(),
        virtual_nodes: u32::from(map.spec.ring.virtual_nodes),
    };
    let observed = map.status.as_ref().and_then(|status| status.observed_generation);
    Some(MapRecord {
        uid: Arc::from(map.metadata.uid.as_deref()?),
        revision: revision_of(map.metadata.resource_version.as_deref()?)?,
        spec,
        published: published(map),
        in_step: observed.is_some() && observed == map.metadata.generation,
    })
}

fn names<T: for<'a> From<&'a str>>(pins: &BTreeMap<String, String>) -> BTreeMap<Arc<str>, T> {
    pins.iter().map(|(namespace, member)| (Arc::from(namespace.as_str()), T::from(member))).collect()
}

/// What was published; `None` before the first time.
pub fn published(map: &ShardMap) -> Option<PublishedMap> {
    let status = map.status.as_ref()?;
    let member = |member: &MemberStatus| MapMember {
        name: member.name.as_str().into(),
        instance: member.instance.as_str().into(),
        address: member.address.as_str().into(),
        drained: member.drained,
    };
    Some(PublishedMap {
        epoch: Epoch(u64::try_from(status.epoch?).ok()?),
        leader: status.leader.as_deref().unwrap_or_default().into(),
        members: status.members.iter().map(member).collect(),
        pins: names(&status.pins),
        virtual_nodes: u32::from(status.virtual_nodes?),
    })
}

fn status(map: &PublishedMap, generation: Option<i64>) -> ShardMapStatus {
    let member = |member: &MapMember| MemberStatus {
        name: member.name.to_string(),
        instance: member.instance.to_string(),
        address: member.address.to_string(),
        drained: member.drained,
    };
    ShardMapStatus {
        epoch: i64::try_from(map.epoch.0).ok(),
        leader: Some(map.leader.to_string()),
        member_count: i32::try_from(map.members.len()).ok(),
        members: map.members.iter().map(member).collect(),
        pins: map
            .pins
            .iter()
            .map(|(namespace, member)| (namespace.to_string(), member.to_string()))
            .collect(),
        virtual_nodes: u16::try_from(map.virtual_nodes).ok(),
        observed_generation: generation,
        // For people to read.
        published_at: Some(Timestamp::now().to_string()),
    }
}

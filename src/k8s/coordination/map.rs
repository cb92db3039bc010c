//! The ShardMap on the wire: custom resource ↔ the core's records.
//!
//! Exceptions stand with the member that they are in favour of, four bytes
//! each, in base64: ten thousand need 54 kB.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flotilla_api::fleet::{AwayStatus, MemberStatus, SHARD_MAP_NAME, ShardMap, ShardMapSpec, ShardMapStatus};
use flotilla_core::coordination::{MapRecord, MapWrite};
use flotilla_core::ids::{Epoch, MemberName};
use flotilla_core::placement::imbalance;
use flotilla_core::ring::Slot;
use flotilla_core::shardmap::{Exceptions, MapMember, OperatorSpec, PublishedMap, Share};
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

/// What was published; `None` before the first time, or when it cannot be read:
/// owners must not be guessed.
pub fn published(map: &ShardMap) -> Option<PublishedMap> {
    let status = map.status.as_ref()?;
    let mut exceptions = Exceptions::new();
    let excepted = status.members.iter().map(|member| (&member.name, &member.exceptions));
    for (name, text) in excepted.chain(status.away.iter().map(|away| (&away.name, &away.exceptions))) {
        let member = MemberName::from(name.as_str());
        for slot in slots(text.as_deref().unwrap_or_default())? {
            exceptions.insert(slot, member.clone());
        }
    }
    let member = |member: &MemberStatus| MapMember {
        name: member.name.as_str().into(),
        instance: member.instance.as_str().into(),
        address: member.address.as_str().into(),
        drained: member.drained,
        share: Share {
            namespaces: member.namespaces.and_then(|count| u32::try_from(count).ok()).unwrap_or_default(),
            load: member.load.and_then(|load| u64::try_from(load).ok()).unwrap_or_default(),
        },
    };
    Some(PublishedMap {
        epoch: Epoch(u64::try_from(status.epoch?).ok()?),
        leader: status.leader.as_deref().unwrap_or_default().into(),
        members: status.members.iter().map(member).collect(),
        pins: names(&status.pins),
        virtual_nodes: u32::from(status.virtual_nodes?),
        away: status.away.iter().map(|away| away.name.as_str().into()).collect(),
        exceptions,
    })
}

fn slots(text: &str) -> Option<Vec<Slot>> {
    let bytes = BASE64_STANDARD.decode(text).ok()?;
    let slot = |bytes: &[u8]| Some(Slot(u32::from_be_bytes(bytes.try_into().ok()?)));
    bytes.chunks(4).map(slot).collect()
}

fn status(map: &PublishedMap, generation: Option<i64>) -> ShardMapStatus {
    let mut by_member: BTreeMap<&MemberName, Vec<u8>> = BTreeMap::new();
    for (slot, member) in &map.exceptions {
        by_member.entry(member).or_default().extend(slot.0.to_be_bytes());
    }
    let exceptions = |name: &MemberName| by_member.get(name).map(|bytes| BASE64_STANDARD.encode(bytes));
    let member = |member: &MapMember| MemberStatus {
        name: member.name.to_string(),
        instance: member.instance.to_string(),
        address: member.address.to_string(),
        drained: member.drained,
        namespaces: Some(i64::from(member.share.namespaces)),
        load: i64::try_from(member.share.load).ok(),
        exceptions: exceptions(&member.name),
    };
    let eligible = map.eligible();
    let taking_part = || map.members.iter().filter(|member| eligible.contains(&member.name));
    let percent = imbalance(taking_part().map(|member| &member.share));
    ShardMapStatus {
        epoch: i64::try_from(map.epoch.0).ok(),
        leader: Some(map.leader.to_string()),
        member_count: i32::try_from(map.members.len()).ok(),
        members: map.members.iter().map(member).collect(),
        away: map
            .away
            .iter()
            .map(|name| AwayStatus { name: name.to_string(), exceptions: exceptions(name) })
            .collect(),
        away_count: i32::try_from(map.away.len()).ok(),
        imbalance: Some(format!("{}.{:02}", percent / 100, percent % 100)),
        exception_count: i32::try_from(map.exceptions.len()).ok(),
        shares: Some(shares(map)),
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

/// For example `flotilla-0 412 (34%), flotilla-1 398 (33%)`.
fn shares(map: &PublishedMap) -> String {
    let total: u64 = map.members.iter().map(|member| member.share.load).sum();
    let part = |member: &MapMember| {
        let Share { namespaces, load } = member.share;
        format!("{} {namespaces} ({}%)", member.name, (load * 100 + total / 2) / total.max(1))
    };
    map.members.iter().map(part).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use flotilla_core::ring::Position;

    use super::*;

    fn map(members: usize, exceptions: u32) -> PublishedMap {
        let name = |index: usize| MemberName::from(format!("{}-{index}", "f".repeat(50)));
        let member = |index| MapMember {
            name: name(index),
            instance: format!("{}/0123abcd", name(index)).as_str().into(),
            address: "[2001:db8::1234:5678:9abc:def0]:9445".into(),
            drained: index == 1,
            share: Share { namespaces: 1_000, load: 123_456_789 },
        };
        let slot = |index: u32| Position::of(&format!("team-{index}")).slot();
        PublishedMap {
            epoch: Epoch(9_007_199_254_740_993),
            leader: name(0),
            members: (0..members).map(member).collect(),
            pins: BTreeMap::from([("shop".into(), name(2))]),
            virtual_nodes: 512,
            away: [name(members)].into(),
            exceptions: (0..exceptions)
                .map(|index| (slot(index), name(index as usize % (members + 1))))
                .collect(),
        }
    }

    fn object(map: &PublishedMap) -> ShardMap {
        ShardMap {
            status: Some(status(map, Some(3))),
            ..ShardMap::new(SHARD_MAP_NAME, ShardMapSpec::default())
        }
    }

    #[test]
    fn what_is_published_is_what_is_read() {
        for map in [map(3, 0), map(3, 500)] {
            assert_eq!(published(&object(&map)), Some(map));
        }
    }

    #[test]
    fn a_map_that_makes_ten_thousand_exceptions_stays_below_a_hundred_kibibytes() {
        for members in [3, 10, 50] {
            let bytes = serde_json::to_vec(&object(&map(members, 10_000))).unwrap().len();
            eprintln!("10,000 exceptions for {members} members: {bytes} bytes");
            assert!(bytes < 100 * 1024, "{bytes} bytes for {members} members");
        }
    }

    #[test]
    fn exceptions_that_cannot_be_read_make_no_map() {
        for text in ["AAAA", "?", "AAAAAA"] {
            let mut object = object(&map(2, 0));
            object.status.as_mut().unwrap().members[0].exceptions = Some(text.to_owned());
            assert_eq!(published(&object), None, "{text:?}");
        }
    }
}

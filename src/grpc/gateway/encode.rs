//! Batches as bytes: encoded once, written to many streams.
//!
//! Everything in an update is the same for all sessions at one position, but
//! its sequence, which counts per gateway. Protocol Buffers allow fields in any
//! order, so the shared bytes leave the sequence out and each stream appends
//! its own.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use bytes::{BufMut, Bytes};
use flotilla_core::delivery::{Batch, Change, Snapshot, Update};
use flotilla_core::ids::{Kind, ObjectKey};
use flotilla_core::object::Resource;
use flotilla_proto::operator::{
    ConfigurationResource, ConfigurationSnapshot, ConfigurationUpdate, ResourceType, UpdateType,
};
use prost::Message;
use prost_types::Timestamp;

/// Key of the field `sequence` in `ConfigurationUpdate`: number 6, a varint.
const SEQUENCE_KEY: u8 = 6 << 3;

/// Length of gRPC's prefix: one flag and a length.
pub(super) const PREFIX: usize = 5;

/// The most bytes behind a shared message: a key and a sequence.
pub(super) const TAIL: usize = 11;

/// A batch as it is shared between streams.
#[derive(Debug)]
pub struct EncodedBatch {
    /// One message per update, without its sequence.
    pub(super) updates: Vec<Bytes>,
}

impl EncodedBatch {
    pub(super) fn of(batch: &Batch, at: SystemTime) -> Self {
        let at = Timestamp::from(at);
        EncodedBatch { updates: batch.updates.iter().map(|update| encode(update, at)).collect() }
    }

    /// Size of all messages with the longest sequences.
    pub(super) fn bytes(&self) -> u64 {
        self.updates.iter().map(|update| (PREFIX + update.len() + TAIL) as u64).sum()
    }

    /// Size of the largest message with the longest sequence, without prefix.
    pub(super) fn largest(&self) -> u64 {
        self.updates.iter().map(|update| (update.len() + TAIL) as u64).max().unwrap_or(0)
    }
}

/// The bytes that go behind a shared message, in `room`.
pub(super) fn sequence_tail(sequence: i64, room: &mut [u8; TAIL]) -> &[u8] {
    // Zero is a field's default and stands for itself by being left out.
    if sequence == 0 {
        return &[];
    }
    let mut left = &mut room[..];
    left.put_u8(SEQUENCE_KEY);
    prost::encoding::encode_varint(sequence.cast_unsigned(), &mut left);
    let length = TAIL - left.len();
    &room[..length]
}

fn encode(update: &Update, at: Timestamp) -> Bytes {
    let mut message = ConfigurationUpdate {
        r#type: UpdateType::Unspecified.into(),
        version: update.version.to_string(),
        timestamp: Some(at),
        resource: None,
        snapshot: None,
        sequence: 0,
        is_last_in_batch: update.last,
    };
    let kind = match &update.change {
        Change::Upsert { resource: content, added } => {
            message.resource = Some(resource(content));
            if *added { UpdateType::Added } else { UpdateType::Modified }
        }
        Change::Delete { kind, key } => {
            message.resource = Some(bare(*kind, key));
            UpdateType::Deleted
        }
        Change::FullSync(content) => {
            message.snapshot = Some(snapshot(content, &update.version, at));
            UpdateType::FullSync
        }
        Change::Reset => UpdateType::FullSync,
        Change::Heartbeat => UpdateType::Heartbeat,
    };
    message.set_type(kind);
    message.encode_to_vec().into()
}

/// A snapshot as gateways and tools get it.
pub(super) fn snapshot(content: &Snapshot, version: &str, at: Timestamp) -> ConfigurationSnapshot {
    let mut message = ConfigurationSnapshot {
        version: version.to_owned(),
        timestamp: Some(at),
        checksum: content.checksum(),
        ..ConfigurationSnapshot::default()
    };
    let entries = content.resources.iter().map(|content| (content.kind, resource(content)));
    let padding = content.padding.iter().map(|(kind, key)| (*kind, bare(*kind, key)));
    let mut total: i32 = 0;
    for (kind, entry) in entries.chain(padding) {
        let list = match kind {
            Kind::ApiRoute => &mut message.api_routes,
            Kind::GrpcRoute => &mut message.grpc_routes,
            Kind::Backend => &mut message.backends,
            Kind::GrpcBackend => &mut message.grpc_backends,
        };
        list.push(entry);
        total = total.saturating_add(1);
    }
    message.total_resources = total;
    message
}

fn resource(content: &Resource) -> ConfigurationResource {
    ConfigurationResource {
        resource_version: content.revision.to_string(),
        generation: content.generation,
        uid: content.uid.to_string(),
        spec_json: content.spec_json.clone(),
        // Only informative to gateways; one that cannot be read is left out.
        creation_timestamp: content.created.parse().ok(),
        ..bare(content.kind, &content.key)
    }
}

/// A resource without content: what a deletion names.
fn bare(kind: Kind, key: &ObjectKey) -> ConfigurationResource {
    ConfigurationResource {
        r#type: resource_type(kind).into(),
        name: key.name.to_string(),
        namespace: key.namespace.to_string(),
        ..ConfigurationResource::default()
    }
}

/// The wire's name of a kind.
pub(super) const fn resource_type(kind: Kind) -> ResourceType {
    match kind {
        Kind::ApiRoute => ResourceType::ApiRoute,
        Kind::GrpcRoute => ResourceType::GrpcRoute,
        Kind::Backend => ResourceType::Backend,
        Kind::GrpcBackend => ResourceType::GrpcBackend,
    }
}

/// The kind of a wire's name; `None` for kinds that we do not deliver.
pub(crate) const fn kind_of(resource_type: ResourceType) -> Option<Kind> {
    match resource_type {
        ResourceType::ApiRoute => Some(Kind::ApiRoute),
        ResourceType::GrpcRoute => Some(Kind::GrpcRoute),
        ResourceType::Backend => Some(Kind::Backend),
        ResourceType::GrpcBackend => Some(Kind::GrpcBackend),
        ResourceType::Unspecified | ResourceType::GraphqlRoute | ResourceType::GraphqlBackend => None,
    }
}

/// Encoded batches that some stream still holds, by [`Batch::id`].
#[derive(Debug, Default)]
pub struct EncodedBatches {
    batches: HashMap<u64, Weak<EncodedBatch>>,
    /// Size at which entries that nobody holds any more are thrown out: twice
    /// what was left the last time, so that the work is spread evenly.
    sweep_at: usize,
}

impl EncodedBatches {
    /// The encoded form, and whether it had to be made; `at` is when that was.
    pub fn get(&mut self, batch: &Batch, at: SystemTime) -> (Arc<EncodedBatch>, bool) {
        if let Some(encoded) = self.batches.get(&batch.id).and_then(Weak::upgrade) {
            return (encoded, false);
        }
        if self.batches.len() >= self.sweep_at {
            self.batches.retain(|_, encoded| encoded.strong_count() > 0);
            self.sweep_at = (self.batches.len() * 2).max(64);
        }
        let encoded = Arc::new(EncodedBatch::of(batch, at));
        self.batches.insert(batch.id, Arc::downgrade(&encoded));
        (encoded, true)
    }
}

#[cfg(test)]
mod tests {
    use flotilla_core::ids::Revision;

    use super::*;

    fn route(name: &str) -> Arc<Resource> {
        Arc::new(Resource {
            kind: Kind::ApiRoute,
            key: ObjectKey::new("team", name),
            uid: "u-1".into(),
            generation: 3,
            revision: Revision(77),
            created: "2026-11-21T10:00:00Z".into(),
            spec_json: Bytes::from_static(br#"{"name":"team/r"}"#),
            rank: 0,
        })
    }

    fn batch(id: u64, changes: Vec<Change>) -> Batch {
        let count = changes.len();
        let updates = changes
            .into_iter()
            .enumerate()
            .map(|(at, change)| Update { change, version: format!("v{at}").into(), last: at + 1 == count })
            .collect();
        Batch { id, updates, bytes: 0, full: false }
    }

    fn decode(encoded: &EncodedBatch, at: usize, sequence: i64) -> ConfigurationUpdate {
        let mut bytes = encoded.updates[at].to_vec();
        bytes.extend_from_slice(sequence_tail(sequence, &mut [0; TAIL]));
        ConfigurationUpdate::decode(bytes.as_slice()).unwrap()
    }

    #[test]
    fn the_appended_sequence_is_the_updates_sequence() {
        let encoded = EncodedBatch::of(
            &batch(1, vec![Change::Delete { kind: Kind::Backend, key: ObjectKey::new("a", "b") }]),
            SystemTime::now(),
        );
        for sequence in [0, 1, 127, 128, 1 << 40, i64::MAX] {
            assert_eq!(decode(&encoded, 0, sequence).sequence, sequence);
        }
        assert!(
            encoded.largest()
                >= (encoded.updates[0].len() + sequence_tail(i64::MAX, &mut [0; TAIL]).len()) as u64
        );
    }

    #[test]
    fn updates_say_what_they_change() {
        let changes = vec![
            Change::Upsert { resource: route("r"), added: true },
            Change::Upsert { resource: route("r"), added: false },
            Change::Delete { kind: Kind::GrpcBackend, key: ObjectKey::new("team", "b") },
            Change::Reset,
            Change::Heartbeat,
        ];
        let encoded = EncodedBatch::of(&batch(1, changes), SystemTime::now());
        let of = |at| decode(&encoded, at, 9);
        assert_eq!(of(0).r#type(), UpdateType::Added);
        let resource = of(0).resource.unwrap();
        assert_eq!(resource.r#type(), ResourceType::ApiRoute);
        assert_eq!((resource.namespace.as_str(), resource.name.as_str()), ("team", "r"));
        assert_eq!((resource.resource_version.as_str(), resource.generation), ("77", 3));
        assert_eq!(resource.spec_json, &br#"{"name":"team/r"}"#[..]);
        assert_eq!(resource.creation_timestamp.unwrap().seconds, 1_795_255_200);
        assert!(resource.labels.is_empty() && resource.annotations.is_empty());
        assert_eq!(of(1).r#type(), UpdateType::Modified);
        assert_eq!(of(2).r#type(), UpdateType::Deleted);
        assert!(of(2).resource.unwrap().spec_json.is_empty());
        assert_eq!(of(3).r#type(), UpdateType::FullSync);
        assert!(of(3).snapshot.is_none());
        assert_eq!(of(4).r#type(), UpdateType::Heartbeat);
        assert_eq!(of(4).version, "v4");
        assert!(!of(3).is_last_in_batch && of(4).is_last_in_batch);
    }

    #[test]
    fn a_snapshot_counts_its_padding() {
        let padding = vec![(Kind::Backend, ObjectKey::new("flotilla", "pad-0"))];
        let content = Snapshot { resources: vec![route("a"), route("b")], padding };
        let checksum = content.checksum();
        let encoded = EncodedBatch::of(&batch(1, vec![Change::FullSync(content)]), SystemTime::now());
        let snapshot = decode(&encoded, 0, 1).snapshot.unwrap();
        assert_eq!(snapshot.total_resources, 3);
        assert_eq!((snapshot.checksum.len(), snapshot.checksum), (64, checksum));
        assert_eq!(snapshot.version, "v0");
        assert_eq!((snapshot.api_routes.len(), snapshot.backends.len()), (2, 1));
        assert!(snapshot.backends[0].spec_json.is_empty());
    }

    #[test]
    fn a_batch_is_encoded_once_while_anybody_holds_it() {
        let mut cache = EncodedBatches::default();
        let content = batch(7, vec![Change::Heartbeat]);
        let (first, made) = cache.get(&content, SystemTime::now());
        assert!(made);
        let (second, made) = cache.get(&content, SystemTime::now());
        assert!(!made && Arc::ptr_eq(&first, &second));
        drop((first, second));
        assert!(cache.get(&content, SystemTime::now()).1);
    }

    #[test]
    fn the_cache_forgets_what_nobody_holds() {
        let mut cache = EncodedBatches::default();
        for id in 0..10_000 {
            cache.get(&batch(id, vec![Change::Heartbeat]), SystemTime::now());
        }
        assert!(cache.batches.len() <= 64);
    }
}

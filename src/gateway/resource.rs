//! Resources as a gateway holds them, shared between all gateways of a process.
//!
//! A thousand gateways in one process hold the same configuration a thousand
//! times. So decoded resources are interned: equal content is kept, decoded
//! and compiled once, and every gateway holds a pointer.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use flotilla_core::digest::digest_of;
use flotilla_core::ids::{Kind, ObjectKey};

use crate::proxy::backend::BackendSettings;
use crate::proxy::grpc::GrpcRoute;
use crate::proxy::route::HttpRoute;
use crate::spec::{ApiRouteSpec, BackendSpec, GrpcRouteSpec};

/// A resource as it arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// The kind; `None` for kinds that this gateway does not hold (GraphQL).
    pub kind: Option<Kind>,
    /// Namespace; may be empty if `name` is `namespace/name`.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid of the object it was compiled from.
    pub uid: String,
    /// Generation of that object.
    pub generation: i64,
    /// Its content revision as the controller tells it.
    pub resource_version: String,
    /// The spec; empty in entries that only count.
    pub spec_json: Bytes,
}

impl Incoming {
    /// The key that the resource is held by: `namespace/name`. A name that is
    /// already of that form, with an empty namespace, is the same key.
    pub fn key(&self) -> Arc<str> {
        if self.namespace.is_empty() {
            Arc::from(self.name.as_str())
        } else {
            Arc::from(format!("{}/{}", self.namespace, self.name))
        }
    }
}

/// A spec that cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to unmarshal the spec of {kind} {key}; correct it: {problem}")]
pub struct Undecodable {
    kind: &'static str,
    key: Arc<str>,
    problem: String,
}

/// A decoded resource.
#[derive(Debug)]
pub struct Resource {
    /// Its kind.
    pub kind: Kind,
    /// `namespace/name`.
    pub key: Arc<str>,
    /// The same in two parts; the namespace is empty if the key has no slash.
    pub object: ObjectKey,
    /// Uid of its object; empty if the controller does not tell it.
    pub uid: String,
    /// Generation of its object.
    pub generation: i64,
    /// Content revision as the controller tells it.
    pub resource_version: String,
    /// The spec's bytes as they arrived.
    pub spec_json: Bytes,
    pub(crate) content: Content,
}

/// What a spec means. `Err` is a resource that can be held but not loaded.
#[derive(Debug)]
pub(crate) enum Content {
    ApiRoute(Loadable<HttpRoute>),
    GrpcRoute(Loadable<GrpcRoute>),
    Backend(Loadable<BackendSettings>),
}

#[derive(Debug)]
pub(crate) struct Loadable<T> {
    /// `spec_json.name`.
    pub(crate) name: Arc<str>,
    /// The compiled form, or why there is none.
    pub(crate) compiled: Result<Arc<T>, String>,
}

impl Resource {
    fn decode(incoming: &Incoming, kind: Kind, key: Arc<str>) -> Result<Self, Undecodable> {
        let content = decode_content(kind, &incoming.spec_json).map_err(|error| Undecodable {
            kind: kind.name(),
            key: key.clone(),
            problem: error.to_string(),
        })?;
        let (namespace, name) = key.split_once('/').unwrap_or(("", &key));
        Ok(Resource {
            kind,
            object: ObjectKey::new(namespace, name),
            key,
            uid: incoming.uid.clone(),
            generation: incoming.generation,
            resource_version: incoming.resource_version.clone(),
            // What arrived is a slice of a message that may be 4 MiB long and
            // would be kept alive by it.
            spec_json: Bytes::copy_from_slice(&incoming.spec_json),
            content,
        })
    }

    /// `spec_json.name`: what routes call a backend by.
    pub fn name(&self) -> &Arc<str> {
        match &self.content {
            Content::ApiRoute(loadable) => &loadable.name,
            Content::GrpcRoute(loadable) => &loadable.name,
            Content::Backend(loadable) => &loadable.name,
        }
    }

    /// Why the resource cannot be loaded, if so.
    pub fn fault(&self) -> Option<&str> {
        match &self.content {
            Content::ApiRoute(loadable) => loadable.compiled.as_ref().err(),
            Content::GrpcRoute(loadable) => loadable.compiled.as_ref().err(),
            Content::Backend(loadable) => loadable.compiled.as_ref().err(),
        }
        .map(String::as_str)
    }

    fn is(&self, kind: Kind, key: &str, incoming: &Incoming) -> bool {
        self.kind == kind
            && *self.key == *key
            && self.generation == incoming.generation
            && self.uid == incoming.uid
            && self.resource_version == incoming.resource_version
            && self.spec_json == incoming.spec_json
    }
}

/// The digest of these resources in any order: equal to a controller's for the
/// same configuration.
pub fn digest<'a>(resources: impl IntoIterator<Item = &'a Arc<Resource>>) -> String {
    digest_of(
        resources.into_iter().map(|resource| (resource.kind, &resource.object, resource.spec_json.as_ref())),
    )
}

fn decode_content(kind: Kind, json: &[u8]) -> Result<Content, serde_json::Error> {
    let name = |name: &Option<String>| Arc::<str>::from(name.as_deref().unwrap_or_default());
    Ok(match kind {
        Kind::ApiRoute => {
            let spec: ApiRouteSpec = serde_json::from_slice(json)?;
            let name = name(&spec.name);
            let compiled = HttpRoute::compile(&spec, name.clone());
            Content::ApiRoute(Loadable { name, compiled: compiled.map(Arc::new).map_err(|e| e.to_string()) })
        }
        Kind::GrpcRoute => {
            let spec: GrpcRouteSpec = serde_json::from_slice(json)?;
            let name = name(&spec.name);
            let compiled = GrpcRoute::compile(&spec, name.clone());
            Content::GrpcRoute(Loadable { name, compiled: compiled.map(Arc::new).map_err(|e| e.to_string()) })
        }
        Kind::Backend | Kind::GrpcBackend => {
            let spec: BackendSpec = serde_json::from_slice(json)?;
            let name = name(&spec.name);
            let compiled = BackendSettings::compile(&spec);
            Content::Backend(Loadable { name, compiled: compiled.map(Arc::new).map_err(|e| e.to_string()) })
        }
    })
}

/// Decoded resources by content, for as long as anyone holds them.
#[derive(Debug)]
pub struct ResourcePool {
    hasher: RandomState,
    shards: Vec<Mutex<Shard>>,
}

/// Keyed by a hash of kind, key, identity and spec; a bucket holds what shares
/// a hash. Dead entries leave when their bucket is next touched, or when the
/// shard has doubled since it was last swept.
#[derive(Debug, Default)]
struct Shard {
    buckets: HashMap<u64, Vec<Weak<Resource>>>,
    swept_size: usize,
}

const SHARDS: usize = 16;
const SMALLEST_SWEEP: usize = 64;

impl Default for ResourcePool {
    fn default() -> Self {
        ResourcePool {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::new(Shard::default())).collect(),
        }
    }
}

impl ResourcePool {
    /// The resource with this content, decoded now or earlier.
    ///
    /// # Errors
    /// [`Undecodable`] when the spec is not what the kind's specs look like.
    pub fn intern(&self, incoming: &Incoming, kind: Kind) -> Result<Arc<Resource>, Undecodable> {
        let key = incoming.key();
        let hash = self.hasher.hash_one((
            kind,
            &key,
            &incoming.uid,
            incoming.generation,
            &incoming.resource_version,
            &incoming.spec_json,
        ));
        let shard = &self.shards[hash as usize % SHARDS];
        if let Some(found) = lock(shard).find(hash, kind, &key, incoming) {
            return Ok(found);
        }
        // Decoded outside the lock; if two do it at once, the first one in is
        // the one that is kept.
        let decoded = Arc::new(Resource::decode(incoming, kind, key.clone())?);
        let mut shard = lock(shard);
        if let Some(found) = shard.find(hash, kind, &key, incoming) {
            return Ok(found);
        }
        shard.insert(hash, &decoded);
        Ok(decoded)
    }

    /// How many resources are held by anyone.
    pub fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| {
                lock(shard).buckets.values().flatten().filter(|entry| entry.strong_count() > 0).count()
            })
            .sum()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Shard {
    fn find(&self, hash: u64, kind: Kind, key: &str, incoming: &Incoming) -> Option<Arc<Resource>> {
        let bucket = self.buckets.get(&hash)?;
        bucket.iter().filter_map(Weak::upgrade).find(|resource| resource.is(kind, key, incoming))
    }

    fn insert(&mut self, hash: u64, resource: &Arc<Resource>) {
        if self.buckets.len() >= SMALLEST_SWEEP.max(2 * self.swept_size) {
            self.buckets.retain(|_, bucket| {
                bucket.retain(|entry| entry.strong_count() > 0);
                !bucket.is_empty()
            });
            self.swept_size = self.buckets.len();
        }
        let bucket = self.buckets.entry(hash).or_default();
        bucket.retain(|entry| entry.strong_count() > 0);
        bucket.push(Arc::downgrade(resource));
    }
}

/// The maps stay consistent if a holder panics: every change is one call.
fn lock(shard: &Mutex<Shard>) -> std::sync::MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incoming(generation: i64, spec: &str) -> Incoming {
        Incoming {
            kind: Some(Kind::ApiRoute),
            namespace: "ns".to_owned(),
            name: "n".to_owned(),
            uid: "u".to_owned(),
            generation,
            resource_version: "1".to_owned(),
            spec_json: Bytes::copy_from_slice(spec.as_bytes()),
        }
    }

    #[test]
    fn equal_content_is_kept_once_and_let_go_when_nobody_holds_it() {
        let pool = ResourcePool::default();
        let first = pool.intern(&incoming(1, r#"{"name":"a"}"#), Kind::ApiRoute).unwrap();
        let again = pool.intern(&incoming(1, r#"{"name":"a"}"#), Kind::ApiRoute).unwrap();
        let newer = pool.intern(&incoming(2, r#"{"name":"a"}"#), Kind::ApiRoute).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        assert!(!Arc::ptr_eq(&first, &newer));
        assert_eq!(pool.len(), 2);
        drop((first, again, newer));
        assert!(pool.is_empty());
    }

    #[test]
    fn dead_entries_do_not_pile_up() {
        let pool = ResourcePool::default();
        for generation in 0..20_000 {
            pool.intern(&incoming(generation, "{}"), Kind::ApiRoute).unwrap();
        }
        let kept: usize = pool.shards.iter().map(|shard| lock(shard).buckets.len()).sum();
        assert!(kept <= SHARDS * SMALLEST_SWEEP, "{kept} buckets for nothing held");
    }

    #[test]
    fn an_undecodable_spec_names_the_resource_and_the_problem() {
        let pool = ResourcePool::default();
        let check = |spec: &str| {
            let error = pool.intern(&incoming(1, spec), Kind::ApiRoute).unwrap_err().to_string();
            assert!(error.contains("APIRoute ns/n"), "{error}");
        };
        check("");
        check("{");
        check(r#"{"match":"x"}"#);
        check(r#"{"timeout":"soon"}"#);
        check(r#"{"retries":{"attempts":"3"}}"#);
    }
}

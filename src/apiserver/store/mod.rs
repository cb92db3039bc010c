//! The objects, in memory, and everything that happens to them without asking: pure, so that it is tested with
//! values and driven by one short critical section.
//!
//! All resources share one strictly increasing revision, which never is 0 (0 means "any" to clients). Time and
//! uids come in as arguments. The rules for what a write may say are in [`crate::registry`]; here is what a write
//! does: optimistic concurrency, history, finalizers, and the work it leaves for [`Store::collect`]: removing
//! the dependents of removed owners (`gc`) and the contents of deleted namespaces and resource definitions (`namespace`).

mod backup;
mod gc;
mod list;
mod log;
mod namespace;
mod object;
mod selector;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use tokio::sync::watch;

pub use backup::Backup;
pub use list::{ListError, PageStart, Scope};
pub use log::{Change, Event, Gone};
pub use object::{Key, Object, key_of, metadata_mut, text, texts};
pub use selector::{FieldSelector, LabelSelector};

/// Names a resource in the store, such as `leases.coordination.k8s.io` or `secrets`.
pub type ResourceId = Arc<str>;

/// The store's names of the resources whose content it understands itself.
pub const NAMESPACES: &str = "namespaces";
/// See [`NAMESPACES`].
pub const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";
/// The finalizer under which a resource definition waits for its objects to go.
pub const DEFINITION_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
/// The finalizer of an owner that waits for its dependents.
pub const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an owner whose dependents are to be kept.
pub const ORPHAN: &str = "orphan";

/// The moment of a write.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For timestamps in objects.
    pub wall: jiff::Timestamp,
    /// For measuring how long ago something was.
    pub mono: Instant,
}

impl Now {
    /// The wall clock as Kubernetes writes it, to the second.
    pub fn timestamp(&self) -> String {
        self.wall.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }
}

/// Why a write was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The resource is not served (any more).
    #[error("resource {0} is not served")]
    NoResource(ResourceId),
    /// There is no such object.
    #[error("object {0:?} was not found")]
    NotFound(Key),
    /// There is such an object already.
    #[error("object {0:?} exists already")]
    AlreadyExists(Key),
    /// The object has another revision than the writer has seen.
    #[error("object {0:?} was changed meanwhile; read it again")]
    Conflict(Key),
    /// A precondition of a deletion does not hold; the text is the one clients get.
    #[error("{0}")]
    Precondition(String),
    /// The namespace does not exist.
    #[error("namespace {0} does not exist; create it first")]
    NamespaceMissing(String),
    /// The namespace is being deleted.
    #[error("namespace {0} is being deleted; wait and create it again")]
    NamespaceTerminating(String),
}

/// How a deletion treats dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Remove the object, then its dependents.
    Background,
    /// Remove the dependents, then the object.
    Foreground,
    /// Keep the dependents and take the reference to the object from them.
    Orphan,
}

/// What a deletion asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deletion {
    /// The uid the object must have.
    pub uid: Option<String>,
    /// The revision the object must have.
    pub revision: Option<String>,
    /// How dependents are treated; `None` keeps what an earlier deletion asked for, else removes them afterwards.
    pub propagation: Option<Propagation>,
}

/// What a write did.
#[derive(Clone, Debug)]
pub enum Written {
    /// The object as it is now.
    Kept(Arc<Object>),
    /// The object's last state; it is gone.
    Removed(Arc<Object>),
}

impl Written {
    /// The object's last known state.
    pub fn object(&self) -> &Arc<Object> {
        match self {
            Self::Kept(object) | Self::Removed(object) => object,
        }
    }
}

/// How a resource is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Whether `metadata.generation` counts its changes.
    pub generation: bool,
}

#[derive(Debug)]
struct Collection {
    layout: Layout,
    objects: BTreeMap<Key, Arc<Object>>,
    log: log::Log,
    /// Carries the last revision; closes when the resource is dropped.
    changed: watch::Sender<u64>,
}

/// Work that a write leaves behind. Sets, so that it is bounded by the number of objects.
#[derive(Debug, Default)]
struct Pending {
    /// Uids of owners that are gone, or that wait for their dependents.
    owners: BTreeSet<String>,
    /// Objects written with owner references that may point to nothing.
    dependents: BTreeSet<(ResourceId, Key)>,
    /// Namespaces that are being deleted.
    namespaces: BTreeSet<String>,
    /// Resource definitions that are being deleted.
    definitions: BTreeSet<String>,
    /// Resource definitions that were written or removed: the registry must follow.
    changed_definitions: BTreeSet<String>,
}

/// All objects of all resources.
#[derive(Debug)]
pub struct Store {
    revision: u64,
    history: usize,
    /// Keyed by resource; follows the registry.
    collections: BTreeMap<ResourceId, Collection>,
    /// Every stored object by uid; kept by `put` and `take`.
    uids: HashMap<String, (ResourceId, Key)>,
    /// Who names an owner's uid in its references, whether or not the owner exists; kept by `put` and `take`.
    dependents: HashMap<String, BTreeSet<(ResourceId, Key)>>,
    pending: Pending,
}

impl Store {
    /// An empty store that keeps `history` events per resource.
    pub fn new(history: usize) -> Self {
        Self {
            revision: 1,
            history,
            collections: BTreeMap::new(),
            uids: HashMap::new(),
            dependents: HashMap::new(),
            pending: Pending::default(),
        }
    }

    /// The revision of the last write.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Begins to keep a resource. A resource that is kept already stays as it is.
    pub fn open(&mut self, id: &ResourceId, layout: Layout) {
        let (revision, history) = (self.revision, self.history);
        self.collections.entry(id.clone()).or_insert_with(|| Collection {
            layout,
            objects: BTreeMap::new(),
            // A resource that is opened later may have been kept before: what happened then is not known.
            log: log::Log::new(if revision == 1 { 0 } else { revision }, history),
            changed: watch::Sender::new(revision),
        });
    }

    /// Ends keeping a resource, with all its objects; watches of it end.
    pub fn close(&mut self, id: &str) {
        if let Some(collection) = self.collections.remove(id) {
            for object in collection.objects.values() {
                self.uids.remove(&object.meta.uid);
                self.pending.owners.insert(object.meta.uid.clone());
            }
            for referers in self.dependents.values_mut() {
                referers.retain(|(resource, _)| &**resource != id);
            }
        }
    }

    /// Tells when the resource has changed; closed when it is dropped.
    pub fn subscribe(&self, id: &str) -> Option<watch::Receiver<u64>> {
        self.collections.get(id).map(|collection| collection.changed.subscribe())
    }

    /// The names of resource definitions written or removed since the last call.
    pub fn take_changed_definitions(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.pending.changed_definitions)
    }

    /// Whether [`Store::collect`] has something to do.
    pub fn has_pending(&self) -> bool {
        let pending = &self.pending;
        !(pending.owners.is_empty()
            && pending.dependents.is_empty()
            && pending.namespaces.is_empty()
            && pending.definitions.is_empty())
    }

    /// The current object.
    pub fn get(&self, id: &str, key: &Key) -> Option<Arc<Object>> {
        self.collections.get(id)?.objects.get(key).cloned()
    }

    /// Up to `limit` events after `revision`, and the revision up to which nothing more is known to have happened
    /// once they are seen.
    pub fn events(&self, id: &str, revision: u64, limit: usize) -> Result<Option<(Vec<Event>, u64)>, Gone> {
        let Some(collection) = self.collections.get(id) else { return Ok(None) };
        let events: Vec<Event> = collection.log.after(revision)?.take(limit).cloned().collect();
        let position = match events.last() {
            Some(last) if events.len() == limit => last.revision,
            _ => self.revision,
        };
        Ok(Some((events, position.max(revision))))
    }

    /// Forgets the history of every resource, as etcd's compaction does: older revisions are gone.
    pub fn compact(&mut self) {
        let revision = self.revision;
        self.collections.values_mut().for_each(|collection| collection.log.compact(revision));
    }

    /// Creates an object. Its namespace must exist and not be on its way out.
    pub fn create(
        &mut self,
        id: &ResourceId,
        value: Value,
        now: Now,
        dry: bool,
    ) -> Result<Arc<Object>, StoreError> {
        let collection = self.collections.get(id).ok_or_else(|| StoreError::NoResource(id.clone()))?;
        let key = key_of(&value);
        if collection.layout.namespaced {
            match self.get(NAMESPACES, &Key::new("", &*key.namespace)) {
                None => return Err(StoreError::NamespaceMissing(key.namespace)),
                Some(namespace) if namespace.meta.deleting => {
                    // An existing object is the more useful answer, and the one a real API server gives.
                    return Err(if collection.objects.contains_key(&key) {
                        StoreError::AlreadyExists(key)
                    } else {
                        StoreError::NamespaceTerminating(key.namespace)
                    });
                }
                Some(_) => {}
            }
        }
        if collection.objects.contains_key(&key) {
            return Err(StoreError::AlreadyExists(key));
        }
        if dry {
            return Ok(Arc::new(Object::unstamped(value)));
        }
        Ok(self.put(id, value, now))
    }

    /// Replaces an object whose revision is still `expected`. Writing what is there already changes nothing, not
    /// even the revision. An object that is being deleted and has lost its last finalizer is removed.
    pub fn update(
        &mut self,
        id: &ResourceId,
        expected: u64,
        value: Value,
        now: Now,
        dry: bool,
    ) -> Result<Written, StoreError> {
        let key = key_of(&value);
        let old = self.get(id, &key).ok_or_else(|| StoreError::NotFound(key.clone()))?;
        if old.meta.revision != expected {
            return Err(StoreError::Conflict(key));
        }
        let same = Object::stamp(value, old.meta.revision);
        if same.meta.deleting && same.meta.finalizers.is_empty() {
            if dry {
                return Ok(Written::Removed(Arc::new(same)));
            }
            return Ok(Written::Removed(self.take(id, same.value(), &old, now)));
        }
        if same.bytes == old.bytes {
            return Ok(Written::Kept(old));
        }
        if dry {
            return Ok(Written::Kept(Arc::new(same)));
        }
        Ok(Written::Kept(self.put(id, same.value(), now)))
    }

    /// Deletes an object, or marks it for deletion while finalizers hold it.
    pub fn delete(
        &mut self,
        id: &ResourceId,
        key: &Key,
        deletion: &Deletion,
        now: Now,
        dry: bool,
    ) -> Result<Written, StoreError> {
        let old = self.get(id, key).ok_or_else(|| StoreError::NotFound(key.clone()))?;
        if let Some(uid) = deletion.uid.as_ref().filter(|uid| **uid != old.meta.uid) {
            return Err(StoreError::Precondition(format!(
                "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have \
                 been deleted and then recreated",
                old.meta.uid
            )));
        }
        if let Some(revision) =
            deletion.revision.as_ref().filter(|revision| **revision != old.meta.revision.to_string())
        {
            return Err(StoreError::Precondition(format!(
                "the ResourceVersion in the precondition ({revision}) does not match the ResourceVersion in record \
                 ({}). The object might have been modified",
                old.meta.revision
            )));
        }
        let mut value = old.value();
        let mut finalizers = texts(&value, "/metadata/finalizers");
        if let Some(propagation) = deletion.propagation {
            finalizers.retain(|name| name != FOREGROUND && name != ORPHAN);
            match propagation {
                Propagation::Background => {}
                Propagation::Foreground => finalizers.push(FOREGROUND.to_owned()),
                Propagation::Orphan => finalizers.push(ORPHAN.to_owned()),
            }
        }
        if &**id == DEFINITIONS && !old.meta.deleting {
            // Its objects have to go before it does.
            finalizers.push(DEFINITION_FINALIZER.to_owned());
        }
        set_finalizers(&mut value, &finalizers);
        let held =
            !finalizers.is_empty() || !texts(&value, "/spec/finalizers").is_empty() && &**id == NAMESPACES;
        if !held {
            if dry {
                return Ok(Written::Removed(old));
            }
            return Ok(Written::Removed(self.take(id, value, &old, now)));
        }
        // The two that contain others have a way of their own on a real API server, which leaves these out.
        let container = matches!(&**id, NAMESPACES | DEFINITIONS);
        let counts = self.collections.get(id).is_some_and(|collection| collection.layout.generation);
        if !old.meta.deleting {
            let metadata = metadata_mut(&mut value);
            metadata.insert("deletionTimestamp".into(), now.timestamp().into());
            if !container {
                metadata.insert("deletionGracePeriodSeconds".into(), 0.into());
            }
            if counts && !container {
                let generation = metadata.get("generation").and_then(Value::as_i64).unwrap_or_default();
                metadata.insert("generation".into(), (generation + 1).into());
            }
            if &**id == NAMESPACES {
                value["status"]["phase"] = json!("Terminating");
            }
        }
        self.update(id, old.meta.revision, value, now, dry)
    }

    /// Does up to `budget` steps of the work that writes have left behind. Says whether more is left.
    pub fn collect(&mut self, now: Now, budget: usize) -> bool {
        for _ in 0..budget {
            if let Some(owner) = self.pending.owners.pop_first() {
                self.collect_owner(&owner, now);
            } else if let Some((id, key)) = self.pending.dependents.pop_first() {
                self.collect_dependent(&id, &key, now);
            } else if let Some(name) = self.pending.namespaces.pop_first() {
                self.collect_namespace(&name, now);
            } else if let Some(name) = self.pending.definitions.pop_first() {
                self.collect_definition(&name, now);
            } else {
                return false;
            }
        }
        self.has_pending()
    }

    /// Stores a new revision of an object and tells everybody.
    fn put(&mut self, id: &ResourceId, value: Value, now: Now) -> Arc<Object> {
        self.revision += 1;
        let object = Arc::new(Object::stamp(value, self.revision));
        let place = (id.clone(), object.key.clone());
        self.uids.insert(object.meta.uid.clone(), place.clone());
        let previous = match self.collections.get_mut(id) {
            Some(collection) => collection.objects.insert(object.key.clone(), object.clone()),
            None => return object,
        };
        self.index_owners(&place, previous.as_deref(), Some(&object));
        let change = if previous.is_some() { Change::Modified } else { Change::Added };
        if object.meta.owners.iter().any(|owner| !self.uids.contains_key(&owner.uid)) {
            self.pending.dependents.insert(place);
        }
        if object.meta.deleting {
            self.note_deleting(id, &object);
        }
        self.announce(id, change, object.clone(), previous, now);
        object
    }

    /// Removes an object whose last state is `value`.
    fn take(&mut self, id: &ResourceId, value: Value, old: &Arc<Object>, now: Now) -> Arc<Object> {
        self.revision += 1;
        let object = Arc::new(Object::stamp(value, self.revision));
        let place = (id.clone(), old.key.clone());
        self.uids.remove(&old.meta.uid);
        if let Some(collection) = self.collections.get_mut(id) {
            collection.objects.remove(&old.key);
        }
        self.index_owners(&place, Some(old), None);
        self.note_removed(id, old);
        self.announce(id, Change::Deleted, object.clone(), Some(old.clone()), now);
        object
    }

    fn announce(
        &mut self,
        id: &ResourceId,
        change: Change,
        object: Arc<Object>,
        previous: Option<Arc<Object>>,
        now: Now,
    ) {
        if &**id == DEFINITIONS {
            self.pending.changed_definitions.insert(object.key.name.clone());
        }
        let revision = self.revision;
        if let Some(collection) = self.collections.get_mut(id) {
            collection.log.push(Event { revision, change, object, previous, at: now.mono });
            collection.changed.send_replace(revision);
        }
    }

    fn index_owners(&mut self, place: &(ResourceId, Key), old: Option<&Object>, new: Option<&Object>) {
        for owner in old.into_iter().flat_map(|object| &object.meta.owners) {
            if let Some(referers) = self.dependents.get_mut(&owner.uid) {
                referers.remove(place);
                if referers.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
        for owner in new.into_iter().flat_map(|object| &object.meta.owners) {
            self.dependents.entry(owner.uid.clone()).or_default().insert(place.clone());
        }
    }
}

/// Sets `metadata.finalizers`, leaving the field out when there are none.
fn set_finalizers(value: &mut Value, finalizers: &[String]) {
    let metadata = metadata_mut(value);
    if finalizers.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".into(), json!(finalizers));
    }
}

#[cfg(test)]
mod tests;

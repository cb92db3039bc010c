//! Garbage collection by `ownerReferences`.
//!
//! An object goes when all owners it names are gone. Foreground deletion keeps the owner until the dependents that
//! block it are gone; orphaning takes the references away instead. Which work there is follows from writes, so
//! nothing is scanned: `Store` indexes dependents by the uid they name.

use std::sync::Arc;

use serde_json::Value;

use super::{
    DEFINITION_FINALIZER, DEFINITIONS, Deletion, FOREGROUND, Key, NAMESPACES, ORPHAN, Object, Propagation,
    ResourceId, Store, metadata_mut, set_finalizers, texts,
};
use crate::store::Now;

impl Store {
    /// An object entered deletion or changed while in it: whoever has to act on that is queued.
    pub(super) fn note_deleting(&mut self, id: &ResourceId, object: &Object) {
        let has = |name: &str| object.meta.finalizers.iter().any(|finalizer| finalizer == name);
        if has(FOREGROUND) || has(ORPHAN) {
            self.pending.owners.insert(object.meta.uid.clone());
        }
        if &**id == NAMESPACES {
            self.pending.namespaces.insert(object.key.name.clone());
        }
        if &**id == DEFINITIONS && has(DEFINITION_FINALIZER) {
            self.pending.definitions.insert(object.key.name.clone());
        }
    }

    /// An object is gone: its dependents, and owners, its namespace and its definition that wait, are queued.
    pub(super) fn note_removed(&mut self, id: &ResourceId, old: &Object) {
        if self.dependents.contains_key(&old.meta.uid) {
            self.pending.owners.insert(old.meta.uid.clone());
        }
        for owner in &old.meta.owners {
            if self.owner(&owner.uid).is_some_and(|owner| owner.meta.deleting) {
                self.pending.owners.insert(owner.uid.clone());
            }
        }
        let namespace = Key::new("", &*old.key.namespace);
        if self.get(NAMESPACES, &namespace).is_some_and(|namespace| namespace.meta.deleting) {
            self.pending.namespaces.insert(namespace.name);
        }
        let definition = Key::new("", &**id);
        if self.get(DEFINITIONS, &definition).is_some_and(|definition| definition.meta.deleting) {
            self.pending.definitions.insert(definition.name);
        }
    }

    fn owner(&self, uid: &str) -> Option<Arc<Object>> {
        let (id, key) = self.uids.get(uid)?;
        self.get(id, key)
    }

    /// Acts on the dependents of an owner that is gone, or that is being deleted in the foreground or orphaning.
    pub(super) fn collect_owner(&mut self, uid: &str, now: Now) {
        let places: Vec<(ResourceId, Key)> =
            self.dependents.get(uid).into_iter().flatten().cloned().collect();
        let Some((owner_id, owner_key)) = self.uids.get(uid).cloned() else {
            self.pending.dependents.extend(places);
            return;
        };
        let Some(owner) = self.get(&owner_id, &owner_key).filter(|owner| owner.meta.deleting) else { return };
        let has = |name: &str| owner.meta.finalizers.iter().any(|finalizer| finalizer == name);
        if has(ORPHAN) {
            for (id, key) in places {
                self.drop_references(&id, &key, now, |named| named == uid);
            }
            self.drop_finalizer(&owner_id, &owner, ORPHAN, now);
        } else if has(FOREGROUND) {
            let mut waiting = false;
            for (id, key) in places {
                let Some(dependent) = self.get(&id, &key) else { continue };
                let blocks =
                    dependent.meta.owners.iter().any(|owner| owner.uid == uid && owner.blocks_deletion);
                if dependent.meta.deleting {
                    waiting |= blocks;
                    continue;
                }
                let solid = dependent.meta.owners.iter().any(|other| {
                    other.uid != uid && self.owner(&other.uid).is_some_and(|other| !other.meta.deleting)
                });
                if solid {
                    self.drop_references(&id, &key, now, |named| named == uid);
                    continue;
                }
                let deletion = Deletion { propagation: Some(Propagation::Foreground), ..Deletion::default() };
                // Not found cannot be: it was read on the lines above.
                let _ = self.delete(&id, &key, &deletion, now, false);
                waiting |= blocks && self.get(&id, &key).is_some();
            }
            if !waiting {
                self.drop_finalizer(&owner_id, &owner, FOREGROUND, now);
            }
        }
    }

    /// Deletes an object none of whose owners exists; takes references to missing owners from one that has others.
    pub(super) fn collect_dependent(&mut self, id: &ResourceId, key: &Key, now: Now) {
        let Some(object) = self.get(id, key).filter(|object| !object.meta.owners.is_empty()) else { return };
        let missing: Vec<String> = object
            .meta
            .owners
            .iter()
            .map(|owner| owner.uid.clone())
            .filter(|uid| !self.uids.contains_key(uid))
            .collect();
        if missing.len() == object.meta.owners.len() {
            if !object.meta.deleting {
                // Not found cannot be: it was read on the lines above.
                let _ = self.delete(id, key, &Deletion::default(), now, false);
            }
        } else if !missing.is_empty() {
            self.drop_references(id, key, now, |uid| missing.iter().any(|gone| gone == uid));
        }
    }

    fn drop_references(&mut self, id: &ResourceId, key: &Key, now: Now, gone: impl Fn(&str) -> bool) {
        let Some(object) = self.get(id, key) else { return };
        let mut value = object.value();
        let metadata = metadata_mut(&mut value);
        if let Some(Value::Array(references)) = metadata.get_mut("ownerReferences") {
            references.retain(|owner| !owner.get("uid").and_then(Value::as_str).is_some_and(&gone));
            if references.is_empty() {
                metadata.remove("ownerReferences");
            }
        }
        // A conflict cannot be: the revision was read on the lines above.
        let _ = self.update(id, object.meta.revision, value, now, false);
    }

    /// Takes one finalizer from an object, which may remove it.
    pub(super) fn drop_finalizer(&mut self, id: &ResourceId, object: &Object, finalizer: &str, now: Now) {
        let mut value = object.value();
        let mut finalizers = texts(&value, "/metadata/finalizers");
        finalizers.retain(|name| name != finalizer);
        set_finalizers(&mut value, &finalizers);
        // A conflict cannot be: the caller has just read the object under the same lock.
        let _ = self.update(id, object.meta.revision, value, now, false);
    }
}

//! Deleting what contains objects: namespaces and resource definitions.
//!
//! Both stay while they have contents. Contents are deleted in portions, so that a large namespace does not hold
//! the store for long; whatever a finalizer of the contents keeps, keeps the container, too.

use std::sync::Arc;

use serde_json::Value;

use super::{DEFINITION_FINALIZER, DEFINITIONS, Deletion, Key, NAMESPACES, Now, Object, ResourceId, Store};

/// How many objects one step deletes.
const PORTION: usize = 64;

impl Store {
    /// Deletes a portion of a namespace's contents; ends the namespace when there is nothing left.
    pub(super) fn collect_namespace(&mut self, name: &str, now: Now) {
        let key = Key::new("", name);
        let Some(namespace) = self.get(NAMESPACES, &key).filter(|namespace| namespace.meta.deleting) else {
            return;
        };
        let ids: Vec<ResourceId> = self
            .collections
            .iter()
            .filter(|(_, collection)| collection.layout.namespaced)
            .map(|(id, _)| id.clone())
            .collect();
        let (mut left, mut budget) = (false, PORTION);
        for id in ids {
            let contents = self.contents(&id, Some(name));
            left |= !contents.is_empty();
            if self.delete_portion(&id, contents, &mut budget, now) {
                self.pending.namespaces.insert(name.to_owned());
                return;
            }
        }
        if left {
            // What is left either was removed just now, which has queued this namespace again, or is held by
            // finalizers, and its removal will queue it.
            return;
        }
        let mut value = namespace.value();
        if let Some(Value::Object(spec)) = value.get_mut("spec")
            && let Some(Value::Array(finalizers)) = spec.get_mut("finalizers")
        {
            finalizers.retain(|finalizer| finalizer != "kubernetes");
            if finalizers.is_empty() {
                spec.remove("finalizers");
            }
        }
        // A conflict cannot be: the namespace was read under the same lock.
        let _ = self.update(&NAMESPACES.into(), namespace.meta.revision, value, now, false);
    }

    /// Deletes a portion of a definition's objects; ends the definition when there are none left.
    pub(super) fn collect_definition(&mut self, name: &str, now: Now) {
        let Some(definition) = self.get(DEFINITIONS, &Key::new("", name)).filter(|found| found.meta.deleting)
        else {
            return;
        };
        let id: ResourceId = name.into();
        let contents = self.contents(&id, None);
        if contents.is_empty() {
            self.drop_finalizer(&DEFINITIONS.into(), &definition, DEFINITION_FINALIZER, now);
            return;
        }
        let mut budget = PORTION;
        if self.delete_portion(&id, contents, &mut budget, now) {
            self.pending.definitions.insert(name.to_owned());
        }
    }

    fn contents(&self, id: &str, namespace: Option<&str>) -> Vec<Arc<Object>> {
        let Some(collection) = self.collections.get(id) else { return Vec::new() };
        let first = Key::new(namespace.unwrap_or_default(), "");
        collection
            .objects
            .range(first..)
            .take_while(|(key, _)| namespace.is_none_or(|namespace| key.namespace == namespace))
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// Deletes objects that are not being deleted yet while `budget` lasts. Says whether any are left.
    fn delete_portion(
        &mut self,
        id: &ResourceId,
        objects: Vec<Arc<Object>>,
        budget: &mut usize,
        now: Now,
    ) -> bool {
        for object in objects.into_iter().filter(|object| !object.meta.deleting) {
            if *budget == 0 {
                return true;
            }
            *budget -= 1;
            // Not found cannot be: it was read under the same lock, and nothing else is removed in between.
            let _ = self.delete(id, &object.key, &Deletion::default(), now, false);
        }
        false
    }
}

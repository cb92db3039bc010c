//! Going back to an earlier state, as when etcd is restored from a backup: revisions that were used are used again,
//! for other contents, and nobody is told what became of what is no more.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{DEFINITIONS, Key, Layout, Object, ResourceId, Store};

/// Everything that a store holds at one revision, without its history.
#[derive(Clone, Debug)]
pub struct Backup {
    revision: u64,
    resources: BTreeMap<ResourceId, (Layout, Vec<Arc<Object>>)>,
}

impl Store {
    /// What there is now. It costs little: objects are shared.
    pub fn backup(&self) -> Backup {
        let resources = self.collections.iter().map(|(id, collection)| {
            (id.clone(), (collection.layout, collection.objects.values().cloned().collect()))
        });
        Backup { revision: self.revision, resources: resources.collect() }
    }

    /// Forgets everything and holds what there was then. Watches end, and what was before that revision is gone.
    pub fn restore(&mut self, backup: &Backup) {
        let mut store = Store { revision: backup.revision, ..Store::new(self.history) };
        // The registry looks again at all definitions of both histories.
        for definitions in [self.keys(DEFINITIONS), backup.keys(DEFINITIONS)] {
            store.pending.changed_definitions.extend(definitions.into_iter().map(|key| key.name));
        }
        for (id, (layout, objects)) in &backup.resources {
            store.open(id, *layout);
            for object in objects {
                let place = (id.clone(), object.key.clone());
                store.uids.insert(object.meta.uid.clone(), place.clone());
                store.index_owners(&place, None, Some(object));
                if let Some(collection) = store.collections.get_mut(id) {
                    collection.objects.insert(object.key.clone(), object.clone());
                }
                if object.meta.deleting {
                    store.note_deleting(id, object);
                }
            }
        }
        *self = store;
    }

    fn keys(&self, id: &str) -> Vec<Key> {
        self.collections.get(id).map(|found| found.objects.keys().cloned().collect()).unwrap_or_default()
    }
}

impl Backup {
    /// The revision at which it was made.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    fn keys(&self, id: &str) -> Vec<Key> {
        self.resources
            .get(id)
            .map(|(_, objects)| objects.iter().map(|object| object.key.clone()).collect())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use serde_json::json;

    use super::*;
    use crate::store::{Change, Gone, NAMESPACES, Now};

    #[test]
    fn a_restored_store_uses_revisions_again_and_has_no_history() {
        let now = Now { wall: jiff::Timestamp::UNIX_EPOCH, mono: Instant::now() };
        let mut store = Store::new(10);
        let id: ResourceId = NAMESPACES.into();
        store.open(&id, Layout { namespaced: false, generation: false });
        let namespace = |name: &str| json!({"kind": "Namespace", "metadata": {"name": name, "uid": name}});
        store.create(&id, namespace("a"), now, false).unwrap();
        let backup = store.backup();
        let watched = store.subscribe(&id).unwrap();
        let lost = store.create(&id, namespace("b"), now, false).unwrap();
        store.restore(&backup);
        assert!(watched.has_changed().is_err(), "watches end");
        assert_eq!(store.revision(), backup.revision());
        assert_eq!(store.get(&id, &Key::new("", "b")).map(|_| ()), None);
        let other = store.create(&id, namespace("c"), now, false).unwrap();
        assert_eq!(other.meta.revision, lost.meta.revision);
        assert_eq!(store.events(&id, 1, 10).err(), Some(Gone { asked: 1, floor: backup.revision() }));
        let after = store.events(&id, backup.revision(), 10).unwrap().unwrap().0;
        assert_eq!(after.iter().map(|event| event.change).collect::<Vec<_>>(), [Change::Added]);
    }
}

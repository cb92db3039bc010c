//! A model of the API server: Leases and the map with compare-and-swap, one
//! revision for everything. It checks what must be true of every published map.

use std::collections::BTreeMap;
use std::sync::Arc;

use flotilla_core::coordination::{
    LeaseList, LeaseName, LeaseRecord, LeaseWrite, MapRecord, MapWrite, Precondition, RequestError,
};
use flotilla_core::ids::{Epoch, Revision};
use flotilla_core::shardmap::OperatorSpec;
use flotilla_core::time::Mono;

/// What a watch shows.
#[derive(Debug, Clone)]
pub enum Change {
    Lease(LeaseName, LeaseRecord),
    LeaseDeleted(LeaseName, Revision),
    Map(MapRecord),
    MapDeleted(Revision),
}

#[derive(Debug)]
pub struct Server {
    revision: u64,
    uids: u64,
    leases: BTreeMap<LeaseName, LeaseRecord>,
    map: Option<MapRecord>,
    highest: Epoch,
    published: u64,
    /// Changes that no watch has taken yet.
    changes: Vec<Change>,
}

impl Server {
    pub fn new(revision: u64) -> Self {
        Server {
            revision,
            uids: 0,
            leases: BTreeMap::new(),
            map: None,
            highest: Epoch(0),
            published: 0,
            changes: Vec::new(),
        }
    }

    pub fn map(&self) -> Option<&MapRecord> {
        self.map.as_ref()
    }

    pub fn leases(&self) -> &BTreeMap<LeaseName, LeaseRecord> {
        &self.leases
    }

    /// How many maps have been published.
    pub fn published(&self) -> u64 {
        self.published
    }

    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    fn next_revision(&mut self) -> Revision {
        self.revision += 1;
        Revision(self.revision)
    }

    fn next_uid(&mut self) -> Arc<str> {
        self.uids += 1;
        format!("uid-{}", self.uids).into()
    }

    pub fn list(&self, sent_at: Mono) -> LeaseList {
        let leases = self.leases.iter().map(|(name, record)| (name.clone(), record.clone())).collect();
        LeaseList { sent_at, revision: Revision(self.revision), leases }
    }

    pub fn lease(&self, name: &LeaseName) -> Option<LeaseRecord> {
        self.leases.get(name).cloned()
    }

    pub fn write_lease(
        &mut self,
        name: &LeaseName,
        write: LeaseWrite,
    ) -> Result<Option<LeaseRecord>, RequestError> {
        let uid = match (&write.precondition, self.leases.get(name)) {
            (Precondition::Absent, None) => self.next_uid(),
            (Precondition::Unchanged { uid, revision }, Some(known))
                if known.uid == *uid && known.revision == *revision =>
            {
                uid.clone()
            }
            _ => return Err(RequestError::Conflict),
        };
        let record = LeaseRecord { uid, revision: self.next_revision(), content: write.content };
        self.leases.insert(name.clone(), record.clone());
        self.changes.push(Change::Lease(name.clone(), record.clone()));
        Ok(Some(record))
    }

    /// Deletes a Lease, if it is still this one when `only` says which.
    pub fn delete_lease(&mut self, name: &LeaseName, only: Option<Revision>) {
        let found = self.leases.get(name).is_some_and(|known| only.is_none_or(|only| known.revision == only));
        if found {
            self.leases.remove(name);
            let revision = self.next_revision();
            self.changes.push(Change::LeaseDeleted(name.clone(), revision));
        }
    }

    /// Someone edits a Lease without meaning anything by it.
    pub fn touch_lease(&mut self, name: &LeaseName) {
        let revision = self.next_revision();
        if let Some(record) = self.leases.get_mut(name) {
            record.revision = revision;
            self.changes.push(Change::Lease(name.clone(), record.clone()));
        }
    }

    pub fn write_map(&mut self, write: MapWrite) -> Result<MapRecord, RequestError> {
        let record = match (write, &self.map) {
            (MapWrite::Create, None) => MapRecord {
                uid: self.next_uid(),
                revision: self.next_revision(),
                spec: OperatorSpec { virtual_nodes: 16, ..OperatorSpec::default() },
                published: None,
                in_step: false,
            },
            (MapWrite::Publish { uid, revision, map }, Some(known))
                if known.uid == uid && known.revision == revision =>
            {
                assert!(map.epoch > self.highest, "epoch {} follows {}", map.epoch, self.highest);
                self.highest = map.epoch;
                self.published += 1;
                MapRecord {
                    uid,
                    spec: known.spec.clone(),
                    published: Some(map),
                    in_step: true,
                    revision: self.next_revision(),
                }
            }
            _ => return Err(RequestError::Conflict),
        };
        self.map = Some(record.clone());
        self.changes.push(Change::Map(record.clone()));
        Ok(record)
    }

    pub fn delete_map(&mut self) {
        if self.map.take().is_some() {
            let revision = self.next_revision();
            self.changes.push(Change::MapDeleted(revision));
        }
    }

    /// Operators change the spec.
    pub fn edit_map(&mut self, edit: impl FnOnce(&mut OperatorSpec)) {
        let revision = self.next_revision();
        if let Some(record) = &mut self.map {
            edit(&mut record.spec);
            record.in_step = false;
            record.revision = revision;
            self.changes.push(Change::Map(record.clone()));
        }
    }
}

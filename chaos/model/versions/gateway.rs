//! A gateway as far as versions matter: what it holds, and what comes its way.

use std::collections::VecDeque;
use std::sync::Arc;

use flotilla_core::delivery::{Batch, Change};
use flotilla_core::ids::SessionId;
use flotilla_core::object::Resource;

use super::model::{Log, object_of};

/// See the module's description.
#[derive(Debug, Clone, Default)]
pub struct Gateway {
    /// Per object the revision of what it holds.
    pub holds: Vec<Option<u64>>,
    /// Per object the revision of the last that it took, deletions included.
    pub newest: Vec<u64>,
    /// The version that it was given last.
    pub version: Arc<str>,
    /// The replica that it is connected to.
    pub at: Option<usize>,
    /// Its session there.
    pub session: Option<SessionId>,
    /// Messages on their way to it: a batch and which of its updates.
    pub wire: VecDeque<(Arc<Batch>, usize)>,
    /// Acknowledgements on their way back.
    pub acks: VecDeque<Arc<str>>,
}

impl Gateway {
    /// The connection is gone, and with it what was on its way.
    pub fn cut(&mut self) {
        self.at = None;
        self.session = None;
        self.wire.clear();
        self.acks.clear();
    }

    /// Takes the next message. Says what it broke, if anything.
    pub fn take(&mut self, log: &Log) -> Option<&'static str> {
        let (batch, index) = self.wire.pop_front()?;
        let update = batch.updates.get(index)?;
        let mut broken = None;
        match &update.change {
            Change::Upsert { resource, .. } => broken = self.upsert(resource),
            Change::Delete { key, .. } => {
                if let Some(object) = object_of(key) {
                    broken = self.remove(object, log);
                }
            }
            Change::FullSync(snapshot) => {
                let listed: Vec<usize> =
                    snapshot.resources.iter().filter_map(|resource| object_of(&resource.key)).collect();
                for object in (0..self.holds.len()).filter(|object| !listed.contains(object)) {
                    broken = broken.or(self.remove(object, log));
                }
                for resource in &snapshot.resources {
                    broken = broken.or(self.upsert(resource));
                }
            }
            Change::Reset | Change::Heartbeat => {}
        }
        self.version = update.version.clone();
        self.acks.push_back(update.version.clone());
        broken
    }

    fn upsert(&mut self, resource: &Resource) -> Option<&'static str> {
        let object = object_of(&resource.key)?;
        let revision = std::str::from_utf8(&resource.spec_json).ok()?.parse().ok()?;
        let older = revision < self.newest[object];
        self.newest[object] = revision;
        self.holds[object] = Some(revision);
        older.then_some("I2: an object on a gateway went back")
    }

    fn remove(&mut self, object: usize, log: &Log) -> Option<&'static str> {
        let held = self.holds[object].take()?;
        match log.deletion_after(object, held) {
            Some(revision) => {
                self.newest[object] = revision;
                None
            }
            None => Some("I4: a deletion that nobody asked for reached a gateway"),
        }
    }
}

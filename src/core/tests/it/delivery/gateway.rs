//! A gateway as the wire page describes the real one, written without a look
//! at the engine: it skips sequences, guards itself against shrinking and
//! emptying, rejects what it cannot load, and remembers its version.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use flotilla_core::delivery::{Change, Snapshot, Update};
use flotilla_core::digest::digest_of;
use flotilla_core::ids::{Kind, ObjectKey};
use flotilla_core::object::Resource;
use flotilla_core::time::Mono;

const GUARD: Duration = Duration::from_secs(30);

/// What kinds of specs a gateway chokes on.
pub const UNDECODABLE: &str = "undecodable";
pub const POISON: &str = "poison";

pub type Key = (Kind, ObjectKey);

/// What became of an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Its sequence was old: no acknowledgement.
    Skipped,
    Acked,
    /// Acknowledged as a success, and nothing was done.
    IgnoredByGuard,
    Nacked(&'static str),
}

/// Something that must never be seen, whatever happens around.
pub type Violation = String;

#[derive(Debug, Default)]
pub struct Gateway {
    pub version: String,
    pub sequence: i64,
    pub registered: Mono,
    pub table: BTreeMap<Key, Arc<Resource>>,
    /// Those in the table that cannot be loaded.
    poisoned: BTreeSet<Key>,
    /// The newest content taken of each object: uid's number and generation.
    newest: BTreeMap<Key, (u64, i64)>,
    /// What a message removed, for the test to judge.
    pub removed: Vec<(Arc<Resource>, bool)>,
    pub violations: Vec<Violation>,
    /// Updates processed, by what they were.
    pub increments: usize,
    pub fulls: usize,
    pub nacks: usize,
}

impl Gateway {
    /// Its process starts again: everything is gone, as it keeps nothing on disk.
    pub fn restart(&mut self) {
        let violations = std::mem::take(&mut self.violations);
        *self = Gateway { violations, ..Gateway::default() };
    }

    pub fn registers(&mut self, now: Mono) {
        self.registered = now;
    }

    pub fn takes(&mut self, now: Mono, update: &Update, sequence: i64) -> Answer {
        match &update.change {
            Change::FullSync(snapshot) => return self.takes_snapshot(now, update, snapshot, sequence),
            Change::Reset => {
                self.sequence = sequence;
                self.version = update.version.to_string();
                return Answer::Acked;
            }
            _ if sequence <= self.sequence => return Answer::Skipped,
            Change::Heartbeat => {}
            Change::Upsert { resource, .. } => {
                self.increments += 1;
                if holds(resource, UNDECODABLE) {
                    return self.nack("cannot decode spec");
                }
                self.insert(resource);
                if self.broken(resource.kind.is_route()) {
                    return self.nack("cannot load");
                }
            }
            Change::Delete { kind, key } => {
                self.increments += 1;
                self.poisoned.remove(&(*kind, key.clone()));
                if let Some(gone) = self.table.remove(&(*kind, key.clone())) {
                    self.removed.push((gone, false));
                }
                if self.broken(kind.is_route()) {
                    return self.nack("cannot load");
                }
            }
        }
        if let Change::Upsert { resource, .. } = &update.change {
            self.check_newer(resource);
        }
        self.sequence = sequence;
        self.version = update.version.to_string();
        Answer::Acked
    }

    fn takes_snapshot(&mut self, now: Mono, update: &Update, snapshot: &Snapshot, sequence: i64) -> Answer {
        self.fulls += 1;
        let count = snapshot.resources.len() + snapshot.padding.len();
        let guarded = now.since(self.registered) < GUARD && count < self.table.len();
        if guarded || (count == 0 && !self.table.is_empty()) {
            self.sequence = sequence;
            self.version = update.version.to_string();
            return Answer::IgnoredByGuard;
        }
        let before = std::mem::take(&mut self.table);
        self.poisoned.clear();
        // What cannot be decoded vanishes, with success.
        let decoded = snapshot.resources.iter().filter(|resource| !holds(resource, UNDECODABLE));
        decoded.for_each(|resource| self.insert(resource));
        for (key, gone) in before {
            if !self.table.contains_key(&key) {
                self.removed.push((gone, true));
            }
        }
        if self.broken(true) || self.broken(false) {
            return self.nack("cannot load snapshot");
        }
        for resource in self.table.values().cloned().collect::<Vec<_>>() {
            self.check_newer(&resource);
        }
        self.sequence = sequence;
        self.version = update.version.to_string();
        Answer::Acked
    }

    fn nack(&mut self, message: &'static str) -> Answer {
        self.nacks += 1;
        Answer::Nacked(message)
    }

    fn insert(&mut self, resource: &Arc<Resource>) {
        let key = (resource.kind, resource.key.clone());
        if holds(resource, POISON) {
            self.poisoned.insert(key.clone());
        } else {
            self.poisoned.remove(&key);
        }
        self.table.insert(key, resource.clone());
    }

    /// Whether routes (or backends) cannot be loaded.
    pub fn broken(&self, routes: bool) -> bool {
        self.poisoned.iter().any(|(kind, _)| kind.is_route() == routes)
    }

    fn check_newer(&mut self, resource: &Resource) {
        let uid: u64 = resource.uid.trim_start_matches('u').parse().unwrap();
        let content = (uid, resource.generation);
        let newest = self.newest.entry((resource.kind, resource.key.clone())).or_default();
        if content < *newest {
            self.violations.push(format!("{} went back from {newest:?} to {content:?}", resource.key));
        }
        *newest = content;
    }

    pub fn digest(&self) -> String {
        digest_of(self.table.iter().map(|((kind, key), r)| (*kind, key, r.spec_json.as_ref())))
    }
}

fn holds(resource: &Resource, what: &str) -> bool {
    std::str::from_utf8(&resource.spec_json).unwrap().contains(what)
}

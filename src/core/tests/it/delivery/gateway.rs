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
    Nacked(String),
}

/// Something that must never be seen, whatever happens around.
pub type Violation = String;

#[derive(Debug, Default)]
pub struct Gateway {
    pub version: String,
    pub sequence: i64,
    /// It does not name what it rejects.
    pub mute: bool,
    /// It rejects every snapshot, whatever is in it.
    pub sick: bool,
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
        *self = Gateway { violations, mute: self.mute, ..Gateway::default() };
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
                    return self.nack("decode", &(resource.kind, resource.key.clone()));
                }
                self.insert(resource);
                // It is held, whether it can be loaded or not.
                self.check_newer(resource);
                if let Some(bad) = self.first_bad(resource.kind.is_route()) {
                    return self.nack("load", &bad);
                }
            }
            Change::Delete { kind, key } => {
                self.increments += 1;
                self.poisoned.remove(&(*kind, key.clone()));
                if let Some(gone) = self.table.remove(&(*kind, key.clone())) {
                    self.removed.push((gone, false));
                }
                if let Some(bad) = self.first_bad(kind.is_route()) {
                    return self.nack("load", &bad);
                }
            }
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
        for resource in self.table.values().cloned().collect::<Vec<_>>() {
            self.check_newer(&resource);
        }
        if let Some(bad) = self.first_bad(true).or_else(|| self.first_bad(false)) {
            return self.nack("load", &bad);
        }
        if self.sick {
            return Answer::Nacked("no memory".into());
        }
        self.sequence = sequence;
        self.version = update.version.to_string();
        Answer::Acked
    }

    /// What it says names the bad one first, as the published gateway does.
    fn nack(&mut self, what: &str, (kind, key): &Key) -> Answer {
        self.nacks += 1;
        Answer::Nacked(if self.mute {
            format!("cannot {what}")
        } else {
            format!("failed to {what} {kind} {key}: it cannot be used; see n0/o0")
        })
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
        self.first_bad(routes).is_some()
    }

    fn first_bad(&self, routes: bool) -> Option<Key> {
        self.poisoned.iter().find(|(kind, _)| kind.is_route() == routes).cloned()
    }

    /// A content that cannot be loaded is never in force: to put back what was
    /// before it is what a gateway needs.
    fn check_newer(&mut self, resource: &Resource) {
        if holds(resource, POISON) {
            return;
        }
        let uid: u64 = resource.uid.trim_start_matches('u').parse().unwrap();
        let content = (uid, resource.generation);
        let newest = self.newest.entry((resource.kind, resource.key.clone())).or_default();
        if content < *newest {
            // Without a word about the bad one, all that came with it is put
            // back, once.
            if !self.mute || self.nacks == 0 {
                self.violations.push(format!("{} went back from {newest:?} to {content:?}", resource.key));
            }
        }
        *newest = content.max(*newest);
    }

    pub fn digest(&self) -> String {
        digest_of(self.table.iter().map(|((kind, key), r)| (*kind, key, r.spec_json.as_ref())))
    }
}

fn holds(resource: &Resource, what: &str) -> bool {
    std::str::from_utf8(&resource.spec_json).unwrap().contains(what)
}

//! What a gateway holds, and what an update does to it: the rules of wire §2
//! points 6 to 13, without IO and without a clock.
//!
//! The rules are the published gateway's, with its sharp edges: a full
//! synchronisation that a guard ignores is acknowledged with success, a bad
//! route takes those after it out of service, an update with an old sequence
//! is skipped in silence. A controller that keeps this gateway right keeps the
//! published one right.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use flotilla_core::ids::Kind;
use flotilla_core::time::Mono;

use crate::held::{HeldSet, Loading};
use crate::resource::{Incoming, Resource, ResourcePool};
use crate::stats::Stats;

/// For how long after a registration a shrinking full synchronisation is
/// ignored.
pub const SHRINK_GUARD: Duration = Duration::from_secs(30);

/// One update of the stream.
#[derive(Debug, Clone)]
pub struct Update {
    /// The version that the gateway has after it.
    pub version: String,
    /// Its place in the order of updates.
    pub sequence: i64,
    /// What it changes.
    pub change: Change,
}

/// What an update changes.
#[derive(Debug, Clone)]
pub enum Change {
    /// ADDED or MODIFIED: both add or replace.
    Upsert(Incoming),
    /// DELETED.
    Delete(Incoming),
    /// FULL_SYNC; without a snapshot it sets sequence and version.
    FullSync(Option<Snapshot>),
    /// HEARTBEAT, an increment without a resource, or a type that this gateway
    /// does not know: sets sequence and version.
    Nothing,
}

/// Everything a gateway is to hold, in the order of the snapshot's lists.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The resources of all lists, entries without spec and kinds that are
    /// not held included: the guards count them.
    pub resources: Vec<Incoming>,
}

/// How an update is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged with success.
    Ack,
    /// Acknowledged with this error.
    Nack(String),
    /// Not answered at all: its sequence is not above the last one.
    Skipped,
}

/// Why a full synchronisation was ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// It has no entries and something is held.
    Empty,
    /// It has fewer entries than are held, less than 30 s after a
    /// registration.
    Shrinking,
}

/// What an update did.
#[derive(Debug)]
pub struct Applied {
    /// How it is answered.
    pub outcome: Outcome,
    /// The guard that ignored it.
    pub guard: Option<Guard>,
    /// What is held differently now.
    pub differences: Vec<Difference>,
    /// Whether routes were loaded anew.
    pub routes_loaded: bool,
    /// Whether backends were loaded anew: they forget what they knew.
    pub backends_loaded: bool,
}

/// One resource that is held differently now.
#[derive(Debug, Clone)]
pub enum Difference {
    /// It was not held before.
    Added(Arc<Resource>),
    /// It was held with other content.
    Modified(Arc<Resource>),
    /// It is not held any more. This is what it was.
    Removed(Arc<Resource>),
}

impl Difference {
    /// The resource, as it is now or was last.
    pub fn resource(&self) -> &Arc<Resource> {
        match self {
            Difference::Added(resource) | Difference::Modified(resource) | Difference::Removed(resource) => {
                resource
            }
        }
    }
}

/// What one gateway holds, from its start to its end.
#[derive(Debug)]
pub struct State {
    pool: Arc<ResourcePool>,
    sets: [HeldSet; Kind::COUNT],
    version: Arc<str>,
    sequence: i64,
    registered: Option<Mono>,
    /// Highest generation ever held, keyed by a hash of kind and uid; never
    /// forgotten, since an object that comes back older than it was is what
    /// this is there to notice.
    generations: HashMap<u64, Seen>,
    hasher: RandomState,
    /// Counts what [`State::apply`] sees; the client counts the rest.
    pub stats: Stats,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    generation: i64,
    removed: bool,
}

/// The order in which a full synchronisation is loaded.
const LOADING_ORDER: [Kind; Kind::COUNT] =
    [Kind::ApiRoute, Kind::Backend, Kind::GrpcRoute, Kind::GrpcBackend];

impl State {
    /// A gateway that has just started: it holds nothing and has no version.
    pub fn new(pool: Arc<ResourcePool>) -> Self {
        let loading =
            |kind: Kind| if kind.is_route() { Loading::UpToTheFirstBad } else { Loading::AllOrNone };
        State {
            pool,
            sets: Kind::ALL.map(|kind| HeldSet::new(loading(kind))),
            version: Arc::from(""),
            sequence: 0,
            registered: None,
            generations: HashMap::new(),
            hasher: RandomState::new(),
            stats: Stats::default(),
        }
    }

    /// The version of the last update that was taken; empty after the start.
    pub fn version(&self) -> &Arc<str> {
        &self.version
    }

    /// The sequence of the last update that was taken.
    pub fn sequence(&self) -> i64 {
        self.sequence
    }

    /// How many resources are held, all kinds together.
    pub fn held_count(&self) -> usize {
        self.sets.iter().map(HeldSet::len).sum()
    }

    /// How many resources of a kind are held.
    pub fn held_of(&self, kind: Kind) -> usize {
        self.sets[kind.index()].len()
    }

    /// Everything held, by kind and key.
    pub fn held(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.sets.iter().flat_map(|set| set.held().values())
    }

    /// What is in force of one kind, in no particular order.
    pub fn loaded(&self, kind: Kind) -> impl Iterator<Item = &Arc<Resource>> {
        self.sets[kind.index()].loaded()
    }

    /// Whether everything held is in force.
    pub fn fully_loaded(&self) -> bool {
        self.sets.iter().all(HeldSet::fully_loaded)
    }

    /// The gateway has registered successfully: the guard against shrinking
    /// counts from here.
    pub fn registered(&mut self, now: Mono) {
        self.registered = Some(now);
        self.stats.registrations += 1;
    }

    /// A controller has opened a session to push updates in: a registration, after
    /// which sequences count anew.
    pub fn opened(&mut self, now: Mono) {
        self.registered(now);
        self.sequence = 0;
    }

    /// The snapshot that came with the registration: applied under the same
    /// guards, never acknowledged, and without a version.
    pub fn apply_initial(&mut self, snapshot: Snapshot, now: Mono) -> Applied {
        self.full_sync(snapshot, now)
    }

    /// Applies one update of the stream.
    pub fn apply(&mut self, update: Update, now: Mono) -> Applied {
        self.stats.updates += 1;
        let full_sync = matches!(update.change, Change::FullSync(_));
        if update.sequence <= self.sequence && !full_sync {
            self.stats.skipped += 1;
            return Applied::answered(Outcome::Skipped);
        }
        let applied = match update.change {
            Change::Upsert(incoming) => self.upsert(&incoming),
            Change::Delete(incoming) => self.delete(&incoming),
            Change::FullSync(Some(snapshot)) => self.full_sync(snapshot, now),
            Change::FullSync(None) | Change::Nothing => Applied::answered(Outcome::Ack),
        };
        if applied.outcome == Outcome::Ack {
            self.version = Arc::from(update.version);
            self.sequence = update.sequence;
            self.stats.acks += 1;
        } else {
            self.stats.nacks += 1;
        }
        applied
    }

    fn upsert(&mut self, incoming: &Incoming) -> Applied {
        // A kind that is not held is accepted and comes to nothing, as with a
        // gateway that is older than the kind.
        let Some(kind) = incoming.kind else { return Applied::answered(Outcome::Ack) };
        let resource = match self.pool.intern(incoming, kind) {
            Ok(resource) => resource,
            Err(undecodable) => return Applied::answered(Outcome::Nack(undecodable.to_string())),
        };
        self.see(&resource);
        let (old, result) = self.sets[kind.index()].upsert(resource.clone());
        let difference = match old {
            None => Some(Difference::Added(resource)),
            Some(old) if Arc::ptr_eq(&old, &resource) => None,
            Some(_) => Some(Difference::Modified(resource)),
        };
        Applied::loaded(kind, result, difference)
    }

    fn delete(&mut self, incoming: &Incoming) -> Applied {
        let Some(kind) = incoming.kind else { return Applied::answered(Outcome::Ack) };
        let (old, result) = self.sets[kind.index()].remove(&incoming.key());
        if let Some(old) = &old {
            self.stats.deletions += 1;
            self.forget(old);
        }
        Applied::loaded(kind, result, old.map(Difference::Removed))
    }

    fn full_sync(&mut self, snapshot: Snapshot, now: Mono) -> Applied {
        self.stats.full_syncs += 1;
        let (coming, held) = (snapshot.resources.len(), self.held_count());
        let guarded = self.registered.is_some_and(|at| now.since(at) <= SHRINK_GUARD);
        let guard = if coming == 0 && held > 0 {
            Some(Guard::Empty)
        } else if coming < held && guarded {
            Some(Guard::Shrinking)
        } else {
            None
        };
        if guard.is_some() {
            self.stats.guard_ignored += 1;
            return Applied { guard, ..Applied::answered(Outcome::Ack) };
        }

        let mut lists: [Vec<Arc<Resource>>; Kind::COUNT] = Default::default();
        for incoming in &snapshot.resources {
            let Some(kind) = incoming.kind else { continue };
            // What cannot be decoded vanishes, and the rest is a success.
            if let Ok(resource) = self.pool.intern(incoming, kind) {
                lists[kind.index()].push(resource);
            }
        }
        let mut failure = None;
        let mut differences = Vec::new();
        for kind in LOADING_ORDER {
            let list = std::mem::take(&mut lists[kind.index()]);
            let before = self.sets[kind.index()].held().clone();
            let result = self.sets[kind.index()].replace(list, failure.is_none());
            failure = failure.or(result.err());
            self.compare(kind, &before, &mut differences);
        }
        Applied {
            outcome: failure.map_or(Outcome::Ack, Outcome::Nack),
            guard: None,
            differences,
            routes_loaded: true,
            backends_loaded: true,
        }
    }

    /// Finds what a full synchronisation changed in one kind.
    fn compare(
        &mut self,
        kind: Kind,
        before: &std::collections::BTreeMap<Arc<str>, Arc<Resource>>,
        differences: &mut Vec<Difference>,
    ) {
        let after: Vec<Arc<Resource>> = self.sets[kind.index()].held().values().cloned().collect();
        for resource in after {
            match before.get(&resource.key) {
                Some(old) if Arc::ptr_eq(old, &resource) => {}
                Some(_) => {
                    self.see(&resource);
                    differences.push(Difference::Modified(resource));
                }
                None => {
                    self.see(&resource);
                    differences.push(Difference::Added(resource));
                }
            }
        }
        for (key, old) in before {
            if !self.sets[kind.index()].held().contains_key(key) {
                self.stats.removed_by_full_sync += 1;
                self.forget(old);
                differences.push(Difference::Removed(old.clone()));
            }
        }
    }

    /// Notices an object that is older than it was here before. What cannot be
    /// loaded was never in force: what replaces it is no step back.
    fn see(&mut self, resource: &Resource) {
        if resource.uid.is_empty() || resource.fault().is_some() {
            return;
        }
        let hash = self.hasher.hash_one((resource.kind, &resource.uid));
        let new = Seen { generation: resource.generation, removed: false };
        let Some(seen) = self.generations.get_mut(&hash) else {
            self.generations.insert(hash, new);
            return;
        };
        self.stats.regressions += u64::from(resource.generation < seen.generation);
        self.stats.reappeared += u64::from(resource.generation == seen.generation && seen.removed);
        *seen = Seen { generation: seen.generation.max(resource.generation), ..new };
    }

    fn forget(&mut self, resource: &Resource) {
        let hash = self.hasher.hash_one((resource.kind, &resource.uid));
        if let Some(seen) = self.generations.get_mut(&hash) {
            seen.removed = true;
        }
    }
}

impl Applied {
    fn answered(outcome: Outcome) -> Self {
        Applied { outcome, guard: None, differences: vec![], routes_loaded: false, backends_loaded: false }
    }

    fn loaded(kind: Kind, result: Result<(), String>, difference: Option<Difference>) -> Self {
        Applied {
            outcome: result.map_or_else(Outcome::Nack, |()| Outcome::Ack),
            guard: None,
            differences: difference.into_iter().collect(),
            routes_loaded: kind.is_route(),
            backends_loaded: !kind.is_route(),
        }
    }
}

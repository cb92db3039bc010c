//! A model of the API server: one log of revisions over all kinds, objects with
//! generations and uids as Kubernetes gives them, Leases and the ShardMap with
//! compare-and-swap, and history that is forgotten.
//!
//! Watch caches before it (see [`cache`]) lag behind the log; writes and consistent
//! reads see its end.

pub mod cache;
pub mod status;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use flotilla_core::coordination::{
    LeaseList, LeaseName, LeaseRecord, LeaseWrite, MapRecord, MapWrite, Precondition,
};
use flotilla_core::ids::{Epoch, Kind, ObjectKey, Revision};
use flotilla_core::object::RawObject;
use flotilla_core::shardmap::OperatorSpec;
use flotilla_core::time::Mono;
use flotilla_observer::Claim;

use crate::clock::SECONDS;
use crate::replica::lineage::History;
use crate::universe::Universe;

/// The watch of Leases, after those of the kinds.
pub const LEASES: usize = Kind::COUNT;
/// The watch of the map.
pub const MAP: usize = Kind::COUNT + 1;
/// How many watches a replica has.
pub const LANES: usize = Kind::COUNT + 2;

/// Why a request had no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// 409.
    Conflict,
    /// 404.
    NotFound,
    /// 410.
    Gone,
    /// The answer is older than this, which was seen.
    Behind(u64),
    /// 500.
    Failed,
    /// 429, with the seconds to wait.
    Throttled(u64),
    /// No answer in time.
    Timeout,
    /// A published map whose epoch is not above all before: a broken promise.
    StaleEpoch,
}

/// What happened at a revision.
#[derive(Debug, Clone)]
pub enum Change {
    /// An object is there, or differs.
    Object(RawObject),
    /// An object is gone.
    Gone(u32),
    /// A Lease is there, or differs.
    Lease(LeaseName, LeaseRecord),
    /// A Lease is gone.
    LeaseGone(LeaseName),
    /// The map is there, or differs.
    Map(Box<MapRecord>),
    /// The map is gone.
    MapGone,
}

/// One entry of the log.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its revision.
    pub revision: u64,
    /// The true time of its writing.
    pub at: u64,
    /// What happened.
    pub change: Change,
}

/// The part of the log that one watch reads. Entries are counted from the
/// beginning of the run, so that a position stays right when history is forgotten.
#[derive(Debug, Default)]
pub struct Lane {
    entries: VecDeque<Entry>,
    forgotten: u64,
    /// The revision of the last entry that is forgotten.
    forgotten_to: u64,
}

impl Lane {
    /// The entry at a position.
    pub fn get(&self, position: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(position.checked_sub(self.forgotten)?).ok()?)
    }

    /// The position of the first entry that is not forgotten.
    pub fn first(&self) -> u64 {
        self.forgotten
    }

    /// The revision of the last entry that was written by a true time.
    pub fn written_by(&self, time: u64) -> u64 {
        let count = self.entries.partition_point(|entry| entry.at <= time);
        let last = count.checked_sub(1).and_then(|last| self.entries.get(last));
        last.map_or(self.forgotten_to, |entry| entry.revision)
    }

    /// The position of the first entry above a revision.
    pub fn after(&self, revision: u64) -> u64 {
        self.forgotten + self.entries.partition_point(|entry| entry.revision <= revision) as u64
    }

    fn forget(&mut self, revision: u64) -> Option<Entry> {
        self.entries.front().filter(|entry| entry.revision <= revision)?;
        let entry = self.entries.pop_front()?;
        self.forgotten += 1;
        self.forgotten_to = entry.revision;
        Some(entry)
    }

    fn until(&self, revision: u64) -> impl Iterator<Item = &Entry> {
        self.entries.iter().take_while(move |entry| entry.revision <= revision)
    }
}

/// What a write of a spec did.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    /// The object's revision after it.
    pub revision: u64,
    /// Its generation.
    pub generation: i64,
    /// The number behind its uid.
    pub uid: u32,
    /// When it was created, in seconds.
    pub created: u64,
}

/// What a status patch did.
#[derive(Debug, Clone)]
pub struct Patched {
    /// The object's revision after it.
    pub revision: u64,
    /// Whether anything changed.
    pub changed: bool,
    /// What the patch says.
    pub claim: Option<Claim>,
    /// What is wrong with its times.
    pub misdated: Option<String>,
}

/// What a backup holds.
#[derive(Debug, Clone)]
pub struct Backup {
    revision: u64,
    live: Vec<Option<RawObject>>,
    created: Vec<u64>,
    leases: BTreeMap<LeaseName, LeaseRecord>,
    map: Option<MapRecord>,
    history: Option<History>,
}

/// See the module's description.
#[derive(Debug)]
pub struct Api {
    /// The revision of the last write.
    pub revision: u64,
    /// History up to here is forgotten.
    pub compacted: u64,
    /// The log by watch.
    pub lanes: [Lane; LANES],
    /// Watches for which there is something new since this was last looked at.
    pub news: [bool; LANES],
    /// Objects by place.
    live: Vec<Option<RawObject>>,
    /// Objects by place, as of `compacted`: what lists of the past start from.
    past: Vec<Option<RawObject>>,
    /// By place: when the object there was created, in seconds.
    created: Vec<u64>,
    uids: u32,
    leases: BTreeMap<LeaseName, LeaseRecord>,
    map: Option<MapRecord>,
    highest: Epoch,
    /// The Lease that names the history, and how many names and marks there were, which
    /// no restore takes back: in truth they are random.
    history: Option<History>,
    names: u32,
}

impl Api {
    /// An empty API server whose log starts somewhere.
    pub fn new(places: usize, revision: u64) -> Self {
        Api {
            revision,
            compacted: 0,
            lanes: Default::default(),
            news: [false; LANES],
            live: vec![None; places],
            past: vec![None; places],
            created: vec![0; places],
            uids: 0,
            leases: BTreeMap::new(),
            map: None,
            highest: Epoch(0),
            history: None,
            names: 0,
        }
    }

    /// Makes a backup.
    pub fn backup(&self) -> Backup {
        Backup {
            revision: self.revision,
            live: self.live.clone(),
            created: self.created.clone(),
            leases: self.leases.clone(),
            map: self.map.clone(),
            history: self.history.clone(),
        }
    }

    /// Replaces everything by a backup. Uids are random in truth, so they do not come
    /// again; revisions do.
    pub fn restore(&mut self, backup: Backup) {
        let Backup { revision, live, created, leases, map, history } = backup;
        self.highest = map.as_ref().and_then(|map| Some(map.published.as_ref()?.epoch)).unwrap_or(Epoch(0));
        (self.revision, self.compacted) = (revision, revision);
        (self.past, self.live, self.created) = (live.clone(), live, created);
        (self.leases, self.map, self.history) = (leases, map, history);
        for lane in &mut self.lanes {
            lane.forgotten += lane.entries.len() as u64;
            lane.forgotten_to = revision;
            lane.entries.clear();
        }
    }

    /// The Lease that names the history.
    pub fn history(&self) -> Option<History> {
        self.history.clone()
    }

    /// Renews it, and leaves a mark if that is wished for, or creates it with a new name.
    pub fn confirm_history(&mut self, marked: bool) -> History {
        let (revision, fresh) = (self.next(), self.fresh());
        let renewed = match self.history.take() {
            Some(known) if marked => History { revision, marks: known.marks.with(fresh), ..known },
            Some(known) => History { revision, ..known },
            None => History { revision, ..History::first(fresh, fresh) },
        };
        self.history.insert(renewed).clone()
    }

    /// Names the history anew, if the Lease is still at this revision.
    /// `ours` is the name that it had for whoever asks.
    pub fn begin_history(&mut self, at: Revision, ours: u32) -> Result<History, Refusal> {
        let Some(known) = self.history.take_if(|known| known.revision == at) else {
            return Err(Refusal::Conflict);
        };
        let (revision, fresh) = (self.next(), self.fresh());
        let renamed = known.renamed(&ours, fresh, fresh);
        Ok(self.history.insert(History { revision, ..renamed }).clone())
    }

    fn fresh(&mut self) -> u32 {
        self.names += 1;
        self.names
    }

    fn next(&mut self) -> Revision {
        self.revision += 1;
        Revision(self.revision)
    }

    fn record(&mut self, lane: usize, now: u64, change: Change) {
        self.news[lane] = true;
        let entry = Entry { revision: self.revision, at: now, change };
        self.lanes[lane].entries.push_back(entry);
    }

    /// One object as it is.
    pub fn object(&self, place: u32) -> Option<&RawObject> {
        self.live[place as usize].as_ref()
    }

    /// When the object of a place was created, in seconds.
    pub fn created(&self, place: u32) -> u64 {
        self.created[place as usize]
    }

    /// All objects as they are.
    pub fn objects(&self) -> impl Iterator<Item = (u32, &RawObject)> {
        (0..).zip(&self.live).filter_map(|(place, object)| Some((place, object.as_ref()?)))
    }

    /// Creates an object or changes its spec; nothing while it is being deleted.
    pub fn put(&mut self, now: u64, universe: &Universe, place: u32, spec: Bytes) -> Option<Written> {
        let known = self.live[place as usize].as_ref();
        if known.is_some_and(|known| known.deleting) {
            return None;
        }
        let object = match known.cloned() {
            Some(known) => {
                RawObject { revision: self.next(), generation: known.generation + 1, spec, ..known }
            }
            None => {
                self.uids += 1;
                RawObject {
                    kind: universe.kind(place),
                    key: universe.key(place).clone(),
                    uid: format!("{:08x}", self.uids).into(),
                    revision: self.next(),
                    generation: 1,
                    created: wall(now, 0).into(),
                    deleting: false,
                    held: false,
                    spec,
                    status: Bytes::new(),
                }
            }
        };
        if object.generation == 1 {
            self.created[place as usize] = now / SECONDS;
        }
        let uid = u32::from_str_radix(&object.uid, 16).unwrap_or(0);
        let created = self.created[place as usize];
        let written = Written { revision: object.revision.0, generation: object.generation, uid, created };
        self.store(now, place, object);
        Some(written)
    }

    fn store(&mut self, now: u64, place: u32, object: RawObject) {
        let lane = object.kind.index();
        self.live[place as usize] = Some(object.clone());
        self.record(lane, now, Change::Object(object));
    }

    /// Changes an object's metadata only.
    pub fn touch(&mut self, now: u64, place: u32) {
        if let Some(known) = self.live[place as usize].clone() {
            let revision = self.next();
            self.store(now, place, RawObject { revision, ..known });
        }
    }

    /// Marks an object for deletion; a finalizer keeps it. Returns the revision if
    /// it was not being deleted before.
    pub fn mark(&mut self, now: u64, place: u32) -> Option<u64> {
        let known = self.live[place as usize].clone().filter(|known| !known.deleting)?;
        let revision = self.next();
        let generation = known.generation + 1;
        self.store(now, place, RawObject { revision, generation, deleting: true, ..known });
        Some(revision.0)
    }

    /// Removes an object. Returns the revision, and whether it was being deleted
    /// before.
    pub fn delete(&mut self, now: u64, place: u32) -> Option<(u64, bool)> {
        let known = self.live[place as usize].take()?;
        let revision = self.next();
        self.record(known.kind.index(), now, Change::Gone(place));
        Some((revision.0, known.deleting))
    }

    /// Applies a patch to an object's status, if its preconditions hold.
    pub fn patch(&mut self, now: u64, place: u32, body: &[u8]) -> Result<Patched, Refusal> {
        let known = self.live[place as usize].as_ref().ok_or(Refusal::NotFound)?;
        let patch = status::Patch::read(body).ok_or(Refusal::Failed)?;
        if !patch.fits(known) {
            return Err(Refusal::Conflict);
        }
        let claim = patch.claim();
        let Some(status) = patch.apply(&known.status) else {
            return Ok(Patched { revision: known.revision.0, changed: false, claim, misdated: None });
        };
        let misdated = patch.misdated(&known.status);
        let known = known.clone();
        let revision = self.next();
        self.store(now, place, RawObject { revision, status, ..known });
        Ok(Patched { revision: revision.0, changed: true, claim, misdated })
    }

    /// All objects of a kind, at the end of the log or as they were at a revision
    /// in the past.
    pub fn list(&self, kind: Kind, universe: &Universe, at: Option<u64>) -> (Revision, Vec<RawObject>) {
        let of_kind = |objects: &[Option<RawObject>]| {
            (0..)
                .zip(objects)
                .filter(|(place, _)| universe.kind(*place) == kind)
                .filter_map(|(place, object)| Some((place, object.clone()?)))
                .collect::<BTreeMap<u32, RawObject>>()
        };
        let Some(at) = at.filter(|at| *at < self.revision) else {
            return (Revision(self.revision), of_kind(&self.live).into_values().collect());
        };
        let at = at.max(self.compacted);
        let mut objects = of_kind(&self.past);
        for entry in self.lanes[kind.index()].until(at) {
            match &entry.change {
                Change::Object(object) => {
                    if let Some(place) = universe.find(kind, &object.key) {
                        objects.insert(place, object.clone());
                    }
                }
                Change::Gone(place) => drop(objects.remove(place)),
                _ => {}
            }
        }
        (Revision(at), objects.into_values().collect())
    }

    /// Deletions of a kind in (`since`, `until`]; `None` when that is forgotten.
    pub fn deletions(
        &self,
        kind: Kind,
        since: u64,
        until: u64,
        universe: &Universe,
    ) -> Option<Vec<(ObjectKey, Revision)>> {
        if since < self.compacted {
            return None;
        }
        let entries = self.lanes[kind.index()].until(until).filter(|entry| entry.revision > since);
        let gone = entries.filter_map(|entry| match &entry.change {
            Change::Gone(place) => Some((universe.key(*place).clone(), Revision(entry.revision))),
            _ => None,
        });
        Some(gone.collect())
    }

    /// Forgets history up to a revision.
    pub fn compact(&mut self, revision: u64, universe: &Universe) {
        self.compacted = self.compacted.max(revision.min(self.revision));
        for lane in &mut self.lanes {
            while let Some(entry) = lane.forget(self.compacted) {
                match entry.change {
                    Change::Object(object) => {
                        if let Some(place) = universe.find(object.kind, &object.key) {
                            self.past[place as usize] = Some(object);
                        }
                    }
                    Change::Gone(place) => self.past[place as usize] = None,
                    _ => {}
                }
            }
        }
    }

    fn new_uid(&mut self) -> Arc<str> {
        self.uids += 1;
        format!("{:08x}", self.uids).into()
    }

    /// One Lease.
    pub fn lease(&self, name: &LeaseName) -> Option<&LeaseRecord> {
        self.leases.get(name)
    }

    /// All Leases.
    pub fn leases(&self, sent_at: Mono) -> LeaseList {
        let leases = self.leases.iter().map(|(name, record)| (name.clone(), record.clone())).collect();
        LeaseList { sent_at, revision: Revision(self.revision), leases }
    }

    /// Writes a Lease.
    pub fn write_lease(
        &mut self,
        now: u64,
        name: &LeaseName,
        write: LeaseWrite,
    ) -> Result<LeaseRecord, Refusal> {
        let uid = match (&write.precondition, self.leases.get(name)) {
            (Precondition::Absent, None) => self.new_uid(),
            (Precondition::Unchanged { uid, revision }, Some(known))
                if known.uid == *uid && known.revision == *revision =>
            {
                uid.clone()
            }
            _ => return Err(Refusal::Conflict),
        };
        let record = LeaseRecord { uid, revision: self.next(), content: write.content };
        self.leases.insert(name.clone(), record.clone());
        self.record(LEASES, now, Change::Lease(name.clone(), record.clone()));
        Ok(record)
    }

    /// Deletes a Lease, if it is still this one when `only` says which.
    pub fn delete_lease(&mut self, now: u64, name: &LeaseName, only: Option<Revision>) {
        if self.leases.get(name).is_some_and(|known| only.is_none_or(|only| known.revision == only)) {
            self.leases.remove(name);
            self.next();
            self.record(LEASES, now, Change::LeaseGone(name.clone()));
        }
    }

    /// Somebody edits a Lease without meaning anything by it.
    pub fn touch_lease(&mut self, now: u64, name: &LeaseName) {
        if let Some(mut record) = self.leases.get(name).cloned() {
            record.revision = self.next();
            self.leases.insert(name.clone(), record.clone());
            self.record(LEASES, now, Change::Lease(name.clone(), record));
        }
    }

    /// The map.
    pub fn map(&self) -> Option<&MapRecord> {
        self.map.as_ref()
    }

    /// Writes the map.
    pub fn write_map(&mut self, now: u64, write: MapWrite) -> Result<MapRecord, Refusal> {
        let record = match (write, self.map.clone()) {
            (MapWrite::Create, None) => MapRecord {
                uid: self.new_uid(),
                revision: self.next(),
                spec: OperatorSpec { virtual_nodes: 32, ..OperatorSpec::default() },
                published: None,
                in_step: false,
            },
            (MapWrite::Publish { uid, revision, map }, Some(known))
                if known.uid == uid && known.revision == revision =>
            {
                if map.epoch <= self.highest {
                    return Err(Refusal::StaleEpoch);
                }
                self.highest = map.epoch;
                MapRecord { published: Some(map), in_step: true, revision: self.next(), ..known }
            }
            _ => return Err(Refusal::Conflict),
        };
        self.map = Some(record.clone());
        self.record(MAP, now, Change::Map(Box::new(record.clone())));
        Ok(record)
    }

    /// Operators change the map's spec.
    pub fn edit_map(&mut self, now: u64, edit: impl FnOnce(&mut OperatorSpec)) {
        let Some(mut record) = self.map.clone() else { return };
        edit(&mut record.spec);
        if self.map.as_ref().is_some_and(|known| known.spec == record.spec) {
            return;
        }
        record.in_step = false;
        record.revision = self.next();
        self.map = Some(record.clone());
        self.record(MAP, now, Change::Map(Box::new(record)));
    }

    /// Operators delete the map.
    pub fn delete_map(&mut self, now: u64) {
        if self.map.take().is_some() {
            self.next();
            self.record(MAP, now, Change::MapGone);
        }
    }
}

/// What a wall clock shows that is so many seconds ahead of true time, at most a day:
/// RFC 3339, for people.
pub fn wall(now: u64, ahead: i64) -> String {
    let seconds = (now / SECONDS + 86_400).saturating_add_signed(ahead);
    let (day, hour) = (20 + seconds / 86_400, seconds / 3_600 % 24);
    format!("2026-11-{day:02}T{hour:02}:{:02}:{:02}Z", seconds / 60 % 60, seconds % 60)
}

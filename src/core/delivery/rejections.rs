//! What to do when a gateway rejects something.
//!
//! A rejected increment may be in the gateway's table all the same, and then
//! every later one of its class (routes or backends) is rejected with it until
//! it is replaced or removed (wire point 13). So an upsert is known to be bad
//! only when the class was *sound* just before it: the last increment of the
//! class in this session was taken. The others are *suspects*.
//!
//! **Repair.** The bad one is excluded by its content, and what the gateway
//! held before is put back: its last good version, or nothing. If that is
//! rejected too, another bad one is among the suspects: they are put back as
//! well. Once a repair is taken the gateway is sound, and the suspects are
//! simply news again. What does not get well in three attempts is synchronised
//! anew.
//!
//! **Search.** A gateway that rejects its first snapshot gets prefixes of it:
//! always with everything that was found good, found by halving, and padded to
//! the count it may hold, so that its guard against shrinking stays quiet. A
//! gateway that held something before is not searched but repaired: it gets
//! increments of the difference from then on.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::edge::snapshot_bytes;
use super::engine::Engine;
use super::poll::Verdict;
use super::position::{Base, Position};
use super::session::{Flight, Purpose, Rejected, Session};
use super::{Change, Limits, Notice, size};
use crate::ids::{Frontier, Kind, ObjectKey};
use crate::object::Resource;
use crate::store::Mark;
use crate::time::Mono;
use crate::version::content_hash;

const ATTEMPTS: u8 = 3;
/// Batches in a row of which only deletions were rejected.
const STRIKES: u8 = 3;

/// What fails together: backends 0, routes 1.
fn class_of(kind: Kind) -> usize {
    usize::from(kind.is_route())
}

impl Change {
    /// The class of an increment.
    pub(super) fn class(&self) -> Option<usize> {
        match self {
            Change::Upsert { resource, .. } => Some(class_of(resource.kind)),
            Change::Delete { kind, .. } => Some(class_of(*kind)),
            Change::FullSync(_) | Change::Reset | Change::Heartbeat => None,
        }
    }
}

/// What is being done about a rejection.
#[derive(Debug, Clone)]
pub(crate) enum Trouble {
    Repair(Repair),
    Search(Search),
}

#[derive(Debug, Clone)]
pub(crate) struct Repair {
    attempt: u8,
    culprits: BTreeSet<(Kind, ObjectKey)>,
    /// Rejected with or after a culprit, and whether each was new to the
    /// gateway.
    suspects: Vec<(Kind, ObjectKey, bool)>,
    /// A snapshot was rejected before its backends were loaded.
    reload_backends: bool,
    message: String,
}

#[derive(Debug, Clone)]
pub(crate) struct Search {
    /// What is to be delivered, without what was found bad.
    list: Vec<(Arc<Resource>, Mark)>,
    /// A prefix of this length was taken.
    good: usize,
    /// One of this length was rejected.
    bad: Option<usize>,
    /// The length that is being tried.
    probe: usize,
    /// Other keys that the gateway may count.
    padding: Vec<(Kind, ObjectKey)>,
    /// The list is the configuration at this frontier,
    frontier: Frontier,
    /// and not only a part of it.
    whole: bool,
}

impl Engine {
    /// Of a batch that was to deliver something, some updates were rejected.
    pub fn rejected(&mut self, now: Mono, session: &mut Session, flight: &Flight) {
        let edge = &flight.edge;
        let position = edge.partial(&mut self.positions, |index| !flight.rejected.contains_key(&index));
        session.move_to(now, position);
        let snapshot =
            edge.batch.updates.iter().position(|update| matches!(update.change, Change::FullSync(_)));
        if let Some(message) = snapshot.and_then(|index| flight.rejected.get(&index)) {
            if edge.from.base == Base::Log && !session.full_required {
                self.repair_snapshot(session, edge.from.clone(), message.clone());
            } else {
                self.start_search(now, session, flight);
            }
            return;
        }
        let mut repair = Repair {
            attempt: 1,
            culprits: BTreeSet::new(),
            suspects: Vec::new(),
            reload_backends: false,
            message: String::new(),
        };
        for (index, update) in edge.batch.updates.iter().enumerate() {
            let Some(class) = update.change.class() else {
                // Snapshots that are rejected were dealt with above.
                if matches!(update.change, Change::FullSync(_)) {
                    session.sound = [true, true];
                }
                continue;
            };
            let was_sound = session.sound[class];
            let message = flight.rejected.get(&index);
            session.sound[class] = message.is_none();
            let (Some(message), Change::Upsert { resource, added }) = (message, &update.change) else {
                continue;
            };
            repair.message.clone_from(message);
            if was_sound {
                self.quarantine(now, session, resource, *added, &edge.from, message.clone());
                repair.culprits.insert((resource.kind, resource.key.clone()));
            } else {
                repair.suspects.push((resource.kind, resource.key.clone(), *added));
            }
        }
        // In a class that has come right by itself they are simply news.
        repair.suspects.retain(|(kind, _, _)| !session.sound[class_of(*kind)]);
        if !repair.culprits.is_empty() || !repair.suspects.is_empty() {
            repair.attempt = if repair.culprits.is_empty() { 2 } else { 1 };
            session.trouble = Some(Trouble::Repair(repair));
        } else if session.sound != [true, true] {
            // Only deletions: they stay news and are sent again.
            session.strikes += 1;
            if session.strikes >= STRIKES {
                let message = flight.rejected.values().next().cloned().unwrap_or_default();
                self.start_anew(now, session, message);
            }
        }
    }

    /// Excludes a content on this gateway.
    fn quarantine(
        &mut self,
        now: Mono,
        session: &mut Session,
        resource: &Arc<Resource>,
        added: bool,
        from: &Position,
        message: String,
    ) {
        let (kind, key) = (resource.kind, resource.key.clone());
        let content = content_hash(&resource.uid, resource.generation);
        let held = match session.rejected.get(&(kind, key.clone())) {
            // Its last good version is older than the one rejected before.
            Some(earlier) => earlier.held.clone(),
            None if added => None,
            None => self.store.held_before(kind, &key, &from.reach),
        };
        self.notice(Notice::Rejected {
            gateway: session.gateway.clone(),
            kind,
            key: key.clone(),
            message: message.clone(),
        });
        session.rejected.insert((kind, key.clone()), Rejected { content, held, message });
        let mut draft = Position::clone(&session.position);
        draft.excluded.retain(|(other, _), owner| *other != kind || *owner != key);
        draft.excluded.insert((kind, content), key);
        let position = self.positions.intern(draft);
        session.move_to(now, position);
        self.applied_changes += 1;
    }

    /// A gateway that has a configuration rejected a snapshot that was to be
    /// the cheaper way: everything in it that is new to it is suspect.
    fn repair_snapshot(&mut self, session: &mut Session, from: Arc<Position>, message: String) {
        session.no_full = true;
        let difference = super::plan::difference(&self.store, &from);
        let upsert = |item: super::plan::Item| match item.what {
            super::plan::What::Upsert { added, .. } => Some((item.kind, item.key, added)),
            super::plan::What::Delete => None,
        };
        session.trouble = Some(Trouble::Repair(Repair {
            attempt: 2,
            culprits: BTreeSet::new(),
            suspects: difference.items.into_iter().filter_map(upsert).collect(),
            reload_backends: true,
            message,
        }));
    }

    fn start_search(&mut self, now: Mono, session: &mut Session, flight: &Flight) {
        let edge = &flight.edge;
        let mut padding = Vec::new();
        for update in &edge.batch.updates {
            match &update.change {
                Change::FullSync(snapshot) => padding.extend(snapshot.padding.iter().cloned()),
                Change::Upsert { resource, .. } => padding.push((resource.kind, resource.key.clone())),
                _ => {}
            }
        }
        let mut list = edge.snapshot.clone();
        let mut whole = edge.whole;
        let mut bytes: u64 = list.iter().map(|(resource, _)| size::resource(resource)).sum();
        while snapshot_bytes(bytes, &padding) > self.config.message_limit
            && let Some((resource, _)) = list.pop()
        {
            bytes -= size::resource(&resource);
            padding.push((resource.kind, resource.key.clone()));
            whole = false;
        }
        let draft = Position {
            base: Base::Nothing(Some(edge.frontier)),
            low: Frontier::default(),
            reach: edge.frontier,
            ahead: Vec::new(),
            ..Position::clone(&session.position)
        };
        let position = self.positions.intern(draft);
        session.move_to(now, position);
        let bad = Some(list.len());
        let search = Search { list, good: 0, bad, probe: 0, padding, frontier: edge.frontier, whole };
        let message = flight.rejected.values().next().cloned().unwrap_or_default();
        self.narrow(now, session, search, message);
    }

    /// Chooses the next prefix to try, or gives up.
    fn narrow(&mut self, now: Mono, session: &mut Session, mut search: Search, message: String) {
        if search.list.is_empty() && search.bad.is_some() {
            self.start_anew(now, session, message);
            return;
        }
        if search.bad == Some(search.good + 1) {
            let (resource, _) = search.list.remove(search.good);
            search.padding.push((resource.kind, resource.key.clone()));
            search.bad = None;
            let from = session.position.clone();
            self.quarantine(now, session, &resource, true, &from, message);
        }
        search.probe = match search.bad {
            Some(bad) => (search.good + bad) / 2,
            None => search.list.len(),
        };
        session.trouble = Some(Trouble::Search(search));
    }

    /// Sends the next message of a repair or a search.
    pub fn treat(&mut self, now: Mono, session: &mut Session, limits: &mut dyn Limits) -> Verdict {
        if now < session.ask_after {
            return Verdict::Sleep(session.ask_after);
        }
        let position = session.position.clone();
        let (edge, purpose) = match &session.trouble {
            Some(Trouble::Search(search)) => {
                let rest = search.list.iter().skip(search.probe);
                let mut padding = search.padding.clone();
                padding.extend(rest.map(|(resource, _)| (resource.kind, resource.key.clone())));
                let list = search.list.get(..search.probe).unwrap_or_default();
                (self.builder().probe(&position, list, padding), Purpose::Probe)
            }
            Some(Trouble::Repair(repair)) => {
                let changes = self.repairs(session, repair);
                (self.builder().repair(&position, changes), Purpose::Repair)
            }
            None => return Verdict::Watch(None),
        };
        if edge.batch.updates.is_empty() {
            // Nothing to put back at this attempt.
            if let Some(Trouble::Repair(repair)) = session.trouble.take() {
                self.next_attempt(now, session, repair);
            }
            return Verdict::Sleep(now);
        }
        self.send(now, session, Arc::new(edge), purpose, limits)
    }

    /// Backends before routes; in each class the culprit last, whose result
    /// says whether the class is sound.
    fn repairs(&self, session: &Session, repair: &Repair) -> Vec<Change> {
        let suspects = repair.suspects.iter().filter(|_| repair.attempt > 1);
        let put_back = |kind: Kind, key: &ObjectKey, added: bool, culprit: bool| {
            let known = session.rejected.get(&(kind, key.clone()));
            let held = match known {
                Some(rejected) => rejected.held.clone(),
                None if added => None,
                None => self.store.held_before(kind, key, &session.position.reach),
            };
            let last_resort = repair.attempt >= ATTEMPTS;
            let gone = self.store.entry(kind, key).is_none();
            match held {
                Some(resource) if !(gone || culprit && last_resort) => {
                    Some(Change::Upsert { resource, added: false })
                }
                // A suspect that the gateway had, we do not know how: to remove
                // it would be a loss, which only the last attempt may cause.
                None if !culprit && !added && !gone && !last_resort => None,
                _ => Some(Change::Delete { kind, key: key.clone() }),
            }
        };
        let mut changes: Vec<_> = suspects
            .filter_map(|(kind, key, added)| Some((*kind, 0, put_back(*kind, key, *added, false)?)))
            .collect();
        let culprits = repair.culprits.iter();
        changes
            .extend(culprits.filter_map(|(kind, key)| Some((*kind, 1, put_back(*kind, key, false, true)?))));
        if repair.reload_backends {
            let backend = self.store.entries(&session.scope.scope).find(|(_, resource)| {
                let content = (resource.kind, content_hash(&resource.uid, resource.generation));
                !resource.kind.is_route()
                    && !session.position.excluded.contains_key(&content)
                    && !repair.suspects.iter().any(|(_, key, _)| *key == resource.key)
            });
            let again =
                |resource: &Arc<Resource>| Change::Upsert { resource: resource.clone(), added: false };
            changes.extend(backend.map(|(_, resource)| (resource.kind, 2, again(resource))));
        }
        changes.sort_by_key(|(kind, order, _)| (kind.is_route(), *order));
        changes.into_iter().map(|(_, _, change)| change).collect()
    }

    pub fn repaired(&mut self, now: Mono, session: &mut Session, flight: &Flight) {
        session.move_to(now, flight.edge.target.clone());
        let Some(Trouble::Repair(mut repair)) = session.trouble.take() else { return };
        let mut rejected = None;
        for (index, update) in flight.edge.batch.updates.iter().enumerate() {
            if let Some(class) = update.change.class() {
                let message = flight.rejected.get(&index);
                session.sound[class] = message.is_none();
                rejected = message.cloned().or(rejected);
            }
        }
        let touched = |class: usize| {
            flight.edge.batch.updates.iter().any(|update| update.change.class() == Some(class))
        };
        let sound = (0..2).all(|class| session.sound[class] || !touched(class));
        if let Some(message) = rejected.filter(|_| !sound) {
            repair.message = message;
            self.next_attempt(now, session, repair);
        }
    }

    fn next_attempt(&mut self, now: Mono, session: &mut Session, mut repair: Repair) {
        if repair.attempt == ATTEMPTS {
            self.start_anew(now, session, repair.message);
            return;
        }
        repair.attempt += 1;
        if repair.attempt == ATTEMPTS {
            for culprit in &repair.culprits {
                if let Some(rejected) = session.rejected.get_mut(culprit) {
                    rejected.held = None;
                }
            }
        }
        session.trouble = Some(Trouble::Repair(repair));
    }

    pub fn probed(&mut self, now: Mono, session: &mut Session, flight: &Flight) {
        session.move_to(now, flight.edge.target.clone());
        let Some(Trouble::Search(mut search)) = session.trouble.take() else { return };
        if let Some(message) = flight.rejected.values().next() {
            search.bad = Some(search.probe);
            self.narrow(now, session, search, message.clone());
            return;
        }
        search.good = search.probe;
        if search.probe < search.list.len() {
            self.narrow(now, session, search, String::new());
            return;
        }
        session.full_required = false;
        session.sound = [true, true];
        let at = Position::clone(&session.position);
        let found = if search.whole {
            Position {
                base: Base::Log,
                low: search.frontier,
                reach: search.frontier,
                step: 0,
                ahead: Vec::new(),
                ..at
            }
        } else {
            let mut ahead: Vec<_> = search.list.iter().flat_map(|(_, mark)| mark.stamps()).collect();
            ahead.sort_unstable();
            Position { base: Base::Nothing(Some(search.frontier)), ahead, ..at }
        };
        let position = self.positions.intern(found);
        session.move_to(now, position);
    }

    /// Nothing helped: what the gateway holds counts as unknown.
    fn start_anew(&mut self, now: Mono, session: &mut Session, message: String) {
        self.notice(Notice::Unrepairable { gateway: session.gateway.clone(), message });
        session.trouble = None;
        session.strikes = 0;
        session.rejected.clear();
        session.pause_until = session.pause_until.max(now + self.config.max_pause);
        let high = session.position.high;
        let position = self.positions.unknown(&session.scope, high);
        session.move_to(now, position);
    }
}

//! What to do when a gateway rejects something.
//!
//! A rejected increment may be in the gateway's table all the same, and then
//! every later one of its class (routes or backends) is rejected with it until
//! it is replaced or removed (wire point 13). So an upsert is known to be bad
//! only when the class was *sound* just before it: the last increment of the
//! class in this session was taken. The others are *suspects*.
//!
//! A gateway that held something is repaired by increments ([`super::repair`]);
//! one whose first snapshot is rejected gets parts of it until the bad ones are
//! found ([`super::search`]). What does not get well is synchronised anew.

use std::sync::Arc;

use super::engine::Engine;
use super::poll::Verdict;
use super::position::{Base, Position};
use super::repair::{Repair, Suspect};
use super::search::Search;
use super::session::{Flight, Purpose, Rejected, Session};
use super::{Change, Limits, Notice};
use crate::ids::{Kind, ObjectKey};
use crate::object::Resource;
use crate::store::Store;
use crate::time::Mono;
use crate::version::content_hash;

/// Batches in a row of which only deletions were rejected.
const STRIKES: u8 = 3;

/// What fails together: backends 0, routes 1.
pub(super) fn class_of(kind: Kind) -> usize {
    usize::from(kind.is_route())
}

impl Change {
    /// The kind of an increment.
    pub(super) fn kind(&self) -> Option<Kind> {
        match self {
            Change::Upsert { resource, .. } => Some(resource.kind),
            Change::Delete { kind, .. } => Some(*kind),
            Change::FullSync(_) | Change::Reset | Change::Heartbeat => None,
        }
    }

    /// What an increment is about.
    pub(super) fn key(&self) -> Option<(Kind, ObjectKey)> {
        match self {
            Change::Upsert { resource, .. } => Some((resource.kind, resource.key.clone())),
            Change::Delete { kind, key } => Some((*kind, key.clone())),
            Change::FullSync(_) | Change::Reset | Change::Heartbeat => None,
        }
    }

    /// The class of an increment.
    pub(super) fn class(&self) -> Option<usize> {
        self.kind().map(class_of)
    }
}

/// What is being done about a rejection.
#[derive(Debug, Clone)]
pub(crate) enum Trouble {
    Repair(Repair),
    Search(Search),
}

/// What a gateway that was at a position held of an object before something `bad`, as
/// far as we know.
pub(super) fn held(
    store: &Store,
    session: &Session,
    at: &Position,
    key: &(Kind, ObjectKey),
    added: bool,
    bad: Option<&Resource>,
) -> Option<Arc<Resource>> {
    if let Some(unheard) = session.unheard.get(key) {
        let other = |sent: &&Arc<Resource>| bad.is_none_or(|bad| content(bad) != content(sent));
        if let Some(sent) = unheard.resource.as_ref().filter(other) {
            // It may hold that, and then nothing older is to come back.
            return Some(sent.clone());
        }
        if unheard.deleted {
            return None;
        }
    }
    match session.rejected.get(key) {
        // Its last good version is older than the one rejected before.
        Some(earlier) => earlier.held.clone(),
        None if added => None,
        None => store.held_before(key.0, &key.1, &at.reach, |birth| at.has(birth)),
    }
}

/// What takes the place of a resource that is bad or suspected, where `held` is what
/// is known of its past. Only one earlier content is kept: when the object has
/// changed again, it is the bad one. What the object is now is news to the gateway
/// anyway.
pub(super) fn unless_bad(
    store: &Store,
    held: Option<Arc<Resource>>,
    bad: &Resource,
) -> Option<Arc<Resource>> {
    held.filter(|held| content(held) != content(bad)).or_else(|| {
        let now = store.entry(bad.kind, &bad.key).filter(|entry| entry.hash != content(bad))?;
        now.outcome.as_ref().ok().cloned()
    })
}

pub(super) fn content(resource: &Resource) -> u32 {
    content_hash(&resource.uid, resource.generation)
}

impl Engine {
    /// Of a batch that was to deliver something, some updates were rejected, or
    /// nobody knows.
    pub fn taken_in_part(&mut self, now: Mono, session: &mut Session, flight: &Flight) {
        let edge = &flight.edge;
        let position = edge.partial(&mut self.positions, &self.store, |index| flight.took(index));
        session.move_to(now, position);
        let snapshot =
            edge.batch.updates.iter().position(|update| matches!(update.change, Change::FullSync(_)));
        if let Some(message) = snapshot.and_then(|index| flight.rejected.get(&index)) {
            if edge.from.base == Base::Log && !session.full_required {
                session.no_full = true;
                session.sound = [false, false];
                let repair = Repair::of_snapshot(&self.store, edge, message.clone());
                session.trouble = Some(Trouble::Repair(repair));
            } else {
                self.start_search(now, session, flight);
            }
            return;
        }
        let mut repair = Repair::default();
        let mut failed = [false; 2];
        for (index, update) in edge.batch.updates.iter().enumerate() {
            let Some(class) = update.change.class() else {
                // Snapshots that are rejected were dealt with above.
                if matches!(update.change, Change::FullSync(_)) {
                    session.sound = [!flight.unheard.contains(&index); 2];
                }
                continue;
            };
            let was_sound = session.sound[class];
            session.sound[class] = flight.took(index);
            if flight.misses(index) {
                if let Change::Upsert { resource, added } = &update.change {
                    repair.suspect(Suspect { resource: resource.clone(), added: *added });
                }
                continue;
            }
            let message = flight.rejected.get(&index);
            failed[class] |= message.is_some();
            let Some(message) = message else { continue };
            match &update.change {
                Change::Upsert { resource, added } if was_sound => {
                    self.quarantine(now, session, resource, *added, &edge.from, message.clone());
                    repair.convict(resource);
                }
                Change::Upsert { resource, added } => {
                    repair.suspect(Suspect { resource: resource.clone(), added: *added });
                }
                // Its words may be all that is heard about those before it.
                _ if repair.concerns(class) => {}
                _ => continue,
            }
            repair.hear(&self.store, message, Some(class));
        }
        // In a class that has come right by itself they are simply news, and where
        // nothing is known to be wrong, too.
        repair.acquit(|kind| session.sound[class_of(kind)] || !failed[class_of(kind)]);
        if repair.has_work() {
            repair.ask_if_clueless();
            session.trouble = Some(Trouble::Repair(repair));
        } else if session.sound != [true, true] && !flight.rejected.is_empty() {
            // Only deletions: they stay news and are sent again.
            session.strikes += 1;
            if session.strikes >= STRIKES {
                let message = flight.rejected.values().next().cloned().unwrap_or_default();
                self.start_anew(now, session, message);
            }
        }
    }

    /// Excludes a content on this gateway.
    pub(super) fn quarantine(
        &mut self,
        now: Mono,
        session: &mut Session,
        resource: &Arc<Resource>,
        added: bool,
        from: &Position,
        message: String,
    ) {
        let (kind, key) = (resource.kind, resource.key.clone());
        let content = content(resource);
        let held = held(&self.store, session, from, &(kind, key.clone()), added, Some(resource));
        let held = if added { held } else { unless_bad(&self.store, held, resource) };
        self.notice(Notice::Rejected {
            gateway: session.gateway.clone(),
            kind,
            key: key.clone(),
            message: message.clone(),
        });
        session.unheard.remove(&(kind, key.clone()));
        session.rejected.insert((kind, key.clone()), Rejected { content, held, message });
        let mut draft = Position::clone(&session.position);
        draft.excluded.retain(|(other, _), owner| *other != kind || *owner != key);
        draft.excluded.insert((kind, content), key);
        let position = self.positions.intern(draft);
        session.move_to(now, position);
        self.applied_changes += 1;
    }

    /// Sends the next message of a repair or a search.
    pub fn treat(&mut self, now: Mono, session: &mut Session, limits: &mut dyn Limits) -> Verdict {
        if now < session.ask_after {
            return Verdict::Sleep(session.ask_after);
        }
        let position = session.position.clone();
        let (edge, purpose) = match &session.trouble {
            Some(Trouble::Search(search)) => {
                let (prefix, padding) = (search.prefix(), search.padding());
                (self.builder().probe(&position, prefix, padding), Purpose::Probe)
            }
            Some(Trouble::Repair(repair)) => {
                let changes = repair.changes(&self.store, session);
                let bereft = repair.takes_away(&self.store, session, &changes);
                (self.builder().repair(&position, changes, bereft), Purpose::Repair)
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

    /// Nothing helped: what the gateway holds counts as unknown.
    pub(super) fn start_anew(&mut self, now: Mono, session: &mut Session, message: String) {
        self.notice(Notice::Unrepairable { gateway: session.gateway.clone(), message });
        session.trouble = None;
        session.strikes = 0;
        session.rejected.clear();
        session.unheard.clear();
        session.pause_until = session.pause_until.max(now + self.config.max_pause);
        let high = session.position.high;
        let position = self.positions.unknown(&session.scope, high);
        session.move_to(now, position);
    }
}

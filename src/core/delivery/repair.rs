//! Making a gateway well that held something before it rejected an update.
//!
//! The bad resource is excluded by its content, and what the gateway held of it
//! is put back: its last good version, or nothing. The difficulty is to find
//! it. A rejected update stays in the gateway's table, and a rejected snapshot
//! does with all that is in it, so everything else that came with the bad one
//! is there too, and to put *that* back would take the gateway to an older
//! state. Therefore:
//!
//! 1. Put back what is known to be bad, and what the gateway's own words name
//!    first among the suspects (the published gateway says "failed to compile
//!    route *name*", ours likewise). If nothing is known, touch each kind with
//!    something that does not differ: the answer tells whether the kind loads
//!    after all, and names the bad one if not. Whoever is named and is nowhere any
//!    more is removed. Touching also loads the kinds
//!    that a snapshot's failure left out. Each answer that names another
//!    suspect is followed by another step; one that was put back and is named
//!    again leaves.
//! 2. Only when the words name nobody (any more): put back all suspects. If the
//!    words name somebody after all, this is tried again with that one.
//! 3. Remove what was put back and is rejected still.
//!
//! Routes and backends fail apart, so what is well of the two is left alone from
//! then on. Once a repair is taken the gateway is sound; what was put back because the
//! words named it is excluded, and the other suspects are simply news again.
//! After the third attempt the gateway is synchronised anew.
//!
//! What is removed although the gateway had it is news only to this replica:
//! see [`Position::bereft`](super::position::Position::bereft).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Change;
use super::edge::Edge;
use super::engine::Engine;
use super::plan::{What, difference};
use super::rejections::{Trouble, class_of, content, held, unless_bad};
use super::session::{Flight, Session};
use crate::ids::{Kind, ObjectKey};
use crate::object::Resource;
use crate::store::Store;
use crate::time::Mono;

const ATTEMPTS: u8 = 3;

/// So many names of what is nowhere are believed in one repair.
const GHOSTS: usize = 8;

type Key = (Kind, ObjectKey);

pub(super) fn key_of(resource: &Resource) -> Key {
    (resource.kind, resource.key.clone())
}

/// Rejected with or after a bad one.
#[derive(Debug, Clone)]
pub(super) struct Suspect {
    pub resource: Arc<Resource>,
    /// Whether it was new to the gateway.
    pub added: bool,
}

/// A suspect that the gateway's words name, not excluded yet.
#[derive(Debug, Clone)]
struct Named {
    suspect: Suspect,
    words: String,
    /// No other suspect can have been meant.
    certain: bool,
}

/// See the module's description.
#[derive(Debug, Clone)]
pub(crate) struct Repair {
    attempt: u8,
    /// To be put back: known to be bad, or named.
    culprits: BTreeSet<Key>,
    /// Those of them that the first attempt has not put back yet.
    due: BTreeSet<Key>,
    /// Those of them whose turn in the batch that is being looked at comes
    /// only after the update in question.
    under_way: BTreeSet<Key>,
    /// Those of them that are to leave: what they were before is bad, too.
    hopeless: BTreeSet<Key>,
    /// Those of them that are nowhere any more.
    ghosts: BTreeSet<Key>,
    named: Vec<Named>,
    suspects: BTreeMap<Key, Suspect>,
    /// Every kind is to be touched: a snapshot was rejected, or words name nobody yet.
    touch: bool,
    /// What is not to be touched with: it is rejected itself.
    untouchable: BTreeSet<Key>,
    /// The gateway's last words.
    message: String,
}

impl Default for Repair {
    fn default() -> Self {
        Repair {
            attempt: 1,
            culprits: BTreeSet::new(),
            due: BTreeSet::new(),
            under_way: BTreeSet::new(),
            hopeless: BTreeSet::new(),
            ghosts: BTreeSet::new(),
            named: Vec::new(),
            suspects: BTreeMap::new(),
            touch: false,
            untouchable: BTreeSet::new(),
            message: String::new(),
        }
    }
}

impl Repair {
    /// A gateway that has a configuration rejected a snapshot that was to be
    /// the cheaper way: what was new to it in there is suspect.
    pub(super) fn of_snapshot(store: &Store, edge: &Edge, message: String) -> Self {
        let items = difference(store, &edge.from).items;
        let news: BTreeMap<Key, bool> = items
            .into_iter()
            .map(|item| ((item.kind, item.key), matches!(item.what, What::Upsert { added: true, .. })))
            .collect();
        let mut repair = Repair { touch: true, ..Repair::default() };
        for (resource, _) in &edge.snapshot {
            if let Some(added) = news.get(&key_of(resource)) {
                repair.suspect(Suspect { resource: resource.clone(), added: *added });
            }
        }
        repair.hear(store, &message, None);
        repair
    }

    /// A content that was rejected by a sound gateway.
    pub(super) fn convict(&mut self, resource: &Resource) {
        self.put_back(resource);
    }

    pub(super) fn suspect(&mut self, suspect: Suspect) {
        self.suspects.insert(key_of(&suspect.resource), suspect);
    }

    /// Of the suspects so far, the one whom these words name goes first. What
    /// was rejected was of the class `about`, or a snapshot.
    /// One that was put back and is named again is to leave. Returns whether
    /// there is something new to be done.
    pub(super) fn hear(&mut self, store: &Store, words: &str, about: Option<usize>) -> bool {
        words.clone_into(&mut self.message);
        let accused = self.accused_by(store, words, about);
        if accused.is_empty() {
            return self.hear_of_ghosts(store, words, about);
        }
        let certain = accused.len() == 1;
        if accused.iter().any(|key| self.due.contains(key)) {
            // It is about to be put back: that comes first.
            return false;
        }
        let Some(key) = accused.iter().find(|key| !self.culprits.contains(key)) else {
            let back = accused.into_iter().find(|key| !self.hopeless.contains(key));
            self.due.extend(back.clone());
            return back.is_some_and(|key| self.hopeless.insert(key));
        };
        let Some(suspect) = self.suspects.get(key).cloned() else { return false };
        self.put_back(&suspect.resource);
        self.named.push(Named { suspect, words: words.to_owned(), certain });
        true
    }

    /// What is named and is not delivered any more the gateway holds from before its
    /// deletion, which it has not been told: nobody knows yet what was deleted since
    /// it was served, or the version that it came with claims more than it took. To
    /// remove that takes away nothing that is there.
    fn hear_of_ghosts(&mut self, store: &Store, words: &str, about: Option<usize>) -> bool {
        // Without the kind, anything with a slash could be a name.
        let says_kind =
            ["route", "backend"].into_iter().any(|kind| words.to_ascii_lowercase().contains(kind));
        if !says_kind {
            return false;
        }
        let of_class = |(kind, _): &Key| about.is_none_or(|class| class == class_of(*kind));
        let ghosts = accused(words, of_class, |_| true);
        if ghosts.iter().any(|(kind, key)| is_delivered(store, *kind, key)) {
            return false;
        }
        // Words that name something else each time may be no names at all.
        if self.ghosts.len() + ghosts.len() > GHOSTS {
            return false;
        }
        let mut new = false;
        for ghost in ghosts {
            new |= self.culprits.insert(ghost.clone());
            self.due.insert(ghost.clone());
            self.ghosts.insert(ghost);
        }
        new
    }

    /// Whether words speak of one that the same batch puts back only later. Then
    /// they say nothing new, and its own turn tells whether what fails with it
    /// is well.
    fn is_premature(&self, store: &Store, words: &str, about: usize) -> bool {
        let accused = self.accused_by(store, words, Some(about));
        accused.iter().any(|key| self.under_way.contains(key))
    }

    /// Whom these words name of those known to be bad and those suspected.
    fn accused_by(&self, store: &Store, words: &str, about: Option<usize>) -> Vec<Key> {
        let known = |key: &Key| {
            about.is_none_or(|class| class == class_of(key.0))
                && (self.culprits.contains(key) || self.suspects.contains_key(key))
        };
        accused(words, known, |(kind, key)| store.knows(*kind, key))
    }

    /// Whether what was touched with is rejected for its own sake: something
    /// that cannot be decoded vanishes from a snapshot with success.
    fn is_untouchable(&mut self, resource: &Resource, words: &str) -> bool {
        let key = key_of(resource);
        let outsider = !self.culprits.contains(&key) && !self.suspects.contains_key(&key);
        let itself =
            outsider && accused(words, |other| *other == key, |(_, name)| *name == key.1) == [key.clone()];
        itself && self.untouchable.insert(key)
    }

    fn put_back(&mut self, resource: &Resource) {
        let key = key_of(resource);
        self.culprits.insert(key.clone());
        self.due.insert(key);
    }

    /// Clears those of kinds that are in order.
    pub(super) fn acquit(&mut self, sound: impl Fn(Kind) -> bool) {
        let named: Vec<_> = self.named.extract_if(.., |named| sound(named.suspect.resource.kind)).collect();
        for Named { suspect, .. } in named {
            let key = key_of(&suspect.resource);
            self.culprits.remove(&key);
            self.due.remove(&key);
        }
        for key in self.ghosts.extract_if(.., |(kind, _)| sound(*kind)) {
            self.culprits.remove(&key);
            self.due.remove(&key);
        }
        self.suspects.retain(|(kind, _), _| !sound(*kind));
    }

    /// Touches if nothing is to be put back where something is suspected: the words heard
    /// may name one whose own answer was not, and speak of what it was before.
    pub(super) fn ask_if_clueless(&mut self) {
        let put_back = |class: usize| self.due.iter().any(|(kind, _)| class_of(*kind) == class);
        self.touch |= self.suspects.keys().any(|(kind, _)| !put_back(class_of(*kind)));
    }

    pub(super) fn has_work(&self) -> bool {
        !self.culprits.is_empty() || !self.suspects.is_empty()
    }

    /// Whether anything of a class is known to be bad or suspected.
    pub(super) fn concerns(&self, class: usize) -> bool {
        self.culprits.iter().chain(self.suspects.keys()).any(|(kind, _)| class_of(*kind) == class)
    }

    /// What is sent at this attempt. Backends before routes; in each class the
    /// culprits last, whose result says whether the class is sound, or what
    /// only touches.
    pub(super) fn changes(&self, store: &Store, session: &Session) -> Vec<Change> {
        let mut changes: Vec<(Kind, u8, Change)> = Vec::new();
        let culprits = if self.attempt == 1 { &self.due } else { &self.culprits };
        for (kind, key) in culprits {
            changes.extend(self.back(store, session, *kind, key, true).map(|change| (*kind, 1, change)));
        }
        if self.attempt > 1 {
            for (kind, key) in self.suspects.keys().filter(|key| !self.culprits.contains(key)) {
                let back = self.back(store, session, *kind, key, false);
                changes.extend(back.map(|change| (*kind, 0, change)));
            }
        }
        if self.touch {
            for kind in Kind::ALL {
                // What is put back loads its kind, too.
                if !changes.iter().any(|(other, ..)| *other == kind) {
                    changes.extend(self.touched(store, session, kind).map(|change| (kind, 2, change)));
                }
            }
        }
        changes.sort_by_key(|(kind, order, _)| (kind.is_route(), *order));
        changes.into_iter().map(|(_, _, change)| change).collect()
    }

    /// Whether these remove what others may think that the gateway has: it was
    /// there before, and no exclusion says that it lacks it.
    pub(super) fn takes_away(&self, store: &Store, session: &Session, changes: &[Change]) -> bool {
        changes.iter().any(|change| {
            let Change::Delete { kind, key } = change else { return false };
            let added = self.suspects.get(&(*kind, key.clone())).is_some_and(|suspect| suspect.added);
            let Some(entry) = store.entry(*kind, key) else { return false };
            !added && !session.position.excluded.contains_key(&(*kind, entry.hash))
        })
    }

    /// What an object is to be again, if we know.
    fn back(
        &self,
        store: &Store,
        session: &Session,
        kind: Kind,
        key: &ObjectKey,
        culprit: bool,
    ) -> Option<Change> {
        let id = (kind, key.clone());
        let suspect = self.suspects.get(&id);
        let added = suspect.is_some_and(|suspect| suspect.added);
        let bad = suspect.map(|suspect| suspect.resource.as_ref());
        let known = held(store, session, &session.position, &id, added, bad);
        let held = match suspect {
            Some(suspect) if !added && !session.rejected.contains_key(&id) => {
                unless_bad(store, known, &suspect.resource)
            }
            _ => known,
        };
        let last_resort = self.attempt >= ATTEMPTS;
        let hopeless = culprit && (last_resort || self.hopeless.contains(&id));
        let gone = !is_delivered(store, kind, key);
        match held {
            Some(resource) if !(gone || hopeless) => Some(Change::Upsert { resource, added: false }),
            // A suspect that the gateway had, we do not know how: to remove it
            // would be a loss, which only the last attempt may cause.
            None if !culprit && !added && !gone && !last_resort => None,
            _ => Some(Change::Delete { kind, key: key.clone() }),
        }
    }

    /// An update of a kind that changes nothing: something that the gateway has.
    /// What has changed since may be bad itself, and nobody would look for it.
    fn touched(&self, store: &Store, session: &Session, kind: Kind) -> Option<Change> {
        let scope = &session.scope.scope;
        if !scope.includes_kind(kind) {
            return None;
        }
        let news: BTreeSet<Key> = difference(store, &session.position)
            .items
            .into_iter()
            .map(|item| (item.kind, item.key))
            .collect();
        let others = store.entries(scope).map(|(_, resource)| resource).filter(|resource| {
            let content = (resource.kind, content(resource));
            resource.kind == kind
                && !session.position.excluded.contains_key(&content)
                && !self.untouchable.contains(&key_of(resource))
                // It has just been put back.
                && !self.culprits.contains(&key_of(resource))
                && (self.suspects.contains_key(&key_of(resource)) || !news.contains(&key_of(resource)))
        });
        let mut suspects = Vec::new();
        for resource in others {
            match self.suspects.get(&key_of(resource)) {
                None => return Some(Change::Upsert { resource: resource.clone(), added: false }),
                // What it holds of it already, not what may be newer by now.
                Some(suspect) if suspects.is_empty() => suspects.push(suspect.resource.clone()),
                Some(_) => {}
            }
        }
        suspects.pop().map(|resource| Change::Upsert { resource, added: false })
    }
}

/// Whether gateways are to have something of an object.
fn is_delivered(store: &Store, kind: Kind, key: &ObjectKey) -> bool {
    store.entry(kind, key).is_some_and(|entry| entry.outcome.is_ok())
}

impl Engine {
    pub fn repaired(&mut self, now: Mono, session: &mut Session, flight: &Flight) {
        session.move_to(now, flight.edge.target.clone());
        if Kind::ALL.into_iter().any(|kind| flight.ends_unheard(kind)) {
            // Whether the gateway is well now is not known: the same again.
            return;
        }
        let Some(Trouble::Repair(mut repair)) = session.trouble.take() else { return };
        repair.due.clear();
        let keys = flight.edge.batch.updates.iter().filter_map(|update| update.change.key());
        repair.under_way = keys.filter(|key| repair.culprits.contains(key)).collect();
        // By kind, as some gateways load each by itself.
        let mut rejected: [Option<bool>; Kind::COUNT] = [None; Kind::COUNT];
        let mut named = false;
        for (index, update) in flight.edge.batch.updates.iter().enumerate() {
            let Some((kind, key)) = update.change.key() else { continue };
            repair.under_way.remove(&(kind, key));
            if flight.misses(index) {
                continue;
            }
            let message = flight.rejected.get(&index);
            if let (Some(message), Change::Upsert { resource, .. }) = (message, &update.change)
                && repair.is_untouchable(resource, message)
            {
                named = true;
                continue;
            }
            if message.is_some_and(|words| repair.is_premature(&self.store, words, class_of(kind))) {
                continue;
            }
            rejected[kind.index()] = Some(message.is_some());
            if let Some(message) = message {
                named |= repair.hear(&self.store, message, Some(class_of(kind)));
            }
        }
        let sound = |class: usize| {
            let of_class = |kind: &&Kind| class_of(**kind) == class;
            Kind::ALL.iter().filter(of_class).all(|kind| rejected[kind.index()] != Some(true))
        };
        for class in 0..2 {
            if Kind::ALL.iter().any(|kind| class_of(*kind) == class && rejected[kind.index()].is_some()) {
                session.sound[class] = sound(class);
            }
        }
        if sound(0) && sound(1) && !(named && repair.touch) {
            for class in 0..2 {
                self.found(now, session, &mut repair, class);
            }
        } else if named && repair.attempt < ATTEMPTS {
            session.trouble = Some(Trouble::Repair(repair));
        } else {
            // What is well is not put back because of what is not.
            for class in 0..2 {
                if session.sound[class] {
                    self.found(now, session, &mut repair, class);
                }
            }
            self.next_attempt(now, session, repair);
        }
    }

    /// The gateway is well in a class: excludes whom its words had named there, and
    /// suspects nobody else.
    fn found(&mut self, now: Mono, session: &mut Session, repair: &mut Repair, class: usize) {
        let of_class = |key: &Key| class_of(key.0) == class;
        // Where several could have been meant, or all were put back, they are
        // news again: now that the gateway is sound, its answer is exact.
        let named: Vec<_> =
            repair.named.extract_if(.., |named| of_class(&key_of(&named.suspect.resource))).collect();
        let certain = named.into_iter().filter(|named| named.certain && repair.attempt == 1);
        for Named { suspect, words, .. } in certain {
            let from = session.position.clone();
            self.quarantine(now, session, &suspect.resource, suspect.added, &from, words);
        }
        for key in repair.hopeless.iter().filter(|key| of_class(key)) {
            session.keep_nothing_of(key);
        }
        repair.suspects.retain(|key, _| !of_class(key));
        for keys in [&mut repair.culprits, &mut repair.due, &mut repair.under_way, &mut repair.hopeless] {
            keys.retain(|key| !of_class(key));
        }
    }

    pub(super) fn next_attempt(&mut self, now: Mono, session: &mut Session, mut repair: Repair) {
        if repair.attempt == ATTEMPTS {
            self.start_anew(now, session, repair.message);
            return;
        }
        repair.attempt += 1;
        if repair.attempt == ATTEMPTS {
            for culprit in &repair.culprits {
                session.keep_nothing_of(culprit);
            }
        }
        session.trouble = Some(Trouble::Repair(repair));
    }
}

/// Whom a gateway's words name: one, or several of one name. The first name in
/// them that is anybody's counts, and before it they may say what kind it is;
/// what comes after it may be a tenant's own text.
pub(super) fn accused(words: &str, known: impl Fn(&Key) -> bool, exists: impl Fn(&Key) -> bool) -> Vec<Key> {
    let in_name = |character: char| character.is_ascii_alphanumeric() || "-./".contains(character);
    let mut before = Vec::new();
    for word in words.split(|character| !in_name(character)) {
        let key = word.trim_matches(['.', '/']).split_once('/').map(|(ns, name)| ObjectKey::new(ns, name));
        let of_name = |key: ObjectKey| -> Vec<Key> {
            let keys = Kind::ALL.into_iter().map(|kind| (kind, key.clone()));
            keys.filter(|key| known(key) || exists(key)).collect()
        };
        let mut found = key.map(of_name).unwrap_or_default();
        if found.is_empty() {
            before.push(word);
            continue;
        }
        found.retain(&known);
        let says = |word: &str| before.contains(&word);
        let exact = |kind: Kind| says(kind.name());
        let rough = |kind: Kind| says(if kind.is_route() { "route" } else { "backend" });
        if found.iter().any(|(kind, _)| exact(*kind)) {
            found.retain(|(kind, _)| exact(*kind));
        } else if Kind::ALL.into_iter().any(|kind| exact(kind) || rough(kind)) {
            found.retain(|(kind, _)| rough(*kind));
        }
        return found;
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_gateway_name_one_suspect() {
        let key = |kind, text: &str| {
            let (namespace, name) = text.split_once('/').unwrap();
            (kind, ObjectKey::new(namespace, name))
        };
        let known = [
            key(Kind::ApiRoute, "a/x"),
            key(Kind::Backend, "a/x"),
            key(Kind::ApiRoute, "a/x-1"),
            key(Kind::GrpcBackend, "b/y.z"),
        ];
        let check = |words: &str, expected: &[usize]| {
            let exists = |(_, key): &Key| key.name.starts_with("other");
            let found = accused(words, |key| known.contains(key), exists);
            let expected: Vec<_> = expected.iter().map(|index| known[*index].clone()).collect();
            assert_eq!(found, expected, "{words}");
        };
        check("failed to compile route a/x: bad path matcher", &[0]);
        check("failed to load Backend a/x (a/x): a backend needs hosts", &[1]);
        check("a/x cannot be loaded", &[0, 1]);
        check("duplicate route name: a/x-1", &[2]);
        check("cannot parse `b/y.z`.", &[3]);
        check("failed to compile route a/x-1: missing ) in a/x", &[2]);
        check("failed to compile route other/x: missing )", &[]);
        check("failed to load GRPCRoute a/x-1", &[]);
        check("failed to load backend a/x-1", &[]);
        check("failed to compile route a/other: missing ) in a/x-1", &[]);
        check("cannot load", &[]);
    }
}

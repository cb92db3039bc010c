//! The objects of all delivered kinds, what they compile to, and what changed
//! when: a replica's copy of the log.
//!
//! The store is a pure function of its inputs. Lists and watch events of one
//! kind come in the order of that kind's revisions; nothing is assumed about
//! the order between kinds. What is *news* to a gateway is found through an
//! index by revision, so that a difference costs as much as there are changes
//! in it and nothing per object.

mod contest;
mod entry;
mod news;
mod outcome;
mod tombstones;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use entry::ContentView;
pub(crate) use entry::{Born, Entry, Mark, Stamp};
pub(crate) use tombstones::Grave;

use crate::breakage::{Breakage, Breakages};
use crate::claims::{Claims, Holder};
use crate::compile::Compiler;
use crate::delivery::{Scope, Tombstone};
use crate::ids::{Frontier, Kind, ObjectKey, Revision};
use crate::object::{RawObject, Resource};
use crate::version::content_hash;
use contest::set_claims;
use news::News;
use outcome::{being_deleted, set_references};
use tombstones::Tombstones;

/// What became of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    /// It is the kind's state now.
    Taken,
    /// It is older than what was seen, and was ignored.
    Stale {
        /// What had been seen.
        seen: Revision,
    },
}

/// How many resources there are and how many bytes they need in messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub count: usize,
    pub bytes: u64,
}

#[derive(Debug, Clone, Default)]
struct KindState {
    listed: bool,
    /// Boxed, as the nodes of a map are half empty after a list.
    entries: BTreeMap<ObjectKey, Box<Entry>>,
    tombstones: Tombstones,
}

/// Object → what depends on its existence.
type Dependents = BTreeMap<(Kind, ObjectKey), BTreeSet<(Kind, ObjectKey)>>;

/// Cause and revision of a change → what it replaced the outcome of.
type PreviousIndex = BTreeSet<(Kind, Revision, Kind, ObjectKey)>;

/// See the module's description.
#[derive(Debug, Clone)]
pub struct Store {
    kinds: [KindState; Kind::COUNT],
    frontier: Frontier,
    news: News,
    /// Referenced object → objects whose outcome depends on its existence;
    /// kept equal to the entries' `references`.
    dependents: Dependents,
    /// What objects claim; kept equal to the entries' `claims`.
    claims: Claims,
    /// Which entries have a `previous`, by what replaced it.
    previous: PreviousIndex,
    /// Live objects whose status changed after their content, by the revision
    /// of that change or of the list that showed it; each object once, kept
    /// equal to the entries' `restated`.
    restated: BTreeSet<(Kind, Revision, ObjectKey)>,
    /// Sums over the entries with an outcome, by namespace and kind.
    totals: BTreeMap<Arc<str>, [Totals; Kind::COUNT]>,
    /// The sum of `totals`, which most gateways ask for.
    all: [Totals; Kind::COUNT],
    /// Sums of the hashes of what gateways get, by namespace; the same
    /// namespaces as in `totals`.
    digests: BTreeMap<Arc<str>, u64>,
    /// The last event seen of each kind, or what a list showed of it.
    events: Frontier,
    stamps: u64,
    changes: u64,
    /// Moves with those of them that may change what a gateway lacks.
    revised: u64,
    message_limit: u64,
    tombstone_bound: usize,
    /// While a list is read: who is to be judged again, and because of which change.
    postponed: Option<Vec<(BTreeSet<Holder>, Kind, Revision)>>,
    breakage: Breakages,
}

/// What a list shows was not seen to happen.
#[derive(Debug, Clone, Copy)]
struct Unseen {
    /// How far events had been seen before the list.
    from: Revision,
    /// The list's revision.
    listed: Revision,
}

impl Store {
    /// An empty store. Resources that do not fit into a message of
    /// `message_limit` bytes compile to nothing; at most `tombstone_bound`
    /// deletions are kept per kind.
    pub fn new(message_limit: u64, tombstone_bound: usize, breakage: Breakages) -> Self {
        Store {
            kinds: Default::default(),
            frontier: Frontier::default(),
            news: News::default(),
            dependents: BTreeMap::new(),
            claims: Claims::default(),
            previous: BTreeSet::new(),
            restated: BTreeSet::new(),
            totals: BTreeMap::new(),
            all: Default::default(),
            digests: BTreeMap::new(),
            events: Frontier::default(),
            stamps: 0,
            changes: 0,
            revised: 0,
            message_limit,
            tombstone_bound,
            postponed: None,
            breakage,
        }
    }

    /// Whether every kind was listed at least once: before that nothing may be
    /// concluded from an object's absence.
    pub fn ready(&self) -> bool {
        self.kinds.iter().all(|state| state.listed)
    }

    /// Whether all kinds that were listed are seen as far as a frontier says.
    pub fn listed_reach(&self, high: &Frontier) -> bool {
        let mut listed = Kind::ALL.into_iter().filter(|kind| self.kinds[kind.index()].listed);
        listed.all(|kind| self.frontier.get(kind) >= high.get(kind))
    }

    /// How far everything is seen.
    pub fn frontier(&self) -> Frontier {
        self.frontier
    }

    /// The last event of each kind that was seen: replicas for which it is the
    /// same hold the same. Bookmarks do not move it, as they come to each
    /// replica at other revisions.
    pub fn events(&self) -> Frontier {
        self.events
    }

    /// For each namespace with delivered resources the sum of their hashes:
    /// equal in every process and release exactly when the resources are, but
    /// for one case in 2^64.
    pub fn digests(&self) -> &BTreeMap<Arc<str>, u64> {
        &self.digests
    }

    /// Moves with every input that changed anything, the frontier included.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Moves with what may change what a gateway lacks: not with statuses and bookmarks,
    /// which move the frontier only.
    pub fn revised(&self) -> u64 {
        self.revised
    }

    /// A complete list of one kind at a revision. Deletions that it implies
    /// carry the list's revision.
    pub fn listed(
        &mut self,
        compiler: &dyn Compiler,
        kind: Kind,
        revision: Revision,
        mut objects: Vec<RawObject>,
    ) -> Listed {
        let seen = self.frontier.get(kind);
        if revision < seen && !self.breakage.is(Breakage::StaleListTaken) {
            return Listed::Stale { seen };
        }
        self.changes += 1;
        self.revised += 1;
        self.frontier.advance(kind, revision);
        let state = &mut self.kinds[kind.index()];
        if !state.listed {
            state.listed = true;
            state.tombstones.start(revision);
        } else if revision > seen {
            state.tombstones.skipped(seen, revision);
        }
        // Whom changes concern may have changed, too: what was never so together must
        // not count as having been.
        self.postponed = Some(Vec::new());
        let mut gone: BTreeSet<ObjectKey> = state.entries.keys().cloned().collect();
        // Winners before losers, so that nobody loses who had only just won.
        objects.sort_by_cached_key(Holder::of);
        let mut unseen = BTreeSet::new();
        for object in objects {
            let key = object.key.clone();
            if gone.remove(&key) && object.revision > seen {
                unseen.insert(key.clone());
            }
            self.events.advance(kind, object.revision);
            self.upsert(compiler, object, Some(Unseen { from: seen, listed: revision }));
            self.may_have_won(kind, &key);
        }
        if !gone.is_empty() {
            self.events.advance(kind, revision);
        }
        for key in gone {
            self.remove(compiler, kind, &key, revision, false);
        }
        for (concerned, cause, at) in self.postponed.take().unwrap_or_default() {
            let held: Vec<_> = concerned.iter().map(|holder| (holder.kind, holder.key.clone())).collect();
            self.judge_again(compiler, concerned, cause, at);
            held.into_iter().for_each(|(kind, key)| self.may_have_won(kind, &key));
        }
        self.recall(compiler, kind, &unseen, revision);
        Listed::Taken
    }

    /// An object was created or modified.
    pub fn changed(&mut self, compiler: &dyn Compiler, object: RawObject) {
        self.changes += 1;
        self.frontier.advance(object.kind, object.revision);
        self.events.advance(object.kind, object.revision);
        self.upsert(compiler, object, None);
    }

    /// An object was deleted at a revision.
    pub fn deleted(&mut self, compiler: &dyn Compiler, kind: Kind, key: &ObjectKey, revision: Revision) {
        self.changes += 1;
        self.revised += 1;
        self.frontier.advance(kind, revision);
        self.events.advance(kind, revision);
        self.remove(compiler, kind, key, revision, true);
    }

    /// Everything of a kind up to a revision has been seen.
    pub fn bookmark(&mut self, kind: Kind, revision: Revision) {
        if revision > self.frontier.get(kind) {
            self.changes += 1;
            self.frontier.advance(kind, revision);
        }
    }

    /// All deletions of a kind in (`since`, `until`], learned from elsewhere.
    /// Returns whether they reach up to what was known before; only then they
    /// are of use.
    pub fn history(
        &mut self,
        kind: Kind,
        since: Revision,
        until: Revision,
        tombstones: Vec<Tombstone>,
    ) -> bool {
        let state = &self.kinds[kind.index()];
        if !state.listed || until < state.tombstones.certain_from() {
            return false;
        }
        self.changes += 1;
        self.revised += 1;
        // First, so that what does not fit raises the floor again.
        self.kinds[kind.index()].tombstones.extend(since);
        for Tombstone { kind: buried, key, revision } in tombstones {
            // A key that lives is replaced by its upsert. One that was deleted beyond
            // our frontier may have been before, too: who answers knows of the last
            // deletion only. That it is absent here is certain.
            let revision = revision.min(self.frontier.get(kind));
            if revision > since && self.entry(buried, &key).is_some() {
                // What it lived through, we may not have seen.
                self.note(buried, &key, kind, revision);
                if buried == kind
                    && let Some(entry) = self.kinds[kind.index()].entries.get_mut(&key)
                {
                    entry.gone_at = entry.gone_at.max(Some(revision));
                }
            }
            let state = &self.kinds[kind.index()];
            let known = state.tombstones.get(&key).is_some_and(|grave| grave.revision >= revision);
            if buried != kind || revision <= since || known || state.entries.contains_key(&key) {
                continue;
            }
            let grave = Grave { revision, mark: self.new_mark(), absent_since: None, born: None };
            self.bury(kind, key.clone(), grave);
            for (dependent, dependent_key) in self.dependents_of(kind, &key) {
                self.note(dependent, &dependent_key, kind, revision);
            }
        }
        true
    }

    /// Deletions of a kind above a revision, up to the frontier, and what changes of
    /// the kind let be delivered since; `None` when not all of them are known.
    pub fn tombstones(&self, kind: Kind, since: Revision) -> Option<Vec<Tombstone>> {
        let state = &self.kinds[kind.index()];
        if !state.listed {
            return None;
        }
        let above = state.tombstones.since(since)?;
        // Who asks may not have read as far as to what lives again.
        let again = state.entries.iter().filter_map(|(key, entry)| {
            entry.gone_at.filter(|gone_at| *gone_at > since).map(|gone_at| (gone_at, key.clone()))
        });
        let all = above.into_iter().chain(again).map(|(revision, key)| Tombstone { kind, key, revision });
        Some(all.chain(self.healed(kind, since)).collect())
    }

    /// How many deletions of a kind are kept, and back to where.
    pub fn tombstone_count(&self, kind: Kind) -> (usize, Revision) {
        let tombstones = &self.kinds[kind.index()].tombstones;
        (tombstones.len(), tombstones.floor())
    }

    /// Whether everything is known that a gateway must be told to remove.
    pub(crate) fn covers(&self, kind: Kind, low: &Frontier, high: &Frontier) -> bool {
        self.kinds[kind.index()].tombstones.covers(low.get(kind), high.get(kind))
    }

    /// Whether anything that gateways get changed above this frontier.
    pub fn has_news_since(&self, low: &Frontier) -> bool {
        self.news.any_since(low)
    }

    /// Keys whose outcome may differ between a position and now.
    pub(crate) fn news(&self, low: &Frontier) -> BTreeSet<(Kind, &ObjectKey)> {
        self.news.since(low)
    }

    /// Live objects whose content or outcome changed above a frontier.
    pub fn changed_since(&self, frontier: &Frontier) -> Vec<(Kind, ObjectKey)> {
        let live = |(kind, key): &(Kind, &ObjectKey)| self.entry(*kind, key).is_some();
        self.news.since(frontier).into_iter().filter(live).map(|(kind, key)| (kind, key.clone())).collect()
    }

    /// Live objects whose status changed above a frontier and nothing else.
    pub fn restated_since(&self, frontier: &Frontier) -> Vec<(Kind, ObjectKey)> {
        let of = |kind: Kind| {
            let first = (kind, Revision(frontier.get(kind).0.saturating_add(1)), ObjectKey::first());
            let rows = self.restated.range(first..);
            rows.take_while(move |row| row.0 == kind).map(|(kind, _, key)| (*kind, key.clone()))
        };
        Kind::ALL.into_iter().flat_map(of).collect()
    }

    pub(crate) fn entry(&self, kind: Kind, key: &ObjectKey) -> Option<&Entry> {
        self.kinds[kind.index()].entries.get(key).map(Box::as_ref)
    }

    pub(crate) fn grave(&self, kind: Kind, key: &ObjectKey) -> Option<&Grave> {
        self.kinds[kind.index()].tombstones.get(key)
    }

    /// Whether there is such an object, or was one whose deletion is remembered.
    pub(crate) fn knows(&self, kind: Kind, key: &ObjectKey) -> bool {
        self.entry(kind, key).is_some() || self.grave(kind, key).is_some()
    }

    /// One object as last seen.
    pub fn object(&self, kind: Kind, key: &ObjectKey) -> Option<&RawObject> {
        self.entry(kind, key).map(|entry| &entry.object)
    }

    /// All objects of a kind in the order of their keys.
    pub fn objects(&self, kind: Kind) -> impl Iterator<Item = &RawObject> {
        self.kinds[kind.index()].entries.values().map(|entry| &entry.object)
    }

    /// One object's content.
    pub fn content_of(&self, kind: Kind, key: &ObjectKey) -> Option<ContentView<'_>> {
        self.entry(kind, key).map(Entry::view)
    }

    /// Everything that a scope's gateways are to hold, by kind and key.
    pub(crate) fn entries<'a>(
        &'a self,
        scope: &'a Scope,
    ) -> impl Iterator<Item = (&'a Entry, &'a Arc<Resource>)> {
        Kind::ALL
            .into_iter()
            .filter(|kind| scope.includes_kind(*kind))
            .flat_map(move |kind| scope.select_objects(&self.kinds[kind.index()].entries))
            .filter_map(|(_, entry)| entry.outcome.as_ref().ok().map(|resource| (&**entry, resource)))
    }

    /// Sums over a scope, per kind.
    pub(crate) fn totals(&self, scope: &Scope) -> [Totals; Kind::COUNT] {
        let mut sums = [Totals::default(); Kind::COUNT];
        let mut add = |totals: &[Totals; Kind::COUNT]| {
            for kind in Kind::ALL.into_iter().filter(|kind| scope.includes_kind(*kind)) {
                sums[kind.index()].count += totals[kind.index()].count;
                sums[kind.index()].bytes += totals[kind.index()].bytes;
            }
        };
        if scope.namespaces.is_empty() {
            add(&self.all);
        } else {
            scope.select(&self.totals).for_each(&mut add);
        }
        sums
    }

    /// What a gateway held of an object before its outcome changed to what it
    /// is now, or something newer that it never got: never something older.
    /// `reach`: what is beyond it the gateway did not have unless we know; `has`:
    /// whether something of an object of this birth was delivered beyond it.
    pub(crate) fn held_before(
        &self,
        kind: Kind,
        key: &ObjectKey,
        reach: &Frontier,
        has: impl Fn(Stamp) -> bool,
    ) -> Option<Arc<Resource>> {
        let entry = self.entry(kind, key)?;
        // What was delivered may have been that there is nothing.
        let previous = entry.previous.as_ref().filter(|old| !(old.vanished && has(entry.mark.birth)))?;
        let seen = previous.seen_until.is_none_or(|until| reach.get(kind) <= until);
        (seen && previous.revision > reach.get(previous.cause)).then(|| previous.resource.clone())
    }

    /// Drops previous resources that no gateway at or above `low` can need.
    pub(crate) fn forget_previous(&mut self, low: &Frontier) {
        for cause in Kind::ALL {
            let first = (cause, Revision(0), Kind::ApiRoute, ObjectKey::first());
            while let Some(row) = self.previous.range(first.clone()..).next() {
                if row.0 != cause || row.1 > low.get(cause) {
                    break;
                }
                let row = row.clone();
                self.previous.remove(&row);
                if let Some(entry) = self.kinds[row.2.index()].entries.get_mut(&row.3) {
                    entry.previous = None;
                }
            }
        }
    }

    /// How many previous resources are kept.
    pub fn previous_count(&self) -> usize {
        self.previous.len()
    }

    fn next_stamp(&mut self) -> Stamp {
        self.stamps += 1;
        Stamp(self.stamps)
    }

    fn new_mark(&mut self) -> Mark {
        Mark { outcome: self.next_stamp(), birth: self.next_stamp() }
    }

    fn exists(&self, kind: Kind, key: &ObjectKey) -> bool {
        self.entry(kind, key).is_some_and(|entry| !entry.object.deleting)
    }

    /// The revision at which an object's existence last changed.
    fn existence(&self, kind: Kind, key: &ObjectKey) -> Option<Revision> {
        let state = &self.kinds[kind.index()];
        let live = state.entries.get(key).map(|entry| entry.existence);
        live.or_else(|| state.tombstones.get(key).map(|grave| grave.revision))
    }

    fn dependents_of(&self, kind: Kind, key: &ObjectKey) -> Vec<(Kind, ObjectKey)> {
        self.dependents.get(&(kind, key.clone())).into_iter().flatten().cloned().collect()
    }

    /// `unseen` is set for objects of a list: what happened before it was not seen.
    fn upsert(&mut self, compiler: &dyn Compiler, object: RawObject, unseen: Option<Unseen>) {
        let (kind, key, revision) = (object.kind, object.key.clone(), object.revision);
        // A list that shows what no event told although we were beyond it: to
        // positions that were reached meanwhile it is news as of the list.
        let at = unseen.filter(|unseen| revision <= unseen.from).map_or(revision, |unseen| unseen.listed);
        let exists = !object.deleting;
        let (known, existed, replaced) = match self.kinds[kind.index()].entries.get_mut(&key) {
            Some(entry) => {
                let known = &entry.object;
                if revision <= known.revision {
                    return;
                }
                let same_content = known.has_content_of(&object);
                let restated = entry.restated.take();
                if let Some(before) = restated {
                    self.restated.remove(&(kind, before, key.clone()));
                }
                if same_content {
                    if restated.is_some() || known.status != object.status {
                        entry.restated = Some(at);
                        self.restated.insert((kind, at, key));
                    }
                    entry.object = object;
                    return;
                }
                self.revised += 1;
                let (existed, replaced) = (!known.deleting, known.uid != object.uid);
                entry.hash = content_hash(&object.uid, object.generation);
                entry.content = at;
                if existed != exists || replaced {
                    entry.existence = at;
                }
                entry.object = object;
                if unseen.is_some() {
                    // Between two invalid contents there may have been a valid one.
                    entry.absent_since.iter_mut().for_each(|absent| absent.advance(kind, at));
                }
                (true, existed, replaced)
            }
            None => {
                // What is older than its own deletion is an old answer.
                let state = &self.kinds[kind.index()];
                if state.tombstones.get(&key).is_some_and(|grave| grave.revision >= revision) {
                    return;
                }
                self.revised += 1;
                self.adopt(object, at, unseen.is_none());
                (false, false, true)
            }
        };
        self.recompile(compiler, kind, &key, kind, at);
        if known
            && let Some(entry) = self.kinds[kind.index()].entries.get_mut(&key)
            && let Some(previous) = &mut entry.previous
            && previous.revision == at
        {
            previous.seen_until = unseen.map(|unseen| unseen.from);
        }
        if existed != exists {
            self.existence_changed(compiler, kind, &key, at);
        } else if replaced {
            // It was gone, or there, for a while, which nobody told us.
            for (dependent, dependent_key) in self.dependents_of(kind, &key) {
                self.note(dependent, &dependent_key, kind, at);
            }
        }
    }

    /// Makes the entry of a new object, without an outcome yet: `at` this revision, and
    /// `seen_live` if not only a list showed it.
    fn adopt(&mut self, object: RawObject, at: Revision, seen_live: bool) {
        let mark = self.new_mark();
        let (kind, key) = (object.kind, &object.key);
        let state = &mut self.kinds[kind.index()];
        let mut absent_from = state.tombstones.certain_from();
        let grave = state.tombstones.raise(key).map(|grave| grave.revision);
        if let Some(revision) = grave {
            self.news.remove(kind, revision, kind, key);
            absent_from = absent_from.max(revision);
        }
        let mut absent_since = Frontier::default();
        absent_since.advance(kind, absent_from);
        if !seen_live {
            absent_since.advance(kind, at);
        }
        let entry = Entry {
            content: at,
            hash: content_hash(&object.uid, object.generation),
            existence: at,
            outcome: Err(being_deleted()),
            references: Vec::new(),
            claims: None,
            lost: None,
            healed: None,
            mark,
            caused: Frontier::default(),
            absent_since: Some(absent_since),
            restated: None,
            born: seen_live.then_some(Born { absent_from, at: object.revision }),
            gone_at: if seen_live { Some(absent_from) } else { grave },
            previous: None,
            object,
        };
        state.entries.insert(entry.object.key.clone(), Box::new(entry));
    }

    /// `seen`: the watch showed the deletion and everything before it.
    fn remove(
        &mut self,
        compiler: &dyn Compiler,
        kind: Kind,
        key: &ObjectKey,
        revision: Revision,
        seen: bool,
    ) {
        let Some(entry) = self.entry(kind, key) else {
            let buried = self.grave(kind, key).is_some_and(|grave| grave.revision >= revision);
            if !buried && revision > self.kinds[kind.index()].tombstones.floor() {
                let grave = Grave { revision, mark: self.new_mark(), absent_since: None, born: None };
                self.bury(kind, key.clone(), grave);
            }
            return;
        };
        if revision < entry.object.revision {
            return;
        }
        let Some(mut entry) = self.kinds[kind.index()].entries.remove(key) else { return };
        self.news.forget(&mut entry);
        set_references(&mut self.dependents, &mut entry, Vec::new());
        let concerned = set_claims(&mut self.claims, self.breakage, &mut entry, &[]);
        let stamp = self.next_stamp();
        if let Some(restated) = entry.restated {
            self.restated.remove(&(kind, restated, key.clone()));
        }
        if let Some(previous) = &entry.previous {
            self.previous.remove(&(previous.cause, previous.revision, kind, key.clone()));
        }
        self.account(entry.outcome.as_deref().ok(), None);
        let mark = Mark { outcome: stamp, birth: entry.mark.birth };
        let absent_since = entry.absent_since.filter(|_| seen);
        let grave = Grave { revision, mark, absent_since, born: entry.born };
        self.bury(kind, key.clone(), grave);
        if !entry.object.deleting {
            self.existence_changed(compiler, kind, key, revision);
        }
        self.judge_again(compiler, concerned, kind, revision);
    }

    fn bury(&mut self, kind: Kind, key: ObjectKey, grave: Grave) {
        let revision = grave.revision;
        let tombstones = &mut self.kinds[kind.index()].tombstones;
        if let Some(older) = tombstones.raise(&key) {
            self.news.remove(kind, older.revision, kind, &key);
        }
        self.news.insert(kind, revision, kind, &key);
        let forgetful = self.breakage.is(Breakage::TombstonesForgotten);
        let (floor, bound) = (tombstones.floor(), if forgetful { 1 } else { self.tombstone_bound });
        let dropped = tombstones.bury(key, grave, bound);
        if forgetful {
            tombstones.extend(floor);
        }
        for (revision, key) in dropped {
            self.news.remove(kind, revision, kind, &key);
        }
    }
}

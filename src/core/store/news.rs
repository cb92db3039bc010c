//! What changed when: the index behind every difference.

use std::collections::BTreeSet;

use super::entry::Entry;
use crate::ids::{Frontier, Kind, ObjectKey, Revision};

/// For each causing kind: (revision, kind and key of what changed). The cause
/// differs from the kind where an outcome depends on another object's
/// existence. Kept equal to the entries' `caused` and the tombstones.
#[derive(Debug, Clone, Default)]
pub(super) struct News {
    by_cause: [BTreeSet<(Revision, Kind, ObjectKey)>; Kind::COUNT],
}

impl News {
    pub fn insert(&mut self, cause: Kind, revision: Revision, kind: Kind, key: &ObjectKey) {
        self.by_cause[cause.index()].insert((revision, kind, key.clone()));
    }

    pub fn remove(&mut self, cause: Kind, revision: Revision, kind: Kind, key: &ObjectKey) {
        self.by_cause[cause.index()].remove(&(revision, kind, key.clone()));
    }

    /// Indexes what a change of `cause` has done to a live object; only the last per
    /// causing kind is kept.
    pub fn note(&mut self, entry: &mut Entry, cause: Kind, revision: Revision) {
        let known = entry.caused.get(cause);
        if revision <= known {
            return;
        }
        entry.caused.advance(cause, revision);
        let (kind, key) = (entry.object.kind, &entry.object.key);
        if known > Revision::default() {
            self.remove(cause, known, kind, key);
        }
        self.insert(cause, revision, kind, key);
    }

    /// Takes out all news of a live object.
    pub fn forget(&mut self, entry: &mut Entry) {
        let caused = std::mem::take(&mut entry.caused);
        for cause in Kind::ALL.into_iter().filter(|cause| caused.get(*cause) > Revision::default()) {
            self.remove(cause, caused.get(cause), entry.object.kind, &entry.object.key);
        }
    }

    /// Whether there is anything above a frontier.
    pub fn any_since(&self, low: &Frontier) -> bool {
        let newest = |cause: Kind| self.by_cause[cause.index()].last().map(|(revision, ..)| *revision);
        Kind::ALL.into_iter().any(|cause| newest(cause) > Some(low.get(cause)))
    }

    /// Everything above a frontier, each key once.
    pub fn since(&self, low: &Frontier) -> BTreeSet<(Kind, &ObjectKey)> {
        let mut found = BTreeSet::new();
        for cause in Kind::ALL {
            let Some(next) = low.get(cause).0.checked_add(1) else { continue };
            let above = (Revision(next), Kind::ApiRoute, ObjectKey::first());
            found.extend(self.by_cause[cause.index()].range(above..).map(|(_, kind, key)| (*kind, key)));
        }
        found
    }
}

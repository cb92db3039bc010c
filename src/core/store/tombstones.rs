//! Deletions of one kind, kept back to a floor.
//!
//! Two facts are tracked apart from the deletions themselves. The *floor*: a
//! gateway whose `low` is at or above it can be told of everything that was
//! deleted since. The *gap*: while a watch was cut and a new list was taken, an
//! object may have come and gone unseen; a gateway that was served by another
//! replica meanwhile may hold it.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::{Born, Mark};
use crate::ids::{Frontier, ObjectKey, Revision};

/// One deletion.
#[derive(Debug, Clone)]
pub(crate) struct Grave {
    /// When, or later: a deletion that a list showed carries the list's revision.
    pub revision: Revision,
    /// Names the absence, as a stamp names a content.
    pub mark: Mark,
    /// From this position on no gateway held a resource of it even before the
    /// object itself was gone.
    pub absent_since: Option<Frontier>,
    /// When the object had appeared, if that was seen.
    pub born: Option<Born>,
}

/// Deletions of one kind. `graves` and `by_age` hold the same keys.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tombstones {
    graves: BTreeMap<ObjectKey, Grave>,
    by_age: BTreeSet<(Revision, ObjectKey)>,
    floor: Revision,
    /// Positions with `low` below the second and `high` above the first may
    /// hold objects that we never saw. Oldest first and apart from each other:
    /// a gateway that was served here between two gaps stands at a boundary,
    /// and neither concerns it.
    gaps: Vec<(Revision, Revision)>,
}

/// More gaps than this are joined, oldest first.
const GAPS: usize = 32;

impl Tombstones {
    /// The first list: nothing is known of deletions before it.
    pub fn start(&mut self, at: Revision) {
        self.floor = at;
    }

    /// A later list: what came and went between the two is unknown.
    pub fn skipped(&mut self, from: Revision, to: Revision) {
        self.gaps.push((from, to));
        if self.gaps.len() > GAPS {
            let (oldest, _) = self.gaps.remove(0);
            self.gaps[0].0 = oldest;
        }
    }

    /// Whether everything that a gateway at this position must be told to
    /// remove is known.
    pub fn covers(&self, low: Revision, high: Revision) -> bool {
        low >= self.floor && self.gaps.iter().all(|(from, to)| high <= *from || low >= *to)
    }

    /// From here on every deletion is known, whoever served the gateway.
    pub fn certain_from(&self) -> Revision {
        self.gaps.last().map_or(self.floor, |(_, to)| self.floor.max(*to))
    }

    /// Adds a deletion, and drops the oldest beyond `bound`. Returns what was
    /// dropped, for the index.
    pub fn bury(&mut self, key: ObjectKey, grave: Grave, bound: usize) -> Vec<(Revision, ObjectKey)> {
        self.raise(&key);
        self.by_age.insert((grave.revision, key.clone()));
        self.graves.insert(key, grave);
        let mut dropped = Vec::new();
        while self.by_age.len() > bound {
            let Some((revision, key)) = self.by_age.pop_first() else { break };
            self.graves.remove(&key);
            self.floor = self.floor.max(revision);
            dropped.push((revision, key));
        }
        dropped
    }

    /// Removes a deletion: the key lives again.
    pub fn raise(&mut self, key: &ObjectKey) -> Option<Grave> {
        let grave = self.graves.remove(key)?;
        self.by_age.remove(&(grave.revision, key.clone()));
        Some(grave)
    }

    /// The deletion of a key.
    pub fn get(&self, key: &ObjectKey) -> Option<&Grave> {
        self.graves.get(key)
    }

    /// Everything deleted after `since` is known now.
    pub fn extend(&mut self, since: Revision) {
        self.floor = self.floor.min(since);
        self.gaps.iter_mut().for_each(|(_, to)| *to = (*to).min(since));
        self.gaps.retain(|(from, to)| from < to);
    }

    /// Deletions above a revision, oldest first; `None` when not all are known.
    pub fn since(&self, since: Revision) -> Option<Vec<(Revision, ObjectKey)>> {
        if since < self.certain_from() {
            return None;
        }
        let above = (Revision(since.0.saturating_add(1)), ObjectKey::new("", ""));
        Some(self.by_age.range(above..).cloned().collect())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.graves.len()
    }

    /// See the type's description.
    pub fn floor(&self) -> Revision {
        self.floor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grave(revision: u64) -> Grave {
        Grave { revision: Revision(revision), mark: Mark::default(), absent_since: None, born: None }
    }

    #[test]
    fn too_many_deletions_raise_the_floor() {
        let mut tombstones = Tombstones::default();
        tombstones.start(Revision(10));
        for n in 11..=14u64 {
            tombstones.bury(ObjectKey::new("n", n.to_string()), grave(n), 3);
        }
        assert_eq!((tombstones.len(), tombstones.floor()), (3, Revision(11)));
        assert!(!tombstones.covers(Revision(10), Revision(10)));
        assert!(tombstones.covers(Revision(11), Revision(11)));
        assert_eq!(tombstones.since(Revision(10)), None);
        assert_eq!(tombstones.since(Revision(12)).map(|t| t.len()), Some(2));
    }

    #[test]
    fn a_gap_matters_only_to_gateways_that_were_served_elsewhere_meanwhile() {
        let mut tombstones = Tombstones::default();
        tombstones.start(Revision(10));
        tombstones.skipped(Revision(20), Revision(30));
        assert!(tombstones.covers(Revision(20), Revision(20)), "our own gateway");
        assert!(tombstones.covers(Revision(30), Revision(35)), "got it all elsewhere");
        assert!(!tombstones.covers(Revision(25), Revision(25)));
        assert!(!tombstones.covers(Revision(15), Revision(25)), "in the middle of a batch");
        tombstones.extend(Revision(25));
        assert!(tombstones.covers(Revision(25), Revision(25)));
        assert!(!tombstones.covers(Revision(24), Revision(25)));
        tombstones.extend(Revision(5));
        assert!(tombstones.covers(Revision(5), Revision(25)));
    }

    #[test]
    fn gaps_are_kept_apart_so_that_a_gateway_between_two_stays_covered() {
        let mut tombstones = Tombstones::default();
        tombstones.start(Revision(10));
        tombstones.skipped(Revision(20), Revision(30));
        tombstones.skipped(Revision(30), Revision(40));
        assert!(tombstones.covers(Revision(30), Revision(30)), "our own gateway, served between both");
        assert!(tombstones.covers(Revision(20), Revision(20)), "our own gateway, not served since");
        assert!(!tombstones.covers(Revision(25), Revision(25)));
        assert!(!tombstones.covers(Revision(35), Revision(35)));
        assert_eq!(tombstones.certain_from(), Revision(40));
        tombstones.extend(Revision(35));
        assert!(tombstones.covers(Revision(36), Revision(36)));
        assert!(!tombstones.covers(Revision(25), Revision(25)), "the earlier one is still there");
        for n in 0..100u64 {
            tombstones.skipped(Revision(100 + 2 * n), Revision(101 + 2 * n));
        }
        assert!(tombstones.gaps.len() <= GAPS);
        assert!(!tombstones.covers(Revision(25), Revision(25)), "joined is not forgotten");
        assert!(tombstones.covers(Revision(299), Revision(299)));
    }
}

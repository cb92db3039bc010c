//! Which deletions a replica asks for ahead of the gateways that need them.
//!
//! A list says nothing of what was deleted before it. A gateway that comes from a peer may
//! not have heard of such a deletion, and has to wait until somebody has told which
//! there were. So they are asked for while nobody waits, back to where peers say that their
//! gateways are. What a gateway was before a peer's first table came is not known, and is
//! asked for when it comes.

use std::collections::BTreeSet;

use crate::delivery::AppliedTable;
use crate::ids::{Frontier, Kind, Revision};

/// How many places are remembered for each kind. One that is left out is covered by
/// what is asked for a gateway further back.
const PLACES: usize = 64;

/// Where the gateways of a table are: what each has applied of every kind, without those of
/// which nobody knows what they hold.
pub fn places(table: &AppliedTable) -> impl Iterator<Item = Frontier> {
    table.rows.iter().filter(|row| !row.unknown && row.gateways > 0).map(|row| row.low)
}

/// What is known of deletions, and what is still to be asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inheritance {
    kinds: [OfKind; Kind::COUNT],
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct OfKind {
    /// Where gateways of others were.
    places: BTreeSet<Revision>,
    /// Deletions above this one are known; `None` until everything is listed.
    known: Option<Revision>,
    /// Of those above this one and not above what is known, somebody may tell.
    untold: Revision,
    /// What is being asked.
    asked: Option<Revision>,
}

impl Inheritance {
    /// Gateways of others are there.
    pub fn hear(&mut self, places: impl IntoIterator<Item = Frontier>) {
        for place in places {
            for kind in Kind::ALL {
                self.kinds[kind.index()].hear(place.get(kind));
            }
        }
    }

    /// Everything was listed, as of these revisions.
    pub fn listed(&mut self, at: Frontier) {
        for kind in Kind::ALL {
            self.kinds[kind.index()].known.get_or_insert(at.get(kind));
        }
    }

    /// Deletions of which kinds are to be asked for now, above which revisions: one
    /// question for each kind at a time. First as far back as any gateway is; if nobody
    /// can tell that, because one has been away for long, half of the places are given up
    /// with each further question.
    pub fn wanted(&mut self) -> Vec<(Kind, Revision)> {
        let ask = |kind: Kind| self.kinds[kind.index()].ask().map(|since| (kind, since));
        Kind::ALL.into_iter().filter_map(ask).collect()
    }

    /// Somebody has told which were deleted above a revision, or nobody could.
    pub fn answered(&mut self, kind: Kind, since: Revision, told: bool) {
        let of = &mut self.kinds[kind.index()];
        of.asked = None;
        if told {
            of.known = of.known.min(Some(since));
        } else {
            of.untold = of.untold.max(since);
        }
    }
}

impl OfKind {
    fn hear(&mut self, place: Revision) {
        // Who asks from 0 on is told of any part of the history.
        if place == Revision(0) || self.known.is_some_and(|known| place >= known) {
            return;
        }
        self.places.insert(place);
        if self.places.len() > PLACES {
            let mut stays = false;
            self.places.retain(|_| {
                stays = !stays;
                stays
            });
        }
    }

    fn ask(&mut self) -> Option<Revision> {
        let known = self.known?;
        let untold = self.untold;
        self.places.retain(|place| *place > untold && *place < known);
        if self.asked.is_some() {
            return None;
        }
        let middle = if untold == Revision(0) { 0 } else { self.places.len() / 2 };
        self.asked = self.places.iter().nth(middle).copied();
        self.asked
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::delivery::{AppliedRow, Scope};

    /// Backends apart, everybody is at 50.
    fn place(backends: u64) -> Frontier {
        let mut place = Frontier::default();
        for kind in Kind::ALL {
            place.advance(kind, Revision(if kind == Kind::Backend { backends } else { 50 }));
        }
        place
    }

    fn hearing(backends: impl IntoIterator<Item = u64>) -> Inheritance {
        let mut inheritance = Inheritance::default();
        inheritance.hear(backends.into_iter().map(place));
        inheritance
    }

    fn question(since: u64) -> Vec<(Kind, Revision)> {
        vec![(Kind::Backend, Revision(since))]
    }

    #[test]
    fn who_is_known_counts() {
        let row = |backends: u64, unknown: bool, gateways: u32| AppliedRow {
            scope: Scope::default(),
            low: place(backends),
            excluded: Vec::new(),
            unknown,
            gateways,
            names: Vec::new(),
        };
        let rows = vec![row(30, false, 2), row(20, false, 1), row(5, true, 1), row(4, false, 0)];
        let table = AppliedTable { rows, rejections: Vec::new() };
        assert_eq!(places(&table).collect::<Vec<_>>(), [place(30), place(20)]);
    }

    #[test]
    fn nothing_is_asked_before_everything_is_listed_nor_twice() {
        let mut inheritance = hearing([30, 20, 45, 0]);
        assert_eq!(inheritance.wanted(), []);
        inheritance.listed(place(40));
        assert_eq!(inheritance.wanted(), question(20));
        inheritance.hear([place(10)]);
        assert_eq!(inheritance.wanted(), [], "one at a time");
        inheritance.answered(Kind::Backend, Revision(20), true);
        assert_eq!(inheritance.wanted(), question(10));
        inheritance.answered(Kind::Backend, Revision(10), true);
        inheritance.hear([place(10), place(15), place(40), place(60)]);
        assert_eq!(inheritance.wanted(), []);
    }

    #[test]
    fn one_that_nobody_can_tell_about_does_not_keep_the_others_waiting() {
        let mut inheritance = hearing([3, 31, 32, 33, 34]);
        inheritance.listed(place(40));
        assert_eq!(inheritance.wanted(), question(3));
        inheritance.answered(Kind::Backend, Revision(3), false);
        assert_eq!(inheritance.wanted(), question(33));
        inheritance.answered(Kind::Backend, Revision(33), true);
        assert_eq!(inheritance.wanted(), question(32));
        inheritance.answered(Kind::Backend, Revision(32), true);
        assert_eq!(inheritance.wanted(), question(31));
        inheritance.answered(Kind::Backend, Revision(31), true);
        inheritance.hear([place(2), place(3)]);
        assert_eq!(inheritance.wanted(), [], "who could not tell is not asked again");
    }

    proptest! {
        /// Whoever can tell from a revision on is asked for all gateways from there on, by
        /// few questions.
        #[test]
        fn all_that_can_be_told_is_asked_for(
            backends in proptest::collection::btree_set(1..1_000_u64, 0..50),
            told_from in 0..1_000_u64,
        ) {
            let mut inheritance = hearing(backends.iter().copied());
            inheritance.listed(place(2_000));
            let mut covered = 2_000;
            for _ in 0..12 {
                for (kind, since) in inheritance.wanted() {
                    let told = kind != Kind::Backend || since.0 >= told_from;
                    covered = if told && kind == Kind::Backend { covered.min(since.0) } else { covered };
                    inheritance.answered(kind, since, told);
                }
            }
            prop_assert_eq!(inheritance.wanted(), []);
            let first = backends.iter().copied().find(|place| *place >= told_from);
            prop_assert_eq!(covered, first.unwrap_or(2_000));
        }

        #[test]
        fn what_is_remembered_is_bounded_and_the_furthest_is(
            backends in proptest::collection::vec(1..100_000_u64, 1..1_000),
        ) {
            let furthest = *backends.iter().min().unwrap();
            let mut inheritance = hearing(backends);
            prop_assert!(inheritance.kinds.iter().all(|of| of.places.len() <= PLACES));
            inheritance.listed(place(200_000));
            prop_assert!(inheritance.wanted().contains(&(Kind::Backend, Revision(furthest))));
        }
    }
}

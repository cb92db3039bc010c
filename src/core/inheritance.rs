//! Which deletions a replica asks for ahead of the gateways that need them.
//!
//! A list says nothing of what was deleted before it. A gateway that comes from a peer may
//! not have heard of such a deletion, and has to wait until somebody has told which
//! there were. So they are asked for while nobody waits, back to where peers say that their
//! gateways are.

use std::collections::BTreeMap;

use crate::delivery::AppliedTable;
use crate::ids::{Frontier, Kind, MemberName, Revision};

/// By member, what all of its gateways have applied. Whoever is lost stays: its gateways
/// are those that come.
pub type Applied = BTreeMap<MemberName, Frontier>;

/// What all gateways of a table have applied, but those of which nobody knows what they
/// hold; `None` when there are no others.
pub fn by_all(table: &AppliedTable) -> Option<Frontier> {
    let lows = table.rows.iter().filter(|row| !row.unknown && row.gateways > 0).map(|row| row.low);
    lows.reduce(lower)
}

/// The earlier revision in every kind.
fn lower(one: Frontier, other: Frontier) -> Frontier {
    let mut lower = Frontier::default();
    for kind in Kind::ALL {
        lower.advance(kind, one.get(kind).min(other.get(kind)));
    }
    lower
}

/// The revisions above which deletions are known, or were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inheritance(Frontier);

impl Inheritance {
    /// Of who has just listed everything, as of these revisions.
    pub fn of(listed: Frontier) -> Self {
        Inheritance(listed)
    }

    /// Deletions of which kinds are to be asked for, above which revisions. Each once: who
    /// needs what nobody could tell asks again.
    pub fn wanted(&mut self, applied: &Applied) -> Vec<(Kind, Revision)> {
        let Some(all) = applied.values().copied().reduce(lower) else { return Vec::new() };
        let before = self.0;
        self.0 = lower(before, all);
        let lows = Kind::ALL.into_iter().map(|kind| (kind, all.get(kind)));
        lows.filter(|(kind, low)| *low < before.get(*kind)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::{AppliedRow, Scope};

    fn frontier(of: impl Fn(Kind) -> u64) -> Frontier {
        let mut frontier = Frontier::default();
        Kind::ALL.into_iter().for_each(|kind| frontier.advance(kind, Revision(of(kind))));
        frontier
    }

    fn row(low: u64, unknown: bool, gateways: u32) -> AppliedRow {
        let low = frontier(|kind| if kind == Kind::Backend { low } else { 50 });
        AppliedRow {
            scope: Scope::default(),
            low,
            excluded: Vec::new(),
            unknown,
            gateways,
            names: Vec::new(),
        }
    }

    #[test]
    fn who_is_furthest_behind_and_known_counts() {
        let rows = vec![row(30, false, 2), row(20, false, 1), row(5, true, 1), row(4, false, 0)];
        let table = AppliedTable { rows, rejections: Vec::new() };
        assert_eq!(by_all(&table), Some(row(20, false, 1).low));
        assert_eq!(by_all(&AppliedTable::default()), None);
    }

    #[test]
    fn what_is_known_is_not_asked_for() {
        let mut known = Inheritance::of(frontier(|_| 40));
        let applied = |low: u64| Applied::from([("a".into(), row(low, false, 1).low)]);
        assert_eq!(known.wanted(&Applied::default()), []);
        assert_eq!(known.wanted(&applied(40)), []);
        assert_eq!(known.wanted(&applied(39)), [(Kind::Backend, Revision(39))]);
        assert_eq!(known.wanted(&applied(39)), []);
        let mut two = applied(39);
        two.insert("b".into(), row(7, false, 1).low);
        assert_eq!(known.wanted(&two), [(Kind::Backend, Revision(7))]);
        assert_eq!(known.wanted(&applied(39)), []);
    }
}

//! How many gateways have an object: the sum of all replicas' tables.
//!
//! Since versions are frontiers, one small table per replica ("position → how
//! many gateways") answers the question for every object.

use std::collections::BTreeMap;

use crate::delivery::{AppliedRow, AppliedTable, Rejection, Scope};
use crate::ids::{GatewayId, Instance, Kind, MemberName, ObjectKey, Revision};
use crate::time::Mono;

/// How far one object has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// Connected gateways that are to have the object.
    pub gateways: u32,
    /// Those that have applied it at the asked content revision.
    pub applied: u32,
    /// Rejections in force of exactly this content: gateway and its words.
    pub rejections: Vec<(GatewayId, String)>,
    /// Identities of those that applied it; empty when there are too many to
    /// be listed.
    pub names: Vec<GatewayId>,
}

/// The tables of all replicas, keyed by member. A table leaves when its member
/// leaves the ShardMap, or is replaced when the member's process is.
#[derive(Debug, Default)]
pub struct AppliedView {
    tables: BTreeMap<MemberName, Entry>,
    /// Members of the ShardMap whose tables are needed, since when each is
    /// missing or its connection is lost.
    missing: BTreeMap<MemberName, Mono>,
    changes: u64,
}

#[derive(Debug)]
struct Entry {
    instance: Instance,
    table: AppliedTable,
}

impl AppliedView {
    /// Counts changes of the view; equal numbers mean nothing changed.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Takes a member's complete table.
    pub fn set(&mut self, member: &MemberName, instance: &Instance, table: AppliedTable) {
        self.missing.remove(member);
        let unchanged =
            self.tables.get(member).is_some_and(|known| known.instance == *instance && known.table == table);
        if !unchanged {
            self.tables.insert(member.clone(), Entry { instance: instance.clone(), table });
            self.changes += 1;
        }
    }

    /// The connection to a member is lost: its table stays, and is doubted.
    pub fn lost(&mut self, now: Mono, member: &MemberName) {
        self.missing.entry(member.clone()).or_insert(now);
    }

    /// The members of a newly published map: tables of others leave, tables
    /// that are not here yet are waited for.
    pub fn members(&mut self, now: Mono, members: &[MemberName]) {
        let before = self.tables.len();
        self.tables.retain(|member, _| members.contains(member));
        self.missing.retain(|member, _| members.contains(member));
        for member in members {
            if !self.tables.contains_key(member) {
                self.missing.entry(member.clone()).or_insert(now);
            }
        }
        if self.tables.len() != before {
            self.changes += 1;
        }
    }

    /// When the tables count as complete: `Some(now)` or earlier when no
    /// member's table is missing, otherwise the moment at which the longest
    /// allowed wait for the last missing one is over.
    pub fn complete_at(&self, patience: std::time::Duration) -> Mono {
        self.missing.values().map(|since| *since + patience).max().unwrap_or_default()
    }

    /// How far an object has come: `revision` is its content revision and
    /// `content` its content hash. `needed` says whether the object compiles to
    /// something at all; all counts are of gateways whose scope includes it.
    pub fn reach(&self, kind: Kind, key: &ObjectKey, revision: Revision, content: u32) -> Reach {
        let mut reach = Reach::default();
        let mut listed = true;
        for row in self.tables.values().flat_map(|entry| &entry.table.rows) {
            if !includes(&row.scope, kind, key) {
                continue;
            }
            reach.gateways += row.gateways;
            if !applied(row, kind, revision, content) {
                continue;
            }
            reach.applied += row.gateways;
            listed &= row.names.len() == row.gateways as usize;
            reach.names.extend(row.names.iter().cloned());
        }
        if !listed {
            reach.names.clear();
        }
        reach.names.sort();
        for rejection in self.tables.values().flat_map(|entry| &entry.table.rejections) {
            if same(rejection, kind, key, content) {
                reach.rejections.push((rejection.gateway.clone(), rejection.message.clone()));
            }
        }
        reach.rejections.sort();
        reach
    }

    /// All connected gateways, of any scope.
    pub fn gateways(&self) -> u32 {
        self.tables.values().flat_map(|entry| &entry.table.rows).map(|row| row.gateways).sum()
    }

    /// Connected gateways by member.
    pub fn gateways_by_member(&self) -> BTreeMap<MemberName, u32> {
        let count = |entry: &Entry| entry.table.rows.iter().map(|row| row.gateways).sum();
        self.tables.iter().map(|(member, entry)| (member.clone(), count(entry))).collect()
    }
}

fn includes(scope: &Scope, kind: Kind, key: &ObjectKey) -> bool {
    (scope.namespaces.is_empty() || scope.namespaces.contains(&key.namespace))
        && (scope.kinds.is_empty() || scope.kinds.contains(&kind))
}

fn applied(row: &AppliedRow, kind: Kind, revision: Revision, content: u32) -> bool {
    !row.unknown && row.low.get(kind) >= revision && !row.excluded.contains(&(kind, content))
}

fn same(rejection: &Rejection, kind: Kind, key: &ObjectKey, content: u32) -> bool {
    rejection.kind == kind && rejection.content == content && rejection.key == *key
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::ids::Frontier;

    fn row(low: u64, gateways: u32) -> AppliedRow {
        AppliedRow {
            scope: Scope::default(),
            low: Frontier([Revision(low); Kind::COUNT]),
            excluded: Vec::new(),
            unknown: false,
            gateways,
            names: Vec::new(),
        }
    }

    fn table(rows: Vec<AppliedRow>) -> AppliedTable {
        AppliedTable { rows, rejections: Vec::new() }
    }

    fn reach(view: &AppliedView, revision: u64) -> (u32, u32) {
        let reach = view.reach(Kind::Backend, &ObjectKey::new("n", "x"), Revision(revision), 7);
        (reach.applied, reach.gateways)
    }

    #[test]
    fn counts_are_summed_over_replicas() {
        let mut view = AppliedView::default();
        view.set(&"a".into(), &"a/1".into(), table(vec![row(10, 3), row(5, 1)]));
        view.set(&"b".into(), &"b/1".into(), table(vec![row(9, 2)]));
        assert_eq!(reach(&view, 9), (5, 6));
        assert_eq!(reach(&view, 10), (3, 6));
        assert_eq!(reach(&view, 11), (0, 6));
    }

    #[test]
    fn a_gateway_that_lacks_the_resource_does_not_count_as_applied() {
        let mut view = AppliedView::default();
        let without = AppliedRow { excluded: vec![(Kind::Backend, 7)], ..row(10, 1) };
        let unknown = AppliedRow { unknown: true, ..row(10, 1) };
        let elsewhere = AppliedRow {
            scope: Scope { namespaces: [Arc::from("other")].into(), ..Scope::default() },
            ..row(10, 5)
        };
        view.set(&"a".into(), &"a/1".into(), table(vec![row(10, 1), without, unknown, elsewhere]));
        assert_eq!(reach(&view, 9), (1, 3));
    }

    #[test]
    fn a_missing_table_is_waited_for_but_not_for_ever() {
        let mut view = AppliedView::default();
        let now = Mono(1_000_000_000);
        let patience = Duration::from_secs(6);
        view.members(now, &["a".into(), "b".into()]);
        assert_eq!(view.complete_at(patience), now + patience);
        view.set(&"a".into(), &"a/1".into(), AppliedTable::default());
        view.set(&"b".into(), &"b/1".into(), AppliedTable::default());
        assert!(view.complete_at(patience) <= now);
        view.lost(now, &"b".into());
        assert_eq!(view.complete_at(patience), now + patience);
        view.members(now, &["a".into()]);
        assert!(view.complete_at(patience) <= now);
    }
}

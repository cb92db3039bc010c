//! How many gateways have an object: the sum of all replicas' tables.
//!
//! Since versions are frontiers, one small table per replica ("position → how
//! many gateways") answers the question for every object.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::delivery::{AppliedRow, AppliedTable, NAMED, Rejection};
use crate::ids::{Frontier, GatewayId, Instance, Kind, MemberName, ObjectKey, Revision};
use crate::time::Mono;

/// How far one object has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// Connected gateways, whatever they are to have.
    pub connected: u32,
    /// Connected gateways that are to have the object.
    pub gateways: u32,
    /// Those that have applied it as it is now.
    pub applied: u32,
    /// Rejections in force of exactly this content: gateway and its words.
    pub rejections: Vec<(GatewayId, String)>,
    /// Identities of those that applied it; empty when there are more than a
    /// table names.
    pub names: Vec<GatewayId>,
}

impl Reach {
    /// Whether a gateway that is to have the object has neither applied nor
    /// rejected it.
    pub fn is_under_way(&self) -> bool {
        let rejected = u32::try_from(self.rejections.len()).unwrap_or(u32::MAX);
        self.applied.saturating_add(rejected) < self.gateways
    }
}

/// What of all tables moves when gateways come, go, or change without an object
/// having changed: not how far they have come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// Connected gateways.
    pub gateways: u32,
    /// Those of which it is not known what they hold.
    pub unknown: u32,
    /// What gateways lack because they rejected it, over all gateways.
    pub excluded: u64,
    /// Which gateways these are, as far as they are named, what each asks for
    /// and lacks: one that leaves while another joins changes no number above.
    pub identities: u64,
}

impl Census {
    fn of(table: &AppliedTable) -> Self {
        let mut census = Census::default();
        for row in &table.rows {
            census.gateways += row.gateways;
            census.unknown += if row.unknown { row.gateways } else { 0 };
            census.excluded += u64::from(row.gateways) * row.excluded.len() as u64;
            census.identities = census.identities.wrapping_add(identities(row));
        }
        census
    }
}

/// One member's table with its part in the census, which is asked for far more
/// often than it changes.
#[derive(Debug)]
struct Told {
    table: Arc<AppliedTable>,
    census: Census,
}

/// How long whoever has just been listed waits for members that no map lists: by the map
/// that lists it they hear of it, and then tell it their tables.
const GREETING: Duration = Duration::from_secs(1);

/// The tables of all replicas, keyed by member. A member tells its table once
/// and then only when it changes, so one is kept until the connection is lost, and longer
/// if the map lists its member. It counts also without: whoever was told to end leaves the
/// map at once and serves its gateways for seconds more, whoever the API server is away
/// for serves them for as long as that lasts, and they may lack what others have.
#[derive(Debug, Default)]
pub struct AppliedView {
    /// Moves with every change of what counts.
    version: u64,
    tables: BTreeMap<MemberName, Told>,
    /// Members of the ShardMap; before the first one there are none.
    members: BTreeSet<MemberName>,
    /// Members whose tables are needed: of those that the ShardMap lists, since when each is
    /// missing or its connection is lost; of others, since when one that spoke is doubted.
    missing: BTreeMap<MemberName, Mono>,
    /// As whom the ShardMap lists this replica, and until when it waits then for members
    /// that no map lists.
    greeting: Option<(Instance, Mono)>,
}

impl AppliedView {
    /// Takes a member's complete table.
    pub fn set(&mut self, member: &MemberName, table: impl Into<Arc<AppliedTable>>) {
        self.missing.remove(member);
        let table = table.into();
        if self.tables.get(member).is_none_or(|told| told.table != table) {
            self.version += 1;
            let census = Census::of(&table);
            self.tables.insert(member.clone(), Told { table, census });
        }
    }

    /// A number that moves whenever an answer of [`AppliedView::reach`] may be
    /// another one.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The connection to a member is lost: its table stays, and is doubted, for
    /// as long as the map lists it.
    pub fn lost(&mut self, now: Mono, member: &MemberName) {
        if self.members.contains(member) {
            self.missing.entry(member.clone()).or_insert(now);
        } else {
            self.version += 1;
            self.tables.remove(member);
            self.missing.remove(member);
        }
    }

    /// A member speaks over a new connection: what it told before is doubted until it tells
    /// its table, also when no map lists it.
    pub fn doubted(&mut self, now: Mono, member: &MemberName) {
        if self.members.contains(member) || self.tables.contains_key(member) {
            self.missing.entry(member.clone()).or_insert(now);
        }
    }

    /// As whom the newest map lists this replica. Each time that this is somebody new, those
    /// that no map lists are waited for.
    pub fn listed_as(&mut self, now: Mono, instance: Option<&Instance>) {
        let Some(instance) = instance else { return };
        if self.greeting.as_ref().is_none_or(|(known, _)| known != instance) {
            self.greeting = Some((instance.clone(), now + GREETING));
        }
    }

    /// The members of the newest map: tables that are not here yet are waited for,
    /// those of members that are not listed any more count until their connection is lost.
    pub fn members(&mut self, now: Mono, members: &[MemberName]) {
        let before = std::mem::replace(&mut self.members, members.iter().cloned().collect());
        if self.members == before {
            return;
        }
        self.version += 1;
        // Of those that have left, the connections that were lost stay lost.
        let gone: Vec<MemberName> = before.difference(&self.members).cloned().collect();
        for member in gone {
            if self.missing.remove(&member).is_some() {
                self.tables.remove(&member);
            }
        }
        for member in members {
            if !self.tables.contains_key(member) {
                self.missing.entry(member.clone()).or_insert(now);
            }
        }
    }

    /// How many members the newest map has; 0 before the first one.
    pub fn member_count(&self) -> u32 {
        u32::try_from(self.members.len()).unwrap_or(u32::MAX)
    }

    /// Whether no table is waited for.
    pub fn is_complete(&self, now: Mono) -> bool {
        self.missing.is_empty() && self.greeted_at() <= now
    }

    /// From when on the tables count as complete: when the longest allowed wait for those that
    /// are missing is over, and that for members that no map lists. In the past when nothing is waited for.
    pub fn complete_at(&self, patience: Duration) -> Mono {
        let missing = self.missing.values().map(|since| *since + patience).max();
        missing.unwrap_or_default().max(self.greeted_at())
    }

    fn greeted_at(&self) -> Mono {
        self.greeting.as_ref().map(|(_, until)| *until).unwrap_or_default()
    }

    /// How far an object has come: `needs` is what a position must have reached
    /// to have it as it is now (its own content, and the existence of what it
    /// names), `content` its content hash. All counts but that of connected
    /// gateways are of those whose scope includes it.
    pub fn reach(&self, kind: Kind, key: &ObjectKey, needs: &Frontier, content: u32) -> Reach {
        let mut reach = Reach::default();
        let mut listed = true;
        for row in self.rows() {
            reach.connected += row.gateways;
            if !row.scope.includes(kind, key) {
                continue;
            }
            reach.gateways += row.gateways;
            if !applied(row, kind, needs, content) {
                continue;
            }
            reach.applied += row.gateways;
            listed &= row.names.len() == row.gateways as usize && reach.applied as usize <= NAMED;
            if listed {
                reach.names.extend(row.names.iter().cloned());
            }
        }
        if !listed {
            reach.names.clear();
        }
        reach.names.sort();
        for rejection in self.rejections(kind, key, content) {
            reach.rejections.push((rejection.gateway.clone(), rejection.message.clone()));
        }
        reach.rejections.sort();
        reach
    }

    /// Whether the object is under way: what [`Reach::is_under_way`] says of the
    /// same question, without anybody's name.
    pub fn is_under_way(&self, kind: Kind, key: &ObjectKey, needs: &Frontier, content: u32) -> bool {
        let lacking = self.lacking(kind, key, |row| applied(row, kind, needs, content));
        lacking > 0 && self.rejections(kind, key, content).count() < lacking as usize
    }

    /// Connected gateways of which it is not known that they have let go an object whose
    /// deletion was seen at this revision.
    pub fn holding(&self, kind: Kind, key: &ObjectKey, deleted: Revision) -> u32 {
        self.lacking(kind, key, |row| !row.unknown && row.low.get(kind) >= deleted)
    }

    /// Gateways whose scope includes an object and whose row is not as it has to be.
    fn lacking(&self, kind: Kind, key: &ObjectKey, has: impl Fn(&AppliedRow) -> bool) -> u32 {
        let lacks = |row: &&AppliedRow| row.scope.includes(kind, key) && !has(row);
        self.rows().filter(lacks).map(|row| row.gateways).sum()
    }

    fn rows(&self) -> impl Iterator<Item = &AppliedRow> {
        self.tables.values().flat_map(|told| &told.table.rows)
    }

    /// Rejections in force of exactly this content.
    fn rejections(&self, kind: Kind, key: &ObjectKey, content: u32) -> impl Iterator<Item = &Rejection> {
        let all = self.tables.values().flat_map(|told| &told.table.rejections);
        all.filter(move |rejection| same(rejection, kind, key, content))
    }

    /// Gateways of any scope, and what can change about them.
    pub fn census(&self) -> Census {
        self.tables.values().fold(Census::default(), |sum, told| Census {
            gateways: sum.gateways + told.census.gateways,
            unknown: sum.unknown + told.census.unknown,
            excluded: sum.excluded + told.census.excluded,
            identities: sum.identities.wrapping_add(told.census.identities),
        })
    }

    /// Connected gateways by member.
    pub fn gateways_by_member(&self) -> BTreeMap<MemberName, u32> {
        self.tables.iter().map(|(member, told)| (member.clone(), told.census.gateways)).collect()
    }
}

fn applied(row: &AppliedRow, kind: Kind, needs: &Frontier, content: u32) -> bool {
    !row.unknown && row.low.reached(needs) && !row.excluded.contains(&(kind, content))
}

/// A row's part in [`Census::identities`]. How far a gateway has come is left
/// out, and sums do not care how gateways are spread over rows and replicas.
fn identities(row: &AppliedRow) -> u64 {
    let mut kind_of_row = DefaultHasher::new();
    (&row.scope, &row.excluded, row.unknown).hash(&mut kind_of_row);
    let kind_of_row = kind_of_row.finish().wrapping_mul(u64::from(row.gateways));
    row.names.iter().fold(kind_of_row, |sum, GatewayId { namespace, name }| {
        // Every table names up to all of its gateways, and tables come often.
        let namespace = xxh3_64(namespace.as_bytes());
        sum.wrapping_add(xxh3_64_with_seed(name.as_bytes(), namespace))
    })
}

fn same(rejection: &Rejection, kind: Kind, key: &ObjectKey, content: u32) -> bool {
    rejection.kind == kind && rejection.content == content && rejection.key == *key
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::delivery::Scope;

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
        let mut needs = Frontier::default();
        needs.advance(Kind::Backend, Revision(revision));
        let reach = view.reach(Kind::Backend, &ObjectKey::new("n", "x"), &needs, 7);
        (reach.applied, reach.gateways)
    }

    #[test]
    fn whoever_has_not_reached_a_deletion_may_hold_the_object() {
        let mut view = AppliedView::default();
        let unknown = AppliedRow { unknown: true, ..row(99, 4) };
        let elsewhere = Scope { namespaces: [Arc::from("other")].into(), ..Scope::default() };
        let other = AppliedRow { scope: elsewhere, ..row(1, 8) };
        view.set(&"a".into(), table(vec![row(10, 1), row(9, 2), unknown, other]));
        let holding = |revision| view.holding(Kind::Backend, &ObjectKey::new("n", "x"), Revision(revision));
        assert_eq!([9, 10, 11].map(holding), [4, 6, 7]);
    }

    #[test]
    fn counts_are_summed_over_replicas() {
        let mut view = AppliedView::default();
        view.set(&"a".into(), table(vec![row(10, 3), row(5, 1)]));
        view.set(&"b".into(), table(vec![row(9, 2)]));
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
        view.set(&"a".into(), table(vec![row(10, 1), without, unknown, elsewhere]));
        assert_eq!(reach(&view, 9), (1, 3));
    }

    #[test]
    fn an_object_is_under_way_until_each_gateway_has_taken_or_rejected_it() {
        let rejection = |name: &str, content| Rejection {
            kind: Kind::Backend,
            key: ObjectKey::new("n", "x"),
            content,
            gateway: GatewayId { namespace: "edge".into(), name: name.into() },
            message: "no".to_owned(),
        };
        let lacking = |gateways| AppliedRow { excluded: vec![(Kind::Backend, 7)], ..row(10, gateways) };
        let elsewhere = AppliedRow {
            scope: Scope { namespaces: [Arc::from("other")].into(), ..Scope::default() },
            ..row(1, 5)
        };
        let check = |rows: Vec<AppliedRow>, rejections: Vec<Rejection>, expected: bool| {
            let mut view = AppliedView::default();
            view.set(&"a".into(), AppliedTable { rows, rejections });
            let (key, mut needs) = (ObjectKey::new("n", "x"), Frontier::default());
            needs.advance(Kind::Backend, Revision(9));
            assert_eq!(view.is_under_way(Kind::Backend, &key, &needs, 7), expected);
            assert_eq!(view.reach(Kind::Backend, &key, &needs, 7).is_under_way(), expected);
        };
        check(vec![], vec![], false);
        check(vec![row(10, 3)], vec![], false);
        check(vec![row(10, 3), row(8, 1)], vec![], true);
        check(vec![row(10, 3), elsewhere], vec![], false);
        check(vec![row(10, 3), lacking(2)], vec![rejection("g0", 7)], true);
        check(vec![row(10, 3), lacking(2)], vec![rejection("g0", 7), rejection("g1", 7)], false);
        check(vec![row(10, 3), lacking(1)], vec![rejection("g0", 6)], true);
    }

    #[test]
    fn more_gateways_than_a_table_names_are_not_named() {
        let named = |gateways: usize| {
            let name = |n| GatewayId { namespace: "edge".into(), name: format!("g{n}").into() };
            AppliedRow { names: (0..gateways).map(name).collect(), ..row(10, gateways as u32) }
        };
        let names = |rows: Vec<AppliedRow>| {
            let mut view = AppliedView::default();
            view.set(&"a".into(), table(rows));
            let reach = view.reach(Kind::Backend, &ObjectKey::new("n", "x"), &Frontier::default(), 7);
            reach.names.len()
        };
        assert_eq!(names(vec![named(16), named(16)]), 32);
        assert_eq!(names(vec![named(16), named(17)]), 0);
    }

    #[test]
    fn a_gateway_without_what_an_object_depends_on_does_not_have_the_object() {
        let mut view = AppliedView::default();
        let mut ahead = row(10, 1);
        ahead.low.advance(Kind::ApiRoute, Revision(20));
        view.set(&"a".into(), table(vec![ahead, row(20, 2)]));
        let mut needs = Frontier::default();
        needs.advance(Kind::ApiRoute, Revision(10));
        let applied =
            |needs: &Frontier| view.reach(Kind::ApiRoute, &ObjectKey::new("n", "x"), needs, 7).applied;
        assert_eq!(applied(&needs), 3);
        needs.advance(Kind::Backend, Revision(15));
        assert_eq!(applied(&needs), 2, "a Backend that the route names appeared at 15");
    }

    #[test]
    fn a_swap_of_two_gateways_moves_the_census_and_progress_does_not() {
        let named = |low, name: &str| {
            let name = GatewayId { namespace: "edge".into(), name: name.into() };
            AppliedRow { names: vec![name], ..row(low, 1) }
        };
        let census = |rows: Vec<AppliedRow>| {
            let mut view = AppliedView::default();
            view.set(&"a".into(), table(rows));
            view.census()
        };
        let before = census(vec![named(10, "g0"), named(10, "g1")]);
        assert_eq!(census(vec![named(20, "g1"), named(15, "g0")]), before, "they only got further");
        assert_ne!(census(vec![named(10, "g0"), named(10, "g2")]), before);
        let scoped = Scope { namespaces: [Arc::from("other")].into(), ..Scope::default() };
        assert_ne!(
            census(vec![AppliedRow { scope: scoped, ..named(10, "g0") }, named(10, "g1")]),
            before,
            "another scope is another gateway"
        );
    }

    #[test]
    fn a_table_counts_before_the_map_lists_its_member() {
        let mut view = AppliedView::default();
        let now = Mono(1_000_000_000);
        view.members(now, &["a".into()]);
        view.set(&"a".into(), table(vec![row(10, 3)]));
        view.set(&"b".into(), table(vec![row(10, 2)]));
        assert_eq!(reach(&view, 10), (5, 5));
        view.members(now, &["a".into(), "b".into()]);
        assert!(view.is_complete(now));
        assert_eq!(reach(&view, 10), (5, 5));
        view.members(now, &["a".into()]);
        view.lost(now, &"b".into());
        assert_eq!(reach(&view, 10), (3, 3));
        view.members(now, &["a".into(), "b".into()]);
        assert!(!view.is_complete(now), "what was lost has to be told again");
        assert_eq!(reach(&view, 10), (3, 3));
    }

    #[test]
    fn a_member_that_has_left_the_map_counts_until_its_connection_is_lost() {
        let mut view = AppliedView::default();
        let now = Mono(1_000_000_000);
        view.members(now, &["a".into(), "b".into()]);
        view.set(&"a".into(), table(vec![row(10, 3)]));
        view.set(&"b".into(), table(vec![row(9, 2)]));
        view.members(now, &["a".into()]);
        assert_eq!(reach(&view, 10), (3, 5), "its gateways are still there");
        view.set(&"b".into(), table(vec![row(10, 1)]));
        assert_eq!(reach(&view, 10), (4, 4), "and go on, and go away");
        assert!(view.is_complete(now));
        view.lost(now, &"b".into());
        assert_eq!(reach(&view, 10), (3, 3));
    }

    #[test]
    fn who_is_newly_listed_waits_a_moment_for_those_that_no_map_lists() {
        let mut view = AppliedView::default();
        let now = Mono(1_000_000_000);
        let mut complete = |now, instance: Option<&str>| {
            view.listed_as(now, instance.map(Instance::from).as_ref());
            view.is_complete(now)
        };
        assert!(complete(now, None), "before a map lists it, it acts on nothing");
        assert!(complete(now, Some("a/1")) != complete(now + GREETING, Some("a/1")));
        let later = now + GREETING * 5;
        assert!(complete(later, None) && complete(later, Some("a/1")), "once");
        assert!(!complete(later, Some("a/1.1")), "a new tenure");
        assert!(complete(later + GREETING, Some("a/1.1")));
    }

    #[test]
    fn who_speaks_anew_is_waited_for_also_when_no_map_lists_it() {
        let mut view = AppliedView::default();
        let now = Mono(1_000_000_000);
        view.members(now, &["a".into()]);
        view.set(&"a".into(), table(vec![row(10, 3)]));
        view.set(&"cut-off".into(), table(vec![row(9, 2)]));
        view.doubted(now, &"cut-off".into());
        view.doubted(now, &"starting".into());
        view.members(now, &["a".into()]);
        assert_eq!((view.is_complete(now), reach(&view, 10)), (false, (3, 5)));
        view.set(&"cut-off".into(), table(vec![row(10, 2)]));
        assert_eq!((view.is_complete(now), reach(&view, 10)), (true, (5, 5)));
    }

    #[test]
    fn a_missing_table_is_waited_for_but_not_for_ever() {
        let mut view = AppliedView::default();
        let now = Mono(1_000_000_000);
        let patience = Duration::from_secs(6);
        view.members(now, &["a".into(), "b".into()]);
        assert_eq!(view.complete_at(patience), now + patience);
        view.set(&"a".into(), AppliedTable::default());
        view.set(&"b".into(), AppliedTable::default());
        assert!(view.is_complete(now));
        view.lost(now, &"b".into());
        assert_eq!(view.complete_at(patience), now + patience);
        view.members(now, &["a".into()]);
        assert!(view.is_complete(now));
    }
}

//! The ShardMap: which members there are, and what operators asked for.
//!
//! The leader plans it ([`plan_map`]) and publishes it; everybody, the leader
//! included, computes owners from the published map alone ([`Ownership`]), so
//! that all who have seen an epoch agree about it. Pins are therefore part of
//! what is published and not read from the operators' wishes.
//!
//! A namespace has a *home*: the member it is pinned to, or else the one that
//! an exception names (see `crate::placement`), or else the ring's. Homes are
//! found among all *seats*: the members that are there and those that are
//! *away*, which are gone and expected back under the same name. What is at
//! home with a member that is away is owned by a stand-in, the ring's owner
//! among those that are there. So while a member restarts, its namespaces go to
//! others and come back, and nobody else's move at all.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, Instance, MemberName};
use crate::ring::{DEFAULT_VIRTUAL_NODES, Position, Ring, Slot};

/// The most virtual nodes per member that a map may ask for: beyond that the
/// ring costs more to build than it gains in balance.
pub const MAX_VIRTUAL_NODES: u32 = 4096;

/// One member in a published map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapMember {
    /// The member's name: what the ring hashes.
    pub name: MemberName,
    /// Which of its processes the map speaks of; another one of the same name
    /// may not act on this map.
    pub instance: Instance,
    /// Where peers reach it, `host:port`.
    pub address: Arc<str>,
    /// Whether operators took it out of ownership.
    pub drained: bool,
    /// What it owned when the map was published; for people, and of no
    /// influence on who owns what.
    pub share: Share,
}

/// How much a member owns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Namespaces with objects.
    pub namespaces: u32,
    /// Their weights' sum, see [`Weight`](crate::placement::Weight).
    pub load: u64,
}

/// Namespaces that are at home elsewhere than the ring says, by slot. An
/// exception in favour of a member without a seat counts for nothing.
pub type Exceptions = BTreeMap<Slot, MemberName>;

/// What the leader published: enough to compute every owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedMap {
    /// Its number; it only grows.
    pub epoch: Epoch,
    /// The member that published it.
    pub leader: MemberName,
    /// The members, sorted by name.
    pub members: Vec<MapMember>,
    /// Namespace → member that is to own it, whether or not it is there.
    pub pins: BTreeMap<Arc<str>, MemberName>,
    /// Points per member on the ring.
    pub virtual_nodes: u32,
    /// Members that are gone and whose place is kept for them; none of them is
    /// in `members`.
    pub away: BTreeSet<MemberName>,
    /// Who is at home elsewhere than the ring says.
    pub exceptions: Exceptions,
}

impl PublishedMap {
    /// The member of that name.
    pub fn member(&self, name: &MemberName) -> Option<&MapMember> {
        self.members.iter().find(|member| member.name == *name)
    }

    /// Whether the map lists exactly this process of this member.
    pub fn lists(&self, name: &MemberName, instance: &Instance) -> bool {
        self.member(name).is_some_and(|member| member.instance == *instance)
    }

    /// Whether both maps give every namespace the same owner process.
    fn owns_alike(&self, other: &PublishedMap) -> bool {
        let key = |map: &PublishedMap| {
            map.members
                .iter()
                .map(|member| (member.name.clone(), member.instance.clone(), member.drained))
                .collect::<BTreeSet<_>>()
        };
        self.placed_alike(other) && key(self) == key(other)
    }

    /// Whether both were made of the same parameters, members aside.
    fn placed_alike(&self, other: &PublishedMap) -> bool {
        self.virtual_nodes == other.virtual_nodes
            && self.pins == other.pins
            && self.away == other.away
            && self.exceptions == other.exceptions
    }

    /// Whether both say the same, apart from their epochs and shares.
    fn says_the_same(&self, other: &PublishedMap) -> bool {
        let shareless = |member: &MapMember| MapMember { share: Share::default(), ..member.clone() };
        self.leader == other.leader
            && self.placed_alike(other)
            && self.members.iter().map(shareless).eq(other.members.iter().map(shareless))
    }

    /// The members that are there and may own something: those not drained, or
    /// all, if all are drained.
    pub fn eligible(&self) -> BTreeSet<MemberName> {
        let names = |drained_too: bool| -> BTreeSet<MemberName> {
            let taken = self.members.iter().filter(|member| drained_too || !member.drained);
            taken.map(|member| member.name.clone()).collect()
        };
        let eligible = names(false);
        if eligible.is_empty() { names(true) } else { eligible }
    }

    /// All at whom namespaces can be at home.
    pub fn seats(&self) -> BTreeSet<MemberName> {
        self.eligible().into_iter().chain(self.away.iter().cloned()).collect()
    }
}

/// A published map with its ring: answers who owns what.
///
/// A pin wins when its member is in the map and not drained. Drained members
/// own nothing, unless all are drained: then none counts as drained, because a
/// namespace without an owner would stand still.
pub struct Ownership {
    map: PublishedMap,
    /// Among all seats.
    homes: Ring,
    /// Among those that are there, while somebody is away.
    stand_ins: Option<Ring>,
    eligible: BTreeSet<MemberName>,
    /// The pins that count, by the position of the namespace.
    pinned: BTreeMap<Position, MemberName>,
}

impl Ownership {
    /// Builds the ring of `map`.
    pub fn new(map: PublishedMap) -> Self {
        let eligible = map.eligible();
        let homes = Ring::new(&map.seats(), map.virtual_nodes);
        let stand_ins = (!map.away.is_empty()).then(|| Ring::new(&eligible, map.virtual_nodes));
        let has_seat = |member: &MemberName| eligible.contains(member) || map.away.contains(member);
        let pins = map.pins.iter().filter(|(_, member)| has_seat(member));
        let pinned = pins.map(|(name, member)| (Position::of(name), member.clone())).collect();
        Ownership { map, homes, stand_ins, eligible, pinned }
    }

    /// The member that owns `namespace`; `None` only if the map has no members.
    pub fn owner(&self, namespace: &str) -> Option<&MemberName> {
        self.owner_at(Position::of(namespace))
    }

    /// The member that owns the namespace at `position`.
    pub fn owner_at(&self, position: Position) -> Option<&MemberName> {
        let home = self.home_at(position)?;
        match &self.stand_ins {
            Some(stand_ins) if !self.eligible.contains(home) => stand_ins.owner_at(position),
            _ => Some(home),
        }
    }

    /// The seat at which the namespace at `position` is at home.
    pub fn home_at(&self, position: Position) -> Option<&MemberName> {
        let excepted = || self.map.exceptions.get(&position.slot()).filter(|home| self.has_seat(home));
        self.pinned_at(position).or_else(excepted).or_else(|| self.homes.owner_at(position))
    }

    /// The seat to which operators pinned the namespace at `position`.
    pub fn pinned_at(&self, position: Position) -> Option<&MemberName> {
        self.pinned.get(&position)
    }

    /// The seat to which the ring alone would give `position`.
    pub fn ring_owner_at(&self, position: Position) -> Option<&MemberName> {
        self.homes.owner_at(position)
    }

    fn has_seat(&self, member: &MemberName) -> bool {
        self.eligible.contains(member) || self.map.away.contains(member)
    }

    /// The map it was built from.
    pub fn map(&self) -> &PublishedMap {
        &self.map
    }

    /// The map's epoch.
    pub fn epoch(&self) -> Epoch {
        self.map.epoch
    }

    /// Whether every namespace has the same owner process in both.
    pub fn owns_alike(&self, other: &Ownership) -> bool {
        self.map.owns_alike(&other.map)
    }
}

impl fmt::Debug for Ownership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.map.fmt(f)
    }
}

/// What operators wrote into the ShardMap's spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorSpec {
    /// Namespace → member that is to own it.
    pub pins: BTreeMap<Arc<str>, MemberName>,
    /// Members that are to own nothing.
    pub drained: BTreeSet<MemberName>,
    /// Points per member on the ring, 1 to [`MAX_VIRTUAL_NODES`]; values outside
    /// are moved to the nearest allowed one.
    pub virtual_nodes: u32,
}

impl Default for OperatorSpec {
    fn default() -> Self {
        OperatorSpec { pins: BTreeMap::new(), drained: BTreeSet::new(), virtual_nodes: DEFAULT_VIRTUAL_NODES }
    }
}

/// A member that is to be in the map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveMember {
    /// The member's name.
    pub name: MemberName,
    /// Its process.
    pub instance: Instance,
    /// Where peers reach it, `host:port`.
    pub address: Arc<str>,
}

/// What a map is to say beyond its members and the operators' wishes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// Whose place is kept. Members that are there or drained are passed over.
    pub away: BTreeSet<MemberName>,
    /// Who is at home elsewhere than the ring says.
    pub exceptions: Exceptions,
}

/// Plans the map that follows `previous`; `None` when nothing would change.
///
/// `live` names each member once (of a repeated name the last counts). The new
/// epoch lies above both `previous` and `floor`; `floor` alone is no reason to
/// publish. The result does not depend on the order of `live`. Shares are left
/// empty: they are known only when the owners are.
pub fn plan_map(
    previous: Option<&PublishedMap>,
    spec: &OperatorSpec,
    live: &[LiveMember],
    placement: &Placement,
    leader: &MemberName,
    floor: Epoch,
) -> Option<PublishedMap> {
    let members: BTreeMap<&MemberName, MapMember> = live
        .iter()
        .map(|member| {
            let drained = spec.drained.contains(&member.name);
            let LiveMember { name, instance, address } = member.clone();
            (&member.name, MapMember { name, instance, address, drained, share: Share::default() })
        })
        .collect();
    let last = previous.map_or(Epoch(0), |map| map.epoch).max(floor);
    let away = |name: &&MemberName| !members.contains_key(*name) && !spec.drained.contains(*name);
    let planned = PublishedMap {
        epoch: Epoch(last.0.checked_add(1)?),
        leader: leader.clone(),
        away: placement.away.iter().filter(away).cloned().collect(),
        members: members.into_values().collect(),
        pins: spec.pins.clone(),
        virtual_nodes: spec.virtual_nodes.clamp(1, MAX_VIRTUAL_NODES),
        exceptions: placement.exceptions.clone(),
    };
    let unchanged = previous.is_some_and(|map| map.says_the_same(&planned));
    (!unchanged).then_some(planned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn live(name: &str) -> LiveMember {
        LiveMember {
            name: name.into(),
            instance: format!("{name}/1").into(),
            address: format!("{name}:7443").into(),
        }
    }

    fn plan(previous: Option<&PublishedMap>, spec: &OperatorSpec, names: &[&str]) -> Option<PublishedMap> {
        let members: Vec<_> = names.iter().map(|name| live(name)).collect();
        plan_map(previous, spec, &members, &Placement::default(), &"a".into(), Epoch(0))
    }

    fn spec(pins: &[(&str, &str)], drained: &[&str]) -> OperatorSpec {
        OperatorSpec {
            pins: pins.iter().map(|(namespace, member)| ((*namespace).into(), (*member).into())).collect(),
            drained: drained.iter().map(|name| (*name).into()).collect(),
            virtual_nodes: 64,
        }
    }

    #[test]
    fn nothing_new_gives_no_map() {
        let first = plan(None, &spec(&[], &[]), &["a", "b"]).unwrap();
        assert_eq!(first.epoch, Epoch(1));
        assert_eq!(plan(Some(&first), &spec(&[], &[]), &["b", "a"]), None);
        let floor = Epoch(90);
        let members = [live("a"), live("b")];
        assert_eq!(
            plan_map(Some(&first), &spec(&[], &[]), &members, &Placement::default(), &"a".into(), floor),
            None
        );
    }

    #[test]
    fn each_kind_of_change_gives_the_next_epoch() {
        let first = plan(None, &spec(&[], &[]), &["a", "b"]).unwrap();
        let next = |spec, names: &[&str]| plan(Some(&first), &spec, names).map(|map| map.epoch);
        assert_eq!(next(spec(&[], &[]), &["a"]), Some(Epoch(2)), "a leave");
        assert_eq!(next(spec(&[], &[]), &["a", "b", "c"]), Some(Epoch(2)), "a join");
        assert_eq!(next(spec(&[("ns", "b")], &[]), &["a", "b"]), Some(Epoch(2)), "a pin");
        assert_eq!(next(spec(&[], &["b"]), &["a", "b"]), Some(Epoch(2)), "a drain");
        let wider = OperatorSpec { virtual_nodes: 65, ..spec(&[], &[]) };
        assert_eq!(next(wider, &["a", "b"]), Some(Epoch(2)), "virtual nodes");
        let restarted = [live("a"), LiveMember { instance: "b/2".into(), ..live("b") }];
        let map =
            plan_map(Some(&first), &spec(&[], &[]), &restarted, &Placement::default(), &"a".into(), Epoch(0));
        assert_eq!(map.map(|map| map.epoch), Some(Epoch(2)), "a restart");
        let map = plan_map(
            Some(&first),
            &spec(&[], &[]),
            &[live("a"), live("b")],
            &Placement::default(),
            &"b".into(),
            Epoch(0),
        );
        assert_eq!(map.map(|map| map.epoch), Some(Epoch(2)), "another leader");
    }

    #[test]
    fn the_epoch_lies_above_the_floor_and_never_wraps() {
        let first = plan(None, &spec(&[], &[]), &["a"]).unwrap();
        let members = [live("a"), live("b")];
        let map =
            plan_map(Some(&first), &spec(&[], &[]), &members, &Placement::default(), &"a".into(), Epoch(77))
                .unwrap();
        assert_eq!(map.epoch, Epoch(78));
        let at_the_end = plan_map(
            Some(&first),
            &spec(&[], &[]),
            &members,
            &Placement::default(),
            &"a".into(),
            Epoch(u64::MAX),
        );
        assert_eq!(at_the_end, None);
    }

    #[test]
    fn virtual_nodes_are_kept_within_bounds() {
        let nodes = |virtual_nodes| {
            let spec = OperatorSpec { virtual_nodes, ..OperatorSpec::default() };
            plan(None, &spec, &["a"]).unwrap().virtual_nodes
        };
        assert_eq!((nodes(0), nodes(100), nodes(u32::MAX)), (1, 100, MAX_VIRTUAL_NODES));
    }

    /// Owner of `ns`, pinned to `b`, among `names` when `drained` are drained.
    fn check_pin(names: &[&str], drained: &[&str], expected: Option<&str>) {
        let map = plan(None, &spec(&[("ns", "b")], drained), names).unwrap();
        let ownership = Ownership::new(map);
        let owner = ownership.owner("ns").map(MemberName::as_str);
        assert_eq!(owner, expected, "among {names:?}, drained {drained:?}");
    }

    #[test]
    fn a_pin_wins_when_its_member_is_there_and_not_drained() {
        check_pin(&["a", "b"], &[], Some("b"));
        check_pin(&["a", "b"], &["a"], Some("b"));
        check_pin(&["a", "b"], &["b"], Some("a"));
        check_pin(&["a"], &[], Some("a"));
        check_pin(&["a", "b"], &["a", "b"], Some("b"));
        check_pin(&[], &[], None);
    }

    #[test]
    fn drained_members_own_nothing_unless_all_are_drained() {
        let owners = |drained: &[&str]| {
            let ownership = Ownership::new(plan(None, &spec(&[], drained), &["a", "b", "c"]).unwrap());
            (0..200)
                .filter_map(|index| ownership.owner(&format!("team-{index}")).map(|owner| owner.to_string()))
                .collect::<BTreeSet<_>>()
        };
        assert_eq!(owners(&["b"]), BTreeSet::from(["a".into(), "c".into()]));
        assert_eq!(owners(&["a", "b", "c"]).len(), 3);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_drain_moves_only_the_namespaces_of_the_drained(
            names in prop::collection::btree_set("[a-f]{1,3}", 2..6), pick in any::<prop::sample::Index>(),
        ) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let drained = *pick.get(&names);
            let before = Ownership::new(plan(None, &spec(&[], &[]), &names).unwrap());
            let after = Ownership::new(plan(None, &spec(&[], &[drained]), &names).unwrap());
            for index in 0..100 {
                let namespace = format!("team-{index:02}");
                let (old, new) = (before.owner(&namespace).unwrap(), after.owner(&namespace).unwrap());
                prop_assert!(new.as_str() != drained);
                prop_assert!(old == new || old.as_str() == drained);
            }
        }

        #[test]
        fn the_order_of_live_members_does_not_matter(
            names in prop::collection::btree_set("[a-f]{1,3}", 1..6),
        ) {
            let forward: Vec<&str> = names.iter().map(String::as_str).collect();
            let backward: Vec<&str> = names.iter().rev().map(String::as_str).collect();
            prop_assert_eq!(plan(None, &spec(&[], &[]), &forward), plan(None, &spec(&[], &[]), &backward));
        }
    }
}

//! Consistent hashing: which member owns a name.
//!
//! The ring is `hashring` with what it lacks put around it. It knows no virtual
//! nodes, so every member is added once per virtual node; its order depends on
//! insertion when two nodes hash alike, so members are added in sorted order;
//! and its default hash of a string is not a stable format, so everything that
//! is hashed is written as bytes of our own choosing into XXH3, whose result is
//! fixed by its specification. Replicas of different versions therefore agree.
//! Its `get_with_replicas` copies the whole ring and may name one member twice:
//! it is not used.
//!
//! A key is placed by its [`Position`], which is also all that loads and
//! exceptions say of a namespace: whoever knows the position needs no name.
//!
//! A lookup is a binary search. Building costs one hash per virtual node and a
//! sort: about 0.5 ms for 5 members and 10 ms for 50, each with 512 virtual
//! nodes, so a ring is built once per published map and never per lookup.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};

use hashring::HashRing;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use crate::ids::MemberName;

/// How many points each member gets on the ring when nobody says otherwise:
/// with up to 20 members the largest share stays within a fifth of the mean.
pub const DEFAULT_VIRTUAL_NODES: u32 = 512;

/// One of a member's points on the ring.
#[derive(Debug, Clone, PartialEq)]
struct VirtualNode {
    member: MemberName,
    index: u32,
}

impl Hash for VirtualNode {
    /// Part of the agreement between replicas: never change what is written.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(b"member\0");
        state.write(self.member.as_str().as_bytes());
        state.write(b"\0");
        state.write(&self.index.to_le_bytes());
    }
}

/// Where a name lies on the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(pub u64);

impl Position {
    /// The position of a namespace. Part of the agreement between replicas:
    /// never change what is hashed.
    pub fn of(key: &str) -> Self {
        let mut bytes = Vec::with_capacity(4 + key.len());
        bytes.extend_from_slice(b"key\0");
        bytes.extend_from_slice(key.as_bytes());
        Position(xxh3_64(&bytes))
    }

    /// The slot that it falls into.
    pub fn slot(self) -> Slot {
        Slot((self.0 >> 32) as u32)
    }
}

impl Hash for Position {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

/// The upper half of a [`Position`]: what a published map names when it makes
/// an exception of a namespace. Namespaces that share a slot share exceptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slot(pub u32);

/// XXH3 of bytes; a single number stands for itself, as it is a hash already.
struct PointHasher {
    bytes: Xxh3Default,
    number: Option<u64>,
}

impl Hasher for PointHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.bytes.write(bytes);
    }

    fn write_u64(&mut self, number: u64) {
        self.number = Some(number);
    }

    fn finish(&self) -> u64 {
        self.number.unwrap_or_else(|| self.bytes.finish())
    }
}

#[derive(Clone, Copy)]
struct PointHasherBuilder;

impl BuildHasher for PointHasherBuilder {
    type Hasher = PointHasher;

    fn build_hasher(&self) -> PointHasher {
        PointHasher { bytes: Xxh3Default::new(), number: None }
    }
}

/// An immutable ring over a set of members.
#[derive(Clone)]
pub struct Ring {
    points: HashRing<VirtualNode, PointHasherBuilder>,
    members: usize,
    virtual_nodes: u32,
}

impl Ring {
    /// Builds the ring. The order in which `members` come and repetitions do
    /// not matter; `virtual_nodes` of zero counts as one.
    pub fn new<'a>(members: impl IntoIterator<Item = &'a MemberName>, virtual_nodes: u32) -> Self {
        let members: BTreeSet<&MemberName> = members.into_iter().collect();
        let virtual_nodes = virtual_nodes.max(1);
        let mut points = HashRing::with_hasher(PointHasherBuilder);
        points.batch_add(
            members
                .iter()
                .flat_map(|member| {
                    (0..virtual_nodes).map(|index| VirtualNode { member: (*member).clone(), index })
                })
                .collect(),
        );
        Ring { points, members: members.len(), virtual_nodes }
    }

    /// The member that owns `key`; `None` only if the ring has no members.
    pub fn owner(&self, key: &str) -> Option<&MemberName> {
        self.owner_at(Position::of(key))
    }

    /// The member that owns what lies at `position`.
    pub fn owner_at(&self, position: Position) -> Option<&MemberName> {
        self.points.get(&position).map(|point| &point.member)
    }
}

/// The points of a ring in order: whom to ask next when an owner is full.
pub struct Walk {
    /// Sorted by hash; the second part is an index into the members.
    points: Vec<(u64, usize)>,
    members: usize,
}

impl Walk {
    /// The points of the ring of `members`, which must differ from each other.
    pub fn new(members: &[MemberName], virtual_nodes: u32) -> Self {
        let hashes = PointHasherBuilder;
        let point = |member: &MemberName, index| VirtualNode { member: member.clone(), index };
        let mut points: Vec<(u64, usize)> = members
            .iter()
            .enumerate()
            .flat_map(|(at, member)| {
                (0..virtual_nodes.max(1)).map(move |index| (hashes.hash_one(point(member, index)), at))
            })
            .collect();
        points.sort_unstable();
        Walk { points, members: members.len() }
    }

    /// The members in the order in which the ring comes to them from
    /// `position` on, each once, by their index. The first is the owner.
    pub fn from(&self, position: Position) -> impl Iterator<Item = usize> {
        let start = self.points.partition_point(|(hash, _)| *hash < position.0);
        let mut met = vec![false; self.members];
        self.points[start..]
            .iter()
            .chain(&self.points[..start])
            .map(|(_, member)| *member)
            .filter(move |member| !std::mem::replace(&mut met[*member], true))
            .take(self.members)
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("members", &self.members)
            .field("virtual_nodes", &self.virtual_nodes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn members(count: usize) -> Vec<MemberName> {
        (0..count).map(|index| MemberName::from(format!("flotilla-{index}"))).collect()
    }

    /// What the ring must answer, without a ring: the member of the first point
    /// at or after the key's hash, going round.
    fn brute_force<'a>(members: &'a [MemberName], virtual_nodes: u32, key: &str) -> Option<&'a MemberName> {
        let place = xxh3_64([b"key\0", key.as_bytes()].concat().as_slice());
        members
            .iter()
            .flat_map(|member| {
                (0..virtual_nodes).map(move |index| {
                    let name = member.as_str().as_bytes();
                    let bytes = [b"member\0", name, b"\0", &index.to_le_bytes()].concat();
                    (xxh3_64(&bytes).wrapping_sub(place), member)
                })
            })
            .min_by_key(|(distance, _)| *distance)
            .map(|(_, member)| member)
    }

    fn shares(ring: &Ring, keys: impl IntoIterator<Item = String>) -> BTreeMap<MemberName, usize> {
        let mut shares = BTreeMap::new();
        for key in keys {
            *shares.entry(ring.owner(&key).unwrap().clone()).or_default() += 1;
        }
        shares
    }

    /// `largest` is the largest share allowed, as a multiple of the mean.
    fn check_balance(member_count: usize, keys: Vec<String>, largest: f64) {
        let ring = Ring::new(&members(member_count), DEFAULT_VIRTUAL_NODES);
        let mean = keys.len() as f64 / member_count as f64;
        let shares = shares(&ring, keys);
        assert_eq!(shares.len(), member_count, "every member owns something: {shares:?}");
        let most = *shares.values().max().unwrap() as f64;
        assert!(most <= mean * largest, "largest share is {:.2} of the mean: {shares:?}", most / mean);
    }

    #[test]
    fn similar_names_are_spread_evenly() {
        let teams = |count: usize| (0..count).map(|index| format!("team-{index:02}")).collect::<Vec<_>>();
        check_balance(2, teams(100), 1.35);
        check_balance(3, teams(100), 1.35);
        check_balance(5, teams(100), 1.5);
        check_balance(3, teams(10_000), 1.15);
        check_balance(10, teams(10_000), 1.2);
        check_balance(20, teams(10_000), 1.25);
    }

    #[test]
    fn other_names_are_spread_evenly_too() {
        check_balance(3, (0..5_000).map(|index| format!("{index}")).collect(), 1.15);
        check_balance(5, (0..5_000).map(|index| format!("customer-{}-prod", index * 37)).collect(), 1.2);
        check_balance(
            5,
            (0..5_000).map(|index| format!("ns-{index:x}-{}", "x".repeat(index % 50))).collect(),
            1.2,
        );
    }

    #[test]
    fn owners_are_the_same_for_ever() {
        // A change of these owners is a change of the agreement between
        // replicas of different versions.
        let ring = Ring::new(&members(3), DEFAULT_VIRTUAL_NODES);
        let owners: Vec<_> = ["team-00", "team-01", "team-02", "default", ""]
            .map(|key| ring.owner(key).unwrap().as_str())
            .into();
        assert_eq!(owners, ["flotilla-0", "flotilla-2", "flotilla-1", "flotilla-1", "flotilla-0"]);
    }

    #[test]
    fn an_empty_ring_owns_nothing_and_a_single_member_owns_all() {
        assert_eq!(Ring::new(&[], 512).owner("team-00"), None);
        let only = members(1);
        assert_eq!(Ring::new(&only, 0).owner("team-00"), Some(&only[0]));
    }

    fn names() -> impl Strategy<Value = Vec<MemberName>> {
        prop::collection::btree_set("[a-z]{1,8}(-[0-9]{1,3})?", 1..8)
            .prop_map(|names| names.into_iter().map(MemberName::from).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn lookups_equal_brute_force(members in names(), keys in prop::collection::vec(".{0,12}", 1..20),
                                     virtual_nodes in 1u32..40) {
            let ring = Ring::new(&members, virtual_nodes);
            for key in keys {
                prop_assert_eq!(ring.owner(&key), brute_force(&members, virtual_nodes, &key));
            }
        }

        #[test]
        fn a_walk_begins_with_the_owner_and_comes_to_everyone_once(
            members in names(), keys in prop::collection::vec(".{0,12}", 1..20), virtual_nodes in 1u32..40,
        ) {
            let ring = Ring::new(&members, virtual_nodes);
            let walk = Walk::new(&members, virtual_nodes);
            for key in keys {
                let met: Vec<usize> = walk.from(Position::of(&key)).collect();
                prop_assert_eq!(met.first().map(|first| &members[*first]), ring.owner(&key));
                prop_assert_eq!(met.iter().collect::<BTreeSet<_>>().len(), members.len());
                prop_assert_eq!(met.len(), members.len());
            }
        }

        #[test]
        fn all_orders_of_the_same_members_agree(members in names(), seed in any::<u64>()) {
            let mut shuffled = members.clone();
            shuffled.sort_by_key(|member| xxh3_64(format!("{member}{seed}").as_bytes()));
            shuffled.extend(members.first().cloned());
            let (ring, other) = (Ring::new(&members, 32), Ring::new(&shuffled, 32));
            for index in 0..100 {
                let key = format!("team-{index:02}");
                prop_assert_eq!(ring.owner(&key), other.owner(&key));
            }
        }

        #[test]
        fn a_join_moves_keys_only_to_the_new_member(members in names(), newcomer in "new-[a-z]{1,6}") {
            let newcomer = MemberName::from(newcomer);
            let before = Ring::new(&members, 64);
            let after = Ring::new(members.iter().chain([&newcomer]), 64);
            for index in 0..300 {
                let key = format!("team-{index:02}");
                let (old, new) = (before.owner(&key), after.owner(&key));
                prop_assert!(old == new || new == Some(&newcomer), "{} moved from {:?} to {:?}", key, old, new);
            }
        }

        #[test]
        fn a_leave_moves_only_the_keys_of_the_leaver(members in names(), pick in any::<prop::sample::Index>()) {
            let leaver = pick.get(&members).clone();
            let before = Ring::new(&members, 64);
            let after = Ring::new(members.iter().filter(|member| **member != leaver), 64);
            for index in 0..300 {
                let key = format!("team-{index:02}");
                let (old, new) = (before.owner(&key), after.owner(&key));
                prop_assert!(old == new || old == Some(&leaver), "{} moved from {:?} to {:?}", key, old, new);
            }
        }
    }

    #[test]
    fn a_join_moves_about_its_share() {
        let (before, after) = (Ring::new(&members(4), 512), Ring::new(&members(5), 512));
        let keys: Vec<_> = (0..10_000).map(|index| format!("team-{index}")).collect();
        let moved = keys.iter().filter(|key| before.owner(key) != after.owner(key)).count();
        assert!((1_700..=2_300).contains(&moved), "{moved} of 10000 moved; a fifth was expected");
    }
}

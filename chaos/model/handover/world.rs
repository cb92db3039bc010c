//! The state: what replicas know, what the API server has, what was said.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use flotilla_core::breakage::Breakages;
use flotilla_core::coordination::{DrainTicket, Handover, Standing};
use flotilla_core::ids::{Epoch, Instance, MemberName};
use flotilla_core::shardmap::{MapMember, OperatorSpec, Ownership};
use flotilla_core::time::Mono;

use crate::explore::same_hash;

/// Names of the members, by index.
pub const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// The name of a namespace.
pub fn namespace(index: usize) -> String {
    format!("team-{index}")
}

/// One tenure of one process of one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// Index of the member.
    pub member: u8,
    /// Counts its processes.
    pub process: u8,
    /// Counts the process's tenures.
    pub tenure: u8,
}

impl Id {
    /// The name that the product gives it.
    pub fn instance(self) -> Instance {
        let process = format!("{}/{}", NAMES[usize::from(self.member)], self.process);
        if self.tenure == 0 { process.into() } else { format!("{process}.{}", self.tenure).into() }
    }

    fn of(member: &MapMember) -> Option<Id> {
        let (name, rest) = member.instance.as_str().split_once('/')?;
        let (process, tenure) = rest.split_once('.').unwrap_or((rest, "0"));
        Some(Id {
            member: u8::try_from(NAMES.iter().position(|known| *known == name)?).ok()?,
            process: process.parse().ok()?,
            tenure: tenure.parse().ok()?,
        })
    }
}

/// A set of instances: at most four processes with four tenures per member.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Ids(u64);

impl Ids {
    fn bit(id: Id) -> u64 {
        1 << (id.member * 16 + (id.process & 3) * 4 + (id.tenure & 3))
    }

    /// Whether it is in the set.
    pub fn has(self, id: Id) -> bool {
        self.0 & Ids::bit(id) != 0
    }

    /// Drops those that are not in `other`.
    pub fn keep(&mut self, other: Ids) {
        self.0 &= other.0;
    }

    /// Adds one.
    pub fn add(&mut self, id: Id) {
        self.0 |= Ids::bit(id);
    }
}

/// A published map, with its content as a number for comparing states.
#[derive(Debug, Clone)]
pub struct Map {
    ownership: Arc<Ownership>,
    content: u64,
}

impl Map {
    /// A map that was just published.
    pub fn new(ownership: Arc<Ownership>) -> Self {
        let mut hasher = DefaultHasher::new();
        let map = ownership.map();
        ids_of(&ownership).for_each(|id| id.hash(&mut hasher));
        map.pins.hash(&mut hasher);
        let content = hasher.finish();
        Map { ownership, content }
    }

    /// Its owners.
    pub fn ownership(&self) -> &Arc<Ownership> {
        &self.ownership
    }

    /// Its epoch.
    pub fn epoch(&self) -> Epoch {
        self.ownership.epoch()
    }

    /// The instances that it names.
    pub fn ids(&self) -> impl Iterator<Item = Id> {
        ids_of(&self.ownership)
    }
}

/// The instances that a map names.
pub fn ids_of(ownership: &Ownership) -> impl Iterator<Item = Id> {
    ownership.map().members.iter().filter_map(Id::of)
}

/// What a replica is doing, as `coordination::membership` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// No process.
    Down,
    /// It wants its Lease.
    Seeking,
    /// It holds it.
    Member,
    /// Its tenure has ended; writes are stopping.
    Fencing,
    /// It was told to end; writes are stopping.
    Leaving,
}

/// One replica.
#[derive(Debug, Clone)]
pub struct Replica {
    /// Its running tenure, or the next.
    pub id: Id,
    /// What it is doing.
    pub phase: Phase,
    /// The product's barrier.
    pub handover: Handover,
    /// Whether a map has named the running tenure.
    pub named: bool,
    /// The newest map when the process started: it never sees older ones.
    pub since: Epoch,
    /// Members (bits) of whom it knows that they have settled its epoch.
    pub settled: u8,
    /// Who has ended, as it knows.
    pub ended: Ids,
    /// Namespaces (bits) that it may act on.
    pub acts: u8,
    /// Namespaces (bits) for which writes may be on their way although it does
    /// not act on them any more.
    pub writing: u8,
}

impl Replica {
    /// The process numbered `process` of a member, about to start.
    pub fn down(member: u8, process: u8) -> Self {
        Replica {
            id: Id { member, process, tenure: 0 },
            phase: Phase::Down,
            handover: Handover::new(NAMES[usize::from(member)].into(), Breakages::default()),
            named: false,
            since: Epoch(0),
            settled: 0,
            ended: Ids::default(),
            acts: 0,
            writing: 0,
        }
    }

    /// Passes the barrier if it is open. With `open` it asks nobody, which is one
    /// of the mistakes.
    pub fn try_pass(&mut self, open: bool) {
        let (epoch, settled, ended) = (self.handover.epoch(), self.settled, self.ended);
        self.handover.try_pass(|member| match Id::of(member) {
            Some(id) if ended.has(id) => Standing::Ended,
            Some(id) if open || settled & (1 << id.member) != 0 => Standing::Settled(epoch),
            _ => Standing::Unknown,
        });
    }

    /// Works out what it may act on.
    pub fn look(&mut self, namespaces: usize) {
        let until = (self.phase == Phase::Member).then_some(Mono(u64::MAX));
        let acting = self.handover.acting(until);
        let covers = (0..namespaces).filter(|index| acting.covers(&namespace(*index)));
        self.acts =
            if self.phase == Phase::Member { covers.fold(0, |bits, index| bits | 1 << index) } else { 0 };
    }

    /// Writes stop: every ticket given out so far is answered.
    pub fn drained(&mut self) -> Option<Epoch> {
        self.writing = 0;
        self.handover.drained(DrainTicket(u64::MAX))
    }
}

/// A member's Lease.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Lease {
    /// Who holds it.
    pub holder: Option<Id>,
    /// Who held it before, and acts no more.
    pub previous: Option<Id>,
}

/// See the module's description.
///
/// Two are equal when they go on alike. Of epochs only their order matters to
/// the protocol, so they are compared by rank; and of a barrier what its next
/// decisions depend on: the newest map, whether it is passed and settled, and what
/// is acted on (which is what all maps that are not passed yet have in common).
#[derive(Debug, Clone)]
pub struct World {
    /// The replicas, by member.
    pub replicas: Vec<Replica>,
    /// Published maps that somebody may still take, oldest first, the newest last.
    pub maps: Vec<Map>,
    /// What operators wish, and whether the newest map was planned from it.
    pub spec: OperatorWish,
    /// Leases, by member.
    pub leases: Vec<Lease>,
    /// Which epochs each instance has said it settled, as bits.
    pub announced: BTreeMap<Id, u32>,
    /// Who has said that it acts no more.
    pub departed: Ids,
    /// Who can rely on its Lease no more, whether others know it or not.
    pub over: Ids,
    /// Crashes, expiries, shutdowns and edits that may still happen.
    pub left: [u8; 4],
}

/// The map object's spec.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct OperatorWish {
    /// Namespace → member, by index.
    pub pins: BTreeMap<u8, u8>,
    /// Whether the newest map says so.
    pub in_step: bool,
}

impl OperatorWish {
    /// As the product has it.
    pub fn spec(&self) -> OperatorSpec {
        let pin = |(index, member): (&u8, &u8)| {
            let name: MemberName = NAMES[usize::from(*member)].into();
            (namespace(usize::from(*index)).into(), name)
        };
        OperatorSpec {
            pins: self.pins.iter().map(pin).collect(),
            virtual_nodes: 1,
            ..OperatorSpec::default()
        }
    }
}

impl World {
    /// The newest map.
    pub fn newest(&self) -> Option<&Map> {
        self.maps.last()
    }

    /// Forgets what nobody can take or hear any more, so that states that go on
    /// alike are alike.
    pub fn tidy(&mut self) {
        let known = |replica: &Replica| replica.handover.epoch().max(replica.since);
        let newest = self.newest().map_or(Epoch(0), Map::epoch);
        let running = self.replicas.iter().filter(|replica| replica.phase != Phase::Down);
        let oldest = running.map(known).min().unwrap_or(newest);
        self.maps.retain(|map| map.epoch() >= oldest.min(newest));
        let from = 1u32.checked_shl(u32::try_from(oldest.0).unwrap_or(u32::MAX)).unwrap_or(0);
        for epochs in self.announced.values_mut() {
            *epochs &= !(from.wrapping_sub(1));
        }
        let mut named: Vec<Id> = self.maps.iter().flat_map(Map::ids).collect();
        named.extend(self.leases.iter().flat_map(|lease| [lease.holder, lease.previous]).flatten());
        self.announced.retain(|id, epochs| *epochs != 0 && named.contains(id));
        let named = named.into_iter().fold(Ids::default(), |mut ids, id| {
            ids.add(id);
            ids
        });
        self.departed.keep(named);
        self.over.keep(named);
        self.replicas.iter_mut().for_each(|replica| replica.ended.keep(named));
    }
}

impl World {
    fn rank(&self, epoch: Epoch) -> usize {
        self.maps.iter().filter(|map| map.epoch() <= epoch).count()
    }
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for replica in &self.replicas {
            let Replica { id, phase, handover, named, since, settled, ended, acts, writing } = replica;
            (id, phase, named, settled, ended, acts, writing).hash(state);
            // A process that has taken a map sees nothing older than that anyway.
            self.rank((*since).max(handover.epoch())).hash(state);
            let epoch = handover.epoch();
            let known = handover.current().is_some();
            (known, handover.has_passed(), handover.settled() == Some(epoch)).hash(state);
            if handover.settled() != Some(epoch) {
                handover.settled().map(|settled| self.rank(settled)).hash(state);
            }
        }
        self.maps.iter().for_each(|map| map.content.hash(state));
        (&self.spec, &self.leases, self.departed, self.over, self.left).hash(state);
        for (id, epochs) in &self.announced {
            id.hash(state);
            for (index, map) in self.maps.iter().enumerate() {
                if u32::try_from(map.epoch().0).is_ok_and(|epoch| epochs >> epoch & 1 != 0) {
                    index.hash(state);
                }
            }
        }
    }
}

impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        same_hash(self, other)
    }
}

//! The transitions, the promises, and the mistakes that can be made on purpose.

use std::collections::BTreeMap;
use std::sync::Arc;

use flotilla_core::ids::Epoch;
use flotilla_core::shardmap::{LiveMember, OperatorSpec, Ownership, Placement, PublishedMap, plan_map};

use super::world::{Id, Ids, Lease, Map, NAMES, OperatorWish, Phase, Replica, World, ids_of};
use crate::explore::Promises;

/// How much may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Members, at most 4.
    pub replicas: u8,
    /// Namespaces, at most 8.
    pub namespaces: u8,
    /// Crashes; each may be followed by a start.
    pub crashes: u8,
    /// Leases that are not renewed in time by a process that lives on.
    pub expiries: u8,
    /// Shutdowns in order; each may be followed by a start.
    pub shutdowns: u8,
    /// Edits of the pins.
    pub edits: u8,
}

/// What can be done wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// It acts on what a map gives to it without waiting for anybody.
    BarrierSkipped,
    /// It says that it has settled a map and goes on with what the map takes.
    ReleaseIgnored,
    /// It says that it has settled a map while writes are still on their way.
    DrainSkipped,
    /// It goes on acting although its Lease was not renewed in time.
    FencingOff,
    /// It takes a member for ended whose Lease is good: wall clocks compared.
    ClocksCompared,
    /// It takes a later settled epoch for the one it waits for.
    LaterEpochCounts,
    /// A map leaves out a member that may still act.
    LivingLeftOut,
    /// After being fenced it goes on under the same instance name.
    InstanceReused,
    /// It never hears that others have settled: nothing unsafe, but no progress.
    ReleaseUnheard,
}

impl Mistake {
    /// All of them.
    pub const ALL: [Mistake; 9] = [
        Mistake::BarrierSkipped,
        Mistake::ReleaseIgnored,
        Mistake::DrainSkipped,
        Mistake::FencingOff,
        Mistake::ClocksCompared,
        Mistake::LaterEpochCounts,
        Mistake::LivingLeftOut,
        Mistake::InstanceReused,
        Mistake::ReleaseUnheard,
    ];
}

/// What happens. Those named like the core's events are such an event at replica
/// `at`; the last three are what surrounds the core.
#[expect(missing_docs, reason = "the fields are said in the sentences")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// The validity of its Lease passes unrenewed.
    Tick { at: u8 },
    /// It obtains its Lease.
    LeaseAnswered { at: u8 },
    /// It sees a Lease that names `ended` as the one before.
    LeaseChanged { at: u8, ended: Id },
    /// A list shows that the Lease of `ended` has been silent for its duration.
    LeasesListed { at: u8, ended: Id },
    /// It sees the map of `epoch`.
    MapChanged { at: u8, epoch: Epoch },
    /// It publishes a map, in which those of `joining` (bits) are new.
    MapWritten { at: u8, joining: u8 },
    /// It hears that `peer`, a member of its map, has settled its map's epoch.
    PeerSettled { at: u8, peer: u8 },
    /// It hears that `ended` acts no more.
    PeerDeparted { at: u8, ended: Id },
    /// Its writes for what it does not act on have ended.
    Drained { at: u8 },
    /// It is told to end.
    Shutdown { at: u8 },
    /// The process of `at` is gone from one moment to the next.
    Crash { at: u8 },
    /// A new process of `at` starts.
    Start { at: u8 },
    /// Operators pin `namespace` to `member`.
    Pin { namespace: u8, member: u8 },
}

impl Action {
    /// Its name, as in the core's events.
    pub fn name(&self) -> &'static str {
        match self {
            Action::Tick { .. } => "Tick",
            Action::LeaseAnswered { .. } => "LeaseAnswered",
            Action::LeaseChanged { .. } => "LeaseChanged",
            Action::LeasesListed { .. } => "LeasesListed",
            Action::MapChanged { .. } => "MapChanged",
            Action::MapWritten { .. } => "MapWritten",
            Action::PeerSettled { .. } => "PeerSettled",
            Action::PeerDeparted { .. } => "PeerDeparted",
            Action::Drained { .. } => "Drained",
            Action::Shutdown { .. } => "Shutdown",
            Action::Crash { .. } => "Crash",
            Action::Start { .. } => "Start",
            Action::Pin { .. } => "Pin",
        }
    }
}

/// See the module's description.
#[derive(Debug, Clone)]
pub struct Model {
    /// How much may happen.
    pub size: Size,
    /// What is done wrong, if anything.
    pub mistake: Option<Mistake>,
}

const CRASHES: usize = 0;
const EXPIRIES: usize = 1;
const SHUTDOWNS: usize = 2;
const EDITS: usize = 3;

impl Model {
    fn is(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    /// A fleet at rest: all members have settled the first map and acted on it.
    pub fn start(&self) -> World {
        let ids = (0..self.size.replicas).map(|member| Id { member, process: 1, tenure: 0 });
        let live: Vec<LiveMember> = ids.clone().map(live).collect();
        let spec = OperatorSpec { virtual_nodes: 1, ..OperatorSpec::default() };
        let planned = plan_map(None, &spec, &live, &Placement::default(), &NAMES[0].into(), Epoch(0));
        let maps: Vec<Map> = planned.into_iter().map(|map| Map::new(Arc::new(Ownership::new(map)))).collect();
        let replicas = ids
            .clone()
            .map(|id| {
                let mut replica = Replica::down(id.member, id.process);
                replica.phase = Phase::Member;
                replica.handover.begin_tenure(id.instance());
                for map in &maps {
                    replica.handover.accept(map.ownership().clone());
                    replica.named = true;
                }
                replica.drained();
                replica.settled = !(u8::MAX << self.size.replicas);
                replica.try_pass(false);
                replica.look(usize::from(self.size.namespaces));
                replica
            })
            .collect();
        let leases = ids.clone().map(|id| Lease { holder: Some(id), previous: None }).collect();
        let Size { crashes, expiries, shutdowns, edits, .. } = self.size;
        let first = maps.first().map_or(Epoch(0), Map::epoch);
        World {
            replicas,
            announced: ids.map(|id| (id, bit(first))).collect(),
            maps,
            spec: OperatorWish { pins: BTreeMap::new(), in_step: true },
            leases,
            departed: Ids::default(),
            over: Ids::default(),
            left: [crashes, expiries, shutdowns, edits],
        }
    }

    /// What the newest map becomes by a publication of `at`.
    pub fn plan(&self, world: &World, at: u8, joining: u8) -> Option<PublishedMap> {
        let newest = world.newest()?;
        let ended = world.replicas[usize::from(at)].ended;
        let left_out = |id: &Id| self.is(Mistake::LivingLeftOut) && id.member != at;
        let mut members: BTreeMap<u8, Id> =
            newest.ids().filter(|id| !ended.has(*id) && !left_out(id)).map(|id| (id.member, id)).collect();
        for (member, lease) in (0..).zip(&world.leases) {
            if joining & (1 << member) != 0 && !members.contains_key(&member) {
                members.extend(lease.holder.filter(|id| !ended.has(*id)).map(|id| (member, id)));
            }
        }
        let live: Vec<LiveMember> = members.into_values().map(live).collect();
        // Who leads is of no account to ownership; that it changes would make
        // epochs without end.
        let leader = newest.ownership().map().leader.clone();
        plan_map(
            Some(newest.ownership().map()),
            &world.spec.spec(),
            &live,
            &Placement::default(),
            &leader,
            Epoch(0),
        )
    }

    fn may_publish(&self, world: &World, at: u8) -> bool {
        let replica = &world.replicas[usize::from(at)];
        replica.phase == Phase::Member
            && world.newest().is_some_and(|newest| newest.epoch() == replica.handover.epoch())
    }

    /// Everything that the protocol itself can do next. What surrounds it
    /// (crashes, starts, silence, operators) may happen or not.
    fn progress(&self, world: &World, actions: &mut Vec<Action>) {
        for (at, replica) in (0u8..).zip(&world.replicas) {
            if replica.phase == Phase::Down {
                continue;
            }
            if replica.phase == Phase::Seeking && self.lease_is_free(world, replica.id) {
                actions.push(Action::LeaseAnswered { at });
            }
            let mut doubtful: Vec<Id> = world.maps.iter().flat_map(Map::ids).collect();
            doubtful.extend(world.leases.iter().filter_map(|lease| lease.holder));
            doubtful.sort_unstable();
            doubtful.dedup();
            doubtful.retain(|id| !replica.ended.has(*id) && *id != replica.id);
            for ended in doubtful {
                if world.leases[usize::from(ended.member)].previous == Some(ended) {
                    actions.push(Action::LeaseChanged { at, ended });
                } else if world.departed.has(ended) {
                    actions.push(Action::PeerDeparted { at, ended });
                } else if world.over.has(ended) || self.is(Mistake::ClocksCompared) {
                    actions.push(Action::LeasesListed { at, ended });
                }
            }
            let known = replica.handover.epoch();
            for map in world.maps.iter().filter(|map| map.epoch() > known && map.epoch() >= replica.since) {
                actions.push(Action::MapChanged { at, epoch: map.epoch() });
            }
            if self.may_publish(world, at) {
                let candidates = self.candidates(world, at);
                let mut planned: Vec<PublishedMap> = Vec::new();
                for joining in 0..(1u8 << self.size.replicas) {
                    if joining & !candidates != 0 {
                        continue;
                    }
                    if let Some(map) = self.plan(world, at, joining)
                        && !planned.contains(&map)
                    {
                        planned.push(map);
                        actions.push(Action::MapWritten { at, joining });
                    }
                }
            }
            if let Some(current) = replica.handover.current().filter(|_| !replica.handover.has_passed())
                && replica.handover.is_listed()
                && !self.is(Mistake::ReleaseUnheard)
            {
                let epoch = current.epoch();
                for id in ids_of(current) {
                    let said = world.announced.get(&id).is_some_and(|epochs| {
                        let later = epochs >> epoch.0;
                        if self.is(Mistake::LaterEpochCounts) { later != 0 } else { later & 1 != 0 }
                    });
                    if id.member != at && said && replica.settled & (1 << id.member) == 0 {
                        actions.push(Action::PeerSettled { at, peer: id.member });
                    }
                }
            }
            let draining = replica.handover.settled() != Some(replica.handover.epoch());
            if draining && replica.handover.current().is_some()
                || matches!(replica.phase, Phase::Fencing | Phase::Leaving)
            {
                actions.push(Action::Drained { at });
            }
        }
    }

    /// Members (bits) that hold a Lease and are not in the newest map as they are.
    fn candidates(&self, world: &World, at: u8) -> u8 {
        let ended = world.replicas[usize::from(at)].ended;
        let holders = world.leases.iter().filter_map(|lease| lease.holder);
        let named: Vec<Id> = world.newest().map(|map| map.ids().collect()).unwrap_or_default();
        holders.filter(|id| !ended.has(*id) && !named.contains(id)).fold(0, |bits, id| bits | 1 << id.member)
    }

    /// A Lease is taken from another process when its time is over, and from
    /// one's own at once.
    fn lease_is_free(&self, world: &World, id: Id) -> bool {
        match world.leases[usize::from(id.member)].holder {
            Some(holder) => holder.process == id.process || world.over.has(holder),
            None => true,
        }
    }

    fn surroundings(&self, world: &World, actions: &mut Vec<Action>) {
        for (at, replica) in (0u8..).zip(&world.replicas) {
            if replica.phase == Phase::Down {
                if replica.id.process > 1 {
                    actions.push(Action::Start { at });
                }
                continue;
            }
            if world.left[CRASHES] > 0 {
                actions.push(Action::Crash { at });
            }
            if world.left[EXPIRIES] > 0 && replica.phase == Phase::Member {
                actions.push(Action::Tick { at });
            }
            if world.left[SHUTDOWNS] > 0 && replica.phase == Phase::Member {
                actions.push(Action::Shutdown { at });
            }
        }
        if world.left[EDITS] > 0 {
            for namespace in 0..self.size.namespaces {
                for member in 0..self.size.replicas {
                    if world.spec.pins.get(&namespace) != Some(&member) {
                        actions.push(Action::Pin { namespace, member });
                    }
                }
            }
        }
    }

    /// The state after an action; the action must be possible.
    pub fn after(&self, world: &World, action: Action) -> World {
        let mut next = world.clone();
        match action {
            Action::Tick { at } => {
                next.left[EXPIRIES] -= 1;
                let replica = &mut next.replicas[usize::from(at)];
                next.over.add(replica.id);
                if !self.is(Mistake::FencingOff) {
                    replica.handover.fence();
                    replica.phase = Phase::Fencing;
                    replica.writing = 0;
                }
            }
            Action::LeaseAnswered { at } => self.obtain(&mut next, at),
            Action::LeaseChanged { at, ended }
            | Action::LeasesListed { at, ended }
            | Action::PeerDeparted { at, ended } => next.replicas[usize::from(at)].ended.add(ended),
            Action::MapChanged { at, epoch } => {
                if let Some(map) = world.maps.iter().find(|map| map.epoch() == epoch) {
                    self.accept(&mut next, at, map);
                }
            }
            Action::MapWritten { at, joining } => {
                if let Some(map) = self.plan(world, at, joining) {
                    let map = Map::new(Arc::new(Ownership::new(map)));
                    next.maps.push(map.clone());
                    next.spec.in_step = true;
                    // The answer tells the writer at once.
                    self.accept(&mut next, at, &map);
                }
            }
            Action::PeerSettled { at, peer } => next.replicas[usize::from(at)].settled |= 1 << peer,
            Action::Drained { at } => self.drain(&mut next, at),
            Action::Shutdown { at } => {
                next.left[SHUTDOWNS] -= 1;
                let replica = &mut next.replicas[usize::from(at)];
                replica.writing |= replica.acts;
                replica.handover.fence();
                replica.phase = Phase::Leaving;
            }
            Action::Crash { at } => {
                next.left[CRASHES] -= 1;
                let id = world.replicas[usize::from(at)].id;
                next.over.add(id);
                next.replicas[usize::from(at)] = Replica::down(at, id.process + 1);
            }
            Action::Start { at } => {
                let since = world.newest().map_or(Epoch(0), Map::epoch);
                let replica = &mut next.replicas[usize::from(at)];
                replica.phase = Phase::Seeking;
                replica.since = since;
            }
            Action::Pin { namespace, member } => {
                next.left[EDITS] -= 1;
                next.spec.pins.insert(namespace, member);
                next.spec.in_step = false;
            }
        }
        for (before, replica) in world.replicas.iter().zip(&mut next.replicas) {
            replica.try_pass(self.is(Mistake::BarrierSkipped));
            let kept = if self.is(Mistake::ReleaseIgnored) { before.acts } else { 0 };
            replica.look(usize::from(self.size.namespaces));
            replica.acts |= if replica.phase == Phase::Member { kept } else { 0 };
        }
        next.tidy();
        next
    }

    fn obtain(&self, world: &mut World, at: u8) {
        let replica = &mut world.replicas[usize::from(at)];
        let lease = &mut world.leases[usize::from(at)];
        let before = lease.holder.or(lease.previous);
        *lease = Lease { holder: Some(replica.id), previous: before.filter(|before| *before != replica.id) };
        replica.phase = Phase::Member;
        replica.handover.begin_tenure(replica.id.instance());
        replica.named = replica.handover.is_listed();
        if let Some(epoch) = replica.handover.settled() {
            announce(world, at, epoch);
        }
    }

    fn accept(&self, world: &mut World, at: u8, map: &Map) {
        let namespaces = usize::from(self.size.namespaces);
        let replica = &mut world.replicas[usize::from(at)];
        let before = replica.acts;
        replica.handover.accept(map.ownership().clone());
        replica.settled = 0;
        let listed = replica.handover.is_listed();
        if replica.phase == Phase::Member {
            if !listed && replica.named {
                // An earlier map named it and this one does not: its time has ended.
                replica.handover.fence();
                replica.phase = Phase::Fencing;
            } else {
                replica.named = listed;
            }
        }
        replica.look(namespaces);
        replica.writing |= before & !replica.acts;
        if self.is(Mistake::ReleaseIgnored) || self.is(Mistake::DrainSkipped) {
            let writing = replica.writing;
            self.drain(world, at);
            world.replicas[usize::from(at)].writing = writing;
        }
    }

    fn drain(&self, world: &mut World, at: u8) {
        let reused = self.is(Mistake::InstanceReused);
        let replica = &mut world.replicas[usize::from(at)];
        let settled = replica.drained();
        let id = replica.id;
        match replica.phase {
            Phase::Fencing => {
                world.over.add(id);
                replica.ended.add(id);
                replica.id.tenure += u8::from(!reused);
                replica.named = false;
                replica.phase = Phase::Seeking;
            }
            Phase::Leaving => {
                world.over.add(id);
                world.departed.add(id);
                world.leases[usize::from(at)] = Lease { holder: None, previous: Some(id) };
                world.replicas[usize::from(at)] = Replica::down(at, id.process + 1);
            }
            Phase::Member => settled.into_iter().for_each(|epoch| announce(world, at, epoch)),
            Phase::Down | Phase::Seeking => {}
        }
    }

    /// Namespaces (bits) that a replica acts on, or may still write for.
    pub fn touches(&self, replica: &Replica) -> u8 {
        if replica.phase == Phase::Down { 0 } else { replica.acts | replica.writing }
    }

    fn served(&self, world: &World) -> bool {
        let members = world.replicas.iter().filter(|replica| replica.phase == Phase::Member);
        let all = (1u8 << self.size.namespaces) - 1;
        members.clone().count() == 0 || members.fold(0, |bits, replica| bits | replica.acts) == all
    }
}

fn announce(world: &mut World, at: u8, epoch: Epoch) {
    let id = world.replicas[usize::from(at)].id;
    *world.announced.entry(id).or_default() |= bit(epoch);
}

fn bit(epoch: Epoch) -> u32 {
    u32::try_from(epoch.0).ok().and_then(|epoch| 1u32.checked_shl(epoch)).unwrap_or(0)
}

fn live(id: Id) -> LiveMember {
    let name = NAMES[usize::from(id.member)];
    LiveMember { name: name.into(), instance: id.instance(), address: name.into() }
}

impl stateright::Model for Model {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![self.start()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        self.progress(world, actions);
        self.surroundings(world, actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        Some(self.after(world, action)).filter(|next| next != world)
    }
}

impl Promises for Model {
    fn violation(&self, world: &World) -> Option<&'static str> {
        let mut taken = 0;
        for replica in &world.replicas {
            let touched = self.touches(replica);
            if taken & touched != 0 {
                return Some("I1: two replicas act on a namespace");
            }
            taken |= touched;
        }
        // Nothing leads back to an earlier state, so what can go on for ever
        // does not exist: whoever stands still while the protocol has nothing
        // left to do stands still for good.
        if !self.served(world) {
            let mut actions = Vec::new();
            self.progress(world, &mut actions);
            if actions.iter().all(|action| self.after(world, *action) == *world) {
                return Some("progress: a namespace is not acted on although a member lives");
            }
        }
        None
    }
}

//! The transitions, the promises, and the mistakes that can be made on purpose.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use bytes::Bytes;
use flotilla_core::delivery::{Ack, Action as Wish, Change, Connect, Scope, SessionState, Tombstone};
use flotilla_core::ids::{GatewayId, Kind, ObjectKey, Revision};
use flotilla_core::object::RawObject;
use flotilla_core::time::Mono;
use flotilla_core::version::Version;

use super::gateway::Gateway;
use super::replica::{NOW, Replica};
use crate::explore::{Promises, same_hash};

/// The kinds of the objects, in turn.
pub const KINDS: [Kind; 2] = [Kind::Backend, Kind::ApiRoute];

fn key_of(object: usize) -> ObjectKey {
    ObjectKey::new(format!("team-{object}"), "x")
}

/// Which object a key names.
pub fn object_of(key: &ObjectKey) -> Option<usize> {
    key.namespace.strip_prefix("team-")?.parse().ok()
}

/// An event of a watch.
#[derive(Debug, Clone)]
pub enum Event {
    /// An object was created or changed.
    Changed(RawObject),
    /// An object was deleted.
    Deleted(ObjectKey, Revision),
}

impl Event {
    /// When.
    pub fn revision(&self) -> u64 {
        match self {
            Event::Changed(object) => object.revision.0,
            Event::Deleted(_, revision) => revision.0,
        }
    }
}

/// Everything that ever happened: of which object, and whether it was there
/// afterwards. The first entry has revision 2.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Log(Vec<(u8, bool)>);

impl Log {
    /// The newest revision.
    pub fn head(&self) -> u64 {
        self.0.len() as u64 + 1
    }

    fn entries(&self) -> impl Iterator<Item = (u64, usize, bool)> {
        (2..).zip(&self.0).map(|(revision, (object, present))| (revision, usize::from(*object), *present))
    }

    fn last(&self, object: usize) -> Option<(u64, bool)> {
        let of = self.entries().filter(|(_, changed, _)| *changed == object);
        of.map(|(revision, _, present)| (revision, present)).last()
    }

    fn live(&self, object: usize) -> Option<u64> {
        self.last(object).filter(|(_, present)| *present).map(|(revision, _)| revision)
    }

    /// The first deletion of an object after a revision.
    pub fn deletion_after(&self, object: usize, after: u64) -> Option<u64> {
        let deletion = |entry: &(u64, usize, bool)| entry.1 == object && !entry.2 && entry.0 > after;
        self.entries().find(deletion).map(|(revision, _, _)| revision)
    }

    fn raw(&self, object: usize, revision: u64) -> RawObject {
        // Each creation has a uid, each change a generation of its own.
        let before = self.entries().take_while(|(at, _, _)| *at <= revision);
        let (mut uid, mut generation) = (0, 0);
        for (at, changed, present) in before.filter(|(_, changed, _)| *changed == object) {
            (uid, generation) = match (present, generation) {
                (false, _) => (uid, 0),
                (true, 0) => (at, 1),
                (true, generation) => (uid, generation + 1),
            };
            let _ = changed;
        }
        RawObject {
            kind: KINDS[object % 2],
            key: key_of(object),
            uid: format!("u{uid}").into(),
            revision: Revision(revision),
            generation,
            created: "2026-11-21T10:00:00Z".into(),
            deleting: false,
            held: false,
            spec: Bytes::from(revision.to_string()),
            status: Bytes::new(),
        }
    }

    /// The live objects of a kind.
    pub fn list(&self, kind: usize) -> Vec<RawObject> {
        let objects = (kind..16).step_by(2);
        objects.filter_map(|object| Some(self.raw(object, self.live(object)?))).collect()
    }

    /// The next event of a kind after a revision.
    pub fn next(&self, kind: usize, after: u64) -> Option<Event> {
        let (revision, object, present) =
            self.entries().find(|(revision, object, _)| *revision > after && object % 2 == kind)?;
        Some(if present {
            Event::Changed(self.raw(object, revision))
        } else {
            Event::Deleted(key_of(object), Revision(revision))
        })
    }

    fn deletions(&self, kind: usize, since: u64, until: u64) -> Vec<Tombstone> {
        self.entries()
            .filter(|(at, object, present)| !present && *at > since && *at <= until && object % 2 == kind)
            .map(|(at, object, _)| Tombstone {
                kind: KINDS[kind],
                key: key_of(object),
                revision: Revision(at),
            })
            .collect()
    }
}

/// How much may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Replicas.
    pub replicas: u8,
    /// Namespaces, with one object in each.
    pub namespaces: u8,
    /// Gateways.
    pub gateways: u8,
    /// Changes and deletions.
    pub writes: u8,
    /// Crashes; each may be followed by a start.
    pub crashes: u8,
    /// Connections that break although both ends live.
    pub cuts: u8,
}

/// What can be done wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// A gateway's `high` is taken to be its `low`: nobody waits to have reached it.
    LowForHigh,
    /// Its `low` is taken to be its `high`: half a batch counts as all of it.
    HighForLow,
    /// What it holds is not looked at: it is served as if it had just started.
    VersionIgnored,
    /// A replica that knows of no deletions says that there were none.
    TombstonesForgotten,
    /// The acknowledged version is one that the gateway has not applied yet.
    AckedAhead,
}

impl Mistake {
    /// All of them.
    pub const ALL: [Mistake; 5] = [
        Mistake::LowForHigh,
        Mistake::HighForLow,
        Mistake::VersionIgnored,
        Mistake::TombstonesForgotten,
        Mistake::AckedAhead,
    ];
}

/// What happens.
#[expect(missing_docs, reason = "the fields are said in the sentences")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Somebody creates or changes `object`.
    Write { object: u8 },
    /// Somebody deletes `object`.
    Delete { object: u8 },
    /// The watch of `kind` at replica `at` shows the next event, or a bookmark.
    Watched { at: u8, kind: u8 },
    /// `gateway` opens its stream at replica `at`.
    Connected { gateway: u8, at: u8 },
    /// `gateway` takes the next message.
    Delivered { gateway: u8 },
    /// The next acknowledgement of `gateway` arrives.
    Acknowledged { gateway: u8 },
    /// The API server tells replica `at` what it asked for.
    History { at: u8 },
    /// Nobody knows what replica `at` asked for.
    HistoryUnavailable { at: u8 },
    /// The connection of `gateway` breaks.
    Disconnected { gateway: u8 },
    /// The process of replica `at` is gone from one moment to the next.
    Crash { at: u8 },
    /// A new process of replica `at` starts.
    Start { at: u8 },
}

/// The state. Two are equal when everything that can be seen of them is: what is
/// inside an engine follows from its list, its watches and its sessions.
#[derive(Debug, Clone)]
pub struct World {
    /// What the API server has.
    pub log: Log,
    /// The replicas.
    pub replicas: Vec<Replica>,
    /// The gateways.
    pub gateways: Vec<Gateway>,
    /// Writes, crashes and cuts that may still happen.
    pub left: [u8; 3],
    /// What a message broke.
    pub broken: Option<&'static str>,
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.log, self.left, self.broken).hash(state);
        for replica in &self.replicas {
            replica.alive.hash(state);
            if replica.alive {
                (replica.listed, replica.seen, &replica.asked).hash(state);
                let floors = KINDS.map(|kind| replica.delivery().store().tombstone_count(kind));
                floors.hash(state);
            }
        }
        for (index, gateway) in self.gateways.iter().enumerate() {
            (&gateway.holds, &gateway.newest, &gateway.version, gateway.at, &gateway.acks).hash(state);
            for (batch, update) in &gateway.wire {
                let update = &batch.updates[*update];
                (&update.version, update.last).hash(state);
                match &update.change {
                    Change::Upsert { resource, added } => (1, *added, resource.revision).hash(state),
                    Change::Delete { key, .. } => (2, key).hash(state),
                    Change::FullSync(snapshot) => (3, snapshot.checksum()).hash(state),
                    Change::Reset => 4.hash(state),
                    Change::Heartbeat => 5.hash(state),
                }
            }
            let Some(at) = gateway.at else { continue };
            let id = gateway_id(index);
            for view in self.replicas[at].delivery().sessions().filter(|view| view.gateway == id) {
                let doing = match view.state {
                    SessionState::Waiting => 0,
                    SessionState::AwaitingFullSync => 1,
                    SessionState::Idle => 2,
                    SessionState::InFlight => 3,
                };
                (view.low, view.high, view.in_flight, doing).hash(state);
            }
        }
    }
}

impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        same_hash(self, other)
    }
}

fn gateway_id(index: usize) -> GatewayId {
    GatewayId { namespace: "edge".into(), name: format!("gateway-{index}").into() }
}

/// See the module's description.
#[derive(Debug, Clone)]
pub struct Model {
    /// How much may happen.
    pub size: Size,
    /// What has happened before everything else: exploration starts there.
    pub before: Vec<Action>,
    /// How many deletions a replica keeps per kind.
    pub tombstones: usize,
    /// Bytes of the largest message. If not everything fits into one, differences
    /// are always sent as increments ([`ONE_PER_MESSAGE`]).
    pub message_limit: u64,
    /// What is done wrong, if anything.
    pub mistake: Option<Mistake>,
}

/// A message limit that leaves room for one object, whatever it carries besides.
pub const ONE_PER_MESSAGE: u64 = 1450;
/// The message limit of AVAPIGW gateways, far more than all objects need.
pub const ALL_PER_MESSAGE: u64 = 4 << 20;

const WRITES: usize = 0;
const CRASHES: usize = 1;
const CUTS: usize = 2;

impl Model {
    fn is(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    /// All objects are there, all gateways are in sync, and then what was before.
    pub fn start(&self) -> World {
        let Size { replicas, namespaces, gateways, writes, crashes, cuts } = self.size;
        let log = Log((0..namespaces).map(|object| (object, true)).collect());
        let replica = self.fresh(&log);
        let gateway = Gateway {
            holds: vec![None; usize::from(namespaces)],
            newest: vec![0; usize::from(namespaces)],
            ..Gateway::default()
        };
        let mut world = World {
            log,
            replicas: vec![replica; usize::from(replicas)],
            gateways: vec![gateway; usize::from(gateways)],
            left: [writes, crashes, cuts],
            broken: None,
        };
        for gateway in 0..usize::from(gateways) {
            self.connect(&mut world, gateway, gateway % usize::from(replicas));
            while !world.gateways[gateway].wire.is_empty() {
                world.gateways[gateway].take(&world.log);
                self.acknowledge(&mut world, gateway);
            }
        }
        self.before.iter().fold(world, |world, action| self.after(&world, *action))
    }

    fn fresh(&self, log: &Log) -> Replica {
        Replica::start(log, self.tombstones, self.message_limit)
    }

    fn connect(&self, world: &mut World, gateway: usize, at: usize) {
        let last_version = self.read(&world.gateways[gateway].version);
        let replica = &mut world.replicas[at];
        replica.sessions += 1;
        let session = format!("{at}/{}", replica.sessions).into();
        world.gateways[gateway].at = Some(at);
        world.gateways[gateway].session = Some(session);
        let Some(session) = world.gateways[gateway].session.clone() else { return };
        let connect = Connect {
            session,
            gateway: gateway_id(gateway),
            scope: Scope::default(),
            last_version,
            registered: Some(Mono(0)),
        };
        replica.change().connected(NOW, connect);
        self.poll(world, at);
    }

    /// What a replica makes of a gateway's version.
    fn read(&self, text: &str) -> String {
        let Ok(version) = text.parse::<Version>() else { return text.to_owned() };
        let version = match self.mistake {
            Some(Mistake::LowForHigh) => Version { high: version.low, ..version },
            Some(Mistake::HighForLow) => Version { low: version.high, step: 0, ..version },
            Some(Mistake::VersionIgnored) => return String::new(),
            _ => version,
        };
        version.to_string()
    }

    fn acknowledge(&self, world: &mut World, gateway: usize) {
        let from = &mut world.gateways[gateway];
        let (Some(version), Some(at), Some(session)) = (from.acks.pop_front(), from.at, from.session.clone())
        else {
            return;
        };
        let ack = Ack {
            session,
            gateway: gateway_id(gateway),
            version: version.to_string(),
            result: Ok(()),
            apply_duration: Duration::ZERO,
        };
        world.replicas[at].change().acknowledged(NOW, ack);
        self.poll(world, at);
    }

    /// Lets a replica decide, and puts on the wire what it sends.
    fn poll(&self, world: &mut World, at: usize) {
        for wish in world.replicas[at].poll() {
            match wish {
                Wish::Send { session, batch, .. } => {
                    let mut to = world.gateways.iter_mut();
                    if let Some(to) = to.find(|gateway| gateway.session.as_ref() == Some(&session)) {
                        to.wire.extend((0..batch.updates.len()).map(|update| (batch.clone(), update)));
                        if self.is(Mistake::AckedAhead)
                            && let Some(last) = batch.updates.last()
                        {
                            to.version = last.version.clone();
                        }
                    }
                }
                Wish::End { session, .. } => {
                    let mut to = world.gateways.iter_mut();
                    if let Some(to) = to.find(|gateway| gateway.session.as_ref() == Some(&session)) {
                        to.cut();
                    }
                }
                Wish::NeedHistory { .. } | Wish::Notice(_) => {}
            }
        }
    }

    /// Everything that goes on by itself.
    fn progress(&self, world: &World, actions: &mut Vec<Action>) {
        for (at, replica) in (0u8..).zip(&world.replicas).filter(|(_, replica)| replica.alive) {
            for kind in 0..2u8 {
                if replica.seen[usize::from(kind)] < world.log.head() {
                    actions.push(Action::Watched { at, kind });
                }
            }
            if !replica.asked.is_empty() {
                actions.push(Action::History { at });
                actions.push(Action::HistoryUnavailable { at });
            }
        }
        for (index, gateway) in (0u8..).zip(&world.gateways) {
            if gateway.at.is_none() {
                let alive = (0u8..).zip(&world.replicas).filter(|(_, replica)| replica.alive);
                actions.extend(alive.map(|(at, _)| Action::Connected { gateway: index, at }));
            }
            if !gateway.wire.is_empty() {
                actions.push(Action::Delivered { gateway: index });
            }
            if !gateway.acks.is_empty() {
                actions.push(Action::Acknowledged { gateway: index });
            }
        }
    }

    fn surroundings(&self, world: &World, actions: &mut Vec<Action>) {
        if world.left[WRITES] > 0 {
            for object in 0..self.size.namespaces {
                actions.push(Action::Write { object });
                if world.log.live(usize::from(object)).is_some() {
                    actions.push(Action::Delete { object });
                }
            }
        }
        for (at, replica) in (0u8..).zip(&world.replicas) {
            if !replica.alive {
                actions.push(Action::Start { at });
            } else if world.left[CRASHES] > 0 {
                actions.push(Action::Crash { at });
            }
        }
        if world.left[CUTS] > 0 {
            let connected = (0u8..).zip(&world.gateways).filter(|(_, gateway)| gateway.at.is_some());
            actions.extend(connected.map(|(gateway, _)| Action::Disconnected { gateway }));
        }
    }

    /// The state after an action; the action must be possible.
    pub fn after(&self, world: &World, action: Action) -> World {
        let mut next = world.clone();
        match action {
            Action::Write { object } => {
                next.left[WRITES] -= 1;
                next.log.0.push((object, true));
            }
            Action::Delete { object } => {
                next.left[WRITES] -= 1;
                next.log.0.push((object, false));
            }
            Action::Watched { at, kind } => {
                next.replicas[usize::from(at)].watch(usize::from(kind), &world.log);
                self.poll(&mut next, usize::from(at));
            }
            Action::Connected { gateway, at } => {
                self.connect(&mut next, usize::from(gateway), usize::from(at));
            }
            Action::Delivered { gateway } => {
                next.broken = next.gateways[usize::from(gateway)].take(&world.log);
            }
            Action::Acknowledged { gateway } => self.acknowledge(&mut next, usize::from(gateway)),
            Action::History { at } => {
                let replica = &mut next.replicas[usize::from(at)];
                for (kind, since) in std::mem::take(&mut replica.asked) {
                    let until = replica.seen[kind];
                    let forgotten = self.is(Mistake::TombstonesForgotten);
                    let known = if forgotten { Vec::new() } else { world.log.deletions(kind, since, until) };
                    replica.change().history(KINDS[kind], Revision(since), Revision(until), known);
                }
                self.poll(&mut next, usize::from(at));
            }
            Action::HistoryUnavailable { at } => {
                let replica = &mut next.replicas[usize::from(at)];
                for (kind, since) in std::mem::take(&mut replica.asked) {
                    replica.change().history_unavailable(KINDS[kind], Revision(since));
                }
                self.poll(&mut next, usize::from(at));
            }
            Action::Disconnected { gateway } => {
                next.left[CUTS] -= 1;
                let from = &mut next.gateways[usize::from(gateway)];
                if let (Some(at), Some(session)) = (from.at, from.session.clone()) {
                    from.cut();
                    next.replicas[at].change().disconnected(NOW, &session);
                    self.poll(&mut next, at);
                }
            }
            Action::Crash { at } => {
                next.left[CRASHES] -= 1;
                next.replicas[usize::from(at)].alive = false;
                let served = |gateway: &&mut Gateway| gateway.at == Some(usize::from(at));
                next.gateways.iter_mut().filter(served).for_each(Gateway::cut);
            }
            Action::Start { at } => {
                let sessions = world.replicas[usize::from(at)].sessions;
                let fresh = self.fresh(&world.log);
                next.replicas[usize::from(at)] = Replica { sessions, ..fresh };
            }
        }
        next
    }
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
        Some(self.after(world, action))
    }
}

impl Promises for Model {
    fn violation(&self, world: &World) -> Option<&'static str> {
        if world.broken.is_some() {
            return world.broken;
        }
        let mut under_way = Vec::new();
        self.progress(world, &mut under_way);
        if !under_way.is_empty() || !world.replicas.iter().any(|replica| replica.alive) {
            return None;
        }
        let right = |gateway: &Gateway| {
            let mut held = gateway.holds.iter().enumerate();
            held.all(|(object, held)| *held == world.log.live(object))
        };
        (!world.gateways.iter().all(right)).then_some("I3: a gateway does not hold what there is")
    }
}

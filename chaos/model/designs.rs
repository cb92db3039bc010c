//! What a version could be, and why it is a position in the log.
//!
//! Every replica reads the same log, each as far as it has come. A gateway
//! connects to any of them and keeps what it was given together with a version; a
//! replica sends to a gateway only if its own version is not older. Three ways to
//! name what was given, in the order in which they were thought of:
//!
//! - the **epoch** of the shard map;
//! - the epoch and a **counter** of the process that grows with everything it sees;
//! - the **revision** up to which the replica has read the log.
//!
//! The first two let what a gateway holds go back, and the model shows how; the
//! last does not. What it needs beyond that (deletions, parts of a batch, several
//! kinds) is in [`crate::versions`].

use crate::explore::Promises;

/// What a version is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Design {
    /// The epoch of the map that the replica has seen.
    Epoch,
    /// That, and how much its process has seen.
    EpochAndCounter,
    /// How far it has read the log.
    Revision,
}

/// One replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Replica {
    /// How far it has read the log.
    pub frontier: u8,
    /// The epoch that it has seen.
    pub epoch: u8,
    /// What its process has seen since its start.
    pub counter: u8,
}

/// One gateway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Gateway {
    /// The revision of what it holds.
    pub holds: u8,
    /// The version that came with it.
    pub version: (u8, u8),
}

/// The state.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    /// The end of the log.
    pub head: u8,
    /// The newest epoch.
    pub epoch: u8,
    /// The replicas.
    pub replicas: Vec<Replica>,
    /// The gateways.
    pub gateways: Vec<Gateway>,
    /// Crashes that may still happen.
    pub crashes: u8,
    /// Whether what a gateway holds has gone back.
    pub went_back: bool,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Somebody changes an object.
    Write,
    /// A replica sees the next change.
    Changed(u8),
    /// A replica sees the newest epoch.
    MapChanged(u8),
    /// A replica's process is replaced: a new epoch, and the log is listed anew.
    Restart(u8),
    /// The first gives the second what it has read.
    Deliver(u8, u8),
}

/// See the module's description.
#[derive(Debug, Clone, Copy)]
pub struct Model {
    /// What a version is.
    pub design: Design,
    /// Number of replicas.
    pub replicas: u8,
    /// Number of gateways.
    pub gateways: u8,
    /// Number of changes.
    pub writes: u8,
    /// Number of crashes.
    pub crashes: u8,
}

impl Model {
    fn version(&self, replica: &Replica) -> (u8, u8) {
        match self.design {
            Design::Epoch => (replica.epoch, 0),
            Design::EpochAndCounter => (replica.epoch, replica.counter),
            Design::Revision => (replica.frontier, 0),
        }
    }

    fn progress(&self, world: &World) -> Vec<Action> {
        let mut actions = Vec::new();
        for (at, replica) in (0u8..).zip(&world.replicas) {
            if replica.frontier < world.head {
                actions.push(Action::Changed(at));
            }
            if replica.epoch < world.epoch {
                actions.push(Action::MapChanged(at));
            }
            for (to, gateway) in (0u8..).zip(&world.gateways) {
                if self.version(replica) >= gateway.version && gateway.holds != replica.frontier {
                    actions.push(Action::Deliver(at, to));
                }
            }
        }
        actions
    }
}

impl stateright::Model for Model {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let replica = Replica { frontier: 0, epoch: 1, counter: 0 };
        vec![World {
            head: 0,
            epoch: 1,
            replicas: vec![replica; usize::from(self.replicas)],
            gateways: vec![Gateway::default(); usize::from(self.gateways)],
            crashes: self.crashes,
            went_back: false,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        actions.extend(self.progress(world));
        if world.head < self.writes {
            actions.push(Action::Write);
        }
        if world.crashes > 0 {
            actions.extend((0..self.replicas).map(Action::Restart));
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        match action {
            Action::Write => next.head += 1,
            Action::Changed(at) => {
                let replica = &mut next.replicas[usize::from(at)];
                replica.frontier += 1;
                replica.counter += 1;
            }
            Action::MapChanged(at) => next.replicas[usize::from(at)].epoch = world.epoch,
            Action::Restart(at) => {
                next.crashes -= 1;
                next.epoch += 1;
                next.replicas[usize::from(at)] =
                    Replica { frontier: world.head, epoch: next.epoch, counter: 0 };
            }
            Action::Deliver(at, to) => {
                let replica = &world.replicas[usize::from(at)];
                let gateway = &mut next.gateways[usize::from(to)];
                next.went_back |= replica.frontier < gateway.holds;
                *gateway = Gateway { holds: replica.frontier, version: self.version(replica) };
            }
        }
        Some(next)
    }
}

impl Promises for Model {
    fn violation(&self, world: &World) -> Option<&'static str> {
        if world.went_back {
            return Some("I2: what a gateway holds went back");
        }
        let behind = world.gateways.iter().any(|gateway| gateway.holds != world.head);
        (behind && self.progress(world).is_empty()).then_some("I3: a gateway does not get what there is")
    }
}

//! What the rest of the replica sees of coordination.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use flotilla_core::coordination::Acting;
use flotilla_core::ids::{Epoch, Instance, MemberName};
use flotilla_core::placement::LoadReport;
use flotilla_core::shardmap::{Ownership, PublishedMap};
use flotilla_core::time::Mono;
use tokio::time::Instant;

/// Who owns what, as of the newest accepted map.
#[derive(Debug, Clone, Default)]
pub struct OwnershipView {
    ownership: Option<Arc<Ownership>>,
    leading: bool,
    /// Moves whenever what this replica acts on may have changed although the
    /// map is the same: when the barrier opens, or when it was fenced.
    acting: u64,
    taken_over: bool,
    idle: BTreeMap<MemberName, Duration>,
}

impl OwnershipView {
    /// A view of a map. `acting` moves with whatever may be acted on; `idle`: see
    /// [`OwnershipView::idle`].
    pub fn new(
        ownership: Option<Arc<Ownership>>,
        leading: bool,
        acting: u64,
        taken_over: bool,
        idle: BTreeMap<MemberName, Duration>,
    ) -> Self {
        OwnershipView { ownership, leading, acting, taken_over, idle }
    }

    /// Whether this replica acts on everything that the map gives to it.
    pub fn taken_over(&self) -> bool {
        self.taken_over
    }

    /// How long it was ago, when this was made, that a member was last known
    /// to have the right to act on what the map takes from it; for this
    /// replica's own name, of the process that had it before.
    pub fn idle(&self, member: &MemberName) -> Option<Duration> {
        self.idle.get(member).copied()
    }

    /// The map's epoch; zero before the first.
    pub fn epoch(&self) -> Epoch {
        self.ownership.as_ref().map(|ownership| ownership.epoch()).unwrap_or_default()
    }

    /// A number that moves with every change of what may be acted on.
    pub fn acting(&self) -> u64 {
        self.acting
    }

    /// The published map.
    pub fn map(&self) -> Option<&PublishedMap> {
        self.ownership.as_ref().map(|ownership| ownership.map())
    }

    /// The owner of a namespace.
    pub fn owner(&self, namespace: &str) -> Option<&MemberName> {
        self.ownership.as_ref()?.owner(namespace)
    }

    /// Which process the map lists under a name.
    pub fn instance(&self, member: &MemberName) -> Option<&Instance> {
        Some(&self.map()?.member(member)?.instance)
    }

    /// The members of the map.
    pub fn members(&self) -> Vec<MemberName> {
        self.map()
            .map(|map| map.members.iter().map(|member| member.name.clone()).collect())
            .unwrap_or_default()
    }

    /// Whether this replica leads.
    pub fn leading(&self) -> bool {
        self.leading
    }
}

/// Answers, from any task and at any moment, whether this replica acts on a
/// namespace.
#[derive(Debug, Clone)]
pub struct ActingPermit {
    pub(super) acting: Arc<ArcSwap<Acting>>,
    pub(super) origin: Instant,
}

impl ActingPermit {
    /// Whether `namespace` may be acted on right now.
    pub fn may_act(&self, namespace: &str) -> bool {
        self.current().may_act(namespace)
    }

    /// What may be acted on by the maps of this moment. For plans: what is
    /// planned under one epoch must not bear another's number.
    pub fn current(&self) -> CurrentPermit {
        CurrentPermit { acting: self.acting.load_full(), origin: self.origin }
    }
}

/// An [`ActingPermit`] that no later map changes. It looks at the clock each
/// time, so a replica that was paused finds its permit expired.
#[derive(Debug, Clone)]
pub struct CurrentPermit {
    acting: Arc<Acting>,
    origin: Instant,
}

impl CurrentPermit {
    /// Whether `namespace` may be acted on right now.
    pub fn may_act(&self, namespace: &str) -> bool {
        self.acting.may_act(Mono::from_origin(self.origin.elapsed()), namespace)
    }

    /// The epoch in which it may be.
    pub fn epoch(&self) -> Epoch {
        self.acting.epoch()
    }
}

/// What to tell all peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announcement {
    /// This instance acts by this epoch and nothing else.
    Settled(Instance, Epoch),
    /// This instance acts no more.
    Departed(Instance),
}

/// What peers said that concerns coordination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerNews {
    /// The highest epoch that a peer has heard of.
    Hello {
        /// That epoch.
        highest: Epoch,
    },
    /// A peer acts by this epoch and nothing else.
    Settled {
        /// The peer's instance.
        instance: Instance,
        /// The epoch.
        epoch: Epoch,
    },
    /// A peer acts no more.
    Departed {
        /// The peer's instance.
        instance: Instance,
    },
    /// A member, ourselves included, says what its namespaces weigh.
    Loads {
        /// The member.
        member: MemberName,
        /// Its report.
        report: Arc<LoadReport>,
    },
}

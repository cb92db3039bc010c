//! One gateway's session: what it holds, and what is under way to it.
//!
//! A session has no queue. It is *waiting* (for the store's first lists, for
//! our frontier to reach the gateway's, for the guard against shrinking to
//! pass), *idle*, *in flight* with exactly one batch, or *pausing* after one.
//! Only [`super::poll`] moves it to in flight, only [`super::acks`] back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::Change;
use super::cost::CostModel;
use super::edge::Edge;
use super::position::{Position, ScopeInfo};
use super::rejections::{Trouble, content};
use crate::ids::{Frontier, GatewayId, Kind, ObjectKey, SessionId};
use crate::object::Resource;
use crate::time::Mono;
use crate::version::{Exclusions, Version};

/// What a gateway said it holds when it connected; looked at once our frontier
/// has reached it.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    /// Nothing: it has just started.
    Empty,
    /// This position.
    At(Version),
    /// Something that we cannot name, but nothing of our log beyond `high`.
    Unknown { high: Frontier },
}

impl Origin {
    pub fn high(&self) -> Frontier {
        match self {
            Origin::Empty => Frontier::default(),
            Origin::At(version) => version.high,
            Origin::Unknown { high } => *high,
        }
    }

    /// What the gateway is known to have applied, for the table.
    pub fn applied(&self) -> Option<(Frontier, Vec<(Kind, u32)>)> {
        match self {
            Origin::At(Version { low, excluded: Exclusions::Known(known), .. }) => {
                Some((*low, known.iter().copied().collect()))
            }
            _ => None,
        }
    }
}

/// Why a batch was sent: what its end means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It delivers what is new.
    Deliver,
    /// It puts back what a gateway held before it rejected something.
    Repair,
    /// It looks for what makes a gateway reject a snapshot.
    Probe,
}

/// The batch in flight.
#[derive(Debug, Clone)]
pub(crate) struct Flight {
    pub edge: Arc<Edge>,
    pub purpose: Purpose,
    /// The first update without an acknowledgement.
    pub next: usize,
    pub sent: Mono,
    /// When the last acknowledgement came: what the time-out counts from, as
    /// applying a batch may take long in all.
    pub progress: Mono,
    /// Reported durations of snapshots and of increments, and how many
    /// increments reported one.
    pub full_took: Duration,
    pub increments_took: Duration,
    pub increments: usize,
    /// Rejected updates with the gateway's words.
    pub rejected: BTreeMap<usize, String>,
    /// Updates whose own answer was lost: a later one says that they were
    /// looked at, not that they were taken.
    pub unheard: BTreeSet<usize>,
}

/// A rejection in force.
#[derive(Debug, Clone)]
pub(crate) struct Rejected {
    /// Hash of the rejected content.
    pub content: u32,
    /// The gateway's last good version of it, if it has one and we know it.
    pub held: Option<Arc<Resource>>,
    pub message: String,
}

/// A place among those that wait for a full synchronisation: first those that nothing
/// else helps, each in the order of their coming.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn {
    /// Whether increments would do, too.
    pub has_choice: bool,
    pub since: Mono,
}

/// What a gateway was sent of an object, and did not answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unheard {
    /// The last content since its last deletion.
    pub resource: Option<Arc<Resource>>,
    /// Its deletion was among it: nothing from before that is to be put back.
    pub deleted: bool,
}

/// See the module's description.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub id: SessionId,
    pub gateway: GatewayId,
    pub scope: Arc<ScopeInfo>,
    /// Until then the gateway ignores full synchronisations that shrink.
    pub guard_until: Mono,
    /// Its last sign of life.
    pub heard: Mono,
    /// Set until it is resolved to a position.
    pub origin: Option<Origin>,
    pub position: Arc<Position>,
    /// The version that the gateway was last told, and since when that is not
    /// its position's.
    pub told: Arc<str>,
    pub behind_since: Option<Mono>,
    /// Sequence of the last message; 0: none yet, so the next one must set it.
    pub sequence: i64,
    pub flight: Option<Flight>,
    pub pause_until: Mono,
    /// When the limits asked to be asked again.
    pub ask_after: Mono,
    /// Its place among those that wait for a full synchronisation to end elsewhere.
    pub turn: Option<Turn>,
    pub cost: CostModel,
    /// By object; those whose content is in the position's exclusions are in
    /// force, others wait for their object's new content to be acknowledged.
    pub rejected: BTreeMap<(Kind, ObjectKey), Rejected>,
    /// What was sent of an object and no answer came to, so that the gateway may hold it,
    /// or nothing: by object, until an answer about the object says that it took it.
    pub unheard: BTreeMap<(Kind, ObjectKey), Unheard>,
    pub trouble: Option<Trouble>,
    /// Deletions since its `low` cannot be found out: only a full
    /// synchronisation makes it right.
    pub full_required: bool,
    /// It gets no snapshot because that would be cheaper: it rejected one although it
    /// held something, or it takes one resource a call.
    pub no_full: bool,
    /// Whether routes and backends are known to load: the last increment of
    /// the class in this session, or a snapshot after it, was taken.
    pub sound: [bool; 2],
    /// Times in a row that it rejected only deletions.
    pub strikes: u8,
    /// Empty messages that may still be acknowledged.
    pub heartbeats: VecDeque<Arc<str>>,
    pub warned_ahead: Option<Mono>,
    /// When it was last said that it holds something else than it is to.
    pub differs_said: Option<Mono>,
    /// It named another history at this time: nothing is sent before ours is
    /// confirmed by a question that was asked later.
    pub doubted: Option<Mono>,
    pub end_at: Option<Mono>,
    /// It is where it has to be, so it is not ended for balance.
    pub anchored: bool,
    /// Its entry in the engine's deadlines.
    pub wake: Option<Mono>,
}

impl Session {
    pub fn new(
        id: SessionId,
        gateway: GatewayId,
        origin: Origin,
        position: Arc<Position>,
        told: Arc<str>,
        now: Mono,
        guard_until: Mono,
    ) -> Self {
        Session {
            id,
            gateway,
            scope: position.scope.clone(),
            guard_until,
            heard: now,
            origin: Some(origin),
            position,
            told,
            behind_since: None,
            sequence: 0,
            flight: None,
            pause_until: Mono::default(),
            ask_after: Mono::default(),
            turn: None,
            cost: CostModel::default(),
            rejected: BTreeMap::new(),
            unheard: BTreeMap::new(),
            trouble: None,
            full_required: false,
            no_full: false,
            sound: [false, false],
            strikes: 0,
            heartbeats: VecDeque::new(),
            warned_ahead: None,
            differs_said: None,
            doubted: None,
            end_at: None,
            anchored: false,
            wake: None,
        }
    }

    /// Since when it has waited for a full synchronisation to end elsewhere; it waits from
    /// now on if it did not.
    pub fn waits_since(&self, now: Mono) -> Mono {
        self.turn.map_or(now, |turn| turn.since)
    }

    /// Whether a full synchronisation is under way to it.
    pub fn full_in_flight(&self) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.edge.batch.full)
    }

    /// Keeps of what a batch brought that of which nothing was heard: once something
    /// newer is rejected, nothing older is to be put back.
    pub fn remember_unheard(&mut self, flight: &Flight) {
        for (index, update) in flight.edge.batch.updates.iter().enumerate() {
            if matches!(update.change, Change::FullSync(_)) && flight.took(index) {
                self.unheard.clear();
            }
            let Some(key) = update.change.key() else { continue };
            match &update.change {
                Change::Upsert { resource, .. } if flight.misses(index) => {
                    let unheard = self.unheard.entry(key.clone()).or_default();
                    let before = unheard.resource.replace(resource.clone());
                    // Should this one be bad, nothing older than the one before it is
                    // to be put back either.
                    if let Some(before) = before.filter(|before| content(before) != content(resource))
                        && let Some(rejected) = self.rejected.get_mut(&key)
                    {
                        rejected.held = Some(before);
                    }
                }
                _ if flight.misses(index) => {
                    self.unheard.insert(key.clone(), Unheard { resource: None, deleted: true });
                    self.keep_nothing_of(&key);
                }
                _ if flight.took(index) => drop(self.unheard.remove(&key)),
                _ => {}
            }
        }
    }

    /// Its last good version of a resource that it rejected is not put back any more.
    pub fn keep_nothing_of(&mut self, key: &(Kind, ObjectKey)) {
        if let Some(rejected) = self.rejected.get_mut(key) {
            rejected.held = None;
        }
    }

    /// Moves it; the version it was told may be behind from now on.
    pub fn move_to(&mut self, now: Mono, position: Arc<Position>) {
        self.behind_since = if position.version == self.told {
            None
        } else {
            // Since the first position it was not told of.
            Some(self.behind_since.unwrap_or(now))
        };
        self.position = position;
    }
}

//! The engine's state: sessions, what is cached for them, and when each of
//! them needs attention.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::edge::{Builder, Edge};
use super::loud::Loud;
use super::plan::Difference;
use super::position::{Position, Positions};
use super::session::{Session, Turn};
use super::{Action, Batch, DeliveryConfig, EndReason, Notice};
use crate::ids::{GatewayId, Kind, Revision, SessionId};
use crate::store::Store;
use crate::time::Mono;

/// A session's number in this process, in the order of connecting.
pub(super) type Slot = u64;

/// What was computed for a position and what gateways get at present.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub position: Arc<Position>,
    pub difference: Arc<Difference>,
    /// Everything that must be removed is known.
    pub covered: bool,
    /// Without and with a message that sets the sequence.
    pub increments: [Option<Arc<Edge>>; 2],
    /// The same, and then without and with padding.
    pub full: [Option<Arc<Edge>>; 4],
    /// The same configuration at the frontier.
    pub advanced: Option<Arc<Position>>,
    /// The message that tells a gateway that it is here.
    pub heartbeat: Option<Arc<Batch>>,
}

impl Plan {
    /// Drops batches that a gateway resting here is no reason to keep: those
    /// that lead back to here and snapshots, once they are not under way.
    fn drop_rounds(&mut self) {
        let idle = |edge: &Option<Arc<Edge>>| edge.as_ref().is_some_and(|e| Arc::strong_count(e) == 1);
        for edge in &mut self.increments {
            let round = edge.as_ref().is_some_and(|e| e.target.id == e.from.id);
            if round && idle(edge) {
                *edge = None;
            }
        }
        for edge in &mut self.full {
            if idle(edge) {
                *edge = None;
            }
        }
    }

    fn in_use(&self) -> bool {
        let edges = self.increments.iter().chain(&self.full).flatten();
        let own = edges.map(|edge| 1 + usize::from(edge.target.id == edge.from.id)).sum::<usize>();
        let advanced = self.advanced.as_ref().is_some_and(|advanced| advanced.id == self.position.id);
        // One is the plan's own; others are in what it caches.
        Arc::strong_count(&self.position) > 1 + own + usize::from(advanced)
    }
}

/// A gateway's registration here.
#[derive(Debug, Clone)]
pub(super) struct Registration {
    pub session: SessionId,
    pub at: Mono,
    /// Since when it has had no stream, and when that was last said.
    pub streamless_since: Mono,
    pub warned: Option<Mono>,
}

/// See the module's description.
#[derive(Debug, Clone)]
pub(super) struct Engine {
    pub config: DeliveryConfig,
    pub store: Store,
    pub positions: Positions,
    /// Boxed: each look takes one out for a while.
    pub sessions: BTreeMap<Slot, Box<Session>>,
    pub by_id: BTreeMap<SessionId, Slot>,
    pub by_gateway: BTreeMap<GatewayId, Slot>,
    /// Registrations here and homeless gateways, for telling zombies; those
    /// that have not been heard of for ten minutes leave.
    pub registrations: BTreeMap<GatewayId, Registration>,
    /// Sessions to look at whenever the store moves.
    pub watching: BTreeSet<Slot>,
    /// Sessions to look at in the next poll.
    pub touched: BTreeSet<Slot>,
    /// Sessions that wait for one of the concurrent full synchronisations; equal to the
    /// sessions' `turn`, but for those that the limits hold back at theirs.
    pub waiting_full: BTreeSet<(Turn, Slot)>,
    /// How many full synchronisations are in flight, and when one ended last.
    pub fulls: usize,
    pub full_ended: Mono,
    /// When which session wants attention; equal to the sessions' `wake`.
    pub deadlines: BTreeSet<(Mono, Slot)>,
    /// Keyed by position; valid for what gateways got at `planned_for`.
    pub plans: BTreeMap<u64, Plan>,
    pub planned_for: u64,
    /// The store's state that watching sessions have seen.
    pub seen: u64,
    pub loud: Loud,
    /// Per kind the history that was asked for and when.
    pub asked: BTreeMap<Kind, (Revision, Mono)>,
    pub queued: Vec<Action>,
    pub applied_changes: u64,
    pub forget_at: Mono,
    /// A session left: something may be kept for nobody.
    pub untidy: bool,
    pub draining: bool,
    /// When the last question was asked whose answer said that our history is
    /// still the cluster's.
    pub confirmed: Option<Mono>,
    /// The same for a question that others may have been faster than.
    pub in_touch: Option<Mono>,
    /// When it is to be asked again for sessions that wait for that.
    pub doubt_at: Mono,
    pub slots: Slot,
    pub batch_ids: u64,
}

impl Engine {
    pub fn new(config: DeliveryConfig) -> Self {
        Engine {
            store: Store::new(config.message_limit, config.tombstones, config.breakage),
            positions: Positions::new(config.cluster.clone(), config.incarnation.clone()),
            sessions: BTreeMap::new(),
            by_id: BTreeMap::new(),
            by_gateway: BTreeMap::new(),
            registrations: BTreeMap::new(),
            watching: BTreeSet::new(),
            touched: BTreeSet::new(),
            waiting_full: BTreeSet::new(),
            fulls: 0,
            full_ended: Mono::default(),
            deadlines: BTreeSet::new(),
            plans: BTreeMap::new(),
            planned_for: 0,
            seen: 0,
            loud: Loud::new(config.loud_changes, config.loud_patience),
            asked: BTreeMap::new(),
            queued: Vec::new(),
            applied_changes: 0,
            forget_at: Mono::default(),
            untidy: false,
            draining: false,
            confirmed: None,
            in_touch: None,
            doubt_at: Mono::default(),
            slots: 0,
            batch_ids: 0,
            config,
        }
    }

    pub fn notice(&mut self, notice: Notice) {
        self.queued.push(Action::Notice(notice));
    }

    pub fn builder(&mut self) -> Builder<'_> {
        Builder {
            config: &self.config,
            store: &self.store,
            positions: &mut self.positions,
            batch_ids: &mut self.batch_ids,
        }
    }

    pub fn insert(&mut self, session: Session) {
        self.slots += 1;
        self.by_id.insert(session.id.clone(), self.slots);
        self.by_gateway.insert(session.gateway.clone(), self.slots);
        self.sessions.insert(self.slots, Box::new(session));
        self.touched.insert(self.slots);
        self.applied_changes += 1;
    }

    /// Forgets a session.
    pub fn remove(&mut self, now: Mono, slot: Slot) -> Option<Box<Session>> {
        let session = self.sessions.remove(&slot)?;
        self.forget(now, slot, &session);
        Some(session)
    }

    /// Forgets everything about a session that is out of `sessions` already.
    pub fn forget(&mut self, now: Mono, slot: Slot, session: &Session) {
        if self.by_id.get(&session.id) == Some(&slot) {
            self.by_id.remove(&session.id);
        }
        if self.by_gateway.get(&session.gateway) == Some(&slot) {
            self.by_gateway.remove(&session.gateway);
        }
        if let Some(registration) = self.registrations.get_mut(&session.gateway) {
            registration.streamless_since = now;
        }
        if let Some(wake) = session.wake {
            self.deadlines.remove(&(wake, slot));
        }
        if session.full_in_flight() {
            self.full_ended(now);
        }
        self.watching.remove(&slot);
        self.touched.remove(&slot);
        if let Some(turn) = session.turn {
            self.waiting_full.remove(&(turn, slot));
        }
        self.untidy = true;
        self.applied_changes += 1;
    }

    /// A full synchronisation has ended, well or not: the next one may begin.
    pub fn full_ended(&mut self, now: Mono) {
        self.fulls = self.fulls.saturating_sub(1);
        self.full_ended = now;
    }

    /// Forgets a session and has its stream ended.
    pub fn end(&mut self, now: Mono, slot: Slot, reason: EndReason) {
        if let Some(session) = self.remove(now, slot) {
            self.queued.push(Action::End { session: session.id, reason });
        }
    }

    pub fn drain(&mut self, now: Mono, spread: Duration) {
        self.draining = true;
        self.shed(now, self.sessions.len(), spread);
    }

    pub fn shed(&mut self, now: Mono, count: usize, spread: Duration) {
        // The newest first: those that have just come lose the least.
        let staying = |session: &Session| (session.end_at.is_none() && !session.anchored) || self.draining;
        let chosen: Vec<_> =
            self.sessions.iter_mut().rev().filter(|(_, session)| staying(session)).take(count).collect();
        let steps = u32::try_from(chosen.len()).unwrap_or(u32::MAX).max(1);
        let mut at = now;
        for (slot, session) in chosen {
            // Somewhere in its part of the time: several replicas begin at the
            // same moment, and their gateways must not come back in step.
            let share = xxh3_64(session.id.as_str().as_bytes()) as f64 / u64::MAX as f64;
            session.end_at = Some(at + (spread / steps).mul_f64(share));
            at = at + spread / steps;
            self.touched.insert(*slot);
        }
    }

    pub fn spare(&mut self, but: usize) {
        if self.draining {
            return;
        }
        let mut leaving: Vec<_> =
            self.sessions.values_mut().filter(|session| session.end_at.is_some()).collect();
        leaving.sort_by_key(|session| session.end_at);
        leaving.into_iter().skip(but).for_each(|session| session.end_at = None);
    }

    /// Drops what no session needs any more.
    pub fn tidy(&mut self, now: Mono) {
        self.untidy = false;
        for plan in self.plans.values_mut() {
            plan.drop_rounds();
        }
        self.plans.retain(|_, plan| plan.in_use());
        if now >= self.forget_at && self.store.previous_count() > 0 {
            self.forget_at = now + Duration::from_secs(1);
            let mut low = self.store.frontier();
            for session in self.sessions.values() {
                let own = match &session.origin {
                    Some(origin) => origin.applied().map(|(low, _)| low),
                    None => session.position.since(),
                };
                let own = own.unwrap_or_else(|| self.store.frontier());
                for kind in Kind::ALL {
                    low.0[kind.index()] = low.get(kind).min(own.get(kind));
                }
            }
            self.store.forget_previous(&low);
        }
    }

    pub fn next_deadline(&self) -> Option<Mono> {
        let moved = self.store.changes() != self.seen && !self.watching.is_empty();
        let company = self.loud.all_until().filter(|_| moved);
        let at_once = self.untidy
            || !self.queued.is_empty()
            || !self.touched.is_empty()
            || (self.fulls < self.config.concurrent_full_syncs && !self.waiting_full.is_empty())
            || (moved && company.is_none());
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        if at_once { Some(Mono::default()) } else { [deadline, company].into_iter().flatten().min() }
    }
}

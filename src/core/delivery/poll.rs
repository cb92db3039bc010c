//! Deciding what to send: the only place where batches go out.
//!
//! A poll looks at the sessions whose deadline has come, at those that an
//! event touched, and, when the store has moved, at those that watch it. With
//! nothing to do it looks at none.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::cost::Load;
use super::edge::{Edge, snapshot_bytes, snapshot_order};
use super::engine::{Engine, Plan, Slot};
use super::plan::{Difference, difference};
use super::position::{Base, Position};
use super::session::{Flight, Origin, Purpose, Session, Turn};
use super::{Action, EndReason, Limits, Notice};
use crate::breakage::Breakage;
use crate::ids::{Frontier, Kind, ObjectKey};
use crate::object::Resource;
use crate::store::{Mark, Totals};
use crate::time::Mono;
use crate::version::Version;

/// How often it is said again that a gateway is ahead of us.
const WARN_AGAIN: Duration = Duration::from_secs(60);
/// When history is asked for again that was never answered.
const ASK_AGAIN: Duration = Duration::from_secs(30);
/// When it is asked again whether our history is still the cluster's.
pub(super) const DOUBT_AGAIN: Duration = Duration::from_secs(5);
/// For how long a gateway that increments could serve waits for a full synchronisation
/// to end elsewhere, while none does: those in flight may be to gateways that are stuck.
const FULL_PATIENCE: Duration = Duration::from_millis(500);
/// While they do end, it waits for at most so many times what it saves, and the patience: what increments
/// would cost the replica and its link comes on top, and all that wait would pay for it.
const FULL_WORTH: u32 = 4;
/// Empty messages whose late acknowledgements are still recognised.
const HEARTBEATS: usize = 4;

/// What a look at a session comes to.
pub(super) enum Verdict {
    /// Look again at this time at the latest, and when the store moves.
    Watch(Option<Mono>),
    /// Look again at this time; the store does not matter before.
    Sleep(Mono),
    /// It waits for a full synchronisation to end elsewhere, until this time if there
    /// is another way.
    AwaitFull(Option<Mono>),
    /// Its stream is to be ended.
    End(EndReason),
}

impl Engine {
    pub fn poll(&mut self, now: Mono, limits: &mut dyn Limits) -> Vec<Action> {
        let mut due: BTreeSet<Slot> = std::mem::take(&mut self.touched);
        while let Some((at, slot)) = self.deadlines.first().copied() {
            if at > now {
                break;
            }
            self.deadlines.remove(&(at, slot));
            if let Some(session) = self.sessions.get_mut(&slot) {
                session.wake = None;
            }
            due.insert(slot);
        }
        if !self.loud.waits(now) && self.store.changes() != self.seen {
            self.seen = self.store.changes();
            due.append(&mut self.watching);
        }
        let looked = !due.is_empty();
        // Those that wait come before those that have just had theirs.
        self.give_turns(now, limits);
        for slot in due {
            self.look(now, slot, limits);
        }
        self.give_turns(now, limits);
        if looked || self.untidy {
            self.tidy(now);
        }
        std::mem::take(&mut self.queued)
    }

    /// Looks at those that wait for a full synchronisation, while one may begin.
    fn give_turns(&mut self, now: Mono, limits: &mut dyn Limits) {
        while self.fulls < self.config.concurrent_full_syncs {
            let Some((_, slot)) = self.waiting_full.pop_first() else { break };
            self.look(now, slot, limits);
        }
    }

    /// Looks at one session and files it under what it waits for.
    fn look(&mut self, now: Mono, slot: Slot, limits: &mut dyn Limits) {
        // Taken out meanwhile, so that it and the engine can both be changed.
        let Some(mut session) = self.sessions.remove(&slot) else { return };
        self.watching.remove(&slot);
        if let Some(turn) = session.turn {
            self.waiting_full.remove(&(turn, slot));
        }
        let verdict = self.decide(now, &mut session, limits);
        let stale_at = session.heard + self.config.heartbeat_interval * 3;
        let wake = match verdict {
            Verdict::End(reason) => {
                self.forget(now, slot, &session);
                self.queued.push(Action::End { session: session.id, reason });
                return;
            }
            Verdict::Watch(at) => {
                self.watching.insert(slot);
                session.turn = None;
                at.unwrap_or(stale_at)
            }
            Verdict::Sleep(at) => at,
            Verdict::AwaitFull(until) => {
                let turn = Turn { has_choice: until.is_some(), since: session.waits_since(now) };
                session.turn = Some(turn);
                self.waiting_full.insert((turn, slot));
                until.unwrap_or(stale_at)
            }
        };
        let wake = wake.min(stale_at).min(session.end_at.unwrap_or(stale_at));
        if session.wake != Some(wake) {
            if let Some(before) = session.wake.replace(wake) {
                self.deadlines.remove(&(before, slot));
            }
            self.deadlines.insert((wake, slot));
        }
        self.sessions.insert(slot, session);
    }

    fn decide(&mut self, now: Mono, session: &mut Session, limits: &mut dyn Limits) -> Verdict {
        if session.end_at.is_some_and(|at| at <= now) {
            return Verdict::End(if self.draining { EndReason::Drain } else { EndReason::Balance });
        }
        if now >= session.heard + self.config.heartbeat_interval * 3 {
            return Verdict::End(EndReason::Stale);
        }
        if let Some(flight) = &session.flight {
            let until = flight.progress + self.config.ack_timeout;
            return if now >= until { Verdict::End(EndReason::AckTimeout) } else { Verdict::Sleep(until) };
        }
        if !self.store.ready() && !self.config.breakage.is(Breakage::UnlistedServed) {
            // What it says that it has counts, and a log may be gone that it has it of.
            let ahead =
                session.origin.as_ref().is_some_and(|origin| !self.store.listed_reach(&origin.high()));
            return Verdict::Watch(ahead.then(|| self.warn_ahead(now, session)));
        }
        // Who holds nothing can be taken back by nothing.
        let holds = session.origin.as_ref().is_some_and(|origin| !matches!(origin, Origin::Empty));
        if holds && self.out_of_touch(now) {
            return Verdict::Watch(Some(self.doubt_again(now, session)));
        }
        if let Some(asked) = session.doubted {
            if self.confirmed.is_none_or(|confirmed| confirmed <= asked) {
                return Verdict::Watch(Some(self.doubt_again(now, session)));
            }
            session.doubted = None;
        }
        if let Some(origin) = &session.origin {
            let high = match origin {
                Origin::At(version) if self.config.breakage.is(Breakage::LowForHigh) => version.low,
                _ if self.config.breakage.is(Breakage::FrontierIgnored) => Frontier::default(),
                origin => origin.high(),
            };
            if !self.store.frontier().reached(&high) {
                return Verdict::Watch(Some(self.warn_ahead(now, session)));
            }
            self.resolve(now, session);
        }
        if session.trouble.is_some() {
            if self.config.breakage.is(Breakage::RejectionBlocks) {
                return Verdict::Watch(None);
            }
            return self.treat(now, session, limits);
        }
        let wait = session.pause_until.max(session.ask_after);
        if now < wait {
            // Who lacks nothing has nothing to do when the pause is over, either.
            return if self.is_done(session) { Verdict::Watch(None) } else { Verdict::Sleep(wait) };
        }
        let guarded = !self.config.breakage.is(Breakage::GuardIgnored);
        match session.position.base {
            Base::Unknown if guarded && now < session.guard_until => Verdict::Sleep(session.guard_until),
            Base::Unknown | Base::Nothing(None) => self.send_full(now, session, limits),
            _ if session.full_required && now >= session.guard_until => self.send_full(now, session, limits),
            Base::Log | Base::Nothing(Some(_)) => self.send_difference(now, session, limits),
        }
    }

    /// Whether a session that nothing is in flight to has nothing to do before the
    /// store moves.
    fn is_done(&self, session: &Session) -> bool {
        session.position.base == Base::Log
            && session.position.low == self.store.frontier()
            && session.sequence > 0
            && session.behind_since.is_none()
            && !session.full_required
    }

    /// Whoever was to find out which history it is now may have had no answer: that
    /// is asked again, once for all who wait.
    fn doubt_again(&mut self, now: Mono, session: &Session) -> Mono {
        if now >= self.doubt_at {
            self.doubt_at = now + DOUBT_AGAIN;
            if self.out_of_touch(now) {
                self.notice(Notice::OutOfTouch { since: self.in_touch });
            } else if let Ok(Version { incarnation, .. }) = session.told.parse() {
                self.notice(Notice::OtherHistory { gateway: session.gateway.clone(), incarnation });
            }
        }
        self.doubt_at
    }

    fn warn_ahead(&mut self, now: Mono, session: &mut Session) -> Mono {
        let again = session.warned_ahead.map_or(now, |at| at + WARN_AGAIN);
        if now < again {
            return again;
        }
        session.warned_ahead = Some(now);
        let high = session.origin.as_ref().map(|origin| origin.high()).unwrap_or_default();
        self.notice(Notice::AheadOfUs { gateway: session.gateway.clone(), high });
        now + WARN_AGAIN
    }

    /// The plan for a position, computed once per position and state of what gateways get:
    /// a frontier that has only moved over statuses changes nothing of it.
    pub(super) fn plan(&mut self, position: &Arc<Position>) -> &mut Plan {
        if self.planned_for != self.store.revised() {
            self.planned_for = self.store.revised();
            self.plans.clear();
        }
        let store = &self.store;
        let silent = self.config.breakage.is(Breakage::DeletionNotSent);
        self.plans.entry(position.id).or_insert_with(|| {
            let mut difference = difference(store, position);
            if silent {
                difference.items.retain(|item| !item.is_delete());
            }
            let since = position.since().unwrap_or_default();
            Plan {
                position: position.clone(),
                difference: Arc::new(difference),
                covered: Kind::ALL.into_iter().all(|kind| store.covers(kind, &since, &position.high)),
                increments: [None, None],
                full: [None, None, None, None],
                advanced: None,
                heartbeat: None,
            }
        })
    }

    fn send_difference(&mut self, now: Mono, session: &mut Session, limits: &mut dyn Limits) -> Verdict {
        let position = session.position.clone();
        // Who has a place among those that wait for a full synchronisation keeps it.
        if position.base == Base::Log
            && session.sequence > 0
            && session.turn.is_none()
            && let Some(until) = self.loud.until(now, &position.low)
        {
            return Verdict::Watch(Some(until));
        }
        let plan = self.plan(&position);
        let (covered, difference) = (plan.covered, plan.difference.clone());
        let mut wake = None;
        if !covered && !session.full_required {
            wake = Some(self.ask_history(now, &position));
        } else if !covered {
            wake = Some(session.guard_until);
        }
        let reset = session.sequence == 0;
        if difference.items.is_empty() && !reset {
            if covered {
                let advanced = self.advanced(&position);
                if advanced.id != position.id {
                    self.applied_changes += 1;
                    session.move_to(now, advanced);
                }
            }
            let refresh = self.refresh(now, session);
            return Verdict::Watch(earlier(wake, refresh));
        }
        if let Some((padding, saved)) = self.cheaper_full(now, session, &difference, covered) {
            if self.fulls < self.config.concurrent_full_syncs {
                let edge = self.full_edge(&position, &difference, padding, &[], reset);
                return self.send(now, session, edge, Purpose::Deliver, limits);
            }
            // What comes meanwhile is in the same message. However the turns go, it
            // waits for no longer than that is worth.
            let since = session.waits_since(now);
            let until = (since + saved * FULL_WORTH).min(since.max(self.full_ended)) + FULL_PATIENCE;
            if now < until {
                return Verdict::AwaitFull(Some(until));
            }
        }
        let edge = self.plan(&position).increments[usize::from(reset)].clone();
        let edge = edge.unwrap_or_else(|| {
            let edge = Arc::new(self.builder().increments(&position, &difference, covered, reset));
            self.plan(&position).increments[usize::from(reset)] = Some(edge.clone());
            edge
        });
        self.send(now, session, edge, Purpose::Deliver, limits)
    }

    /// Asks for the history that a position needs, once for all.
    fn ask_history(&mut self, now: Mono, position: &Position) -> Mono {
        let since = position.since().unwrap_or_default();
        for kind in Kind::ALL {
            let low = since.get(kind);
            let asked =
                self.asked.get(&kind).is_some_and(|(since, at)| *since <= low && now < *at + ASK_AGAIN);
            if !asked && !self.store.covers(kind, &since, &position.high) {
                self.asked.insert(kind, (low, now));
                self.queued.push(Action::NeedHistory { kind, since: low });
            }
        }
        now + ASK_AGAIN
    }

    /// The same configuration at the frontier: nothing that the position's
    /// scope includes has changed in between.
    fn advanced(&mut self, position: &Arc<Position>) -> Arc<Position> {
        let frontier = self.store.frontier();
        if let Some(advanced) = &self.plan(position).advanced
            && advanced.low == frontier
        {
            return advanced.clone();
        }
        let excluded = self.plan(position).difference.excluded.clone();
        let advanced = self.positions.intern(Position {
            base: Base::Log,
            low: frontier,
            high: frontier,
            reach: frontier,
            step: 0,
            ahead: Vec::new(),
            doubtful: Vec::new(),
            excluded,
            bereft: false,
            resumed: false,
            turn: None,
            ..Position::clone(position)
        });
        self.plan(position).advanced = Some(advanced.clone());
        advanced
    }

    /// Tells a gateway its version when it has been behind for a while, or at
    /// once when what it was told names an unfinished difference.
    fn refresh(&mut self, now: Mono, session: &mut Session) -> Option<Mono> {
        let behind_since = session.behind_since?;
        let due = if session.told.contains(['~', '-']) {
            behind_since
        } else {
            behind_since + self.config.version_refresh
        };
        if now < due {
            return Some(due);
        }
        let position = session.position.clone();
        let batch = self.plan(&position).heartbeat.clone().unwrap_or_else(|| {
            let batch = self.builder().heartbeat(&position);
            self.plan(&position).heartbeat = Some(batch.clone());
            batch
        });
        session.sequence += 1;
        session.told = position.version.clone();
        session.behind_since = None;
        session.heartbeats.push_back(position.version.clone());
        if session.heartbeats.len() > HEARTBEATS {
            session.heartbeats.pop_front();
        }
        let (id, first_sequence) = (session.id.clone(), session.sequence);
        self.queued.push(Action::Send { session: id, batch, first_sequence });
        None
    }

    /// Whether a full synchronisation is allowed and cheaper for a gateway
    /// that has a configuration: with which padding, and what that saves.
    fn cheaper_full(
        &self,
        now: Mono,
        session: &Session,
        difference: &Difference,
        covered: bool,
    ) -> Option<(Vec<(Kind, ObjectKey)>, Duration)> {
        let held = matches!(session.position.base, Base::Log) && covered && !session.no_full;
        let precise = difference.excluded.is_empty() && session.rejected.is_empty();
        if !held || !precise || difference.items.len() < 2 {
            return None;
        }
        let Totals { count, bytes } = self.total(&session.position);
        // It holds at most what is here now and what it is to remove.
        let deletes = difference.items.iter().filter(|item| item.is_delete());
        let padding: Vec<_> = if now < session.guard_until {
            deletes.map(|item| (item.kind, item.key.clone())).collect()
        } else {
            Vec::new()
        };
        let full_bytes = snapshot_bytes(bytes, &padding);
        if count == 0 || full_bytes > self.config.message_limit {
            return None;
        }
        let routes = difference.items.iter().filter(|item| item.kind.is_route()).count();
        let load = Load {
            routes,
            backends: difference.items.len() - routes,
            bytes: difference.items.iter().map(|item| item.bytes).sum(),
        };
        let back = session.sequence == 0;
        Some((padding, session.cost.full_saves(load, count, full_bytes, back)?))
    }

    /// What a gateway of this scope is to hold, all kinds together.
    pub fn total(&self, position: &Position) -> Totals {
        self.store.totals(&position.scope.scope).iter().fold(Totals::default(), |sum, totals| Totals {
            count: sum.count + totals.count,
            bytes: sum.bytes + totals.bytes,
        })
    }

    fn full_edge(
        &mut self,
        position: &Arc<Position>,
        difference: &Difference,
        padding: Vec<(Kind, ObjectKey)>,
        held: &[Arc<Resource>],
        reset: bool,
    ) -> Arc<Edge> {
        let variant = usize::from(!padding.is_empty()) + 2 * usize::from(reset);
        // What one gateway holds instead of what it rejected is its own.
        let shared = held.is_empty();
        if shared && let Some(edge) = self.plan(position).full[variant].clone() {
            return edge;
        }
        let scope = position.scope.clone();
        let lacking = self.config.breakage.is(Breakage::KindOmitted).then_some(Kind::GrpcBackend);
        let mut list: Vec<_> = self
            .store
            .entries(&scope.scope)
            .filter(|(_, resource)| Some(resource.kind) != lacking)
            .filter(|(entry, resource)| !difference.excluded.contains_key(&(resource.kind, entry.hash)))
            .map(|(entry, resource)| (resource.clone(), entry.mark))
            .chain(held.iter().map(|resource| (resource.clone(), Mark::default())))
            .collect();
        snapshot_order(&mut list);
        let edge = Arc::new(self.builder().full(position, difference, padding, list, reset));
        if shared {
            self.plan(position).full[variant] = Some(edge.clone());
        }
        edge
    }

    fn send_full(&mut self, now: Mono, session: &mut Session, limits: &mut dyn Limits) -> Verdict {
        let position = session.position.clone();
        let difference = self.plan(&position).difference.clone();
        let in_force = |(content, key): (&(Kind, u32), &ObjectKey)| {
            // Of what is not to be delivered at all, nothing is kept either.
            self.store.entry(content.0, key).filter(|entry| entry.outcome.is_ok())?;
            session.rejected.get(&(content.0, key.clone()))?.held.clone()
        };
        let held: Vec<_> = difference.excluded.iter().filter_map(in_force).collect();
        let reset = session.sequence == 0;
        let edge = self.full_edge(&position, &difference, Vec::new(), &held, reset);
        self.send(now, session, edge, Purpose::Deliver, limits)
    }

    pub fn send(
        &mut self,
        now: Mono,
        session: &mut Session,
        edge: Arc<Edge>,
        purpose: Purpose,
        limits: &mut dyn Limits,
    ) -> Verdict {
        let batch = edge.batch.clone();
        if batch.full && self.fulls >= self.config.concurrent_full_syncs {
            return Verdict::AwaitFull(None);
        }
        if let Err(later) = limits.admit(now, &session.gateway, batch.bytes) {
            session.ask_after = later;
            return Verdict::Sleep(later);
        }
        session.turn = None;
        if batch.full {
            self.fulls += 1;
        }
        let first_sequence = session.sequence + 1;
        session.sequence += i64::try_from(batch.updates.len()).unwrap_or(i64::MAX);
        if let Some(last) = batch.updates.last() {
            session.told = last.version.clone();
        }
        session.flight = Some(Flight {
            edge,
            purpose,
            next: 0,
            sent: now,
            progress: now,
            full_took: Duration::ZERO,
            increments_took: Duration::ZERO,
            increments: 0,
            rejected: Default::default(),
            unheard: Default::default(),
        });
        self.queued.push(Action::Send { session: session.id.clone(), batch, first_sequence });
        Verdict::Sleep(now + self.config.ack_timeout)
    }
}

fn earlier(one: Option<Mono>, other: Option<Mono>) -> Option<Mono> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

//! What the replica's gateways have applied, and the sessions as people see
//! them.

use std::collections::BTreeMap;

use super::engine::Engine;
use super::position::Base;
use super::session::Session;
use super::{AppliedRow, AppliedTable, Footprint, Rejection, Scope, SessionState, SessionView};
use crate::breakage::Breakage;
use crate::ids::{Frontier, GatewayId, Kind};

/// Up to this many gateways are named.
pub(crate) const NAMED: usize = 32;
/// Up to this many rejections are told in full.
const REJECTIONS: usize = 256;

impl Engine {
    pub fn applied_table(&self) -> AppliedTable {
        type Key<'a> = (&'a Scope, Frontier, Vec<(Kind, u32)>, bool);
        let mut rows: BTreeMap<Key<'_>, Vec<&GatewayId>> = BTreeMap::new();
        let mut rejections = Vec::new();
        for session in self.sessions.values() {
            let applied = self.applied(session);
            let unknown = applied.is_none();
            let (low, excluded) = applied.unwrap_or_default();
            for ((kind, key), rejected) in &session.rejected {
                if rejections.len() < REJECTIONS && excluded.contains(&(*kind, rejected.content)) {
                    rejections.push(Rejection {
                        kind: *kind,
                        key: key.clone(),
                        content: rejected.content,
                        gateway: session.gateway.clone(),
                        message: rejected.message.clone(),
                    });
                }
            }
            let key = (&session.scope.scope, low, excluded, unknown);
            rows.entry(key).or_default().push(&session.gateway);
        }
        let named = self.sessions.len() <= NAMED;
        let row = |((scope, low, excluded, unknown), gateways): (Key<'_>, Vec<&GatewayId>)| AppliedRow {
            scope: scope.clone(),
            low,
            excluded,
            unknown,
            gateways: u32::try_from(gateways.len()).unwrap_or(u32::MAX),
            names: if named { gateways.into_iter().cloned().collect() } else { Vec::new() },
        };
        AppliedTable { rows: rows.into_iter().map(row).collect(), rejections }
    }

    pub fn footprint(&self) -> Footprint {
        let edges = self.plans.values().flat_map(|plan| plan.increments.iter().chain(&plan.full));
        Footprint {
            plans: self.plans.len(),
            batch_bytes: edges.flatten().map(|edge| edge.batch.bytes).sum(),
            ahead: self
                .sessions
                .values()
                .map(|session| {
                    session.position.ahead.len() + session.position.doubtful.len() + self.queue(session)
                })
                .sum(),
            previous: self.store.previous_count(),
            tombstones: Kind::ALL.into_iter().map(|kind| self.store.tombstone_count(kind).0).sum(),
        }
    }

    /// With a queue per gateway: every revision that it has not seen.
    fn queue(&self, session: &Session) -> usize {
        let (frontier, low) = (self.store.frontier(), session.position.low);
        let unseen = |kind: Kind| frontier.get(kind).0.saturating_sub(low.get(kind).0);
        let queued = self.config.breakage.is(Breakage::QueuePerGateway) && session.flight.is_some();
        if queued { Kind::ALL.into_iter().map(unseen).sum::<u64>() as usize } else { 0 }
    }

    /// What counts as applied.
    fn applied(&self, session: &Session) -> Option<(Frontier, Vec<(Kind, u32)>)> {
        match &session.flight {
            Some(flight) if self.config.breakage.is(Breakage::SentCounted) => {
                Some((flight.edge.target.low, Vec::new()))
            }
            _ => applied(session),
        }
    }

    pub fn session_view(&self, session: &Session) -> SessionView {
        let frontier = self.store.frontier();
        let low = applied(session).map(|(low, _)| low);
        let behind = |kind: Kind| {
            let low = low.map_or(0, |low| low.get(kind).0);
            frontier.get(kind).0.saturating_sub(low)
        };
        let in_flight = session.flight.as_ref().map_or(0, |flight| flight.edge.batch.updates.len());
        let state = if session.flight.is_some() {
            SessionState::InFlight
        } else if session.origin.is_some() {
            SessionState::Waiting
        } else if session.position.base == Base::Unknown || session.full_required {
            SessionState::AwaitingFullSync
        } else {
            SessionState::Idle
        };
        SessionView {
            session: session.id.clone(),
            gateway: session.gateway.clone(),
            scope: session.scope.scope.clone(),
            low,
            high: session.origin.as_ref().map_or(session.position.high, |origin| origin.high()),
            lag: Kind::ALL.into_iter().map(behind).max().unwrap_or_default(),
            in_flight,
            pause_until: session.pause_until,
            state,
            rejections: session.rejected.len(),
            dialled: session.anchored,
        }
    }
}

fn applied(session: &Session) -> Option<(Frontier, Vec<(Kind, u32)>)> {
    match &session.origin {
        Some(origin) => origin.applied(),
        None if session.position.base == Base::Log && !session.position.bereft => {
            let excluded = session.position.excluded.keys().copied().collect();
            Some((session.position.low, excluded))
        }
        None => None,
    }
}

//! What gateways say: acknowledgements and heartbeats.

use std::collections::BTreeSet;
use std::time::Duration;

use super::edge::{Edge, Listing, is_last_good};
use super::engine::{Engine, Registration, Slot};
use super::position::Base;
use super::session::{Flight, Purpose, Session};
use super::{Ack, AckVerdict, Change, Notice, Update};
use crate::breakage::Breakage;
use crate::ids::{GatewayId, Kind, ObjectKey, SessionId};
use crate::time::Mono;

/// A gateway tries for up to 31 s to open its stream again; only after that a
/// heartbeat without stream is suspicious.
const STREAMLESS: Duration = Duration::from_secs(35);

impl Engine {
    pub fn acknowledged(&mut self, now: Mono, ack: Ack) -> AckVerdict {
        let Some(slot) = self.by_id.get(&ack.session).copied() else { return AckVerdict::UnknownSession };
        let Some(session) = self.sessions.get_mut(&slot) else { return AckVerdict::UnknownSession };
        if session.gateway != ack.gateway {
            return self.unexpected(ack.gateway, ack.version);
        }
        session.heard = now;
        let any = self.config.breakage.is(Breakage::OtherAckCounted);
        let counts = |flight: &Flight| flight.awaited(&ack.version).or(any.then_some(flight.next));
        let Some(index) = session.flight.as_ref().and_then(counts) else {
            if session.heartbeats.iter().any(|version| **version == *ack.version) {
                return AckVerdict::Taken;
            }
            return self.unexpected(ack.gateway, ack.version);
        };
        if let Some(flight) = &mut session.flight {
            flight.take(now, index, ack.result, ack.apply_duration);
        }
        self.finish_if_done(now, slot);
        AckVerdict::Taken
    }

    fn unexpected(&mut self, gateway: GatewayId, version: String) -> AckVerdict {
        self.notice(Notice::UnexpectedAck { gateway, version });
        AckVerdict::NeverSent
    }

    pub fn heartbeat(
        &mut self,
        now: Mono,
        session: &SessionId,
        gateway: &GatewayId,
        last_applied_version: &str,
    ) -> AckVerdict {
        if let Some(registration) = self.registrations.get_mut(gateway) {
            registration.at = registration.at.max(now);
        }
        let slot = self.by_id.get(session).copied();
        let Some((slot, known)) = slot.and_then(|slot| Some((slot, self.sessions.get_mut(&slot)?))) else {
            return self.streamless_heartbeat(now, session, gateway);
        };
        if known.gateway != *gateway {
            return AckVerdict::NeverSent;
        }
        known.heard = now;
        // The answer to an acknowledgement may get lost, the acknowledgement
        // itself too: what the gateway says it applied counts as well, unless
        // it has been its version since before.
        if let Some(flight) = &mut known.flight
            && *flight.edge.from.version != *last_applied_version
            && let Some(index) = flight.awaited(last_applied_version)
        {
            flight.take(now, index, Ok(()), Duration::ZERO);
            self.finish_if_done(now, slot);
        }
        AckVerdict::Taken
    }

    /// A heartbeat of a session that has no stream here.
    fn streamless_heartbeat(&mut self, now: Mono, session: &SessionId, gateway: &GatewayId) -> AckVerdict {
        if self.by_gateway.contains_key(gateway) {
            // Its stream is here under a newer session.
            return AckVerdict::Taken;
        }
        let ours = self.registrations.get(gateway).is_some_and(|known| known.session == *session);
        if !ours {
            return AckVerdict::UnknownSession;
        }
        self.suspect(now, gateway);
        AckVerdict::Taken
    }

    pub fn homeless_heartbeat(&mut self, now: Mono, gateway: &GatewayId) {
        if self.by_gateway.contains_key(gateway) {
            return;
        }
        self.registrations.entry(gateway.clone()).or_insert_with(|| Registration {
            session: "".into(),
            at: now,
            streamless_since: now,
            warned: None,
        });
        self.suspect(now, gateway);
    }

    fn suspect(&mut self, now: Mono, gateway: &GatewayId) {
        let every = self.config.heartbeat_interval * 3;
        let Some(registration) = self.registrations.get_mut(gateway) else { return };
        registration.at = now;
        let silent = registration.warned.is_some_and(|at| now < at + every);
        if now >= registration.streamless_since + STREAMLESS && !silent {
            registration.warned = Some(now);
            self.notice(Notice::Zombie { gateway: gateway.clone() });
        }
    }

    fn finish_if_done(&mut self, now: Mono, slot: Slot) {
        // Progress moves the deadline, so it is looked at in any case.
        self.touched.insert(slot);
        let Some(mut session) = self.sessions.remove(&slot) else { return };
        if session.flight.as_ref().is_some_and(Flight::done)
            && let Some(flight) = session.flight.take()
        {
            self.finish(now, &mut session, flight);
        }
        self.sessions.insert(slot, session);
    }

    /// A batch is acknowledged as a whole.
    fn finish(&mut self, now: Mono, session: &mut Session, flight: Flight) {
        let edge = flight.edge.clone();
        if edge.batch.full {
            self.full_ended(now);
        }
        self.applied_changes += 1;
        self.learn_cost(session, &flight);
        self.pause(now, session, &flight);
        self.queued.push(super::Action::Notice(Notice::Applied {
            gateway: session.gateway.clone(),
            took: now.since(flight.sent),
            updates: flight.changes_taken(),
            full: edge.batch.full,
        }));
        session.remember_unheard(&flight);
        session.rejected.retain(|key, rejected| {
            if !delivers(&edge, key, &flight) {
                return true;
            }
            // Who is gone because an older object claims the same is as bad as before
            // when it comes back.
            rejected.held = None;
            edge.target.excluded.contains_key(&(key.0, rejected.content))
        });
        if takes_over(&flight) {
            // It holds what the snapshot brought, nothing from before that.
            let store = &self.store;
            session.rejected.retain(|key, rejected| {
                let in_force = match flight.purpose {
                    Purpose::Deliver => edge.target.excluded.contains_key(&(key.0, rejected.content)),
                    _ => store.entry(key.0, &key.1).is_some_and(|entry| entry.hash == rejected.content),
                };
                in_force && !brings(&edge, key)
            });
        }
        if edge.batch.full && !session.rejected.is_empty() {
            // It may hold that, taken or not, and so nothing of what is not in there: to
            // put back what it held before would be a way back.
            let there: BTreeSet<_> =
                edge.snapshot.iter().map(|(resource, _)| (resource.kind, &resource.key)).collect();
            for ((kind, key), rejected) in &mut session.rejected {
                if !there.contains(&(*kind, key)) {
                    rejected.held = None;
                }
            }
        }
        match flight.purpose {
            Purpose::Repair => self.repaired(now, session, &flight),
            Purpose::Probe => self.probed(now, session, &flight),
            Purpose::Deliver if flight.rejected.is_empty() && !flight.misses_any() => {
                if edge.batch.full {
                    session.full_required = false;
                }
                for (index, update) in edge.batch.updates.iter().enumerate() {
                    match update.change.class() {
                        Some(class) => session.sound[class] = true,
                        None if matches!(update.change, Change::FullSync(_)) => {
                            session.sound = [!flight.unheard.contains(&index); 2];
                        }
                        None => {}
                    }
                }
                session.strikes = 0;
                session.move_to(now, edge.target.clone());
            }
            Purpose::Deliver => self.taken_in_part(now, session, &flight),
        }
    }

    fn learn_cost(&self, session: &mut Session, flight: &Flight) {
        let present = self.total(&session.position).count;
        if !flight.full_took.is_zero() {
            session.cost.full_took(flight.edge.snapshot.len(), flight.full_took);
        }
        if flight.increments > 0 && !flight.increments_took.is_zero() {
            session.cost.increments_took(flight.increments, present, flight.increments_took);
        }
    }

    /// The duty cycle: applying may take only a share of a gateway's time.
    fn pause(&self, now: Mono, session: &mut Session, flight: &Flight) {
        if flight.edge.from.base != Base::Log {
            return;
        }
        let took = flight.full_took + flight.increments_took;
        let factor = (1.0 / self.config.duty_cycle.clamp(0.001, 1.0)) - 1.0;
        let unbounded = self.config.breakage.is(Breakage::PauseUnbounded);
        let longest = if unbounded { 3_600.0 } else { self.config.max_pause.as_secs_f64() };
        let pause = Duration::from_secs_f64((took.as_secs_f64() * factor).min(longest));
        session.pause_until = now + pause;
    }
}

/// Whether everything that the gateway holds came with a snapshot that it took.
fn takes_over(flight: &Flight) -> bool {
    let taken = |(index, update): (usize, &Update)| {
        matches!(update.change, Change::FullSync(_)) && !flight.rejected.contains_key(&index)
    };
    flight.edge.batch.updates.iter().enumerate().any(taken)
}

/// Whether a snapshot has the present content of an object: a last good version has
/// no mark.
fn brings(edge: &Edge, (kind, key): &(Kind, ObjectKey)) -> bool {
    let present = |listing: &Listing| {
        let (resource, _) = listing;
        resource.kind == *kind && resource.key == *key && !is_last_good(listing)
    };
    edge.snapshot.iter().any(present)
}

/// Whether a batch brought the present content of an object, and it was taken. The
/// last good version of what it rejected is none.
fn delivers(edge: &Edge, (kind, key): &(Kind, ObjectKey), flight: &Flight) -> bool {
    edge.batch.updates.iter().zip(&edge.marks).enumerate().any(|(index, (update, mark))| {
        let it = match &update.change {
            Change::Upsert { resource, .. } => resource.kind == *kind && resource.key == *key,
            Change::Delete { kind: deleted, key: name } => deleted == kind && name == key,
            _ => false,
        };
        it && mark.is_some() && flight.took(index)
    })
}

impl Flight {
    /// Which update not yet acknowledged has this version. A later one than
    /// the next says that those before it were looked at: acknowledgements come
    /// in order.
    fn awaited(&self, version: &str) -> Option<usize> {
        let waiting = self.edge.batch.updates.iter().enumerate().skip(self.next);
        waiting.filter(|(_, update)| *update.version == *version).map(|(index, _)| index).next()
    }

    fn take(&mut self, now: Mono, index: usize, result: Result<(), String>, took: Duration) {
        match self.edge.batch.updates.get(index).map(|update| &update.change) {
            Some(Change::FullSync(_)) => self.full_took += took,
            Some(Change::Upsert { .. } | Change::Delete { .. }) => {
                self.increments_took += took;
                self.increments += 1;
            }
            _ => {}
        }
        if let Err(message) = result {
            self.rejected.insert(index, message);
        }
        self.unheard.extend(self.next..index);
        self.next = index + 1;
        self.progress = now;
    }

    /// Whether an increment's own answer was lost. It may have been rejected, as one
    /// that the gateway cannot decode although others are taken after it, or as one
    /// that makes all after it fail: it counts as not delivered and is sent again.
    pub(super) fn misses(&self, index: usize) -> bool {
        let increment = self.edge.batch.updates.get(index).and_then(|update| update.change.class());
        increment.is_some() && self.unheard.contains(&index)
    }

    fn misses_any(&self) -> bool {
        self.unheard.iter().any(|index| self.misses(*index))
    }

    /// Whether the gateway said that it took an update.
    pub(super) fn took(&self, index: usize) -> bool {
        !self.rejected.contains_key(&index) && !self.misses(index)
    }

    /// Updates that the gateway said it took, of those that change what it holds.
    fn changes_taken(&self) -> usize {
        let updates = self.edge.batch.updates.iter().enumerate();
        let changes =
            updates.filter(|(_, update)| !matches!(update.change, Change::Reset | Change::Heartbeat));
        changes.filter(|(index, _)| self.took(*index)).count()
    }

    /// Whether what a kind's last increment came to is not known.
    pub(super) fn ends_unheard(&self, kind: Kind) -> bool {
        let of_kind = |update: &Update| update.change.kind() == Some(kind);
        self.edge.batch.updates.iter().rposition(of_kind).is_some_and(|last| self.misses(last))
    }

    fn done(&self) -> bool {
        self.next == self.edge.batch.updates.len()
    }
}
